"""Settling Deliveries, and what operators do to them.

A Delivery leaves `pending` by a Receipt (delivered, parked) or by a person (discarded), and comes back by a person
(`retry`). Every try and every act is an Attempt row; every act of a person is an audit row.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import apsw

from gateway.clock import to_micros
from gateway.errors import StoreError
from gateway.model import DeliveryState, Receipt
from gateway.store.archive import note_delivered
from gateway.store.counters import STATE_NAMES
from gateway.store.keeping import ROWS_A_STATEMENT, slot_of
from gateway.store.ledger import Ledger
from gateway.store.studies import StudyProgress, mark_owed
from gateway.store.writer import Batch, Unit

_INSERT_ATTEMPT = "INSERT OR REPLACE INTO attempt (delivery, number, at, verdict, reason, acknowledgement) VALUES "


@dataclass(slots=True)
class Settle:
    """One Receipt and the state that delivery decided on; `next_try_at` for those that stay pending."""

    destination: str
    receipt: Receipt
    attempt: int
    state: DeliveryState
    at: datetime
    batch: Batch
    next_try_at: datetime | None = None
    settled: Callable[[Exception | None], None] | None = None
    size: int = 256

    def settle(self, error: Exception | None) -> None:
        """Tell delivery, where it asked."""
        if self.settled is not None:
            self.settled(error)


class Settling:
    """The writer's batch for Settle units."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def run(self, connection: apsw.Connection, units: list[Unit]) -> None:
        """Write states, Attempts and counters of all units."""
        settles = [unit for unit in units if isinstance(unit, Settle)]
        for start in range(0, len(settles), ROWS_A_STATEMENT):
            self._settle(connection, settles[start : start + ROWS_A_STATEMENT])
        self._ledger.counters.write(connection)

    def _settle(self, connection: apsw.Connection, settles: list[Settle]) -> None:
        groups: dict[tuple[str, DeliveryState], list[Settle]] = {}
        for settle in settles:
            groups.setdefault((settle.destination, settle.state), []).append(settle)
        for (destination, state), group in groups.items():
            if state is DeliveryState.PENDING:
                self._postpone(connection, group)
            else:
                self._close(connection, destination, state, group)
        _insert_attempts(connection, settles)

    def _postpone(self, connection: apsw.Connection, group: list[Settle]) -> None:
        for settle in group:
            next_try = 0 if settle.next_try_at is None else to_micros(settle.next_try_at)
            connection.execute(
                "UPDATE delivery SET attempts = ?, next_try_at = ? WHERE id = ? AND state = 0",
                (settle.attempt, next_try, settle.receipt.delivery_id),
            )

    def _close(self, connection: apsw.Connection, destination: str, state: DeliveryState, group: list[Settle]) -> None:
        marks = ",".join("?" * len(group))
        ids = [settle.receipt.delivery_id for settle in group]
        connection.execute(
            "UPDATE delivery SET state = ?, attempts = attempts + 1, settled_at = ?, next_try_at = 0"
            f" WHERE id IN ({marks}) AND state = 0",
            [state.value, to_micros(group[-1].at), *ids],
        )
        number = self._ledger.id_of(connection, "destination", destination)
        self._ledger.counters.add(number, "pending", -connection.changes())
        self._ledger.counters.add(number, STATE_NAMES[state], connection.changes())
        named = ((each.receipt.delivery_id, each.receipt.archived, each.at) for each in group)
        archived = [(delivery, names, at) for delivery, names, at in named if names is not None]
        if archived and state is DeliveryState.DELIVERED:
            note_delivered(connection, archived, number)


