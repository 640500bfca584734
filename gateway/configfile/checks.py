"""What crosses tables: names, ports and drivers.

The checks read the tables as they stand in the files, so that a fault in one stanza hides none in another; what has
the wrong type was told already and is passed over.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from gateway.config import Console
from gateway.driver import Driver
from gateway.registry import create_driver
from gateway.typed import Address, Fault, KeyPath
from gateway.values import PORT_MAX, read_address

Tables = Mapping[str, Any]
Where = Callable[[KeyPath], str]

STREAMS = ("socket", "rfc2217", "tcp", "listen", "udp", "udp-host")


@dataclass(frozen=True)
class Finding:
    """A fault, or a warning where it is not certain; `offset` points into a text, such as a `when`."""

    fault: Fault
    certain: bool = True
    offset: int | None = None


@dataclass(frozen=True)
class Stanza:
    """One table of an array of tables, with where it stands in the whole."""

    path: KeyPath
    table: Tables

    def text(self, key: str) -> str | None:
        """Return a key's value where it is text."""
        value = self.table.get(key)
        return value if isinstance(value, str) else None

    def fault(self, key: str, text: str, *, certain: bool = True) -> Finding:
        """Return a finding at one of the stanza's keys."""
        return Finding(Fault((*self.path, key), text), certain)


def stanzas(tables: Tables, key: str) -> list[Stanza]:
    """Return the tables of `[[key]]`."""
    items = tables.get(key)
    if not isinstance(items, list):
        return []
    return [Stanza((key, index), item) for index, item in enumerate(items) if isinstance(item, dict)]


def name_findings(tables: Tables, where: Where) -> Iterator[Finding]:
    """Report names that two Sources or two Destinations bear."""
    for key in ("source", "destination"):
        first: dict[str, Stanza] = {}
        for stanza in stanzas(tables, key):
            name = stanza.text("name")
            if name is None:
                continue
            if name in first:
                yield stanza.fault("name", f"duplicate {key} name {name!r}, first at {_at(first[name], 'name', where)}")
            first.setdefault(name, stanza)


def listener_findings(tables: Tables, where: Where) -> Iterator[Finding]:
    """Report listeners that would open the same port; port 0 is any free one."""
    taken: list[tuple[Address, str]] = []
    console = tables.get("console")
    if isinstance(console, dict) and "listen" in console:
        taken += [(address, f"the console at {where(('console', 'listen'))}") for address in _address(console)]
    else:
        taken.append((Console().listen, "the console, which listens there unless [console] says otherwise"))
    for stanza in stanzas(tables, "source"):
        key = "port" if stanza.text("type") == "device" else "listen"
        for address in _address(stanza.table):
            for other, owner in taken:
                if _overlap(address, other):
                    yield stanza.fault(key, f"duplicate port: {address} is taken by {owner}")
                    break
            taken.append((address, f"source {stanza.text('name')!r} at {_at(stanza, key, where)}"))


def device_findings(tables: Tables, where: Where, drivers: Mapping[str, type[Driver]] | None) -> Iterator[Finding]:
    """Report Devices on one port, ports that cannot be opened, unknown drivers, and faults of their options."""
    taken: dict[str, Stanza] = {}
    for stanza in stanzas(tables, "source"):
        if stanza.text("type") != "device":
            continue
        yield from _driver_findings(stanza, drivers)
        port = stanza.text("port")
        if port is None:
            continue
        if reason := _port_fault(port):
            yield stanza.fault("port", reason)
        real = _real_port(port)
        if real in taken:
            text = f"duplicate port: {port!r} is taken by source {taken[real].text('name')!r}"
            yield stanza.fault("port", f"{text} at {_at(taken[real], 'port', where)}")
        if not port.startswith("replay:"):
            taken.setdefault(real, stanza)


def encoding_findings(tables: Tables) -> Iterator[Finding]:
    """Report encodings that Python does not know, or in which an HL7 message could not begin with MSH."""
    for stanza in stanzas(tables, "source"):
        encoding = stanza.text("encoding")
        if encoding is not None and not _is_encoding(encoding):
            yield stanza.fault("encoding", f"unknown encoding {encoding!r}; for example utf-8, iso-8859-1, shift_jis")


def _at(stanza: Stanza, key: str, where: Where) -> str:
    return where((*stanza.path, key))


def _address(table: Tables) -> list[Address]:
    port = table.get("port")
    listens = port.removeprefix("listen://") if isinstance(port, str) and port.startswith("listen://") else None
    try:
        return [read_address(text) for text in (table.get("listen"), listens) if text is not None]
    except ValueError:
        return []


def _overlap(one: Address, other: Address) -> bool:
    if one.port != other.port or one.port == 0:
        return False
    hosts = {"127.0.0.1" if address.host == "localhost" else address.host for address in (one, other)}
    return len(hosts) == 1 or any(_is_any(host) for host in hosts)


def _is_any(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _driver_findings(stanza: Stanza, drivers: Mapping[str, type[Driver]] | None) -> Iterator[Finding]:
    name, options = stanza.text("driver"), stanza.table.get("options", {})
    if name is not None and isinstance(options, dict):
        _, faults = create_driver(name, options, stanza.path, drivers)
        yield from map(Finding, faults)


def _port_fault(port: str) -> str | None:
    if port.startswith("replay:"):
        return None if port.removeprefix("replay:") else "expected a file's name after replay:"
    scheme, separator, rest = port.partition("://")
    if not separator:
        return None if port.startswith("/") else f"expected /dev/…, {'://…, '.join(STREAMS)}://… or replay:FILE"
    if scheme not in STREAMS:
        return f"unknown scheme {scheme!r}; known are {', '.join(STREAMS)}"
    endpoint = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})(?:[/?].*)?", rest)
    if endpoint is None or not 1 <= int(endpoint[2]) <= PORT_MAX:
        return f"expected {scheme}://host:port with a port from 1 to {PORT_MAX}"
    return None


def _real_port(port: str) -> str:
    """Return the device file behind the links that udev makes, so that two names of one port are seen as one."""
    return str(Path(port).resolve()) if port.startswith("/") else port


def _is_encoding(name: str) -> bool:
    try:
        return b"MSH|".decode(name) == "MSH|"
    except (LookupError, ValueError):
        return False
