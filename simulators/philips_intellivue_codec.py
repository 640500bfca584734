"""The bytes of the Philips data export interface, as a monitor makes them: frames, association, poll results."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

NAN = 0x007FFFFF
MDS, NUMERICS, WAVES, ENUMERATIONS, PATIENT, ALERTS = 0x21, 0x06, 0x09, 0x05, 0x2A, 0x36
SINGLE, EXTENDED = 0x0C16, 0xF13B
UNKNOWN_TIME = b"\xff" * 8

_ACCEPT = bytes.fromhex(
    "31 80 a0 80 80 01 01 00 00 a2 80 a0 03 00 00 01 a5 80"
    "30 80 80 01 00 81 02 51 01 00 00 30 80 80 01 00 81 0c"
    "2a 86 48 ce 14 02 01 00 00 00 02 01 00 00 00 00 61 80"
    "30 80 02 01 01 a0 80 61 80 a1 80 06 0c 2a 86 48 ce 14"
    "02 01 00 00 00 03 01 00 00 a2 03 02 01 00 a3 05 a1 03"
    "02 01 00 be 80 28 80 02 01 02 81"
)
REFUSE = bytes.fromhex("0c 03 32 01 00")
RELEASED = bytes.fromhex("0a 18 c1 16 61 80 30 80 02 01 01 a0 80 63 80 80 01 00 00 00 00 00 00 00 00 00")
ABORT = bytes.fromhex(
    "19 2e 11 01 03 c1 29 a0 80 a0 80 30 80 02 01 01 06 02 51 01 00 00 00 00"
    "61 80 30 80 02 01 01 a0 80 64 80 80 01 01 00 00 00 00 00 00 00 00 00 00"
)


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x8408 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def checksum(data: bytes) -> int:
    """Return the FCS: CRC-16/X-25."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFF


def frame(content: bytes, *, error: int = 0) -> bytes:
    """Put user data into a frame; `error` is mixed into the right checksum."""
    body = b"\x11\x01" + struct.pack(">H", len(content)) + content
    body += struct.pack("<H", checksum(body) ^ error)
    hidden = body.replace(b"\x7d", b"\x7d\x5d").replace(b"\xc0", b"\x7d\xe0").replace(b"\xc1", b"\x7d\xe1")
    return b"\xc0" + hidden + b"\xc1"


class Receiver:
    """Takes the client's frames apart; what is not sound is passed over, as a monitor does."""

    def __init__(self) -> None:
        self._bytes: bytearray | None = None
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the user data of the sound frames in the bytes so far."""
        contents = []
        for byte in data:
            if byte == 0xC0:
                self._bytes, self._escaped = bytearray(), False
            elif self._bytes is None:
                continue
            elif byte == 0xC1:
                content = None if self._escaped else _content(bytes(self._bytes))
                self._bytes = None
                if content is not None:
                    contents.append(content)
            elif byte == 0x7D:
                self._escaped = True
            else:
                self._bytes.append(byte ^ 0x20 if self._escaped else byte)
                self._escaped = False
        return contents


def _content(body: bytes) -> bytes | None:
    if len(body) < 6 or body[:2] != b"\x11\x01" or struct.unpack_from(">H", body, 2)[0] != len(body) - 6:
        return None
    return body[4:-2] if struct.unpack("<H", body[-2:])[0] == checksum(body[:-2]) else None


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked: command 3 get, 5 set, 7 action. Of a poll its number, class and group."""

    invoke: int
    command: int
    action: int = 0
    number: int = 0
    polled: int = 0
    group: int = 0
    period_ticks: int = 0
    texts: tuple[int, ...] = ()


