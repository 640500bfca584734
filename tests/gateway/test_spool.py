import hashlib
import mmap
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.errors import StoreError
from gateway.formats.dicom import part10_prefix
from gateway.model import StoredFile
from gateway.spool import Draft, FolderSync, Spool, name_of


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool", ManualClock())
    spool.open()
    return spool


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "tiny"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _incoming(spool: Spool, uid: str, dataset: bytes, source_ae: str = "") -> tuple[Path, int]:
    prefix = part10_prefix(sop_class_uid="1.2", sop_instance_uid=uid, transfer_syntax="1.2", source_ae=source_ae)
    with spool.new_incoming() as file:
        file.write(prefix + dataset)
    return Path(file.name), len(prefix)


def _keep(spool: Spool, uid: str, dataset: bytes, source_ae: str = "") -> StoredFile:
    path, offset = _incoming(spool, uid, dataset, source_ae)
    return spool.keep(path, uid, offset)


def test_an_object_is_kept_byte_for_byte_under_a_name_of_hex_digits(spool: Spool) -> None:
    path, offset = _incoming(spool, "1.2.3", b"pixels")
    whole = path.read_bytes()

    stored = spool.keep(path, "1.2.3", offset)

    digest = hashlib.sha256(b"pixels").digest()
    assert stored == StoredFile(name=hashlib.sha256(b"1.2.3\0" + digest).hexdigest(), size=len(whole), digest=digest)
    assert spool.path_of(stored.name).read_bytes() == whole
    assert list(spool.incoming.iterdir()) == []
    assert list(spool.names()) == [stored.name]
    assert spool.verify(stored.name) is None


def test_the_same_content_twice_is_one_file_whatever_its_file_meta(spool: Spool) -> None:
    first = _keep(spool, "1.2.3", b"pixels", "CT1")
    second = _keep(spool, "1.2.3", b"pixels", "CT2")

    assert first.name == second.name
    assert list(spool.incoming.iterdir()) == []


def test_the_same_uid_with_other_content_is_another_file(spool: Spool) -> None:
    assert _keep(spool, "1.2.3", b"one").name != _keep(spool, "1.2.3", b"two").name


def test_a_rotten_file_is_replaced_by_a_repeat(spool: Spool) -> None:
    name = _keep(spool, "1.2.3", b"pixels").name
    spool.path_of(name).write_bytes(spool.path_of(name).read_bytes()[:-1] + b"X")
    assert spool.verify(name) == "content changed"

    _keep(spool, "1.2.3", b"pixels")

    assert spool.verify(name) is None
    assert list(spool.incoming.iterdir()) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=200) | st.sampled_from(["../../x", "/etc/x", "a\0b", "..", ".", "١٢٣"]))
def test_no_uid_leaves_the_folder(spool: Spool, uid: str) -> None:
    before = {path for path in spool.folder.parent.rglob("*") if spool.objects not in path.parents}
    stored = _keep(spool, uid, b"data")

    assert spool.path_of(stored.name).parent == spool.objects
    assert spool.path_of(stored.name).is_file()
    assert {path for path in spool.folder.parent.rglob("*") if spool.objects not in path.parents} == before


@pytest.mark.parametrize("name", ["", "../x", "a" * 63, "A" * 64, "a" * 64 + "\n", "/" + "a" * 63])
def test_only_hex_digits_name_an_object(spool: Spool, name: str) -> None:
    with pytest.raises(StoreError):
        spool.path_of(name)


def test_opening_empties_incoming_and_keeps_objects(spool: Spool) -> None:
    stored = _keep(spool, "1.2.3", b"pixels")
    _incoming(spool, "1.2.4", b"half")

    Spool(spool.folder).open()

    assert list(spool.incoming.iterdir()) == []
    assert list(spool.names()) == [stored.name]


def test_removing_is_content_with_what_is_gone(spool: Spool) -> None:
    stored = _keep(spool, "1.2.3", b"pixels")

    assert spool.remove([stored.name, name_of("9", b"")]) == ()
    assert list(spool.names()) == []
    assert spool.verify(stored.name) == "missing"


def test_what_was_just_kept_again_is_not_removed(tmp_path: Path) -> None:
    clock = ManualClock()
    spool = Spool(tmp_path, clock)
    spool.open()
    _keep(spool, "1.2.3", b"pixels")
    name = _keep(spool, "1.2.3", b"pixels").name

    assert spool.remove([name]) == (name,)
    clock.advance(601)
    assert spool.remove([name]) == ()


def test_the_order_is_file_then_link_then_folder(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    path, offset = _incoming(spool, "1.2.3", b"pixels")
    inode, calls = path.stat().st_ino, []
    fsync, link = os.fsync, os.link

    def note_fsync(number: int) -> None:
        fsync(number)
        calls.append("file" if os.fstat(number).st_ino == inode else "folder")

    def note_link(source: Path, target: Path) -> None:
        link(source, target)
        calls.append("link")

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)

    spool.keep(path, "1.2.3", offset)

    assert calls == ["file", "link", "folder"]


def test_a_repeat_waits_for_the_folder_too(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    _keep(spool, "1.2.3", b"pixels")
    path, offset = _incoming(spool, "1.2.3", b"pixels")
    fsync, synced = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda number: (fsync(number), synced.append(os.fstat(number).st_ino)))

    spool.keep(path, "1.2.3", offset)

    assert spool.objects.stat().st_ino in synced


