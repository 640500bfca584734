"""Orders of the laboratory: written in the transaction of the Message that brought them, read by sample or patient.

An order that was cancelled is gone; one that nobody asked for in KEPT_DAYS is forgotten, a few with each new one.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import apsw

from gateway.clock import from_micros, to_micros
from gateway.laboratory import LabOrder, LabOrderChange, LabQuery

KEPT_DAYS = 14
FORGOTTEN_MAX = 20  # with each new order
SAMPLES_MAX = 50  # of one answer


def apply_lab_orders(connection: apsw.Connection, changes: Sequence[tuple[int, object]]) -> None:
    """Write orders, take cancelled ones away, and forget a few old ones."""
    for message, change in changes:
        assert isinstance(change, LabOrderChange)
        if change.cancelled:
            connection.execute(
                "DELETE FROM lab_order WHERE sample = ? AND test = ?", (change.order.sample_id, change.order.tests[0])
            )
        else:
            _keep(connection, message, change)


def orders_for(connection: apsw.Connection, query: LabQuery) -> tuple[LabOrder, ...]:
    """Return what is ordered for a sample, else for a patient: one LabOrder a sample, its tests as they were ordered.

    A query that names tests is answered with those alone.
    """
    if query.sample_id:
        where = "sample IN (SELECT sample FROM lab_sample WHERE number = ?)"
        asked = query.sample_id
    elif query.patient_id:
        where, asked = "patient = ?", query.patient_id
    else:
        return ()
    rows: list[Any] = connection.execute(
        "SELECT sample, test, patient, name, birth_date, sex, urgent, ordered_at FROM lab_order"
        f" WHERE {where} ORDER BY id LIMIT 1000",
        (asked,),
    ).fetchall()
    found: dict[str, LabOrder] = {}
    for sample, test, patient, name, birth_date, sex, urgent, at in rows:
        if query.tests and test not in query.tests:
            continue
        if sample not in found and len(found) == SAMPLES_MAX:
            break
        standing = found.get(sample)
        found[sample] = LabOrder(
            sample_id=query.sample_id or sample,
            tests=(*(standing.tests if standing else ()), test),
            patient_id=patient,
            name=name,
            birth_date=birth_date,
            sex=sex,
            urgent=bool(urgent) or (standing is not None and standing.urgent),
            ordered_at=from_micros(at),
        )
    return tuple(found.values())


def _keep(connection: apsw.Connection, message: int, change: LabOrderChange) -> None:
    order = change.order
    at = to_micros(order.ordered_at) if order.ordered_at is not None else 0
    connection.execute(
        "INSERT INTO lab_order (sample, test, patient, name, birth_date, sex, urgent, ordered_at, message)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sample, test) DO UPDATE SET patient = excluded.patient,"
        " name = excluded.name, birth_date = excluded.birth_date, sex = excluded.sex, urgent = excluded.urgent,"
        " ordered_at = excluded.ordered_at, message = excluded.message",
        (
            *(order.sample_id, order.tests[0], order.patient_id, order.name, order.birth_date, order.sex),
            *(order.urgent, at, message),
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO lab_sample (number, sample) VALUES (?, ?)",
        [(number, order.sample_id) for number in change.samples],
    )
    before = at - timedelta(days=KEPT_DAYS) // timedelta(microseconds=1)
    connection.execute(
        "DELETE FROM lab_order WHERE id IN (SELECT id FROM lab_order WHERE ordered_at < ? LIMIT ?)",
        (before, FORGOTTEN_MAX),
    )
    connection.execute(
        "DELETE FROM lab_sample WHERE (number, sample) IN (SELECT number, sample FROM lab_sample s WHERE NOT EXISTS"
        " (SELECT 1 FROM lab_order o WHERE o.sample = s.sample) LIMIT ?)",
        (FORGOTTEN_MAX,),
    )
