"""How far a Device's clock is off: measured at each Result that shows it, told in the log when it matters.

The Device shows local time without a zone, and the gateway compares it with its own local time: a Device that was
never set to summer time is an hour off, which is what a person must know. Both times are kept with the Result.
"""

import logging
from datetime import datetime

from gateway.model import Result

logger = logging.getLogger("gateway.sources")


class DeviceClock:
    """The clock of one Device beside ours; `step_s` is how far off, and how large a jump, is worth a warning."""

    def __init__(self, source: str, step_s: float) -> None:
        self._source = source
        self._step_s = step_s
        self._told_s = 0.0
        self.offset_s: float | None = None

    def compare(self, result: Result, received_at: datetime) -> None:
        """Take notice of the time that a Result shows; positive is a Device ahead of us."""
        if result.device_clock is None:
            return
        ours = received_at.astimezone().replace(tzinfo=None)
        shown = result.device_clock.replace(tzinfo=None)
        self.offset_s = round((shown - ours).total_seconds(), 3)
        if abs(self.offset_s - self._told_s) > self._step_s:
            self._told_s = self.offset_s
            logger.warning("device.clock_off source=%s offset_s=%.1f", self._source, self.offset_s)
