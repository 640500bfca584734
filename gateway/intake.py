"""The one door in: an input becomes a Message and its Deliveries in one transaction.

Sources on the loop use `submit`: it costs no future, and everything that one commit made durable is settled in one
wake-up of the loop, in the order of submission. Threads (the DICOM services) use `accept_blocking`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from gateway.errors import StoreError, place_of
from gateway.model import Accepted, Incoming
from gateway.routing import Router
from gateway.store.store import Settled, Store

ACCEPT_TIMEOUT_S = 60.0

_log = logging.getLogger("gateway.intake")

Settle = Callable[[Accepted | StoreError], None]


class Gate(Protocol):
    """Says why new input is refused, None when it is not."""

    def __call__(self) -> str | None:
        """Return the reason."""
        ...


class Intake:
    """Routes, keeps, and tells the Source once the disk has it."""

    def __init__(self, store: Store, router: Router, gate: Gate, owed: Callable[[tuple[str, ...]], None]) -> None:
        """Take the parts; `owed` hears the Destinations of every new Message, on the loop, after its commit."""
        self._store = store
        self._gate = gate
        self._owed = owed
        self._failed_rules: set[int] = set()
        self._submitted = 0
        self._settled = 0
        self._behind: deque[tuple[int, Settle, StoreError]] = deque()
        self.router = router

    @property
    def refusing(self) -> str | None:
        """Return why new input is refused right now, None when the door is open."""
        return self._gate()

    def submit(self, incoming: Incoming, settled: Settle) -> None:
        """Keep an input; `settled` is called on the loop, in order of submission, when it is durable or refused."""
        refusal = self._gate()
        if refusal is not None:
            self._refuse(settled, StoreError(refusal))
            return
        owed = self._route(incoming)

        def tell(outcome: Accepted | Exception) -> None:
            self._settled += 1
            if isinstance(outcome, Accepted):
                if owed and not outcome.repeated:
                    self._owed(owed)
                settled(outcome)
            else:
                settled(_as_store_error(outcome))
            while self._behind and self._behind[0][0] <= self._settled:
                _, waiting, error = self._behind.popleft()
                waiting(error)

        try:
            self._store.keep(incoming, owed, tell, urgent=self.router.is_urgent(incoming))
        except StoreError as error:
            self._refuse(settled, error)
        else:
            self._submitted += 1

    def _route(self, incoming: Incoming) -> tuple[str, ...]:
        """Return what an input is owed to; a rule that could not be evaluated lets it pass and is told once."""
        owed = self.router.owed(incoming)
        for number in owed.failed_rules:
            if number not in self._failed_rules:
                self._failed_rules.add(number)
                _log.error(
                    "route.failed route=%d source=%s reason=when-could-not-be-evaluated", number, incoming.source
                )
        return owed.destinations

    def _refuse(self, settled: Settle, error: StoreError) -> None:
        """Settle a refusal behind everything that was submitted before it."""
        if self._settled == self._submitted:
            asyncio.get_running_loop().call_soon(settled, error)
        else:
            self._behind.append((self._submitted, settled, error))

    async def accept(self, incoming: Incoming) -> Accepted:
        """Keep an input and wait until it is durable. Raises StoreError."""
        done: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()

        def settled(outcome: Accepted | StoreError) -> None:
            if done.done():
                return
            if isinstance(outcome, Accepted):
                done.set_result(outcome)
            else:
                done.set_exception(outcome)

        self.submit(incoming, settled)
        return await done

    def accept_blocking(self, incoming: Incoming, sync: Callable[[], None] | None = None) -> Accepted:
        """Keep an input from a thread that is not the loop's, and wait.

        `sync` puts its file on the disk: it runs in this thread while the row is written, and is over before the
        commit. Raises StoreError, also when `sync` raised OSError.
        """
        refusal = self._gate()
        if refusal is not None:
            raise StoreError(refusal)
        owed = self._route(incoming)
        done: Future[Accepted] = Future()

        def prompt(outcome: Accepted | Exception) -> None:
            if isinstance(outcome, Accepted):
                done.set_result(outcome)
            else:
                done.set_exception(_as_store_error(outcome))

        def tell(outcome: Accepted | Exception) -> None:
            if owed and isinstance(outcome, Accepted) and not outcome.repeated:
                self._owed(owed)

        urgent = self.router.is_urgent(incoming)
        until: Future[None] | None = None if sync is None else Future()
        self._store.keep(incoming, owed, tell, urgent=urgent, until=until, prompt=prompt)
        if sync is not None and until is not None:
            _run(sync, until)
        try:
            return done.result(ACCEPT_TIMEOUT_S)
        except TimeoutError as error:
            raise StoreError(f"the store did not commit within {ACCEPT_TIMEOUT_S} s") from error


def flush_on(loop: asyncio.AbstractEventLoop) -> Callable[[Settled], None]:
    """Return a flush for the Store that settles all units of a commit in one wake-up of the loop."""

    def settle_all(settled: Settled) -> None:
        for unit, error in settled:
            try:
                unit.settle(error)
            except Exception as bug:  # noqa: BLE001 - one Source's bug must not leave its neighbours unanswered
                _log.error("settle.crashed error=%s place=%s", type(bug).__name__, place_of(bug))

    def flush(settled: Settled) -> None:
        waiting = [pair for pair in settled if not getattr(pair[0], "heard", False)]
        if not waiting:
            return
        try:
            loop.call_soon_threadsafe(settle_all, waiting)
        except RuntimeError:  # the loop has closed: nobody waits any more
            _log.warning("commit.unheard units=%d", len(waiting))

    return flush


def _run(sync: Callable[[], None], done: Future[None]) -> None:
    """Run a sync and tell the writer how it ended."""
    try:
        sync()
    except BaseException as error:  # whatever it is, the writer must not wait for it
        done.set_exception(error)
        if not isinstance(error, OSError):
            raise
    else:
        done.set_result(None)


def _as_store_error(error: Exception) -> StoreError:
    return error if isinstance(error, StoreError) else StoreError(f"not stored: {type(error).__name__}")
