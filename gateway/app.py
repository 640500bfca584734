"""The agent: builds the parts from the configuration, starts, watches, reloads and stops them in order.

start: lock, store, spool, intake, destinations, sources, upkeep
stop:  sources, destinations, upkeep, store; ten seconds
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from gateway.alarms import Alarms
from gateway.assembly import Origins, make_pace, make_sender, make_source
from gateway.clock import Clock
from gateway.config import Config, Destination, DicomDestination, DicomSource, Source
from gateway.configfile import effective_routes
from gateway.delivery import Lane
from gateway.errors import StoreError
from gateway.imaging.negotiation import Offer
from gateway.imaging.rewriting import Rewriter, Rules
from gateway.imaging.workflow import Workflow
from gateway.imaging.worklist_view import local_time
from gateway.intake import Intake, flush_on
from gateway.laboratory import LabOrder, LabQuery
from gateway.pacing import Pace
from gateway.routing import Router
from gateway.spool import Spool
from gateway.status import DestinationStatus, LinkState, SourceStatus
from gateway.store.checking import object_is_named
from gateway.store.connection import LOG_BYTES_READY
from gateway.store.lab_orders import orders_for
from gateway.store.lock import hold_folder
from gateway.store.recovery import stores_set_aside
from gateway.store.space import Space
from gateway.store.store import Store
from gateway.supervision import supervise
from gateway.upkeep import Upkeep

FINISH_TIMEOUT_S = 3.0
READER_THREADS = 2

_log = logging.getLogger("gateway.app")


class App:
    """One running agent."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.alarms = Alarms(clock)
        self.sources: dict[str, SourceStatus] = {}
        self.destinations: dict[str, DestinationStatus] = {}
        self.started_at: datetime = clock.now()
        self.failed: asyncio.Event = asyncio.Event()
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._lanes: dict[str, dict[int, Lane]] = {}
        self._store_failed = False

    async def start(self) -> None:
        """Bring everything up. Raises StoreError when the data folder cannot be used."""
        loop = asyncio.get_running_loop()
        folder = self.config.gateway.data_dir
        self._lock = await asyncio.to_thread(hold_folder, folder)
        self.space = Space(
            folder, reserve=self.config.retention.reserve, stop_intake_below=self.config.retention.stop_intake_below
        )
        self.space.look()

        def store_failed(error: Exception) -> None:
            loop.call_soon_threadsafe(self._fail)

        window = timedelta(hours=self.config.gateway.repeat_window_hours)
        self.store = await asyncio.to_thread(
            Store,
            folder,
            self.clock,
            failed=store_failed,
            flush=flush_on(loop),
            full=self.space.free_reserve,
            repeat_window=window,
        )
        if self.space.spares(LOG_BYTES_READY):
            await asyncio.to_thread(self.store.prepare)
        self.spool = Spool(folder / "spool")
        await asyncio.to_thread(self.spool.open, self._is_named)
        self._executor = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="outbox-reader")
        self.intake = Intake(self.store, self._router(), self._gate, self._wake)
        self.workflow = Workflow(
            self.store,
            self.spool,
            self.intake,
            self.clock,
            self.alarms,
            config=lambda: self.config,
            owed=self._wake,
            owed_again=self.rewind,
        )
        self._rules = self._read_rules()
        await self._waive(self.config)
        self.upkeep = Upkeep(
            self.store,
            self.spool,
            self.space,
            self.alarms,
            self.clock,
            config=lambda: self.config,
            sources=self.sources.values,
            destinations=self.destinations.values,
        )
        for destination in self.config.destinations:
            self._start_destination(destination)
        for source in self.config.sources:
            self._start_source(source)
        self._watch("upkeep", self.upkeep.watch)
        self._watch("retention", self.upkeep.retain)
        for name, run in self.workflow.tasks.items():
            self._watch(name, run)
        _log.info("agent.started sources=%d destinations=%d", len(self.sources), len(self.destinations))

    def _is_named(self, name: str) -> bool:
        """Tell whether a row refers to an object; a store that was set aside may know any."""
        return bool(stores_set_aside(self.store.path.parent)) or object_is_named(self.store.readers.connection, name)

    async def stop(self) -> None:
        """Take no more, finish what is in hand, close the store."""
        await self._stop_tasks(f"source:{name}" for name in list(self.sources))
        await self._finish_lanes(list(self.destinations))
        await self._stop_tasks(list(self._tasks))
        self._executor.shutdown(cancel_futures=True)
        await asyncio.to_thread(self.spool.close)
        with suppress(StoreError):
            await asyncio.to_thread(self.store.close)
        os.close(self._lock)
        _log.info("agent.stopped")

    async def reload(self, config: Config) -> list[str]:
        """Take a new configuration over: only what changed is stopped and started. Return what was done, in words.

        Raises StoreError, and then nothing has changed, when the data folder would change, which needs a restart, or
        the store refuses.
        """
        if config.gateway.data_dir != self.config.gateway.data_dir:
            raise StoreError("data_dir cannot change while the gateway runs: restart it")
        await self._waive(config)
        old, self.config = self.config, config
        router, self.intake.router = self.intake.router, self._router()
        self._rules = self._read_rules()
        everything = (config.gateway.name, config.gateway.facility) != (old.gateway.name, old.gateway.facility)
        gone_sources = _changed(old.sources, config.sources, everything=False)
        gone_sources += [
            source.name  # what a DICOM source reads from an object's head is what the routes ask for
            for source in config.sources
            if source.name in self.sources
            and source.name not in gone_sources
            and (
                router.keywords(source.name) != self.intake.router.keywords(source.name)
                or (isinstance(source, DicomSource) and _asks(old) != _asks(config))
            )
        ]
        gone_destinations = _changed(old.destinations, config.destinations, everything=everything)
        done = [f"stopped source {name}" for name in gone_sources]
        done += [f"stopped destination {name}" for name in gone_destinations]
        await self._finish_lanes(gone_destinations)
        await self._stop_tasks(f"source:{name}" for name in gone_sources)
        await self._stop_tasks(f"commitment:{name}" for name in gone_destinations)
        await self._stop_tasks(f"destination:{name}" for name in gone_destinations)
        for name in gone_sources:
            del self.sources[name]
        for name in gone_destinations:
            del self.destinations[name], self._lanes[name]
        for destination in config.destinations:
            if destination.name not in self.destinations:
                self._start_destination(destination)
                done.append(f"started destination {destination.name}")
        for source in config.sources:
            if source.name not in self.sources:
                self._start_source(source)
                done.append(f"started source {source.name}")
        _log.info("configuration.reloaded changes=%d", len(done))
        return done

    async def prove_commit(self) -> None:
        """Write one row and wait until it is on the disk: what the watchdog is fed by. Raises StoreError."""
        at = self.clock.now().isoformat()
        await asyncio.wrap_future(
            self.store.call(
                lambda connection: connection.execute("INSERT OR REPLACE INTO about VALUES ('heartbeat', ?)", (at,))
            )
        )

    def rewind(self, destination: str | None = None) -> None:
        """Let lanes look at the whole Outbox again, after a person's act."""
        for name, lanes in self._lanes.items():
            if destination in (None, name):
                for lane in lanes.values():
                    lane.rewind()

    def _router(self) -> Router:
        return Router(effective_routes(self.config), self.config.sources, self.config.destinations)

    def _read_rules(self) -> Rules:
        return Rules.of(effective_routes(self.config), self.intake.router)

    async def _waive(self, config: Config) -> None:
        """Wait no more for archives that are asked no more. Raises StoreError."""
        asked = _asks(config)
        names = [each.name for each in config.destinations if each.name not in asked]
        work = self.store.call(lambda connection: self.store.reports.waive(connection, names))
        if waived := await asyncio.wrap_future(work):
            _log.warning("commitment.waived instances=%d", waived)

    def _gate(self) -> str | None:
        if self._store_failed:
            return "the store has failed"
        return "too little room on the disk" if self.space.low else None

    def _fail(self) -> None:
        self._store_failed = True
        self.alarms.put("store-failed", "the store has failed; the gateway stops")
        self.failed.set()

    def _wake(self, destinations: Iterable[str]) -> None:
        for name in destinations:
            for lane in self._lanes.get(name, {}).values():
                lane.wake()

    def _start_source(self, source: Source) -> None:
        status = SourceStatus(name=source.name, type=source.type, started_at=self.clock.now())
        self.sources[source.name] = status

        def failed(reason: str) -> None:
            status.state = LinkState.DOWN
            status.saw_error(reason, self.clock.now())
            self.alarms.put(f"source-down:{source.name}", f"source {source.name} is down: {reason}")

        async def run() -> None:
            await make_source(
                source,
                self.intake,
                self.spool,
                self.clock,
                status,
                clock_step_s=self.config.alarms.clock_step_s,
                offer=self._offer(source),
                order_priority=self.workflow.order_priority,
                orders=self._lab_orders,
                store=self.store,
                local_time=lambda now: local_time(now, self.config.worklist),
            ).run()

        self._spawn(f"source:{source.name}", supervise(source.name, run, failed, self.clock))

    async def _lab_orders(self, query: LabQuery) -> tuple[LabOrder, ...]:
        return await asyncio.to_thread(lambda: orders_for(self.store.readers.connection, query))

    def _offer(self, source: Source) -> Offer | None:
        """Return what a DICOM Source does beside Verification and Storage."""
        return self.workflow.offer(source) if isinstance(source, DicomSource) else None

    def _start_destination(self, destination: Destination) -> None:
        status = DestinationStatus(name=destination.name, type=destination.type)
        self.destinations[destination.name] = status
        self._lanes[destination.name] = {}
        if not destination.enabled:
            status.state = LinkState.DISABLED
            return
        pace = make_pace(destination, self.clock)
        for number in range(destination.lanes):
            self._start_lane(destination, status, number, pace)
        if isinstance(destination, DicomDestination) and destination.commitment:
            run = self.workflow.committer(destination, partial(setattr, status, "uncommitted")).run
            self._watch(f"commitment:{destination.name}", run)

    def _start_lane(self, destination: Destination, status: DestinationStatus, number: int, pace: Pace) -> None:
        origins = Origins(self.config.gateway)
        rewriter = Rewriter(
            lambda: self._rules,
            self.spool,
            demographics=self.workflow.demographics,
            system=self.config.gateway.name,
        )

        def failed(reason: str) -> None:
            status.state = LinkState.DOWN
            status.last_error, status.last_error_at = reason, self.clock.now()

        async def run() -> None:
            lane = Lane(
                make_sender(destination, origins, self.spool, self.clock, preparer=rewriter, pace=pace),
                self.store,
                self.clock,
                status,
                self.alarms,
                self._executor,
                lane=number,
                lanes=destination.lanes,
                on_error=destination.on_error,
                content_attempts_max=destination.content_attempts_max,
                pace=pace,
            )
            self._lanes[destination.name][number] = lane
            with self.store.trusted():
                await lane.run()

        name = f"{destination.name}/{number}"
        self._spawn(f"destination:{destination.name}", supervise(name, run, failed, self.clock))

    def _watch(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        async def trusting() -> None:
            with self.store.trusted():
                await run()

        self._spawn(name, supervise(name, trusting, lambda reason: None, self.clock))

    def _spawn(self, key: str, work: Awaitable[None]) -> None:
        self._tasks.setdefault(key, []).append(asyncio.ensure_future(work))

    async def _finish_lanes(self, names: list[str]) -> None:
        """Let lanes end with what they have in hand, for a while."""
        for name in names:
            for lane in self._lanes[name].values():
                lane.finish()
        tasks = [task for name in names for task in self._tasks.get(f"destination:{name}", [])]
        if tasks:
            await asyncio.wait(tasks, timeout=FINISH_TIMEOUT_S)

    async def _stop_tasks(self, keys: Iterable[str]) -> None:
        tasks = [task for key in keys for task in self._tasks.pop(key, [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _asks(config: Config) -> set[str]:
    """Return the Destinations that are asked to commit to what they were sent: their reports come to our listeners."""
    return {each.name for each in config.destinations if isinstance(each, DicomDestination) and each.commitment}


def _changed(
    old: tuple[Source, ...] | tuple[Destination, ...],
    new: tuple[Source, ...] | tuple[Destination, ...],
    *,
    everything: bool,
) -> list[str]:
    standing = {endpoint.name: endpoint for endpoint in new}
    return [endpoint.name for endpoint in old if everything or standing.get(endpoint.name) != endpoint]
