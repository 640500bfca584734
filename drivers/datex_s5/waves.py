"""Waves (main type 1): blocks of samples, one subrecord for each wave (GE 8005313, pages 65 to 77).

A block is the number of samples, a status word, a label, and the samples. The number is not always what the rate
promises (99 or 101 for 100), so the block is trusted, not the clock. Which lead or pressure a wave shows is said by
the labels of the physiological data; before these were heard the wave has the general name.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from drivers.datex_s5.ecg12 import read_ecg12
from drivers.datex_s5.numerics import lead_of
from drivers.datex_s5.record import Subrecord
from drivers.datex_s5.tables import WaveType, label_keys, wave_types
from gateway.errors import ContentError
from gateway.formats.observing import VENDOR_PREFIX, observe_wave
from gateway.formats.terms import term, unit_of
from gateway.model import Condition, Wave

SAMPLE_CONTROL_MAX = -32000  # this and what is below are no samples

_BLOCK = struct.Struct("<hHH")
_GAP, _PACER, _LEAD_OFF = 0x1, 0x4, 0x8
_ECG12 = 22


@dataclass(frozen=True, slots=True)
class Blocks:
    """What one wave record holds."""

    waves: tuple[Wave, ...]
    conditions: tuple[Condition, ...]


def read_waves(parts: tuple[Subrecord, ...], labels: Mapping[str, int], lost: bool) -> Blocks:
    """Read the subrecords of a wave record.

    `labels` are the label words of the groups heard last; `lost` tells that records before this one were lost. Raises
    ContentError when a block is cut short.
    """
    waves: list[Wave] = []
    conditions: list[Condition] = []
    for part in parts:
        kind = wave_types().get(part.kind)
        if kind is None:
            conditions.append(_unknown(part.kind))
            continue
        status, label, raw = _block(part)
        gap = lost or bool(status & _GAP)
        if kind.number == _ECG12:
            waves += read_ecg12(part.data[_BLOCK.size :], kind.sub, label, gap)
        else:
            waves.append(_wave(kind, raw, labels, gap))
        conditions += _conditions(kind, status)
    return Blocks(tuple(waves), tuple(conditions))


def _block(part: Subrecord) -> tuple[int, int, tuple[int, ...]]:
    if len(part.data) < _BLOCK.size:
        raise ContentError("a wave block without a header")
    count, status, label = _BLOCK.unpack_from(part.data)
    if part.kind == _ECG12:
        return status, label, ()
    if count < 0 or len(part.data) < _BLOCK.size + 2 * count:
        raise ContentError(f"a wave block of {count} samples in {len(part.data)} bytes")
    return status, label, struct.unpack_from(f"<{count}h", part.data, _BLOCK.size)


def _wave(kind: WaveType, raw: tuple[int, ...], labels: Mapping[str, int], gap: bool) -> Wave:
    samples: tuple[int | None, ...] = raw
    if raw and min(raw) <= SAMPLE_CONTROL_MAX:
        samples = tuple([None if sample <= SAMPLE_CONTROL_MAX else sample for sample in raw])
    key = _key(kind, labels)
    is_vendors = key.startswith(VENDOR_PREFIX)
    found = observe_wave(
        key,
        samples,
        sub=kind.sub,
        period_s=Decimal(1) / kind.rate,
        factor=kind.factor,
        gap=gap,
        unit=kind.unit if is_vendors else None,
    )
    if is_vendors or kind.unit is None or kind.unit == term(key).ucum:
        return found
    known = unit_of(kind.unit)
    return replace(found, unit=kind.unit, unit_code=known.code, unit_refid=known.refid)


def _key(kind: WaveType, labels: Mapping[str, int]) -> str:
    if kind.key[0] != "@":
        return kind.key
    rule = kind.key[1:]
    if rule.startswith("lead"):
        lead = lead_of(labels.get("ecg", 0), int(rule[-1]))
        return label_keys("lead", "wave").get(lead, "ecg_wave")
    if rule == "agent":
        return label_keys("agent", "wave").get(labels.get("aa", 0), "x_datex_agent_wave")
    return label_keys("pressure", "wave").get(labels.get(rule, 0), "ibp")


def _conditions(kind: WaveType, status: int) -> list[Condition]:
    name = kind.name.upper()
    found = []
    if status & _LEAD_OFF:
        found.append(Condition(code=f"{name} LEAD OFF", text="lead off in this piece of the wave", sub=kind.sub))
    if status & _PACER:
        text = "pacemaker pulse in this piece of the wave"
        found.append(Condition(code=f"{name} PACER", text=text, technical=False, sub=kind.sub))
    return found


def _unknown(number: int) -> Condition:
    return Condition(code=f"WAVE TYPE {number}", text="a wave without a published rate: kept in the raw bytes only")
