"""What one monitor has said so far, and what its next message means in the product's words."""

import csv
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

from drivers.dash_unity.messages import AlarmCall, BedMessage, Discovery, Entry
from gateway.formats.observing import VENDOR_PREFIX, observe
from gateway.formats.terms import device_code
from gateway.model import (
    Absent,
    Condition,
    Containment,
    DeviceIdentity,
    Method,
    Observation,
    Phase,
    Priority,
    Result,
)

ALARM_OVER_S = 6.0  # three broadcasts that did not come
ALARMS_MAX = 50
DEVICE = DeviceIdentity(manufacturer="GE", model="Dash/Solar (Unity)")
SPECIAL = {
    -32768: (Absent.INV, ""),
    -32767: (Absent.NAV, ""),
    -32766: (Absent.BUSY, "BLOOD DRAW"),
    -32765: (Absent.BUSY, "FLUSHING"),
    -32764: (Absent.BUSY, "ZEROING"),
    -32763: (Absent.BUSY, "CALIBRATING"),
    -32762: (Absent.INV, "NO PULSE"),
    -32761: (Absent.INV, "SENSOR FAIL"),
}
_STATES = ("active", "silenced", "paused", "off", "volume off", "pause", "display off")
_LEVELS: tuple[tuple[str, bool, Priority], ...] = (
    ("status only", True, Priority.ADVISORY),
    ("system message", True, Priority.ADVISORY),
    ("system advisory", True, Priority.LOW),
    ("system warning", True, Priority.MEDIUM),
    ("message", False, Priority.ADVISORY),
    ("advisory", False, Priority.LOW),
    ("warning", False, Priority.MEDIUM),
    ("crisis", False, Priority.HIGH),
)
_MDS_SUB, _STATE_SUB, _ADMITTED_SUB, _LOCATION_SUB = "1.0.0.0", "1.0.0.4", "1.0.0.5", "1.0.0.6"
_UNKNOWN_VMD = 20
_MDS = "MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: the keys of its three values and its place in the device's tree."""

    name: str
    keys: tuple[str, str, str]
    prefix: str
    rows: tuple[Containment, Containment]
    is_episodic: bool


@cache
def parameter(code: int) -> Parameter:
    """Return the parameter of a code; one that is not in the table passes under the vendor's number."""
    return _table().get(code) or _unknown(code)


