"""Physiological data (main type 0): displayed values and trends of four classes (GE 8005313, pages 14 to 60).

A subrecord of 278 bytes is time, 270 bytes of groups, a marker and the class. A group begins with a status word (bit
0: there is such a module, bit 1: it measures) and a label. A number is good when it is no control value and its group
is there and measures: a monitor fills groups that are newer than itself with 0.

A group that is not there gives nothing, unless it was there before on this line: then its values are OFF.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache

from drivers.datex_s5.tables import Choice, Field, Group, State, electrodes, groups, label_keys
from gateway.errors import ContentError
from gateway.formats.observing import VENDOR_PREFIX, observe
from gateway.formats.terms import term, unit_of
from gateway.model import Absent, Condition, Observation

SUBRECORD_BYTES = 278
CLASS_NAMES = ("basic", "ext1", "ext2", "ext3")
CONTROL_MAX = -32001  # this and what is below are no numbers

_WORDS = struct.Struct("<135h")
_TIME = struct.Struct("<I")
_MARKER_AT, _CLASS_AT = 274, 276
_EXISTS, _ACTIVE = 0x1, 0x2
_PTC_MIN = -31000
_PTC_NONE = 31
_MODE_MASK, _MODE_TOF = 0xC, 0x0
_ECG_SOURCES = frozenset({1, 9})
_RR_FROM_CO2_LEVEL = 8  # from this level on the CO2 group's rate is always that of CO2
_RR_IMPEDANCE, _FI_OXYGEN = 2, 2  # in the CO2 group's label

SPECIAL: dict[int, tuple[Absent, tuple[str, ...]]] = {
    -32768: (Absent.INV, ()),
    -32767: (Absent.INV, ()),
    -32766: (Absent.NAV, ()),  # not updated
    -32765: (Absent.NI, ()),  # discontinuity of a trend
    -32764: (Absent.INV, ("<",)),  # under range
    -32763: (Absent.INV, (">",)),  # over range
    -32762: (Absent.INV, ("CAL",)),  # not calibrated
}
_OTHER_CONTROL: tuple[Absent, tuple[str, ...]] = (Absent.NI, ())


@dataclass(frozen=True, slots=True)
class Words:
    """A group's own words: its status, its label, the monitor's level, and the effects of the states it reports."""

    status: int
    label: int
    level: int
    effects: frozenset[str]

    @property
    def is_measuring(self) -> bool:
        """Tell whether the module is there and measures."""
        return self.status & (_EXISTS | _ACTIVE) == _EXISTS | _ACTIVE


@dataclass(frozen=True, slots=True)
class Seen:
    """What one group said."""

    group: Group
    words: Words
    observations: tuple[Observation, ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Numerics:
    """One subrecord: its class, the time of its values in Unix seconds, the user's mark, and its groups."""

    number: int
    time: int
    marker: int
    seen: tuple[Seen, ...]


def read_numerics(data: bytes, level: int, known: Mapping[str, int], vmd_base: int = 0) -> Numerics:
    """Read one subrecord of displayed values or a trend.

    `known` are the groups that were there before, with the labels they had; `vmd_base` is added to the VMD numbers,
    so that trends stand apart.
    Raises ContentError when the length or the class is none.
    """
    if len(data) != SUBRECORD_BYTES:
        raise ContentError(f"numerics of {len(data)} bytes, expected {SUBRECORD_BYTES}")
    number = data[_CLASS_AT + 1] & 0x0F
    if number >= len(CLASS_NAMES):
        raise ContentError(f"class {number} is none")
    words = _WORDS.unpack_from(data, 4)
    seen = [
        _read_group(group, data, words, level, vmd_base, known.get(group.name, 0))
        for group in groups()[number]
        if words[group.place] & _EXISTS or group.name in known
    ]
    return Numerics(number, _TIME.unpack_from(data)[0], data[_MARKER_AT], tuple(seen))


def _read_group(group: Group, data: bytes, words: tuple[int, ...], level: int, vmd_base: int, last_label: int) -> Seen:
    prefix = f"1.{vmd_base + group.vmd}.{group.channel}"
    status = _wide(words, group.place)
    label = words[group.place + 2] & 0xFFFF if status & _EXISTS else last_label
    states = tuple(_states(group, status, label, words)) if group.has_header and status & _EXISTS else ()
    own = Words(status, label, level, frozenset([state.effect for state in states if state.effect]))
    observations = [*_choices(group, own, prefix)]
    for field in group.fields:
        if field.level <= level <= field.until:
            observations += _read_field(group, field, data, words, own, prefix)
    conditions = tuple([_condition(state, f"{prefix}.0") for state in states])
    return Seen(group, own, tuple(observations), conditions)


def _wide(words: tuple[int, ...], place: int) -> int:
    return (words[place] & 0xFFFF) | (words[place + 1] & 0xFFFF) << 16


def _states(group: Group, status: int, label: int, words: tuple[int, ...]) -> Iterator[State]:
    flags = next((_wide(words, field.place) for field in group.fields if field.wide == 32), 0)
    said = {"status": status, "label": label, "flags": flags if status & _ACTIVE else 0}
    return (state for state in group.states if said[state.word] & state.mask)


def _condition(state: State, sub: str) -> Condition:
    return Condition(code=state.code, text=state.text, technical=state.technical, sub=sub, mdc=state.event)