def request(content: bytes) -> Request | None:
    """Read a client's request, None for anything else."""
    if content[:4] != b"\xe1\x00\x00\x02" or len(content) < 28 or content[4:6] != b"\x00\x01":
        return None
    invoke, command = struct.unpack_from(">HH", content, 8)
    if command == 5:
        count = struct.unpack_from(">H", content, 34)[0]
        return Request(invoke, command, texts=struct.unpack_from(f">{count}I", content, 38))
    if command != 7:
        return Request(invoke, command)
    action, _, number, _, polled, group = struct.unpack_from(">HHHHHH", content, 24)
    period = struct.unpack_from(">I", content, 44)[0] if action == EXTENDED and len(content) >= 48 else 0
    return Request(invoke, command, action, number, polled, group, period)


def requested(content: bytes) -> tuple[int, int]:
    """Return the extended options and the MTU that an Association Request asks for."""
    at = content.index(b"\xf0\x01\x00\x08") + 4
    support = content.index(b"\x00\x01\x00\x28") + 4
    return struct.unpack_from(">I", content, at)[0], struct.unpack_from(">I", content, support + 8)[0]


def accept(
    *, period_ticks: int, mtu_receive: int, mtu_transmit: int, extensions: int, startup: int = 0x80000000
) -> bytes:
    """Return an Association Accept."""
    profile = struct.pack(">IIIIII", 0x80000000, period_ticks, mtu_receive, mtu_transmit, 0xFFFFFFFF, 0x60000000)
    profile += listing(attribute(0xF001, struct.pack(">II", extensions, 0)))
    user = struct.pack(">IIIIII", 0x80000000, 0x40000000, 0, 0x00800000, startup, 0) + listing(attribute(1, profile))
    body = _ACCEPT + bytes((len(user),)) + user + bytes(16)
    session = bytes.fromhex("05 08 13 01 00 16 01 02 80 00 14 02 00 02 c1") + bytes((len(body),)) + body
    return b"\x0e" + bytes((len(session),)) + session


def attribute(identity: int, value: bytes) -> bytes:
    """Return an attribute."""
    return struct.pack(">HH", identity, len(value)) + value


def listing(*elements: bytes) -> bytes:
    """Return a list: count, length, elements."""
    joined = b"".join(elements)
    return struct.pack(">HH", len(elements), len(joined)) + joined


def number(value: float | None, decimals: int = 0) -> bytes:
    """Return a FLOAT-Type with so many decimals; None is NaN."""
    if value is None:
        return struct.pack(">I", NAN)
    mantissa = round(value * 10**decimals)
    return struct.pack(">I", (-decimals & 0xFF) << 24 | mantissa & 0xFFFFFF)


def observed(physio: int, state: int, unit: int, value: float | None, decimals: int = 0) -> bytes:
    """Return a numeric observed value."""
    return struct.pack(">HHH", physio, state, unit) + number(value, decimals)


def text(content: str) -> bytes:
    """Return a String."""
    wide = content.encode("utf-16-be") + b"\0\0"
    return struct.pack(">H", len(wide)) + wide


def label(content: str) -> bytes:
    """Return a VariableLabel, padded to an even length."""
    data = content.encode("ascii") + b"\0"
    data += b"\0" * (len(data) & 1)
    return struct.pack(">H", len(data)) + data


def clock(at: datetime) -> bytes:
    """Return an AbsoluteTime."""
    return bytes.fromhex(f"{at:%Y%m%d%H%M%S}00")


def samples(physio: int, state: int, data: bytes) -> bytes:
    """Return a sample array."""
    return struct.pack(">HHH", physio, state, len(data)) + data


def alarm(
    source: int, code: int, kind: int, state: int, handle: int, said: str, *, instance: int, identity: int, flags: int
) -> bytes:
    """Return an entry of an alarm list with its text."""
    info = struct.pack(">HIHH", instance, identity, 0, flags) + text(said)
    return struct.pack(">HHHHHHHHH", source, code, kind, state, 6, 1, handle, 0x0204, len(info)) + info


def data(kind: int, invoke: int, command: int, body: bytes, link: bytes = b"") -> bytes:
    """Return a data message."""
    rest = link + struct.pack(">HHH", invoke, command, len(body)) + body
    return b"\xe1\x00\x00\x02" + struct.pack(">HH", kind, len(rest)) + rest


