"""MEDIBUS curves (Protocol Definition 4.03, p. 16 to 27): bytes of 80h and above become samples.

    1101ssss                sync byte: one bit for each of streams 1 to 4 of which a value follows
    1100cccc 1100aaaa       up to 16 sync commands: C4, C5 name the streams 5 to 12, C6 marks breaths, C0 C0 ends
    10llllll 10hhhhhh       one value for each stream named, 0 to 4095

    hunting --sync byte--> commands --10xxxxxx--> values --all there--> hunting
    commands, values --anything else--> hunting, and the record is lost

No time is sent: samples are counted. A stream that falls a whole period behind the others has lost a sample, which is
given as None; a lost record is a gap in every stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

STREAMS_MAX = 12  # p. 21
PIECE_US = 500_000  # how much of a curve is handed on together
MARKS_MAX = 64
SAMPLES_MAX = 1024  # of one stream in a piece
RAW_BYTES_MAX = 2048
_COMMANDS_MAX = 16
_SYNC, _SYNC_MASK = 0xD0, 0xF0
_COMMAND = 0xC0
_END, _ENABLE_1, _STREAMS_5, _STREAMS_9, _BREATH = 0xC0, 0xC1, 0xC4, 0xC5, 0xC6
_MISSED_MAX = 100  # more than that is no lost sample but a stream that was switched off


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples of every stream since the piece before: `samples[n]` of stream n, None for one that was lost.

    `breaths` are the marks in it: microseconds from its beginning, and True for inspiration, False for expiration.
    """

    samples: tuple[tuple[int | None, ...], ...]
    breaths: tuple[tuple[int, bool], ...]
    gap: bool
    raw: bytes


def encode_enable(streams: int) -> bytes:
    """Return the sync commands that switch on streams 1 to `streams` and off the others; they are never answered."""
    bits = (1 << streams) - 1
    parts = [(_ENABLE_1 + group, _COMMAND | bits >> 4 * group & 0x0F) for group in range(3)]
    used = [part for group, part in enumerate(parts) if group == 0 or streams > 4]
    return bytes((_SYNC, *(byte for part in used for byte in part), _END, _END))


@dataclass
class _Record:
    """One record as far as it has come."""

    bits: int
    commands: bytearray = field(default_factory=bytearray)
    values: bytearray = field(default_factory=bytearray)


