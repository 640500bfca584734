"""What the writer keeps in memory beside the file: endpoint numbers, running numbers, counters.

Belongs to the writer thread. It stands at once with each change and falls back to what the disk has when a
transaction does.
"""

from collections.abc import Callable
from typing import Any

import apsw

from gateway.store.counters import Counters
from gateway.store.indexing import index_piece, indexed_until


class Ledger:
    """Numbers and totals, read from the file at start."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._ids: dict[tuple[str, str], int] = {}
        self._indexed = 0
        self.counters = Counters(connection)
        self._read()

    def id_of(self, connection: apsw.Connection, role: str, name: str) -> int:
        """Return the number of a Source or Destination; a new name gets one."""
        number = self._ids.get((role, name))
        if number is None:
            connection.execute("INSERT INTO endpoint (role, name) VALUES (?, ?)", (role, name))
            number = connection.last_insert_rowid()
            self._ids[role, name] = number
        return number

    def take_message_id(self) -> int:
        """Return the next Message number."""
        self._message_id += 1
        return self._message_id

    def take_delivery_id(self) -> int:
        """Return the next Delivery number."""
        self._delivery_id += 1
        return self._delivery_id

    def index(self, connection: apsw.Connection, at_least: int) -> None:
        """Index what Messages can be found by, when at least so many wait for it; in the open transaction."""
        if self._message_id - self._indexed >= at_least:
            self._indexed = index_piece(connection, self._indexed, self._message_id)

    def committed(self) -> None:
        """Keep what changed."""
        self.counters.committed()

    def rolled_back(self) -> None:
        """Go back to what the disk has."""
        self.counters.rolled_back()
        self._read()

    def savepoint(self) -> Callable[[], None]:
        """Return what brings numbers and totals back to how they stand now, within the transaction."""
        ids = dict(self._ids)
        back = self.counters.savepoint()

        def go_back() -> None:
            self._ids = ids  # numbers of Messages and Deliveries are never used again: they need no way back
            back()

        return go_back

    def _read(self) -> None:
        rows = self._connection.execute("SELECT id, role, name FROM endpoint")
        self._ids = {(role, name): number for number, role, name in rows}
        sequences: list[Any] = self._connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall()
        last: dict[str, int] = dict(sequences)
        self._message_id = last.get("message", 0)
        self._delivery_id = last.get("delivery", 0)
        self._indexed = indexed_until(self._connection)
