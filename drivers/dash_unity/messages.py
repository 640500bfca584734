"""Messages of the GE "Unity" network: header, bed message, alarm broadcast, discovery broadcast.

GE never published this protocol. What stands here rests on public reverse engineering (mdpnp, gedash) and one capture
of a Dash 4000; see docs/devices/dash-unity.md. Numbers are big endian.

    bed message     outer header | inner header | head of 6 bytes | entries of equal length, one a parameter
    alarm           header | 24 bytes
    discovery       88 bytes of its own, no header
"""

import struct
from dataclasses import dataclass

from gateway.errors import ContentError

HEADER_BYTES = 60
HEAD_BYTES = 6
ENTRY_BYTES = (70, 68)  # on UDP; by the serial parser of mdpnp
REQUEST, DATA = 202, 201  # function codes
NUMERICS_STREAM, WAVE_STREAM = 96, 33  # sub codes of requests
BED_MESSAGE, ALARM = 20, 4  # sub codes of data
DISCOVERY_BYTES, ALARM_BYTES = 88, 84
NUMERICS_ID, WAVES_ID = 0x29, 0x0B  # how the requester's two streams are told apart
REQUEST_VERSION = 6
NAME_BYTES = 32

_HEADER = struct.Struct(">12sHHHHHH32sHH")
_ENTRY = struct.Struct(">BBH3hBB6hBB2H6hhBB6BHBB4hBBBB")  # 68 bytes; two more follow on UDP
_ALARM = struct.Struct(">BBBBH14sI")
_DISCOVERY_MARK = b"\x01\x04\x00\x00"
_FUNCTION_VALUES, _FUNCTION_SETUP = 0x01, 0x03


@dataclass(frozen=True, slots=True)
class Header:
    """The 60 bytes before every message but the discovery broadcast."""

    function: int
    sub: int
    number: int
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One parameter of a bed message: three values, their limits (low, high), and numbers of messages on the screen."""

    code: int
    status: int
    values: tuple[int, int, int]
    limits: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    messages: tuple[int, ...]
    kind: int


@dataclass(frozen=True, slots=True)
class BedMessage:
    """What the screen shows."""

    number: int
    alarm_state: int
    alarm_level: int
    is_admitted: bool
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class AlarmCall:
    """One alarm as the monitor tells it to the network, every 2 s while it stands; its state byte is not understood."""

    level: int
    code: int
    text: str
    location: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """A monitor's presence. The patient's name that travels with it is not read."""

    clock: int
    location: str


def request(sub: int, requester: int, location: str, addresses: bytes = bytes(12)) -> bytes:
    """Return a request for a stream; the monitor does not look at the addresses."""
    name = location.encode("ascii")[: NAME_BYTES - 1]
    return _HEADER.pack(addresses, REQUEST, sub, REQUEST_VERSION, 0, 0, requester, name, 0, 0) + b"\0\0"


def header_of(data: bytes) -> Header | None:
    """Read the header, None where there is none of a data message."""
    if len(data) < HEADER_BYTES:
        return None
    _, function, sub, _, number, _, _, name, _, count = _HEADER.unpack_from(data)
    if function != DATA:
        return None
    return Header(function, sub, number, _text(name), count)


def read_bed(data: bytes) -> BedMessage:
    """Read a bed message with one or two headers.

    Raises ContentError when lengths do not agree or an entry is no parameter: there is no checksum to rely on.
    """
    header = header_of(data)
    if header is None or header.sub != BED_MESSAGE:
        raise ContentError("no bed message")
    body = data[HEADER_BYTES:]
    if len(body) != header.count:
        raise ContentError(f"a bed message of {len(body)} bytes after the header, which promises {header.count}")
    inner = header_of(body)
    if inner is not None and inner.sub == BED_MESSAGE:
        header, body = inner, body[HEADER_BYTES:]
        if len(body) != header.count:
            raise ContentError(f"a bed message of {len(body)} bytes inside, the header promises {header.count}")
    return _read_body(header, body)


def _read_body(header: Header, body: bytes) -> BedMessage:
    if len(body) < HEAD_BYTES:
        raise ContentError("a bed message without a head")
    state, level, _, admission, count, _ = body[:HEAD_BYTES]
    size, rest = divmod(len(body) - HEAD_BYTES, count) if count else (ENTRY_BYTES[0], len(body) - HEAD_BYTES)
    if rest or size not in ENTRY_BYTES:
        raise ContentError(f"{count} parameters in {len(body) - HEAD_BYTES} bytes")
    entries = tuple(_read_entry(body, HEAD_BYTES + number * size) for number in range(count))
    return BedMessage(header.number, state, level, admission == 1, entries)


def _read_entry(body: bytes, at: int) -> Entry:
    found = _ENTRY.unpack_from(body, at)
    function, code, status, *values = found[:6]
    setup, setup_code = found[14:16]
    limits, messages = found[18:24], found[27:33]
    kind, kind_code = found[40:42]
    if function != _FUNCTION_VALUES or setup != _FUNCTION_SETUP or not code == setup_code == kind_code:
        raise ContentError("an entry that is no parameter")
    low_high = ((limits[0], limits[1]), (limits[2], limits[3]), (limits[4], limits[5]))
    return Entry(code, status, (values[0], values[1], values[2]), low_high, messages[1::2], kind)


def read_alarm(data: bytes) -> AlarmCall:
    """Read an alarm broadcast. Raises ContentError when its length does not agree."""
    header = header_of(data)
    if header is None or header.sub != ALARM or len(data) != ALARM_BYTES:
        raise ContentError("no alarm broadcast")
    _, level, _, code, _, text, _ = _ALARM.unpack_from(data, HEADER_BYTES)
    return AlarmCall(level, code, _text(text), header.name)


def is_discovery(data: bytes) -> bool:
    """Tell whether a datagram is a discovery broadcast."""
    return len(data) == DISCOVERY_BYTES and data.startswith(_DISCOVERY_MARK)


def read_discovery(data: bytes) -> Discovery:
    """Read a discovery broadcast."""
    return Discovery(int.from_bytes(data[8:12], "big"), _text(data[12:28]))


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("latin-1").strip()
