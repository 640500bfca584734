"""Which Instances connections break at: some archives never answer a broken object, or end with the connection.

One at which that has happened SUSPECT_AFTER times goes last, behind those at which it has happened less often. When
the archive has taken others and fails at it once more, the Instance is at fault and must not stop a lane for ever;
where nothing else was taken, the archive is, and it waits.
"""

SUSPECT_AFTER = 5  # failures: a network that is bad for a while changes no order
REMEMBERED_MAX = 1024  # one that is forgotten is found again


class Suspects:
    """Failures by Delivery; one for a Sender."""

    def __init__(self) -> None:
        self._failures: dict[int, int] = {}

    def rank(self, delivery: int) -> int:
        """Return 0 for one that is not suspected, else how often a connection failed at it: the more, the later."""
        failures = self._failures.get(delivery, 0)
        return failures if failures >= SUSPECT_AFTER else 0

    def note(self, delivery: int) -> None:
        """Take notice that a connection failed at a Delivery."""
        self._failures[delivery] = self._failures.pop(delivery, 0) + 1
        while len(self._failures) > REMEMBERED_MAX:
            del self._failures[next(iter(self._failures))]

    def clear(self, delivery: int) -> None:
        """Take notice that a Delivery was answered."""
        self._failures.pop(delivery, None)
