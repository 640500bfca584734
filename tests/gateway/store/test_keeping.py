import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.model import Accepted, Kind, Message, Observation, Result
from gateway.store.counters import read_counters
from gateway.store.keeping import _FIND_REPEATS, SLOTS, slot_of
from gateway.store.reading import MessageFilter, read_due, read_message, read_messages
from gateway.store.store import Store
from tests.gateway.store.stores import START, Outcomes, incoming, keep, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path, repeat_window=timedelta(hours=72))
    yield opened
    opened.close()


def message(store: Store, number: int) -> Message:
    found = read_message(store.readers.connection, number)
    assert found is not None
    return found


def test_a_message_comes_back_as_it_was_given(store: Store) -> None:
    seen = Observation(key="spo2", sub="1.1.1.1", value=Decimal("97.50"), unit="%")
    item = incoming(
        b"\x00\xff any bytes \r\n",
        "MSG-1",
        peer="10.0.0.1:4711",
        observed_at=START - timedelta(seconds=3),
        result=Result(observations=(seen,), patient_id="P1"),
        headers={"Modality": "CT"},
        terms=("P1", "A77"),
    )
    number = keep(store, item, "ris").message_id
    found = message(store, number)

    for field in dataclasses.fields(Message):
        if field.name != "id":
            assert getattr(found, field.name) == getattr(item, field.name), field.name
    assert [hit.id for hit in read_messages(store.readers.connection, MessageFilter(search="A77"))] == [number]
    assert [hit.id for hit in read_messages(store.readers.connection, MessageFilter(search="MSG-1"))] == [number]


def test_a_repeat_within_the_window_is_stored_once_and_owed_once(store: Store) -> None:
    first = keep(store, incoming(b"body", "77"), "ris")
    again = keep(store, incoming(b"body", "77", received_at=START + timedelta(hours=71)), "ris")

    assert again == Accepted(message_id=first.message_id, repeated=True)
    totals = read_counters(store.readers.connection)
    assert totals["source", "emr"] == {"received": 1, "bytes": 4, "repeated": 1}
    assert totals["destination", "ris"] == {"pending": 1, "owed:hl7": 1}


def test_a_repeat_outside_the_window_is_a_new_message(store: Store) -> None:
    keep(store, incoming(b"body", "77"), "ris")
    again = keep(store, incoming(b"body", "77", received_at=START + timedelta(hours=73)), "ris")

    assert again == Accepted(message_id=2, repeated=False)


@pytest.mark.parametrize(
    "other",
    [
        incoming(b"another body", "77"),
        incoming(b"body", "78"),
        incoming(b"body", "77", source="lab"),
        incoming(b"body", None),
    ],
    ids=["same MSH-10 with another body", "another MSH-10", "another source", "no identifier"],
)
def test_what_differs_in_source_identifier_or_body_is_no_repeat(store: Store, other: object) -> None:
    keep(store, incoming(b"body", "77"), "ris")

    assert keep(store, other, "ris") == Accepted(message_id=2, repeated=False)  # type: ignore[arg-type]


def test_inputs_without_an_identifier_are_never_repeats(store: Store) -> None:
    assert [keep(store, incoming(b"same")).message_id for _ in range(3)] == [1, 2, 3]


def test_repeats_inside_one_group_are_stored_once(store: Store) -> None:
    outcomes = Outcomes()
    for number in range(200):  # more than one statement's rows
        store.keep(incoming(b"body", f"{number % 2}"), ("ris",), outcomes)
    settled = [outcome for outcome in outcomes.wait(200) if isinstance(outcome, Accepted)]

    assert {outcome.message_id for outcome in settled} == {1, 2}
    assert sum(not outcome.repeated for outcome in settled) == 2
    assert read_counters(store.readers.connection)["destination", "ris"]["pending"] == 2


def test_a_repeat_is_known_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    keep(store, incoming(b"body", "77"))
    store.close()
    store = open_store(tmp_path)

    assert keep(store, incoming(b"body", "77")) == Accepted(message_id=1, repeated=True)
    store.close()


def test_ordinals_number_what_a_destination_is_owed_without_gaps_over_restarts(tmp_path: Path) -> None:
    for start in range(3):
        store = open_store(tmp_path)
        for number in range(10):
            keep(store, incoming(b"%d/%d" % (start, number)), *(("ris", "lab") if number % 2 else ("ris",)))
            keep(store, incoming(b"%d.%d" % (start, number), kind=Kind.OBSERVATIONS), "ris")
        store.close()
    store = open_store(tmp_path)
    found: dict[tuple[str, str], list[int]] = {}
    rows = store.readers.connection.execute(
        "SELECT e.name, m.kind, d.ordinal FROM delivery d JOIN endpoint e ON e.id = d.destination"
        " JOIN message m ON m.id = d.message ORDER BY d.id"
    )
    for name, kind, ordinal in rows:
        found.setdefault((name, kind), []).append(ordinal)
    store.close()

    assert found == {
        ("ris", "hl7"): list(range(1, 31)),
        ("lab", "hl7"): list(range(1, 16)),
        ("ris", "observations"): list(range(1, 31)),
    }


def test_a_quarantined_message_is_counted(store: Store) -> None:
    keep(store, incoming(b"junk", kind=Kind.UNREADABLE, quarantined="no MSH"))

    assert read_counters(store.readers.connection)["source", "emr"]["quarantined"] == 1
    assert [hit.id for hit in read_messages(store.readers.connection, MessageFilter(quarantined=True))] == [1]


def test_finding_repeats_uses_the_index_of_identifiers(store: Store) -> None:
    keep(store, incoming(b"body", "77"))
    statement = _FIND_REPEATS.format("(?,?,?),(?,?,?)")
    plan = store.readers.connection.execute(
        f"EXPLAIN QUERY PLAN {statement}", (0, "77", 1, b"x", "78", 1, b"y")
    ).fetchall()
    steps = " / ".join(str(step[3]) for step in plan)

    assert "message USING INDEX message_identifier" in steps
    assert "SCAN message" not in steps


def test_deliveries_of_one_key_share_a_slot_and_keep_their_order(store: Store) -> None:
    for number in range(120):
        keep(store, incoming(b"%d" % number, lane_key=f"patient-{number % 12}"), "ris")
    seen: dict[str, list[int]] = {}
    lanes_of: dict[str, set[int]] = {}
    for lane in range(4):
        due = read_due(store.readers.connection, "E", "ris", after=0, lane=lane, lanes=4, rows_max=1000)
        for parcel in due:
            number = int(parcel.message.raw or b"")
            key = f"patient-{number % 12}"
            seen.setdefault(key, []).append(number)
            lanes_of.setdefault(key, set()).add(lane)

    assert all(len(lanes) == 1 for lanes in lanes_of.values())
    assert seen == {f"patient-{key}": list(range(key, 120, 12)) for key in range(12)}
    assert len({next(iter(lanes)) for lanes in lanes_of.values()}) > 1


def test_slots_are_the_same_on_every_machine() -> None:
    assert [slot_of(key) for key in ("", "patient-1", "MÜLLER")] == [0, 160, 117]
    assert all(0 <= slot_of(str(number)) < SLOTS for number in range(1000))
