"""The worklist's rows: written in the transaction of the Message that changes them.

One row a scheduled step, keyed by accession number and step id. A message that names its step by neither is matched by
the order's numbers. What a Modality has reported (MPPS) is not taken back by an order that merely repeats itself. An
order that cannot become an item is listed with the reason, never refused.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import apsw

from gateway.clock import from_micros, to_micros
from gateway.dataset import Attributes, Element, item_at, overlaid, text_at
from gateway.formats.dataset_json import from_json, to_json
from gateway.formats.mpps import is_wrong_entry
from gateway.formats.worklist_tags import (
    ACCESSION,
    ISSUER,
    OTHER_IDS,
    PATIENT_ID,
    SEQUENCE,
    START_DATE,
    START_TIME,
    STATUS,
    STEP_ID,
    STUDY_UID,
    TYPE_OF_PATIENT_ID,
)
from gateway.orders import Action, OrderChange, PatientChange, ScheduledStep, StepChange, StepState, StepStatus
from gateway.orders import WorklistItem as Item

PROBLEMS_MAX = 1000
QUERIES_MAX = 1000
REMOVED_MAX = 1000

ITEM_COLUMNS = "id, version, source, message, accession, step, status, performed, changed_at, attributes"
_SHUT = json.dumps([status.value for status in StepStatus if not status.is_open])
_PERFORMED = {
    StepState.IN_PROGRESS: StepStatus.STARTED,
    StepState.COMPLETED: StepStatus.COMPLETED,
    StepState.DISCONTINUED: StepStatus.DISCONTINUED,
}


def apply_orders(connection: apsw.Connection, changes: Sequence[tuple[int, object]]) -> None:
    """Write what orders change."""
    for message, change in changes:
        assert isinstance(change, OrderChange)
        _apply_order(connection, message, change)


def apply_patients(connection: apsw.Connection, changes: Sequence[tuple[int, object]]) -> None:
    """Write new demographics and merges into the steps of the patients that they concern."""
    for message, change in changes:
        assert isinstance(change, PatientChange)
        if change.former_id:
            for item in _items_of_patient(connection, change.former_id, change.former_issuer):
                _write(connection, item.id, message, change.at, _moved(item.attributes, change), None)
        for item in _items_of_patient(connection, change.patient_id, change.issuer):
            _write(connection, item.id, message, change.at, overlaid(item.attributes, change.attributes), None)


def apply_performed(connection: apsw.Connection, changes: Sequence[tuple[int, object]]) -> None:
    """Move the scheduled steps on that a Modality reports to have performed, or back where it took the wrong one."""
    for _, change in changes:
        assert isinstance(change, StepChange)
        wrong = is_wrong_entry(change.step.attributes)
        status = StepStatus.SCHEDULED if wrong else _PERFORMED[change.step.state]
        for each in change.scheduled:
            item = find_item(connection, each)
            if item is not None and _moves(item, wrong=wrong):
                connection.execute(
                    "UPDATE worklist SET status = ?, performed = ?, open = ?, changed_at = ?, version = ? WHERE id = ?",
                    (
                        status.value,
                        not wrong,
                        status.is_open,
                        to_micros(change.at),
                        _next_version(connection),
                        item.id,
                    ),
                )


def _moves(item: Item, *, wrong: bool) -> bool:
    """Tell whether what a Modality says moves a step.

    One that is COMPLETED stays so although another performed step of it may have been discontinued. What was begun by
    mistake goes back, unless the order itself has said something since.
    """
    if wrong:
        return item.performed and item.status is StepStatus.STARTED
    return not (item.performed and item.status is StepStatus.COMPLETED)


def find_item(connection: apsw.Connection, step: ScheduledStep) -> Item | None:
    """Return the item that a performed step was scheduled as.

    By accession number and step id; else the only one of the study, with that step id where one is told, or of the
    accession number.
    """
    if step.accession_number and step.step_id:
        found = _items(connection, "accession = ? AND step = ?", (step.accession_number, step.step_id))
        if found:
            return found[0]
    for clause, value in (("study = ?", step.study_instance_uid), ("accession = ?", step.accession_number)):
        if value:
            found = _items(connection, clause, (value,))
            named = [item for item in found if item.step_id == step.step_id]
            if len(named or found) == 1:
                return (named or found)[0]
    return None


def put_upstream(connection: apsw.Connection, source: str, items: Iterable[Attributes], at: datetime) -> int:
    """Keep what an upstream worklist answered; return how many there are. Steps of other Sources are left to them."""
    count = 0
    for attributes in items:
        accession, step_id = _key(attributes)
        count += 1
        standing = _items(connection, "accession = ? AND step = ?", (accession, step_id))
        if not standing:
            _insert(connection, source, None, accession, step_id, "", "", _upstream_status(attributes), at, attributes)
        elif standing[0].source == source:
            item = standing[0]
            if item.attributes != attributes:
                _write(
                    connection, item.id, None, at, attributes, None if item.performed else _upstream_status(attributes)
                )
        connection.execute(
            "UPDATE worklist SET seen_at = ?, open = status NOT IN (SELECT value FROM json_each(?))"
            " WHERE accession = ? AND step = ? AND source = ?",
            (to_micros(at), _SHUT, accession, step_id, source),
        )
    return count


def drop_unseen(connection: apsw.Connection, source: str, before: datetime) -> int:
    """Remove an upstream worklist's steps that no poll since an instant has shown; return how many.

    Those that a Modality has begun are shown no more, but known: its images and the end of its work are still to come.
    """
    unseen = "source = ? AND seen_at IS NOT NULL AND seen_at < ?"
    connection.execute(f"UPDATE worklist SET open = 0 WHERE {unseen} AND performed", (source, to_micros(before)))
    connection.execute(f"DELETE FROM worklist WHERE {unseen} AND NOT performed", (source, to_micros(before)))
    return connection.changes()


def remove_old(connection: apsw.Connection, before: datetime) -> int:
    """Remove steps that neither begin nor have changed since an instant, at most REMOVED_MAX; return how many.

    A step begins in the hospital's time, so `before` must be in that, too.
    """
    connection.execute(
        "DELETE FROM worklist WHERE id IN"
        f" (SELECT id FROM worklist WHERE changed_at < ? AND starts < ? LIMIT {REMOVED_MAX})",
        (to_micros(before), f"{before:%Y%m%d}"),
    )
    return connection.changes()


def keep_query(
    connection: apsw.Connection,
    *,
    at: datetime,
    source: str,
    calling: str,
    called: str,
    host: str,
    keys: Attributes,
    looked_at: int,
    answered: int,
    status: int,
    excluded: dict[str, tuple[str, ...]],
) -> None:
    """Keep what a Modality asked and what left which step out; the oldest beyond QUERIES_MAX go."""
    connection.execute(
        "INSERT INTO worklist_query (at, source, calling, called, host, keys, looked_at, answered, status, excluded)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            to_micros(at),
            source,
            calling,
            called,
            host,
            to_json(keys),
            looked_at,
            answered,
            status,
            json.dumps(excluded, ensure_ascii=False),
        ),
    )
    connection.execute("DELETE FROM worklist_query WHERE id <= ?", (connection.last_insert_rowid() - QUERIES_MAX,))


def _apply_order(connection: apsw.Connection, message: int, change: OrderChange) -> None:
    for note in change.notes:
        _tell(connection, message, change, note, became_item=not change.lacking)
    standing = _find(connection, change)
    if change.action is Action.STATUS:
        for item in standing:
            _set_by_order(connection, item, message, change)
        if not standing:
            _tell(connection, message, change, "the order is not known: nothing to cancel or complete")
    elif standing:
        item = standing[0]
        is_whole = change.action is Action.CREATE and not change.lacking
        laid = change.attributes if is_whole else _laid(item.attributes, change)
        attributes = _with_study(connection, change, laid, item.attributes)
        _write(connection, item.id, message, change.at, attributes, _status_after(item, change), change)
    elif change.lacking:
        _tell(connection, message, change, f"no item: {', '.join(change.lacking)} is missing")
    else:
        status = change.status or StepStatus.SCHEDULED
        attributes = _with_study(connection, change, change.attributes, {})
        numbers = (change.accession, change.step_id, change.placer, change.filler)
        _insert(connection, change.source, message, *numbers, status, change.at, attributes)


def _find(connection: apsw.Connection, change: OrderChange) -> list[Item]:
    """Return the steps that a change means: by its own key, else by the order's numbers."""
    if change.accession and change.step_id:
        found = _items(connection, "accession = ? AND step = ?", (change.accession, change.step_id))
        if found:
            return found
    whole = change.action is Action.STATUS
    for column, value in (("filler", change.filler), ("placer", change.placer)):
        if not value:
            continue
        found = _items(connection, f"{column} = ?", (value,))
        if change.exact:
            found = [item for item in found if item.step_id == change.step_id]
        if found and (whole or len(found) == 1):
            return found
    if whole and change.accession and not change.exact:
        return _items(connection, "accession = ?", (change.accession,))
    return []


