"""`gateway backup` and `verify` beside a running agent: what is copied opens equal, what is damaged is found."""

import hashlib
import json
import shutil
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
from pydicom.data import get_testdata_file

from gateway.cli import backup as backup_command
from gateway.cli.main import main
from gateway.clock import SystemClock
from gateway.errors import StoreError
from gateway.formats.dicom import read_meta
from gateway.model import Incoming, Kind
from gateway.spool import Spool
from gateway.store import backup
from gateway.store.backup import write_backup
from gateway.store.reading import MessageFilter, object_digest, read_message, read_messages
from gateway.store.recovery import FILE_NAME
from gateway.store.store import Readers, Store
from tests.gateway.console.house import House, eventually
from tests.gateway.spooling import keep_object

OBJECTS = ("CT_small.dcm", "MR_small.dcm")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def keep_objects(house: House) -> list[str]:
    """Store two Instances as the DICOM Source would; return their names in the spool."""
    names = []
    for sample in OBJECTS:
        source = Path(str(get_testdata_file(sample)))
        meta = read_meta(source)
        kept = keep_object(house.app.spool, source.read_bytes(), meta.dataset_offset)
        names.append(kept.name)
        instance = Incoming(
            source="emr",
            kind=Kind.DICOM,
            received_at=NOW,
            size=kept.size,
            digest=kept.digest,
            identifier=meta.sop_instance_uid,
            object_name=kept.name,
        )
        house.do(house.app.intake.accept(instance))
    return names


@pytest.fixture
def filled(house: House) -> Iterator[House]:
    house.keep(1, 2, 3)
    house.names = keep_objects(house)  # type: ignore[attr-defined]
    eventually(lambda: set(house.states().values()) == {"delivered"})
    yield house


