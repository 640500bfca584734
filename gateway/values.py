"""Values that configuration writes as text: sizes, addresses, networks, names of secrets.

Each `read_…` turns what TOML gave into the value, or raises ValueError with a text that says what was expected and
what came. `typed.py` puts the place before it.
"""

import re
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import NewType

Size = NewType("Size", int)  # bytes; written as "512 MiB" or a number
Network = IPv4Network | IPv6Network

SIZE_MAX = (1 << 63) - 1  # what the store can count
PORT_MAX = 65535
SHOWN_CHARS_MAX = 60

_UNITS = {"": 1, "b": 1} | {
    letter.lower() + suffix: base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)", re.ASCII)
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)
_CREDENTIAL = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,255}", re.ASCII)  # a file's name under $CREDENTIALS_DIRECTORY


@dataclass(frozen=True)
class Address:
    """Where to listen: host and port, written as "0.0.0.0:2575" or "[::]:2575"; port 0 takes any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Secret:
    """The name of a secret, never its value: a systemd credential, an environment variable, or a file."""

    credential: str | None = None
    env: str | None = None
    file: Path | None = None


def shown(raw: object) -> str:
    """Return what TOML gave, in words for a fault's text, cut to a line's length."""
    match raw:
        case bool():
            return str(raw).lower()
        case str():
            return f"the text {_cut(repr(raw))}"
        case int() | float():
            return f"the number {_cut(repr(raw))}"
        case list():
            return "a list"
        case dict():
            return "a table"
    return f"the {type(raw).__name__} {raw}"


def read_size(raw: object) -> Size:
    """Return bytes from a whole number or from text such as "512 MiB", "2 GB", "1.5 GiB"."""
    expected = f'expected a size such as "512 MiB" or a number of bytes, got {shown(raw)}'
    if isinstance(raw, int) and not isinstance(raw, bool):
        size = raw
    elif isinstance(raw, str) and (match := _SIZE.fullmatch(raw.strip())) and match[2].lower() in _UNITS:
        size = _scaled(match[1], _UNITS[match[2].lower()])
    else:
        raise ValueError(expected)
    if not 0 <= size <= SIZE_MAX:
        raise ValueError(expected)
    return Size(size)


def read_address(raw: object) -> Address:
    """Return host and port from "0.0.0.0:2575", "[::1]:2575" or "localhost:2575"."""
    expected = f'expected "host:port" such as "0.0.0.0:2575", got {shown(raw)}'
    if not isinstance(raw, str):
        raise ValueError(expected)
    host, colon, port = raw.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,6}", port):
        raise ValueError(expected)
    if int(port) > PORT_MAX:
        raise ValueError(f"the port must be at most {PORT_MAX}, got {port}")
    return Address(_host(host, expected), int(port))


def read_network(raw: object) -> Network:
    """Return a network from CIDR ("10.1.0.0/16") or from a single address."""
    if not isinstance(raw, str):
        raise ValueError(f'expected a network such as "10.1.0.0/16", got {shown(raw)}')
    try:
        return ip_network(raw)
    except ValueError:
        pass
    try:
        wider = ip_network(raw, strict=False)
    except ValueError:
        raise ValueError(f'expected a network such as "10.1.0.0/16" or one address, got {shown(raw)}') from None
    raise ValueError(f"{shown(raw)} has bits beside its mask (did you mean '{wider}'?)")


def read_secret(raw: object) -> Secret:
    """Return the name of a secret from a table of exactly one of `credential`, `env`, `file`; never show a value."""
    ways = '{ credential = "…" }, { env = "…" } or { file = "…" }'
    if not isinstance(raw, dict):
        raise ValueError(f"a secret is never written in this file, because the file is copied and shown: write {ways}")
    known = {field.name for field in fields(Secret)}
    if len(raw) != 1 or not raw.keys() <= known:
        raise ValueError(f"expected exactly one of {ways}")
    ((way, name),) = raw.items()
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"expected the name of the secret as text: {ways}")
    if way == "credential" and not _CREDENTIAL.fullmatch(name):
        raise ValueError("the name of a credential has letters, digits, '.', '_' and '-' only")
    if way == "file":
        return Secret(file=Path(name))
    return Secret(credential=name) if way == "credential" else Secret(env=name)


def _host(text: str, expected: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError(expected) from None
    if ":" in text:
        raise ValueError(f'{expected}; an IPv6 address stands in brackets: "[::1]:2575"')
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return str(ip_address(text))
        except ValueError:
            raise ValueError(expected) from None
    if not _HOST.fullmatch(text):
        raise ValueError(expected)
    return text


def _scaled(digits: str, factor: int) -> int:
    """Return digits times factor without the rounding of floats, rounded down."""
    whole, _, fraction = digits.partition(".")
    return int(whole) * factor + int(fraction or "0") * factor // int(f"1{'0' * len(fraction)}")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[: SHOWN_CHARS_MAX - 1]}…"
