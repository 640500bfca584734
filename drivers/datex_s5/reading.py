"""What one monitor has said so far, and what its next record means.

Labels of leads and pressures come with the numerics and name the waves; groups that were once there are missed when
they go; a cuff pressure is published once for each measurement, because the monitor repeats it until the next one.
"""

import struct
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from drivers.datex_s5 import requests
from drivers.datex_s5.alarms import AlarmList
from drivers.datex_s5.numerics import Numerics, Seen, read_numerics
from drivers.datex_s5.record import ALARMS, LEVEL_NAMES, PHYSIOLOGICAL, WAVES, Record
from drivers.datex_s5.tables import device_rows
from drivers.datex_s5.waves import read_waves
from gateway.errors import ContentError
from gateway.formats.observing import observe
from gateway.model import Absent, Condition, Containment, DeviceIdentity, Observation, Result, Wave

TREND_VMD_BASE = {requests.TREND_10S: 100, requests.TREND_60S: 200}  # trends stand apart from displayed values
_VMD_BASE = {requests.DISPLAYED: 0} | TREND_VMD_BASE
_KINDS = _VMD_BASE.keys() | {requests.AUXILIARY}
_TREND_CODES = {requests.TREND_10S: "TREND 10 S", requests.TREND_60S: "TREND 60 S"}
_MARKER_SUB = "1.0.0.4"
_AUXILIARY = struct.Struct("<IhIIh98x")
_NIBP_MEASURING, _NIBP_OLD = 1 << 5, 1 << 8


