"""Reading the worklist: short, read-only, bounded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from gateway.clock import from_micros
from gateway.dataset import Attributes
from gateway.formats.dataset_json import from_json
from gateway.orders import WorklistItem
from gateway.store.worklist import ITEM_COLUMNS, item_of

ITEMS_A_STATEMENT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An order that became no item, or something that was left out of one."""

    id: int
    at: datetime
    source: str
    message_id: int | None
    accession: str
    step_id: str
    became_item: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptQuery:
    """What a Modality asked; `excluded` names by `accession/step` the keys that left a step out."""

    id: int
    at: datetime
    source: str
    calling: str
    called: str
    host: str
    keys: Attributes
    looked_at: int
    answered: int
    status: int
    excluded: dict[str, tuple[str, ...]]


def open_versions(connection: apsw.Connection) -> list[tuple[int, int]]:
    """Return id and version of every step that a Modality may see, in the order of their start."""
    rows: list[Any] = connection.execute(
        "SELECT id, version FROM worklist WHERE open = 1 ORDER BY starts, id"
    ).fetchall()
    return [(number, version) for number, version in rows]


def items_by_id(connection: apsw.Connection, ids: Sequence[int]) -> dict[int, WorklistItem]:
    """Return items by their number."""
    found: dict[int, WorklistItem] = {}
    for start in range(0, len(ids), ITEMS_A_STATEMENT):
        some = ids[start : start + ITEMS_A_STATEMENT]
        marks = ",".join("?" * len(some))
        rows: list[Any] = connection.execute(
            f"SELECT {ITEM_COLUMNS} FROM worklist WHERE id IN ({marks})", tuple(some)
        ).fetchall()
        found |= {row[0]: item_of(row) for row in rows}
    return found


def read_items(connection: apsw.Connection, *, everything: bool = False, limit: int = 10_000) -> list[WorklistItem]:
    """Return steps in the order of their start: those that a Modality may see, or all."""
    clause = "" if everything else "WHERE open = 1"
    rows: list[Any] = connection.execute(
        f"SELECT {ITEM_COLUMNS} FROM worklist {clause} ORDER BY starts, id LIMIT ?", (limit,)
    ).fetchall()
    return [item_of(row) for row in rows]


def read_problems(connection: apsw.Connection, limit: int) -> list[Problem]:
    """Return what was told of orders, newest first."""
    rows: list[Any] = connection.execute(
        "SELECT id, at, source, message, accession, step, became_item, reason FROM worklist_problem"
        " ORDER BY id DESC LIMIT ?",
        (limit,),
    ).fetchall()
    return [
        Problem(
            id=number,
            at=from_micros(at),
            source=source,
            message_id=message,
            accession=accession,
            step_id=step,
            became_item=bool(became_item),
            reason=reason,
        )
        for number, at, source, message, accession, step, became_item, reason in rows
    ]


def read_queries(connection: apsw.Connection, limit: int, calling: str | None = None) -> list[KeptQuery]:
    """Return what Modalities asked, newest first; of one AE title where it is given."""
    rows: list[Any] = connection.execute(
        "SELECT id, at, source, calling, called, host, keys, looked_at, answered, status, excluded"
        " FROM worklist_query WHERE ?1 IS NULL OR calling = ?1 ORDER BY id DESC LIMIT ?2",
        (calling, limit),
    ).fetchall()
    return [
        KeptQuery(
            id=row[0],
            at=from_micros(row[1]),
            source=row[2],
            calling=row[3],
            called=row[4],
            host=row[5],
            keys=from_json(row[6]),
            looked_at=row[7],
            answered=row[8],
            status=row[9],
            excluded={item: tuple(names) for item, names in json.loads(row[10]).items()},
        )
        for row in rows
    ]
