"""Time: the only module that asks the machine for it.

`now()` stamps, `monotonic()` serves timeouts. Instants are aware UTC datetimes; the store keeps them as
microseconds since 1970 (`to_micros`, `from_micros`).
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Return the instant, aware, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock's instant, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock's seconds."""
        return time.monotonic()


class ManualClock:
    """A clock that stands until told: for tests."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """Return the instant last set."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds advanced so far."""
        return self._elapsed_s

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now += timedelta(seconds=seconds)
        self._elapsed_s += seconds


def to_micros(instant: datetime) -> int:
    """Return the microseconds since 1970 of an aware instant."""
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_micros(micros: int) -> datetime:
    """Return the aware UTC instant of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros)
