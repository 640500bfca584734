"""Opening a store after a stop that may not have been clean.

    marker absent  --> open
    marker present --> quick_check --ok--> open
                                   --not ok--> set aside whole --> open a fresh one, an alarm stands

The marker file lies beside the database from open to clean close. A store that cannot be opened, or fails the check,
is never repaired and never deleted: database, -wal and -shm are moved together into `set-aside/<instant>/`, where they
stay until a person has looked. Intake is up again in seconds.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path

import apsw

from gateway.errors import StoreError
from gateway.store.connection import close_untouched, means_full, open_writer, shorten_log

FILE_NAME = "gateway.db"
MARKER_NAME = "gateway.db.open"
SET_ASIDE_NAME = "set-aside"

_log = logging.getLogger("gateway.store")


def open_checked(
    folder: Path, now: datetime, synchronous: str = "FULL", full: Callable[[], None] | None = None
) -> tuple[apsw.Connection, bool]:
    """Open the store in `folder` for writing; also return whether the last stop was unclean.

    `full` is called where the disk is too full for that, and gives up the reserve. Raises StoreError where the file is
    sound but unusable (a newer schema, a setting that does not hold, no room).
    """
    try:
        unclean = (folder / MARKER_NAME).exists()
        connection = _open(folder, now, synchronous, unclean, full or _nothing)
        _mark(folder)
    except OSError as error:
        raise StoreError(f"opening the store in {folder}: {error.strerror}") from error
    except apsw.Error as error:
        raise StoreError(f"opening the store in {folder}: {error}") from error
    return connection, unclean


def set_aside(folder: Path, now: datetime) -> Path:
    """Move the database with its companions into a folder of its own; return that folder."""
    target = folder / SET_ASIDE_NAME / now.strftime("%Y%m%dT%H%M%S.%fZ")
    target.mkdir(parents=True)
    for suffix in ("", "-wal", "-shm"):
        file = folder / (FILE_NAME + suffix)
        if file.exists():
            file.rename(target / file.name)
    sync_folder(target)
    sync_folder(folder)
    return target


def stores_set_aside(folder: Path) -> list[str]:
    """Return the stores that wait for a person, oldest first."""
    place = folder / SET_ASIDE_NAME
    return sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []


def mark_clean(folder: Path) -> None:
    """Note that the store was closed in order."""
    (folder / MARKER_NAME).unlink(missing_ok=True)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _open(folder: Path, now: datetime, synchronous: str, unclean: bool, full: Callable[[], None]) -> apsw.Connection:
    path = folder / FILE_NAME
    if not path.exists() and path.with_name(FILE_NAME + "-wal").exists():  # SQLite would delete what is in it
        _log.critical("store.set_aside error=log-without-database")
        set_aside(folder, now)
    try:
        connection = _open_with_room(path, synchronous, full)
        if unclean:
            _check(connection)
    except (apsw.NotADBError, apsw.CorruptError) as error:
        _log.critical("store.set_aside error=%s", type(error).__name__)
        set_aside(folder, now)
        return open_writer(path, synchronous)
    return connection


def _open_with_room(path: Path, synchronous: str, full: Callable[[], None]) -> apsw.Connection:
    """Open for writing; on a full disk with the room that the log was given ahead of need, or that of the reserve."""
    for make_room in (partial(_shorten_log, path), full):
        try:
            return open_writer(path, synchronous)
        except apsw.Error as error:
            if not means_full(error):
                raise
        make_room()
    return open_writer(path, synchronous)


def _shorten_log(path: Path) -> None:
    _log.warning("store.log_shortened reason=no-room")
    with suppress(FileNotFoundError):
        shorten_log(path)


def _nothing() -> None:
    """Give up no reserve: there is none."""


def _check(connection: apsw.Connection) -> None:
    try:
        verdict = connection.execute("PRAGMA quick_check(1)").get
    except apsw.Error:
        close_untouched(connection)
        raise
    if verdict != "ok":
        close_untouched(connection)
        raise apsw.CorruptError("quick_check failed")


def _mark(folder: Path) -> None:
    (folder / MARKER_NAME).touch()
    for place in (folder, *folder.parents):  # the folder itself may be new, and what it stands in
        with suppress(PermissionError):
            sync_folder(place)
        if place.is_mount():
            break
