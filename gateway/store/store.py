"""The store as the rest of the house sees it: one folder, one writer, short readers."""

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import apsw

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.model import Accepted, DeliveryState, Incoming, Receipt
from gateway.store import reading
from gateway.store.archive import Reports
from gateway.store.connection import WAL_BYTES_KEPT, lengthen_log, open_reader
from gateway.store.keeping import Keep, Keeping
from gateway.store.ledger import Ledger
from gateway.store.outbox import Acts, Settle, Settling
from gateway.store.recovery import FILE_NAME, mark_clean, open_checked
from gateway.store.retention import give_back_pages
from gateway.store.writer import Unit, Writer

REPEAT_WINDOW = timedelta(hours=72)
CALL_TIMEOUT_S = 30.0

_T = TypeVar("_T")
Settled = list[tuple[Unit, Exception | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSize:
    """Bytes of the database file and of its log."""

    database: int
    log: int
    used: int  # bytes of the database that hold something; the rest is given back when the store is idle


class Store:
    """Opened once by the agent; everybody else reads through `Readers`."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        failed: Callable[[Exception], None],
        flush: Callable[[Settled], None] | None = None,
        repeat_window: timedelta = REPEAT_WINDOW,
        synchronous: str = "FULL",
        full: Callable[[], None] | None = None,
    ) -> None:
        """Open, check and start the writer. Raises StoreError.

        `failed` hears that the disk failed and the process must end; `full` that it is full, also while it is opened;
        both in the writer thread from then on. `flush` is handed all settled units of a commit at once and calls
        `settle` on each, in order, in the thread where that is wanted.
        """
        self._folder = folder
        self.path = folder / FILE_NAME
        connection, self.was_unclean = open_checked(folder, clock.now(), synchronous, full)
        try:
            self.epoch = _epoch(connection)
            self._ledger = Ledger(connection)
        except apsw.Error as error:
            connection.close()
            raise StoreError(f"reading the store in {folder}: {error}") from error
        self._keeping = Keeping(self._ledger, repeat_window)
        self._settling = Settling(self._ledger)
        self.acts = Acts(self._ledger)
        self.reports = Reports(self._ledger)
        self.writer = Writer(connection, self._ledger, failed=failed, flush=flush, idle=self._rest, full=full)
        self.readers = Readers(self.path)
        self.writer.start()

    def keep(
        self,
        incoming: Incoming,
        owed: tuple[str, ...],
        settled: Callable[[Accepted | Exception], None],
        *,
        urgent: bool = False,
        until: Future[None] | None = None,
        prompt: Callable[[Accepted | Exception], None] | None = None,
    ) -> None:
        """Queue one input; `settled` hears once it is durable or refused. Raises StoreError when the queue is full.

        An `urgent` one goes before the others of its Destinations.
        Where the input has a file, its sync runs while the row is written, and `until` is that sync: it ends before
        the commit begins. `prompt` hears first, in the writer thread.
        """
        self.writer.submit(
            Keep(
                incoming=incoming,
                owed=owed,
                settled=settled,
                urgent=urgent,
                batch=self._keeping,
                size=1024 + (0 if incoming.raw is None else len(incoming.raw)),
                until=until,
                prompt=prompt,
            )
        )

    def settle(
        self,
        destination: str,
        receipt: Receipt,
        *,
        attempt: int,
        state: DeliveryState,
        at: datetime,
        next_try_at: datetime | None = None,
        settled: Callable[[Exception | None], None] | None = None,
    ) -> None:
        """Queue what became of a Delivery. Raises StoreError when the queue is full."""
        self.writer.submit(
            Settle(
                destination=destination,
                receipt=receipt,
                attempt=attempt,
                state=state,
                at=at,
                batch=self._settling,
                next_try_at=next_try_at,
                settled=settled,
            )
        )

    def call(self, work: Callable[[apsw.Connection], _T]) -> "Future[_T]":
        """Run a function of the writer's connection; see `Writer.call`."""
        return self.writer.call(work)

    @contextmanager
    def trusted(self) -> Iterator[None]:
        """Fail the store when a reader finds it damaged, as when the writer does: nothing in it is believed."""
        try:
            yield
        except (apsw.CorruptError, apsw.NotADBError) as error:
            self.writer.fail(error)
            raise

    def prepare(self) -> None:
        """Lengthen the log ahead of need; blocks, not for the loop. A full disk is no fault here."""
        with suppress(OSError):
            self.call(lambda _: lengthen_log(self.path)).result(CALL_TIMEOUT_S)

    def close(self) -> None:
        """Write what is queued and close in order; after a failure of the disk the next start checks the file."""
        self.readers.close()
        self.writer.close()
        if not self.writer.broken:
            mark_clean(self._folder)

    def size(self) -> StoreSize:
        """Return how large the file and its log are."""
        log = self.path.with_name(self.path.name + "-wal")
        return StoreSize(
            database=self.path.stat().st_size,
            log=log.stat().st_size if log.exists() else 0,
            used=reading.used_bytes(self.readers.connection),
        )

    def _rest(self, connection: apsw.Connection) -> None:
        """Use an idle moment: index, give free pages back, shorten a long log."""
        with connection:
            self._ledger.index(connection, 1)
        free: Any = connection.execute("PRAGMA freelist_count").get
        if free:
            give_back_pages(connection)
        path = Path(connection.filename + "-wal")
        if path.exists() and path.stat().st_size > WAL_BYTES_KEPT:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


class Readers:
    """One read-only connection a thread, opened at first use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._all: list[apsw.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        self._epoch: str | None = None

    @property
    def connection(self) -> apsw.Connection:
        """Return this thread's connection. Raises StoreError when there is no file or it was closed."""
        held: apsw.Connection | None = getattr(self._local, "connection", None)
        if held is None:
            if not self._path.exists():
                raise StoreError(f"there is no store in {self._path.parent}")
            with self._lock:
                if self._closed:
                    raise StoreError("the store is closed")
                held = open_reader(self._path)
                self._all.append(held)
            self._local.connection = held
        return held

    @property
    def epoch(self) -> str:
        """Return the store's own name."""
        if self._epoch is None:
            self._epoch = reading.read_epoch(self.connection)
        return self._epoch

    def close(self) -> None:
        """Close every thread's connection; one that reads just now ends with its thread."""
        with self._lock:
            self._closed = True
            for connection in self._all:
                with suppress(apsw.ThreadingViolationError):
                    connection.close()
            self._all.clear()
        self._local = threading.local()


def _epoch(connection: apsw.Connection) -> str:
    connection.execute("INSERT OR IGNORE INTO about (name, value) VALUES ('epoch', ?)", (secrets.token_hex(4).upper(),))
    return reading.read_epoch(connection)
