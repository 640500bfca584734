"""Keeping what was received: Messages with the Deliveries they owe, many in one go.

A group of inputs costs five statements however many they are, because each statement gives up and takes back the
interpreter's lock, and the listeners want it too. The key of a repeat is (Source, the sender's identifier, digest of
the body): real feeds reuse MSH-10, so the identifier alone is not enough.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from json.encoder import encode_basestring_ascii
from zlib import crc32

import apsw

from gateway.clock import to_micros
from gateway.formats.results import encode_result
from gateway.model import Accepted, Incoming, Kind
from gateway.store.changes import apply_changes
from gateway.store.indexing import INDEX_EVERY
from gateway.store.ledger import Ledger
from gateway.store.writer import Batch, Unit

ROWS_A_STATEMENT = 64
SLOTS = 256  # lanes share these; a Destination's lane i takes the slots s with s % lanes == i

_INSERT_MESSAGE = (
    "INSERT INTO message (id, source, kind, peer, identifier, digest, received_at, observed_at, size, object, result,"
    " headers, quarantined, terms, raw) VALUES "
)
_INSERT_DELIVERY = "INSERT INTO delivery (id, message, destination, slot, ordinal, priority) VALUES "
_FIND_REPEATS = (
    "SELECT source, identifier, digest, max(id) FROM message WHERE received_at >= ? AND identifier IS NOT NULL"
    " AND (identifier, source, digest) IN (VALUES {}) GROUP BY 1, 2, 3"
)

_OWED = {kind: f"owed:{kind.value}" for kind in Kind}

_Key = tuple[int, str, bytes]


@dataclass(slots=True)
class Keep:
    """One input and the Destinations it is owed to; `settled` hears of it in the thread that flushes."""

    incoming: Incoming
    owed: tuple[str, ...]
    settled: Callable[[Accepted | Exception], None]
    batch: Batch
    size: int
    urgent: bool = False
    accepted: Accepted | None = None
    until: Future[None] | None = None  # the transaction is not committed before this is done: a file's sync
    prompt: Callable[[Accepted | Exception], None] | None = None  # called first, in the writer thread

    @property
    def heard(self) -> bool:
        """Return whether nobody but the thread that was woken has to hear: nothing is owed."""
        return self.prompt is not None and not self.owed

    def wake(self, error: Exception | None) -> None:
        """Tell the thread that waits, in the writer's."""
        if self.prompt is not None:
            outcome: Accepted | Exception | None = error or self.accepted
            assert outcome is not None
            self.prompt(outcome)

    def settle(self, error: Exception | None) -> None:
        """Tell the Source."""
        outcome: Accepted | Exception | None = error or self.accepted
        assert outcome is not None
        self.settled(outcome)


