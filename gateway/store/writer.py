"""The writer thread: the only hand that writes, with group commit.

    idle --unit queued--> take all that waits --one transaction--> COMMIT (synced) --> settle all --> idle

Units that queued while the last commit was syncing go into the next transaction together, bounded in rows and bytes:
the disk's own speed sets the group. A Unit is settled only after the commit that holds it has returned. When the disk
is full every unit of the group is refused, `full` is called and the writer goes on; when the disk fails (an
input/output error, a corrupt page) nothing can be believed any more: everything is refused and `failed` is called,
which ends the process, because a failed sync must not be tried again on the same file (the kernel may have dropped the
pages). When a unit trips over a bug of ours, each unit of its group gets a transaction of its own, so that one input
that cannot be written does not stop the others, and not the gateway again at each repeat. The row of an object is
written while its file is being synced, and committed after.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

import apsw

from gateway.errors import StoreError
from gateway.store.connection import means_full

GROUP_ROWS_MAX = 500
GROUP_BYTES_MAX = 4 << 20
QUEUE_ROWS_MAX = 20_000
QUEUE_BYTES_MAX = 64 << 20
IDLE_S = 1.0
FILE_TIMEOUT_S = 60.0  # for the sync of an object's file, which began before its row was queued
GATHER_S = 0.0003  # measured: at 8 senders a sixth more messages a second

# The transaction failed, the file is sound: refuse and go on.
_REFUSED = (apsw.FullError, apsw.BusyError, apsw.NoMemError, apsw.TooBigError, apsw.ConstraintError)

_log = logging.getLogger("gateway.store")
_T = TypeVar("_T")


class Unit(Protocol):
    """One piece of work. Neighbours with the same `batch` are run together."""

    size: int

    @property
    def batch(self) -> "Batch":
        """Return who runs units of this sort."""
        ...

    def settle(self, error: Exception | None) -> None:
        """Learn that the work is durable (None) or was refused; called in the writer thread, must not raise."""
        ...


class Batch(Protocol):
    """Runs many units of one sort in the open transaction."""

    def run(self, connection: apsw.Connection, units: list[Unit]) -> None:
        """Write them all; an exception refuses the whole group."""
        ...


class Ledger(Protocol):
    """What is kept in memory beside the file and must fall back when a transaction does."""

    def committed(self) -> None:
        """Learn that the transaction is durable."""
        ...

    def rolled_back(self) -> None:
        """Learn that nothing of it happened."""
        ...

    def savepoint(self) -> Callable[[], None]:
        """Return what brings everything back to how it stands now, within the transaction."""
        ...


class Writer:
    """Owns the connection from `start` to `close`."""

    def __init__(
        self,
        connection: apsw.Connection,
        ledger: Ledger,
        *,
        failed: Callable[[Exception], None],
        flush: Callable[[list[tuple[Unit, Exception | None]]], None] | None = None,
        idle: Callable[[apsw.Connection], None] | None = None,
        full: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._failed = failed
        self._flush = flush or _settle_each
        self._idle = idle
        self._full = full
        self._calls = _Calls(ledger)
        self._queue: deque[Unit] = deque()
        self._queued_bytes = 0
        self._wake = threading.Condition()
        self._closing = False
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._last_seen = 0
        self._awaited = 1  # so many queued units wake the writer
        self.commits = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, unit: Unit) -> None:
        """Queue a unit. Raises StoreError when the queue is full or the writer has stopped."""
        with self._wake:
            if self._broken is not None or self._closing:
                raise StoreError("the store is closed" if self._broken is None else "the store has failed")
            if len(self._queue) >= QUEUE_ROWS_MAX or (self._queue and self._queued_bytes + unit.size > QUEUE_BYTES_MAX):
                raise StoreError("the store's queue is full")
            self._queue.append(unit)
            self._queued_bytes += unit.size
            if len(self._queue) == self._awaited:
                self._wake.notify()

    def call(self, work: Callable[[apsw.Connection], _T]) -> "Future[_T]":
        """Run a function of the connection in a savepoint of the next transaction; the result comes once committed."""
        unit = _Call(work, self._calls)
        self.submit(unit)
        return unit.future

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is queued, then close the connection. Raises StoreError when that takes too long."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise StoreError(f"the writer did not finish within {timeout_s} s")

    def fail(self, error: Exception) -> None:
        """Refuse everything from now on, and tell; a commit that is under way comes to its end."""
        with self._wake:
            if self._broken is not None:
                return
            self._broken = error
            left = list(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            self._wake.notify()
        _log.critical("store.failed error=%s", type(error).__name__)
        for unit in left:
            _wake(unit, StoreError("the store has failed"))
        self._flush([(unit, StoreError("the store has failed")) for unit in left])
        self._failed(error)

    @property
    def broken(self) -> bool:
        """Return whether the disk failed: the file must be checked before it is used again."""
        return self._broken is not None

    @property
    def waiting(self) -> int:
        """Return how many units are queued."""
        return len(self._queue)

    def _run(self) -> None:
        try:
            while (group := self._take()) is not None:
                if group:
                    self._commit(group)
                else:
                    self._rest()
        except Exception as error:  # noqa: BLE001 - the one border of the writer: whatever it is, the process must end
            self.fail(error)
        finally:
            self._connection.close()

    def _take(self) -> list[Unit] | None:
        """Wait for work; an empty list after a while without any, None when closed or failed and done."""
        with self._wake:
            if not self._queue and not self._closing:
                self._awaited = 1
                self._wake.wait(IDLE_S)
            if not self._queue:
                return None if self._closing or self.broken else []
            self._gather()
            group: list[Unit] = []
            taken = 0
            while self._queue and len(group) < GROUP_ROWS_MAX:
                unit = self._queue[0]
                if group and taken + unit.size > GROUP_BYTES_MAX:
                    break
                group.append(self._queue.popleft())
                taken += unit.size
            self._queued_bytes -= taken
            self._last_seen = len(group) + len(self._queue)
            return group

    def _gather(self) -> None:
        """Wait a moment for as many units as there were last time.

        Senders that wait for their acknowledgement come back together; without this they fall into two halves, each
        with a sync of its own. A single sender is never kept waiting.
        """
        self._awaited = min(self._last_seen, GROUP_ROWS_MAX)
        if len(self._queue) < self._awaited and not self._closing:
            self._wake.wait(GATHER_S)

    def _rest(self) -> None:
        if self._idle is None:
            return
        try:
            self._idle(self._connection)
        except (apsw.Error, OSError) as error:
            if not _leaves_the_file_sound(error):
                raise
            _log.debug("idle.failed error=%s", type(error).__name__)

    def _commit(self, group: list[Unit]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._run_batches(group)
            if failed := _await_files(group):
                self._commit_without(group, failed)
                return
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            self._refuse(group, error)
            if not _leaves_the_file_sound(error):
                raise
            return
        except Exception as error:  # noqa: BLE001 - a bug met one unit: its neighbours are kept without it
            self._commit_singly(group, error)
            return
        self.commits += 1
        self._ledger.committed()
        for unit in group:
            _wake(unit, None)
        self._flush([(unit, None) for unit in group])

    def _commit_without(self, group: list[Unit], failed: dict[int, StoreError]) -> None:
        """Refuse the units whose files did not reach the disk, and begin again with the others."""
        self._roll_back()
        refused: list[tuple[Unit, Exception | None]] = [
            (unit, failed[id(unit)]) for unit in group if id(unit) in failed
        ]
        for unit, error in refused:
            _wake(unit, error)
        self._flush(refused)
        if rest := [unit for unit in group if id(unit) not in failed]:
            self._commit(rest)

    def _commit_singly(self, group: list[Unit], error: Exception) -> None:
        if len(group) == 1:
            self._refuse(group, error)
            return
        self._roll_back()
        for unit in group:
            self._commit([unit])

    def _run_batches(self, group: list[Unit]) -> None:
        start = 0
        while start < len(group):
            batch = group[start].batch
            end = start + 1
            while end < len(group) and group[end].batch is batch:
                end += 1
            batch.run(self._connection, group[start:end])
            start = end

    def _refuse(self, group: list[Unit], error: Exception) -> None:
        refusal = StoreError(f"the store could not commit: {type(error).__name__}")
        refusal.__cause__ = error
        _log.error("commit.failed error=%s units=%d", type(error).__name__, len(group))
        try:
            self._roll_back()
            if means_full(error) and self._full is not None:
                self._full()
        finally:
            for unit in group:
                _wake(unit, refusal)
            self._flush([(unit, refusal) for unit in group])

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._ledger.rolled_back()


def _await_files(group: list[Unit]) -> dict[int, StoreError]:
    """Wait for the files of a group; return which units' files did not reach the disk, and why."""
    failed = {}
    for unit in group:
        until: Future[None] | None = getattr(unit, "until", None)
        if until is None:
            continue
        try:
            until.result(FILE_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - whatever befell the file, only its row is refused
            failed[id(unit)] = StoreError(f"the file was not synced: {getattr(error, 'strerror', None) or 'no answer'}")
    return failed


def _wake(unit: Unit, error: Exception | None) -> None:
    """Tell the thread that waits for a unit, where one does."""
    wake: Callable[[Exception | None], None] | None = getattr(unit, "wake", None)
    if wake is not None:
        wake(error)


def _settle_each(settled: list[tuple[Unit, Exception | None]]) -> None:
    for unit, error in settled:
        unit.settle(error)


def _leaves_the_file_sound(error: Exception) -> bool:
    return isinstance(error, _REFUSED) or means_full(error)


class _Calls:
    """Runs functions of the connection, each in its savepoint."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def run(self, connection: apsw.Connection, units: list[Unit]) -> None:
        for unit in units:
            assert isinstance(unit, _Call)
            unit.attempt(connection, self._ledger)


class _Call(Generic[_T]):
    """One function of the connection and the future of its result."""

    size = 0

    def __init__(self, work: Callable[[apsw.Connection], _T], calls: _Calls) -> None:
        self._work = work
        self._calls = calls
        self._results: list[_T] = []
        self._error: Exception | None = None
        self.future: Future[_T] = Future()

    @property
    def batch(self) -> Batch:
        """Return the runner of functions."""
        return self._calls

    def attempt(self, connection: apsw.Connection, ledger: Ledger) -> None:
        """Run in a savepoint: what it raises is its own, unless the disk or the whole transaction failed."""
        back = ledger.savepoint()
        connection.execute("SAVEPOINT one")
        try:
            self._results.append(self._work(connection))
        except (apsw.FullError, apsw.IOError, apsw.CorruptError, apsw.NotADBError):
            raise
        except Exception as error:  # noqa: BLE001 - one unit's bug must not refuse its neighbours
            self._error = error
            connection.execute("ROLLBACK TO one")
            back()
        connection.execute("RELEASE one")

    def settle(self, error: Exception | None) -> None:
        """Resolve the future, unless its owner gave up waiting."""
        if not self.future.set_running_or_notify_cancel():
            return
        failure = error or self._error
        if failure is not None:
            self.future.set_exception(failure)
        else:
            self.future.set_result(self._results[0])
