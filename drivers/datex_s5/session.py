"""The Session: frames in, Readings and requests out.

    waiting --numerics--> running --silence--> waiting

Damage is gathered and told seldom; sound records that cannot be read are quarantined. A record that comes twice is
read once.
"""

from drivers.datex_s5.asking import Asker
from drivers.datex_s5.framing import FrameSplitter, Piece
from drivers.datex_s5.reading import Monitor
from drivers.datex_s5.record import ALARMS, PHYSIOLOGICAL, WAVES, Record, parse
from drivers.datex_s5.requests import DISPLAYED, TREND_10S, TREND_60S
from gateway.errors import ContentError
from gateway.model import Reading, Result
from gateway.protocols.border import reading_of
from gateway.protocols.faults import FaultBin

DAMAGE_DELAY_S = 1.0
DAMAGE_BYTES_MAX = 4096
UNREAD_BYTES_MAX = 8192


class S5Session:
    """One monitor. `asker` is None where nothing may be sent."""

    def __init__(self, monitor: Monitor, asker: Asker | None) -> None:
        self._monitor = monitor
        self._asker = asker
        self._splitter = FrameSplitter()
        self._last: dict[int, bytes] = {}
        self._readings: list[Reading] = []
        self._damage = FaultBin(delay_s=DAMAGE_DELAY_S, raw_bytes_max=DAMAGE_BYTES_MAX)
        self._unread = FaultBin(delay_s=0.0, raw_bytes_max=UNREAD_BYTES_MAX)

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait for the end of their frame."""
        return self._splitter.buffered_bytes

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        self._emit(now)
        for piece in self._splitter.feed(data):
            if piece.record is not None:
                self._take(piece.raw, piece.record, now)
            else:
                self._note_damage(piece, now)

    def tick(self, now: float) -> None:
        """Ask for what is overdue, and hand out gathered faults."""
        if self._asker is not None:
            self._asker.tick(now)
        self._emit(now)

    def forget(self, now: float) -> None:
        """Take notice that it may be another monitor: its labels, groups and old cuff pressure are not known."""
        self._monitor.forget()
        self._last.clear()

    def settle(self, stored: bool, now: float) -> None:
        """Nothing is acknowledged on such a link."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Hand over what to say: requests."""
        return b"" if self._asker is None else self._asker.take_output()

    @property
    def deadline(self) -> float | None:
        """Return when to ask, or to hand out faults."""
        asking = None if self._asker is None else self._asker.deadline
        waiting = (asking, self._damage.deadline, self._unread.deadline)
        return min((due for due in waiting if due is not None), default=None)

    @property
    def notice(self) -> str | None:
        """Return None: the protocol does not tell a demonstration from a patient."""
        return None

    def _take(self, raw: bytes, content: bytes, now: float) -> None:
        try:
            record = parse(content)
        except ContentError as error:
            self._damage.add(str(error), raw, now)
            return
        if self._last.get(record.main_type) == content:
            return
        if record.main_type in (PHYSIOLOGICAL, WAVES, ALARMS):
            self._last[record.main_type] = content
        reading = reading_of(raw, content, lambda _: self._read(record, now))
        if reading.fault is not None:
            self._unread.add(reading.fault, raw, now)
            self._emit(now)
        elif reading.results:
            self._damage.heal()
            self._unread.heal()
            self._readings.append(reading)

    def _read(self, record: Record, now: float) -> tuple[Result, ...]:
        before = self._monitor.cuff_measurements
        results = self._monitor.read(record)
        if self._asker is not None and results:
            _tell(self._asker, record, now)
            if self._monitor.cuff_measurements > before:
                self._asker.want_auxiliary(now)
        return results

    def _note_damage(self, piece: Piece, now: float) -> None:
        assert piece.fault is not None
        if piece.overlong:
            self._damage.add_run(piece.fault, piece.raw, now)
        else:
            self._damage.add(piece.fault, piece.raw, now)

    def _emit(self, now: float) -> None:
        for faults in (self._damage, self._unread):
            if (reading := faults.take(now)) is not None:
                self._readings.append(reading)


def _tell(asker: Asker, record: Record, now: float) -> None:
    kinds = {part.kind for part in record.parts}
    if record.main_type == WAVES:
        asker.heard_waves(now)
    elif record.main_type == ALARMS:
        asker.heard_alarms(now)
    elif DISPLAYED in kinds:
        asker.heard_numerics(record.level, now)
    if record.main_type == PHYSIOLOGICAL and kinds & {TREND_10S, TREND_60S}:
        asker.heard_trend(now)
