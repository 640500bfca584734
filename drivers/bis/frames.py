"""Frames of the BIS VISTA binary protocol, little-endian (the layout of one public program; no manual is public).

    BA AB | sequence 2 | length 2 | type 2 | routing 4, message id 4, sequence 2, size 2, message | checksum 2

The length counts from the routing id to the end of the message; the checksum is the 16-bit sum of all bytes between
`BA AB` and itself. Only the length says where a frame ends: `BA AB` may stand inside the data. Where a frame proves
unsound, the search goes on one byte further.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from gateway.errors import FrameError

MARK = b"\xba\xab"
ROUTING = 4
MESSAGE_BYTES_MAX = 1400  # the longest described has 532; raw EEG at 256 samples a second would have 1028
HEAD_BYTES, INNER_BYTES, SUM_BYTES = 8, 12, 2
FRAME_BYTES_MAX = HEAD_BYTES + INNER_BYTES + MESSAGE_BYTES_MAX + SUM_BYTES

_HEAD = struct.Struct("<2sHHH")
_INNER = struct.Struct("<IIHH")


class PacketType(IntEnum):
    """What a frame is."""

    DATA = 1
    ACK = 2
    NAK = 3


class MessageId(IntEnum):
    """What a data frame carries."""

    RAW_EEG = 0x32
    PROCESSED = 0x34
    PROCESSED_AND_SPECTRA = 0x35
    START_RAW_EEG = 0x6F
    STOP_RAW_EEG = 0x70
    START_PROCESSED = 0x73
    STOP_PROCESSED = 0x74


@dataclass(frozen=True, slots=True)
class Frame:
    """One sound frame; of ACK and NAK the message id is None. `raw` is all of it."""

    type: PacketType
    sequence: int
    message_id: int | None
    message: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Noise:
    """Bytes that belong to no sound frame."""

    data: bytes


def encode(message_id: int, message: bytes = b"", sequence: int = 0) -> bytes:
    """Return a data frame. Raises FrameError when the message is longer than any that is described."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise FrameError(f"message of {len(message)} bytes, at most {MESSAGE_BYTES_MAX}")
    head = _HEAD.pack(MARK, sequence, INNER_BYTES + len(message), PacketType.DATA)
    body = head + _INNER.pack(ROUTING, message_id, 0, len(message)) + message
    return body + struct.pack("<H", checksum(body))


def checksum(body: bytes | bytearray) -> int:
    """Return the 16-bit sum of a frame without its mark and its checksum."""
    return sum(body[len(MARK) :]) & 0xFFFF


class Decoder:
    """Bytes in any cutting become Frames and Noise in order; never raises, holds at most one frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def buffered(self) -> int:
        """Return how many bytes wait for the rest of their frame."""
        return len(self._buffer)

    def receive(self, data: bytes) -> list[Frame | Noise]:
        """Take bytes that came and return what they complete."""
        self._buffer += data
        return self._split(give_up=False)

    def give_up(self) -> list[Frame | Noise]:
        """Take notice that a frame that has begun will not be ended: search behind its mark."""
        return self._split(give_up=True)

    def _split(self, give_up: bool) -> list[Frame | Noise]:
        found: list[Frame | Noise] = []
        at = noise_from = 0
        while at < len(self._buffer):
            at = _next_mark(self._buffer, at)
            size = _size_at(self._buffer, at)
            if size == 0 and not give_up:
                break
            if size <= 0:
                at += 1
                continue
            if at > noise_from:
                found.append(Noise(bytes(self._buffer[noise_from:at])))
            found.append(_frame_of(bytes(self._buffer[at : at + size])))
            at += size
            noise_from = at
        if at > noise_from:
            found.append(Noise(bytes(self._buffer[noise_from:at])))
        del self._buffer[:at]
        return found


def _next_mark(buffer: bytearray, start: int) -> int:
    """Return where the next mark stands, or may begin with the last byte."""
    at = buffer.find(MARK, start)
    if at >= 0:
        return at
    return len(buffer) - 1 if buffer.endswith(MARK[:1]) and len(buffer) > start else len(buffer)


def _size_at(buffer: bytearray, at: int) -> int:
    """Return the size of the sound frame that begins here, 0 when more bytes are needed, -1 when there is none."""
    held = len(buffer) - at
    if held < HEAD_BYTES:
        return 0
    _, _, length, kind = _HEAD.unpack_from(buffer, at)
    is_data = kind == PacketType.DATA
    if kind not in (PacketType.DATA, PacketType.ACK, PacketType.NAK):
        return -1
    if length > INNER_BYTES + MESSAGE_BYTES_MAX or (is_data and length < INNER_BYTES):
        return -1
    if (
        is_data
        and held >= HEAD_BYTES + INNER_BYTES
        and _INNER.unpack_from(buffer, at + HEAD_BYTES)[3] != (length - INNER_BYTES)
    ):
        return -1
    size = HEAD_BYTES + length + SUM_BYTES
    if held < size:
        return 0
    given = int.from_bytes(buffer[at + size - SUM_BYTES : at + size], "little")
    return size if given == checksum(buffer[at : at + size - SUM_BYTES]) else -1


def _frame_of(raw: bytes) -> Frame:
    _, sequence, length, kind = _HEAD.unpack_from(raw)
    if length < INNER_BYTES:
        return Frame(PacketType(kind), sequence, None, raw[HEAD_BYTES:-SUM_BYTES], raw)
    message_id = _INNER.unpack_from(raw, HEAD_BYTES)[1]
    return Frame(PacketType(kind), sequence, message_id, raw[HEAD_BYTES + INNER_BYTES : -SUM_BYTES], raw)
