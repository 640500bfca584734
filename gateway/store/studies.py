"""The progress of studies: followed from the Messages, completed by MPPS, commitment request or age, then owed.

Nothing is written while an Instance is received: a round reads what came since the last one and writes a row a study.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from gateway.clock import from_micros, to_micros
from gateway.store.indexing import FIND

MARK = "followed"
FOLLOW_ROWS_MAX = 2_000  # Messages looked at in one piece
OPEN_MAX = 1_000  # studies looked at in one round
OWE_ROWS_MAX = 200  # Messages made owed in one piece
REMOVED_MAX = 1_000

_COLUMNS = (
    "s.id, s.uid, e.name, s.accession, s.instances, s.first_at, s.last_at, s.last_message, s.completed_at, s.cause,"
    " s.owed_until, s.disagreements"
)
_FROM = "FROM study_progress s JOIN endpoint e ON e.id = s.source"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInstance:
    """An Instance that came since the last round, with what routing knows of its header."""

    message_id: int
    source_id: int
    source: str
    received_at: datetime
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyProgress:
    """How far a study of one Source has come; `disagreements` are the keywords that differ from the worklist."""

    id: int
    study_instance_uid: str
    source: str
    accession_number: str
    instances: int
    first_at: datetime
    last_at: datetime
    last_message: int
    completed_at: datetime | None
    cause: str | None
    owed_until: int
    disagreements: tuple[str, ...]


def followed_until(connection: apsw.Connection) -> int:
    """Return the number of the last Message that was followed before the last stop."""
    return int(_value(connection, "SELECT value FROM about WHERE name = ?", MARK) or 0)


def read_new_instances(connection: apsw.Connection, mark: int) -> tuple[int, list[NewInstance]]:
    """Return how far a round may go, and the Instances that came beyond `mark`; a bounded piece."""
    newest = int(_value(connection, "SELECT coalesce(max(id), 0) FROM message"))
    until = max(mark, min(newest, mark + FOLLOW_ROWS_MAX))
    rows: list[Any] = connection.execute(
        "SELECT m.id, m.source, e.name, m.received_at, m.headers FROM message m JOIN endpoint e ON e.id = m.source"
        " WHERE m.id > ? AND m.id <= ? AND m.kind = 'dicom' ORDER BY m.id",
        (mark, until),
    ).fetchall()
    found = [
        NewInstance(
            message_id=number,
            source_id=source,
            source=name,
            received_at=from_micros(at),
            headers=json.loads(headers) if headers else {},
        )
        for number, source, name, at, headers in rows
    ]
    return until, found


def follow(
    connection: apsw.Connection,
    until: int,
    instances: Sequence[NewInstance],
    disagreements: dict[tuple[str, str], frozenset[str]],
) -> None:
    """Add Instances to their studies; `disagreements` by Source and Study Instance UID.

    A complete study to which something is added is open again.
    """
    studies: dict[tuple[str, int], list[NewInstance]] = {}
    for each in instances:
        if study := each.headers.get("StudyInstanceUID"):
            studies.setdefault((study, each.source_id), []).append(each)
    for (study, source), news in studies.items():
        _grow(connection, study, source, news)
    for (name, study), keywords in disagreements.items():
        _disagree(connection, name, study, keywords)
    connection.execute("INSERT OR REPLACE INTO about (name, value) VALUES (?, ?)", (MARK, str(until)))


def _grow(connection: apsw.Connection, study: str, source: int, news: Sequence[NewInstance]) -> None:
    times = [to_micros(each.received_at) for each in news]
    accession = next((text for each in news if (text := each.headers.get("AccessionNumber"))), "")
    connection.execute(
        "INSERT INTO study_progress (uid, source, accession, instances, first_at, last_at, last_message)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (uid, source) DO UPDATE SET"
        " instances = instances + excluded.instances, last_at = max(last_at, excluded.last_at),"
        " last_message = excluded.last_message, completed_at = NULL, cause = NULL,"
        " accession = iif(accession = '', excluded.accession, accession)",
        (study, source, accession, len(news), min(times), max(times), news[-1].message_id),
    )


def open_studies(connection: apsw.Connection) -> list[StudyProgress]:
    """Return studies that are not complete, the longest unchanged first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE s.completed_at IS NULL ORDER BY s.last_at LIMIT {OPEN_MAX}"
    ).fetchall()
    return [_progress(row) for row in rows]


