from pathlib import Path

import apsw
import pytest

from gateway.errors import StoreError
from gateway.store import connection as connection_module
from gateway.store.connection import open_reader, open_writer, sqlite_version
from tests.gateway.store.stores import incoming, keep, open_store


def schema_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **steps: str) -> None:
    """Let the migrations be the product's own and some more, by file name."""
    real = Path(connection_module.__file__).parent / "schema"
    package = tmp_path / "package"
    (package / "schema").mkdir(parents=True)
    for file in real.glob("*.sql"):
        (package / "schema" / file.name).write_text(file.read_text("utf-8"), "utf-8")
    for name, script in steps.items():
        (package / "schema" / f"{name.removeprefix('step_')}.sql").write_text(script, "utf-8")
    monkeypatch.setattr(connection_module.resources, "files", lambda package_name: package)


def latest_version() -> int:
    real = Path(connection_module.__file__).parent / "schema"
    return max(int(file.name[:3]) for file in real.glob("*.sql"))


def test_the_writer_has_the_settings_that_durability_needs(tmp_path: Path) -> None:
    connection = open_writer(tmp_path / "gateway.db")

    assert connection.execute("PRAGMA journal_mode").get == "wal"
    assert connection.execute("PRAGMA synchronous").get == 2
    assert connection.execute("PRAGMA auto_vacuum").get == 2
    assert connection.execute("PRAGMA wal_autocheckpoint").get == connection_module.CHECKPOINT_PAGES
    assert connection.execute("PRAGMA user_version").get == latest_version()
    connection.close()


def test_a_file_left_empty_by_a_crash_gets_the_same_settings(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").touch()
    connection = open_writer(tmp_path / "gateway.db")

    assert connection.execute("PRAGMA auto_vacuum").get == 2
    connection.close()


def test_the_running_store_commits_with_full_sync(tmp_path: Path) -> None:
    store = open_store(tmp_path)

    def settings(connection: apsw.Connection) -> tuple[object, object]:
        return connection.execute("PRAGMA synchronous").get, connection.execute("PRAGMA journal_mode").get

    assert store.call(settings).result(10) == (2, "wal")
    store.close()


def test_a_setting_that_does_not_hold_is_an_error() -> None:
    with pytest.raises(StoreError, match="journal_mode"):
        open_writer(Path(":memory:"))  # SQLite keeps "memory" whatever is asked


def test_an_sqlite_with_the_wal_reset_fault_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(int(part) for part in sqlite_version().split(".")) >= (3, 51, 3)
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")

    with pytest.raises(StoreError, match="WAL-reset"):
        sqlite_version()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    open_writer(tmp_path / "gateway.db").close()
    reader = open_reader(tmp_path / "gateway.db")

    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("INSERT INTO about VALUES ('x', 'y')")
    reader.close()


def test_a_reader_that_closes_last_leaves_the_log_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    keep(store, incoming())
    reader = open_reader(tmp_path / "gateway.db")
    assert reader.execute("SELECT count(*) FROM message").get == 1
    store.close()
    reader.close()

    assert (tmp_path / "gateway.db-wal").stat().st_size > 0


def test_a_store_of_a_newer_version_is_refused_and_untouched(tmp_path: Path) -> None:
    connection = open_writer(tmp_path / "gateway.db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()

    with pytest.raises(StoreError, match="downgraded"):
        open_writer(tmp_path / "gateway.db")
    with pytest.raises(StoreError, match="downgraded"):
        open_store(tmp_path)
    assert not (tmp_path / "set-aside").exists()


def test_a_store_of_an_older_version_is_brought_up_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    keep(store, incoming(b"old"))
    store.close()
    schema_with(tmp_path, monkeypatch, step_998="CREATE TABLE later (a)", step_999="ALTER TABLE later ADD COLUMN b")

    connection = open_writer(tmp_path / "gateway.db")
    assert connection.execute("PRAGMA user_version").get == 999
    assert connection.execute("SELECT raw FROM message").get == b"old"
    connection.execute("INSERT INTO later (a, b) VALUES (1, 2)")
    connection.close()


def test_a_migration_that_fails_leaves_the_last_whole_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema_with(
        tmp_path,
        monkeypatch,
        step_998="CREATE TABLE later (a)",
        step_999="CREATE TABLE much_later (a); INSERT INTO nowhere VALUES (1)",
    )

    with pytest.raises(apsw.SQLError):
        open_writer(tmp_path / "gateway.db")
    connection = apsw.Connection(str(tmp_path / "gateway.db"))
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema").fetchall()}
    assert connection.execute("PRAGMA user_version").get == 998
    assert "later" in tables
    assert "much_later" not in tables
    connection.close()
