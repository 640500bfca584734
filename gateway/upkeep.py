"""What is looked after while the agent runs: room on the disk, retention, alarms of age and silence, the clock.

Each round is short; what reads or removes files runs in a worker thread.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from gateway.alarms import Alarms
from gateway.clock import Clock, to_micros
from gateway.config import Config
from gateway.imaging.worklist_view import local_time
from gateway.spool import Spool
from gateway.status import DestinationStatus, LinkState, SourceStatus
from gateway.store.archive import is_awaited
from gateway.store.checking import object_is_named
from gateway.store.commitments import remove_commitments
from gateway.store.counters import read_counters
from gateway.store.reading import oldest_pending
from gateway.store.recovery import stores_set_aside
from gateway.store.retention import Piece, remove_piece
from gateway.store.space import Space
from gateway.store.steps import remove_steps
from gateway.store.store import CALL_TIMEOUT_S, Store
from gateway.store.studies import remove_studies
from gateway.store.worklist import remove_old

ROUND_S = 1.0
AGE_ROUND_S = 5.0
RETENTION_ROUND_S = 60.0
LOG_BYTES_MAX = 512 << 20  # of the store's log: 64 MiB are usual
ORPHAN_ROUND_S = 3600.0
RETENTION_PIECES_MAX = 500
RETENTION_BUSY = 50_000  # Messages that one round removed: more wait, so that the next one comes soon

_log = logging.getLogger("gateway.upkeep")


class Upkeep:
    """Owns the rounds; `config` is asked for anew each time, because it may be reloaded."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        space: Space,
        alarms: Alarms,
        clock: Clock,
        config: Callable[[], Config],
        sources: Callable[[], Iterable[SourceStatus]],
        destinations: Callable[[], Iterable[DestinationStatus]],
    ) -> None:
        self._store = store
        self._spool = spool
        self._space = space
        self._alarms = alarms
        self._clock = clock
        self._config = config
        self._sources = sources
        self._destinations = destinations
        self._offset_s = self._clock_offset_s()
        self._orphans_due_s = 0.0
        self._lost: dict[str, int] = {}
        self._heard: dict[str, tuple[tuple[int, datetime | None], float]] = {}  # by Source: what of, and since when
        self.oldest_pending_s: dict[str, float] = {}

    async def watch(self) -> None:
        """Look at disk, clock, ages and silence until cancelled."""
        elapsed_s = AGE_ROUND_S
        while True:
            await self._look_at_disk()
            self._look_at_clock()
            self._look_at_links()
            if elapsed_s >= AGE_ROUND_S:
                elapsed_s = 0.0
                await self._look_at_ages()
                self._look_at_silence()
            await asyncio.sleep(ROUND_S)
            elapsed_s += ROUND_S

    async def retain(self) -> None:
        """Let go of what is settled and old, or too large, until cancelled."""
        while True:
            removed = await asyncio.to_thread(self.retain_once)
            await asyncio.sleep(ROUND_S if removed >= RETENTION_BUSY else RETENTION_ROUND_S)

    def retain_once(self) -> int:
        """Run one sweep by age, then by size; return how many Messages went. Blocks; for a worker thread."""
        retention = self._config().retention
        cutoff = self._clock.now() - timedelta(days=retention.days)
        removed = self._sweep(to_micros(cutoff), quarantined=True)
        if self._data_bytes() > retention.max_size:
            now = to_micros(self._clock.now())
            removed += self._sweep(now, quarantined=False, until_below=retention.max_size)
        self._sweep_orphans(cutoff)
        self._sweep_workflow(to_micros(cutoff))
        if removed:
            _log.info("retention.removed messages=%d", removed)
        return removed

    def _sweep_orphans(self, cutoff: datetime) -> None:
        """Remove old files of the Spool that no row refers to: left by a crash between link and commit.

        Once an hour; never while a store waits set aside, because it may know them.
        """
        now_s = self._clock.monotonic()
        if now_s < self._orphans_due_s or stores_set_aside(self._store.path.parent):
            return
        self._orphans_due_s = now_s + ORPHAN_ROUND_S
        connection = self._store.readers.connection
        names = (name for name in self._spool.names() if self._spool.kept_before(name, cutoff))
        orphans = [name for name in names if not object_is_named(connection, name)]
        self._spool.remove(orphans)
        if orphans:
            _log.warning("retention.removed_orphans objects=%d", len(orphans))

    def _sweep_workflow(self, before: int) -> None:
        """Remove old procedure steps, studies and commitment requests that are over."""
        worklist = self._config().worklist
        unused = local_time(self._clock.now(), worklist) - timedelta(days=worklist.keep_days)
        self._store.call(lambda connection: remove_old(connection, unused)).result(CALL_TIMEOUT_S)
        for remove in (remove_steps, remove_studies, remove_commitments):
            self._store.call(lambda connection, remove=remove: remove(connection, before)).result(CALL_TIMEOUT_S)  # type: ignore[misc]

    def _sweep(self, before: int, *, quarantined: bool, until_below: int | None = None) -> int:
        removed, after = 0, 0
        for _ in range(RETENTION_PIECES_MAX):
            piece = self._remove(after, before, quarantined)
            removed += piece.removed
            self._spool.remove(piece.objects)
            if piece.next_after is None or (until_below is not None and self._data_bytes() <= until_below):
                break
            after = piece.next_after
        return removed

    def _remove(self, after: int, before: int, quarantined: bool) -> Piece:
        return self._store.call(
            lambda connection: remove_piece(connection, after=after, before_micros=before, quarantined=quarantined)
        ).result(CALL_TIMEOUT_S)

    def _data_bytes(self) -> int:
        return self._store.size().used + self._spool.size_bytes()

    async def _look_at_disk(self) -> None:
        low = await asyncio.to_thread(self._space.look)
        self._alarms.hold("disk-low", low, "too little room on the disk: new input is refused")
        log_bytes = (await asyncio.to_thread(self._store.size)).log
        self._alarms.hold(
            "store-log-large", log_bytes > LOG_BYTES_MAX, "a reader keeps the store's log from being shortened"
        )
        waiting = stores_set_aside(self._store.path.parent)
        self._alarms.hold("store-set-aside", bool(waiting), f"a corrupt store was set aside: {', '.join(waiting)}")

    def _look_at_clock(self) -> None:
        offset_s = self._clock_offset_s()
        step_s = offset_s - self._offset_s
        if abs(step_s) > self._config().alarms.clock_step_s:
            self._alarms.put("clock-stepped", f"the clock was set by {step_s:+.1f} s while running")
            self._offset_s = offset_s

    def _clock_offset_s(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()

    def _look_at_links(self) -> None:
        """Hold the alarms of what is down, and end those of what is configured no more."""
        for source in self._sources():
            text = f"source {source.name} is down: {source.last_error}"
            failed = source.state is LinkState.DOWN and source.last_error is not None  # else it was told to stop
            self._alarms.hold(f"source-down:{source.name}", failed, text)
            text = f"the device at source {source.name} is not published: {source.notice}"
            self._alarms.hold(f"source-held-back:{source.name}", source.notice is not None, text)
            text = f"source {source.name} loses readings: {source.lost} since the start"
            self._alarms.hold(f"readings-lost:{source.name}", source.lost > self._lost.get(source.name, 0), text)
            self._lost[source.name] = source.lost
        for destination in self._destinations():
            text = f"{destination.name} takes nothing: {destination.last_error}"
            self._alarms.hold(f"destination-down:{destination.name}", destination.state is LinkState.DOWN, text)
        known = {source.name for source in self._sources()} | {each.name for each in self._destinations()}
        for alarm in self._alarms.standing():
            what, colon, name = alarm.key.partition(":")
            if colon and name not in known and what != "destination-gone":
                self._alarms.clear(alarm.key)

    async def _look_at_ages(self) -> None:
        names = [status.name for status in self._destinations()]
        ages, parked, gone = await asyncio.to_thread(self._read_ages, names)
        for name, number in parked.items():
            text = f"deliveries to {name} are parked and wait for a person"
            self._alarms.hold(f"parked:{name}", number > 0, text)
        for name, awaited in gone.items():
            text = f"deliveries, or instances to be committed to, wait for {name}, which is configured no more"
            self._alarms.hold(f"destination-gone:{name}", awaited, text)
        limit_s = self._config().alarms.oldest_pending_s
        for name, age_s in ages.items():
            self._alarms.hold(
                f"pending-old:{name}", age_s > limit_s, f"the oldest message for {name} waits longer than {limit_s:g} s"
            )
        self.oldest_pending_s = {name: age_s for name, age_s in ages.items() if age_s > 0}

    def _read_ages(self, names: list[str]) -> tuple[dict[str, float], dict[str, int], dict[str, bool]]:
        """Return the age in seconds of each Destination's oldest Message owed, and how many are parked.

        The third tells, of every Destination there ever was, whether it is gone though something waits for it.
        """
        connection = self._store.readers.connection
        now = self._clock.now()
        found = {name: oldest_pending(connection, name) for name in names}
        ages = {name: 0.0 if at is None else (now - at).total_seconds() for name, at in found.items()}
        totals = {name: counted for (role, name), counted in read_counters(connection).items() if role == "destination"}
        parked = {name: totals.get(name, {}).get("parked", 0) for name in names}
        gone = {
            name: name not in names
            and (counted.get("pending", 0) + counted.get("parked", 0) > 0 or is_awaited(connection, name))
            for name, counted in totals.items()
        }
        return ages, parked, gone

    def _look_at_silence(self) -> None:
        config = self._config()
        limits = {source.name: source.quiet_s or config.alarms.quiet_s for source in config.sources}
        for status in self._sources():
            limit_s = limits.get(status.name)
            quiet = limit_s is not None and self._silent_s(status) > limit_s
            self._alarms.hold(f"quiet:{status.name}", quiet, f"nothing came from {status.name} for {limit_s} s")

    def _silent_s(self, status: SourceStatus) -> float:
        """Return how long nothing came from a Source; a clock that is set meanwhile changes nothing."""
        now_s = self._clock.monotonic()
        heard = (status.received, status.last_received_at or status.started_at)
        before, since_s = self._heard.get(status.name, (None, now_s))
        if heard != before:
            ago_s = 0.0 if heard[1] is None else (self._clock.now() - heard[1]).total_seconds()
            since_s = now_s - max(ago_s, 0.0)
            self._heard[status.name] = heard, since_s
        return now_s - since_s
