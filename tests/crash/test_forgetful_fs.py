"""The forgetful file system forgets exactly what was not synced."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.power import Disk
from tests.system.agents import ROOT

if not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0:
    pytest.skip("mounting needs /dev/fuse and root", allow_module_level=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    made.mount()
    yield made
    made.clear()


def power_cycle(disk: Disk) -> None:
    disk.cut()
    disk.clear()
    disk.mount()


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)


def test_without_a_power_cut_it_is_a_file_system(disk: Disk) -> None:
    folder = disk.path / "folder"
    folder.mkdir()
    write(folder / "a", os.urandom(300_000))
    os.link(folder / "a", folder / "b")
    (folder / "a").rename(folder / "c")
    with (folder / "c").open("r+b") as file:
        file.truncate(5000)
        file.seek(9000)
        file.write(b"end")

    assert sorted(path.name for path in folder.iterdir()) == ["b", "c"]
    assert (folder / "b").read_bytes() == (folder / "c").read_bytes()
    assert (folder / "c").stat().st_size == 9003
    (folder / "b").unlink()
    assert [path.name for path in folder.iterdir()] == ["c"]


def test_what_is_written_under_one_name_is_there_at_once_under_another(disk: Disk) -> None:
    file, other = disk.path / "file", disk.path / "other"
    file.touch()
    os.link(file, other)
    assert other.stat().st_size == 0
    handle = os.open(file, os.O_RDWR | os.O_DIRECT)
    block = memoryview(mmap.mmap(-1, 8192))
    block[:] = b"x" * 8192
    os.write(handle, block)
    os.fdatasync(handle)
    os.close(handle)

    assert other.read_bytes() == b"x" * 8192
    sync(disk.path)
    power_cycle(disk)
    assert other.read_bytes() == b"x" * 8192


@pytest.mark.parametrize(
    ("sync_file", "sync_folder", "found"),
    [(False, False, None), (True, False, None), (False, True, b""), (True, True, b"content")],
    ids=["nothing synced", "only the file", "only the folder", "both"],
)
def test_a_new_file_is_there_when_file_and_folder_were_synced(
    disk: Disk, sync_file: bool, sync_folder: bool, found: bytes | None
) -> None:
    file = disk.path / "new"
    write(file, b"content")
    if sync_file:
        sync(file)
    if sync_folder:
        sync(disk.path)
    power_cycle(disk)

    assert (file.read_bytes() if file.exists() else None) == found


def test_what_was_written_after_the_sync_is_forgotten(disk: Disk) -> None:
    file = disk.path / "file"
    write(file, b"a" * 10_000)
    sync(file)
    sync(disk.path)
    with file.open("r+b") as opened:
        opened.write(b"b" * 5000)
        opened.truncate(6000)
    power_cycle(disk)

    assert file.read_bytes() == b"a" * 10_000


def test_names_changed_after_the_folders_sync_are_as_they_were(disk: Disk) -> None:
    write(disk.path / "kept", b"1")
    write(disk.path / "old", b"2")
    for path in (disk.path / "kept", disk.path / "old", disk.path):
        sync(path)
    (disk.path / "kept").unlink()
    (disk.path / "old").rename(disk.path / "new")
    power_cycle(disk)

    assert {path.name: path.read_bytes() for path in disk.path.iterdir()} == {"kept": b"1", "old": b"2"}


def test_a_leaking_disk_keeps_some_of_what_was_not_synced(disk: Disk) -> None:
    disk.clear()
    disk.mount(leak=0.5)
    file = disk.path / "file"
    file.touch()
    sync(disk.path)
    write(file, os.urandom(4096 * 100))
    power_cycle(disk)

    pages = [file.read_bytes()[start : start + 4096] for start in range(0, file.stat().st_size, 4096)]
    assert 10 < sum(page != bytes(4096) for page in pages) < 90


@pytest.mark.parametrize(("synchronous", "kept_all"), [("FULL", True), ("NORMAL", False)])
def test_sqlite_keeps_every_commit_with_full_and_loses_them_with_normal(
    disk: Disk, synchronous: str, kept_all: bool
) -> None:
    data = disk.path / "data"
    data.mkdir()
    sync(disk.path)
    program = (
        "import sys, apsw\n"
        "c = apsw.Connection(sys.argv[1]); c.execute('PRAGMA journal_mode = WAL')\n"
        f"c.execute('PRAGMA synchronous = {synchronous}'); c.execute('CREATE TABLE t (a)')\n"
        "for number in range(200): c.execute('INSERT INTO t VALUES (?)', (number,))\n"
        "print(c.execute('SELECT count(*) FROM t').get, flush=True); sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(data / "x.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"200\n"
    disk.cut()
    writer.kill()
    writer.communicate()
    disk.clear()
    disk.mount()
    look = (
        "import sys, apsw\n"
        "try: print(apsw.Connection(sys.argv[1]).execute('SELECT count(*) FROM t').get)\n"
        "except apsw.Error: print(0)\n"
    )
    found = subprocess.run([sys.executable, "-c", look, str(data / "x.db")], capture_output=True, check=True).stdout

    assert (int(found) == 200) is kept_all
