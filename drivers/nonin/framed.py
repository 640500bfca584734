"""The Session of the binary formats: finds sound units between noise and hands them to the format.

    hunting --sound unit, confirmed where the format asks--> in step --unsound byte--> hunting

Noise is skipped byte by byte. What comes in the first moments after opening is the end of a unit whose start was
never seen and is no fault. The format select command is repeated until the Device answers or sends that format.
"""

from typing import Protocol

from gateway.model import Reading
from gateway.protocols.faults import FaultBin

OPENING_BYTES = 125  # one packet of formats 2 and 7: as much may be cut off at the start
NOISE_BYTES_MAX = 1024
NOISE_DELAY_S = 1.0
SELECT_TRIES = 3
SELECT_PAUSE_S = 1.5  # three tries fit into the 5 s in which the Device listens
ACK, NAK = 0x06, 0x15


class Format(Protocol):
    """What a binary format knows."""

    name: str

    def measure(self, buffer: bytes | bytearray, start: int, in_step: bool) -> int:
        """Return the length of the sound unit at `start`, 0 when more bytes are needed, -1 when there is none."""
        ...

    def take(self, unit: bytes, in_step: bool) -> list[Reading]:
        """Take a sound unit; `in_step` is False for the first one after noise."""
        ...

    def forget(self) -> None:
        """Let go of units that wait for others: the next are perhaps another Device's."""
        ...


class FrameSession:
    """One Device that sends a binary format. `select` is the format byte to ask for, None to listen only."""

    def __init__(self, form: Format, *, select: int | None = None) -> None:
        self._format = form
        self._buffer = bytearray()
        self._in_step = False
        self._opening_left = OPENING_BYTES
        self._readings: list[Reading] = []
        self._noise = FaultBin(delay_s=NOISE_DELAY_S, raw_bytes_max=NOISE_BYTES_MAX)
        self._unread = FaultBin(delay_s=0.0, raw_bytes_max=NOISE_BYTES_MAX)
        self._select = select
        self._select_at = 0.0
        self._select_tries = SELECT_TRIES if select is not None else 0
        self._answer_awaited = False
        self._output = bytearray()

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait to be understood."""
        return len(self._buffer)

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        self._emit(now)
        self._buffer += data
        start, noise_from = 0, 0
        while (length := self._format.measure(self._buffer, start, self._in_step)) != 0 and start < len(self._buffer):
            if length < 0:
                self._in_step = False
                start += 1
                continue
            self._take_noise(bytes(self._buffer[noise_from:start]), now)
            self._take_unit(bytes(self._buffer[start : start + length]), now)
            start += length
            noise_from = start
        self._take_noise(bytes(self._buffer[noise_from:start]), now)
        del self._buffer[:start]

    def tick(self, now: float) -> None:
        """Ask for the format again, and hand out gathered faults, where it is time."""
        if self._select_tries and now >= self._select_at:
            self._output += bytes((0x02, 0x70, 0x02, 0x02, self._select or 0, 0x03))
            self._select_tries -= 1
            self._answer_awaited = True
            self._select_at = now + SELECT_PAUSE_S
        self._emit(now)

    def forget(self, now: float) -> None:
        """Give up what was not ended."""
        self._take_noise(bytes(self._buffer), now)
        self._buffer.clear()
        self._in_step = False
        self._opening_left = OPENING_BYTES
        self._format.forget()

    def settle(self, stored: bool, now: float) -> None:
        """Nothing is acknowledged on such a link."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Hand over what to say: nothing, or the format select command."""
        taken = bytes(self._output)
        self._output.clear()
        return taken

    @property
    def deadline(self) -> float | None:
        """Return when to ask again or to hand out faults."""
        asking = self._select_at if self._select_tries else None
        waiting = (asking, self._noise.deadline, self._unread.deadline)
        return min((due for due in waiting if due is not None), default=None)

    @property
    def notice(self) -> str | None:
        """Return None: nothing is held back."""
        return None

    def _take_unit(self, unit: bytes, now: float) -> None:
        for reading in self._format.take(unit, self._in_step):
            if reading.fault is not None:
                self._unread.add(reading.fault, reading.raw, now)
            else:
                self._readings.append(reading)
                self._noise.heal()
                self._unread.heal()
        self._emit(now)
        self._in_step = True
        self._opening_left = 0
        self._select_tries = 0

    def _take_noise(self, raw: bytes, now: float) -> None:
        if self._answer_awaited and raw:
            raw = self._take_answer(raw, now)
        opening = raw[: self._opening_left]
        self._opening_left -= len(opening)
        if rest := raw[len(opening) :]:
            self._noise.add_run(f"noise between units of format {self._format.name}", rest, now)

    def _take_answer(self, raw: bytes, now: float) -> bytes:
        self._answer_awaited = False
        if raw[0] not in (ACK, NAK):
            return raw
        self._select_tries = 0
        if raw[0] == NAK:
            self._unread.add(f"the Device refused format {self._format.name}", raw[:1], now)
            self._emit(now)
        return raw[1:]

    def _emit(self, now: float) -> None:
        for faults in (self._noise, self._unread):
            if (reading := faults.take(now)) is not None:
                self._readings.append(reading)
