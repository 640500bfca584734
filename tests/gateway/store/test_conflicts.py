"""Instances under the SOP Instance UID of another one: found, known over a restart, forgotten when seen."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.model import Kind
from gateway.store.conflicts import (
    Conflict,
    StandingConflicts,
    find_conflicts,
    forget_conflicts,
    note_conflicts,
    standing_conflicts,
)
from gateway.store.store import Store
from tests.gateway.store.stores import incoming, keep, open_store

WAIT_S = 20.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path)
    yield store
    store.close()


def take(store: Store, uid: str, content: bytes, source: str = "imaging", kind: Kind = Kind.DICOM) -> int:
    digest = hashlib.sha256(content).digest()
    made = incoming(content, uid, source=source, kind=kind, digest=digest, object_name=digest.hex())
    return keep(store, made).message_id


def found(store: Store, after: int = 0, until: int = 99) -> list[Conflict]:
    return find_conflicts(store.readers.connection, after, until)


def test_the_same_uid_with_other_content_is_a_conflict_with_the_newest_earlier_one(store: Store) -> None:
    numbers = [take(store, "1.2", content) for content in (b"a", b"b", b"c")]

    assert found(store) == [
        Conflict(source="imaging", message_id=numbers[1], earlier_id=numbers[0]),
        Conflict(source="imaging", message_id=numbers[2], earlier_id=numbers[1]),
    ]
    assert found(store, after=numbers[1]) == found(store)[1:]
    assert found(store, until=numbers[0]) == []


def test_a_repeat_another_uid_another_source_and_another_kind_are_none(store: Store) -> None:
    take(store, "1.2", b"a")
    take(store, "1.2", b"a")
    take(store, "1.3", b"b")
    take(store, "1.2", b"b", source="theatre")
    take(store, "1.2", b"b", kind=Kind.MPPS)

    assert found(store) == []


def test_what_was_noted_stands_over_a_restart_until_it_was_seen(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    first = Conflict(source="imaging", message_id=2, earlier_id=1)
    more = [Conflict(source="imaging", message_id=3, earlier_id=2), Conflict(source="ct", message_id=5, earlier_id=4)]
    store.call(lambda connection: note_conflicts(connection, [first])).result(WAIT_S)
    store.call(lambda connection: note_conflicts(connection, more)).result(WAIT_S)
    store.close()

    store = open_store(tmp_path)
    assert standing_conflicts(store.readers.connection) == {
        "imaging": StandingConflicts(count=2, first=first),
        "ct": StandingConflicts(count=1, first=more[1]),
    }
    store.call(lambda connection: forget_conflicts(connection, "imaging")).result(WAIT_S)
    assert list(standing_conflicts(store.readers.connection)) == ["ct"]
    store.close()