def _laid(standing: Attributes, change: OrderChange) -> dict[int, Element]:
    """Lay an update over what stands; ids that were only made of other numbers do not replace real ones."""
    said = dict(change.attributes)
    if not change.exact:
        step = {tag: element for tag, element in item_at(said, SEQUENCE).items() if tag != STEP_ID}
        said[SEQUENCE] = Element("SQ", items=(step,))
        said.pop(ACCESSION, None)
    return overlaid(standing, said)


def _with_study(
    connection: apsw.Connection, change: OrderChange, attributes: Attributes, standing: Attributes
) -> dict[int, Element]:
    """Give a step its Study Instance UID: the order's, the one it had, its accession number's, or a made one."""
    if text_at(attributes, STUDY_UID):
        return dict(attributes)
    study = text_at(standing, STUDY_UID)
    accession = text_at(attributes, ACCESSION) or change.accession
    if not study:
        study = next(
            (text_at(item.attributes, STUDY_UID) for item in _items(connection, "accession = ?", (accession,))), ""
        )
    made = study or _made_study_uid(accession, change.source)
    return {**attributes, STUDY_UID: Element("UI", (made,))}


def _status_after(item: Item, change: OrderChange) -> StepStatus | None:
    """Return the status that an order sets, None where it leaves what stands: a Modality knows better."""
    if change.status is None or (item.performed and change.status is not StepStatus.CANCELED):
        return None
    return change.status


