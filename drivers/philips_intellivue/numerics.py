"""Numerics and enumerations: observed values to Observations (sheet section 11).

A value is told by the physio id inside it, never by its handle: handles change with the order of plugs. Two objects
with one physio id (two temperatures) lie in channels 1, 2, ... of their VMD.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from struct import Struct

from drivers.philips_intellivue import states
from drivers.philips_intellivue.codes import Meaning, meaning, name_of, unit_of
from drivers.philips_intellivue.messages import PolledObject
from drivers.philips_intellivue.values import absolute_time, elements, float_of, u16
from gateway.driver import Absent, Method, Observation
from gateway.errors import ContentError

NUMERIC, NUMERIC_COMPOUND = 0x0950, 0x094B
ENUMERATION, ENUMERATION_COMPOUND = 0x099E, 0x099F
TIME_STAMP, SPECIFICATION, MODALITY = 0x0990, 0x093F, 0xF294
MANUAL_BIT, APERIODIC_BIT, VERIFIED_BIT = 0x4000, 0x2000, 0x1000

_VALUE = Struct(">HHHI")
_SPECIFICATION = Struct(">IHHBBH")
_ENUMERATION = Struct(">HHHH")
_ENUMERATED_NUMBER = Struct(">HIH")
_METHODS = {
    1: Method.AUTO,
    2: Method.MANUAL,
    3: Method.SETTING_AUTO,
    4: Method.SETTING_MANUAL,
    5: Method.CALCULATED,
    6: Method.CALCULATED,
    128: Method.AUTO,
    129: Method.MANUAL,
    130: Method.SETTING_MANUAL,  # alarm limit setting
}
_INTERMITTENT = 0x8000  # metric access: intermittently available


@dataclass(frozen=True, slots=True)
class Specification:
    """How a metric comes about: its category as a Method, and whether it is measured now and then only."""

    method: Method = Method.AUTO
    episodic: bool = False


PLAIN = Specification()


def specification(data: bytes) -> Specification:
    """Read attribute 093F. Raises ContentError when it is cut short."""
    if len(data) < _SPECIFICATION.size:
        raise ContentError("a metric specification that is cut short")
    _, category, access, *_ = _SPECIFICATION.unpack_from(data)
    return Specification(_METHODS.get(category, Method.AUTO), bool(access & _INTERMITTENT))


def numerics_of(found: PolledObject, known: Specification) -> Iterator[Observation]:
    """Yield the values of one numeric object, simple and compound, each in channel 1. Raises ContentError."""
    values = found.values
    stamp = values.get(TIME_STAMP)
    how = _how(values.get(MODALITY), known, stamp is not None)
    if (simple := values.get(NUMERIC)) is not None:
        yield from _observations(simple, how, stamp)
    if (compound := values.get(NUMERIC_COMPOUND)) is not None:
        yield from _observations(elements(compound)[1], how, stamp)


def enumerations_of(found: PolledObject, known: Specification) -> Iterator[Observation]:
    """Yield the coded values of one enumeration object. Raises ContentError."""
    how = _how(found.values.get(MODALITY), known, False)
    if (simple := found.values.get(ENUMERATION)) is not None:
        yield from _enumerations(simple, how)
    if (compound := found.values.get(ENUMERATION_COMPOUND)) is not None:
        yield from _enumerations(elements(compound)[1], how)


def states_of(found: PolledObject) -> Iterator[int]:
    """Yield the state words of an object's values; a value that is cut short has none."""
    simple, compound = found.values.get(NUMERIC, b""), found.values.get(NUMERIC_COMPOUND, b"")
    for data in (simple, compound[4:], found.values.get(ENUMERATION, b"")[:4]):
        for at in range(2, len(data) - 1, _VALUE.size):
            yield int.from_bytes(data[at : at + 2], "big")


def in_channels(observations: Iterable[Observation]) -> tuple[Observation, ...]:
    """Return Observations with paths that are theirs alone: a repeated one moves to the next channel."""
    taken: set[str] = set()
    placed = []
    for seen in observations:
        sub, channel = seen.sub, 1
        while sub in taken:
            channel += 1
            first, second, _, metric = seen.sub.split(".")
            sub = f"{first}.{second}.{channel}.{metric}"
        taken.add(sub)
        placed.append(seen if sub == seen.sub else replace(seen, sub=sub))
    return tuple(placed)