def mds_create(invoke: int, ticks: int, attributes: Sequence[bytes]) -> bytes:
    """Return an MDS Create Event."""
    listed = struct.pack(">HHH", MDS, 0, 0) + listing(*attributes)
    return data(1, invoke, 1, struct.pack(">HHHIHH", MDS, 0, 0, ticks, 0x0D06, len(listed)) + listed)


def connect_indication(ticks: int, attributes: Sequence[bytes]) -> bytes:
    """Return the user data by which a monitor announces itself on a LAN."""
    listed = listing(*attributes)
    message = data(1, 0, 0, struct.pack(">HHHIHH", 0x23, 0, 0, ticks, 0x0D17, len(listed)) + listed)
    return b"\x00\x00\x01\x00" + message[4:]


def priority_list(invoke: int, command: int, texts: Sequence[int]) -> bytes:
    """Return the result of a GET (3) or SET (5) of the wave priority list."""
    value = struct.pack(f">HH{len(texts)}I", len(texts), 4 * len(texts), *texts)
    return data(2, invoke, command, struct.pack(">HHH", MDS, 0, 0) + listing(attribute(0xF23A, value)))


def refused_action(invoke: int, action: int, error: int = 15) -> bytes:
    """Return a remote operation error about an action (15: invalid argument value)."""
    body = struct.pack(">HHHHH", MDS, 0, 0, action, 0)
    return b"\xe1\x00\x00\x02" + struct.pack(">HHHHH", 3, 6 + len(body), invoke, error, len(body)) + body


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a poll result: where it is and its attributes."""

    context: int
    handle: int
    attributes: tuple[bytes, ...] = ()

    def encoded(self) -> bytes:
        """Return handle and attribute list."""
        return struct.pack(">H", self.handle) + listing(*self.attributes)


@dataclass(frozen=True, slots=True)
class Reply:
    """What all messages of one poll result share; `sequence` None is a single poll's."""

    invoke: int
    number: int
    sequence: int | None
    ticks: int
    polled: int
    group: int

    def messages(self, things: Sequence[Thing], mtu: int, contexts: Sequence[int] = (0, 1)) -> list[bytes]:
        """Return the result in one message, or linked ones closed by an empty one where it is larger than the MTU."""
        whole = data(2, self.invoke, 7, self._body(things, contexts))
        if len(whole) <= mtu:
            return [whole]
        parts = list(_parts(things, mtu - 80))
        linked = []
        for place, part in enumerate(parts, 1):
            state = 1 if place == 1 else 3 if place == len(parts) else 2
            linked.append(data(5, self.invoke, 7, self._body(part, ()), bytes((state, place))))
        return [*linked, data(2, self.invoke, 7, self._body((), ()))]

    def _body(self, things: Sequence[Thing], contexts: Sequence[int]) -> bytes:
        counted = struct.pack(">H", self.number) + (b"" if self.sequence is None else struct.pack(">H", self.sequence))
        head = counted + struct.pack(">I8sHHH", self.ticks, UNKNOWN_TIME, 1, self.polled, self.group)
        reply = head + _contexts(things, contexts)
        action = SINGLE if self.sequence is None else EXTENDED
        return struct.pack(">HHHHH", MDS, 0, 0, action, len(reply)) + reply


def _contexts(things: Sequence[Thing], contexts: Sequence[int]) -> bytes:
    numbers = sorted({thing.context for thing in things} | set(contexts))
    return listing(
        *(struct.pack(">H", at) + listing(*(one.encoded() for one in things if one.context == at)) for at in numbers)
    )


def _parts(things: Iterable[Thing], room: int) -> Iterator[list[Thing]]:
    part: list[Thing] = []
    used = 0
    for thing in things:
        size = len(thing.encoded())
        if part and used + size > room:
            yield part
            part, used = [], 0
        part.append(thing)
        used += size
    yield part