def _set_by_order(connection: apsw.Connection, item: Item, message: int, change: OrderChange) -> None:
    """Cancel, discontinue, complete or hold; what was done stays done."""
    if change.status is None or item.status is StepStatus.COMPLETED:
        return
    connection.execute(
        "UPDATE worklist SET status = ?, open = ?, message = ?, changed_at = ?, version = ? WHERE id = ?",
        (change.status.value, change.status.is_open, message, to_micros(change.at), _next_version(connection), item.id),
    )


def _moved(standing: Attributes, change: PatientChange) -> dict[int, Element]:
    """Return a step's attributes with the surviving patient; the former id stays as another one."""
    others = standing.get(OTHER_IDS)
    former = {PATIENT_ID: Element("LO", (change.former_id,)), TYPE_OF_PATIENT_ID: Element("CS", ("TEXT",))}
    if issuer := change.former_issuer or text_at(standing, ISSUER):
        former[ISSUER] = Element("LO", (issuer,))
    identity = {PATIENT_ID: Element("LO", (change.patient_id,))}
    if change.issuer:
        identity[ISSUER] = Element("LO", (change.issuer,))
    ids = Element("SQ", items=(*(others.items if others is not None else ()), former))
    return {**overlaid(standing, {**change.attributes, **identity}), OTHER_IDS: ids}


def _items_of_patient(connection: apsw.Connection, identity: str, issuer: str) -> list[Item]:
    clause = "patient = ?1 AND (issuer = ?2 OR issuer = '' OR ?2 = '')"
    return _items(connection, clause, (identity, issuer))


def _items(connection: apsw.Connection, clause: str, values: Sequence[object]) -> list[Item]:
    rows = connection.execute(
        f"SELECT {ITEM_COLUMNS} FROM worklist WHERE {clause} ORDER BY id", tuple(values)
    ).fetchall()
    return [item_of(row) for row in rows]


