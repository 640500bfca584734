"""One IEEE 11073 SDC provider (10207, 20701, 20702) as a Source: a Device whose wires a library owns.

    down --found, subscribed, MDIB read--> up --a subscription ended, a new sequence, too much--> down (back-off)
                                            `---longer without a report than ever---> silent ---a report---> up

The library's threads (`sdc_consumer.py`) hand frozen events to the loop; `sdc_picture.py` makes Results of them; they
go to intake like those of any streaming Device. A provider that restarts is found again and read anew: its alarms go
on, a value it gave before is not told twice. The library is imported when the first such Source connects.
"""

import asyncio
import contextlib
import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar, assert_never

from gateway.clock import Clock
from gateway.config import SdcSource
from gateway.errors import LinkError, place_of
from gateway.model import Reading, Result
from gateway.sources.backlog import Accepting, Backlog, Held
from gateway.sources.incomings import Incomings
from gateway.sources.sdc_inbox import Beheld, Ended, Event, Inbox, Reported, Unreadable
from gateway.sources.sdc_picture import Picture, places_differ
from gateway.status import LinkState, SourceStatus
from gateway.tap import Direction

REOPEN_S_MIN = 0.25
REOPEN_S_MAX = 2.0  # a Device that was switched on again is read within 5 s
CONNECT_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 3.0
LOOK_S = 1.0  # how often silence and standing alarms are looked after
INTERVALS = 10  # reports after which we know how often a Device reports
SILENCE_FACTOR, SILENCE_S_MIN = 3.0, 2.0

logger = logging.getLogger("gateway.sources")

_T = TypeVar("_T")


class Connected(Protocol):
    """An open connection to a provider."""

    address: str

    def close(self, *, unsubscribe: bool) -> None:
        """Take leave and stop; blocks."""
        ...


Connector = Callable[[SdcSource, Inbox], Connected]


def connect(settings: SdcSource, inbox: Inbox) -> Connected:
    """Connect through the library, which is imported here. Raises LinkError."""
    from gateway.sources.sdc_consumer import connect as connect_by_library

    return connect_by_library(settings, inbox)


async def try_provider(settings: SdcSource) -> str:
    """Connect, read the MDIB, take leave, and return what was found in a line. Raises LinkError."""
    inbox = Inbox()
    connection = await in_thread(f"sdc {settings.name}", lambda: connect(settings, inbox), _abandon)
    beheld = [event for event in await inbox.take() if isinstance(event, Beheld)]
    await in_thread(f"sdc {settings.name}", lambda: connection.close(unsubscribe=True), _ignore)
    return f"read {connection.address}: {sum(len(each.mdib.descriptors) for each in beheld)} entries"


