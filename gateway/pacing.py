"""How a Destination is paced: its bandwidth, its hours, and the pause after it failed. Shared by its lanes.

breaker:  closed --failed--> open --its time is up--> one lane tries --delivered--> closed
                               ^----------------------- failed ----------'
"""

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, time, timedelta

from gateway.clock import Clock
from gateway.values import read_size

PROBE_S = 120.0  # how long the lanes wait for the one that tries, before the next one may
BURST_S = 0.25  # what may go at once after a pause, in seconds of the rate


class Bandwidth:
    """A token bucket over all lanes of a Destination; any thread may take from it."""

    def __init__(self, bytes_a_second: float, clock: Clock) -> None:
        self._rate = bytes_a_second
        self._clock = clock
        self._free_at = clock.monotonic()
        self._lock = threading.Lock()

    def debt_s(self, size: int) -> float:
        """Take so many bytes and return how long their sender must wait for it."""
        with self._lock:
            now = self._clock.monotonic()
            self._free_at = max(self._free_at, now - BURST_S) + size / self._rate
            return max(self._free_at - now, 0.0)

    async def take(self, size: int) -> None:
        """Take so many bytes, and return when they may go."""
        wait_s = self.debt_s(size)
        if wait_s > 0:
            await asyncio.sleep(wait_s)


class Hours:
    """The hours of the day at which a Destination takes what is not urgent, in local time; the end is not one."""

    def __init__(self, text: str) -> None:
        """Take "20:00-06:00", which the schema has checked; two equal times are the whole day."""
        self._from, self._until = (time.fromisoformat(part) for part in text.split("-"))

    def closed_s(self, now: datetime) -> float:
        """Return how long it is closed from an instant on, 0 while it is open."""
        local = now.astimezone()
        begin, end, at = self._from, self._until, local.time()
        is_open = begin <= at < end if begin < end else (at >= begin or at < end)
        if is_open:
            return 0.0
        opens = local.replace(hour=begin.hour, minute=begin.minute, second=0, microsecond=0)
        if opens <= local:
            opens += timedelta(days=1)
        return (opens - local).total_seconds()


class Breaker:
    """Keeps all lanes of a Destination from knocking at a closed door: after a failure one of them tries."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open_until: float | None = None
        self._tried_by: object | None = None
        self._tried_at = 0.0
        self._wakes: dict[object, Callable[[], None]] = {}

    def join(self, lane: object, wake: Callable[[], None]) -> None:
        """Tell how to wake a lane when the door is open again."""
        self._wakes[lane] = wake

    def leave(self, lane: object) -> None:
        """Forget a lane that ends."""
        self._wakes.pop(lane, None)
        if self._tried_by is lane:
            self._tried_by = None

    def wait_s(self, lane: object) -> float:
        """Return how long a lane must wait; 0 lets it go, and while the door is open for trial, only it."""
        if self._open_until is None:
            return 0.0
        now = self._clock.monotonic()
        if now < self._open_until:
            return self._open_until - now
        if self._tried_by not in (None, lane) and now < self._tried_at + PROBE_S:
            return self._tried_at + PROBE_S - now
        self._tried_by, self._tried_at = lane, now
        return 0.0

    def failed(self, lane: object, wait_s: float) -> None:
        """Close the door for a while; a lane that failed beside the one that tries does not make it longer."""
        if self._tried_by in (None, lane):
            self._open_until = self._clock.monotonic() + wait_s
            self._tried_by = None
            self._wake(lane)

    def succeeded(self) -> None:
        """Open the door: the peer took something."""
        if self._open_until is None:
            return
        self._open_until = self._tried_by = None
        self._wake(None)

    def _wake(self, but: object | None) -> None:
        """Let the lanes look again how long to wait."""
        for lane, wake in self._wakes.items():
            if lane is not but:
                wake()


class Pace:
    """The pacing of one Destination, made once for all its lanes."""

    def __init__(self, clock: Clock, *, bandwidth_max: str | None = None, hours: str | None = None) -> None:
        """Take what the configuration says: a rate such as "10 MB/s", hours such as "20:00-06:00"."""
        rate = 0 if bandwidth_max is None else read_size(bandwidth_max.removesuffix("/s"))
        self.bandwidth = Bandwidth(rate, clock) if rate else None
        self.hours = None if hours is None else Hours(hours)
        self.breaker = Breaker(clock)
