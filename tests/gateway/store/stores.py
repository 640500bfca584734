"""Stores to test with: real SQLite in a temporary folder, inputs, and settling that can be waited for."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.clock import ManualClock
from gateway.formats.hl7_digest import digest_of
from gateway.model import Accepted, DeliveryState, Incoming, Kind, Receipt, Verdict
from gateway.store.store import Store

START = datetime(2026, 1, 1, tzinfo=UTC)
WAIT_S = 20.0


def incoming(raw: bytes = b"MSH|one", identifier: str | None = None, **more: object) -> Incoming:
    """Make an input of Source `emr`."""
    values: dict[str, object] = {
        "source": "emr",
        "kind": Kind.HL7,
        "received_at": START,
        "size": len(raw),
        "digest": digest_of(raw),
        "identifier": identifier,
        "raw": raw,
    }
    return Incoming(**(values | more))  # type: ignore[arg-type]


def unexpected(error: Exception) -> None:
    """Fail: the disk is not meant to break in this test."""
    raise AssertionError(error)


def open_store(folder: Path, clock: ManualClock | None = None, **more: object) -> Store:
    """Open a store that settles in its writer thread."""
    more.setdefault("failed", unexpected)
    return Store(folder, clock or ManualClock(START), **more)  # type: ignore[arg-type]


class Outcomes:
    """What became of inputs, in the order of settling."""

    def __init__(self, also: Callable[[Accepted | Exception], None] | None = None) -> None:
        self.all: list[Accepted | Exception] = []
        self._changed = threading.Condition()
        self._also = also

    def __call__(self, outcome: Accepted | Exception) -> None:
        if self._also is not None:
            self._also(outcome)
        with self._changed:
            self.all.append(outcome)
            self._changed.notify_all()

    def wait(self, count: int) -> list[Accepted | Exception]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, WAIT_S)
        return self.all


def keep(store: Store, item: Incoming, *owed: str) -> Accepted:
    """Keep one input and wait for the disk."""
    outcomes = Outcomes()
    store.keep(item, owed, outcomes)
    outcome = outcomes.wait(1)[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def settle(
    store: Store,
    destination: str,
    delivery: int,
    state: DeliveryState = DeliveryState.DELIVERED,
    *,
    attempt: int = 1,
    at: datetime = START,
    next_try_in_s: float | None = None,
) -> None:
    """Settle one Delivery and wait for the disk."""
    done: list[Exception | None] = []
    told = threading.Event()

    def settled(error: Exception | None) -> None:
        done.append(error)
        told.set()

    verdict = {DeliveryState.DELIVERED: Verdict.DELIVERED, DeliveryState.PARKED: Verdict.REFUSED}.get(
        state, Verdict.RETRY
    )
    store.settle(
        destination,
        Receipt(delivery_id=delivery, verdict=verdict, reason=None, acknowledgement=b"MSA|AA"),
        attempt=attempt,
        state=state,
        at=at,
        next_try_at=None if next_try_in_s is None else at + timedelta(seconds=next_try_in_s),
        settled=settled,
    )
    assert told.wait(WAIT_S)
    if done[0] is not None:
        raise done[0]
