"""What to ask the monitor, and when to ask again.

    waiting --numerics--> running --numerics silent for `patience_s`--> waiting

Nothing is acknowledged and a monitor that was restarted has forgotten every request, so silence is the only sign.
While nothing is heard only the numerics are asked for; the first record tells the monitor's interface level, and with
it what else it can be asked: the extended classes from level 3, each wave from its own level, alarms from level 10.
"""

from collections.abc import Callable
from dataclasses import dataclass

from drivers.datex_s5 import requests
from drivers.datex_s5.tables import wave_types

PATIENCE_S_MIN = 6.0  # the manual's shortest interval is 5 s (M1017617, page 7)
WAVE_PATIENCE_S = 3.0  # records come every second or oftener
SLOW_PATIENCE_S = 30.0  # trends stay away while no case is open, alarms while nothing changes
PATIENCE_S_MAX = 300.0
ONCE_SPACING_S = 5.5  # a second request for one record is ignored within 5 s (M1017617, page 7)
EXTENDED_LEVEL, ALARM_LEVEL = 3, 10
WAVE_LEVEL = 3  # the first waves of the wave table (8005313, page 65), which monitors of level 2 know too (page 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a Source asks for; intervals in seconds, `trend` a subrecord type or None."""

    interval_s: int
    classes: tuple[int, ...]
    waves: tuple[int, ...]
    trend: int | None
    trend_interval_s: int
    alarms: bool
    auxiliary: bool


@dataclass(slots=True)
class _Stream:
    """One thing that was asked for: when to ask again, and how long to wait for it."""

    frame: Callable[[], bytes | None]
    patience_s: float
    due: float | None = None
    tries: int = 0

    def ask(self, now: float) -> bytes:
        frame = self.frame()
        wait_s = min(self.patience_s * 2.0**self.tries, PATIENCE_S_MAX)
        self.due = now + wait_s if frame is not None else None
        self.tries = min(self.tries + 1, 10)
        return frame or b""


class Asker:
    """Speaks for one Session."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._level: int | None = None
        self._heard_at: float | None = None
        self._patience_s = max(2.0 * wanted.interval_s + 1.0, PATIENCE_S_MIN)
        self._numerics_due = 0.0
        self._auxiliary_due: float | None = None
        self._auxiliary_at = float("-inf")
        self._waves = _Stream(self._wave_frame, WAVE_PATIENCE_S)
        self._alarms = _Stream(self._alarm_frame, SLOW_PATIENCE_S)
        self._trends = _Stream(self._trend_frame, max(SLOW_PATIENCE_S, 3.0 * wanted.trend_interval_s))
        self._output = bytearray()

    @property
    def deadline(self) -> float:
        """Return when something is to be asked."""
        due = (self._numerics_due, self._auxiliary_due, self._waves.due, self._alarms.due, self._trends.due)
        return min(at for at in due if at is not None)

    def tick(self, now: float) -> None:
        """Ask for what is overdue."""
        if now >= self._numerics_due:
            self._output += self._numerics_frame()
            self._numerics_due = now + self._patience_s
            if self._is_silent(now):
                self._rest()
        for stream in (self._waves, self._trends, self._alarms):
            if stream.due is not None and now >= stream.due:
                self._output += stream.ask(now)
        if self._auxiliary_due is not None and now >= self._auxiliary_due:
            self._output += requests.numerics_request(requests.AUXILIARY, requests.ONCE, ())
            self._auxiliary_due, self._auxiliary_at = None, now

    def take_output(self) -> bytes:
        """Hand over what to say."""
        taken = bytes(self._output)
        self._output.clear()
        return taken

    def heard_numerics(self, level: int, now: float) -> None:
        """Take notice of displayed values: the monitor is there, and this is its level."""
        anew = level != self._level or self._is_silent(now)
        changed = self._level is not None and level != self._level
        self._level, self._heard_at = level, now
        self._numerics_due = now + self._patience_s
        if not anew:
            return
        for stream in (self._waves, self._trends, self._alarms):
            stream.due, stream.tries = now, 0
        if changed or level < EXTENDED_LEVEL:
            self._numerics_due = now
        if self._wanted.auxiliary:
            self.want_auxiliary(now)

    def heard_waves(self, now: float) -> None:
        """Take notice of a wave record."""
        self._waves.due, self._waves.tries = now + WAVE_PATIENCE_S, 0

    def heard_trend(self, now: float) -> None:
        """Take notice of a trend."""
        self._trends.due, self._trends.tries = now + self._trends.patience_s, 0

    def heard_alarms(self, now: float) -> None:
        """Take notice of an alarm status; the next comes when something changes."""
        self._alarms.due = now + PATIENCE_S_MAX

    def want_auxiliary(self, now: float) -> None:
        """Ask for the times of the last single measurements, as soon as that is allowed."""
        if self._wanted.auxiliary:
            self._auxiliary_due = max(now, self._auxiliary_at + ONCE_SPACING_S)

    def _is_silent(self, now: float) -> bool:
        return self._heard_at is None or now - self._heard_at >= self._patience_s

    def _rest(self) -> None:
        for stream in (self._waves, self._trends, self._alarms):
            stream.due = None
        self._auxiliary_due = None

    def _numerics_frame(self) -> bytes:
        return requests.numerics_request(requests.DISPLAYED, self._wanted.interval_s, self._classes())

    def _classes(self) -> tuple[int, ...]:
        is_old = self._level is not None and self._level < EXTENDED_LEVEL
        return (requests.BASIC,) if is_old else self._wanted.classes

    def _wave_frame(self) -> bytes | None:
        level = max(self._level or 0, WAVE_LEVEL)
        types = [number for number in self._wanted.waves if wave_types()[number].level <= level]
        return requests.wave_request(types) if types else None

    def _trend_frame(self) -> bytes | None:
        if self._wanted.trend is None:
            return None
        return requests.numerics_request(self._wanted.trend, self._wanted.trend_interval_s, self._classes())

    def _alarm_frame(self) -> bytes | None:
        if not self._wanted.alarms or (self._level or 0) < ALARM_LEVEL:
            return None
        return requests.alarm_request(requests.ALARMS_ENTER)