class Acts:
    """What operators do; each method is work for `Writer.call`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def retry(self, connection: apsw.Connection, ids: Sequence[int], who: str, at: datetime) -> int:
        """Make parked Deliveries pending, and pending ones due now; return how many changed.

        Raises StoreError for a number that is neither.
        """
        states = self._expect_all(connection, ids)
        for number, state in states.items():
            connection.execute("UPDATE delivery SET next_try_at = 0 WHERE id = ?", (number,))
            if state is not DeliveryState.PENDING:
                self._move(connection, number, state, DeliveryState.PENDING)
        self._audit(connection, at, who, "retry", f"deliveries {_listed(ids)}")
        return len(states)

    def discard(self, connection: apsw.Connection, ids: Sequence[int], why: str, who: str, at: datetime) -> int:
        """Give Deliveries up for good; return how many. Raises StoreError for one that is settled already."""
        states = self._expect_all(connection, ids)
        for number, state in states.items():
            self._move(connection, number, state, DeliveryState.DISCARDED)
            connection.execute("UPDATE delivery SET settled_at = ? WHERE id = ?", (to_micros(at), number))
            self._note(connection, number, at, "discarded", why)
        self._audit(connection, at, who, "discard", f"deliveries {_listed(ids)}: {why}")
        return len(states)

    def resend(self, connection: apsw.Connection, message: int, destination: str, who: str, at: datetime) -> int:
        """Owe a Message once more to one Destination; return the new Delivery's number.

        Raises StoreError when there is no such Message.
        """
        kind = connection.execute("SELECT kind FROM message WHERE id = ?", (message,)).get
        if kind is None:
            raise StoreError(f"there is no message {message}")
        endpoint = self._ledger.id_of(connection, "destination", destination)
        ordinal = self._ledger.counters.add(endpoint, f"owed:{kind}")
        self._ledger.counters.add(endpoint, "pending")
        number = self._ledger.take_delivery_id()
        connection.execute(
            "INSERT INTO delivery (id, message, destination, ordinal, slot) VALUES (?1, ?2, ?3, ?4,"
            " coalesce((SELECT slot FROM delivery WHERE message = ?2 LIMIT 1), 0))",
            (number, message, endpoint, ordinal),
        )
        self._audit(connection, at, who, "resend", f"message {message} to {destination} as delivery {number}")
        return number

    def owe(
        self,
        connection: apsw.Connection,
        message: int,
        destinations: Sequence[str],
        lane_key: str,
        *,
        urgent: bool = False,
    ) -> int:
        """Owe a Message to Destinations that it is not owed to yet; return how many.

        What waits for something else than its own coming (a complete study) is owed by this.
        """
        number_of = self._ledger.id_of
        owed = 0
        for name in destinations:
            endpoint = number_of(connection, "destination", name)
            standing = "SELECT 1 FROM delivery WHERE message = ? AND destination = ?"
            if connection.execute(standing, (message, endpoint)).get is not None:
                continue
            kind = connection.execute("SELECT kind FROM message WHERE id = ?", (message,)).get
            if kind is None:
                return owed
            ordinal = self._ledger.counters.add(endpoint, f"owed:{kind}")
            self._ledger.counters.add(endpoint, "pending")
            connection.execute(
                "INSERT INTO delivery (id, message, destination, ordinal, slot, priority) VALUES (?, ?, ?, ?, ?, ?)",
                (self._ledger.take_delivery_id(), message, endpoint, ordinal, slot_of(lane_key), int(urgent)),
            )
            owed += 1
        self._ledger.counters.write(connection)
        return owed

    def owe_study(
        self,
        connection: apsw.Connection,
        study: StudyProgress,
        owing: Iterable[tuple[int, Sequence[str], bool]],
        until: int,
    ) -> None:
        """Owe Messages of a complete study (number, Destinations, whether urgent); note that it is done up to one."""
        for message, destinations, urgent in owing:
            self.owe(connection, message, destinations, study.study_instance_uid, urgent=urgent)
        mark_owed(connection, study.id, until)

    def record(self, connection: apsw.Connection, act: str, detail: str, who: str, at: datetime) -> None:
        """Write an act that changes no Delivery (a backup, an alarm seen) to the audit trail."""
        self._audit(connection, at, who, act, detail)

    def _expect_all(self, connection: apsw.Connection, ids: Sequence[int]) -> dict[int, DeliveryState]:
        """Return where each stands, before anything is changed. Raises StoreError for a settled or unknown one."""
        return {number: self._expect(connection, number) for number in ids}

    def _expect(self, connection: apsw.Connection, number: int) -> DeliveryState:
        value = connection.execute("SELECT state FROM delivery WHERE id = ?", (number,)).get
        if value is None:
            raise StoreError(f"there is no delivery {number}")
        state = DeliveryState(value)
        if state not in (DeliveryState.PARKED, DeliveryState.PENDING):
            raise StoreError(f"delivery {number} is {STATE_NAMES[state]}")
        return state

    def _move(self, connection: apsw.Connection, number: int, old: DeliveryState, new: DeliveryState) -> None:
        connection.execute("UPDATE delivery SET state = ? WHERE id = ?", (new.value, number))
        destination = connection.execute("SELECT destination FROM delivery WHERE id = ?", (number,)).get
        self._ledger.counters.add(destination, STATE_NAMES[old], -1)
        self._ledger.counters.add(destination, STATE_NAMES[new])

    def _note(self, connection: apsw.Connection, number: int, at: datetime, verdict: str, reason: str) -> None:
        """Add an Attempt row, and leave a number free before it: a try may be under way."""
        connection.execute(
            "INSERT INTO attempt (delivery, number, at, verdict, reason)"
            " SELECT ?1, coalesce(max(number), 0) + 2, ?2, ?3, ?4 FROM attempt WHERE delivery = ?1",
            (number, to_micros(at), verdict, reason),
        )

    def _audit(self, connection: apsw.Connection, at: datetime, who: str, act: str, detail: str) -> None:
        connection.execute(
            "INSERT INTO audit (at, who, act, detail) VALUES (?, ?, ?, ?)", (to_micros(at), who, act, detail)
        )
        self._ledger.counters.write(connection)


def _insert_attempts(connection: apsw.Connection, settles: list[Settle]) -> None:
    values: list[object] = []
    for settle in settles:
        receipt = settle.receipt
        verdict = "parked" if settle.state is DeliveryState.PARKED else receipt.verdict.value
        values += (receipt.delivery_id, settle.attempt, to_micros(settle.at), verdict)
        values += (receipt.reason, receipt.acknowledgement)
    connection.execute(_INSERT_ATTEMPT + ",".join(["(?,?,?,?,?,?)"] * len(settles)), values)


def _listed(ids: Sequence[int]) -> str:
    text = " ".join(str(number) for number in ids[:100])
    return text if len(ids) <= 100 else f"{text} and {len(ids) - 100} more"
