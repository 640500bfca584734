"""Sessions of Devices that send text lines and expect no answer.

    opened --terminator--> reading --line_bytes_max without a terminator--> overlong --terminator--> reading

Bytes may be cut anywhere. What stands before the first terminator after the Stream was opened is dropped: it is, as a
rule, the end of a line whose start was never seen. Overlong lines and bytes that are not ASCII mean a wrong baud rate
or output mode; they are reported, gathered (`faults.py`), and never reach the driver.
"""

from collections.abc import Callable

from gateway.model import Reading
from gateway.protocols.border import Reader, reading_of
from gateway.protocols.faults import FaultBin

LINE_BYTES_MAX = 400
FRAMING_FAULT_BYTES_MAX = 1024
CONTENT_FAULT_BYTES_MAX = 64 * 1024
FRAMING_FAULT_DELAY_S = 1.0

_PADDING = b" \t\r\n\0"


class LineSession:
    """Splits bytes into lines and hands each to a driver's function, which returns the Results in it.

    The function gets the line without its terminator, stripped of white space, ASCII and never empty. A line without
    Results gives no Reading. `first_line_dropped` is False only for Devices that are known to start with a whole line.
    `wrong_mode` ends the fault text of noise: what a person should look at. `ascii_only` is False for Devices that
    print other characters too. `forget` is called where another Device may be next.
    """

    def __init__(
        self,
        read: Reader,
        *,
        terminator: bytes = b"\r\n",
        line_bytes_max: int = LINE_BYTES_MAX,
        first_line_dropped: bool = True,
        wrong_mode: str = "check baud rate and output mode",
        ascii_only: bool = True,
        forget: Callable[[], None] | None = None,
    ) -> None:
        self._read = read
        self._forget = forget
        self._first_line_dropped = first_line_dropped
        self._terminator = terminator
        self._line_bytes_max = line_bytes_max
        self._wrong_mode = wrong_mode
        self._ascii_only = ascii_only
        self._opening = first_line_dropped
        self._overlong = False
        self._buffer = bytearray()
        self._readings: list[Reading] = []
        self._noise = FaultBin(delay_s=FRAMING_FAULT_DELAY_S, raw_bytes_max=FRAMING_FAULT_BYTES_MAX)
        self._unread = FaultBin(delay_s=0.0, raw_bytes_max=CONTENT_FAULT_BYTES_MAX)

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait for their terminator."""
        return len(self._buffer)

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        self._emit(now)
        self._buffer += data
        self._split(now)

    def tick(self, now: float) -> None:
        """Hand out gathered faults whose time has come."""
        self._emit(now)

    def forget(self, now: float) -> None:
        """Give up a line that was not ended: its rest would be another Device's, and so would the head of the next."""
        if self._buffer.strip(_PADDING):
            self._noise.add("a line broke off", bytes(self._buffer), now)
            self._opening = self._first_line_dropped
        self._buffer.clear()
        self._overlong = False
        if self._forget is not None:
            self._forget()

    def settle(self, stored: bool, now: float) -> None:
        """Nothing is acknowledged on such a link."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Say nothing."""
        return b""

    @property
    def deadline(self) -> float | None:
        """Return when gathered faults come out."""
        return min((due for due in (self._noise.deadline, self._unread.deadline) if due is not None), default=None)

    @property
    def notice(self) -> str | None:
        """Return None: nothing is held back."""
        return None

    def _split(self, now: float) -> None:
        start, window = 0, self._line_bytes_max + len(self._terminator)
        while True:
            end = self._buffer.find(self._terminator, start, start + window)
            if end >= 0:
                after = end + len(self._terminator)
                self._take_line(bytes(self._buffer[start:after]), now)
            elif len(self._buffer) - start >= window:
                after = start + self._line_bytes_max
                self._take_block(bytes(self._buffer[start:after]), now)
            else:
                break
            start = after
        del self._buffer[:start]

    def _take_block(self, raw: bytes, now: float) -> None:
        self._overlong = True
        self._noise.add(f"no line end in {self._line_bytes_max} bytes: {self._wrong_mode}", raw, now)

    def _take_line(self, raw: bytes, now: float) -> None:
        rest_of_overlong, first = self._overlong, self._opening
        self._overlong = self._opening = False
        content = raw.strip(_PADDING)
        if rest_of_overlong:
            self._noise.add("end of an overlong line", raw, now)
        elif first or not content:
            return
        elif self._ascii_only and not content.isascii():
            self._noise.add(f"bytes that are not ASCII: {self._wrong_mode}", raw, now)
        else:
            self._take_reading(reading_of(raw, content, self._read), now)

    def _take_reading(self, reading: Reading, now: float) -> None:
        if reading.fault is not None:
            self._unread.add(reading.fault, reading.raw, now)
            self._emit(now)
        elif reading.results:
            self._noise.heal()
            self._unread.heal()
            self._readings.append(reading)

    def _emit(self, now: float) -> None:
        for faults in (self._noise, self._unread):
            if (reading := faults.take(now)) is not None:
                self._readings.append(reading)
