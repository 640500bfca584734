"""Instances that came under the SOP Instance UID of another one: found behind the commit, known until they were seen.

A UID names one object for ever (PS3.5, 9), so one of two under the same UID was named wrongly, by a Modality with a
bad counter or by a system that changed an object and left its name. Both are kept; a person must know. What was found
and not acknowledged yet stands in `about`, a row a Source, so that a restart forgets nothing.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apsw

_PREFIX = "uid-conflict:"
_FIND = (
    "SELECT e.name, m.id, (SELECT max(o.id) FROM message o WHERE o.identifier = m.identifier AND o.source = m.source"
    " AND o.id < m.id AND o.kind = 'dicom' AND o.digest <> m.digest) AS earlier FROM message m"
    " JOIN endpoint e ON e.id = m.source WHERE m.id > ? AND m.id <= ? AND m.kind = 'dicom'"
    " AND m.identifier IS NOT NULL AND earlier IS NOT NULL ORDER BY m.id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A Message whose Instance has the UID of an earlier Message of the same Source, and other content."""

    source: str
    message_id: int
    earlier_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingConflicts:
    """How many of a Source nobody has acknowledged yet, and the first of them."""

    count: int
    first: Conflict


def find_conflicts(connection: apsw.Connection, after: int, until: int) -> list[Conflict]:
    """Return the conflicts among the Messages beyond `after` up to `until`, each against the newest earlier one."""
    rows: list[Any] = connection.execute(_FIND, (after, until)).fetchall()
    return [Conflict(source=source, message_id=number, earlier_id=earlier) for source, number, earlier in rows]


def note_conflicts(connection: apsw.Connection, conflicts: Iterable[Conflict]) -> None:
    """Add to what stands, in the open transaction."""
    standing = standing_conflicts(connection)
    for conflict in conflicts:
        known = standing.get(conflict.source, StandingConflicts(count=0, first=conflict))
        standing[conflict.source] = StandingConflicts(count=known.count + 1, first=known.first)
    for source, known in standing.items():
        value = json.dumps([known.count, known.first.message_id, known.first.earlier_id])
        connection.execute("INSERT OR REPLACE INTO about (name, value) VALUES (?, ?)", (_PREFIX + source, value))


def standing_conflicts(connection: apsw.Connection) -> dict[str, StandingConflicts]:
    """Return by Source what nobody has acknowledged yet."""
    rows: list[Any] = connection.execute(
        "SELECT name, value FROM about WHERE name >= ?1 AND name < ?1 || char(0x10FFFF)", (_PREFIX,)
    ).fetchall()
    found = {}
    for name, value in rows:
        source = name.removeprefix(_PREFIX)
        count, message, earlier = json.loads(value)
        first = Conflict(source=source, message_id=message, earlier_id=earlier)
        found[source] = StandingConflicts(count=count, first=first)
    return found


def forget_conflicts(connection: apsw.Connection, source: str) -> None:
    """A person has seen those of a Source."""
    connection.execute("DELETE FROM about WHERE name = ?", (_PREFIX + source,))
