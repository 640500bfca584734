"""Asking a Device that answers with lines: the same words every so often.

asking --poll_s--> asking
"""

from gateway.driver import LineSession, Reading


class PollingSession:
    """A LineSession that also asks; the first time at once."""

    def __init__(self, lines: LineSession, poll: bytes, poll_s: float) -> None:
        """Take the words to say and the seconds between them."""
        self._lines = lines
        self._poll = poll
        self._poll_s = poll_s
        self._ask_at = float("-inf")
        self._output = b""

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait for their terminator."""
        return self._lines.buffered_bytes

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        self._lines.receive(data, now)

    def tick(self, now: float) -> None:
        """Ask when it is time."""
        self._lines.tick(now)
        if now >= self._ask_at:
            self._output = self._poll
            self._ask_at = now + self._poll_s

    def forget(self, now: float) -> None:
        """Give up a line that was not ended."""
        self._lines.forget(now)

    def settle(self, stored: bool, now: float) -> None:
        """Nothing is acknowledged on such a link."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        return self._lines.take_readings()

    def take_output(self) -> bytes:
        """Hand over what to say."""
        said, self._output = self._output, b""
        return said

    @property
    def deadline(self) -> float | None:
        """Return when to ask, or to hand out gathered faults."""
        inner = self._lines.deadline
        return self._ask_at if inner is None else min(inner, self._ask_at)

    @property
    def notice(self) -> str | None:
        """Return None: nothing is held back."""
        return None