def verify(house: House, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    status = main(["verify", "--json", "-c", str(house.config)])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["backup.tar", "backup.tar.gz", "backup.tgz"])
def test_a_backup_beside_a_running_agent_opens_equal(
    name: str, filled: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name

    assert main(["backup", str(file), "--json", "-c", str(filled.config)]) == 0

    document = json.loads(capsys.readouterr().out)
    assert (document["files"], document["gone"]) == (3, [])
    assert file.stat().st_mode & 0o777 == 0o600
    restored = tmp_path / "restored"
    with tarfile.open(file) as tar:
        tar.extractall(restored, filter="data")
    manifest = json.loads((restored / "manifest.json").read_text())
    for entry in manifest["files"]:
        raw = (restored / entry["name"]).read_bytes()
        assert (len(raw), hashlib.sha256(raw).hexdigest()) == (entry["size"], entry["sha256"])
    _expect_equal(filled, restored)
    assert filled.audit()[-1][1] == "backup"
    assert not list(filled.data.glob("backup-*"))


def _expect_equal(house: House, restored: Path) -> None:
    with_clock = SystemClock()
    readers = house.app.store.readers
    mine = read_messages(readers.connection, MessageFilter())
    store = Store(restored, with_clock, failed=lambda error: None)
    try:
        copied = store.readers.connection
        assert read_messages(copied, MessageFilter()) == mine
        for message in mine:
            assert read_message(copied, message.id) == read_message(readers.connection, message.id)
        assert not store.was_unclean
        assert store.epoch != house.app.store.epoch  # no control id is given out twice
    finally:
        store.close()
    spool = Spool(restored / "spool")
    assert sorted(spool.names()) == sorted(house.names)  # type: ignore[attr-defined]
    for name in spool.names():
        digest = object_digest(readers.connection, name)
        assert digest is not None
        assert spool.verify(name, digest) is None


def test_intake_goes_on_while_the_store_is_copied(filled: House, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(backup, "STEP_PAGES", 1)
    stepped, go_on = threading.Event(), threading.Event()
    real = backup._copy_store

    def copy(source: Path, target: Path) -> None:
        real(source, target)
        stepped.set()
        assert go_on.wait(10)

    monkeypatch.setattr(backup, "_copy_store", copy)
    written: list[backup.Backup] = []
    copier = threading.Thread(target=lambda: written.append(write_backup(filled.data, tmp_path / "b.tar", NOW)))
    copier.start()
    assert stepped.wait(10)

    filled.keep(4)
    go_on.set()
    copier.join(10)

    with tarfile.open(written[0].file) as tar:
        tar.extract("gateway.db", tmp_path / "out", filter="data")
    rows = apsw.Connection(str(tmp_path / "out" / "gateway.db")).execute("SELECT count(*) FROM message").get
    assert rows == 5  # what came after the snapshot is not in it


def test_an_object_that_retention_took_meanwhile_is_named(filled: House, tmp_path: Path) -> None:
    name = filled.names[0]  # type: ignore[attr-defined]
    filled.app.spool.path_of(name).unlink()

    written = write_backup(filled.data, tmp_path / "b.tar", NOW)

    assert written.gone == (name,)
    assert len(written.members) == 2


def test_what_a_killed_backup_left_is_removed_and_one_at_work_is_not(filled: House, tmp_path: Path) -> None:
    (filled.data / "backup-dead").mkdir()
    (filled.data / "backup-dead" / "gateway.db").touch()
    (filled.data / "backup-live").mkdir()

    with backup._held(filled.data / "backup-live"):
        write_backup(filled.data, tmp_path / "b.tar", NOW)

    assert [path.name for path in filled.data.glob("backup-*")] == ["backup-live"]


def test_without_a_store_there_is_nothing_to_copy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        write_backup(tmp_path, tmp_path / "b.tar", NOW)


def test_a_backup_that_cannot_be_written_leaves_the_old_one(filled: House, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "b.tar"
    file.write_text("the old one")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_stream", fail)
    with pytest.raises(StoreError, match="No space left on device"):
        write_backup(filled.data, file, NOW)

    assert file.read_text() == "the old one"
    assert not list(filled.data.glob("backup-*"))
    assert not list(tmp_path.glob(".b.tar*"))


def test_a_backup_into_a_folder_that_is_not_there_is_status_1(filled: House, tmp_path: Path, capsys) -> None:
    assert main(["backup", str(tmp_path / "no" / "b.tar"), "-c", str(filled.config)]) == 1
    partial = tmp_path / "no" / ".b.tar.partial"
    assert capsys.readouterr().err == f"gateway: backup: {partial}: No such file or directory\n"


def test_a_whole_house_verifies(filled: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(filled, capsys) == (0, {"objects": 2, "faults": []})


def test_verify_finds_what_is_missing_changed_and_left_over(
    filled: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_command, "YOUNG_S", 0.0)
    first, second = filled.names  # type: ignore[attr-defined]
    spool = filled.app.spool
    orphan = "f" * 64
    shutil.copy(spool.path_of(first), spool.path_of(orphan))
    spool.path_of(first).unlink()
    with spool.path_of(second).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xee")

    status, document = verify(filled, capsys)

    assert status == 1
    found = sorted((fault["kind"], fault["object"]) for fault in document["faults"])
    assert found == sorted([("missing", first), ("changed", second), ("orphan", orphan)])
    assert main(["verify", "-c", str(filled.config)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "2 objects checked, 3 faults"


def test_an_object_whose_row_is_about_to_be_written_is_no_orphan(filled: House, capsys) -> None:
    shutil.copy(filled.app.spool.path_of(filled.names[0]), filled.app.spool.path_of("f" * 64))  # type: ignore[attr-defined]

    assert verify(filled, capsys)[0] == 0


def test_without_an_agent_nothing_is_about_to_be_written(tmp_path: Path, capsys) -> None:
    with House(tmp_path) as house:
        house.keep(1)
        eventually(lambda: set(house.states().values()) == {"delivered"})
    (house.data / "spool" / "objects" / ("e" * 64)).touch()

    status, document = verify(house, capsys)

    assert (status, [fault["kind"] for fault in document["faults"]]) == (1, ["orphan"])


def test_verify_finds_a_counter_that_says_other_than_the_rows(tmp_path: Path, capsys) -> None:
    with House(tmp_path) as house:
        house.park(1, 2)
    connection = apsw.Connection(str(house.data / FILE_NAME))
    connection.execute("UPDATE counter SET value = 7 WHERE name = 'parked'")
    connection.close()

    status, document = verify(house, capsys)

    assert status == 1
    assert document["faults"][0]["text"] == "destination ris: counter parked is 7, rows say 2"


def test_verify_finds_a_damaged_page(tmp_path: Path, capsys) -> None:
    with House(tmp_path) as house:
        house.keep(*range(200))
        eventually(lambda: set(house.states().values()) == {"delivered"})
    file = house.data / FILE_NAME
    raw = bytearray(file.read_bytes())
    raw[8192:20480] = bytes(12288)
    file.write_bytes(raw)

    status, document = verify(house, capsys)

    assert status == 1
    assert {fault["kind"] for fault in document["faults"]} == {"store"}


@pytest.mark.parametrize("words", [["messages"], ["message", "1"], ["status"], ["backup", "x.tar"], ["verify"]])
def test_a_file_that_is_no_database_is_told_in_one_line(words: list[str], tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with House(tmp_path) as house:
        house.keep(1)
    (house.data / FILE_NAME).write_bytes(b"no database at all" * 1000)

    assert main([*words, "-c", str(house.config)]) == 1

    printed = capsys.readouterr()
    assert "the store c" in printed.err or "the store cannot be read" in printed.out
    assert "internal error" not in printed.err


def test_verify_changes_nothing(filled: House, capsys: pytest.CaptureFixture[str]) -> None:
    def picture() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in filled.data.rglob("*") if path.is_file()}

    readers = Readers(filled.data / FILE_NAME)
    before = readers.connection.execute("SELECT count(*), max(id) FROM message").fetchone()
    pictured = {path: at for path, at in picture().items() if "objects" in path}

    verify(filled, capsys)

    assert readers.connection.execute("SELECT count(*), max(id) FROM message").fetchone() == before
    assert pictured.items() <= picture().items()  # the running agent makes more ahead
    readers.close()
