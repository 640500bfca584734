"""How connections to the store's one SQLite file are opened, and what is demanded of them.

The writer: WAL, `synchronous=FULL`, both set and read back; the only connection that writes and checkpoints.
Readers: `query_only`, never checkpoint, short.
"""

import os
from importlib import resources
from pathlib import Path

import apsw

from gateway.errors import StoreError

# Two connections that write or checkpoint at the same instant can corrupt a WAL database in 3.7.0 to 3.51.2.
VERSION_MIN = (3, 51, 3)
CHECKPOINT_PAGES = 4000
WAL_BYTES_KEPT = 64 << 20
CACHE_KIB = 16 << 10
LOG_BYTES_READY = 20 << 20  # a little more than the log holds when it is checkpointed
LOG_HEAD, LOG_FRAME_HEAD = 32, 24  # bytes
STATEMENTS_CACHED = 400
BUSY_TIMEOUT_MS = 5000

_SYNCHRONOUS = {"OFF": 0, "NORMAL": 1, "FULL": 2}


def sqlite_version() -> str:
    """Return the version of the SQLite library in use; raises StoreError for one that is known to corrupt."""
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < VERSION_MIN:
        raise StoreError(f"SQLite {version} has the WAL-reset fault, expected 3.51.3 or later")
    return version


def open_writer(path: Path, synchronous: str = "FULL") -> apsw.Connection:
    """Open the file for writing, made and migrated where needed.

    `synchronous` is FULL wherever data matters; the durability test passes NORMAL to see itself fail. Raises
    StoreError when a demanded setting does not hold, and apsw's errors for a damaged file.
    """
    sqlite_version()
    connection = apsw.Connection(os.fspath(path), statementcachesize=STATEMENTS_CACHED)
    try:
        if connection.execute("PRAGMA page_count").get == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _demand(connection, "journal_mode", "WAL", "wal")
        _demand(connection, "synchronous", synchronous, _SYNCHRONOUS[synchronous])
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        _migrate(connection)
    except BaseException:
        close_untouched(connection)
        raise
    return connection


def lengthen_log(path: Path) -> None:
    """Give the log its usual length ahead of need: a commit that makes a file longer syncs twice as long.

    Zeros behind the last frame are no frame. Only where nothing else writes the log: in the writer's thread.
    """
    log = path.with_name(path.name + "-wal")
    with log.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if 0 < size < LOG_BYTES_READY:
            for _ in range(-(-(LOG_BYTES_READY - size) >> 20)):
                file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())


def shorten_log(path: Path) -> None:
    """Give back the zeros behind the log's last frame: on a full disk, opening needs the room for the log's index.

    A frame is 24 bytes and a page, behind a head of 32 that says how long a page is (SQLite's file format, 4.1). Only
    while nobody has the store open. Raises OSError.
    """
    with path.with_name(path.name + "-wal").open("r+b") as file:
        frame = LOG_FRAME_HEAD + int.from_bytes(file.read(12)[8:], "big")
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - (1 << 20))
            file.seek(start)
            if rest := file.read(end - start).rstrip(b"\0"):
                end = start + len(rest)
                break
            end = start
        frames = -(-max(0, end - LOG_HEAD) // frame)
        file.truncate(min(file.seek(0, os.SEEK_END), LOG_HEAD + frames * frame))


def means_full(error: Exception) -> bool:
    """Tell whether a statement failed for want of room: in the files, or to map more of the log's index."""
    if isinstance(error, apsw.IOError):
        return bool(getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE)
    return isinstance(error, apsw.FullError)


def close_untouched(connection: apsw.Connection) -> None:
    """Close without moving the log into a file that may be damaged: what is set aside stays as it was found."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close()


def open_reader(path: Path) -> apsw.Connection:
    """Open the file for short reads; it can neither write nor checkpoint."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def _demand(connection: apsw.Connection, name: str, value: str, expected: object) -> None:
    connection.execute(f"PRAGMA {name} = {value}")
    found = connection.execute(f"PRAGMA {name}").get
    if found != expected:
        raise StoreError(f"PRAGMA {name} is {found!r}, expected {expected!r}")


def _migrate(connection: apsw.Connection) -> None:
    """Bring the schema up to date: numbered files, one transaction each, `user_version` says how far."""
    standing = connection.execute("PRAGMA user_version").get
    steps = sorted(
        (int(file.name[:3]), file.read_text("utf-8"))
        for file in (resources.files("gateway.store") / "schema").iterdir()
        if file.name.endswith(".sql")
    )
    if standing > steps[-1][0]:
        raise StoreError(
            f"the store has schema version {standing}, this gateway knows {steps[-1][0]}: it was downgraded"
        )
    for number, script in steps:
        if number > standing:
            connection.execute(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT")
