"""How far a Device's clock is off: measured at each Result that shows it, told in the log when it matters.

The Device shows local time without a zone, and the gateway compares it with its own local time: a Device that was
never set to summer time is an hour off, which is what a person must know. Where its zone is known, instants are
compared. Both times are kept with the Result.
"""

import logging
from datetime import datetime, timedelta

from gateway.model import Result

TELL_AGAIN = timedelta(minutes=10)  # a clock that runs away is told so often and no more

logger = logging.getLogger("gateway.sources")


class DeviceClock:
    """The clock of one Device beside ours; `step_s` is how far off, and how large a jump, is worth a warning."""

    def __init__(self, source: str, step_s: float) -> None:
        self._source = source
        self._step_s = step_s
        self._told_s = 0.0
        self._told_at: datetime | None = None
        self.offset_s: float | None = None

    def compare(self, result: Result, received_at: datetime) -> None:
        """Take notice of the time that a Result shows; positive is a Device ahead of us."""
        if result.device_clock is None:
            return
        shown = result.device_clock
        ours = received_at if shown.tzinfo is not None else received_at.astimezone().replace(tzinfo=None)
        self.offset_s = round((shown - ours).total_seconds(), 3)
        lately = self._told_at is not None and received_at - self._told_at < TELL_AGAIN
        if abs(self.offset_s - self._told_s) > self._step_s and not lately:
            self._told_s, self._told_at = self.offset_s, received_at
            logger.warning("device.clock_off source=%s offset_s=%.1f", self._source, self.offset_s)
