"""What the poll results of one monitor mean: state that outlives a message, and Results made of it.

A monitor in demo mode, or one whose values say that they are demo data, gives nothing: `withheld` says so. Alarms that
are present stand in every Result of numerics; when the list changes there is a Result of its own that also names those
that have ended.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from drivers.philips_intellivue import alarms as alarm_lists
from drivers.philips_intellivue import demographics, states
from drivers.philips_intellivue import identity as who
from drivers.philips_intellivue.codes import levels, name_of
from drivers.philips_intellivue.messages import PolledObject, PollResult, polled_objects
from drivers.philips_intellivue.numerics import (
    PLAIN,
    SPECIFICATION,
    Specification,
    enumerations_of,
    in_channels,
    numerics_of,
    specification,
)
from drivers.philips_intellivue.requests import (
    CLASS_ALERTS,
    CLASS_ENUMERATIONS,
    CLASS_MDS,
    CLASS_NUMERICS,
    CLASS_PATIENT,
    CLASS_WAVES,
)
from drivers.philips_intellivue.values import TICKS_A_SECOND, MonitorClock, absolute_time, apart
from drivers.philips_intellivue.waves import WaveContext, blocks_of, wave_of
from gateway.driver import Absent, Condition, Containment, Observation, Result, Wave

OBJECTS_MAX = 512  # numerics 201, enumerations 36, waves 60: what a monitor says of itself, doubled
WAVE_MISSING_TICKS = 10 * TICKS_A_SECOND
ECG_COMPOUND, ECG_LEADS = 0x0100, range(0x0100, 0x014D)

_MODES = (
    (who.SERVICE_MODE, "MODE SERVICE", "the monitor is in service mode"),
    (who.STANDBY_MODE, "MODE STANDBY", "the monitor is in standby"),
    (who.CONFIGURATION_MODE, "MODE CONFIGURATION", "the monitor is being configured"),
)
_INCOMPLETE = Condition(code="INCOMPLETE", text="parts of a linked result were lost on the way")
_NOBODY = Condition(code="NO PATIENT", text="nobody is admitted at the monitor", technical=False)

Objects = Sequence[PolledObject]


class MonitorReader:
    """One monitor, as far as its messages have told of it. `wanted` are the waves that were asked for."""

    def __init__(self, wanted: tuple[int, ...] = ()) -> None:
        self.complaints: list[str] = []  # what could not be used of sound messages; the caller takes them away
        self._identity = who.MonitorIdentity()
        self._clock = MonitorClock()
        self._patient = demographics.Demographics(admitted=False)
        self._alarms: tuple[alarm_lists.Alarm, ...] = ()
        self._present: tuple[Condition, ...] = ()
        self._demo_data = False
        self._specifications: dict[int, Specification] = {}
        self._waves: dict[tuple[int, int], WaveContext] = {}
        self._latest: dict[int, tuple[int, int | None, int]] = {}
        self._wanted = wanted
        self._wave_seen: dict[int, int] = {}
        self._readers: dict[int, Callable[[Objects, int, bool], Iterator[Result]]] = {
            CLASS_NUMERICS: self._read_numerics,
            CLASS_ENUMERATIONS: self._read_enumerations,
            CLASS_WAVES: self._read_waves,
            CLASS_ALERTS: self._read_alarms,
            CLASS_PATIENT: self._read_patient,
            CLASS_MDS: self._read_system,
        }

    @property
    def demo(self) -> bool:
        """Tell whether what the monitor shows is no patient's: its mode or its values say demo."""
        return self._demo_data or bool((self._identity.mode or 0) & who.DEMO_MODE)

    def restart(self) -> None:
        """Forget what a new association invalidates: objects, their context, relative time; and who is there.

        It may be another monitor, with another patient. The alarms that were told are kept so that their end is told,
        and stand beside no value until they are heard again.
        """
        self._clock.forget()
        self._identity.forget()
        self._patient = demographics.Demographics(admitted=False)
        self._present = ()
        self._specifications.clear()
        self._waves.clear()
        self._latest.clear()
        self._wave_seen.clear()

    def learn_system(self, values: dict[int, bytes], ticks: int) -> None:
        """Take the attributes of the MDS. Raises ContentError when one is cut short."""
        self._identity.learn(values)
        if (pair := who.clock_pair(values, ticks)) is not None:
            self._clock.set(absolute_time(pair[0]), pair[1])

    def read(self, parts: Sequence[PollResult], complete: bool = True) -> tuple[Result, ...]:
        """Return the Results in one poll result, given in one part or several.

        A repeat (LAN), another client's class and demo data give none. Raises ContentError when a part is cut short.
        """
        first = parts[0]
        found = [item for part in parts for item in polled_objects(part)]
        mark = (first.number, first.sequence, first.ticks)
        if first.sequence is not None and found and self._latest.get(first.polled) == mark:
            return ()
        self._latest[first.polled] = mark
        reading = self._readers.get(first.polled)
        return () if reading is None else tuple(reading(found, first.ticks, complete))

    def _read_numerics(self, found: Objects, ticks: int, complete: bool) -> Iterator[Result]:
        off = {alarm.handle for alarm in self._alarms if alarm.means_sensor_off}
        observations: list[Observation] = []
        for item in found:
            seen = numerics_of(item, self._specified(item))
            observations += seen if item.handle not in off else map(_sensor_off, seen)
        if self._is_demo(observations) or not observations:
            return
        conditions = [*self._present, *self._mode_conditions(), *self._missing_waves(ticks)]
        yield self._result(observations, ticks, (*conditions, *(() if complete else (_INCOMPLETE,))))

    def _read_enumerations(self, found: Objects, ticks: int, complete: bool) -> Iterator[Result]:
        observations = [seen for item in found for seen in enumerations_of(item, self._specified(item))]
        if any("DEMO" in seen.flags for seen in observations):
            self._demo_data = True
        if observations and not self.demo:
            yield self._result(observations, ticks, () if complete else (_INCOMPLETE,))

    def _read_waves(self, found: Objects, ticks: int, complete: bool) -> Iterator[Result]:
        waves: list[Wave] = []
        for item in found:
            context = self._wave_context(item)
            context.learn(item.values)
            for block in blocks_of(item):
                if block.state & states.DEMO_DATA:
                    self._demo_data = True
                    continue
                wave = wave_of(block, context, ticks)
                self._see_wave(block.physio, ticks)
                if wave is not None:
                    waves.append(wave)
                elif block.data:
                    self.complaints.append(f"a piece of {name_of(block.physio)} came after later ones")
        if waves and not self.demo:
            yield replace(self._result((), ticks, ()), waves=tuple(waves), containment=_levels(waves))

    def _read_alarms(self, found: Objects, ticks: int, complete: bool) -> Iterator[Result]:
        listing = [item.values for item in found if alarm_lists.ALERT_CONDITION in item.values or _lists(item)]
        if not listing:
            return
        now = tuple(alarm for values in listing for alarm in alarm_lists.alarms_of(values))
        if any(alarm.state & alarm_lists.DEMO for alarm in now):
            self._demo_data = True
        if self.demo:
            return
        before, self._alarms = self._alarms, now
        self._present = tuple(alarm_lists.condition_of(alarm) for alarm in now)
        if now != before:
            yield self._result((), ticks, alarm_lists.conditions_of(before, now))

    def _read_patient(self, found: Objects, ticks: int, complete: bool) -> Iterator[Result]:
        for item in found:
            patient = demographics.demographics_of(item.values)
            before, self._patient = self._patient, patient
            if patient == before or self.demo or not (patient.admitted or before.admitted):
                continue
            seen = demographics.observations_of(patient)
            if seen or not patient.admitted:
                yield self._result(seen, ticks, () if patient.admitted else (_NOBODY,))

    def _read_system(self, found: Objects, ticks: int, complete: bool) -> Iterator[Result]:
        for item in found:
            self.learn_system(item.values, ticks)
        return iter(())

    def _result(self, seen: Sequence[Observation], ticks: int, conditions: Sequence[Condition]) -> Result:
        observations, shown = in_channels(seen), self._clock.at(ticks)
        return Result(
            observations=observations,
            device=self._identity.device,
            containment=_levels(observations),
            conditions=tuple(conditions),
            device_time=None if shown is None else shown.isoformat(" ", "milliseconds"),
            device_clock=shown if observations else None,  # waves come a second late
            patient_id=self._patient.patient_id if self._patient.admitted else None,
        )

    def _specified(self, item: PolledObject) -> Specification:
        if (stated := item.values.get(SPECIFICATION)) is not None:
            if len(self._specifications) >= OBJECTS_MAX:
                self._specifications.clear()
            self._specifications[item.handle] = specification(stated)
        return self._specifications.get(item.handle, PLAIN)

    def _wave_context(self, item: PolledObject) -> WaveContext:
        known = self._waves.get((item.context, item.handle))
        if known is None:
            if len(self._waves) >= OBJECTS_MAX:
                self._waves.clear()
            known = self._waves[item.context, item.handle] = WaveContext()
        return known

    def _see_wave(self, physio: int, ticks: int) -> None:
        if len(self._wave_seen) >= OBJECTS_MAX:
            self._wave_seen.clear()
        self._wave_seen[physio] = ticks

    def _is_demo(self, observations: list[Observation]) -> bool:
        """Judge by the values' own states: demo data make all demo, values that are none end it."""
        if any("DEMO" in seen.flags for seen in observations):
            self._demo_data = True
        elif any(seen.value is not None for seen in observations):
            self._demo_data = False
        return self.demo

    def _mode_conditions(self) -> Iterator[Condition]:
        mode = self._identity.mode or 0
        for bit, code, text in _MODES:
            if mode & bit:
                yield Condition(code=code, text=text)

    def _missing_waves(self, ticks: int) -> Iterator[Condition]:
        """Name waves that were asked for and do not come: a monitor leaves them out in silence."""
        for physio in self._wanted:
            leads = ECG_LEADS if physio == ECG_COMPOUND else (physio,)
            seen = [self._wave_seen[lead] for lead in leads if lead in self._wave_seen]
            if not seen:
                self._wave_seen[physio] = ticks  # the time from which it is waited for
            elif min(apart(at, ticks) for at in seen) > WAVE_MISSING_TICKS:
                yield Condition(code=f"NO WAVE {name_of(physio)}", text="asked for, not sent by the monitor")


def _levels(seen: Sequence[Observation] | Sequence[Wave]) -> tuple[Containment, ...]:
    return levels(frozenset(int(item.sub.split(".", 2)[1]) for item in seen))


def _lists(item: PolledObject) -> bool:
    return alarm_lists.PATIENT_ALARMS in item.values or alarm_lists.TECHNICAL_ALARMS in item.values


def _sensor_off(seen: Observation) -> Observation:
    return replace(seen, absent=Absent.OFF) if seen.absent in (Absent.INV, Absent.NAV) else seen
