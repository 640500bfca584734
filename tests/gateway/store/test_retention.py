from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.clock import to_micros
from gateway.model import DeliveryState, Kind
from gateway.store import retention
from gateway.store.retention import Piece, give_back_pages, remove_piece
from gateway.store.store import Store
from tests.gateway.store.stores import START, incoming, keep, open_store, settle

LATER = to_micros(START + timedelta(days=1))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def piece(store: Store, before: int = LATER, after: int = 0, quarantined: bool = True) -> Piece:
    return store.call(lambda c: remove_piece(c, after=after, before_micros=before, quarantined=quarantined)).result(10)


def left(store: Store) -> list[int]:
    return [number for (number,) in store.readers.connection.execute("SELECT id FROM message ORDER BY id").fetchall()]


def test_only_what_is_settled_everywhere_goes(store: Store) -> None:
    for number in range(6):
        keep(store, incoming(b"%d" % number, terms=(f"T{number}",)), "ris", "lab")
    for number in range(1, 6):
        settle(store, "ris", 2 * number - 1)
    settle(store, "lab", 2)  # 1: delivered to both
    settle(store, "lab", 4, DeliveryState.PARKED)  # 2: parked
    settle(store, "lab", 6, DeliveryState.DISCARDED)  # 3: discarded
    settle(store, "lab", 8, DeliveryState.PENDING)  # 4: tried, still owed; 5: owed to lab; 6: owed to both
    keep(store, incoming(b"owed to nobody"))

    assert piece(store).removed == 3
    assert left(store) == [2, 4, 5, 6]
    connection = store.readers.connection
    for table in ("term", "delivery"):
        orphans = f"SELECT count(*) FROM {table} WHERE message NOT IN (SELECT id FROM message)"
        assert connection.execute(orphans).get == 0
    assert connection.execute("SELECT count(*) FROM attempt WHERE delivery NOT IN (SELECT id FROM delivery)").get == 0


def test_only_what_is_old_enough_goes(store: Store) -> None:
    for hours in (0, 23, 24, 25):
        keep(store, incoming(b"%d" % hours, received_at=START + timedelta(hours=hours)))

    assert piece(store, before=to_micros(START + timedelta(hours=24))).removed == 2
    assert left(store) == [3, 4]


def test_what_is_quarantined_stays_its_full_time(store: Store) -> None:
    keep(store, incoming(b"junk", kind=Kind.UNREADABLE, quarantined="no MSH"))

    assert piece(store, quarantined=False).removed == 0
    assert piece(store, quarantined=True).removed == 1


def test_pieces_are_small_and_say_where_to_go_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNK_ROWS", 10)
    monkeypatch.setattr(retention, "SPAN", 40)
    for number in range(100):
        keep(store, incoming(b"%d" % number), *(("ris",) if number < 50 else ()))
    after: int | None = 0
    steps = []
    while after is not None:
        done = piece(store, after=after)
        steps.append(done.removed)
        after = done.next_after

    assert sum(steps) == 50
    assert max(steps) == 10
    assert left(store) == list(range(1, 51))


def test_an_object_goes_with_the_last_message_that_refers_to_it(store: Store) -> None:
    name = "ab" * 32
    keep(store, incoming(b"1", object_name=name))
    keep(store, incoming(b"2", object_name=name), "pacs")
    assert piece(store).objects == ()
    settle(store, "pacs", 1)

    assert piece(store) == Piece(removed=1, objects=(name,), next_after=None)


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    keep(store, incoming(b"1"), "ris")
    settle(store, "ris", 1)
    piece(store)
    assert left(store) == []
    store.close()
    store = open_store(tmp_path)
    accepted = keep(store, incoming(b"2"), "ris")
    row = store.readers.connection.execute("SELECT id, ordinal FROM delivery").fetchall()
    store.close()

    assert accepted.message_id == 2
    assert row == [(2, 2)]


def test_pages_are_given_back(store: Store) -> None:
    for number in range(50):
        keep(store, incoming(b"%d" % number * 10_000))

    used = store.size().used
    while piece(store).removed:
        pass
    assert store.size().used < used - 50 * 10_000
    full = store.readers.connection.execute("PRAGMA page_count").get
    freed = store.readers.connection.execute("PRAGMA freelist_count").get
    assert isinstance(full, int)
    assert isinstance(freed, int)
    store.writer._idle = None
    store.call(give_back_pages).result(10)  # in a transaction here; outside one in an idle moment

    assert store.readers.connection.execute("PRAGMA page_count").get == full - min(freed, retention.VACUUM_PAGES)
