"""The alarms of one SDC Device: what was told of each, so that every one that was told has an end.

SDC tells changes only. Alarms that stand are told again every RESTATED_S, because who follows alarms takes one that
is not restated for forgotten (`episodes.py`). They outlive a lost connection: what ended meanwhile is told as ended.
"""

from collections.abc import Iterable
from dataclasses import replace

from gateway.formats.sdc_alerts import condition, phase_of, watched
from gateway.formats.sdc_facts import ConditionState, SignalState, State
from gateway.model import Condition, Phase
from gateway.sources.sdc_description import Description

RESTATED_S = 30.0
STANDING_MAX = 500


class Alarms:
    """What the Device's alert system says, and what of it was told."""

    def __init__(self) -> None:
        self.conditions: dict[str, ConditionState] = {}
        self._signals: dict[str, SignalState] = {}
        self._standing: dict[str, tuple[str, Condition]] = {}  # by handle: the MDS, and what was told last
        self._told_at = 0.0

    def begin(self) -> None:
        """Forget the states, not what was told: the MDIB is read anew."""
        self.conditions.clear()
        self._signals.clear()

    def take(self, states: Iterable[State], description: Description) -> set[str]:
        """Keep the states of conditions and signals; return the handles of the conditions they concern."""
        concerned: set[str] = set()
        for state in states:
            one = description.by_handle.get(state.handle)
            if one is None:
                continue
            if isinstance(state, ConditionState):
                self.conditions[state.handle] = state
                concerned.add(state.handle)
            elif isinstance(state, SignalState):
                self._signals[state.handle] = state
                concerned.add(one.signals or "")
        return concerned

    def tell(self, handles: Iterable[str], description: Description) -> list[tuple[str, Condition]]:
        """Return with its MDS what is to be told of these conditions."""
        told = [self._told(handle, description) for handle in handles]
        return [each for each in told if each is not None]

    def ended(self, description: Description) -> list[tuple[str, Condition]]:
        """Return as ended the alarms that were told and whose condition is no longer described."""
        gone = [self._standing.pop(handle) for handle in list(self._standing) if handle not in description.by_handle]
        tops = [one.handle for one in description.tops]
        homes = [(top if top in tops else next(iter(tops), None), last) for top, last in gone]
        return [(home, replace(last, phase=Phase.END)) for home, last in homes if home is not None]

    def restated(self, now: float) -> list[tuple[str, Condition]]:
        """Return all that stands when it is time to tell it again; `now` is monotonic."""
        if now - self._told_at < RESTATED_S:
            return []
        self._told_at = now
        return [(top, _continued(last)) for top, last in self._standing.values()]

    def _told(self, handle: str, description: Description) -> tuple[str, Condition] | None:
        one, state = description.by_handle.get(handle), self.conditions.get(handle)
        top = description.top_of(handle)
        if one is None or state is None or top is None:
            return None
        shown = description.signals.get(handle, ())
        signals = tuple((each, self._signals[each.handle]) for each in shown if each.handle in self._signals)
        phase = phase_of(state, signals, stood=handle in self._standing)
        if phase is None:
            return None
        sub = watched(one, description.subs) or description.subs[top]
        told = condition(one, state, signals, phase=phase, sub=sub)
        self._standing.pop(handle, None)
        if phase is not Phase.END and len(self._standing) < STANDING_MAX:
            self._standing[handle] = (top, told)
        return top, told


def _continued(last: Condition) -> Condition:
    return replace(last, phase=Phase.PRESENT) if last.phase is Phase.START else last