class SdcLink:
    """One provider: connects, stays connected, and brings in what it says."""

    def __init__(
        self,
        settings: SdcSource,
        intake: Accepting,
        clock: Clock,
        status: SourceStatus,
        *,
        clock_step_s: float,
        connector: Connector = connect,
    ) -> None:
        """Take the parts; `clock_step_s` is `alarms.clock_step_s`."""
        self._settings = settings
        self._clock = clock
        self._status = status
        self._connector = connector
        self._backlog = Backlog(intake, clock, status, repeats=False)
        self._incomings = Incomings(settings.bed, settings.device_id, clock, status, clock_step_s=clock_step_s)
        self._picture = Picture(settings.waves)
        self._patience = _Patience(settings.quiet_s)
        self._pause_s = REOPEN_S_MIN
        self._missed = 0
        self._place = ""

    async def run(self) -> None:
        """Listen until cancelled; what was read by then is still brought to disk."""
        await self._backlog.keep_beside(self._listen(), f"{self._settings.name}/sdc")

    async def _listen(self) -> None:
        while True:
            inbox = Inbox()
            try:
                connection = await self._connected(inbox)
                await self._converse(connection, inbox)
            except LinkError as error:
                self._go_down(str(error))
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            self._pause_s = min(self._pause_s * 2, REOPEN_S_MAX)

    async def _connected(self, inbox: Inbox) -> Connected:
        name = f"sdc {self._settings.name}"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await in_thread(name, lambda: self._connector(self._settings, inbox), _abandon)
        except TimeoutError as error:
            raise LinkError(f"did not connect within {CONNECT_TIMEOUT_S:.0f} s") from error

    async def _converse(self, connection: Connected, inbox: Inbox) -> None:
        self._status.connections, self._status.port = 1, connection.address
        over = False
        try:
            while True:
                for event in await self._arrived(inbox):
                    over = isinstance(event, Ended)
                    await self._take(event, connection.address)
                await self._look_after(connection.address)
        finally:
            self._status.connections, self._status.port, self._status.notice = 0, None, None
            self._note_lost(inbox.lost)
            await self._part(connection, unsubscribe=not over)

    async def _part(self, connection: Connected, *, unsubscribe: bool) -> None:
        """Close on a thread; a Device that is gone is not waited for."""
        closing = in_thread(f"sdc {self._settings.name}", lambda: connection.close(unsubscribe=unsubscribe), _ignore)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S if unsubscribe else 0.0):
                await closing

    async def _arrived(self, inbox: Inbox) -> list[Event]:
        try:
            async with asyncio.timeout(LOOK_S):
                return await inbox.take()
        except TimeoutError:
            return []

    async def _take(self, event: Event, peer: str) -> None:
        """Bring in what one event tells. Raises LinkError when it is the end."""
        if isinstance(event, Ended):
            raise LinkError(event.reason)
        self._status.tap.tell(Direction.HEARD, event.raw, self._clock.monotonic())
        self._go_up(reported=isinstance(event, Reported))
        await self._bring(self._read(event), peer)
        self._heed(self._picture.notice)
        self._compare_places()
        if isinstance(event, Beheld):
            unread = self._picture.description.unread
            logger.info("sdc.mdib_read source=%s entries=%d", self._settings.name, len(event.mdib.descriptors))
            if unread:
                logger.warning("sdc.metrics_not_read source=%s distributions=%d", self._settings.name, unread)

    def _read(self, event: Beheld | Reported | Unreadable) -> Reading:
        now = self._clock.now()
        try:
            match event:
                case Beheld():
                    return Reading(raw=event.raw, results=self._picture.behold(event.mdib, now))
                case Reported():
                    return Reading(raw=event.raw, results=self._picture.follow(event.states, now))
                case Unreadable():
                    return Reading(raw=event.raw, fault=event.fault)
        except Exception as error:  # noqa: BLE001 - a bug in the mapping must not cost the report, nor the Device its link
            logger.error("sdc.mapping_failed source=%s place=%s", self._settings.name, place_of(error))
            return Reading(raw=event.raw, fault=f"mapping failed: {type(error).__name__}")
        assert_never(event)

    async def _bring(self, reading: Reading, peer: str) -> None:
        incomings = self._incomings.of(reading, peer)
        if incomings:
            await self._backlog.put(Held(incomings=incomings, settled=_settled))

    async def _look_after(self, peer: str) -> None:
        """Tell standing alarms again, what was missed, and that the Device has fallen silent."""
        now = self._clock.monotonic()
        results: tuple[Result, ...] = self._picture.restate(self._clock.now(), now)
        if results:
            await self._bring(Reading(raw=b"", results=results), peer)
        if self._picture.missed > self._missed:
            self._status.saw_error(f"{self._picture.missed} states were sent and never came", self._clock.now())
            logger.warning("sdc.states_missed source=%s total=%d", self._settings.name, self._picture.missed)
            self._missed = self._picture.missed
        if (silent_s := self._patience.lost_after(now)) is not None:
            self._go_down(f"silent for {silent_s:.0f} s")

    def _compare_places(self) -> None:
        """Tell, once for each place, that a Device believes to stand elsewhere; the configured bed holds."""
        place, self._place = self._place, self._picture.place
        if place != self._place and places_differ(self._settings.bed, self._place):
            logger.warning("sdc.place_differs source=%s bed=%s told=%s", self._settings.name, *self._places())

    def _places(self) -> tuple[str, str]:
        return self._settings.bed, "".join(sign for sign in self._place if sign.isprintable())

    def _note_lost(self, count: int) -> None:
        if count:
            self._status.lost += count
            self._status.saw_error(f"{self._status.lost} reports lost: they came too fast", self._clock.now())
            logger.error("reading.lost source=%s reports=%d", self._settings.name, count)

    def _heed(self, notice: str | None) -> None:
        if notice != self._status.notice:
            self._status.notice = notice
            logger.warning("link.notice source=%s reason=%s", self._settings.name, notice or "none any more")

    def _go_up(self, *, reported: bool) -> None:
        self._patience.heard(self._clock.monotonic(), reported=reported)
        if self._status.state is not LinkState.UP:
            self._status.state = LinkState.UP
            self._pause_s = REOPEN_S_MIN
            logger.info("link.up source=%s", self._settings.name)

    def _go_down(self, reason: str) -> None:
        if self._status.state is not LinkState.DOWN or self._status.last_error != reason:
            self._status.saw_error(reason, self._clock.now())
            logger.warning("link.down source=%s reason=%s", self._settings.name, reason)
        self._status.state = LinkState.DOWN


class _Patience:
    """How long a Device may say nothing: `quiet_s`, or three times the longest it was ever quiet between reports.

    SDC reports changes; a pump that does not pump has none. So silence is judged by the Device's own habit.
    """

    def __init__(self, quiet_s: float | None) -> None:
        self._quiet_s = quiet_s
        self._intervals: deque[float] = deque(maxlen=INTERVALS)
        self._heard_at: float | None = None
        self._lost = False

    def heard(self, now: float, *, reported: bool) -> None:
        """Note that something came; intervals are counted between reports, not over a lost connection."""
        if reported and self._heard_at is not None:
            self._intervals.append(now - self._heard_at)
        self._heard_at, self._lost = now, False

    def lost_after(self, now: float) -> float | None:
        """Return, once, for how long nothing came, when that is longer than it should be."""
        limit = self._limit()
        if self._lost or self._heard_at is None or limit is None or now - self._heard_at < limit:
            return None
        self._lost = True
        return now - self._heard_at

    def _limit(self) -> float | None:
        if self._quiet_s is not None:
            return self._quiet_s
        if len(self._intervals) < INTERVALS:
            return None
        return max(SILENCE_S_MIN, SILENCE_FACTOR * max(self._intervals))


async def in_thread(name: str, work: Callable[[], _T], abandon: Callable[[_T], None]) -> _T:
    """Await blocking work on a daemon thread of its own, which no stop of the agent has to wait for.

    What the work returns after nobody waits any more is given to `abandon`, on that thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()
    taken, told = threading.Event(), threading.Event()

    def deliver(value: _T) -> None:
        if not future.done():
            future.set_result(value)
            taken.set()
        told.set()

    def fail(error: Exception) -> None:
        if not future.done():
            future.set_exception(error)

    def run() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed
            try:
                value = work()
            except Exception as error:  # noqa: BLE001 - raised again where the work is awaited
                loop.call_soon_threadsafe(fail, error)
                return
            try:
                loop.call_soon_threadsafe(deliver, value)
                told.wait(CLOSE_TIMEOUT_S)
            finally:
                if not taken.is_set():
                    abandon(value)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future


def _abandon(connection: Connected) -> None:
    connection.close(unsubscribe=True)


def _ignore(_: None) -> None: ...


async def _settled(_: bool) -> None: ...
