"""What one SDC Device shows, kept from report to report: Results come out of what its MDIB says.

Each MDS is a Device of its own and gets a Result of its own. A Device's time counts only while its clock is set by a
time server and its live values are close to ours; else our time of receipt stands, and a value of old that is read
at the start is questionable. What a Device in demonstration, service or maintenance shows is not published. The
Device's patient is evidence, its place never the bed.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from gateway.formats.containment import sub_order
from gateway.formats.observing import QUESTIONABLE
from gateway.formats.sdc import instant, observation, wave
from gateway.formats.sdc_alerts import inactive, limits_of
from gateway.formats.sdc_facts import (
    ClockState,
    ComponentState,
    Descriptor,
    Host,
    LocationState,
    Mdib,
    MetricState,
    Part,
    PatientState,
    State,
    WaveState,
)
from gateway.model import Condition, Observation, Result, Wave
from gateway.sources.sdc_alarms import Alarms
from gateway.sources.sdc_description import Description, described

CLOCK_TRUST_S = 5.0  # a Device further off is not believed to be set by a time server
WAVE_SLACK_S = 0.02  # jitter of a piece's time that is no gap
NOT_PUBLISHED = {"Dmo": "demo mode", "Srv": "service mode", "Mtn": "maintenance mode"}

_NOWHERE = described(Mdib(host=Host(), descriptors=(), states=()), (), {})


@dataclass
class _Page:
    """What becomes one Result."""

    observations: list[Observation] = field(default_factory=list)
    waves: list[Wave] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)


class Picture:
    """One Device, across connections; `waves` names those that are wanted."""

    def __init__(self, waves: tuple[str, ...] = ()) -> None:
        self.missed = 0  # states of metrics that the Device sent and we never got
        self.place = ""  # where the Device says it is
        self._wanted = waves
        self._description: Description = _NOWHERE
        self._alarms = Alarms()
        self._modes: dict[str, str] = {}
        self._patients: dict[str, PatientState] = {}
        self._versions: dict[str, int] = {}
        self._ends: dict[str, float | None] = {}  # of waves: when the next sample is due
        self._occasions: dict[str, float | None] = {}  # of intermittent metrics: the time of the value told last
        self._synchronised = self._trusted = False

    @property
    def notice(self) -> str | None:
        """Return why nothing of a Device, or of one of its systems, is published; None when all is well."""
        return next((NOT_PUBLISHED[mode] for mode in self._modes.values() if mode in NOT_PUBLISHED), None)

    @property
    def description(self) -> Description:
        """Return what the Device describes."""
        return self._description

    def behold(self, mdib: Mdib, now: datetime) -> tuple[Result, ...]:
        """Take the whole MDIB, at the start and when its description changed; return what it shows."""
        self._description = described(mdib, self._wanted, self._description.subs)
        for known in (self._modes, self._patients, self._versions, self._ends):
            known.clear()
        self._alarms.begin()
        self._note(mdib.states)
        shown = next((state.shown_at for state in mdib.states if isinstance(state, ClockState)), None)
        self._judge_clock(shown, now)
        metrics = [state for state in mdib.states if isinstance(state, MetricState) and not self._is_old(state)]
        concerned = self._alarms.take(mdib.states, self._description)
        pages = self._pages(metrics, beheld=True)
        told = [*self._alarms.ended(self._description), *self._alarms.tell(sorted(concerned), self._description)]
        return self._bound(pages, [*told, *self._faults(mdib.states)], metrics, now, live=False)

    def follow(self, states: tuple[State, ...], now: datetime) -> tuple[Result, ...]:
        """Take the states of one report; return what changed."""
        self._note(states)
        metrics = [state for state in states if isinstance(state, MetricState | WaveState)]
        self._judge_clock(self._newest(metrics, continuous=True), now)
        concerned = self._alarms.take(states, self._description)
        pages = self._pages(metrics, beheld=False)
        told = self._alarms.tell(sorted(concerned), self._description)
        return self._bound(pages, [*told, *self._faults(states)], metrics, now, live=True)

    def restate(self, now: datetime, monotonic: float) -> tuple[Result, ...]:
        """Return the alarms that stand when it is time to tell them again."""
        standing = [each for each in self._alarms.restated(monotonic) if each[0] in self._description.by_handle]
        return self._bound(defaultdict(_Page), standing, (), now, live=False)

    def _note(self, states: Iterable[State]) -> None:
        for state in states:
            match state:
                case ComponentState() if state.operating is not None:
                    self._modes[state.handle] = state.operating
                case ClockState():
                    self._synchronised = state.synchronised
                case PatientState():
                    self._patients[state.handle] = state
                    self._patients = {key: one for key, one in self._patients.items() if one.associated}
                case LocationState():
                    self.place = state.place if state.associated else self.place

    def _judge_clock(self, shown: float | None, now: datetime) -> None:
        if shown is not None:
            self._trusted = self._synchronised and abs(shown - now.timestamp()) <= CLOCK_TRUST_S

    def _is_old(self, state: MetricState) -> bool:
        """Tell whether a value was told already, before the connection was lost or the description changed."""
        one = self._description.by_handle.get(state.handle)
        known = one is not None and one.intermittent and state.handle in self._occasions
        return known and self._occasions[state.handle] == state.determined_at

    def _pages(self, states: Iterable[MetricState | WaveState], *, beheld: bool) -> defaultdict[str, _Page]:
        pages: defaultdict[str, _Page] = defaultdict(_Page)
        for state in states:
            one = self._description.by_handle.get(state.handle)
            sub, top = self._description.subs.get(state.handle), self._description.top_of(state.handle)
            if one is None or sub is None or top is None:
                continue
            if isinstance(state, WaveState):
                pages[top].waves += self._piece(one, state, sub)
            elif one.part in (Part.NUMERIC, Part.STRING):
                pages[top].observations.append(self._observed(one, state, sub, beheld=beheld))
        return pages

    def _observed(self, one: Descriptor, state: MetricState, sub: str, *, beheld: bool) -> Observation:
        before = self._versions.get(state.handle, state.version - 1)
        self.missed += max(0, state.version - before - 1)
        self._versions[state.handle] = state.version
        if one.intermittent:
            self._occasions[state.handle] = state.determined_at
        doubtful = beheld and one.intermittent and not self._trusted
        return observation(
            one,
            state,
            sub,
            observed_at=instant(state.determined_at) if self._trusted else None,
            flags=(QUESTIONABLE,) if doubtful else (),
            limits=limits_of(one.handle, self._description.watchers.get(one.handle, ()), self._alarms.conditions),
        )

    def _piece(self, one: Descriptor, state: WaveState, sub: str) -> list[Wave]:
        if one.handle not in self._description.waves:
            return []
        due, version = self._ends.get(one.handle), self._versions.get(one.handle)
        late = due is not None and state.determined_at is not None and abs(state.determined_at - due) > _slack(one)
        missed = version is not None and state.version != version + 1
        self._versions[one.handle], self._ends[one.handle] = state.version, _end_of(one, state)
        at = instant(state.determined_at) if self._trusted else None
        piece = wave(one, state, sub, gap=late or missed, started_at=at)
        return [piece] if piece is not None else []

    def _faults(self, states: Iterable[State]) -> list[tuple[str, Condition]]:
        """Return with its MDS each level or metric of the Device that does not work."""
        found: list[tuple[str, Condition]] = []
        for state in states:
            one, top = self._description.by_handle.get(state.handle), self._description.top_of(state.handle)
            sub = self._description.subs.get(state.handle)
            if one is not None and top is not None and sub is not None and isinstance(state, ComponentState):
                fault = inactive(one, state, sub)
                found += [(top, fault)] if fault is not None else []
        return found

    def _bound(
        self,
        pages: defaultdict[str, _Page],
        told: Iterable[tuple[str, Condition]],
        metrics: Iterable[MetricState | WaveState],
        now: datetime,
        *,
        live: bool,
    ) -> tuple[Result, ...]:
        for top, condition in told:
            pages[top].conditions.append(condition)
        newest = self._newest(metrics, continuous=False)
        clock = self._newest(metrics, continuous=True) if live else None
        subs = self._description.subs
        return tuple(
            self._result(top, page, newest, clock)
            for top, page in sorted(pages.items(), key=lambda item: sub_order(subs[item[0]]))
            if self._modes.get(top) not in NOT_PUBLISHED and (page.observations or page.waves or page.conditions)
        )

    def _result(self, top: str, page: _Page, newest: float | None, clock: float | None) -> Result:
        seen, shown = instant(newest), instant(clock)
        subs = [each.sub for each in page.observations] + [each.sub for each in page.waves]
        subs += [each.sub for each in page.conditions if each.sub is not None]
        return Result(
            observations=tuple(sorted(page.observations, key=lambda each: sub_order(each.sub))),
            waves=tuple(page.waves),
            conditions=tuple(page.conditions),
            device=self._description.identity(top),
            containment=self._description.levels(top, tuple(subs)),
            observed_at=seen if self._trusted else None,
            device_time=seen.isoformat(timespec="milliseconds") if seen else None,
            device_clock=shown,
            patient_id=self._patient_of(top),
        )

    def _patient_of(self, top: str) -> str | None:
        mine = (one for one in self._patients.values() if self._description.top_of(one.descriptor) == top)
        return next((one.identifier for one in mine if one.identifier), None)

    def _newest(self, states: Iterable[MetricState | WaveState], *, continuous: bool) -> float | None:
        """Return the latest time among states: of waves, that of the last sample."""
        known = self._description.by_handle
        return max(
            (
                at
                for state in states
                if (one := known.get(state.handle)) is not None and not (continuous and one.intermittent)
                if (at := _time_of(one, state)) is not None and instant(at) is not None
            ),
            default=None,
        )


def _time_of(one: Descriptor, state: MetricState | WaveState) -> float | None:
    return _end_of(one, state) if isinstance(state, WaveState) else state.determined_at


def _end_of(one: Descriptor, state: WaveState) -> float | None:
    if state.determined_at is None or one.period_s is None:
        return None
    return state.determined_at + len(state.samples) * float(one.period_s)


def _slack(one: Descriptor) -> float:
    return max(WAVE_SLACK_S, 2 * float(one.period_s or 0))


def places_differ(bed: str, place: str) -> bool:
    """Tell whether the Device says that it stands at another bed than the configured one (PV1-3 components)."""
    ours, theirs = (_components(text) for text in (bed, place))
    return any(mine and other and mine != other for mine, other in zip(ours, theirs, strict=False))


def _components(text: str) -> list[str]:
    return text.split("^")[:3]