class CurveDecoder:
    """Decodes the streams that were asked for; `periods_us` are their sample periods, in the order of the streams."""

    def __init__(self, periods_us: Sequence[int]) -> None:
        self._periods = tuple(periods_us)
        self._record: _Record | None = None
        self._more = 0  # streams 5 to 12 that follow in each record
        self._next = [0] * len(self._periods)  # how many samples of each stream have come since the last gap
        self._samples: list[list[int | None]] = [[] for _ in self._periods]
        self._breaths: list[tuple[int, bool]] = []
        self._started_us = 0
        self._gap = self._piece_gap = False
        self._raw = bytearray()
        self._pending = bytearray()  # of the record that is coming

    @property
    def buffered(self) -> int:
        """Return how many bytes are held."""
        return len(self._raw) + len(self._pending)

    @property
    def collecting(self) -> bool:
        """Tell whether samples wait for the rest of their piece."""
        return any(self._samples)

    def receive(self, data: bytes) -> list[Piece]:
        """Take curve bytes and return the pieces that are full."""
        pieces: list[Piece] = []
        for byte in data:
            self._pending.append(byte)
            if self._take(byte):
                self._file(pieces)
        return pieces

    def flush(self) -> Piece | None:
        """Return what was collected, None for nothing."""
        if not self.collecting:
            return None
        piece = Piece(
            samples=tuple(map(tuple, self._samples)),
            breaths=tuple(self._breaths),
            gap=self._piece_gap,
            raw=bytes(self._raw),
        )
        self._samples = [[] for _ in self._periods]
        self._breaths.clear()
        self._raw.clear()
        self._piece_gap = False
        return piece

    def _take(self, byte: int) -> bool:
        """Take one byte; return whether it completes a record."""
        if byte & _SYNC_MASK == _SYNC:
            if self._record is not None and self._expected(self._record):
                self._lose()
            self._record = _Record(bits=byte & 0x0F)
            self._pending[:] = (byte,)
            return False
        record = self._record
        if record is None:
            self._lose()
            return False
        if byte & _SYNC_MASK == _COMMAND and not record.values and len(record.commands) < 2 * _COMMANDS_MAX:
            record.commands.append(byte)
            return len(record.commands) % 2 == 0 and record.commands[-2:] == bytes((_END, _END))
        if byte >= _COMMAND or len(record.commands) % 2 or not (expected := self._expected(record)):
            self._lose()
            return False
        record.values.append(byte & 0x3F)
        return len(record.values) == 2 * expected

    def _expected(self, record: _Record) -> int:
        return (record.bits | self._more_streams(record) << 4).bit_count()

    def _more_streams(self, record: _Record) -> int:
        more = self._more
        if not record.commands:
            return more
        for code, argument in _pairs(record.commands):
            if code == _STREAMS_5:
                more = more & 0xF0 | argument & 0x0F
            elif code == _STREAMS_9:
                more = more & 0x0F | (argument & 0x0F) << 4
        return more

    def _lose(self) -> None:
        self._record = None
        self._gap = True
        self._pending.clear()

    def _file(self, pieces: list[Piece]) -> None:
        record, self._record = self._record, None
        assert record is not None
        self._more = self._more_streams(record)
        present = [stream for stream in range(STREAMS_MAX) if (record.bits | self._more << 4) >> stream & 1]
        if not record.values:
            self._note_breaths(record, self._time_of(range(len(self._periods))))
            return
        if present[-1] >= len(self._periods):
            self._lose()  # a stream that was not asked for
            return
        if self._gap:
            self._begin_after_gap(pieces)
        at_us = self._time_of(present)
        self._note_breaths(record, at_us)
        for place, stream in enumerate(present):
            self._add(stream, record.values[2 * place] | record.values[2 * place + 1] << 6, at_us)
        self._raw += self._pending
        if self._is_full() and (piece := self.flush()) is not None:
            pieces.append(piece)
            self._started_us = self._time_of(range(len(self._periods)))

    def _begin_after_gap(self, pieces: list[Piece]) -> None:
        if (piece := self.flush()) is not None:
            pieces.append(piece)
        self._next = [0] * len(self._periods)
        self._started_us = 0
        self._gap, self._piece_gap = False, True

    def _time_of(self, streams: Sequence[int]) -> int:
        """Return the time of a record since the last gap, as the most advanced of its streams tells."""
        return max((self._next[stream] * self._periods[stream] for stream in streams), default=self._started_us)

    def _note_breaths(self, record: _Record, at_us: int) -> None:
        if not record.commands:
            return
        for code, argument in _pairs(record.commands):
            if code == _BREATH and len(self._breaths) < MARKS_MAX:
                self._breaths.append((max(0, at_us - self._started_us), argument == _END))

    def _add(self, stream: int, value: int, at_us: int) -> None:
        period = self._periods[stream]
        missed = (at_us - self._next[stream] * period) // period
        if 0 < missed <= _MISSED_MAX:
            self._samples[stream] += [None] * missed
            self._next[stream] += missed
        self._samples[stream].append(value)
        self._next[stream] += 1

    def _is_full(self) -> bool:
        held_us = (len(samples) * period for samples, period in zip(self._samples, self._periods, strict=True))
        most = max(map(len, self._samples), default=0)
        return max(held_us, default=0) >= PIECE_US or most >= SAMPLES_MAX or len(self._raw) >= RAW_BYTES_MAX


def _pairs(commands: bytearray) -> list[tuple[int, int]]:
    return list(zip(commands[::2], commands[1::2], strict=False))
