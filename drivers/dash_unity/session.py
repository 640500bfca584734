"""The Session: one datagram in, at most one Reading out; requests again and again, one datagram each.

asking --every `REQUEST_PAUSE_S`--> asking        the monitor forgets who stops asking
"""

from drivers.dash_unity.bed import DEVICE, Bed, discovered
from drivers.dash_unity.messages import (
    ALARM,
    BED_MESSAGE,
    header_of,
    is_discovery,
    read_alarm,
    read_bed,
    read_discovery,
)
from drivers.dash_unity.waves import read_waves, wave_number
from gateway.errors import ContentError
from gateway.model import Reading, Result
from gateway.protocols.border import reading_of
from gateway.protocols.faults import FaultBin

REQUEST_PAUSE_S = 5.0
UNREAD_BYTES_MAX = 8192
DATAGRAM_BYTES_MAX = 4096  # the longest that was seen has 699


class UnitySession:
    """One monitor. `requests` are sent one after the other, again every `REQUEST_PAUSE_S`; none: listen only."""

    def __init__(self, requests: tuple[bytes, ...]) -> None:
        self._requests = requests
        self._asking: list[bytes] = []
        self._ask_at: float | None = 0.0 if requests else None
        self._bed = Bed()
        self._wave_number: int | None = None
        self._alarm_raw = b""
        self._readings: list[Reading] = []
        self._unread = FaultBin(delay_s=0.0, raw_bytes_max=UNREAD_BYTES_MAX)

    @property
    def buffered_bytes(self) -> int:
        """Return 0: a datagram is read at once."""
        return 0

    def receive(self, data: bytes, now: float) -> None:
        """Take a datagram."""
        self._emit(now)
        reading = reading_of(data[:DATAGRAM_BYTES_MAX], data, lambda datagram: self._read(datagram, now))
        if reading.fault is not None:
            self._unread.add(reading.fault, reading.raw, now)
            self._emit(now)
        elif reading.results:
            self._unread.heal()
            self._readings.append(reading)

    def tick(self, now: float) -> None:
        """Ask again, and tell what is over."""
        if self._ask_at is not None and now >= self._ask_at:
            self._asking = list(self._requests)
            self._ask_at = now + REQUEST_PAUSE_S
        self._emit(now)

    def forget(self, now: float) -> None:
        """Take notice that it may be another monitor."""
        self._bed.forget()
        self._wave_number = None

    def settle(self, stored: bool, now: float) -> None:
        """Nothing is acknowledged on this network."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Hand over one request; each is a datagram of its own."""
        return self._asking.pop(0) if self._asking else b""

    @property
    def deadline(self) -> float | None:
        """Return when to ask, to tell of alarms that are over, or to hand out faults; at once while requests wait."""
        waiting = (0.0 if self._asking else None, self._ask_at, self._bed.deadline, self._unread.deadline)
        return min((due for due in waiting if due is not None), default=None)

    @property
    def notice(self) -> str | None:
        """Return None: the protocol does not tell a demonstration from a patient."""
        return None

    def _read(self, data: bytes, now: float) -> tuple[Result, ...]:
        if is_discovery(data):
            return (discovered(read_discovery(data)),)
        header = header_of(data)
        if header is not None and header.sub == BED_MESSAGE:
            return (self._bed.read(read_bed(data)),)
        if header is not None and header.sub == ALARM:
            self._alarm_raw = data
            return (self._bed.hear_alarm(read_alarm(data), now),)
        if (number := wave_number(data)) is not None:
            return (self._read_waves(data, number),)
        raise ContentError("a datagram of no known kind")

    def _read_waves(self, data: bytes, number: int) -> Result:
        waves, conditions = read_waves(data, self._wave_number is None or (number - self._wave_number) & 0xFFFF != 1)
        self._wave_number = number
        return Result(observations=(), waves=waves, conditions=conditions, device=DEVICE)

    def _emit(self, now: float) -> None:
        if (over := self._bed.take_over(now)) is not None:
            self._readings.append(Reading(raw=self._alarm_raw, results=(over,)))
        if (reading := self._unread.take(now)) is not None:
            self._readings.append(reading)
