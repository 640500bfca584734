"""MIB/RS232 framing of the data export interface (fixed-baudrate protocol; sheet section 2).

    C0 | 11 01 length(2) user data FCS(2), escaped | C1        idle --C0--> in frame --C1--> idle

The FCS is CRC-16/X-25, least significant byte first, over header and data before escaping. 7D makes "XOR the next byte
with 20"; 7D directly before C1 aborts the frame. C0 always begins a frame, also inside one that lost its end.
"""

import re
from binascii import crc_hqx
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

BOF, EOF, ESCAPE = b"\xc0", b"\xc1", b"\x7d"
HEADER = b"\x11\x01"  # protocol: data export; message type: association control or command
FRAME_BYTES_MAX = 4000  # escaped; the largest MTU seen (1456) with every byte escaped is 2926

_LENGTH = Struct(">H")
_OVERHEAD = 6  # header, length, FCS
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_RESIDUE = 0x1D0F  # F0B8 with its bits reversed: X-25 over reversed bytes is the CRC that binascii has
_ESCAPED = re.compile(rb"\x7d(.)", re.DOTALL)
_SPECIAL = re.compile(rb"[\x7d\xc0\xc1]")
_FLIPPED = tuple(bytes((byte ^ 0x20,)) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Piece:
    """Something found on the line: a frame with its user data, or bytes that are none and why.

    A frame that its sender aborted has neither: it is to be forgotten. `noise` tells bytes between frames, which count
    as one run however they came, from a damaged frame.
    """

    raw: bytes
    content: bytes | None = None
    fault: str = ""
    noise: bool = False


def fcs(data: bytes) -> int:
    """Return CRC-16/X-25 of header and user data (0x906E for `123456789`)."""
    crc = crc_hqx(data.translate(_REVERSED), 0xFFFF)
    return (_REVERSED[crc & 0xFF] << 8 | _REVERSED[crc >> 8]) ^ 0xFFFF


def framed(content: bytes) -> bytes:
    """Return user data as a frame on the line."""
    body = HEADER + _LENGTH.pack(len(content)) + content
    return BOF + escaped(body + fcs(body).to_bytes(2, "little")) + EOF


def escaped(body: bytes) -> bytes:
    """Return bytes with C0, C1 and 7D made transparent."""
    return _SPECIAL.sub(lambda found: ESCAPE + _FLIPPED[found[0][0]], body)


class Deframer:
    """Finds frames in bytes that may be cut anywhere; holds at most FRAME_BYTES_MAX bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait for the end of their frame."""
        return len(self._buffer)

    @property
    def idle(self) -> bool:
        """Tell whether no frame has begun."""
        return not self._buffer

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Take bytes; yield frames and faults in the order of the line."""
        buffer = self._buffer
        buffer += data
        at = 0
        while at < len(buffer):
            if buffer[at] != BOF[0]:
                begin = buffer.find(BOF, at)
                begin = len(buffer) if begin < 0 else begin
                yield Piece(bytes(buffer[at:begin]), fault="bytes between frames", noise=True)
                at = begin
                continue
            end = self._end(at)
            if end == at:
                break
            yield _piece(bytes(buffer[at:end]))
            at = end
        del buffer[:at]

    def _end(self, at: int) -> int:
        """Return where the frame that begins at `at` ends, `at` itself when more bytes are needed."""
        buffer, limit = self._buffer, at + FRAME_BYTES_MAX
        end = buffer.find(EOF, at + 1, limit)
        again = buffer.find(BOF, at + 1, limit if end < 0 else end)
        if again >= 0:
            return again
        if end >= 0:
            return end + 1
        return limit if len(buffer) >= limit else at


def _piece(raw: bytes) -> Piece:
    if raw[-1:] != EOF or len(raw) < 2:
        return Piece(raw, fault="a frame without its end")
    body = raw[1:-1]
    if ESCAPE in body:
        if body.endswith(ESCAPE):
            return Piece(raw)
        body = _ESCAPED.sub(lambda found: _FLIPPED[found[1][0]], body)
    if len(body) < _OVERHEAD or body[:2] != HEADER:
        return Piece(raw, fault="a frame that is no data export frame")
    if _LENGTH.unpack_from(body, 2)[0] + _OVERHEAD != len(body):
        return Piece(raw, fault="a frame whose length is wrong")
    if crc_hqx(body.translate(_REVERSED), 0xFFFF) != _RESIDUE:
        return Piece(raw, fault="a frame whose FCS is wrong")
    return Piece(raw, content=body[4:-2])
