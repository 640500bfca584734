"""Readings on their way to disk: kept one after the other, in the order in which they came.

A Device that streams does not repeat, so what the store refuses is tried again from memory, up to a bound; beyond it
Readings are lost, counted, and told in the Source's status. That and what was read but not yet committed when the
machine stops is the loss window of such a Device. A Device that waits for our word is told, and repeats.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.model import Accepted, Incoming
from gateway.status import SourceStatus

READINGS_MAX = 1000
BYTES_MAX = 4 * 1024 * 1024
ACCEPT_TIMEOUT_S = 60.0
RETRY_S = 0.5
DRAIN_TIMEOUT_S = 2.0  # for what was read, when the Source ends

logger = logging.getLogger("gateway.sources")


class Accepting(Protocol):
    """What is needed of intake."""

    async def accept(self, incoming: Incoming) -> Accepted:
        """Keep an input and wait until it is durable. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One Reading as its Messages, and whom to tell whether they were stored."""

    incomings: tuple[Incoming, ...]
    settled: Callable[[bool], Awaitable[None]]

    @property
    def size(self) -> int:
        """Return the bytes it holds."""
        return sum(incoming.size for incoming in self.incomings)


class Backlog:
    """The Readings of one Source that are not on disk yet."""

    def __init__(self, intake: Accepting, clock: Clock, status: SourceStatus, *, repeats: bool) -> None:
        """Take the parts; `repeats` tells that the Device repeats what was not acknowledged."""
        self._intake = intake
        self._clock = clock
        self._status = status
        self._repeats = repeats
        self._held: deque[Held] = deque()
        self._size = 0
        self._failing = False
        self._changed = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def full(self) -> bool:
        """Return whether the bound is reached."""
        return len(self._held) >= READINGS_MAX or self._size >= BYTES_MAX

    async def put(self, held: Held) -> None:
        """Take a Reading; waits for room while the store works, drops it while the store does not."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.full or self._failing)
            if not self.full:
                self._held.append(held)
                self._size += held.size
                self._changed.notify_all()
                return
        self._lose()

    async def run(self) -> None:
        """Keep Readings until cancelled."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._held))
                held = self._held[0]
            stored = await self._keep(held)
            await held.settled(stored)
            async with self._changed:
                self._held.popleft()
                self._size -= held.size
                self._changed.notify_all()

    async def keep_beside(self, listening: Coroutine[Any, Any, None], name: str) -> None:
        """Keep Readings while somebody listens; when cancelled, what was read by then is still brought to disk.

        Raises whatever ends one of the two: neither does but by a bug.
        """
        ears = asyncio.create_task(listening, name=name)
        keeping = asyncio.create_task(self.run(), name=f"{name}/backlog")
        try:
            done, _ = await asyncio.wait((keeping, ears), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await _stop(ears)
            if not keeping.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_TIMEOUT_S):
                        await self.drained()
            await _stop(keeping)

    async def drained(self) -> None:
        """Wait until everything is on disk."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._held)

    async def _keep(self, held: Held) -> bool:
        for incoming in held.incomings:
            while not await self._kept(incoming):
                if self._repeats:
                    return False
                await asyncio.sleep(RETRY_S)
        return True

    async def _kept(self, incoming: Incoming) -> bool:
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                await self._intake.accept(incoming)
        except (StoreError, TimeoutError) as error:
            await self._fail(str(error) or f"no commit within {ACCEPT_TIMEOUT_S:.0f} s")
            return False
        if self._failing:
            self._failing = False
            logger.info("reading.kept_again source=%s waiting=%d", self._status.name, len(self._held))
        if incoming.quarantined is None:
            self._status.saw_input(self._clock.now())
        return True

    async def _fail(self, reason: str) -> None:
        self._status.saw_error(f"not stored: {reason}", self._clock.now())
        if not self._failing:
            logger.error("reading.not_stored source=%s reason=%s", self._status.name, reason)
            async with self._changed:
                self._failing = True
                self._changed.notify_all()

    def _lose(self) -> None:
        self._status.lost += 1
        self._status.saw_error(f"{self._status.lost} readings lost: the store refuses input", self._clock.now())
        if self._status.lost == 1:
            logger.error("reading.lost source=%s", self._status.name)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
