"""Reading the store: short, read-only, bounded.

Every function takes a reader's connection and fetches all it returns, so that no open cursor holds the log back.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import apsw

from gateway.clock import from_micros, to_micros
from gateway.formats.results import decode_result
from gateway.model import Delivery, DeliveryState, Kind, Message, Parcel
from gateway.store import indexing

_MESSAGE = (
    "m.id, s.name, m.kind, m.received_at, m.size, m.digest, m.peer, m.identifier, m.observed_at, m.raw, m.object,"
    " m.result, m.headers, m.quarantined"
)
_MESSAGE_WITHOUT_RAW = _MESSAGE.replace("m.raw", "NULL")
_DELIVERY = "d.id, d.message, d.state, d.ordinal, d.attempts, d.next_try_at, d.settled_at, d.priority"
_DUE = (
    f"SELECT {_DELIVERY}, {_MESSAGE} FROM delivery d JOIN message m ON m.id = d.message"
    " JOIN endpoint s ON s.id = m.source"
    " WHERE d.destination = ? AND d.state = 0 AND d.id > ? {} ORDER BY d.id LIMIT ?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try or act on a Delivery."""

    number: int
    at: datetime
    verdict: str
    reason: str | None
    acknowledgement: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFilter:
    """What `gateway messages` asks for; None asks nothing. `search` is MSH-10, patient, accession, study or UID."""

    source: str | None = None
    kind: Kind | None = None
    state: DeliveryState | None = None
    quarantined: bool = False
    since: datetime | None = None
    search: str | None = None
    limit: int = 50


def read_epoch(connection: apsw.Connection) -> str:
    """Return the store's own name, which makes control ids unique over stores."""
    epoch = connection.execute("SELECT value FROM about WHERE name = 'epoch'").get
    assert isinstance(epoch, str)
    return epoch


def endpoint_id(connection: apsw.Connection, role: str, name: str) -> int | None:
    """Return an endpoint's number, None where nothing was ever kept for it."""
    number = connection.execute("SELECT id FROM endpoint WHERE role = ? AND name = ?", (role, name)).get
    assert number is None or isinstance(number, int)
    return number


def read_due(
    connection: apsw.Connection,
    epoch: str,
    destination: str,
    *,
    after: int,
    lane: int = 0,
    lanes: int = 1,
    rows_max: int = 64,
    bytes_max: int = 4 << 20,
    urgent: bool = False,
) -> list[Parcel]:
    """Return the oldest pending Deliveries of a lane beyond number `after`, at least one if there is any.

    The urgent ones are a queue of their own, beside those that are not. Cost does not depend on how many wait.
    """
    number = endpoint_id(connection, "destination", destination)
    if number is None:
        return []
    only_lane = f"AND d.slot % {lanes} = {lane}" if lanes > 1 else ""
    only_lane += " AND d.priority > 0" if urgent else " AND d.priority = 0"
    parcels: list[Parcel] = []
    taken = 0
    cursor = connection.execute(_DUE.format(only_lane), (number, after, rows_max))
    for row in cursor:
        parcel = Parcel(delivery=_delivery(row[:8], destination, epoch), message=_message(row[8:]))
        taken += len(parcel.message.raw or b"")
        if parcels and taken > bytes_max:
            break
        parcels.append(parcel)
    cursor.close()
    return parcels


def newest_delivery(connection: apsw.Connection) -> int:
    """Return the highest number of a Delivery, 0 where there is none."""
    return int(_rows(connection, "SELECT coalesce(max(id), 0) FROM delivery")[0][0])


def oldest_pending(connection: apsw.Connection, destination: str) -> datetime | None:
    """Return when the oldest Message still owed to a Destination was received."""
    number = endpoint_id(connection, "destination", destination)
    row = connection.execute(
        "SELECT m.received_at FROM delivery d JOIN message m ON m.id = d.message"
        " WHERE d.destination = ? AND d.state = 0 ORDER BY d.id LIMIT 1",
        (number,),
    ).fetchone()
    return None if row is None else from_micros(row[0])


def read_message(connection: apsw.Connection, number: int) -> Message | None:
    """Return one Message with its raw bytes."""
    row = connection.execute(
        f"SELECT {_MESSAGE} FROM message m JOIN endpoint s ON s.id = m.source WHERE m.id = ?",
        (number,),
    ).fetchone()
    return None if row is None else _message(row)


def read_messages(connection: apsw.Connection, wanted: MessageFilter) -> list[Message]:
    """Return Messages without their raw bytes, newest first."""
    terms: list[str] = []
    values: list[Any] = []
    if wanted.source is not None:
        terms.append("s.name = ?")
        values.append(wanted.source)
    if wanted.kind is not None:
        terms.append("m.kind = ?")
        values.append(wanted.kind.value)
    if wanted.quarantined:
        terms.append("m.quarantined IS NOT NULL")
    if wanted.since is not None:
        terms.append("m.received_at >= ?")
        values.append(to_micros(wanted.since))
    if wanted.state is not None:
        terms.append("EXISTS (SELECT 1 FROM delivery d WHERE d.message = m.id AND d.state = ?)")
        values.append(wanted.state.value)
    if wanted.search is not None:
        terms.append(f"m.id IN ({indexing.FIND})")
        values += (wanted.search,) * 3
    where = f"WHERE {' AND '.join(terms)}" if terms else ""
    rows = connection.execute(
        f"SELECT {_MESSAGE_WITHOUT_RAW} FROM message m JOIN endpoint s ON s.id = m.source {where}"
        " ORDER BY m.id DESC LIMIT ?",
        [*values, wanted.limit],
    ).fetchall()
    return [_message(row) for row in rows]


