"""Totals of every Source and Destination, kept with each change in the same transaction.

Names: a Source counts `received`, `bytes`, `repeated`, `quarantined`; a Destination counts `pending`, `delivered`,
`parked`, `discarded`, and `owed:<kind>`, which numbers its Deliveries of one kind without gaps.
"""

from collections.abc import Callable

import apsw

from gateway.model import DeliveryState

STATE_NAMES = {
    DeliveryState.PENDING: "pending",
    DeliveryState.DELIVERED: "delivered",
    DeliveryState.PARKED: "parked",
    DeliveryState.DISCARDED: "discarded",
}

Key = tuple[int, str]  # endpoint id, name


class Counters:
    """Belongs to the writer thread. Changes stand at once, and fall back when the transaction does."""

    def __init__(self, connection: apsw.Connection) -> None:
        rows = connection.execute("SELECT endpoint, name, value FROM counter")
        self._values: dict[Key, int] = {(endpoint, name): value for endpoint, name, value in rows}
        self._before: dict[Key, int] = {}

    def add(self, endpoint: int, name: str, amount: int = 1) -> int:
        """Add and return the new total."""
        key = (endpoint, name)
        old = self._values.get(key, 0)
        self._before.setdefault(key, old)
        self._values[key] = total = old + amount
        return total

    def write(self, connection: apsw.Connection) -> None:
        """Put what changed into the open transaction."""
        changed = [(endpoint, name, self._values[endpoint, name]) for endpoint, name in self._before]
        if changed:
            marks = ",".join(["(?,?,?)"] * len(changed))
            connection.execute(
                f"INSERT INTO counter VALUES {marks} ON CONFLICT DO UPDATE SET value = excluded.value",
                [value for row in changed for value in row],
            )

    def committed(self) -> None:
        """Keep the changes."""
        self._before.clear()

    def rolled_back(self) -> None:
        """Forget the changes."""
        self._values.update(self._before)
        self._before.clear()

    def savepoint(self) -> Callable[[], None]:
        """Return what forgets the changes from here on."""
        values, before = dict(self._values), dict(self._before)

        def go_back() -> None:
            self._values, self._before = values, before

        return go_back


def read_counters(connection: apsw.Connection) -> dict[tuple[str, str], dict[str, int]]:
    """Return the totals by (role, name of the endpoint)."""
    totals: dict[tuple[str, str], dict[str, int]] = {}
    rows = connection.execute(
        "SELECT e.role, e.name, c.name, c.value FROM endpoint e LEFT JOIN counter c ON c.endpoint = e.id"
    )
    for role, endpoint, name, value in rows:
        counted = totals.setdefault((role, endpoint), {})
        if name is not None:
            counted[name] = value
    return totals
