import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.errors import StoreError
from gateway.model import Accepted
from gateway.store import writer as writer_module
from gateway.store.connection import open_reader
from gateway.store.counters import read_counters
from gateway.store.store import Store
from tests.gateway.store.stores import WAIT_S, Outcomes, incoming, keep, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


class Held:
    """Holds the writer thread inside a transaction until let go."""

    def __init__(self, store: Store) -> None:
        self.entered = threading.Event()
        self._go = threading.Event()
        self.done = store.call(self._work)
        assert self.entered.wait(WAIT_S)

    def _work(self, connection: apsw.Connection) -> None:
        self.entered.set()
        assert self._go.wait(WAIT_S)

    def let_go(self) -> None:
        self._go.set()
        self.done.result(WAIT_S)


def fill_to_the_brim(store: Store) -> int:
    """Let the file grow no further: what SQLITE_FULL is on a full disk. Return the old limit."""

    def limit(connection: apsw.Connection) -> int:
        connection.execute("CREATE TABLE IF NOT EXISTS ballast (b BLOB)")
        return int(connection.execute("PRAGMA max_page_count").get)

    old = store.call(limit).result(WAIT_S)

    def stop(connection: apsw.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").get
        connection.execute(f"PRAGMA max_page_count = {pages}")

    store.call(stop).result(WAIT_S)
    return old


def test_every_input_is_on_disk_before_it_is_settled(tmp_path: Path) -> None:
    seen: list[bool] = []
    reader = threading.local()

    def look(outcome: Accepted | Exception) -> None:
        if not hasattr(reader, "connection"):
            reader.connection = open_reader(tmp_path / "gateway.db")
        assert isinstance(outcome, Accepted)
        found = reader.connection.execute("SELECT 1 FROM message WHERE id = ?", (outcome.message_id,)).get
        seen.append(found == 1)

    outcomes = Outcomes(also=look)
    store = open_store(tmp_path)

    def produce(number: int) -> None:
        for count in range(50):
            store.keep(incoming(f"{number}/{count}".encode()), ("ris",), outcomes)

    producers = [threading.Thread(target=produce, args=(number,)) for number in range(8)]
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join(WAIT_S)
    outcomes.wait(400)
    store.close()

    assert len(seen) == 400
    assert all(seen)


def test_whoever_waits_shares_a_commit(store: Store) -> None:
    held = Held(store)
    outcomes = Outcomes()
    for number in range(300):
        store.keep(incoming(b"%d" % number), (), outcomes)
    before = store.writer.commits
    held.let_go()
    outcomes.wait(300)

    assert store.writer.commits - before == 2  # the one that was held, and one for all that came meanwhile


def test_inputs_are_settled_in_the_order_they_came(store: Store) -> None:
    outcomes = Outcomes()
    for number in range(2000):
        store.keep(incoming(b"%d" % number), ("ris",), outcomes)
    settled = outcomes.wait(2000)

    assert [outcome.message_id for outcome in settled if isinstance(outcome, Accepted)] == list(range(1, 2001))


def test_a_group_is_bounded_in_rows_and_in_bytes(store: Store) -> None:
    held = Held(store)
    outcomes = Outcomes()
    for _ in range(writer_module.GROUP_ROWS_MAX + 1):
        store.keep(incoming(b"small"), (), outcomes)
    for _ in range(5):
        store.keep(incoming(b"x" * (writer_module.GROUP_BYTES_MAX // 2)), (), outcomes)
    before = store.writer.commits
    held.let_go()
    outcomes.wait(writer_module.GROUP_ROWS_MAX + 6)

    # held; 500 small; one small and one large; then each large with at most one more
    assert store.writer.commits - before >= 5


def test_one_input_larger_than_a_group_is_kept(store: Store) -> None:
    raw = b"x" * (writer_module.GROUP_BYTES_MAX + 1)

    assert keep(store, incoming(raw)).message_id == 1


def test_a_full_queue_refuses_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "QUEUE_ROWS_MAX", 3)
    held = Held(store)
    outcomes = Outcomes()
    for _ in range(3):
        store.keep(incoming(), (), outcomes)

    with pytest.raises(StoreError, match="queue is full"):
        store.keep(incoming(), (), outcomes)
    held.let_go()
    outcomes.wait(3)
    keep(store, incoming())


def test_the_queue_is_bounded_in_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "QUEUE_BYTES_MAX", 10_000)
    held = Held(store)
    outcomes = Outcomes()
    store.keep(incoming(b"x" * 20_000), (), outcomes)  # alone in the queue, however large

    with pytest.raises(StoreError, match="queue is full"):
        store.keep(incoming(), (), outcomes)
    held.let_go()
    outcomes.wait(1)


def test_a_call_that_fails_does_not_hurt_its_neighbours(store: Store) -> None:
    def insert(name: str) -> object:
        return store.call(lambda connection: connection.execute("INSERT INTO about VALUES (?, 'x')", (name,)) and None)

    def fail(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO about VALUES ('halfway', 'x')")
        raise ValueError("no")

    held = Held(store)
    first, broken, last = insert("first"), store.call(fail), insert("last")
    held.let_go()

    assert first.result(WAIT_S) is None  # type: ignore[attr-defined]
    assert last.result(WAIT_S) is None  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no"):
        broken.result(WAIT_S)
    names = {name for (name,) in store.readers.connection.execute("SELECT name FROM about").fetchall()}
    assert {"first", "last"} <= names
    assert "halfway" not in names


def test_totals_and_endpoints_of_a_call_that_fails_fall_back(store: Store) -> None:
    keep(store, incoming(), "ris")
    acts = store.acts

    def fail(connection: apsw.Connection) -> None:
        acts.resend(connection, 1, "ris", "someone", incoming().received_at)
        acts.resend(connection, 1, "never-seen", "someone", incoming().received_at)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.call(fail).result(WAIT_S)
    keep(store, incoming(b"two"), "ris", "never-seen")

    totals = read_counters(store.readers.connection)
    assert totals["destination", "ris"] == {"pending": 2, "owed:hl7": 2}
    assert totals["destination", "never-seen"] == {"pending": 1, "owed:hl7": 1}
    rows = store.readers.connection.execute("SELECT count(*) FROM delivery d JOIN endpoint e ON e.id = d.destination")
    assert rows.get == 3


def test_a_full_disk_refuses_the_group_tells_and_goes_on(tmp_path: Path) -> None:
    told = threading.Event()
    store = open_store(tmp_path, full=told.set)
    keep(store, incoming(b"before"), "ris")
    old = fill_to_the_brim(store)

    with pytest.raises(StoreError, match="FullError"):
        keep(store, incoming(b"x" * 100_000, source="new-source"), "ris", "new-destination")
    assert told.is_set()
    totals = read_counters(store.readers.connection)
    assert totals == {
        ("source", "emr"): {"received": 1, "bytes": 6},
        ("destination", "ris"): {"pending": 1, "owed:hl7": 1},
    }

    store.call(lambda connection: connection.execute(f"PRAGMA max_page_count = {old}").get).result(WAIT_S)
    accepted = keep(store, incoming(b"x" * 100_000, source="new-source"), "ris", "new-destination")
    assert accepted.message_id == 2
    totals = read_counters(store.readers.connection)
    assert totals["source", "new-source"] == {"received": 1, "bytes": 100_000}
    assert totals["destination", "ris"] == {"pending": 2, "owed:hl7": 2}
    ordinals = store.readers.connection.execute("SELECT id, ordinal FROM delivery ORDER BY id").fetchall()
    assert ordinals == [(1, 1), (2, 2), (3, 1)]
    store.close()


def test_no_room_to_map_the_log_is_a_full_disk_too(tmp_path: Path) -> None:
    told = threading.Event()
    store = open_store(tmp_path, full=told.set)

    def no_room(connection: apsw.Connection) -> None:
        raise apsw.exception_for(apsw.SQLITE_IOERR_SHMSIZE)

    with pytest.raises(StoreError, match="IOError"):
        store.call(no_room).result(WAIT_S)
    assert told.is_set()
    assert keep(store, incoming(b"after"), "ris").message_id == 1
    store.close()


def test_an_input_that_cannot_be_written_is_refused_alone(store: Store) -> None:
    held = Held(store)
    outcomes = Outcomes()
    store.keep(incoming(b"one"), ("ris",), outcomes)
    store.keep(incoming(b"two", identifier="\udce9"), ("ris",), outcomes)  # a lone surrogate is no UTF-8
    store.keep(incoming(b"three"), ("ris",), outcomes)
    held.let_go()

    kinds = [type(outcome) for outcome in outcomes.wait(3)]
    assert kinds == [Accepted, StoreError, Accepted]
    keep(store, incoming(b"four"), "ris")
    assert read_counters(store.readers.connection)["destination", "ris"] == {"pending": 3, "owed:hl7": 3}
    ordinals = store.readers.connection.execute("SELECT ordinal FROM delivery ORDER BY id").fetchall()
    assert ordinals == [(1,), (2,), (3,)]


def test_a_broken_disk_refuses_everything_and_ends_the_writer(tmp_path: Path) -> None:
    failures: list[Exception] = []
    told = threading.Event()

    def failed(error: Exception) -> None:
        failures.append(error)
        told.set()

    store = open_store(tmp_path, failed=failed)
    keep(store, incoming(b"before"))
    held = Held(store)
    outcomes = Outcomes()

    def breaks(connection: apsw.Connection) -> None:
        raise apsw.IOError("disk I/O error")

    broken = store.call(breaks)
    for number in range(writer_module.GROUP_ROWS_MAX + 10):  # more than one group: some wait while it breaks
        store.keep(incoming(b"%d" % number), (), outcomes)
    held.let_go()

    assert told.wait(WAIT_S)
    assert all(isinstance(outcome, StoreError) for outcome in outcomes.wait(writer_module.GROUP_ROWS_MAX + 10))
    with pytest.raises(StoreError):
        broken.result(WAIT_S)
    with pytest.raises(StoreError, match="failed"):
        store.keep(incoming(), (), outcomes)
    store.close()
    assert [type(error) for error in failures] == [apsw.IOError]
    assert (tmp_path / "gateway.db.open").exists()  # the next start checks the file


def test_what_waits_at_close_is_written(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    outcomes = Outcomes()
    for number in range(1500):
        store.keep(incoming(b"%d" % number), (), outcomes)
    store.close()

    assert all(isinstance(outcome, Accepted) for outcome in outcomes.all)
    assert len(outcomes.all) == 1500
    with pytest.raises(StoreError, match="closed"):
        store.keep(incoming(), (), outcomes)


def test_an_idle_moment_on_a_full_disk_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "IDLE_S", 0.01)
    rested = threading.Event()
    times: list[int] = []

    def rest(connection: apsw.Connection) -> None:
        times.append(1)
        if len(times) == 3:
            rested.set()
        raise apsw.FullError("database or disk is full")

    monkeypatch.setattr("gateway.store.store.Store._rest", lambda store, connection: rest(connection))
    store = open_store(tmp_path)

    assert rested.wait(WAIT_S)
    assert keep(store, incoming()).message_id == 1
    store.close()
