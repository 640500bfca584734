import shutil
from datetime import timedelta
from pathlib import Path

import apsw
import pytest

from gateway.clock import ManualClock
from gateway.errors import StoreError
from gateway.store import recovery
from gateway.store.connection import LOG_BYTES_READY, open_reader, open_writer, shorten_log
from gateway.store.recovery import stores_set_aside
from gateway.store.space import Space
from gateway.store.store import Store
from tests.gateway.store.stores import START, incoming, keep, open_store, unexpected


def crashed(folder: Path, copy: Path, count: int = 3) -> Path:
    """Return a copy of a store's files as a killed process leaves them."""
    folder.mkdir(exist_ok=True)
    store = open_store(folder)
    for number in range(count):
        keep(store, incoming(b"%d" % number * 100, f"{number}"), "ris")
    shutil.copytree(folder, copy)
    store.close()
    return copy


def kept(folder: Path) -> int:
    reader = open_reader(folder / "gateway.db")
    count = reader.execute("SELECT count(*) FROM message").get
    reader.close()
    assert isinstance(count, int)
    return count


def leave_one_change_in_the_log(database: Path) -> None:
    """Move the log into the file, so that it cannot heal what is damaged there; then one more change."""
    connection = apsw.Connection(str(database))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute("SELECT count(*) FROM about").fetchall()
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.execute("INSERT INTO about VALUES ('change', '')")
    connection.close()