def read_deliveries(
    connection: apsw.Connection,
    epoch: str,
    *,
    message: int | None = None,
    destination: str | None = None,
    state: DeliveryState | None = None,
    limit: int = 50,
) -> list[Delivery]:
    """Return Deliveries with their last Attempt, newest first."""
    asked = {"d.message": message, "e.name": destination, "d.state": None if state is None else state.value}
    terms = [f"{column} = ?" for column, value in asked.items() if value is not None]
    where = f"WHERE {' AND '.join(terms)}" if terms else ""
    rows = _rows(
        connection,
        f"SELECT {_DELIVERY}, e.name, a.reason, a.acknowledgement FROM delivery d"
        " JOIN endpoint e ON e.id = d.destination"
        " LEFT JOIN attempt a ON a.delivery = d.id"
        " AND a.number = (SELECT max(number) FROM attempt WHERE delivery = d.id)"
        f" {where} ORDER BY d.id DESC LIMIT ?",
        *[value for value in asked.values() if value is not None],
        limit,
    )
    return [_delivery(row[:8], row[8], epoch, last_error=row[9], acknowledgement=row[10]) for row in rows]


def read_attempts(connection: apsw.Connection, delivery: int) -> list[Attempt]:
    """Return every try and act on a Delivery, oldest first."""
    rows = _rows(
        connection,
        "SELECT number, at, verdict, reason, acknowledgement FROM attempt WHERE delivery = ? ORDER BY number",
        delivery,
    )
    return [
        Attempt(number=number, at=from_micros(at), verdict=verdict, reason=reason, acknowledgement=acknowledgement)
        for number, at, verdict, reason, acknowledgement in rows
    ]


def parked_ids(connection: apsw.Connection, destination: str | None, after: int, limit: int) -> list[int]:
    """Return the numbers of parked Deliveries beyond `after` in order, of one Destination or (None) of all."""
    rows = _rows(
        connection,
        "SELECT d.id FROM delivery d JOIN endpoint e ON e.id = d.destination WHERE d.state = 2 AND d.id > ?1"
        " AND (?2 IS NULL OR e.name = ?2) ORDER BY d.id LIMIT ?3",
        after,
        destination,
        limit,
    )
    return [number for (number,) in rows]


def destinations_of(connection: apsw.Connection, ids: Sequence[int]) -> list[str]:
    """Return the names of the Destinations that these Deliveries are owed to."""
    rows = _rows(
        connection,
        "SELECT DISTINCT e.name FROM delivery d JOIN endpoint e ON e.id = d.destination"
        " WHERE d.id IN (SELECT value FROM json_each(?))",
        json.dumps(ids),
    )
    return [name for (name,) in rows]


def message_kind(connection: apsw.Connection, number: int) -> Kind | None:
    """Return what a Message holds, None where there is no such Message."""
    kind = connection.execute("SELECT kind FROM message WHERE id = ?", (number,)).get
    return None if kind is None else Kind(kind)


def used_bytes(connection: apsw.Connection) -> int:
    """Return how much of the database, with what its log still holds, is not free to be used again."""
    pages, free, size = (
        _rows(connection, f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def object_names(connection: apsw.Connection, after: str, limit: int = 10_000) -> list[str]:
    """Return names of the Spool's objects that rows refer to, in order, beyond `after`."""
    rows = _rows(
        connection, "SELECT DISTINCT object FROM message WHERE object > ? ORDER BY object LIMIT ?", after, limit
    )
    return [name for (name,) in rows]


def object_digest(connection: apsw.Connection, name: str) -> bytes | None:
    """Return the digest that a row has of an object's data set, None when no row refers to it any more."""
    digest: bytes | None = connection.execute("SELECT digest FROM message WHERE object = ? LIMIT 1", (name,)).get
    return digest


def _rows(connection: apsw.Connection, statement: str, *values: Any) -> list[Any]:
    return connection.execute(statement, values).fetchall()


def _message(row: Any) -> Message:
    number, source, kind, received, size, digest, peer, identifier, observed, raw, name, result, headers, fault = row
    return Message(
        id=number,
        source=source,
        kind=Kind(kind),
        received_at=from_micros(received),
        size=size,
        digest=digest,
        peer=peer,
        identifier=identifier,
        observed_at=None if observed is None else from_micros(observed),
        raw=raw,
        object_name=name,
        result=None if result is None else decode_result(result),
        headers={} if headers is None else json.loads(headers),
        quarantined=fault,
    )


def _delivery(
    row: Any,
    destination: str,
    epoch: str,
    *,
    last_error: str | None = None,
    acknowledgement: bytes | None = None,
) -> Delivery:
    number, message, state, ordinal, attempts, next_try, settled, priority = row
    return Delivery(
        id=number,
        message_id=message,
        destination=destination,
        state=DeliveryState(state),
        ordinal=ordinal,
        control_id=f"{epoch}-{number}",
        attempts=attempts,
        next_try_at=from_micros(next_try) if next_try else None,
        settled_at=from_micros(settled) if settled else None,
        last_error=last_error,
        acknowledgement=acknowledgement,
        priority=priority,
    )
