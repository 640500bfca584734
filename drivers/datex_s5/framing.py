"""Frames of the S/5 computer interface (GE M1017617, "S/5 Computer Interface Specification", pages 3 and 4).

    7E | record, escaped | checksum, escaped | 7E         escape: 7E -> 7D 5E, 7D -> 7D 5D

    hunting --7E--> in frame --7E--> in frame (what stood between them is a frame, damage, or nothing)
    in frame --`FRAME_BYTES_MAX` without 7E--> hunting

The checksum is the sum of the record's bytes modulo 256. It is too weak to stand alone (one damaged frame in 256 has
it right), so the length field of the record must agree with the frame as well. Every 7E may be a start: a lost one
costs one frame only.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.errors import FrameError

FLAG, ESCAPE, ESCAPE_BIT = 0x7E, 0x7D, 0x20
HEADER_BYTES = 40
DATA_BYTES_MAX = 1450  # GE 8005313, page 5
RECORD_BYTES_MAX = HEADER_BYTES + DATA_BYTES_MAX
FRAME_BYTES_MAX = 2 * (RECORD_BYTES_MAX + 1)  # every byte escaped

_FLAG, _ESCAPE = bytes((FLAG,)), bytes((ESCAPE,))


@dataclass(frozen=True, slots=True)
class Piece:
    """What stood between two flags: a record, or why there is none. `overlong` tells noise without any flag."""

    raw: bytes
    record: bytes | None = None
    fault: str | None = None
    overlong: bool = False


def encode(record: bytes) -> bytes:
    """Return a record as a frame: with checksum, escaped, between flags."""
    body = record + bytes((sum(record) & 0xFF,))
    return _FLAG + body.replace(_ESCAPE, b"\x7d\x5d").replace(_FLAG, b"\x7d\x5e") + _FLAG


def decode(content: bytes) -> bytes:
    """Return the record in what stood between two flags.

    Raises FrameError when it is too short, when an escape is broken, or when checksum or length do not agree.
    """
    body = _unescaped(content) if _ESCAPE in content else content
    if len(body) <= HEADER_BYTES:
        raise FrameError("a fragment shorter than a record header")
    if sum(body[:-1]) & 0xFF != body[-1]:
        raise FrameError("wrong checksum")
    if int.from_bytes(body[:2], "little", signed=True) != len(body) - 1:
        raise FrameError("the record's length does not agree with its frame")
    return body[:-1]


def _unescaped(content: bytes) -> bytes:
    head, *parts = content.split(_ESCAPE)
    if not all(parts):
        raise FrameError("an escape without a byte")
    return head + b"".join([bytes((part[0] | ESCAPE_BIT,)) + part[1:] for part in parts])


class FrameSplitter:
    """Cuts a stream of bytes into pieces; how the bytes were cut on their way makes no difference.

    What stands before the first flag is, as a rule, the end of a frame whose start was never seen: it is taken when
    it is whole and passed over in silence when it is not.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._opening = True
        self._overlong = False

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait for a flag."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Piece]:
        """Take bytes and return the pieces that they complete."""
        self._buffer += data
        return list(self._pieces())

    def _pieces(self) -> Iterator[Piece]:
        start = 0
        while True:
            end = self._buffer.find(FLAG, start, start + FRAME_BYTES_MAX + 1)
            if end >= 0:
                content, start = bytes(self._buffer[start:end]), end + 1
                yield from self._closed(content)
            elif len(self._buffer) - start > FRAME_BYTES_MAX:
                block, start = bytes(self._buffer[start : start + FRAME_BYTES_MAX]), start + FRAME_BYTES_MAX
                self._overlong = True
                yield Piece(block, fault="no frame: check speed, parity and cable", overlong=True)
            else:
                break
        del self._buffer[:start]

    def _closed(self, content: bytes) -> Iterator[Piece]:
        opening, overlong = self._opening, self._overlong
        self._opening = self._overlong = False
        if not content:
            return
        raw = _FLAG + content + _FLAG
        if overlong:
            yield Piece(content, fault="the end of noise without a frame", overlong=True)
            return
        try:
            yield Piece(raw, record=decode(content))
        except FrameError as error:
            if not opening:
                yield Piece(raw, fault=str(error))
