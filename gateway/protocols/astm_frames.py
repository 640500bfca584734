"""ASTM E1381 frames (CLSI LIS01-A2, 5): cut out of bytes, checked, and made.

    frame = STX FN text ETB|ETX C1 C2 [CR] [LF]

The check characters are the sum of FN to ETB or ETX, modulo 256, in two hex digits. Real analysers end frames with CR
LF, LF alone, CR alone or nothing, and put several records, or a part of one, into a frame: all of that is read. The
standard's limit of 240 characters is kept in what is sent and not asked of what comes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

STX, ETX, EOT, ENQ, ACK, NAK, ETB = b"\x02", b"\x03", b"\x04", b"\x05", b"\x06", b"\x15", b"\x17"
CR, LF = b"\r", b"\n"
TEXT_BYTES_MAX = 64_000  # LIS01-A2
TEXT_SENT_MAX = 240  # E1381-95, and still what old analysers take
CHECK_CHARS = 2

_MARK = re.compile(rb"[\x02\x03\x04\x05\x17]")
_SIGNAL = re.compile(rb"[\x02\x04\x05\x06\x15]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame: its number (None where that is no digit), its text, and whether another part of the record follows."""

    raw: bytes
    number: int | None
    text: bytes
    continued: bool
    sound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One control character outside of a frame: ENQ, EOT, ACK or NAK."""

    character: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Bytes that belong to nothing, with the reason."""

    raw: bytes
    reason: str


class FrameCutter:
    """Cuts bytes into frames, signals and noise. Holds at most one frame."""

    def __init__(self, *, checked: bool = True) -> None:
        """`checked` is False only for analysers that send no right check characters."""
        self._checked = checked
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Frame | Signal | Noise]:
        """Take bytes and yield what they complete."""
        self._buffer += data
        return self._cut(final=False)

    def flush(self) -> Iterator[Frame | Signal | Noise]:
        """Yield a frame that is whole but for the end of its line: nothing came behind it for a while."""
        return self._cut(final=True)

    def waits_for_line_end(self) -> bool:
        """Tell whether `flush` would yield a frame."""
        return self._buffer[:1] == STX and self._end_of_checks() is not None

    def _cut(self, *, final: bool) -> Iterator[Frame | Signal | Noise]:
        while self._buffer:
            if self._buffer[:1] != STX:
                yield from self._cut_outside()
                continue
            found = self._cut_frame(final=final)
            if found is None:
                return
            yield found

    def _cut_outside(self) -> Iterator[Signal | Noise]:
        match = _SIGNAL.search(self._buffer)
        before = bytes(self._buffer[: match.start() if match else len(self._buffer)])
        character = bytes(match[0]) if match else b""  # a match reads the buffer, which is about to change
        del self._buffer[: len(before)]
        if noise := before.translate(None, b"\r\n\0"):  # ends of lines may stand between frames
            yield Noise(raw=noise, reason="bytes outside of a frame")
        if character and character != STX:
            del self._buffer[:1]
            yield Signal(character=character)

    def _cut_frame(self, *, final: bool) -> Frame | Noise | None:
        mark = _MARK.search(self._buffer, 1)
        if mark is None or mark[0] in (STX, ENQ, EOT):
            if mark is None and len(self._buffer) <= TEXT_BYTES_MAX + 2:
                return None
            return self._drop(mark.start() if mark else len(self._buffer), "a frame without ETX")
        if mark.start() > TEXT_BYTES_MAX + 2:
            return self._drop(mark.end(), "a frame longer than 64,000 characters")
        end = self._end_of_checks()
        if end is None:
            return None
        after = _behind_line_end(self._buffer, end, final=final)
        if after is None:
            return None
        frame = self._frame(mark.start(), end, after)
        del self._buffer[:after]
        return frame

    def _end_of_checks(self) -> int | None:
        mark = _MARK.search(self._buffer, 1)
        if mark is None or mark[0] not in (ETX, ETB):
            return None
        end = mark.end() + CHECK_CHARS
        return end if len(self._buffer) >= end else None

    def _frame(self, mark: int, end: int, after: int) -> Frame:
        number, given = bytes(self._buffer[1:2]), bytes(self._buffer[mark + 1 : end])
        return Frame(
            raw=bytes(self._buffer[:after]),
            number=int(number) if number in _DIGITS else None,
            text=bytes(self._buffer[2:mark]),
            continued=self._buffer[mark : mark + 1] == ETB,
            sound=not self._checked or given.upper() == checks(self._buffer[1 : mark + 1]),
        )

    def _drop(self, size: int, reason: str) -> Noise:
        raw = bytes(self._buffer[:size])
        del self._buffer[:size]
        return Noise(raw=raw, reason=reason)


def checks(content: bytes | bytearray) -> bytes:
    """Return the check characters of FN to ETB or ETX (LIS01-A2, 5.2.2.3)."""
    return b"%02X" % (sum(content) & 0xFF)


def frames(records: Sequence[bytes]) -> list[bytes]:
    """Return the frames that carry records, one record each, split where it is longer than 240 characters."""
    made: list[bytes] = []
    for record in records:
        text = record.rstrip(CR) + CR
        parts = [text[at : at + TEXT_SENT_MAX] for at in range(0, len(text), TEXT_SENT_MAX)]
        for index, part in enumerate(parts, 1):
            number = b"%d" % ((len(made) + 1) % 8)
            content = number + part + (ETX if index == len(parts) else ETB)
            made.append(STX + content + checks(content) + CR + LF)
    return made


_DIGITS = tuple(b"%d" % digit for digit in range(8))


def _behind_line_end(buffer: bytearray, end: int, *, final: bool) -> int | None:
    """Return where the line end that may follow is over, None while it may still come."""
    follows = buffer[end : end + 2]
    if follows[:1] == LF:
        return end + 1
    if follows == CR + LF:
        return end + 2
    if follows[:1] == CR:
        return end + 1 if final or len(follows) == 2 else None
    return end if final or follows else None
