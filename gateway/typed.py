"""Tables become dataclasses, and every fault is told with its path.

Placeholder types stand here first so that the schema can be written; see `build`.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import NewType

Size = NewType("Size", int)  # bytes; written as "512 MiB" or a number
Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Address:
    """Where to listen: host and port, written as "0.0.0.0:2575" or "[::]:2575"."""

    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Secret:
    """The name of a secret, never its value: a systemd credential, an environment variable, or a file."""

    credential: str | None = None
    env: str | None = None
    file: Path | None = None
