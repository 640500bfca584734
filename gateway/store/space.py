"""Room on the disk: the reserve file, and when new input must be refused.

A full SQLite file system cannot even delete, so a file of `reserve` bytes is held ready: it is freed when the disk is
full, and made again once there is room. Intake is refused below `stop_intake_below` free bytes and resumes by itself
a little above, so that it does not flutter.
"""

import logging
import os
from pathlib import Path

RESERVE_NAME = "reserve"
RESUME_SLACK = 0.05

_log = logging.getLogger("gateway.store")


class Space:
    """Watches one file system."""

    def __init__(self, folder: Path, *, reserve: int, stop_intake_below: int) -> None:
        self._folder = folder
        self._file = folder / RESERVE_NAME
        self._reserve = reserve
        self._stop_below = stop_intake_below
        self.low = False

    def free_bytes(self) -> int:
        """Return what an ordinary user may still write."""
        room = os.statvfs(self._folder)
        return room.f_bavail * room.f_frsize

    def look(self) -> bool:
        """Measure; return whether intake must be refused now."""
        free = self.free_bytes()
        if self.low:
            self.low = free < self._stop_below * (1 + RESUME_SLACK)
        else:
            self.low = free < self._stop_below
        if not self.low and not self.reserve_held and free > self._stop_below + self._reserve:
            self.hold_reserve()
        return self.low

    def spares(self, size: int) -> bool:
        """Return whether so many bytes can be taken ahead of need, and intake and reserve still have their room."""
        return self.free_bytes() > self._stop_below * (1 + RESUME_SLACK) + self._reserve + size

    @property
    def reserve_held(self) -> bool:
        """Return whether the reserve file lies ready."""
        return self._file.exists() and self._file.stat().st_size == self._reserve

    def hold_reserve(self) -> None:
        """Allocate the reserve file, unless there is no room for it."""
        if self._reserve <= 0 or self.reserve_held:
            return
        try:
            with self._file.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._reserve)
        except OSError as error:
            self._file.unlink(missing_ok=True)
            _log.warning("reserve.not_held error=%s", error.strerror)

    def free_reserve(self) -> None:
        """Give the reserve up: the disk is full."""
        self.low = True
        if self.reserve_held:
            self._file.unlink(missing_ok=True)
            _log.error("reserve.freed bytes=%d", self._reserve)
