"""Delivery to test with: a real store, a Sender that records and answers by script, a clock that waits for the test."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from gateway.alarms import Alarms
from gateway.clock import ManualClock
from gateway.delivery import Lane
from gateway.errors import GatewayError
from gateway.intake import flush_on
from gateway.model import Accepted, Incoming, Parcel, Receipt, Verdict
from gateway.pacing import Pace
from gateway.status import DestinationStatus
from gateway.store.store import Store
from tests.gateway.store.stores import START, incoming, unexpected

WAIT_S = 10.0

Answer = Verdict | Exception | Receipt


class RecordingSender:
    """Notes every Parcel it is given; answers from `script` (then DELIVERED). A Sender as delivery knows it."""

    def __init__(self, batch_max: int = 8) -> None:
        self.batch_max = batch_max
        self.script: list[Answer] = []
        self.disliked: set[bytes] = set()  # bodies that are brought last and not taken, as the DICOM Sender does
        self.tried: list[Parcel] = []
        self.taken: list[bytes] = []
        self.batches = 0
        self.closed = 0
        self.changed = asyncio.Condition()
        self.open_gate = asyncio.Event()
        self.open_gate.set()

    async def send(self, parcels: Sequence[Parcel]) -> AsyncGenerator[Receipt, None]:
        self.batches += 1
        for parcel in sorted(parcels, key=lambda parcel: parcel.message.raw in self.disliked):
            await self.open_gate.wait()
            self.tried.append(parcel)
            answer = self.script.pop(0) if self.script else Verdict.DELIVERED
            if parcel.message.raw in self.disliked:
                answer = Verdict.RETRY_CONTENT
            if answer is Verdict.DELIVERED:
                self.taken.append(parcel.message.raw or b"")
            async with self.changed:
                self.changed.notify_all()
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, Verdict):
                answer = Receipt(delivery_id=parcel.delivery.id, verdict=answer, reason="said so")
            yield answer
            if answer.verdict in (Verdict.RETRY, Verdict.RETRY_CONTENT):
                return

    def bodies_tried(self) -> list[bytes]:
        return [parcel.message.raw or b"" for parcel in self.tried]

    async def probe(self) -> str:
        return "recorded"

    async def close(self) -> None:
        self.closed += 1

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S), self.changed:
            await self.changed.wait_for(condition)


class World:
    """One store and the lanes of Destination `ris`."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(START)
        self.alarms = Alarms(self.clock)
        self.status = DestinationStatus(name="ris", type="mllp")
        self.store = Store(folder, self.clock, failed=unexpected, flush=flush_on(asyncio.get_running_loop()))
        self.executor = ThreadPoolExecutor(2)
        self.lanes: list[Lane] = []
        self.tasks: list[asyncio.Task[None]] = []

    def lane(
        self,
        sender: RecordingSender,
        *,
        lane: int = 0,
        lanes: int = 1,
        on_error: Literal["park", "hold"] = "park",
        content_attempts_max: int = 5,
        pace: Pace | None = None,
    ) -> Lane:
        """Start a lane."""
        made = Lane(
            sender,
            self.store,
            self.clock,
            self.status,
            self.alarms,
            self.executor,
            lane=lane,
            lanes=lanes,
            on_error=on_error,
            content_attempts_max=content_attempts_max,
            pace=pace,
        )
        self.lanes.append(made)
        self.tasks.append(asyncio.create_task(made.run()))
        return made

    async def keep(self, *raws: bytes | Incoming, urgent: bool = False) -> None:
        """Keep inputs that are owed to `ris`, and wake the lanes."""
        left = len(raws)
        done = asyncio.Event()

        def settled(outcome: Accepted | Exception) -> None:
            nonlocal left
            assert isinstance(outcome, Accepted)
            left -= 1
            if not left:
                done.set()

        for raw in raws:
            self.store.keep(raw if isinstance(raw, Incoming) else incoming(raw), ("ris",), settled, urgent=urgent)
        await asyncio.wait_for(done.wait(), WAIT_S)
        for lane in self.lanes:
            lane.wake()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until something holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.wrap_future(self.store.call(lambda connection: None))

    async def turn(self) -> None:
        """Let lanes do what they can do now: a few rounds of reading and writing."""
        loop = asyncio.get_running_loop()
        for _ in range(3):
            await loop.run_in_executor(self.executor, lambda: None)
            await asyncio.wrap_future(self.store.call(lambda connection: None))

    def states(self) -> dict[int, int]:
        """Return the state of every Delivery on disk."""
        rows = self.store.readers.connection.execute("SELECT id, state FROM delivery")
        return dict(rows.fetchall())

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and let lanes look at their clock."""
        self.clock.advance(seconds)
        for lane in self.lanes:
            lane.wake()

    async def close(self) -> None:
        """Cancel the lanes as the agent does, and close the store."""
        for task in self.tasks:
            task.cancel()
        ended = await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.to_thread(self.store.close)
        self.executor.shutdown()
        for outcome in ended:
            if isinstance(outcome, Exception) and not isinstance(outcome, GatewayError):
                raise outcome
