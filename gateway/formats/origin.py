"""Where a Message comes from, as the feeds name it: gateway, Source, bed and device identity.

A Device that brings no EUI-64 of its own gets a locally administered one, derived by hash from the names of gateway
and Source: stable over restarts, the same on every feed, and never the address of a real card.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from gateway.model import Message

_LOCAL_BIT, _GROUP_BIT = 0x02, 0x01  # IEEE 802: first octet, locally administered and individual
_NOT_LEVEL = re.compile(r"[^A-Za-z0-9._-]")
_NOT_GATEWAY = re.compile(r"[^a-z0-9-]")
_BED_PARTS = ("point_of_care", "room", "bed")  # PL-1 to PL-3 (pv1-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One Source as the feeds name it.

    `bed` is written as in PV1-3: point of care ^ room ^ bed, optionally ^ facility. `device_id` and `gateway_eui64`
    are EUI-64 identifiers: 16 upper-case hex digits.
    """

    gateway: str
    facility: str
    source: str
    bed: str
    device_id: str
    gateway_eui64: str

    def place(self) -> dict[str, str]:
        """Return the known parts of the bed by name: point_of_care, room, bed, facility."""
        parts = self.bed.split("^")
        named = dict(zip((*_BED_PARTS, "facility"), parts, strict=False))
        if self.bed and not named.get("facility"):
            named["facility"] = self.facility
        return {name: part for name, part in named.items() if part}


Origins = Callable[[Message], Origin]


def device_id_of(gateway: str, source: str) -> str:
    """Return the stable, locally administered EUI-64 of a Source: 16 upper-case hex digits.

    The gateway itself is the Source without a name.
    """
    octets = bytearray(hashlib.sha256(f"{gateway}\0{source}".encode()).digest()[:8])
    octets[0] = (octets[0] | _LOCAL_BIT) & ~_GROUP_BIT
    return octets.hex().upper()


def topic_level(text: str) -> str:
    """Return a text as one MQTT topic level; what a configured name may hold stays as it is."""
    return _NOT_LEVEL.sub("-", text) or "-"


def gateway_level(text: str) -> str:
    """Return a gateway's name as the feeds write it: lower case, digits, hyphens, at most 32 characters."""
    return _NOT_GATEWAY.sub("-", text.lower())[:32] or "-"