def item_of(row: Any) -> Item:
    """Return the item of a row with the columns ITEM_COLUMNS."""
    number, version, source, message, accession, step, status, performed, changed_at, attributes = row
    return Item(
        id=number,
        version=version,
        source=source,
        message_id=message,
        accession=accession,
        step_id=step,
        status=StepStatus(status),
        performed=bool(performed),
        changed_at=from_micros(changed_at),
        attributes=from_json(attributes),
    )


def _insert(
    connection: apsw.Connection,
    source: str,
    message: int | None,
    accession: str,
    step_id: str,
    placer: str,
    filler: str,
    status: StepStatus,
    at: datetime,
    attributes: Attributes,
) -> None:
    connection.execute(
        "INSERT INTO worklist (version, source, message, accession, step, placer, filler, patient, issuer, study,"
        " starts, status, open, changed_at, attributes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            _next_version(connection),
            source,
            message,
            accession,
            step_id,
            placer,
            filler,
            *_found_by(attributes),
            status.value,
            status.is_open,
            to_micros(at),
            to_json(attributes),
        ),
    )


def _write(
    connection: apsw.Connection,
    number: int,
    message: int | None,
    at: datetime,
    attributes: Attributes,
    status: StepStatus | None,
    change: OrderChange | None = None,
) -> None:
    """Write a step's new attributes, with a new status where one is given, and the keys that a change may renew."""
    accession, step_id = _key(attributes)
    placer, filler = (change.placer, change.filler) if change is not None else ("", "")
    connection.execute(
        "UPDATE OR REPLACE worklist SET accession = ?, step = ?, patient = ?, issuer = ?, study = ?, starts = ?,"
        " attributes = ?, changed_at = ?, version = ?, message = coalesce(?, message),"
        " placer = coalesce(nullif(?, ''), placer), filler = coalesce(nullif(?, ''), filler),"
        " source = coalesce(?, source), status = coalesce(?, status), open = coalesce(?, open) WHERE id = ?",
        (
            accession,
            step_id,
            *_found_by(attributes),
            to_json(attributes),
            to_micros(at),
            _next_version(connection),
            message,
            placer,
            filler,
            None if change is None else change.source,
            None if status is None else status.value,
            None if status is None else status.is_open,
            number,
        ),
    )


def _key(attributes: Attributes) -> tuple[str, str]:
    """Return the key of a step; an upstream worklist may have no accession number, but then it has a study."""
    return text_at(attributes, ACCESSION) or text_at(attributes, STUDY_UID), text_at(attributes, SEQUENCE, STEP_ID)


def _found_by(attributes: Attributes) -> tuple[str, str, str, str]:
    """Return patient, issuer, study and start of a step: what it is found by beside its key."""
    starts = text_at(attributes, SEQUENCE, START_DATE) + text_at(attributes, SEQUENCE, START_TIME)[:6]
    return text_at(attributes, PATIENT_ID), text_at(attributes, ISSUER), text_at(attributes, STUDY_UID), starts


def _made_study_uid(accession: str, source: str) -> str:
    """Return a Study Instance UID for an order that brings none: the same for every step of an accession number."""
    return f"2.25.{uuid5(NAMESPACE_OID, f'study {source} {accession}').int}"


def _upstream_status(attributes: Attributes) -> StepStatus:
    try:
        return StepStatus(text_at(attributes, SEQUENCE, STATUS))
    except ValueError:
        return StepStatus.SCHEDULED


def _next_version(connection: apsw.Connection) -> int:
    found: Any = connection.execute("SELECT coalesce(max(version), 0) + 1 FROM worklist").get
    return int(found)


def _tell(
    connection: apsw.Connection, message: int, change: OrderChange, reason: str, *, became_item: bool = False
) -> None:
    connection.execute(
        "INSERT INTO worklist_problem (at, source, message, accession, step, became_item, reason)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (to_micros(change.at), change.source, message, change.accession, change.step_id, became_item, reason),
    )
    connection.execute("DELETE FROM worklist_problem WHERE id <= ?", (connection.last_insert_rowid() - PROBLEMS_MAX,))
