"""What the Spool holds, as Query/Retrieve sees it: patients, studies, series, Instances.

Nothing is written while an Instance is received: rows follow the Messages, in pieces. An Instance that was received
twice with different content has two rows; what is found and sent is the newer one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apsw

MARK = "queryable"
LOOK_MAX = 5000  # Messages looked at in one piece
PIECE_MAX = 500  # Instances among them
PAGE_ROWS = 200

LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unindexed:
    """An Instance of which nothing is known to Query/Retrieve yet; `headers` are what was read when it came."""

    message_id: int
    object_name: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHolding:
    """What was read of an Instance; the three texts are data sets as JSON."""

    message_id: int
    object_name: str
    sop_instance_uid: str
    sop_class_uid: str
    patient_id: str
    study_instance_uid: str
    study_date: str
    series_instance_uid: str
    modality: str
    study: str
    series: str
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """What the unique keys of a query say, for the index to use; () is no limit. Dates are inclusive, "" open."""

    patients: tuple[str, ...] = ()
    studies: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()
    date_low: str = ""
    date_high: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One row of an answer: the data sets (JSON) of its levels, top first, and its row number at its own level."""

    id: int
    levels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldObject:
    """One Instance to be sent: its row, its object in the Spool and its UIDs."""

    id: int
    object_name: str
    sop_instance_uid: str
    sop_class_uid: str


def indexed_until(connection: apsw.Connection) -> tuple[int, int]:
    """Return up to which Message the index goes, and the newest Message."""
    mark = _number(connection, f"SELECT CAST(value AS INTEGER) FROM about WHERE name = '{MARK}'")
    return mark, _number(connection, "SELECT coalesce(max(id), 0) FROM message")


def unindexed(connection: apsw.Connection, mark: int, goal: int) -> tuple[int, list[Unindexed]]:
    """Return how far a round from `mark` towards `goal` may go, and the Instances up to there; a bounded piece."""
    until = min(goal, mark + LOOK_MAX)
    rows: list[Any] = connection.execute(
        "SELECT id, object, headers FROM message WHERE id > ? AND id <= ? AND kind = 'dicom' AND quarantined IS NULL"
        " AND object IS NOT NULL ORDER BY id LIMIT ?",
        (mark, until, PIECE_MAX),
    ).fetchall()
    if len(rows) == PIECE_MAX:
        until = rows[-1][0]
    return until, [
        Unindexed(message_id=number, object_name=name, headers=json.loads(headers) if headers else {})
        for number, name, headers in rows
    ]


def add_holdings(connection: apsw.Connection, until: int, holdings: Sequence[NewHolding]) -> None:
    """Add Instances whose Messages still stand, and note how far the index goes."""
    for new in holdings:
        if connection.execute("SELECT 1 FROM message WHERE id = ?", (new.message_id,)).get is None:
            continue
        study = _row(
            connection,
            "INSERT INTO held_study (uid, patient, date, attributes) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (uid, patient) DO UPDATE SET date = iif(date = '', excluded.date, date) RETURNING id",
            (new.study_instance_uid, new.patient_id, new.study_date, new.study),
        )
        series = _row(
            connection,
            "INSERT INTO held_series (study, uid, modality, attributes) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (study, uid) DO UPDATE SET modality = modality RETURNING id",
            (study, new.series_instance_uid, new.modality, new.series),
        )
        connection.execute(
            "INSERT OR REPLACE INTO held_instance (message, series, object, uid, sop_class, attributes)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (new.message_id, series, new.object_name, new.sop_instance_uid, new.sop_class_uid, new.instance),
        )
    connection.execute(f"UPDATE about SET value = ? WHERE name = '{MARK}'", (str(until),))


def remove_holdings(connection: apsw.Connection, messages: Sequence[int]) -> None:
    """Forget Instances whose Messages are being removed, and the series and studies that are empty then."""
    ids = json.dumps(list(messages))
    among = "IN (SELECT value FROM json_each(?))"
    rows: list[Any] = connection.execute(
        f"SELECT DISTINCT i.series, s.study FROM held_instance i JOIN held_series s ON s.id = i.series"
        f" WHERE i.message {among}",
        (ids,),
    ).fetchall()
    if not rows:
        return
    connection.execute(f"DELETE FROM held_instance WHERE message {among}", (ids,))
    connection.execute(
        f"DELETE FROM held_series WHERE id {among} AND NOT EXISTS"
        " (SELECT 1 FROM held_instance i WHERE i.series = held_series.id)",
        (json.dumps([series for series, _ in rows]),),
    )
    connection.execute(
        f"DELETE FROM held_study WHERE id {among} AND NOT EXISTS"
        " (SELECT 1 FROM held_series s WHERE s.study = held_study.id)",
        (json.dumps([study for _, study in rows]),),
    )


