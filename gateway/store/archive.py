"""What archives have committed to: the state of each Instance that was delivered to one which is asked.

    delivered -> to be asked -> asked -> committed: retention may let go
                     ^            |---- no word in time: asked again
                     |            `---- denied: its Delivery is owed again, a limited number of times, then parked
                     `----------- delivered again

Each function is work for the writer or for a reader's connection.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import apsw

from gateway.clock import from_micros, to_micros
from gateway.model import DeliveryState
from gateway.store.counters import STATE_NAMES
from gateway.store.ledger import Ledger


class ArchivalState(Enum):
    """Where an Instance stands with an archive; the numbers are the store's."""

    WANTED = 0
    ASKED = 1
    COMMITTED = 2
    DENIED = 3
    WAIVED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Archival:
    """One Instance in an archive, as it was sent there; `asked` counts how often commitment was asked for."""

    delivery_id: int
    sop_class_uid: str
    sop_instance_uid: str
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a report changed: how many are committed, which Deliveries are owed again, which are parked, and where."""

    destination: str
    committed: int
    owed_again: tuple[int, ...]
    parked: tuple[int, ...]


def note_delivered(
    connection: apsw.Connection, delivered: Iterable[tuple[int, tuple[str, str], datetime]], destination: int
) -> None:
    """Write that Deliveries, each with SOP Class and Instance UID, are to be committed to.

    What was asked of an earlier copy is forgotten: a denial that is told once more says nothing of this one.
    """
    delivered = list(delivered)
    connection.executemany("DELETE FROM archival_request WHERE delivery = ?", [(number,) for number, _, _ in delivered])
    connection.executemany(
        "INSERT INTO archival (delivery, message, destination, sop_class, sop_instance, due_at)"
        " SELECT id, message, ?2, ?3, ?4, ?5 FROM delivery WHERE id = ?1"
        " ON CONFLICT (delivery) DO UPDATE SET state = 0, due_at = excluded.due_at, asked = 0,"
        " sop_class = excluded.sop_class, sop_instance = excluded.sop_instance WHERE state != 2",
        [(number, destination, *names, to_micros(at)) for number, names, at in delivered],
    )


def due_archivals(
    connection: apsw.Connection, destination: str, *, wanted_before: datetime, asked_before: datetime, limit: int
) -> list[Archival]:
    """Return what an archive is to be asked for, oldest first: delivered, or asked without an answer, before then."""
    rows: list[Any] = connection.execute(
        "SELECT delivery, sop_class, sop_instance, asked FROM archival"
        " WHERE destination = (SELECT id FROM endpoint WHERE role = 'destination' AND name = ?1)"
        " AND ((state = 0 AND due_at <= ?2) OR (state = 1 AND due_at <= ?3)) ORDER BY due_at, delivery LIMIT ?4",
        (destination, to_micros(wanted_before), to_micros(asked_before), limit),
    ).fetchall()
    return [
        Archival(delivery_id=number, sop_class_uid=sop_class, sop_instance_uid=sop_instance, asked=asked)
        for number, sop_class, sop_instance, asked in rows
    ]


def oldest_uncommitted(connection: apsw.Connection, destination: str) -> tuple[int, datetime | None]:
    """Return how many Instances an archive has not committed to, and since when the first of them waits."""
    row: Any = connection.execute(
        "SELECT count(*), min(d.settled_at) FROM archival a JOIN delivery d ON d.id = a.delivery WHERE a.destination ="
        " (SELECT id FROM endpoint WHERE role = 'destination' AND name = ?) AND a.state IN (0, 1)",
        (destination,),
    ).fetchone()
    return row[0], None if row[1] is None else from_micros(row[1])


def is_awaited(connection: apsw.Connection, destination: str) -> bool:
    """Return whether an Instance is kept until an archive commits to it."""
    found = connection.execute(
        "SELECT 1 FROM archival WHERE destination ="
        " (SELECT id FROM endpoint WHERE role = 'destination' AND name = ?) AND state IN (0, 1) LIMIT 1",
        (destination,),
    ).get
    return found is not None


def ask(connection: apsw.Connection, transaction_uid: str, deliveries: Sequence[int], again_at: datetime) -> None:
    """Write that commitment is being asked for, before it is: the report may be quicker than the answer."""
    connection.executemany(
        "INSERT INTO archival_request (transaction_uid, delivery) VALUES (?, ?)",
        [(transaction_uid, number) for number in deliveries],
    )
    connection.executemany(
        "UPDATE archival SET state = 1, asked = asked + 1, due_at = ? WHERE delivery = ? AND state IN (0, 1)",
        [(to_micros(again_at), number) for number in deliveries],
    )


def ask_again_at(connection: apsw.Connection, transaction_uid: str, at: datetime) -> None:
    """Write when to ask again: the archive did not take the request."""
    connection.execute(
        "UPDATE archival SET due_at = ? WHERE state = 1"
        " AND delivery IN (SELECT delivery FROM archival_request WHERE transaction_uid = ?)",
        (to_micros(at), transaction_uid),
    )


class Reports:
    """Takes what archives say; each method is work for `Writer.call`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def judge(
        self,
        connection: apsw.Connection,
        transaction_uid: str,
        committed: Sequence[str],
        failed: Mapping[str, int],
        attempts_max: Mapping[str, int],
        at: datetime,
    ) -> Judged | None:
        """Write a report: SOP Instance UIDs committed to, and Failure Reasons of others; None for one not asked for.

        `attempts_max` is, by Destination, after how many denials a Delivery is parked.
        """
        rows: list[Any] = connection.execute(
            "SELECT a.delivery, a.sop_instance, a.denied, a.state, e.name FROM archival_request r"
            " JOIN archival a ON a.delivery = r.delivery JOIN endpoint e ON e.id = a.destination"
            " WHERE r.transaction_uid = ?",
            (transaction_uid,),
        ).fetchall()
        if not rows:
            return None
        name = rows[0][4]
        taken = 0
        again: list[int] = []
        parked: list[int] = []
        sound = frozenset(committed) - failed.keys()
        for delivery, uid, denied, state, _ in rows:
            if state not in (ArchivalState.WANTED.value, ArchivalState.ASKED.value):
                continue
            if uid in sound:
                taken += 1
                connection.execute("UPDATE archival SET state = 2, reason = NULL WHERE delivery = ?", (delivery,))
            elif uid in failed:
                parks = denied + 1 >= attempts_max.get(name, 1)
                (parked if parks else again).append(delivery)
                self._deny(connection, delivery, failed[uid], at, parks=parks)
        self._ledger.counters.write(connection)
        return Judged(destination=name, committed=taken, owed_again=tuple(again), parked=tuple(parked))

    def waive(self, connection: apsw.Connection, destinations: Sequence[str]) -> int:
        """Ask these archives no more; return of how many Instances."""
        waived = 0
        for name in destinations:
            connection.execute(
                "UPDATE archival SET state = 4 WHERE state IN (0, 1) AND destination ="
                " (SELECT id FROM endpoint WHERE role = 'destination' AND name = ?)",
                (name,),
            )
            waived += connection.changes()
        return waived

    def _deny(self, connection: apsw.Connection, delivery: int, reason: int, at: datetime, *, parks: bool) -> None:
        """Owe a Delivery again, or park it."""
        connection.execute(
            "UPDATE archival SET state = 3, denied = denied + 1, reason = ? WHERE delivery = ?", (reason, delivery)
        )
        state = DeliveryState.PARKED if parks else DeliveryState.PENDING
        destination = connection.execute("SELECT destination FROM delivery WHERE id = ?", (delivery,)).get
        connection.execute(
            "UPDATE delivery SET state = ?, attempts = attempts + 1, next_try_at = 0, settled_at = 0"
            " WHERE id = ? AND state = 1",
            (state.value, delivery),
        )
        if connection.changes():
            self._ledger.counters.add(destination, STATE_NAMES[DeliveryState.DELIVERED], -1)
            self._ledger.counters.add(destination, STATE_NAMES[state])
        connection.execute(
            "INSERT INTO attempt (delivery, number, at, verdict, reason)"
            " SELECT ?1, coalesce(max(number), 0) + 1, ?2, ?3, ?4 FROM attempt WHERE delivery = ?1",
            (delivery, to_micros(at), "not-committed", f"the archive did not commit ({reason:04X})"),
        )


def states_of(connection: apsw.Connection, messages: Sequence[int]) -> dict[int, dict[str, ArchivalState]]:
    """Return, by Message and Destination, where Instances stand; those that are not asked for are left out."""
    found: dict[int, dict[str, ArchivalState]] = {}
    for message in messages:
        rows: list[Any] = connection.execute(
            "SELECT e.name, a.state FROM archival a JOIN endpoint e ON e.id = a.destination WHERE a.message = ?",
            (message,),
        ).fetchall()
        if rows:
            found[message] = {name: ArchivalState(state) for name, state in rows}
    return found


def remove_archivals(connection: apsw.Connection, messages: Sequence[int]) -> None:
    """Remove what is known of Messages that go."""
    marks = ",".join("?" * len(messages))
    which = f"(SELECT delivery FROM archival WHERE message IN ({marks}))"
    connection.execute(f"DELETE FROM archival_request WHERE delivery IN {which}", messages)
    connection.execute(f"DELETE FROM archival WHERE message IN ({marks})", messages)
