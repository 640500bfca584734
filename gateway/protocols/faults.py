"""A bin for what could not be read, so that a wrong baud rate cannot fill the disk.

Faults of a Stream are gathered and come out as one quarantined Reading at a time: the first after `delay_s`, the next
not before `FAULT_PAUSE_S`, and while nothing sound arrives in between that pause doubles up to `FAULT_PAUSE_S_MAX`.
The Reading carries the first reason, how many faults it stands for and their bytes up to a bound.
"""

from gateway.model import Reading

FAULT_PAUSE_S = 5.0
FAULT_PAUSE_S_MAX = 300.0


class FaultBin:
    """Gathers faults of one kind on one Stream."""

    def __init__(self, *, delay_s: float, raw_bytes_max: int) -> None:
        self._delay_s = delay_s
        self._raw_bytes_max = raw_bytes_max
        self._pause_s = FAULT_PAUSE_S
        self._not_before = float("-inf")
        self._reason = ""
        self._count = 0
        self._dropped = 0
        self._raw = bytearray()
        self._due: float | None = None

    @property
    def deadline(self) -> float | None:
        """Return when the gathered faults come out, None where there are none."""
        return self._due

    def add(self, reason: str, raw: bytes, now: float) -> None:
        """Take one fault; bytes beyond the bound are counted only."""
        if self._due is None:
            self._reason = reason
            self._due = max(now + self._delay_s, self._not_before)
        self._count += 1
        self._extend(raw)

    def add_run(self, reason: str, raw: bytes, now: float) -> None:
        """Take noise: however it was cut, all that is gathered counts as one fault."""
        if self._due is None:
            self.add(reason, raw, now)
        else:
            self._extend(raw)

    def _extend(self, raw: bytes) -> None:
        room = max(0, self._raw_bytes_max - len(self._raw))
        self._raw += raw[:room]
        self._dropped += max(0, len(raw) - room)

    def heal(self) -> None:
        """Take notice that something sound arrived: the pause is short again."""
        self._pause_s = FAULT_PAUSE_S

    def take(self, now: float) -> Reading | None:
        """Hand over the gathered faults as one Reading when their time has come."""
        if self._due is None or now < self._due:
            return None
        reading = Reading(raw=bytes(self._raw), fault=self._text())
        self._not_before = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, FAULT_PAUSE_S_MAX)
        self._due, self._count, self._dropped = None, 0, 0
        self._raw.clear()
        return reading

    def _text(self) -> str:
        more = f"; {self._count} such faults in one" if self._count > 1 else ""
        left_out = f"; {self._dropped} bytes left out" if self._dropped else ""
        return f"{self._reason}{more}{left_out}"
