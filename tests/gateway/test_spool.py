import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.formats.dicom import part10_prefix
from gateway.spool import FolderSync, Spool, content_hash
from tests.gateway.spooling import draft_of, keep_object


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
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


PREFIX = part10_prefix(sop_class_uid="1.2", sop_instance_uid="1.2.3", transfer_syntax="1.2")
PIXELS = content_hash(b"pixels").digest()


def _keep(spool: Spool, dataset: bytes = b"pixels") -> str:
    return keep_object(spool, PREFIX + dataset).name


def test_an_object_is_kept_byte_for_byte_under_a_name_of_hex_digits(spool: Spool) -> None:
    name = _keep(spool)

    assert spool.path_of(name).read_bytes() == PREFIX + b"pixels"
    assert list(spool.names()) == [name]
    assert spool.verify(name, PIXELS) is None


def test_what_has_rotted_or_gone_is_told(spool: Spool) -> None:
    name, cut = _keep(spool), _keep(spool)
    spool.path_of(name).write_bytes(PREFIX + b"pixelX")
    spool.path_of(cut).write_bytes(PREFIX[:140])

    assert spool.verify(name, PIXELS) == "content changed"
    assert (spool.verify(cut, PIXELS) or "").startswith("file meta: ")
    spool.remove([name])
    assert spool.verify(name, PIXELS) == "missing"


@pytest.mark.parametrize("name", ["", "../x", "a" * 63, "A" * 64, "a" * 64 + "\n", "/" + "a" * 63])
def test_only_hex_digits_name_an_object(spool: Spool, name: str) -> None:
    with pytest.raises(StoreError):
        spool.path_of(name)


def test_opening_empties_incoming_and_keeps_objects(spool: Spool) -> None:
    name = _keep(spool)
    with spool.new_incoming() as file:
        file.write(b"half")
    spool.close()

    Spool(spool.folder).open()

    assert list(spool.incoming.iterdir()) == []
    assert list(spool.names()) == [name]


def test_removing_is_content_with_what_is_gone(spool: Spool) -> None:
    name = _keep(spool)

    spool.remove([name, "0" * 64])

    assert list(spool.names()) == []
    assert spool.size_bytes() == 0


def test_a_failing_sync_of_the_folder_is_a_store_error(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_number: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(StoreError, match="Input/output error"):
        spool.begin()


def test_a_full_disk_is_an_error_and_gets_better(tiny_disk: Path) -> None:
    spool = Spool(tiny_disk)
    spool.open()
    draft = spool.begin()
    with pytest.raises(OSError, match="No space"):
        draft.write(memoryview(bytes(4 << 20)))
    assert shutil.disk_usage(spool.folder).free < 64 << 10

    spool.discard(draft)

    assert shutil.disk_usage(spool.folder).free > 1 << 20
    assert spool.verify(_keep(spool), PIXELS) is None
    spool.close()


def test_many_threads_keep_at_once(spool: Spool) -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda number: _keep(spool, b"%d" % number), range(100)))

    assert len(set(names)) == 100
    assert all(spool.verify(name, content_hash(b"%d" % number).digest()) is None for number, name in enumerate(names))


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
    kept, dropped = draft_of(spool, data), draft_of(spool, data)

    spool.committed(kept)
    spool.discard(dropped)

    assert list(spool.names()) == [kept.name]
    assert spool.path_of(kept.name).read_bytes() == data
    assert spool.size_bytes() == size
    assert spool.coming == set()


def test_pieces_follow_each_other_and_may_end_anywhere(spool: Spool) -> None:
    draft = spool.begin()
    whole = memoryview(os.urandom(9000))
    for piece in (whole[:4096], whole[4096:8193], whole[8193:]):
        draft.write(piece, last=len(piece) < 4096)
    draft.sync()

    assert draft.path.read_bytes() == whole
    spool.discard(draft)


def test_files_are_made_ahead_and_taken_away_at_the_end(spool: Spool) -> None:
    draft = spool.begin()
    spool.committed(draft)
    spool.close()

    assert [path.name for path in spool.objects.iterdir()] == [draft.name]
    assert list(spool.incoming.iterdir()) == []


def test_a_start_keeps_what_the_store_names_and_nothing_else_that_was_on_its_way(spool: Spool) -> None:
    named, forgotten = draft_of(spool, b"named"), draft_of(spool, b"forgotten")
    earlier = _keep(spool)
    spool.close()  # drafts stay; no thread makes files any more

    again = Spool(spool.folder)
    again.open(lambda name: name == named.name)

    assert set(again.names()) == {named.name, earlier}
    assert forgotten.name not in {path.name for path in spool.objects.iterdir()}
    assert list(spool.incoming.iterdir()) == []


def test_a_repeat_goes_unless_what_was_kept_is_rotten(spool: Spool) -> None:
    first = draft_of(spool, PREFIX + b"pixels")
    spool.committed(first)

    spool.mend(first.name, PIXELS, draft_of(spool, PREFIX + b"pixels"))
    assert list(spool.names()) == [first.name]

    spool.path_of(first.name).write_bytes(PREFIX + b"rotten")
    spool.mend(first.name, PIXELS, draft_of(spool, PREFIX + b"pixels"))
    assert list(spool.names()) == [first.name]
    assert spool.verify(first.name, PIXELS) is None
    spool.path_of(first.name).unlink()
    spool.mend(first.name, PIXELS, draft_of(spool, PREFIX + b"pixels"))
    assert spool.verify(first.name, PIXELS) is None


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


def test_a_draft_goes_on_beyond_four_gigabytes(spool: Spool) -> None:
    draft = spool.begin()
    draft.size = 5 << 30  # as if so much had come: a hole, which costs no disk
    draft.write(memoryview(b"one"))
    draft.write(memoryview(b"two"), last=True)
    draft.sync()
    spool.committed(draft)

    path = spool.path_of(draft.name)
    with path.open("rb") as file:
        file.seek(5 << 30)
        assert file.read() == b"onetwo"
    assert spool.size_bytes() == path.stat().st_size == (5 << 30) + 6
    spool.remove([draft.name])
    assert spool.size_bytes() == 0