def test_a_failing_fsync_is_a_store_error(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    path, offset = _incoming(spool, "1.2.3", b"pixels")

    def fail(_number: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(StoreError, match="Input/output error"):
        spool.keep(path, "1.2.3", offset)


def test_a_full_disk_is_a_store_error_and_gets_better(tiny_disk: Path) -> None:
    spool = Spool(tiny_disk)
    spool.open()
    with pytest.raises(OSError, match="No space"), spool.new_incoming() as file:
        file.write(bytes(4 << 20))
    assert shutil.disk_usage(spool.folder).free < 64 << 10

    Path(file.name).unlink()

    assert shutil.disk_usage(spool.folder).free > 1 << 20
    assert spool.verify(_keep(spool, "1.2.3", b"pixels").name) is None


def test_a_missing_incoming_file_is_a_store_error(spool: Spool) -> None:
    with pytest.raises(StoreError, match="No such file"):
        spool.keep(spool.incoming / "gone", "1.2.3", 0)


def test_many_threads_keep_and_share_folder_syncs(spool: Spool) -> None:
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda number: _keep(spool, f"1.2.{number % 20}", b"%d" % (number % 20)), range(100)))

    assert len({file.name for file in stored}) == 20
    assert all(spool.verify(file.name) is None for file in stored)


def test_a_caller_during_a_sync_waits_for_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = FolderSync(tmp_path)
    running, go_on, fsync, count = threading.Event(), threading.Event(), os.fsync, []

    def slow(number: int) -> None:
        count.append(number)
        running.set()
        assert go_on.wait(10)
        fsync(number)

    monkeypatch.setattr(os, "fsync", slow)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(sync.wait)
        assert running.wait(10)
        late = [pool.submit(sync.wait) for _ in range(3)]
        while sync._next is None:
            threading.Event().wait(0.001)
        assert not any(waiter.done() for waiter in late)
        go_on.set()
        for waiter in (first, *late):
            waiter.result(10)

    assert 2 <= len(count) <= 4


def _draft(spool: Spool, data: bytes) -> Draft:
    draft = spool.begin()
    draft.write(memoryview(data))
    draft.sync()
    return draft


def test_a_draft_has_a_durable_name_before_its_first_byte(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (fsync(number), synced.append(os.fstat(number).st_ino)))

    draft = spool.begin()

    assert spool.objects.stat().st_ino in synced
    assert (spool.objects / draft.name).stat().st_ino == draft.path.stat().st_ino
    assert list(spool.names()) == []
    spool.discard(draft)


@pytest.mark.parametrize("size", [0, 1, 4096, 5000, 1 << 20])
def test_what_is_committed_stays_and_what_is_discarded_goes(spool: Spool, size: int) -> None:
    data = os.urandom(size)
    kept, dropped = _draft(spool, data), _draft(spool, data)

    spool.committed(kept)
    spool.discard(dropped)

    assert list(spool.names()) == [kept.name]
    assert spool.path_of(kept.name).read_bytes() == data
    assert spool.size_bytes() == size
    assert spool.coming == set()


def test_pieces_follow_each_other_and_the_last_may_end_anywhere(spool: Spool) -> None:
    draft = spool.begin()
    whole = memoryview(mmap.mmap(-1, 3 * 4096))
    whole[:] = os.urandom(len(whole))
    for piece in (whole[:4096], whole[4096:8192], whole[8192:9000]):
        draft.write(piece)
    draft.sync()

    assert draft.path.read_bytes() == whole[:9000].tobytes()
    spool.discard(draft)


def test_files_are_made_ahead_and_taken_away_at_the_end(spool: Spool) -> None:
    draft = spool.begin()
    spool.committed(draft)
    spool.close()

    assert [path.name for path in spool.objects.iterdir()] == [draft.name]
    assert list(spool.incoming.iterdir()) == []


def test_a_start_keeps_what_the_store_names_and_nothing_else_that_was_on_its_way(spool: Spool) -> None:
    named, forgotten = _draft(spool, b"named"), _draft(spool, b"forgotten")
    earlier = _keep(spool, "1.2.3", b"pixels").name
    spool.close()  # drafts stay; no thread makes files any more

    again = Spool(spool.folder)
    again.open(lambda name: name == named.name)

    assert set(again.names()) == {named.name, earlier}
    assert forgotten.name not in {path.name for path in spool.objects.iterdir()}
    assert list(spool.incoming.iterdir()) == []


def test_a_repeat_goes_unless_what_was_kept_is_rotten(spool: Spool) -> None:
    prefix = part10_prefix(sop_class_uid="1.2", sop_instance_uid="1.3", transfer_syntax="1.2")
    digest = hashlib.sha256(b"pixels").digest()
    first = _draft(spool, prefix + b"pixels")
    spool.committed(first)

    spool.mend(first.name, digest, _draft(spool, prefix + b"pixels"))
    assert list(spool.names()) == [first.name]

    spool.path_of(first.name).write_bytes(prefix + b"rotten")
    spool.mend(first.name, digest, _draft(spool, prefix + b"pixels"))
    assert list(spool.names()) == [first.name]
    assert spool.verify(first.name, digest) is None
    spool.path_of(first.name).unlink()
    spool.mend(first.name, digest, _draft(spool, prefix + b"pixels"))
    assert spool.verify(first.name, digest) is None


def test_threads_never_share_a_file(spool: Spool) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: spool.begin().name, range(300)))

    assert len(set(names)) == 300


def test_a_disk_that_fails_at_the_close_is_told_by_the_sync_and_not_again(spool: Spool) -> None:
    draft = spool.begin()
    os.close(draft._number)  # what is closed twice fails as on a disk that has gone

    spool.discard(draft)

    assert draft.name not in spool.coming
    assert draft.name not in list(spool.names())