def _choices(group: Group, own: Words, prefix: str) -> Iterator[Observation]:
    if not own.status & _EXISTS:
        return
    for choice in group.choices:
        code = ((own.status if choice.word == "status" else own.label) >> choice.shift) & choice.mask
        yield observe(choice.key, _name(choice, code), sub=f"{prefix}.{choice.metric}")


def _name(choice: Choice, code: int) -> str:
    return choice.names.get(code, str(code))


def _read_field(
    group: Group, field: Field, data: bytes, words: tuple[int, ...], own: Words, prefix: str
) -> Iterator[Observation]:
    if field.wide == 32:  # the arrhythmia flags: conditions
        return
    sub = f"{prefix}.{field.metric}"
    if field.wide == 8:
        yield _electrode(field, data[4 + field.offset], own, sub)
    elif field.key == "@ptc":
        yield from _twitches(words[field.place], own, prefix)
    else:
        is_good = words[field.place] > CONTROL_MAX and own.is_measuring
        yield _observation(_key(group, field, own, is_good), field.scale, field.unit, words[field.place], own, sub)


def _electrode(field: Field, code: int, own: Words, sub: str) -> Observation:
    if not own.is_measuring:
        return observe(field.key, None, sub=sub, absent=Absent.OFF)
    return observe(field.key, electrodes().get(code, str(code)), sub=sub)


def _twitches(raw: int, own: Words, prefix: str) -> Iterator[Observation]:
    """Yield what the one word of the relaxation module packs: post-tetanic count, count, current in mA."""
    is_good = raw > _PTC_MIN and own.is_measuring
    ptc, count, current = raw & 0x1F, raw >> 5 & 0xF, raw >> 9 & 0x7F
    missing = _why(raw, own)[0] if not is_good else Absent.NAV
    count_key = "train_of_four_count" if own.status & _MODE_MASK == _MODE_TOF else "x_datex_nmt_count"
    parts = (
        ("x_datex_nmt_ptc", ptc if is_good and ptc != _PTC_NONE else None, 3),
        (count_key, count if is_good else None, 4),
        ("x_datex_nmt_current_ma", current if is_good else None, 5),
    )
    for key, value, metric in parts:
        absent = missing if value is None else None
        yield observe(key, None if value is None else Decimal(value), sub=f"{prefix}.{metric}", absent=absent)


def _observation(key: str, scale: Decimal, unit: str | None, raw: int, own: Words, sub: str) -> Observation:
    vendor_unit, other_unit = _units(key, unit)
    if raw <= CONTROL_MAX or not own.is_measuring:
        absent, flags = _why(raw, own)
        found = observe(key, None, sub=sub, absent=absent, flags=flags, unit=vendor_unit)
    else:
        flags = ("QUES",) if own.effects else ()
        found = observe(key, raw * scale, sub=sub, flags=flags, unit=vendor_unit)
    if other_unit is None:
        return found
    known = unit_of(other_unit)
    return replace(found, unit=other_unit, unit_code=known.code, unit_refid=known.refid)


def _why(raw: int, own: Words) -> tuple[Absent, tuple[str, ...]]:
    """Return why there is no value: the module's states first, the control value then."""
    if not own.is_measuring or "off" in own.effects:
        return Absent.OFF, ()
    if "busy" in own.effects:
        return Absent.BUSY, ()
    return SPECIAL.get(raw, _OTHER_CONTROL)


@lru_cache(maxsize=512)
def _units(key: str, unit: str | None) -> tuple[str | None, str | None]:
    """Return the unit of a vendor key, and the unit that differs from that of a known key."""
    if key.startswith(VENDOR_PREFIX):
        return unit, None
    return None, unit if unit != term(key).ucum else None


def _key(group: Group, field: Field, own: Words, is_good: bool) -> str:
    if field.key[0] != "@":
        return field.key
    rule = field.key[1:]
    match rule:
        case "hr":
            source = own.status >> 3 & 0xF
            return "heart_rate" if source in _ECG_SOURCES or not (source or is_good) else "pulse_rate"
        case "st1" | "st2" | "st3":
            return label_keys("lead", "value").get(lead_of(own.label, int(rule[2])), "st_generic")
        case "sys" | "dia" | "mean":
            return label_keys("pressure", rule).get(own.label, f"ibp_{rule}")
        case "temp":
            return label_keys("temperature", "value").get(own.label, "temp")
        case "agent_et" | "agent_insp":
            return label_keys("agent", rule.removeprefix("agent_")).get(own.label, rule)
        case "so2":
            return label_keys("saturation", "value").get(own.label & 0x3, "so2")
        case "rr":
            is_impedance = own.level < _RR_FROM_CO2_LEVEL and own.label & 0x7 == _RR_IMPEDANCE
            return "resp_rate_impedance" if is_impedance else "resp_rate_co2"
        case "fi":
            return "x_datex_co2_fi" if own.label >> 3 & 0x7 == _FI_OXYGEN else "co2_insp_conc"
        case "tratio":
            return "train_of_four_ratio" if own.status & _MODE_MASK == _MODE_TOF else "x_datex_nmt_ratio"
    raise ContentError(f"no rule for {field.key} of {group.name}")


def lead_of(label: int, channel: int) -> int:
    """Return the lead code of an ECG channel, 1 to 3, in the label of the ECG group."""
    return label >> (12 - 4 * channel) & 0xF
