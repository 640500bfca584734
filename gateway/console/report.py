"""How the agent is, in one value: what `gateway status`, /metrics and /health tell.

Totals come from the store's counters and survive restarts; what is of this moment comes from the parts' statuses.
Nothing in a report is patient data: names of Sources and Destinations, counts, instants, reasons.
"""

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.alarms import Alarm
from gateway.config import Destination, Source
from gateway.console.build import product_version
from gateway.errors import StoreError
from gateway.status import DestinationStatus, LineState, SourceStatus
from gateway.store.checking import unreadable_is_told
from gateway.store.connection import sqlite_version
from gateway.store.counters import read_counters
from gateway.store.reading import oldest_pending
from gateway.store.recovery import FILE_NAME
from gateway.store.space import RESERVE_NAME
from gateway.store.store import Readers

if TYPE_CHECKING:  # `gateway status` without an agent must not wait for the whole house to be imported
    from gateway.app import App

READ_TIMEOUT_S = 10.0
OPEN = "open"

S = TypeVar("S", SourceStatus, DestinationStatus)
Totals = Mapping[tuple[str, str], Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """One Source; `received`, `bytes`, `repeated` and `quarantined` are totals, `errors` counts since the start.

    Of a Device: `notice` says why it is not published although it talks, `port` what is open, `line` how a serial
    line stands.
    """

    name: str
    type: str
    state: str
    received: int
    received_since_start: int
    bytes: int
    repeated: int
    quarantined: int
    connections: int
    errors: int
    last_received_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    notice: str | None = None
    device_clock_offset_s: float | None = None
    port: str | None = None
    line: LineState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationReport:
    """One Destination; `accepted` is all it was ever owed, the sum of the four states that follow it.

    `uncommitted` counts Instances that an archive took and has not committed to; None where it is not asked.
    """

    name: str
    type: str
    state: str
    accepted: int
    pending: int
    oldest_pending_s: float
    delivered: int
    parked: int
    discarded: int
    last_delivered_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    next_try_at: datetime | None
    uncommitted: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """The store and its disk; `intake` is `open` or the reason why new input is refused."""

    path: str
    size_bytes: int
    log_bytes: int
    free_bytes: int
    stop_intake_below: int
    reserve_held: bool
    sqlite_version: str
    commits: int
    queue: int
    intake: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole house at one moment; `running` is False where only the store was asked, because no agent runs."""

    running: bool = True
    name: str
    version: str
    started_at: datetime | None
    uptime_s: float
    sources: tuple[SourceReport, ...]
    destinations: tuple[DestinationReport, ...]
    store: StoreReport
    alarms: tuple[Alarm, ...]


async def make_report(app: "App") -> Report:
    """Ask all parts. Raises StoreError when the store cannot be read, TimeoutError when it takes too long."""
    async with asyncio.timeout(READ_TIMEOUT_S):
        totals, waiting_since = await asyncio.to_thread(_read, app)
        store = await asyncio.to_thread(_store_report, app)
    now = app.clock.now()
    return Report(
        name=app.config.gateway.name,
        version=product_version(),
        started_at=app.started_at,
        uptime_s=round((now - app.started_at).total_seconds(), 1),
        sources=tuple(source_report(status, totals) for status in _as_written(app.sources, app.config.sources)),
        destinations=tuple(
            destination_report(status, totals, waiting_since.get(status.name), now)
            for status in _as_written(app.destinations, app.config.destinations)
        ),
        store=store,
        alarms=tuple(app.alarms.standing()),
    )


def _as_written(statuses: Mapping[str, S], stanzas: Iterable[Source | Destination]) -> list[S]:
    """Return statuses in the order of the configuration, whichever were changed by a reload."""
    written = [stanza.name for stanza in stanzas]
    return sorted(
        statuses.values(), key=lambda each: written.index(each.name) if each.name in written else len(written)
    )


def source_report(status: SourceStatus, totals: Totals) -> SourceReport:
    """Join a Source's status with its counters."""
    counted = totals.get(("source", status.name), {})
    return SourceReport(
        name=status.name,
        type=status.type,
        state=status.state.value,
        received=counted.get("received", 0),
        received_since_start=status.received,
        bytes=counted.get("bytes", 0),
        repeated=counted.get("repeated", 0),
        quarantined=counted.get("quarantined", 0),
        connections=status.connections,
        errors=status.errors,
        last_received_at=status.last_received_at,
        last_error=status.last_error,
        last_error_at=status.last_error_at,
        notice=status.notice,
        device_clock_offset_s=status.device_clock_offset_s,
        port=status.port,
        line=status.line() if status.line is not None else None,
    )


def destination_report(
    status: DestinationStatus, totals: Totals, waiting_since: datetime | None, now: datetime
) -> DestinationReport:
    """Join a Destination's status with its counters; `waiting_since` is when its oldest owed Message was received."""
    counted = totals.get(("destination", status.name), {})
    age_s = 0.0 if waiting_since is None else max(0.0, (now - waiting_since).total_seconds())
    return DestinationReport(
        name=status.name,
        type=status.type,
        state=status.state.value,
        accepted=sum(value for name, value in counted.items() if name.startswith("owed:")),
        pending=counted.get("pending", 0),
        oldest_pending_s=round(age_s, 3),
        delivered=counted.get("delivered", 0),
        parked=counted.get("parked", 0),
        discarded=counted.get("discarded", 0),
        last_delivered_at=status.last_delivered_at,
        last_error=status.last_error,
        last_error_at=status.last_error_at,
        next_try_at=status.next_try_at,
        uncommitted=status.uncommitted,
    )


def stopped_store_report(data_dir: Path, stop_intake_below: int) -> StoreReport:
    """Return what can be told of a store without an agent. Raises StoreError when it cannot be measured."""
    path = data_dir / FILE_NAME
    log = path.with_name(f"{FILE_NAME}-wal")
    try:
        return StoreReport(
            path=str(path),
            size_bytes=path.stat().st_size,
            log_bytes=log.stat().st_size if log.exists() else 0,
            free_bytes=shutil.disk_usage(data_dir).free,
            stop_intake_below=stop_intake_below,
            reserve_held=(data_dir / RESERVE_NAME).exists(),
            sqlite_version=sqlite_version(),
            commits=0,
            queue=0,
            intake="no agent runs",
        )
    except OSError as error:
        raise StoreError(f"{data_dir}: {error.strerror}") from error


def read_waiting(readers: Readers, names: list[str]) -> dict[str, datetime]:
    """Return when the oldest Message owed to each Destination was received, for those that are owed any."""
    found = {name: oldest_pending(readers.connection, name) for name in names}
    return {name: at for name, at in found.items() if at is not None}


def _read(app: "App") -> tuple[Totals, dict[str, datetime]]:
    readers = app.store.readers
    with unreadable_is_told():
        return read_counters(readers.connection), read_waiting(readers, list(app.destinations))


def _store_report(app: "App") -> StoreReport:
    with unreadable_is_told():
        size = app.store.size()
    return StoreReport(
        path=str(app.store.path),
        size_bytes=size.database,
        log_bytes=size.log,
        free_bytes=app.space.free_bytes(),
        stop_intake_below=app.config.retention.stop_intake_below,
        reserve_held=app.space.reserve_held,
        sqlite_version=sqlite_version(),
        commits=app.store.writer.commits,
        queue=app.store.writer.waiting,
        intake=app.intake.refusing or OPEN,
    )
