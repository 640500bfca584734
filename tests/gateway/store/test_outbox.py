from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.model import DeliveryState
from gateway.store.counters import read_counters
from gateway.store.reading import oldest_pending, parked_ids, read_attempts, read_deliveries, read_due
from gateway.store.store import Store
from tests.gateway.store.stores import START, incoming, keep, open_store, settle

PENDING, DELIVERED, PARKED, DISCARDED = DeliveryState


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def due(store: Store, destination: str = "ris", after: int = 0) -> list[int]:
    parcels = read_due(store.readers.connection, store.epoch, destination, after=after, rows_max=1000)
    return [parcel.delivery.id for parcel in parcels]


def totals(store: Store, destination: str = "ris") -> dict[str, int]:
    return {
        name: value
        for name, value in read_counters(store.readers.connection)["destination", destination].items()
        if not name.startswith("owed") and value
    }


def state(store: Store, number: int) -> DeliveryState:
    return next(
        delivery.state
        for delivery in read_deliveries(store.readers.connection, store.epoch, limit=1000)
        if delivery.id == number
    )


def test_the_oldest_is_due_first_and_what_is_delivered_is_due_no_more(store: Store) -> None:
    for number in range(5):
        keep(store, incoming(b"%d" % number), "ris")
    settle(store, "ris", 2)

    assert due(store) == [1, 3, 4, 5]
    assert due(store, after=3) == [4, 5]
    assert totals(store) == {"pending": 4, "delivered": 1}
    (attempt,) = read_attempts(store.readers.connection, 2)
    assert (attempt.verdict, attempt.acknowledgement) == ("delivered", b"MSA|AA")


def test_what_is_due_is_found_by_the_partial_index_whatever_waits(store: Store) -> None:
    keep(store, incoming(), "ris")
    statements: list[str] = []

    def traced(cursor: object, statement: str, bindings: object) -> bool:
        statements.append(statement)
        return True

    connection = store.readers.connection
    connection.exec_trace = traced
    read_due(connection, store.epoch, "ris", after=0)
    read_due(connection, store.epoch, "ris", after=0, lane=1, lanes=4)
    oldest_pending(connection, "ris")
    connection.exec_trace = None

    asked = [statement for statement in statements if "FROM delivery" in statement]
    assert len(asked) == 3
    for statement in asked:
        values = (1, 0, 10)[: statement.count("?")]
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
        steps = [step[3] for step in plan]
        assert any(
            "USING INDEX delivery_pending" in step or "COVERING INDEX delivery_pending" in step for step in steps
        )
        assert not any("TEMP B-TREE" in step or step.startswith("SCAN") for step in steps)


def test_a_hand_is_bounded_in_bytes_but_never_empty(store: Store) -> None:
    for _ in range(3):
        keep(store, incoming(b"x" * 1000), "ris")

    def read(bytes_max: int) -> int:
        return len(read_due(store.readers.connection, store.epoch, "ris", after=0, bytes_max=bytes_max))

    assert [read(1), read(2000), read(10_000)] == [1, 2, 3]


def test_a_retry_stays_pending_with_its_time_and_its_try(store: Store) -> None:
    keep(store, incoming(), "ris")
    settle(store, "ris", 1, PENDING, next_try_in_s=7)
    (parcel,) = read_due(store.readers.connection, store.epoch, "ris", after=0)

    assert parcel.delivery.next_try_at == START + timedelta(seconds=7)
    assert parcel.delivery.attempts == 1
    assert totals(store) == {"pending": 1}


def test_the_control_id_is_the_same_on_every_try_and_differs_between_stores(tmp_path: Path) -> None:
    ids = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        store = open_store(tmp_path / folder)
        keep(store, incoming(), "ris")
        for _ in range(2):
            (parcel,) = read_due(store.readers.connection, store.epoch, "ris", after=0)
            ids.append(parcel.delivery.control_id)
            settle(store, "ris", 1, PENDING)
        store.close()

    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert ids[0] != ids[2]


