"""Procedure steps: written in the transaction of the Message that brought them, read by study and by UID."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from gateway.clock import from_micros, to_micros
from gateway.formats.dataset_json import from_json, to_json
from gateway.orders import ProcedureStep, ScheduledStep, StepChange, StepState

REMOVED_MAX = 1000  # old steps removed in one go

_KEEP = (
    "INSERT INTO procedure_step (uid, state, changed_at, message, attributes) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (uid) DO UPDATE SET state = excluded.state, changed_at = excluded.changed_at,"
    " message = excluded.message, attributes = excluded.attributes WHERE state = 'IN PROGRESS' RETURNING id"
)
_STEP = "p.uid, p.state, p.attributes"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStep:
    """A step with when it last changed and what it answers to."""

    step: ProcedureStep
    changed_at: datetime
    scheduled: tuple[ScheduledStep, ...]


def keep_steps(connection: apsw.Connection, changes: Sequence[tuple[int, object]]) -> None:
    """Write steps as they stand after these changes; one that is over stays as it is."""
    for message, change in changes:
        assert isinstance(change, StepChange)
        step = change.step
        row: Any = connection.execute(
            _KEEP,
            (step.sop_instance_uid, step.state.value, to_micros(change.at), message, to_json(step.attributes)),
        ).get
        if row is None:
            continue
        connection.executemany(
            "INSERT OR IGNORE INTO procedure_step_scheduled (step, study, accession, scheduled, requested)"
            " VALUES (?, ?, ?, ?, ?)",
            [
                (row, each.study_instance_uid, each.accession_number, each.step_id, each.requested_procedure_id)
                for each in change.scheduled
            ],
        )


def find_step(connection: apsw.Connection, uid: str) -> ProcedureStep | None:
    """Return a step by its SOP Instance UID."""
    row = connection.execute(f"SELECT {_STEP} FROM procedure_step p WHERE p.uid = ?", (uid,)).fetchone()
    return None if row is None else _step(row)


def steps_of_study(connection: apsw.Connection, study: str) -> list[ProcedureStep]:
    """Return the steps that answer to a study, oldest first."""
    rows = connection.execute(
        f"SELECT {_STEP} FROM procedure_step p WHERE p.id IN"
        " (SELECT step FROM procedure_step_scheduled WHERE study = ?) ORDER BY p.id",
        (study,),
    ).fetchall()
    return [_step(row) for row in rows]


def read_steps(connection: apsw.Connection, limit: int) -> list[KeptStep]:
    """Return steps, the one that changed last first."""
    rows: list[Any] = connection.execute(
        f"SELECT {_STEP}, p.changed_at, p.id FROM procedure_step p ORDER BY p.changed_at DESC LIMIT ?", (limit,)
    ).fetchall()
    return [
        KeptStep(step=_step(row[:3]), changed_at=from_micros(row[3]), scheduled=_scheduled(connection, row[4]))
        for row in rows
    ]


def order_numbers(connection: apsw.Connection, item: int) -> tuple[str, str]:
    """Return placer and filler order number of a worklist item, each with its namespace: `P55210^OP`."""
    row: Any = connection.execute("SELECT placer, filler FROM worklist WHERE id = ?", (item,)).fetchone()
    return ("", "") if row is None else (row[0], row[1])


def remove_steps(connection: apsw.Connection, before_micros: int) -> int:
    """Remove the oldest steps that last changed before an instant; return how many."""
    chosen = f"SELECT id FROM procedure_step WHERE changed_at < ? ORDER BY changed_at LIMIT {REMOVED_MAX}"
    connection.execute(f"DELETE FROM procedure_step_scheduled WHERE step IN ({chosen})", (before_micros,))
    connection.execute(f"DELETE FROM procedure_step WHERE id IN ({chosen})", (before_micros,))
    return connection.changes()


def _scheduled(connection: apsw.Connection, step: int) -> tuple[ScheduledStep, ...]:
    rows = connection.execute(
        "SELECT study, accession, scheduled, requested FROM procedure_step_scheduled WHERE step = ?", (step,)
    )
    return tuple(
        ScheduledStep(
            study_instance_uid=study, accession_number=accession, step_id=scheduled, requested_procedure_id=asked
        )
        for study, accession, scheduled, asked in rows
    )


def _step(row: Any) -> ProcedureStep:
    uid, state, attributes = row
    return ProcedureStep(sop_instance_uid=uid, state=StepState(state), attributes=from_json(attributes))