def owing_studies(connection: apsw.Connection) -> list[StudyProgress]:
    """Return complete studies of which Instances are still to be made owed."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE s.completed_at IS NOT NULL AND s.owed_until < s.last_message LIMIT {OPEN_MAX}"
    ).fetchall()
    return [_progress(row) for row in rows]


def read_studies(connection: apsw.Connection, limit: int, *, disagreeing: bool = False) -> list[StudyProgress]:
    """Return studies, the one that changed last first."""
    where = "WHERE s.disagreements IS NOT NULL" if disagreeing else ""
    rows = connection.execute(f"SELECT {_COLUMNS} {_FROM} {where} ORDER BY s.last_at DESC LIMIT ?", (limit,)).fetchall()
    return [_progress(row) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCount:
    """What is held of a study, and where its Deliveries stand."""

    held: int
    pending: int
    delivered: int
    parked: int


def count_studies(connection: apsw.Connection, studies: Iterable[StudyProgress]) -> dict[int, StudyCount]:
    """Return by number of the study what is held of it and owed."""
    return {study.id: _count(connection, study) for study in studies}


def sources_disagreeing(connection: apsw.Connection) -> dict[str, int]:
    """Return by Source how many studies differ from the worklist."""
    rows: list[Any] = connection.execute(
        f"SELECT e.name, count(*) {_FROM} WHERE s.disagreements IS NOT NULL GROUP BY e.name"
    ).fetchall()
    return dict(rows)


def complete(connection: apsw.Connection, studies: Iterable[StudyProgress], cause: str, at: datetime) -> list[int]:
    """Mark studies complete, unless they have grown since they were read; return the numbers of those that were."""
    done = []
    for study in studies:
        connection.execute(
            "UPDATE study_progress SET completed_at = ?, cause = ?"
            " WHERE id = ? AND completed_at IS NULL AND last_message = ?",
            (to_micros(at), cause, study.id, study.last_message),
        )
        if connection.changes():
            done.append(study.id)
    return done


def studies_named(connection: apsw.Connection, uids: Iterable[str]) -> list[StudyProgress]:
    """Return the open studies with these Study Instance UIDs."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE s.completed_at IS NULL AND s.uid IN (SELECT value FROM json_each(?))",
        (json.dumps(list(uids)),),
    ).fetchall()
    return [_progress(row) for row in rows]


def messages_of_study(connection: apsw.Connection, study: StudyProgress, after: int) -> list[int]:
    """Return the numbers of the next Messages of a study beyond `after`, in order, a bounded piece."""
    rows: list[Any] = connection.execute(
        f"SELECT m.id FROM message m JOIN endpoint e ON e.id = m.source WHERE m.id IN ({FIND}) AND m.id > ?"
        " AND m.id <= ? AND m.kind = 'dicom' AND m.quarantined IS NULL AND e.name = ? ORDER BY m.id LIMIT ?",
        (*[study.study_instance_uid] * 3, after, study.last_message, study.source, OWE_ROWS_MAX),
    ).fetchall()
    return [number for (number,) in rows]


def not_owed(connection: apsw.Connection, message: int, destinations: Sequence[str]) -> tuple[str, ...]:
    """Return those Destinations to which a Message has no Delivery."""
    rows: list[Any] = connection.execute(
        "SELECT e.name FROM delivery d JOIN endpoint e ON e.id = d.destination WHERE d.message = ?", (message,)
    ).fetchall()
    owed = {name for (name,) in rows}
    return tuple(name for name in destinations if name not in owed)


def mark_owed(connection: apsw.Connection, study: int, until: int) -> None:
    """Note that Deliveries have been made for the Messages of a study up to a number."""
    connection.execute("UPDATE study_progress SET owed_until = max(owed_until, ?) WHERE id = ?", (until, study))


def oldest_waiting(connection: apsw.Connection) -> int | None:
    """Return when the oldest study that is not complete and owed in full began, in microseconds since 1970."""
    at = _value(
        connection,
        "SELECT min(first_at) FROM study_progress WHERE completed_at IS NULL OR owed_until < last_message",
    )
    return None if at is None else int(at)


def remove_studies(connection: apsw.Connection, before_micros: int) -> int:
    """Remove the oldest studies that are complete, owed in full and unchanged since an instant; return how many."""
    connection.execute(
        "DELETE FROM study_progress WHERE id IN (SELECT id FROM study_progress WHERE last_at < ?"
        f" AND completed_at IS NOT NULL AND owed_until >= last_message LIMIT {REMOVED_MAX})",
        (before_micros,),
    )
    return connection.changes()


def _count(connection: apsw.Connection, study: StudyProgress) -> StudyCount:
    mine = (
        f"SELECT m.id FROM message m JOIN endpoint e ON e.id = m.source WHERE m.id IN ({FIND})"
        " AND m.kind = 'dicom' AND m.object IS NOT NULL AND e.name = ?"
    )
    values = (*[study.study_instance_uid] * 3, study.source)
    held = _value(connection, f"SELECT count(*) FROM ({mine})", *values)
    rows: list[Any] = connection.execute(
        f"SELECT d.state, count(*) FROM delivery d WHERE d.message IN ({mine}) GROUP BY d.state", values
    ).fetchall()
    states = dict(rows)
    return StudyCount(held=held, pending=states.get(0, 0), delivered=states.get(1, 0), parked=states.get(2, 0))


def _disagree(connection: apsw.Connection, source: str, study: str, keywords: frozenset[str]) -> None:
    where = "WHERE uid = ? AND source = (SELECT id FROM endpoint WHERE role = 'source' AND name = ?)"
    standing = _value(connection, f"SELECT disagreements FROM study_progress {where}", study, source)
    known = sorted(keywords | set(json.loads(standing) if standing else ()))
    connection.execute(f"UPDATE study_progress SET disagreements = ? {where}", (json.dumps(known), study, source))


def _value(connection: apsw.Connection, statement: str, *values: Any) -> Any:
    return connection.execute(statement, values).get


def _progress(row: Any) -> StudyProgress:
    number, uid, source, accession, instances, first, last, message, completed, cause, owed, disagreements = row
    return StudyProgress(
        id=number,
        study_instance_uid=uid,
        source=source,
        accession_number=accession,
        instances=instances,
        first_at=from_micros(first),
        last_at=from_micros(last),
        last_message=message,
        completed_at=None if completed is None else from_micros(completed),
        cause=cause,
        owed_until=owed,
        disagreements=tuple(json.loads(disagreements)) if disagreements else (),
    )
