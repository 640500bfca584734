"""The one door out: each Destination's lanes carry the Outbox to its Sender.

    idle --owed--> fetch oldest --> send --delivered--> settle --> fetch ...
                                         --retry------> back off (1 s doubling to 5 min) --> fetch
                                         --refused----> park and go on, or hold for a person

A lane brings its Deliveries in their order and never two of a Destination's key at once; what is urgent is a queue of
its own that goes first, also outside the Destination's hours. Lanes of one Destination share its pace: when the peer
has failed, one of them tries again and the others wait for it. What was taken is settled behind the sending, so a crash
repeats at most `UNSETTLED_MAX` Deliveries, each under its old control id.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from gateway.alarms import Alarms
from gateway.clock import Clock
from gateway.errors import LinkError, StoreError, TemporaryError
from gateway.model import DeliveryState, Parcel, Receipt, Verdict
from gateway.pacing import Pace
from gateway.senders.sender import Sender
from gateway.status import DestinationStatus, LinkState
from gateway.store.reading import newest_delivery, read_due
from gateway.store.store import Store

RETRY_S_MIN = 1.0
RETRY_S_MAX = 300.0
UNSETTLED_MAX = 256
BATCH_BYTES_MAX = 4 << 20
SETTLE_AGAIN_S = 1.0
REST_S_MAX = 60.0  # the hours are looked at again, should the clock be set

_log = logging.getLogger("gateway.delivery")


def backoff_s(failures: int, jitter: float) -> float:
    """Return how long to wait after so many failures in a row; `jitter` in 0..1 takes up to half of it away."""
    full = min(RETRY_S_MIN * 2.0 ** min(failures - 1, 20), RETRY_S_MAX)
    return full * (1 - jitter / 2)


@dataclass(slots=True)
class _Cursor:
    """How far a queue was looked at: `after` is what is done with, `reached` the furthest that was tried."""

    after: int = 0
    reached: int = 0


class Lane:
    """One lane of one Destination: a task."""

    def __init__(
        self,
        sender: Sender,
        store: Store,
        clock: Clock,
        status: DestinationStatus,
        alarms: Alarms,
        executor: Executor,
        *,
        lane: int = 0,
        lanes: int = 1,
        on_error: Literal["park", "hold"] = "park",
        content_attempts_max: int = 5,
        pace: Pace | None = None,
    ) -> None:
        self._sender = sender
        self._store = store
        self._clock = clock
        self._status = status
        self._alarms = alarms
        self._executor = executor
        self._lane = lane
        self._lanes = lanes
        self._on_error = on_error
        self._content_attempts_max = content_attempts_max
        self._name = status.name
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._unsettled = 0
        self._pace = pace or Pace(clock)
        self._cursors = (_Cursor(), _Cursor())  # of what is not urgent, and of what is
        self._failures = 0
        self._refusals: dict[int, int] = {}  # by Delivery: one or two, those that a peer disliked and may yet take
        self._resume_at = 0.0
        self._rewound = False
        self._hurried = True  # at a start, and when a person says so: due times that were written before do not count
        self._finishing = False

    def wake(self) -> None:
        """Look at the Outbox: something is owed."""
        self._wake.set()

    def rewind(self) -> None:
        """Look at the whole Outbox again, at once: a person has changed something."""
        self._rewound = True
        self._wake.set()

    def finish(self) -> None:
        """End after the Delivery in hand, when all that was taken is on the disk: who comes next repeats nothing."""
        self._finishing = True
        self._wake.set()

    async def run(self) -> None:
        """Carry until cancelled or told to finish."""
        self._pace.breaker.join(self, self.wake)
        try:
            while not self._finishing:
                self._wake.clear()
                if self._rewound:
                    self._rewound, self._failures, self._resume_at = False, 0, 0.0
                    self._hurried = True
                    self._pace.breaker.succeeded()  # a person says: try
                    for cursor in self._cursors:
                        cursor.after = 0
                parcels = await self._fetch()
                if not parcels:
                    self._idle()
                    await self._wake.wait()
                elif (closed_s := self._closed_s(parcels[0])) > 0:  # asked first: who may not go must not be who tries
                    self._idle()
                    await self._rest(closed_s)
                elif self._wait_s(parcels[0]) > 0:
                    await self._pause(parcels[0])
                else:
                    await self._bring(parcels)
            await self._written(0)
        finally:
            self._pace.breaker.leave(self)
            await self._sender.close()

    async def _fetch(self) -> list[Parcel]:
        """Return the oldest of what is urgent; where nothing is, of the rest."""
        # Going back, nothing may be fetched again of which the outcome is not written yet.
        goes_on = all(cursor.after >= cursor.reached for cursor in self._cursors)
        await self._written(UNSETTLED_MAX if goes_on else 0)

        def read() -> tuple[int, list[Parcel]]:
            newest = newest_delivery(self._store.readers.connection)
            return newest, self._read(urgent=True) or self._read(urgent=False)

        newest, parcels = await asyncio.get_running_loop().run_in_executor(self._executor, read)
        if not parcels:  # other lanes' backlog is not searched again at every wake
            for cursor in self._cursors:
                cursor.after = max(cursor.after, newest)
        return parcels

    def _read(self, *, urgent: bool) -> list[Parcel]:
        readers = self._store.readers
        return read_due(
            readers.connection,
            readers.epoch,
            self._name,
            after=self._cursors[urgent].after,
            lane=self._lane,
            lanes=self._lanes,
            rows_max=self._sender.batch_max,
            bytes_max=BATCH_BYTES_MAX,
            urgent=urgent,
        )

    async def _written(self, left_max: int) -> None:
        """Wait until no more than so many Receipts are on their way to the disk."""
        while self._unsettled > left_max:
            self._settled.clear()
            await self._settled.wait()

    def _cursor(self, parcel: Parcel) -> "_Cursor":
        return self._cursors[parcel.delivery.priority > 0]

    def _idle(self) -> None:
        if self._status.state is LinkState.STARTING:
            self._status.state = LinkState.UP

    def _wait_s(self, head: Parcel) -> float:
        due = None if self._hurried else head.delivery.next_try_at
        # A due time further away than any back-off comes from a clock that was set: it is not waited for.
        wait_s = 0.0 if due is None else (due - self._clock.now()).total_seconds()
        wait_s = max(wait_s if wait_s <= RETRY_S_MAX else 0.0, self._resume_at - self._clock.monotonic())
        return wait_s if wait_s > 0 else self._pace.breaker.wait_s(self)

    def _closed_s(self, head: Parcel) -> float:
        hours = self._pace.hours
        return 0.0 if hours is None or head.delivery.priority else hours.closed_s(self._clock.now())

    async def _pause(self, head: Parcel) -> None:
        """Wait for the time or for a person; news of more work does not shorten it."""
        while not (self._rewound or self._finishing) and (left := self._wait_s(head)) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()
            if not (self._rewound or self._finishing):
                self._wake.clear()

    async def _rest(self, seconds: float) -> None:
        """Wait outside the Destination's hours: news may be urgent, so it is looked at."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, REST_S_MAX)):
                await self._wake.wait()

    async def _bring(self, parcels: Sequence[Parcel]) -> None:
        owed = {parcel.delivery.id: parcel for parcel in parcels}
        try:
            async with aclosing(self._sender.send(parcels)) as receipts:
                async for receipt in receipts:
                    if not await self._take(owed.pop(receipt.delivery_id), receipt) or self._finishing:
                        return
        except (LinkError, TemporaryError) as error:
            hint = error.retry_after_s if isinstance(error, TemporaryError) else None
            head = next(iter(owed.values()), None)
            if head is None:
                return  # all had been taken when the transport broke: the next one will tell
            number = head.delivery.id
            failed = Receipt(delivery_id=number, verdict=Verdict.RETRY, reason=str(error), retry_after_s=hint)
            self._retry(head, failed, peer_failed=True)
        finally:
            for parcel in owed.values():  # what got no Receipt is fetched again
                cursor = self._cursor(parcel)
                cursor.after = min(cursor.after, parcel.delivery.id - 1)

    async def _take(self, parcel: Parcel, receipt: Receipt) -> bool:
        """Act on a Receipt; return whether the lane may go on with the next Parcel."""
        match receipt.verdict:
            case Verdict.DELIVERED:
                self._delivered(parcel, receipt)
                return True
            case Verdict.RETRY:
                self._retry(parcel, receipt)
                return False
            case Verdict.RETRY_CONTENT:
                refusals = self._refusals[parcel.delivery.id] = self._refusals.get(parcel.delivery.id, 0) + 1
                if refusals < self._content_attempts_max:
                    self._retry(parcel, receipt)
                    return False
            case Verdict.REFUSED:
                pass
        return await self._refused(parcel, receipt)

    def _delivered(self, parcel: Parcel, receipt: Receipt) -> None:
        now = self._clock.now()
        self._failures = 0
        self._pace.breaker.succeeded()
        self._refusals.pop(parcel.delivery.id, None)
        self._status.delivered += 1
        self._status.last_delivered_at = now
        if self._status.state is not LinkState.UP:
            self._status.state = LinkState.UP
            self._status.next_try_at = None
            self._alarms.clear(f"destination-down:{self._name}")
            _log.warning("destination.up destination=%s", self._name)
        self._settle(parcel, receipt, DeliveryState.DELIVERED, now)

    def _retry(self, parcel: Parcel, receipt: Receipt, *, peer_failed: bool = False) -> None:
        reason = receipt.reason or receipt.verdict.value
        self._hurried = False
        failures = self._fail(reason)
        wait_s = min(receipt.retry_after_s or backoff_s(failures, random.random()), RETRY_S_MAX)  # noqa: S311
        now = self._clock.now()
        next_try = now + timedelta(seconds=wait_s)
        self._resume_at = self._clock.monotonic() + wait_s
        self._status.next_try_at = next_try
        if peer_failed:
            self._pace.breaker.failed(self, wait_s)
        else:
            self._pace.breaker.succeeded()  # it answered: what it says of one Delivery stops no other lane
        self._cursor(parcel).after = parcel.delivery.id - 1
        self._settle(parcel, receipt, DeliveryState.PENDING, now, next_try)

    async def _refused(self, parcel: Parcel, receipt: Receipt) -> bool:
        self._pace.breaker.succeeded()
        self._refusals.pop(parcel.delivery.id, None)
        now = self._clock.now()
        if self._on_error == "hold":
            await self._hold(parcel, receipt)
            return False
        self._status.failures += 1
        self._status.last_error, self._status.last_error_at = receipt.reason, now
        _log.error("delivery.parked destination=%s delivery=%d", self._name, parcel.delivery.id)
        self._alarms.put(f"parked:{self._name}", f"deliveries to {self._name} are parked and wait for a person")
        self._settle(parcel, receipt, DeliveryState.PARKED, now)
        return True

    async def _hold(self, parcel: Parcel, receipt: Receipt) -> None:
        now = self._clock.now()
        key = f"destination-held:{self._name}"
        self._status.state = LinkState.HELD
        self._status.last_error, self._status.last_error_at = receipt.reason, now
        self._alarms.put(key, f"{self._name} refused delivery {parcel.delivery.id}; its lane waits for a person")
        self._settle(parcel, receipt, DeliveryState.PENDING, now)
        try:
            while not (self._rewound or self._finishing):
                self._wake.clear()
                await self._wake.wait()
        finally:  # also where a reload replaces the lane: the next one holds for itself
            self._alarms.clear(key)
        self._status.state = LinkState.STARTING

    def _fail(self, reason: str) -> int:
        self._failures += 1
        self._status.failures += 1
        self._status.last_error, self._status.last_error_at = reason, self._clock.now()
        if self._status.state is not LinkState.DOWN:
            self._status.state = LinkState.DOWN
            self._alarms.put(f"destination-down:{self._name}", f"{self._name} takes nothing: {reason}")
            _log.warning("destination.down destination=%s reason=%r", self._name, reason)
        return self._failures

    def _settle(
        self,
        parcel: Parcel,
        receipt: Receipt,
        state: DeliveryState,
        at: datetime,
        next_try_at: datetime | None = None,
    ) -> None:
        """Write what became of a Delivery, behind the sending; again and again where disk or queue is full."""
        cursor = self._cursor(parcel)
        cursor.reached = max(cursor.reached, parcel.delivery.id)
        if state is not DeliveryState.PENDING:
            cursor.after = max(cursor.after, parcel.delivery.id)
        loop = asyncio.get_running_loop()
        self._unsettled += 1

        def submit() -> None:
            try:
                self._store.settle(
                    self._name,
                    receipt,
                    attempt=parcel.delivery.attempts + 1,
                    state=state,
                    at=at,
                    next_try_at=next_try_at,
                    settled=settled,
                )
            except StoreError as error:
                settled(error)

        def settled(error: Exception | None) -> None:
            if error is not None:
                loop.call_later(SETTLE_AGAIN_S, submit)
                return
            self._unsettled -= 1
            self._settled.set()

        submit()
