"""Bulk bytes: the folder where Instances lie, one Part 10 file each.

    pool: created in incoming/, linked into objects/, folder synced --begin--> Draft: written, synced as bytes come
    Draft --its row is committed--> committed: the name in incoming/ goes
          --refused, broken off----> discarded: both names go

Both folders lie on one file system. A name is 64 random hex digits, so no text of a peer ever becomes a path. Files are
made ahead of need, a pool at a time, so that an object costs no sync of a folder while its sender waits. A name that
stands in `incoming/` was not known to be acknowledged: at start the store is asked, and what no row refers to is
removed. Which other objects are still needed is the store's to know too; files that no row refers to are found by
`names()`.
"""

import logging
import os
import re
import secrets
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from gateway.errors import ContentError, StoreError
from gateway.formats.dicom import read_meta

SYNC_TIMEOUT_S = 60.0
HASH_BYTES = 1 << 20
POOL_FILES = 64  # made at a time
POOL_LOW = 48  # fewer left and the next are made

_NAME = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger("gateway.spool")

content_hash = blake3  # of a data set, 32 bytes: a repeat is told by it, and what has rotted


class Draft:
    """One object on its way in; its name is durable before its first byte. One thread at a time."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.size = 0
        self._number = -1

    def open(self) -> None:
        """Open the file, which is empty; make it where it is not. Raises OSError."""
        self._number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, data: memoryview, *, last: bool = False) -> None:
        """Append. Unless it is the last, the disk begins to take it at once: little is left for the sync.

        Raises OSError.
        """
        start = self.size
        while data:
            count = os.pwrite(self._number, data, self.size)
            self.size += count
            data = data[count:]
        if not last:
            os.posix_fadvise(self._number, start, self.size - start, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Return when everything written is on the disk; it leaves the memory. Raises OSError."""
        os.fdatasync(self._number)
        os.posix_fadvise(self._number, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file, if it is open; a disk that fails now says nothing of what it has synced."""
        number, self._number = self._number, -1
        if number >= 0:
            with suppress(OSError):
                os.close(number)


class Spool:
    """One folder of objects. All methods block and may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / "incoming"
        self.objects = folder / "objects"
        self._lock = threading.Lock()
        self._size_bytes = 0
        self._sync = FolderSync(self.objects)
        self._pool: deque[Draft] = deque()
        self._settled: deque[Path] = deque()  # names in incoming/ that can go
        self.coming: set[str] = set()  # names of drafts that are neither committed nor discarded
        self._filling = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._refill: Future[None] | None = None
        self._closed = False

    def open(self, named: Callable[[str], bool] = lambda _: True) -> None:
        """Make the folders durable, empty `incoming/`, measure what is there. Raises StoreError.

        `named` tells whether a row refers to an object: of those that stand in `incoming/`, the others were never
        acknowledged and go.
        """
        try:
            for folder in (self.folder, self.incoming, self.objects):
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
                _fsync_folder(folder.parent)
            for leftover in self.incoming.iterdir():
                if _NAME.fullmatch(leftover.name) and not named(leftover.name):
                    (self.objects / leftover.name).unlink(missing_ok=True)
                leftover.unlink()
            with os.scandir(self.objects) as entries:
                self._size_bytes = sum(entry.stat().st_size for entry in entries)
        except OSError as error:
            raise _store_error("opening the spool", error) from error

    def prepare(self) -> None:
        """Make files ahead of need, in a thread of the Spool's own."""
        with self._lock:
            if not self._closed and (self._refill is None or self._refill.done()):
                self._refill = self._filling.submit(self._fill_pool)

    def close(self) -> None:
        """Remove the files that were made ahead; drafts are their owners'."""
        with self._lock:
            self._closed = True
        self._filling.shutdown(wait=True)
        while self._pool:
            self.discard(self._pool.popleft())
        self._drop_settled()

    def begin(self) -> Draft:
        """Return an empty file whose name is durable. Raises StoreError."""
        try:
            draft = self._pool.popleft()
        except IndexError:
            (draft,) = self._make(1)
        if len(self._pool) < POOL_LOW:
            self.prepare()
        try:
            draft.open()
        except OSError as error:
            self.discard(draft)
            raise _store_error("opening a file", error) from error
        self.coming.add(draft.name)
        return draft

    def committed(self, draft: Draft) -> None:
        """Take notice that a row refers to an object: it stays. Never raises."""
        draft.close()
        self.coming.discard(draft.name)
        with self._lock:
            self._size_bytes += draft.size
        self._settled.append(draft.path)

    def discard(self, draft: Draft) -> None:
        """Remove an object that no row refers to. Never raises: what is left is found at the next start."""
        draft.close()
        self.coming.discard(draft.name)
        for path in (self.objects / draft.name, draft.path):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def mend(self, name: str, digest: bytes, draft: Draft) -> None:
        """Discard a repeat of an object that was kept before; take its place where that one is gone or rotten.

        Raises StoreError.
        """
        path = self.path_of(name)
        if self.verify(name, digest) is None:
            self.discard(draft)
            return
        _log.error("object.replaced name=%s reason=content-changed", name)
        draft.close()
        self.coming.discard(draft.name)
        try:
            os.replace(self.objects / draft.name, path)  # noqa: PTH105
            _fsync_folder(self.objects)
            draft.path.unlink(missing_ok=True)
        except OSError as error:
            raise _store_error("replacing an object", error) from error

    def _fill_pool(self) -> None:
        self._drop_settled()
        if len(self._pool) < POOL_LOW and not self._closed:
            try:
                self._pool.extend(self._make(POOL_FILES))
            except StoreError as error:
                _log.error("pool.not_filled reason=%s", error)

    def _make(self, count: int) -> list[Draft]:
        made: list[Draft] = []
        try:
            for _ in range(count):
                name = secrets.token_hex(32)
                draft = Draft(name, self.incoming / name)
                made.append(draft)
                draft.open()
                draft.close()
                os.link(draft.path, self.objects / name)
            self._sync.wait()
        except OSError as error:
            for draft in made:
                self.discard(draft)
            raise _store_error("making a file", error) from error
        return made

    def _drop_settled(self) -> None:
        while self._settled:
            with suppress(OSError):
                self._settled.popleft().unlink(missing_ok=True)

    def new_incoming(self) -> BinaryIO:
        """Open a new, empty file for an object that is being received; its `name` is its path. Raises StoreError."""
        try:
            number, path = tempfile.mkstemp(dir=self.incoming, suffix=".dcm")
        except OSError as error:
            raise _store_error("opening a file in incoming", error) from error
        os.close(number)
        return Path(path).open("wb")

    def path_of(self, name: str) -> Path:
        """Return where an object lies. Raises StoreError for anything but 64 hex digits."""
        if _NAME.fullmatch(name) is None:
            raise StoreError("not the name of an object: 64 hex digits expected")
        return self.objects / name

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects that no row refers to any more; one that is gone already does no harm. Raises StoreError."""
        try:
            for name in names:
                path = self.path_of(name)
                with self._lock:
                    if path.exists():
                        self._size_bytes -= path.stat().st_size
                        path.unlink()
        except OSError as error:
            raise _store_error("removing objects", error) from error

    def names(self) -> Iterator[str]:
        """Yield the names of all objects but those on their way in, in no order. Raises StoreError."""
        self._drop_settled()
        try:
            with os.scandir(self.objects) as entries:
                names = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
            coming = {path.name for path in self.incoming.iterdir()} if self.incoming.exists() else set()
            yield from (name for name in names if name not in coming)
        except OSError as error:
            raise _store_error("listing objects", error) from error

    def verify(self, name: str, expected: bytes) -> str | None:
        """Hash an object again; return what is wrong with it, None when its data set has the digest expected."""
        path = self.path_of(name)
        try:
            digest = _hash(path, read_meta(path).dataset_offset)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"unreadable: {error.strerror}"
        except ContentError as error:
            return f"file meta: {error}"
        return None if digest == expected else "content changed"

    def size_bytes(self) -> int:
        """Return how large all objects are: measured when the Spool was opened, kept with every change since."""
        return self._size_bytes

    def kept_before(self, name: str, instant: datetime) -> bool:
        """Return whether an object has lain there since before an instant; one that is gone has not."""
        try:
            return self.path_of(name).stat().st_mtime < instant.timestamp()
        except FileNotFoundError:
            return False


class FolderSync:
    """Shares the fsyncs of one folder: callers wait for one that began after their call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._next: Future[None] | None = None

    def wait(self) -> None:
        """Return when all that was in the folder before the call is durable. Raises OSError."""
        with self._lock:
            leads = self._next is None
            round_ = self._next = self._next or Future()
        if leads:
            self._lead(round_)
        try:
            round_.result(SYNC_TIMEOUT_S)
        except TimeoutError as error:
            raise OSError(f"folder not synced within {SYNC_TIMEOUT_S} s") from error

    def _lead(self, round_: Future[None]) -> None:
        with self._running:  # while the last fsync runs, others join this round
            with self._lock:
                self._next = None
            try:
                _fsync_folder(self._folder)
            except OSError as error:
                round_.set_exception(error)
            else:
                round_.set_result(None)


def _hash(path: Path, offset: int) -> bytes:
    hasher = content_hash()
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(HASH_BYTES):
            hasher.update(chunk)
    return hasher.digest()


def _fsync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _store_error(doing: str, error: OSError) -> StoreError:
    return StoreError(f"{doing}: {error.strerror or error}")
