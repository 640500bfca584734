"""Letting go of what is settled: by age and by size, in small pieces, never anything that is still owed.

A Message goes when it is older than the limit, or when the data folder is larger than its limit, none of its
Deliveries is pending or parked, and no archive that has it is still to commit to it. Nothing goes that came after the
oldest study that is not complete, and no Instance that the watch over studies has not seen: what waits for its study is
owed to nobody yet. One that is quarantined stays its full time, however large the folder. Each piece is one short
transaction; names of the Spool's objects that no row refers to any more are given back, to be removed after the commit.
"""

from dataclasses import dataclass
from typing import Any

import apsw

from gateway.store.archive import remove_archivals
from gateway.store.holdings import remove_holdings
from gateway.store.indexing import remove_terms
from gateway.store.studies import followed_until, oldest_waiting

CHUNK_ROWS = 200
VACUUM_PAGES = 500

_CANDIDATES = (
    "SELECT id, object FROM message m WHERE id > ?1 AND received_at < ?2 AND (?3 OR quarantined IS NULL)"
    " AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.message = m.id AND d.state IN (0, 2))"
    " AND NOT EXISTS (SELECT 1 FROM archival a WHERE a.message = m.id AND a.state IN (0, 1))"
    " AND (kind <> 'dicom' OR id <= ?6) AND id <= ?4 ORDER BY id LIMIT ?5"
)
SPAN = 5_000  # Messages looked at for one piece, so that a long row of owed ones never makes it slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What one piece did: Messages removed, objects no longer referred to, where to go on (None: at the end)."""

    removed: int
    objects: tuple[str, ...]
    next_after: int | None


def remove_piece(connection: apsw.Connection, *, after: int, before_micros: int, quarantined: bool) -> Piece:
    """Remove the oldest settled Messages beyond number `after` that were received before an instant."""
    waiting = oldest_waiting(connection)
    before_micros = before_micros if waiting is None else min(before_micros, waiting)
    last: Any = connection.execute("SELECT coalesce(max(id), 0) FROM message").get
    until = after + SPAN
    rows: list[Any] = connection.execute(
        _CANDIDATES, (after, before_micros, quarantined, until, CHUNK_ROWS, followed_until(connection))
    ).fetchall()
    ids = [number for number, _ in rows]
    if ids:
        marks = ",".join("?" * len(ids))
        remove_archivals(connection, ids)
        connection.execute(
            f"DELETE FROM attempt WHERE delivery IN (SELECT id FROM delivery WHERE message IN ({marks}))", ids
        )
        connection.execute(f"DELETE FROM delivery WHERE message IN ({marks})", ids)
        remove_terms(connection, ids)
        remove_holdings(connection, ids)
        connection.execute(f"DELETE FROM message WHERE id IN ({marks})", ids)
    reached = ids[-1] if len(ids) == CHUNK_ROWS else until
    return Piece(
        removed=len(ids),
        objects=_unreferred(connection, [name for _, name in rows if name is not None]),
        next_after=reached if reached < last else None,
    )


def give_back_pages(connection: apsw.Connection) -> None:
    """Return some free pages to the file system; call in an idle moment, outside a transaction."""
    connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()


def _unreferred(connection: apsw.Connection, names: list[str]) -> tuple[str, ...]:
    return tuple(
        name
        for name in dict.fromkeys(names)
        if connection.execute("SELECT 1 FROM message WHERE object = ? LIMIT 1", (name,)).get is None
    )