class Keeping:
    """The writer's batch for Keep units."""

    def __init__(self, ledger: Ledger, repeat_window: timedelta) -> None:
        self._ledger = ledger
        self._counters = ledger.counters
        self._window = repeat_window // timedelta(microseconds=1)

    def run(self, connection: apsw.Connection, units: list[Unit]) -> None:
        """Write Messages, Deliveries and counters of all units."""
        keeps = [unit for unit in units if isinstance(unit, Keep)]
        for start in range(0, len(keeps), ROWS_A_STATEMENT):
            self._keep(connection, keeps[start : start + ROWS_A_STATEMENT])
        self._counters.write(connection)
        self._ledger.index(connection, INDEX_EVERY)

    def _keep(self, connection: apsw.Connection, keeps: list[Keep]) -> None:
        sources = {
            name: self._ledger.id_of(connection, "source", name)
            for name in dict.fromkeys(keep.incoming.source for keep in keeps)
        }
        known = self._find_repeats(connection, keeps, sources)
        messages: list[object] = []
        deliveries: list[object] = []
        changes: list[tuple[int, object]] = []
        tally: Counter[tuple[int, str]] = Counter()
        for keep in keeps:
            incoming = keep.incoming
            source = sources[incoming.source]
            key = None if incoming.identifier is None else (source, incoming.identifier, incoming.digest)
            earlier = None if key is None else known.get(key)
            if earlier is not None:
                tally[source, "repeated"] += 1
                keep.accepted = Accepted(
                    message_id=earlier, repeated=True, object_name=_object_of(connection, incoming, earlier)
                )
                continue
            number = self._ledger.take_message_id()
            keep.accepted = Accepted(message_id=number, repeated=False)
            if key is not None:
                known[key] = number
            messages += _message_row(number, source, incoming)
            changes += [(number, change) for change in incoming.changes]
            self._owe(connection, keep, number, deliveries)
            _count(tally, source, incoming)
        for (endpoint, name), amount in tally.items():
            self._counters.add(endpoint, name, amount)
        _insert(connection, _INSERT_MESSAGE, 15, messages)
        _insert(connection, _INSERT_DELIVERY, 6, deliveries)
        apply_changes(connection, changes)

    def _owe(self, connection: apsw.Connection, keep: Keep, message: int, rows: list[object]) -> None:
        """Add the rows of a Message's Deliveries."""
        slot = slot_of(keep.incoming.lane_key)
        counter = _OWED[keep.incoming.kind]
        for name in keep.owed:
            destination = self._ledger.id_of(connection, "destination", name)
            ordinal = self._counters.add(destination, counter)
            self._counters.add(destination, "pending")
            rows += (self._ledger.take_delivery_id(), message, destination, slot, ordinal, int(keep.urgent))

    def _find_repeats(
        self, connection: apsw.Connection, keeps: list[Keep], sources: Mapping[str, int]
    ) -> dict[_Key, int]:
        """Return the Messages within the window that have the key of one of these."""
        keyed = [keep.incoming for keep in keeps if keep.incoming.identifier is not None]
        if not keyed:
            return {}
        since = to_micros(min(incoming.received_at for incoming in keyed)) - self._window
        values: list[object] = [since]
        for incoming in keyed:
            values += (incoming.identifier, sources[incoming.source], incoming.digest)
        marks = ",".join(["(?,?,?)"] * len(keyed))
        rows = connection.execute(_FIND_REPEATS.format(marks), values)
        return {(source, identifier, digest): number for source, identifier, digest, number in rows}


def _object_of(connection: apsw.Connection, incoming: Incoming, message: int) -> str | None:
    if incoming.object_name is None:
        return None
    name: str | None = connection.execute("SELECT object FROM message WHERE id = ?", (message,)).get
    return name


def _count(tally: Counter[tuple[int, str]], source: int, incoming: Incoming) -> None:
    tally[source, "received"] += 1
    tally[source, "bytes"] += incoming.size
    if incoming.quarantined is not None:
        tally[source, "quarantined"] += 1


def slot_of(lane_key: str) -> int:
    """Return which of the slots a key belongs to; the same on every machine and start."""
    return crc32(lane_key.encode()) % SLOTS if lane_key else 0


def _message_row(number: int, source: int, incoming: Incoming) -> tuple[object, ...]:
    return (
        number,
        source,
        incoming.kind.value,
        incoming.peer,
        incoming.identifier,
        incoming.digest,
        to_micros(incoming.received_at),
        None if incoming.observed_at is None else to_micros(incoming.observed_at),
        incoming.size,
        incoming.object_name,
        None if incoming.result is None else encode_result(incoming.result),
        json.dumps(incoming.headers) if incoming.headers else None,
        incoming.quarantined,
        f"[{','.join(map(encode_basestring_ascii, incoming.terms))}]" if incoming.terms else None,
        incoming.raw,
    )


def _insert(connection: apsw.Connection, head: str, columns: int, values: Sequence[object]) -> None:
    rows = len(values) // columns
    if rows:
        one = f"({','.join('?' * columns)})"
        connection.execute(head + ",".join([one] * rows), values)
