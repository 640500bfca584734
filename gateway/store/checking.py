"""Asking the store whether it is whole: slow, read-only, beside a running agent.

Two questions: is the file's structure sound, and do the counters that are kept with every change still say what the
rows say. Spool objects are compared by who calls, through `reading.object_names`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

from gateway.errors import StoreError
from gateway.model import DeliveryState
from gateway.store.counters import STATE_NAMES, read_counters

FAULTS_MAX = 20
COUNTED = (DeliveryState.PENDING, DeliveryState.PARKED)  # the others shrink with retention while their counters stay


@contextmanager
def unreadable_is_told() -> Iterator[None]:
    """Turn what SQLite says of a file that cannot be read (damaged, locked, no database) into a StoreError."""
    try:
        yield
    except apsw.Error as error:
        raise StoreError(f"the store cannot be read: {type(error).__name__}") from error


def check_structure(connection: apsw.Connection) -> list[str]:
    """Return what SQLite's quick_check finds, at most 20 lines; empty when the file is sound."""
    try:
        rows: list[Any] = connection.execute(f"PRAGMA quick_check({FAULTS_MAX})").fetchall()
    except (apsw.CorruptError, apsw.NotADBError) as error:
        return [f"the store cannot be read: {type(error).__name__}"]
    return [] if rows == [("ok",)] else [str(text) for (text,) in rows]


def check_counters(connection: apsw.Connection) -> list[str]:
    """Return the counters that differ from the rows they count; both are read from one snapshot."""
    connection.execute("BEGIN")
    try:
        kept = read_counters(connection)
        rows: list[Any] = connection.execute(
            "SELECT e.name, d.state, count(*) FROM delivery d JOIN endpoint e ON e.id = d.destination"
            " WHERE d.state IN (0, 2) GROUP BY 1, 2"
        ).fetchall()
    finally:
        connection.execute("COMMIT")
    counted = {(name, DeliveryState(state)): number for name, state, number in rows}
    names = {name for role, name in kept if role == "destination"}
    return [
        f"destination {name}: counter {STATE_NAMES[state]} is {said}, rows say {found}"
        for name in sorted(names)
        for state in COUNTED
        if (said := kept["destination", name].get(STATE_NAMES[state], 0)) != (found := counted.get((name, state), 0))
    ]


def object_is_named(connection: apsw.Connection, name: str) -> bool:
    """Tell whether any row refers to a Spool object, as of now."""
    return connection.execute("SELECT 1 FROM message WHERE object = ? LIMIT 1", (name,)).get is not None
