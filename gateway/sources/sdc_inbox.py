"""What the library's threads hand to the loop: frozen events, in order, bounded.

An event that finds no room ends the connection: what is lost is counted, and the MDIB is read anew, so that no state
is left behind that a lost report had changed.
"""

import asyncio
import contextlib
import threading
from collections import deque
from dataclasses import dataclass

from gateway.formats.sdc_facts import Mdib, State

EVENTS_MAX = 500
BYTES_MAX = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Beheld:
    """The whole MDIB was read, from `raw` or after the description change in it."""

    raw: bytes
    mdib: Mdib


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A report brought states."""

    raw: bytes
    states: tuple[State, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A report could not be understood; `fault` says why, without its content."""

    raw: bytes
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The connection is over."""

    reason: str


Event = Beheld | Reported | Unreadable | Ended


class Inbox:
    """The events of one connection on their way to the loop; made on the loop."""

    def __init__(self) -> None:
        self.lost = 0
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._size = 0
        self._over = self._overflowed = False

    def offer(self, event: Event) -> None:
        """Hand over from any thread; what comes after the end is not taken, what finds no room is counted as lost."""
        with self._lock:
            if isinstance(event, Ended):
                self._end(event)
            elif self._over or len(self._events) >= EVENTS_MAX or self._size + len(event.raw) > BYTES_MAX:
                self.lost += self._overflowed or not self._over
                self._overflowed = self._overflowed or not self._over
                self._end(Ended(reason="reports came faster than they could be kept"))
            else:
                self._size += len(event.raw)
                self._events.append(event)
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def take(self) -> list[Event]:
        """Wait for events and return all that came."""
        await self._arrived.wait()
        self._arrived.clear()
        with self._lock:
            events, self._size = list(self._events), 0
            self._events.clear()
        return events

    def _end(self, event: Ended) -> None:
        if not self._over:
            self._over = True
            self._events.append(event)
