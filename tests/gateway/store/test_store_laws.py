"""The store against a model in plain Python, through any order of operations, crashes and restarts."""

import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.clock import to_micros
from gateway.model import DeliveryState
from gateway.store.counters import STATE_NAMES, read_counters
from gateway.store.reading import read_due
from gateway.store.recovery import stores_set_aside
from gateway.store.retention import remove_piece
from gateway.store.store import Store
from tests.gateway.store.stores import START, Outcomes, incoming, open_store, settle

PENDING, DELIVERED, PARKED, DISCARDED = DeliveryState
DESTINATIONS = ("ris", "lab")
WINDOW = timedelta(hours=1)
WAIT_S = 10


@dataclass
class Kept:
    """One Message as the model knows it."""

    raw: bytes
    identifier: str | None
    received_at: datetime
    deliveries: dict[int, "Owed"] = field(default_factory=dict)


@dataclass
class Owed:
    """One Delivery as the model knows it."""

    destination: str
    state: DeliveryState = PENDING
    attempts: int = 0


class StoreLaws(RuleBasedStateMachine):
    """Keep, settle, park, retry, discard, send again, retain, crash, stop and start, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._root = Path(tempfile.mkdtemp(prefix="store-laws-"))
        self._folder = self._root / "0"
        self._folder.mkdir()
        self._starts = 0
        self._now = START
        self._store = self._open()
        self.messages: dict[int, Kept] = {}
        self.received = 0
        self.repeated = 0
        self.settled_ever = dict.fromkeys((DELIVERED, DISCARDED), 0)
        self._last_message = 0

    def _open(self) -> Store:
        return open_store(self._folder, repeat_window=WINDOW)

    def teardown(self) -> None:
        self._store.close()
        shutil.rmtree(self._root)

    @rule(
        inputs=st.lists(
            st.tuples(
                st.sampled_from("abc"), st.sampled_from(("1", "2", None)), st.sampled_from(((), ("ris",), DESTINATIONS))
            ),
            min_size=1,
            max_size=5,
        )
    )
    def keep(self, inputs: list[tuple[str, str | None, tuple[str, ...]]]) -> None:
        outcomes = Outcomes()
        for body, identifier, owed in inputs:
            item = incoming(body.encode(), identifier, received_at=self._now)
            self._store.keep(item, owed, outcomes)
        for (body, identifier, owed), outcome in zip(inputs, outcomes.wait(len(inputs)), strict=True):
            assert not isinstance(outcome, Exception)
            known = self._known(body.encode(), identifier)
            assert outcome.repeated == (known is not None)
            if known is not None:
                assert outcome.message_id == known
                self.repeated += 1
                continue
            assert outcome.message_id > self._last_message
            self._last_message = outcome.message_id
            self.received += 1
            self.messages[outcome.message_id] = Kept(body.encode(), identifier, self._now)
            rows = self._rows(
                "SELECT d.id, e.name FROM delivery d JOIN endpoint e ON e.id = d.destination WHERE message = ?",
                outcome.message_id,
            )
            assert sorted(name for _, name in rows) == sorted(owed)
            self.messages[outcome.message_id].deliveries = {number: Owed(name) for number, name in rows}

    def _known(self, raw: bytes, identifier: str | None) -> int | None:
        if identifier is None:
            return None
        hits = [
            number
            for number, kept in self.messages.items()
            if (kept.raw, kept.identifier) == (raw, identifier) and kept.received_at >= self._now - WINDOW
        ]
        return max(hits, default=None)

    @rule(minutes=st.integers(1, 50))
    def pass_time(self, minutes: int) -> None:
        self._now += timedelta(minutes=minutes)

    @rule(pick=st.integers(0, 1000), state=st.sampled_from((PENDING, DELIVERED, PARKED)))
    def settle(self, pick: int, state: DeliveryState) -> None:
        chosen = self._pick(pick, PENDING)
        if chosen is None:
            return
        number, owed = chosen
        settle(self._store, owed.destination, number, state, attempt=owed.attempts + 1, at=self._now)
        owed.attempts += 1
        owed.state = state

    @rule(pick=st.integers(0, 1000))
    def retry(self, pick: int) -> None:
        if (chosen := self._pick(pick, PARKED)) is not None:
            self._store.call(lambda c: self._store.acts.retry(c, [chosen[0]], "anna", self._now)).result(WAIT_S)
            chosen[1].state = PENDING

    @rule(pick=st.integers(0, 1000))
    def discard(self, pick: int) -> None:
        if (chosen := self._pick(pick, PARKED, PENDING)) is not None:
            self._store.call(lambda c: self._store.acts.discard(c, [chosen[0]], "why", "anna", self._now)).result(
                WAIT_S
            )
            chosen[1].state = DISCARDED

    @precondition(lambda self: self.messages)
    @rule(pick=st.integers(0, 1000), destination=st.sampled_from(DESTINATIONS))
    def resend(self, pick: int, destination: str) -> None:
        message = sorted(self.messages)[pick % len(self.messages)]
        number = self._store.call(lambda c: self._store.acts.resend(c, message, destination, "anna", self._now)).result(
            WAIT_S
        )
        self.messages[message].deliveries[number] = Owed(destination)

    @rule(age=st.integers(0, 120))
    def retain(self, age: int) -> None:
        before = self._now - timedelta(minutes=age)
        piece = self._store.call(
            lambda c: remove_piece(c, after=0, before_micros=to_micros(before), quarantined=True)
        ).result(WAIT_S)
        gone = [
            number
            for number, kept in self.messages.items()
            if kept.received_at < before
            and all(owed.state in (DELIVERED, DISCARDED) for owed in kept.deliveries.values())
        ]
        assert piece.removed == len(gone)
        for number in gone:
            for owed in self.messages.pop(number).deliveries.values():
                self.settled_ever[owed.state] += 1

    @rule()
    def crash(self) -> None:
        """Go on with what the disk has: a copy of the files, taken while everything was open."""
        self._starts += 1
        copy = self._root / str(self._starts)
        shutil.copytree(self._folder, copy)
        self._store.close()
        self._folder = copy
        self._store = self._open()
        assert self._store.was_unclean

    @rule()
    def stop_and_start(self) -> None:
        self._store.close()
        self._store = self._open()
        assert not self._store.was_unclean

    @invariant()
    def everything_kept_is_there(self) -> None:
        assert dict(self._rows("SELECT id, raw FROM message")) == {n: kept.raw for n, kept in self.messages.items()}
        rows = self._rows(
            "SELECT d.id, message, state, e.name, attempts FROM delivery d JOIN endpoint e ON e.id = d.destination"
        )
        states = {number: (message, DeliveryState(state), name) for number, message, state, name, _ in rows}
        assert states == {
            number: (message, owed.state, owed.destination)
            for message, kept in self.messages.items()
            for number, owed in kept.deliveries.items()
        }
        assert stores_set_aside(self._folder) == []

    @invariant()
    def what_is_owed_is_due_in_order(self) -> None:
        for destination in DESTINATIONS:
            due = read_due(self._store.readers.connection, self._store.epoch, destination, after=0, rows_max=1000)
            assert [parcel.delivery.id for parcel in due] == sorted(
                number
                for kept in self.messages.values()
                for number, owed in kept.deliveries.items()
                if owed.destination == destination and owed.state is PENDING
            )

    @invariant()
    def totals_equal_a_real_count(self) -> None:
        totals = read_counters(self._store.readers.connection)
        if self.received:
            assert totals["source", "emr"].get("received", 0) == self.received
            assert totals["source", "emr"].get("repeated", 0) == self.repeated
        for state in (PENDING, PARKED):  # the others outlive their rows
            rows = self._rows(
                "SELECT e.name, count(*) FROM delivery d JOIN endpoint e ON e.id = d.destination"
                " WHERE state = ? GROUP BY 1",
                state.value,
            )
            counted = dict(rows)
            for destination in DESTINATIONS:
                total = totals.get(("destination", destination), {})
                assert total.get(STATE_NAMES[state], 0) == counted.get(destination, 0)
        for state in (DELIVERED, DISCARDED):
            standing = sum(o.state is state for kept in self.messages.values() for o in kept.deliveries.values())
            told = sum(totals.get(("destination", name), {}).get(STATE_NAMES[state], 0) for name in DESTINATIONS)
            assert told == standing + self.settled_ever[state]

    def _pick(self, pick: int, *states: DeliveryState) -> tuple[int, Owed] | None:
        found = [
            (number, owed)
            for kept in self.messages.values()
            for number, owed in kept.deliveries.items()
            if owed.state in states
        ]
        return found[pick % len(found)] if found else None

    def _rows(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        return self._store.readers.connection.execute(statement, values).fetchall()  # type: ignore[arg-type]


StoreLaws.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
test_the_store_keeps_its_laws = StoreLaws.TestCase
