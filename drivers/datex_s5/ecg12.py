"""The ECG12 wave (type 22): eight leads at 500 samples a second, packed in steps of 10 ms (GE 8005313, pages 69-77).

An extended header of seven words, then blocks of 28 words: for each lead I, II, V1 to V6 its first sample and the
magnitudes of four differences, then their signs, a counter with the pacemaker's place, and a label. The remaining
four leads are computed from I and II by whom they concern.

UNVERIFIED, no capture exists: the higher byte of a word holds the earlier difference; one count is 1 uV.
"""

import struct
from decimal import Decimal

from gateway.errors import ContentError
from gateway.formats.observing import observe_wave
from gateway.model import Wave

LEADS = ("i", "ii", "v1", "v2", "v3", "v4", "v5", "v6")

_EXTENDED = struct.Struct("<7H")
_EXTENDED_BYTES = 14  # what its first word must say
_BLOCK = struct.Struct("<28h")
_SAMPLES_A_BLOCK = 5
_INVALID = -32767
_PERIOD_S = Decimal("0.002")
_FACTOR_MV = Decimal("0.001")
_FACTOR_SHIFT = 12  # bits 12 to 15 of the fifth status word
_FACTORS = {0: 1, 1: 4, 2: 8, 3: 16}


def read_ecg12(data: bytes, sub: str, label: int, gap: bool) -> list[Wave]:
    """Return the eight leads of what follows the block header; `sub` is the path of lead I, the others follow it.

    A lead whose bit in the label is clear gives no wave. Raises ContentError when the data are no ECG12.
    """
    if len(data) < _EXTENDED.size or _EXTENDED.unpack_from(data)[0] != _EXTENDED_BYTES:
        raise ContentError("no ECG12 header")
    factor = _FACTORS.get(_EXTENDED.unpack_from(data)[5] >> _FACTOR_SHIFT, 1)
    leads: list[list[int | None]] = [[] for _ in LEADS]
    usable = (len(data) - _EXTENDED.size) // _BLOCK.size * _BLOCK.size
    for words in _BLOCK.iter_unpack(data[_EXTENDED.size : _EXTENDED.size + usable]):
        for lead, samples in enumerate(leads):
            samples += _five(words, lead, factor)
    path, _, metric = sub.rpartition(".")
    return [
        observe_wave(
            f"ecg_wave_{name}",
            tuple(samples),
            sub=f"{path}.{int(metric) + number}",
            period_s=_PERIOD_S,
            factor=_FACTOR_MV,
            gap=gap,
        )
        for number, (name, samples) in enumerate(zip(LEADS, leads, strict=True))
        if label >> number & 1
    ]


def _five(words: tuple[int, ...], lead: int, factor: int) -> list[int | None]:
    first, early, late = words[3 * lead], words[3 * lead + 1] & 0xFFFF, words[3 * lead + 2] & 0xFFFF
    if first == _INVALID:
        return [None] * _SAMPLES_A_BLOCK
    magnitudes = (early >> 8, early & 0xFF, late >> 8, late & 0xFF)
    value, samples = first, [first]
    for number, magnitude in enumerate(magnitudes):
        signs = words[24 + number // 2]
        is_negative = signs >> (15 - 2 * lead - number % 2) & 1
        value += (-magnitude if is_negative else magnitude) * factor
        samples.append(value)
    return list(samples)