@cache
def _table() -> dict[int, Parameter]:
    with (Path(__file__).parent / "parameters.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["code"], 16): _parameter(row) for row in csv.DictReader(file)}


def _parameter(row: dict[str, str]) -> Parameter:
    vmd, prefix = f"1.{row['vmd']}.0.0", f"1.{row['vmd']}.{row['channel']}"
    return Parameter(
        name=row["name"],
        keys=(row["value0"], row["value1"], row["value2"]),
        prefix=prefix,
        rows=(_row(vmd, row["vmd_refid"]), _row(f"{prefix}.0", row["channel_refid"])),
        is_episodic=row["episodic"] == "1",
    )


def _unknown(code: int) -> Parameter:
    first, second, third = (f"x_dash_{code:02x}_value{number}" for number in range(3))
    rows = (_row(f"1.{_UNKNOWN_VMD}.0.0", "MDC_DEV_VMD"), _row(f"1.{_UNKNOWN_VMD}.{code}.0", "MDC_DEV_CHAN"))
    return Parameter(f"{code:02X}", (first, second, third), f"1.{_UNKNOWN_VMD}.{code}", rows, False)


def _row(sub: str, refid: str) -> Containment:
    return Containment(sub=sub, code=device_code(refid), refid=refid)


@dataclass(slots=True)
class _Standing:
    condition: Condition
    heard_at: float


class Bed:
    """Reads what one monitor says, one message after the other."""

    def __init__(self) -> None:
        self._episodes: dict[int, tuple[int, ...]] = {}
        self._level: Condition | None = None
        self._alarms: dict[str, _Standing] = {}

    @property
    def deadline(self) -> float | None:
        """Return when the next alarm is over for want of broadcasts."""
        return min((alarm.heard_at + ALARM_OVER_S for alarm in self._alarms.values()), default=None)

    def forget(self) -> None:
        """Forget which measurements were told: those of another monitor were measured nobody knows when."""
        self._episodes.clear()

    def read(self, message: BedMessage) -> Result:
        """Return the values on the screen and the alarm that stands."""
        seen: dict[str, int] = {}
        observations = list(_states(message))
        conditions = list(self._alarm_level(message))
        rows = [_row(_MDS_SUB, _MDS)]
        for entry in message.entries:
            known = parameter(entry.code)
            nth = seen[known.prefix] = seen.get(known.prefix, 0) + 1
            prefix = known.prefix if nth == 1 else f"{known.prefix.rpartition('.')[0]}.{100 * nth + entry.code % 100}"
            rows += [known.rows[0], replace(known.rows[1], sub=f"{prefix}.0")]
            observations += self._values(entry, known, prefix, nth)
            conditions += _conditions(entry, known, prefix)
        return Result(
            observations=tuple(observations),
            device=DEVICE,
            containment=tuple(dict.fromkeys(rows)),
            conditions=tuple(conditions),
        )

    def hear_alarm(self, call: AlarmCall, now: float) -> Result:
        """Return an alarm that the monitor tells to the network: it starts, or is still there."""
        phase = Phase.PRESENT if call.text in self._alarms else Phase.START
        prefix = parameter(call.code).prefix
        found = replace(_leveled(call.level, call.text or f"ALARM {call.code:02X}"), sub=f"{prefix}.0")
        if call.text in self._alarms or len(self._alarms) < ALARMS_MAX:
            self._alarms[call.text] = _Standing(found, now)
        location = observe("x_dash_location", call.location or "unknown", sub=_LOCATION_SUB)
        return Result(observations=(location,), device=DEVICE, conditions=(replace(found, phase=phase),))

    def take_over(self, now: float) -> Result | None:
        """Return the alarms that are over, None where there is none."""
        over = [text for text, alarm in self._alarms.items() if now >= alarm.heard_at + ALARM_OVER_S]
        ended = tuple(replace(self._alarms.pop(text).condition, phase=Phase.END) for text in over)
        return Result(observations=(), device=DEVICE, conditions=ended) if ended else None

    def _alarm_level(self, message: BedMessage) -> list[Condition]:
        before, self._level = self._level, None
        if message.alarm_level:
            word = _LEVELS[message.alarm_level][0] if message.alarm_level < len(_LEVELS) else "alarm"
            silenced = message.alarm_state != 0
            self._level = replace(_leveled(message.alarm_level, f"SCREEN {word.upper()}"), silenced=silenced)
        same = before is not None and self._level is not None and before.code == self._level.code
        told = [replace(before, phase=Phase.END)] if before is not None and not same else []
        if self._level is not None:
            told.append(replace(self._level, phase=Phase.PRESENT if same else Phase.START))
        return told

    def _values(self, entry: Entry, known: Parameter, prefix: str, nth: int) -> list[Observation]:
        first_seen = False
        if known.is_episodic:
            place = entry.code << 8 | nth
            if self._episodes.get(place) == entry.values:
                return []
            first_seen = place not in self._episodes
            self._episodes[place] = entry.values
        return [
            _value(key, raw, low_high, f"{prefix}.{number}", known.is_episodic, first_seen)
            for number, (key, raw, low_high) in enumerate(zip(known.keys, entry.values, entry.limits, strict=True), 1)
        ]


def discovered(found: Discovery) -> Result:
    """Return the presence of a monitor: where it stands, and its clock. Its patient's name is left out."""
    clock = datetime.fromtimestamp(found.clock, UTC).replace(tzinfo=None)
    return Result(
        observations=(observe("x_dash_location", found.location or "unknown", sub=_LOCATION_SUB),),
        device=DEVICE,
        device_time=f"{clock:%Y-%m-%d %H:%M:%S}",
        device_clock=clock,
    )


def _value(key: str, raw: int, limits: tuple[int, int], sub: str, episodic: bool, doubtful: bool) -> Observation:
    low, high = (Decimal(limits[0]), Decimal(limits[1])) if limits != (0, 0) else (None, None)
    if raw in SPECIAL:
        return observe(key, None, sub=sub, absent=SPECIAL[raw][0], low=low, high=high, episodic=episodic)
    flags: tuple[str, ...] = ("QUES",) if doubtful else ()  # nobody knows when it was measured
    if not key.startswith(VENDOR_PREFIX) and low is not None and high is not None:
        flags = (*flags, "H") if raw > high else (*flags, "L") if raw < low else flags
    return observe(key, Decimal(raw), sub=sub, low=low, high=high, flags=flags, episodic=episodic)


def _states(message: BedMessage) -> tuple[Observation, ...]:
    known = message.alarm_state < len(_STATES)
    state = _STATES[message.alarm_state] if known else str(message.alarm_state)
    return (
        observe("x_dash_alarm_state", state, sub=_STATE_SUB, method=Method.SETTING_MANUAL),
        observe("x_dash_admitted", "yes" if message.is_admitted else "no", sub=_ADMITTED_SUB),
    )


def _conditions(entry: Entry, known: Parameter, prefix: str) -> list[Condition]:
    found = [
        Condition(code=f"{known.name} {name}", text=name.lower(), sub=f"{prefix}.{number}")
        for number, raw in enumerate(entry.values, 1)
        if (name := SPECIAL.get(raw, (None, ""))[1])
    ]
    text = "message on the screen whose text is not public"
    return found + [
        Condition(code=f"{known.name} MESSAGE {number:02X}", text=text, sub=f"{prefix}.0")
        for number in entry.messages
        if number
    ]


def _leveled(level: int, code: str) -> Condition:
    text, technical, priority = _LEVELS[min(level, len(_LEVELS) - 1)]
    return Condition(code=code, text=text, technical=technical, priority=priority)
