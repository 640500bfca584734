"""The one loop of all byte-stream Devices.

    closed --opened--> silent --bytes--> up --`silence_s` without bytes--> silent
       ^------------------------ lost, closed (reopened with back-off) ------'

It waits for bytes or the Session's deadline, feeds the Session, writes what the Session says, and brings Readings to
intake. What the bytes mean is the driver's matter; what becomes of Readings while the disk is slow is `backlog.py`'s.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

from gateway.clock import Clock
from gateway.config import DeviceSource, Line
from gateway.driver import Asking, Driver, Forgetting, LineSettings, Parting, Session
from gateway.errors import LinkError, StoreError
from gateway.laboratory import LabOrder, LabQuery
from gateway.model import Reading
from gateway.net.opening import open_stream
from gateway.net.stream import Metered, Stream
from gateway.sources.backlog import DRAIN_TIMEOUT_S, Accepting, Backlog, Held
from gateway.sources.incomings import Incomings
from gateway.status import LinkState, SourceStatus
from gateway.tap import Direction, Tap

REOPEN_S_MIN = 0.25
REOPEN_S_MAX = 2.0  # a Device that was plugged in again is heard within 5 s
PART_TIMEOUT_S = 1.0
CLOCK_STEP_S = 2.0

logger = logging.getLogger("gateway.sources")

Opener = Callable[[str, LineSettings], Awaitable[Stream]]
FindOrders = Callable[[LabQuery], Awaitable[tuple[LabOrder, ...]]]
"""Looks up what is ordered for a sample or patient. Raises StoreError."""


class DeviceLink:
    """One Device: opens its Stream, keeps it open, and brings in what it says."""

    def __init__(
        self,
        settings: DeviceSource,
        driver: Driver,
        intake: Accepting,
        clock: Clock,
        status: SourceStatus,
        *,
        opener: Opener = open_stream,
        clock_step_s: float = CLOCK_STEP_S,
        orders: FindOrders | None = None,
    ) -> None:
        """Take the parts; `driver` was built from the stanza's options, `clock_step_s` is `alarms.clock_step_s`.

        `orders` knows what is ordered, for Devices that ask.
        """
        self._settings = settings
        self._driver = driver
        self._clock = clock
        self._status = status
        self._opener = opener
        self._orders = orders
        self._line = line_of(settings.line, driver.about.line)
        self._silence_s = driver.about.silence_s if settings.quiet_s is None else settings.quiet_s
        repeats = driver.about.acknowledges and getattr(driver, "transmit", True)  # a tapped Device hears no refusal
        self._backlog = Backlog(intake, clock, status, repeats=repeats)
        self._incomings = Incomings(settings.bed, settings.device_id, clock, status, clock_step_s=clock_step_s)
        self._heard_at = 0.0
        self._pause_s = REOPEN_S_MIN

    async def run(self) -> None:
        """Listen until cancelled; what was read by then is still brought to disk."""
        await self._backlog.keep_beside(self._listen(), f"{self._settings.name}/link")

    async def _listen(self) -> None:
        while True:
            try:
                stream = await self._opener(self._settings.port, self._line)
                try:
                    await self._converse(stream)
                finally:
                    self._let_go()
                    await stream.close()
            except LinkError as error:
                self._go_down(str(error))
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            self._pause_s = min(self._pause_s * 2, REOPEN_S_MAX)

    async def _converse(self, stream: Stream) -> None:
        talk = _Talk(stream, self._driver.open(), self._status.tap, self._clock)
        self._status.connections = 1
        self._status.port = stream.peer
        if isinstance(stream, Metered):
            self._status.port, self._status.line = stream.device, stream.line_state
        self._heard_at = self._clock.monotonic()
        try:
            while True:
                await talk.say()
                data = await self._hear(talk)
                await self._feed(talk, data)
                await self._tell_orders(talk)
                await self._take(talk)
                self._heed(talk.session.notice)
        finally:
            await self._finish(talk)

    async def _hear(self, talk: "_Talk") -> bytes | None:
        """Wait for bytes, or return None when the Session's deadline or the end of patience came."""
        try:
            async with asyncio.timeout(self._patience_s(talk.session)):
                data = await talk.hear()
        except TimeoutError:
            return None
        if not data:
            raise LinkError(f"{talk.stream.peer}: closed by the Device")
        return data

    def _patience_s(self, session: Session) -> float | None:
        listening = self._silence_s is not None and self._status.state is not LinkState.DOWN
        silent_at = self._heard_at + self._silence_s if listening and self._silence_s is not None else None
        due = min((at for at in (session.deadline, silent_at) if at is not None), default=None)
        return None if due is None else max(0.0, due - self._clock.monotonic())

    async def _feed(self, talk: "_Talk", data: bytes | None) -> None:
        now = self._clock.monotonic()
        try:
            if data is not None:
                self._go_up(now)
                talk.session.receive(data, now)
            else:
                self._notice_silence(talk.session, now)
                if talk.session.deadline is not None and now >= talk.session.deadline:
                    talk.session.tick(now)
        except Exception as error:  # noqa: BLE001 - a bug in a Session must not cost the bytes, nor the Device its link
            logger.error("session.failed source=%s error=%s", self._settings.name, type(error).__name__)
            fault = f"session failed: {type(error).__name__}"
            await self._bring(talk, [*talk.session.take_readings(), Reading(raw=data or b"", fault=fault)])
            talk.session = self._driver.open()

    async def _tell_orders(self, talk: "_Talk") -> None:
        """Answer what the Device asked; where nobody knows, its Session says so by itself."""
        if self._orders is None or not isinstance(talk.session, Asking):
            return
        for query in talk.session.take_queries():
            try:
                orders = await self._orders(query)
            except StoreError as error:
                logger.warning("query.unanswered source=%s reason=%s", self._settings.name, error)
                continue
            talk.session.answer(query, orders, self._clock.monotonic())

    async def _take(self, talk: "_Talk") -> None:
        await self._bring(talk, talk.session.take_readings())

    async def _finish(self, talk: "_Talk") -> None:
        """Bring in what the Session still gathers, now that no more bytes come, and let it take leave."""
        if (due := talk.session.deadline) is not None:
            talk.session.tick(due)
        if isinstance(talk.session, Parting):
            talk.session.part()
            with contextlib.suppress(LinkError, TimeoutError):  # the line may be what was lost
                async with asyncio.timeout(PART_TIMEOUT_S):
                    await talk.say()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._take(talk)

    async def _bring(self, talk: "_Talk", readings: list[Reading]) -> None:
        for reading in readings:
            incomings = self._incomings.of(reading, talk.stream.peer)
            await self._backlog.put(Held(incomings=incomings, settled=self._settler(talk)))

    def _settler(self, talk: "_Talk") -> Callable[[bool], Awaitable[None]]:
        session = talk.session

        async def settled(stored: bool) -> None:
            session.settle(stored, self._clock.monotonic())
            if talk.session is session:
                with contextlib.suppress(LinkError):  # the reading side notices and reopens
                    await talk.say()

        return settled

    def _heed(self, notice: str | None) -> None:
        """Tell a person, at its edges, why nothing of a Device is published although it talks."""
        if notice != self._status.notice:
            self._status.notice = notice
            logger.warning("link.notice source=%s reason=%s", self._settings.name, notice or "none any more")

    def _let_go(self) -> None:
        """Forget what was of this Stream."""
        self._status.connections = 0
        self._status.notice = self._status.port = self._status.line = None

    def _go_up(self, now: float) -> None:
        self._heard_at = now
        if self._status.state is not LinkState.UP:
            self._status.state = LinkState.UP
            self._pause_s = REOPEN_S_MIN
            logger.info("link.up source=%s", self._settings.name)

    def _notice_silence(self, session: Session, now: float) -> None:
        if self._silence_s is not None and now - self._heard_at >= self._silence_s:
            if self._status.state is LinkState.UP and isinstance(session, Forgetting):
                session.forget(now)
            self._go_down(f"silent for {self._silence_s:g} s")

    def _go_down(self, reason: str) -> None:
        if self._status.state is not LinkState.DOWN or self._status.last_error != reason:
            self._status.saw_error(reason, self._clock.now())
            logger.warning("link.down source=%s reason=%s", self._settings.name, reason)
        self._status.state = LinkState.DOWN


class _Talk:
    """A Stream and the Session on it; the loop and the backlog both make it speak."""

    def __init__(self, stream: Stream, session: Session, tap: Tap, clock: Clock) -> None:
        self.stream = stream
        self.session = session
        self._tap = tap
        self._clock = clock
        self._speaking = asyncio.Lock()

    async def hear(self) -> bytes:
        data = await self.stream.read()
        self._tap.tell(Direction.HEARD, data, self._clock.monotonic())
        return data

    async def say(self) -> None:
        async with self._speaking:
            if output := self.session.take_output():
                self._tap.tell(Direction.SAID, output, self._clock.monotonic())
                await self.stream.write(output)


def line_of(asked: Line, default: LineSettings) -> LineSettings:
    """Return the line settings of a stanza over those of its driver."""
    return LineSettings(
        baud=default.baud if asked.baud is None else asked.baud,
        data_bits=default.data_bits if asked.data_bits is None else asked.data_bits,
        parity=default.parity if asked.parity is None else asked.parity,
        stop_bits=default.stop_bits if asked.stop_bits is None else asked.stop_bits,
        flow=default.flow if asked.flow is None else asked.flow,
    )
