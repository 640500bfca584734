"""A consistent copy of the store and of the objects it refers to, made beside a running agent, as one tar file.

    copy pages from one read snapshot --> link the objects the copy names --> stream all into the tar --> manifest

The snapshot is a reader's: in WAL mode it neither blocks the writer nor waits for it, so intake goes on at full speed;
only the log cannot shrink below the snapshot until the pages are copied. (The writer's own connection cannot serve:
SQLite refuses to copy from a connection that is inside a write transaction.) Objects are hard-linked before they are
read, so that retention may take them away meanwhile. The manifest is the last member: names, sizes, SHA-256.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import apsw

from gateway.errors import StoreError
from gateway.store.connection import open_reader, sqlite_version
from gateway.store.reading import object_names
from gateway.store.recovery import FILE_NAME, sync_folder

STEP_PAGES = 2_000  # 8 MB: how much is copied before the copier looks up
MANIFEST_NAME = "manifest.json"
WORK_PREFIX = "backup-"
OBJECTS = Path("spool") / "objects"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file of the backup: its name in the tar, size in bytes, SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What was written. `gone` are objects of settled Messages that retention removed while the copy was made."""

    file: Path
    size: int
    members: tuple[Member, ...]
    gone: tuple[str, ...]


def write_backup(data_dir: Path, file: Path, now: datetime) -> Backup:
    """Write store and objects of `data_dir` to `file`, mode 0600; `.gz` or `.tgz` at its end compresses.

    The file appears whole or not at all. Raises StoreError when there is no store, no room, or a file cannot be
    read or written. Blocks as long as copying takes.
    """
    if not (data_dir / FILE_NAME).exists():
        raise StoreError(f"there is no store in {data_dir}")
    try:
        _sweep(data_dir)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=WORK_PREFIX) as temporary, _held(Path(temporary)):
            return _write(data_dir, Path(temporary), file, now)
    except OSError as error:
        raise StoreError(f"backup: {f'{error.filename}: {error.strerror}' if error.filename else error}") from error
    except tarfile.TarError as error:
        raise StoreError(f"backup: {error}") from error
    except apsw.Error as error:
        raise StoreError(f"backup: the store could not be copied: {type(error).__name__}") from error


def _sweep(data_dir: Path) -> None:
    """Remove what a killed backup left behind; one that is at work holds its folder."""
    for leftover in data_dir.glob(f"{WORK_PREFIX}*"):
        try:
            with _held(leftover):
                shutil.rmtree(leftover)
        except BlockingIOError:
            continue


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _write(data_dir: Path, temporary: Path, file: Path, now: datetime) -> Backup:
    _demand_room(data_dir)
    copy = temporary / FILE_NAME
    _copy_store(data_dir / FILE_NAME, copy)
    gone = _link_objects(data_dir, temporary, copy)
    partial = file.with_name(f".{file.name}.partial")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            members = tuple(_stream(temporary, stream, file.suffix in (".gz", ".tgz"), gone, now))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
        sync_folder(file.parent)
    finally:
        partial.unlink(missing_ok=True)
    return Backup(file=file, size=file.stat().st_size, members=members, gone=gone)


def _demand_room(data_dir: Path) -> None:
    database = data_dir / FILE_NAME
    log = data_dir / f"{FILE_NAME}-wal"
    needed = database.stat().st_size + (log.stat().st_size if log.exists() else 0)
    free = shutil.disk_usage(data_dir).free
    if free < needed:
        raise OSError(f"{data_dir} has {free} bytes free, the copy of the store needs {needed}")


def _copy_store(source: Path, target: Path) -> None:
    reader = open_reader(source)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT 1 FROM about LIMIT 1").fetchall()  # from here on this connection sees one snapshot
        copied = apsw.Connection(os.fspath(target))
        try:
            with copied.backup("main", reader, "main") as copying:
                while not copying.done:
                    copying.step(STEP_PAGES)
            copied.execute("PRAGMA journal_mode = DELETE")  # one file, without companions
            # A restored store takes a new name, so that control ids given out after the backup are never met again.
            copied.execute("DELETE FROM about WHERE name = 'epoch'")
        finally:
            copied.close()
        reader.execute("COMMIT")
    finally:
        reader.close()


def _link_objects(data_dir: Path, temporary: Path, copy: Path) -> tuple[str, ...]:
    folder = temporary / OBJECTS
    folder.mkdir(parents=True)
    gone = []
    for name in _names(copy):
        try:
            os.link(data_dir / OBJECTS / name, folder / name)
        except FileNotFoundError:
            gone.append(name)
    return tuple(gone)


def _names(copy: Path) -> Iterator[str]:
    connection = apsw.Connection(os.fspath(copy), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        after = ""
        while names := object_names(connection, after):
            yield from names
            after = names[-1]
    finally:
        connection.close()


def _stream(
    temporary: Path, stream: IO[bytes], compressed: bool, gone: tuple[str, ...], now: datetime
) -> Iterator[Member]:
    members = []
    with tarfile.open(fileobj=stream, mode="w|gz" if compressed else "w|", format=tarfile.PAX_FORMAT) as tar:
        for path in [temporary / FILE_NAME, *sorted((temporary / OBJECTS).iterdir())]:
            member = _add(tar, path, str(path.relative_to(temporary)))
            members.append(member)
            yield member
        manifest = {
            "format": FORMAT,
            "made_at": now.isoformat(),
            "sqlite_version": sqlite_version(),
            "files": [asdict(member) for member in members],
            "gone": list(gone),
        }
        raw = json.dumps(manifest, indent=1).encode()
        tar.addfile(_entry(MANIFEST_NAME, len(raw)), io.BytesIO(raw))


def _add(tar: tarfile.TarFile, path: Path, name: str) -> Member:
    size = path.stat().st_size
    with path.open("rb") as file:
        hashing = _Hashing(file)
        tar.addfile(_entry(name, size), hashing)
    return Member(name=name, size=size, sha256=hashing.digest.hexdigest())


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o600
    return entry


class _Hashing:
    """A file being read, hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data
