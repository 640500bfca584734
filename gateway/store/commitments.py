"""Storage commitment as SCP: requests, what became of each Instance, and which reports are due.

0 waiting for its Instances --decided--> 1 to be reported --0000--> 2 reported
                                                          --too long--> 3 given up
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import apsw

from gateway.clock import from_micros, to_micros
from gateway.errors import StoreError
from gateway.formats.commitment import Reference
from gateway.model import DeliveryState

OPEN_MAX = 10_000  # requests that wait; more are refused
REMOVED_MAX = 200
DUPLICATE_TRANSACTION = 0x0131  # Failure Reason
ARCHIVAL_COMMITTED = 2  # archival.state

_COLUMNS = "id, transaction_uid, source, calling, called, host, received_at, state, attempts, next_try_at, last_error"


class CommitmentState(Enum):
    """Where a request stands; the numbers are the store's."""

    WAITING = 0
    DECIDED = 1
    REPORTED = 2
    GIVEN_UP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCommitment:
    """A request as it came; `digest` is of its references, `due_at` when it is looked at first."""

    transaction_uid: str
    source: str
    calling: str
    called: str
    host: str
    digest: bytes
    received_at: datetime
    due_at: datetime
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """One request as it stands, without its Instances."""

    id: int
    transaction_uid: str
    source: str
    calling: str
    called: str
    host: str
    received_at: datetime
    state: CommitmentState
    attempts: int
    next_try_at: datetime
    last_error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldInstance:
    """A version of an Instance that the store has: its Message, the SOP Class it came as, its file and size."""

    message_id: int
    source: str
    sop_class_uid: str
    study_instance_uid: str
    object_name: str
    size: int


def keep_commitment(connection: apsw.Connection, new: NewCommitment) -> bool:
    """Keep a request; return False for a repeat of one that is open.

    One that takes the Transaction UID of another open request of the same peer is kept, and all of it is refused with
    0131. Raises StoreError when too many are open.
    """
    standing: Any = connection.execute(
        "SELECT digest FROM commitment WHERE transaction_uid = ? AND source = ? AND calling = ? AND state < 2",
        (new.transaction_uid, new.source, new.calling),
    ).fetchall()
    if any(bytes(digest) == new.digest for (digest,) in standing):
        return False
    opened: Any = connection.execute("SELECT count(*) FROM commitment WHERE state < 2").get
    if opened >= OPEN_MAX:
        raise StoreError(f"{OPEN_MAX} commitment requests are open")
    connection.execute(
        "INSERT INTO commitment"
        " (transaction_uid, source, calling, called, host, digest, received_at, state, next_try_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            new.transaction_uid,
            new.source,
            new.calling,
            new.called,
            new.host,
            new.digest,
            to_micros(new.received_at),
            CommitmentState.DECIDED.value if standing else CommitmentState.WAITING.value,
            to_micros(new.due_at),
        ),
    )
    number = connection.last_insert_rowid()
    reason = DUPLICATE_TRANSACTION if standing else None
    connection.executemany(
        "INSERT INTO commitment_instance VALUES (?, ?, ?, ?, ?)",
        [
            (number, ordinal, each.sop_class_uid, each.sop_instance_uid, reason)
            for ordinal, each in enumerate(new.references)
        ],
    )
    return True


def due_commitments(connection: apsw.Connection, now: datetime, limit: int) -> list[Commitment]:
    """Return open requests whose time has come, the longest due first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM commitment WHERE state < 2 AND next_try_at <= ? ORDER BY next_try_at, id LIMIT ?",
        (to_micros(now), limit),
    ).fetchall()
    return [_commitment(row) for row in rows]


def next_due(connection: apsw.Connection) -> datetime | None:
    """Return when the next open request is due, None when there is none."""
    at: Any = connection.execute("SELECT min(next_try_at) FROM commitment WHERE state < 2").get
    return None if at is None else from_micros(at)


def read_commitments(connection: apsw.Connection, limit: int) -> list[Commitment]:
    """Return requests, newest first."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM commitment ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
    return [_commitment(row) for row in rows]


def references_of(connection: apsw.Connection, commitment: int) -> list[tuple[Reference, int | None]]:
    """Return the Instances of a request with what became of each: None undecided, 0 committed, a Failure Reason."""
    rows: list[Any] = connection.execute(
        "SELECT sop_class, sop_instance, reason FROM commitment_instance WHERE commitment = ? ORDER BY ordinal",
        (commitment,),
    ).fetchall()
    return [(Reference(sop_class, sop_instance), reason) for sop_class, sop_instance, reason in rows]