def damage(file: Path) -> None:
    """Overwrite the pages behind the first: the file opens, but its trees are broken."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.seek(4096)
        opened.write(b"\xaa" * (size - 4096))


def test_a_clean_stop_leaves_no_marker_and_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(tmp_path).close()
    monkeypatch.setattr(recovery, "_check", lambda connection: pytest.fail("checked after a clean stop"))
    store = open_store(tmp_path)

    assert not store.was_unclean
    store.close()


def test_a_killed_store_is_checked_and_keeps_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = crashed(tmp_path / "a", tmp_path / "b")
    checks: list[int] = []
    check = recovery._check
    monkeypatch.setattr(recovery, "_check", lambda connection: (checks.append(1), check(connection))[1])
    store = open_store(copy)

    assert store.was_unclean
    assert checks == [1]
    assert keep(store, incoming(b"more")).message_id == 4
    assert kept(copy) == 4
    store.close()


def test_a_new_folder_and_what_it_stands_in_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(recovery, "sync_folder", synced.append)
    folder = tmp_path / "srv" / "gateway"
    folder.mkdir(parents=True)
    open_store(folder).close()

    assert {folder, folder.parent, tmp_path} <= set(synced)


@pytest.mark.parametrize("left", [0, 1, 33, 4096 + 24, 5000])
def test_a_log_cut_short_loses_only_its_end(tmp_path: Path, left: int) -> None:
    copy = crashed(tmp_path / "a", tmp_path / "b", count=20)
    log = copy / "gateway.db-wal"
    with log.open("r+b") as opened:
        opened.truncate(log.stat().st_size - left)
    (copy / "gateway.db-shm").unlink()
    store = open_store(copy)
    rows = store.readers.connection.execute("SELECT id FROM message ORDER BY id").fetchall()

    assert [number for (number,) in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 18
    assert stores_set_aside(copy) == []
    store.close()


@pytest.mark.parametrize("damaged", ["pages", "header", "text"])
def test_a_corrupt_store_is_set_aside_whole_and_a_fresh_one_opened(tmp_path: Path, damaged: str) -> None:
    copy = crashed(tmp_path / "a", tmp_path / "b")
    database = copy / "gateway.db"
    leave_one_change_in_the_log(database)
    if damaged == "pages":
        damage(database)
    elif damaged == "header":
        with database.open("r+b") as opened:
            opened.write(b"not a database at all")
    else:
        database.write_text("x" * 10_000)
    as_found = database.read_bytes()
    log_as_found = (copy / "gateway.db-wal").read_bytes()

    store = open_store(copy, clock=ManualClock(START + timedelta(seconds=1.5)))
    (name,) = stores_set_aside(copy)
    aside = copy / "set-aside" / name
    assert name == "20260101T000001.500000Z"
    assert len(log_as_found) > 4096
    assert (aside / "gateway.db").read_bytes() == as_found
    assert (aside / "gateway.db-wal").read_bytes() == log_as_found
    assert {"gateway.db", "gateway.db-wal"} <= {file.name for file in aside.iterdir()}
    assert keep(store, incoming(b"fresh"), "ris").message_id == 1
    store.close()
    assert kept(copy) == 1


def test_control_ids_of_the_fresh_store_differ_from_those_set_aside(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    old = store.epoch
    store.close()
    (tmp_path / "gateway.db").write_text("x" * 10_000)
    (tmp_path / "gateway.db.open").touch()
    store = open_store(tmp_path)

    assert store.epoch != old
    store.close()


def test_a_store_that_cannot_be_opened_is_told_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "gateway.db").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"opening the store in .*unable to open"):
        open_store(tmp_path / "a")
    assert stores_set_aside(tmp_path / "a") == []

    def fails(folder: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(recovery, "sync_folder", fails)
    (tmp_path / "b").mkdir()
    with pytest.raises(StoreError, match=r"opening the store in .*Input/output error"):
        open_store(tmp_path / "b")


def test_a_log_that_lost_its_database_is_set_aside_too(tmp_path: Path) -> None:
    copy = crashed(tmp_path / "a", tmp_path / "b")
    log = (copy / "gateway.db-wal").read_bytes()
    (copy / "gateway.db").unlink()  # a crash in the middle of setting aside
    store = open_store(copy)
    (name,) = stores_set_aside(copy)

    assert (copy / "set-aside" / name / "gateway.db-wal").read_bytes() == log
    assert keep(store, incoming()).message_id == 1
    store.close()


def test_two_stores_set_aside_are_both_kept(tmp_path: Path) -> None:
    for second in range(2):
        (tmp_path / "gateway.db").write_text("x" * 10_000)
        open_store(tmp_path, clock=ManualClock(START + timedelta(seconds=second))).close()

    assert len(stores_set_aside(tmp_path)) == 2


def test_a_log_that_was_lengthened_gives_back_what_holds_no_frame(tmp_path: Path) -> None:
    folder, copy = tmp_path / "store", tmp_path / "copy"
    folder.mkdir()
    store = open_store(folder)
    store.prepare()
    for number in range(40):
        keep(store, incoming(b"one" + bytes(number), f"{number}"), "ris")
    shutil.copytree(folder, copy)
    store.close()
    log = copy / "gateway.db-wal"
    before = log.stat().st_size

    shorten_log(copy / "gateway.db")

    assert before >= LOG_BYTES_READY
    assert (log.stat().st_size - 32) % (24 + 4096) == 0
    assert log.stat().st_size < 4 << 20
    assert kept(copy) == 40


def test_where_the_disk_is_full_a_store_is_opened_with_the_room_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = crashed(tmp_path / "first", tmp_path / "copy")
    no_room = [apsw.exception_for(apsw.SQLITE_IOERR_SHMSIZE)]
    real = open_writer
    shortened: list[Path] = []

    def opens(path: Path, synchronous: str) -> apsw.Connection:
        if no_room:
            raise no_room.pop()
        return real(path, synchronous)

    monkeypatch.setattr(recovery, "open_writer", opens)
    monkeypatch.setattr(recovery, "shorten_log", lambda path: shortened.append(path))
    store = open_store(copy)

    assert shortened == [copy / "gateway.db"]
    assert kept(copy) == 3
    store.close()


def test_where_that_is_not_enough_the_reserve_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_room = [apsw.exception_for(apsw.SQLITE_FULL), apsw.exception_for(apsw.SQLITE_IOERR_SHMSIZE)]
    real = open_writer
    space = Space(tmp_path, reserve=1 << 20, stop_intake_below=0)
    space.hold_reserve()
    held: list[bool] = []

    def opens(path: Path, synchronous: str) -> apsw.Connection:
        held.append(space.reserve_held)
        if no_room:
            raise no_room.pop()
        return real(path, synchronous)

    monkeypatch.setattr(recovery, "open_writer", opens)
    store = Store(tmp_path, ManualClock(START), failed=unexpected, full=space.free_reserve)
    store.close()

    assert held == [True, True, False]


def test_a_disk_that_fails_is_not_taken_for_a_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opens(path: Path, synchronous: str) -> apsw.Connection:
        raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)

    monkeypatch.setattr(recovery, "open_writer", opens)
    with pytest.raises(StoreError, match="opening the store"):
        open_store(tmp_path)
