"""The line to an archive: an association that stands for a while after its batch, for the next one.

    none --take--> busy --rest--> resting --take, its contexts suffice--> busy
                                  resting --LINGER_S, or other contexts are wanted--> released

Where Instances come one by one, each would cost a connection, a negotiation and, at many archives, a process; and some
take the end of an association for the end of a series. An archive may leave a line that rests, or that waits while a
file is made, even just as it is taken up again: what was to go on it goes on a new one, and that is no failure.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection

from gateway.errors import LinkError
from gateway.net.requestor import Answer, NoAnswerError, Outgoing, RequestedAssociation, Wanted

LINGER_S = 2.0

Opener = Callable[[list[Wanted]], Awaitable[RequestedAssociation]]


class ArchiveLine:
    """Used by one lane, on the loop."""

    def __init__(self, opener: Opener) -> None:
        """Take what opens an association with the archive."""
        self._opener = opener
        self._association: RequestedAssociation | None = None
        self._wanted: list[Wanted] = []
        self._is_rested = False  # taken up again, and nothing was answered on it since
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._releases: set[asyncio.Task[None]] = set()

    @property
    def is_open(self) -> bool:
        """Return whether an association stands."""
        return self._association is not None and self._association.is_open

    async def take(self, wanted: Collection[Wanted]) -> None:
        """Take up the resting association, or open one. Raises NoContextError, TemporaryError, LinkError."""
        self._stop_timer()
        if self.is_open and set(wanted) <= set(self._wanted):
            self._is_rested = True
        else:
            await self.release()
            await self._open(list(wanted))

    def accepts(self, sop_class_uid: str) -> tuple[str, ...]:
        """Return the transfer syntaxes in which the archive takes a SOP Class."""
        return () if self._association is None else self._association.accepts(sop_class_uid)

    async def store(self, out: Outgoing, *, priority: int, ahead: Outgoing | None) -> Answer:
        """Send an Instance; see `RequestedAssociation.store`."""
        if self.is_open:
            try:
                return await self._store(out, priority, ahead)
            except NoAnswerError:
                raise
            except LinkError:
                if not self._is_rested:
                    raise
        await self.release()
        await self._open(self._wanted)
        return await self._store(out, priority, ahead)

    def rest(self) -> None:
        """Let the association stand for LINGER_S."""
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._release_soon)

    async def release(self) -> None:
        """Release the association, if one stands."""
        self._stop_timer()
        association, self._association = self._association, None
        if association is not None:
            await association.release()

    async def close(self) -> None:
        """End what stands: a resting association is released, one that is used is aborted."""
        self._is_closed = True
        if self._timer is not None:
            await self.release()
        elif self._association is not None:
            await self._association.abort()
        await asyncio.gather(*self._releases)

    async def _open(self, wanted: list[Wanted]) -> None:
        if self._is_closed:
            raise LinkError("the line was closed")
        self._is_rested = False
        self._wanted = wanted
        self._association = await self._opener(wanted)

    async def _store(self, out: Outgoing, priority: int, ahead: Outgoing | None) -> Answer:
        assert self._association is not None
        answer = await self._association.store(out, priority=priority, ahead=ahead)
        self._is_rested = False
        return answer

    def _release_soon(self) -> None:
        self._timer = None
        association, self._association = self._association, None
        if association is not None:
            task = asyncio.get_running_loop().create_task(association.release())
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