def _how(modality: bytes | None, known: Specification, stamped: bool) -> Specification:
    if modality is None:
        return Specification(known.method, True) if stamped else known
    bits = u16(modality, 0)
    method = Method.MANUAL if bits & MANUAL_BIT else known.method
    return Specification(method, stamped or known.episodic or bool(bits & APERIODIC_BIT))


def _observations(data: bytes, how: Specification, stamp: bytes | None) -> Iterator[Observation]:
    if len(data) % _VALUE.size:
        raise ContentError("a numeric value that is cut short")
    first: Observation | None = None
    for physio, state, unit, word in _VALUE.iter_unpack(data):
        value, absent, flags = states.judged(state, float_of(word))
        means = meaning(physio, unit)
        seen = _observation(means, physio, value, absent, flags, how)
        first = first if first is not None or value is None else seen
        yield seen
    if first is not None and stamp is not None and (at := absolute_time(stamp)) is not None:
        yield _taken_at(first, at.isoformat(" "))


def _observation(
    means: Meaning,
    physio: int,
    value: Decimal | str | None,
    absent: Absent | None,
    flags: tuple[str, ...],
    how: Specification,
) -> Observation:
    if isinstance(value, Decimal) and not means.plausible(value) and "QUES" not in flags:
        flags = (*flags, "QUES")
    unit = means.unit
    return Observation(
        key=means.key,
        sub=f"1.{means.place}.1.{physio}",
        value=value,
        absent=absent,
        code=means.code,
        refid=means.refid,
        loinc=means.loinc,
        unit=None if unit is None else unit.ucum,
        unit_code=None if unit is None else unit.code,
        unit_refid=None if unit is None else unit.refid,
        flags=flags,
        method=how.method,
        episodic=how.episodic,
    )


def _taken_at(first: Observation, at: str) -> Observation:
    """Return when an intermittent value was measured, on the monitor's clock, which has no zone."""
    place, metric = first.sub.split(".")[1], int(first.sub.rsplit(".", 1)[1])
    key = f"x_philips_{first.key.removeprefix('x_philips_')}_taken_at"
    return Observation(key=key, sub=f"1.{place}.1.{metric + _STAMP_STEP}", value=at, episodic=True, method=first.method)


_STAMP_STEP = 100_000  # beyond the 16-bit physio ids that are the metrics' numbers


def _enumerations(data: bytes, how: Specification) -> Iterator[Observation]:
    at = 0
    while at < len(data):
        if len(data) - at < _ENUMERATION.size:
            raise ContentError("an enumeration that is cut short")
        physio, state, choice, size = _ENUMERATION.unpack_from(data, at)
        at += _ENUMERATION.size
        if len(data) - at < size:
            raise ContentError("an enumeration that is cut short")
        yield from _enumeration(physio, state, choice, data[at : at + size], how)
        at += size


def _enumeration(physio: int, state: int, choice: int, data: bytes, how: Specification) -> Iterator[Observation]:
    flags, absent = states.flags_of(state), states.absence_of(state)
    coded = meaning(physio, 0)
    text = name_of(u16(data, 0)) if choice in (1, 4) else data.hex()
    value = None if absent is not None else (text or None)
    yield _observation(coded, physio, value, absent or (None if value else Absent.NAV), flags, how)
    if choice == 4:
        if len(data) < _ENUMERATED_NUMBER.size:
            raise ContentError("an enumeration that is cut short")
        _, word, unit = _ENUMERATED_NUMBER.unpack_from(data)
        number, missing, flags = states.judged(state, float_of(word))
        with_number = replace(coded, key=f"x_philips_{coded.key.removeprefix('x_philips_')}_value", unit=unit_of(unit))
        seen = _observation(with_number, physio, number, missing, flags, how)
        yield replace(seen, code=None, refid=None, loinc=None, sub=f"1.{coded.place}.2.{physio}")