def test_settling_twice_counts_once(store: Store) -> None:
    keep(store, incoming(), "ris")
    settle(store, "ris", 1)
    settle(store, "ris", 1)
    settle(store, "ris", 1, PARKED)

    assert totals(store) == {"delivered": 1}
    assert state(store, 1) is DELIVERED


def test_parked_ones_come_back_by_a_person_and_discarded_ones_do_not(store: Store) -> None:
    for number in range(3):
        keep(store, incoming(b"%d" % number), "ris")
        settle(store, "ris", number + 1, PARKED)
    assert due(store) == []
    assert store.call(lambda c: store.acts.retry(c, [1], "anna", START)).result(10) == 1
    assert store.call(lambda c: store.acts.discard(c, [2], "wrong patient", "anna", START)).result(10) == 1

    assert due(store) == [1]
    assert totals(store) == {"pending": 1, "parked": 1, "discarded": 1}
    assert read_attempts(store.readers.connection, 2)[-1].reason == "wrong patient"
    assert store.call(lambda c: store.acts.retry(c, parked_ids(c, None, 0, 10), "anna", START)).result(10) == 1
    assert totals(store) == {"pending": 2, "discarded": 1}
    acts = store.readers.connection.execute("SELECT who, act FROM audit ORDER BY id").fetchall()
    assert acts == [("anna", "retry"), ("anna", "discard"), ("anna", "retry")]


def test_a_try_that_ends_after_it_was_discarded_stands_beside_the_reason(store: Store) -> None:
    keep(store, incoming(b"1"), "ris")
    settle(store, "ris", 1, PENDING)
    store.call(lambda c: store.acts.discard(c, [1], "wrong patient", "anna", START)).result(10)
    settle(store, "ris", 1, attempt=2)

    found = read_attempts(store.readers.connection, 1)
    assert [attempt.verdict for attempt in found] == ["retry", "delivered", "discarded"]
    assert found[-1].reason == "wrong patient"
    assert totals(store) == {"discarded": 1}


def test_an_act_on_several_happens_whole_or_not_at_all(store: Store) -> None:
    keep(store, incoming(b"1"), "ris")
    keep(store, incoming(b"2"), "ris")
    settle(store, "ris", 1, PARKED)
    settle(store, "ris", 2, DELIVERED)

    with pytest.raises(StoreError, match="delivery 2 is delivered"):
        store.call(lambda c: store.acts.retry(c, [1, 2], "anna", START)).result(10)
    with pytest.raises(StoreError, match="no delivery 99"):
        store.call(lambda c: store.acts.discard(c, [1, 99], "x", "anna", START)).result(10)
    keep(store, incoming(b"3"), "ris")  # writes the totals

    assert state(store, 1) is PARKED
    assert totals(store) == {"pending": 1, "parked": 1, "delivered": 1}


def test_a_message_sent_again_is_a_new_delivery_in_the_lane_of_the_first(store: Store) -> None:
    keep(store, incoming(lane_key="patient-1"), "ris")
    settle(store, "ris", 1)
    number = store.call(lambda c: store.acts.resend(c, 1, "ris", "anna", START)).result(10)

    assert number == 2
    assert due(store) == [2]
    slots = store.readers.connection.execute("SELECT DISTINCT slot FROM delivery").fetchall()
    assert len(slots) == 1
    with pytest.raises(StoreError, match="no message 99"):
        store.call(lambda c: store.acts.resend(c, 99, "ris", "anna", START)).result(10)


def test_the_oldest_pending_is_told_by_its_receipt(store: Store) -> None:
    assert oldest_pending(store.readers.connection, "ris") is None
    keep(store, incoming(b"1", received_at=START), "ris")
    keep(store, incoming(b"2", received_at=START + timedelta(hours=1)), "ris")
    assert oldest_pending(store.readers.connection, "ris") == START
    settle(store, "ris", 1)
    assert oldest_pending(store.readers.connection, "ris") == START + timedelta(hours=1)
