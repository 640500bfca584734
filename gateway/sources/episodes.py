"""Which alarm is which: from single Conditions to episodes with a beginning, turns and an end.

    unknown --START, PRESENT, LATCHED, no phase--> standing --END, or unheard for FORGOTTEN_S--> unknown

A Device restates its alarms, some without a phase; who shows them must know whether this is the same alarm still.
An alarm is known by code, place and MDC code. Only alarms (Conditions with a priority) have episodes. What is known is
of this run of the gateway: after a restart a standing alarm begins anew.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from gateway.model import Condition, Episode, Phase, Priority, Result, Turn

FORGOTTEN_S = 120.0  # a Device that restates its alarms does so far more often; then the next is a new one
STANDING_MAX = 500  # of one Device; beyond it the one unheard for longest is forgotten

_RANK = {Priority.ADVISORY: 0, Priority.LOW: 1, Priority.MEDIUM: 2, Priority.HIGH: 3}
_Key = tuple[str, str | None, int | None]


@dataclass(slots=True)
class _Standing:
    instance: str
    update: int
    last: Condition
    heard_at: float


class Episodes:
    """The alarms of one Device."""

    def __init__(self, name: str) -> None:
        """Take the Source's name: episodes are called `<name>-<start>-<number>`."""
        self._name = name
        self._count = 0
        self._standing: dict[_Key, _Standing] = {}

    def follow(self, result: Result, at: datetime, now: float) -> Result:
        """Return the Result with the episodes of its alarms; `at` names those that begin, `now` is monotonic."""
        if all(condition.priority is None for condition in result.conditions):
            return result
        told = tuple(self._told(condition, at, now) for condition in result.conditions)
        return replace(result, conditions=told)

    def _told(self, alarm: Condition, at: datetime, now: float) -> Condition:
        if alarm.priority is None:
            return alarm
        key = (alarm.code, alarm.sub, alarm.mdc)
        known = self._standing.pop(key, None)
        if known is not None and (now - known.heard_at > FORGOTTEN_S or alarm.phase is Phase.START):
            known = None
        turn = Turn.START if known is None else _turn(known.last, alarm)
        if known is None:
            turn = Turn.END if alarm.phase is Phase.END else turn
            known = self._begin(alarm, at, now)
        known.update, known.last, known.heard_at = known.update + 1, alarm, now
        if alarm.phase is not Phase.END:
            self._standing[key] = known
            if len(self._standing) > STANDING_MAX:
                del self._standing[next(iter(self._standing))]
        return replace(alarm, episode=Episode(instance=known.instance, update=known.update, turn=turn))

    def _begin(self, alarm: Condition, at: datetime, now: float) -> _Standing:
        self._count += 1
        instance = f"{self._name}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-{self._count}"
        return _Standing(instance=instance, update=0, last=alarm, heard_at=now)


def _turn(before: Condition, now: Condition) -> Turn:
    """Return what became of an alarm between two statements of it."""
    if now.phase is Phase.END:
        return Turn.RESET if before.phase is Phase.LATCHED else Turn.END
    alike = replace(now, priority=None, episode=None, phase=None) == replace(
        before, priority=None, episode=None, phase=None
    )
    latched = (before.phase is Phase.LATCHED, now.phase is Phase.LATCHED)
    if not alike or latched[0] != latched[1]:
        return Turn.UPDATE
    if before.priority is now.priority:
        return Turn.CONTINUE
    assert before.priority is not None
    assert now.priority is not None
    return Turn.ESCALATE if _RANK[now.priority] > _RANK[before.priority] else Turn.DEESCALATE