def newest_held(connection: apsw.Connection, sop_instance_uids: Iterable[str]) -> dict[str, HeldInstance]:
    """Return the version of each Instance that came last, for those that are held."""
    rows: list[Any] = connection.execute(
        "SELECT m.identifier, max(m.id), e.name, json_extract(m.headers, '$.SOPClassUID'),"
        " json_extract(m.headers, '$.StudyInstanceUID'), m.object, m.size"
        " FROM json_each(?) j CROSS JOIN message m ON m.identifier = j.value JOIN endpoint e ON e.id = m.source"
        " WHERE m.kind = 'dicom' AND m.object IS NOT NULL GROUP BY m.identifier",
        (json.dumps(list(sop_instance_uids)),),
    ).fetchall()
    return {
        uid: HeldInstance(
            message_id=message,
            source=source,
            sop_class_uid=sop_class or "",
            study_instance_uid=study or "",
            object_name=name,
            size=size,
        )
        for uid, message, source, sop_class, study, name, size in rows
    }


def archive_states(
    connection: apsw.Connection, message: int, destinations: Sequence[str]
) -> list[tuple[DeliveryState, bool]]:
    """Return, of the Deliveries of a Message to these archives, the state and whether the archive has committed."""
    rows: list[Any] = connection.execute(
        "SELECT d.state, coalesce(a.state, 0) = ? FROM delivery d JOIN endpoint e ON e.id = d.destination"
        " LEFT JOIN archival a ON a.delivery = d.id"
        " WHERE d.message = ? AND e.name IN (SELECT value FROM json_each(?))",
        (ARCHIVAL_COMMITTED, message, json.dumps(list(destinations))),
    ).fetchall()
    return [(DeliveryState(state), bool(committed)) for state, committed in rows]


def decide(connection: apsw.Connection, commitment: int, reasons: Sequence[int], at: datetime) -> None:
    """Write what became of each Instance, in their order; the report is due at `at`."""
    connection.executemany(
        "UPDATE commitment_instance SET reason = ? WHERE commitment = ? AND ordinal = ?",
        [(reason, commitment, ordinal) for ordinal, reason in enumerate(reasons)],
    )
    connection.execute(
        "UPDATE commitment SET state = ?, attempts = 0, next_try_at = ?, last_error = NULL WHERE id = ? AND state = 0",
        (CommitmentState.DECIDED.value, to_micros(at), commitment),
    )


def postpone(connection: apsw.Connection, commitment: int, next_try_at: datetime, error: str | None) -> None:
    """Note a try that led to nothing."""
    connection.execute(
        "UPDATE commitment SET attempts = attempts + 1, next_try_at = ?, last_error = ? WHERE id = ? AND state < 2",
        (to_micros(next_try_at), error, commitment),
    )


def settle(connection: apsw.Connection, commitment: int, state: CommitmentState, at: datetime) -> None:
    """End a request: reported, or given up."""
    connection.execute(
        "UPDATE commitment SET state = ?, settled_at = ? WHERE id = ? AND state < 2",
        (state.value, to_micros(at), commitment),
    )


def reports_wait(connection: apsw.Connection, source: str, calling: str) -> bool:
    """Return whether a report for a peer waits for its next try."""
    found = connection.execute(
        "SELECT 1 FROM commitment WHERE state = 1 AND source = ? AND calling = ? LIMIT 1", (source, calling)
    ).get
    return found is not None


def make_due(connection: apsw.Connection, source: str, calling: str, at: datetime) -> int:
    """Make the reports for a peer due now: it has opened an association. Return how many."""
    connection.execute(
        "UPDATE commitment SET next_try_at = ?1 WHERE state = 1 AND source = ?2 AND calling = ?3 AND next_try_at > ?1",
        (to_micros(at), source, calling),
    )
    return connection.changes()


def remove_commitments(connection: apsw.Connection, before_micros: int) -> int:
    """Remove the oldest requests that were settled before an instant; return how many."""
    chosen = f"SELECT id FROM commitment WHERE state >= 2 AND settled_at < ? ORDER BY id LIMIT {REMOVED_MAX}"
    connection.execute(f"DELETE FROM commitment_instance WHERE commitment IN ({chosen})", (before_micros,))
    connection.execute(f"DELETE FROM commitment WHERE id IN ({chosen})", (before_micros,))
    return connection.changes()


def _commitment(row: Any) -> Commitment:
    number, transaction, source, calling, called, host, received, state, attempts, due, error = row
    return Commitment(
        id=number,
        transaction_uid=transaction,
        source=source,
        calling=calling,
        called=called,
        host=host,
        received_at=from_micros(received),
        state=CommitmentState(state),
        attempts=attempts,
        next_try_at=from_micros(due),
        last_error=error,
    )