def find_entities(connection: apsw.Connection, level: str, wanted: Narrowing, after: int) -> list[Entity]:
    """Return the next entities of a level beyond row `after`, in the order of their rows, a page."""
    where, values = _where(wanted, level)
    select, row = _SELECT[level]
    page = f" AND {row} > ?"
    if level == "PATIENT":
        page = " GROUP BY t.patient HAVING min(t.id) > ?"
    elif level == "IMAGE":
        page = f" AND {_NEWEST}{page}"
    rows: list[Any] = connection.execute(
        f"SELECT {select} WHERE {where}{page} ORDER BY 1 LIMIT {PAGE_ROWS}", (*values, after)
    ).fetchall()
    return [Entity(id=number, levels=tuple(texts)) for number, *texts in rows]


def counts_of(connection: apsw.Connection, level: str, entity: int) -> dict[str, tuple[str, ...]]:
    """Return what is counted below an entity, by the keyword of PS3.4, C.3.4."""
    match level:
        case "PATIENT":
            below = "t.patient = (SELECT patient FROM held_study WHERE id = ?)"
            names = ("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances")
        case "STUDY":
            below = "t.id = ?"
            names = ("", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
        case "SERIES":
            below = "s.id = ?"
            names = ("", "", "NumberOfSeriesRelatedInstances")
        case _:
            return {}
    row: Any = connection.execute(
        "SELECT count(DISTINCT t.id), count(DISTINCT s.id), count(DISTINCT i.uid),"
        " group_concat(DISTINCT s.modality), group_concat(DISTINCT i.sop_class) FROM held_study t"
        f" JOIN held_series s ON s.study = t.id JOIN held_instance i ON i.series = s.id WHERE {below}",
        (entity,),
    ).fetchone()
    *numbers, modalities, classes = row
    counted: dict[str, tuple[str, ...]] = {
        name: (str(number),) for name, number in zip(names, numbers, strict=True) if name
    }
    if level == "STUDY":
        counted["ModalitiesInStudy"] = tuple(sorted(part for part in (modalities or "").split(",") if part))
        counted["SOPClassesInStudy"] = tuple(sorted((classes or "").split(",")))
    return counted


def find_objects(connection: apsw.Connection, wanted: Narrowing, after: int) -> list[HeldObject]:
    """Return the next Instances beyond row `after` that unique keys name, as they came, the newest of each UID."""
    where, values = _where(wanted, "IMAGE")
    rows: list[Any] = connection.execute(
        f"SELECT i.message, i.object, i.uid, i.sop_class FROM {_INSTANCES} WHERE {where} AND i.message > ?"
        f" AND {_NEWEST} ORDER BY i.message LIMIT {PAGE_ROWS}",
        (*values, after),
    ).fetchall()
    return [
        HeldObject(id=number, object_name=name, sop_instance_uid=uid, sop_class_uid=sop_class)
        for number, name, uid, sop_class in rows
    ]


_INSTANCES = "held_instance i JOIN held_series s ON s.id = i.series JOIN held_study t ON t.id = s.study"
_NEWEST = "i.message = (SELECT max(o.message) FROM held_instance o WHERE o.uid = i.uid)"
_SELECT = {  # what is read of each level, and its row number
    "PATIENT": ("min(t.id), t.attributes FROM held_study t", "t.id"),
    "STUDY": ("t.id, t.attributes FROM held_study t", "t.id"),
    "SERIES": ("s.id, t.attributes, s.attributes FROM held_series s JOIN held_study t ON t.id = s.study", "s.id"),
    "IMAGE": (f"i.message, t.attributes, s.attributes, i.attributes FROM {_INSTANCES}", "i.message"),
}


def _where(wanted: Narrowing, level: str) -> tuple[str, list[object]]:
    """Return the conditions that a level knows, and their values."""
    among = "{} IN (SELECT value FROM json_each(?))"
    lists = [("t.patient", wanted.patients), ("t.uid", wanted.studies)]
    lists += [("s.uid", wanted.series)] if level in ("SERIES", "IMAGE") else []
    lists += [("i.uid", wanted.instances)] if level == "IMAGE" else []
    parts = [(among.format(column), json.dumps(names)) for column, names in lists if names]
    parts += [("t.date >= ?", wanted.date_low)] if wanted.date_low else []
    parts += [("t.date <= ?", wanted.date_high)] if wanted.date_high else []
    return " AND ".join(["1", *(text for text, _ in parts)]), [value for _, value in parts]


def _number(connection: apsw.Connection, statement: str) -> int:
    value: Any = connection.execute(statement).get
    return int(value)


def _row(connection: apsw.Connection, statement: str, values: tuple[object, ...]) -> int:
    value: Any = connection.execute(statement, values).get
    return int(value)