class Monitor:
    """Reads the records of one monitor, one after the other. `zone` is appended to its clock, "" where unknown."""

    def __init__(self, zone: str) -> None:
        self._zone = zone
        self._alarms = AlarmList()
        self.forget()

    def forget(self) -> None:
        """Forget all but the alarms that were told."""
        self._labels: dict[str, int] = {}
        self._channels: dict[int, frozenset[tuple[int, int]]] = {}
        self._cuff = _Cuff()
        self._wave_number: int | None = None

    @property
    def cuff_measurements(self) -> int:
        """Return how many cuff measurements were published."""
        return self._cuff.published

    def read(self, record: Record) -> tuple[Result, ...]:
        """Return what a record says, nothing for a host's own request.

        Raises ContentError for main types that are no monitor's values, and for subrecords cut short.
        """
        if record.is_request:
            return ()
        if record.main_type == PHYSIOLOGICAL:
            return self._read_physiological(record)
        if record.main_type == WAVES:
            return (self._read_waves(record),)
        if record.main_type == ALARMS:
            return (self._read_alarms(record),)
        raise ContentError(f"records of main type {record.main_type} are not read")

    def _read_physiological(self, record: Record) -> tuple[Result, ...]:
        kinds = list(dict.fromkeys(part.kind for part in record.parts))
        unknown = [kind for kind in kinds if kind not in _KINDS]
        if len(unknown) == len(kinds):
            raise ContentError(f"physiological data of type {unknown[0]} are not read")
        results = [self._read_kind(record, kind) for kind in kinds if kind in _KINDS]
        if unknown:
            told = tuple(Condition(code=f"SUBRECORD {kind}", text="data of an unknown type") for kind in unknown)
            results[0] = replace(results[0], conditions=results[0].conditions + told)
        return tuple(results)

    def _read_kind(self, record: Record, kind: int) -> Result:
        parts = [part.data for part in record.parts if part.kind == kind]
        if kind == requests.AUXILIARY:
            return self._result(record, observations=tuple(self._auxiliary(parts[0])))
        known, base = dict(self._labels), _VMD_BASE[kind]
        return self._numerics(record, kind, [read_numerics(part, record.level, known, base) for part in parts])

    def _numerics(self, record: Record, kind: int, classes: list[Numerics]) -> Result:
        base = _VMD_BASE[kind]
        conditions: dict[tuple[str, str | None], Condition] = {}
        observations = [observe("x_datex_user_mark", Decimal(classes[0].marker), sub=_MARKER_SUB)]
        for seen in (seen for each in classes for seen in each.seen):
            self._remember(seen, base)
            observations += seen.observations if kind in TREND_VMD_BASE else self._cuff.sifted(seen)
            conditions |= {_once(item): item for item in seen.conditions}
        if kind in _TREND_CODES:
            text = "values of the trend memory, not those displayed"
            conditions["TREND", None] = Condition(code=_TREND_CODES[kind], text=text)
        return self._result(
            record,
            observations=tuple(observations),
            conditions=tuple(conditions.values()),
            containment=device_rows(self._channels.get(base, frozenset()), base),
            at=classes[0].time,
            is_now=kind == requests.DISPLAYED,
        )

    def _remember(self, seen: Seen, base: int) -> None:
        group = seen.group
        if (group.vmd, group.channel) not in self._channels.get(base, ()):
            self._channels[base] = self._channels.get(base, frozenset()) | {(group.vmd, group.channel)}
        if base == _VMD_BASE[requests.DISPLAYED] or group.name not in self._labels:
            self._labels[group.name] = seen.words.label

    def _auxiliary(self, data: bytes) -> list[Observation]:
        if len(data) < _AUXILIARY.size:
            raise ContentError(f"auxiliary information of {len(data)} bytes, expected {_AUXILIARY.size}")
        nibp, _, output, wedge, area = _AUXILIARY.unpack_from(data)
        times = (("nibp", nibp, "1.3.1.46"), ("co", output, "1.8.1.46"), ("pcwp", wedge, "1.8.1.47"))
        found = [
            observe(f"x_datex_{name}_time", self._clock(at) if at else None, sub=sub, absent=None if at else Absent.NI)
            for name, at, sub in times
        ]
        is_known = area > 0
        size = Decimal(area) * Decimal("0.01") if is_known else None
        return [*found, observe("bsa", size, sub="1.0.0.7", absent=None if is_known else Absent.NI)]

    def _read_waves(self, record: Record) -> Result:
        lost = self._wave_number is None or (record.number - self._wave_number) & 0xFF != 1
        blocks = read_waves(record.parts, self._labels, lost)
        self._wave_number = record.number
        return self._result(record, conditions=blocks.conditions, waves=blocks.waves)

    def _read_alarms(self, record: Record) -> Result:
        observations, conditions = self._alarms.read(record.parts[0].data)
        return self._result(record, observations=observations, conditions=conditions)

    def _result(
        self,
        record: Record,
        *,
        observations: tuple[Observation, ...] = (),
        conditions: tuple[Condition, ...] = (),
        waves: tuple[Wave, ...] = (),
        containment: tuple[Containment, ...] = (),
        at: int | None = None,
        is_now: bool = False,
    ) -> Result:
        seconds = record.time if at is None else at
        level = f"DRI level {record.level} ({LEVEL_NAMES[record.level]})"
        return Result(
            observations=observations,
            device=DeviceIdentity(manufacturer="GE Datex-Ohmeda", software=level),
            containment=containment,
            conditions=conditions,
            device_time=self._clock(seconds),
            device_clock=_local(seconds) if is_now else None,
            waves=waves,
        )

    def _clock(self, seconds: int) -> str:
        return f"{_local(seconds):%Y-%m-%d %H:%M:%S}{self._zone}"


def _local(seconds: int) -> datetime:
    """Return what the monitor's clock shows: it counts seconds since 1970, of which zone is not known."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


class _Cuff:
    """Lets each cuff measurement through once: when its values change, or when they are young again."""

    def __init__(self) -> None:
        self.published = 0
        self._values: tuple[object, ...] | None = None
        self._old = False
        self._fresh = False

    def sifted(self, seen: Seen) -> list[Observation]:
        if seen.group.name != "nibp":
            return list(seen.observations)
        label = seen.words.label if seen.words.is_measuring else 0
        old, measuring = bool(label & _NIBP_OLD), bool(label & _NIBP_MEASURING)
        self._fresh |= self._old and not old
        self._old = old
        values = tuple((item.key, item.value) for item in seen.observations)
        if values == self._values and (measuring or not self._fresh):
            return []
        unseen = self._values is None
        self._values, self._fresh = values, False
        self.published += any(item.value is not None for item in seen.observations)
        return [_episode(item, doubtful=unseen and old) for item in seen.observations]


def _episode(item: Observation, *, doubtful: bool) -> Observation:
    """A pressure that was old when it was first seen was measured nobody knows when."""
    flags = ("QUES", *item.flags) if doubtful and item.value is not None else item.flags
    return replace(item, flags=flags, episodic=True)


def _once(item: Condition) -> tuple[str, str | None]:
    """The states of the ECG stand in three groups and are told once."""
    return item.code, None if item.code.startswith("ECG_") else item.sub
