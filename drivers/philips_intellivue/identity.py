"""Who the monitor is: the MDS attributes, and the Connect Indication by which it announces itself on a LAN.

Sheet sections 9 and 15. The model in the MDS Create Event is "M8000" on every captured monitor; the real product code
stands in the Connect Indication and in the production specification (092D).
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from struct import Struct

from drivers.philips_intellivue.messages import (
    CONNECT_INDICATION,
    CONNECTION_ANNOUNCED,
    DATA,
    data_message,
    event,
)
from drivers.philips_intellivue.values import attributes, elements, label_of, labels_of, u16, u32, wide_text
from gateway.driver import DeviceIdentity
from gateway.errors import ContentError

SYSTEM_ID, MODEL, PRODUCTION = 0x0984, 0x0928, 0x092D
MODE, AREA, TIME, TICKS = 0x0946, 0x090D, 0x0987, 0x098F
NETWORK, PROTOCOLS, BED_LABEL = 0xF100, 0xF101, 0xF135
DEMO_MODE, SERVICE_MODE, STANDBY_MODE, CONFIGURATION_MODE = 0x2000, 0x1000, 0x0002, 0x0001

DATA_EXPORT, ASSOCIATION, UDP = 5, 1, 1  # applications and transport of the protocol support list
SERIAL_NUMBER, PART_NUMBER, SOFTWARE, PRODUCT_CODE = 1, 2, 4, 9
PRODUCT, APPLICATION_SOFTWARE = 0x0008, 0x0058

_ENTRY = Struct(">HHH")
_PROTOCOL = Struct(">HHHH")
_GENERIC_MODEL = "M8000"
_MAC_BYTES, _EUI_BYTES = 6, 8
_UNKNOWN = DeviceIdentity(manufacturer="Philips")


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a Connect Indication says: who the monitor is and where it takes associations."""

    device: DeviceIdentity
    address: str | None = None
    port: int | None = None
    bed_label: str | None = None
    ticks: int = 0


@dataclass(slots=True)
class MonitorIdentity:
    """What is known of the monitor so far; attributes of later messages complete it."""

    device: DeviceIdentity = _UNKNOWN
    mode: int | None = None

    def learn(self, values: dict[int, bytes]) -> None:
        """Take the attributes of the MDS object. Raises ContentError when one is cut short."""
        self.device = identity_of(values, self.device)
        if (mode := values.get(MODE)) is not None:
            self.mode = u16(mode, 0)

    def forget(self) -> None:
        """Take notice that it may be another monitor; a demonstration is one until the monitor says otherwise."""
        self.device = _UNKNOWN


def identity_of(values: dict[int, bytes], known: DeviceIdentity) -> DeviceIdentity:
    """Return an identity completed by MDS attributes. Raises ContentError when one is cut short."""
    labels = labels_of(values[MODEL]) if MODEL in values else ()
    made = _production(values.get(PRODUCTION))
    model = made.get((PRODUCT_CODE, PRODUCT)) or _better(known.model, labels[1] if len(labels) > 1 else None)
    return DeviceIdentity(
        manufacturer=(labels[0] if labels else None) or known.manufacturer,
        model=model,
        serial=made.get((SERIAL_NUMBER, PRODUCT)) or known.serial,
        software=made.get((SOFTWARE, APPLICATION_SOFTWARE)) or known.software,
        eui64=_eui64(values.get(SYSTEM_ID)) or known.eui64,
    )


def read_announcement(datagram: bytes) -> Announcement:
    """Read a Connect Indication (UDP port 24005). Raises ContentError for anything else."""
    if not datagram.startswith(CONNECT_INDICATION):
        raise ContentError("no Connect Indication")
    told = event(data_message(DATA + datagram[len(DATA) :]).body)
    if told.kind != CONNECTION_ANNOUNCED:
        raise ContentError("no Connect Indication")
    values = dict(attributes(elements(told.body)[1]))
    return Announcement(
        device=identity_of(values, _UNKNOWN),
        address=_address(values.get(NETWORK)),
        port=_port(values.get(PROTOCOLS)),
        bed_label=wide_text(values.get(BED_LABEL, b"")) or None,
        ticks=told.ticks,
    )


def _better(known: str | None, said: str | None) -> str | None:
    """Return the model: the generic one never takes the place of a product code."""
    return known if said in (None, "", _GENERIC_MODEL) and known is not None else said


def _production(data: bytes | None) -> dict[tuple[int, int], str]:
    if data is None:
        return {}
    made, entries, at = {}, elements(data)[1], 0
    while at < len(entries):
        kind, component = u16(entries, at), u16(entries, at + 2)
        size = u16(entries, at + 4)
        at += _ENTRY.size
        if at + size > len(entries):
            raise ContentError("a production specification that is cut short")
        made[kind, component] = label_of(entries[at : at + size])
        at += size
    return made


def _eui64(data: bytes | None) -> str | None:
    """Return a system id (length, then a MAC address or an EUI-64) as EUI-64."""
    if data is None:
        return None
    size = u16(data, 0)
    digits = data[2 : 2 + size]
    if len(digits) == _MAC_BYTES:
        digits = digits[:3] + b"\xff\xfe" + digits[3:]
    return digits.hex().upper() if len(digits) == _EUI_BYTES else None


def _address(data: bytes | None) -> str | None:
    if data is None or len(data) < _MAC_BYTES + 4:
        return None
    return str(IPv4Address(data[_MAC_BYTES : _MAC_BYTES + 4]))


def _port(data: bytes | None) -> int | None:
    """Return the UDP port of data export, else that of association."""
    if data is None:
        return None
    ports: dict[int, int] = {}
    entries = elements(data)[1]
    for at in range(0, len(entries) - _PROTOCOL.size + 1, _PROTOCOL.size):
        application, transport, port, _ = _PROTOCOL.unpack_from(entries, at)
        if transport == UDP:
            ports.setdefault(application, port)
    return ports.get(DATA_EXPORT) or ports.get(ASSOCIATION)


def clock_pair(values: dict[int, bytes], ticks: int) -> tuple[bytes, int] | None:
    """Return the attributes that pair absolute with relative time, None where the absolute one is missing."""
    if TIME not in values:
        return None
    return values[TIME], u32(values[TICKS], 0) if TICKS in values else ticks
