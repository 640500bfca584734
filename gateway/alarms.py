"""Alarms: states that a person should know of, told at their edges.

An alarm is raised once and cleared once, however often its cause repeats; each edge is one log line. What stands by a
condition tells the newest reason, because a link that is down for one reason in the evening may be down for another at
night. Keys are `<what>:<whom>`, for example `destination-down:pacs`.
"""

import logging
from dataclasses import dataclass, replace
from datetime import datetime

from gateway.clock import Clock

_log = logging.getLogger("gateway.alarms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One standing alarm; the text carries no patient data."""

    key: str
    text: str
    since: datetime


class Alarms:
    """Those that stand now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._standing: dict[str, Alarm] = {}

    def put(self, key: str, text: str) -> None:
        """Raise an alarm, unless it stands."""
        if key not in self._standing:
            self._standing[key] = Alarm(key=key, text=text, since=self._clock.now())
            _log.error("alarm.raised key=%s text=%r", key, text)

    def clear(self, key: str) -> None:
        """End an alarm, if it stands."""
        if self._standing.pop(key, None) is not None:
            _log.warning("alarm.cleared key=%s", key)

    def hold(self, key: str, standing: bool, text: str) -> None:
        """Raise or end by a condition; while it stands its text is the newest, and since when is kept."""
        if not standing:
            self.clear(key)
        elif (known := self._standing.get(key)) is not None:
            self._standing[key] = replace(known, text=text)
        else:
            self.put(key, text)

    def standing(self) -> list[Alarm]:
        """Return what stands, oldest first."""
        return sorted(self._standing.values(), key=lambda alarm: alarm.since)
