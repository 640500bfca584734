"""Waves: sample arrays, their context, and the places where samples are missing (sheet section 12).

The context of a wave object (samples per block, period, scale, unit) comes before or between its samples. Before it is
known a wave is published unscaled, under a vendor's key that says so: a millivolt is never guessed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Context, Decimal
from struct import Struct, unpack

from drivers.philips_intellivue import states
from drivers.philips_intellivue.codes import UNIT_NONE, meaning, name_of, unit_of, vendor_key
from drivers.philips_intellivue.messages import PolledObject
from drivers.philips_intellivue.values import TICKS_A_SECOND, apart, elements, float_of, u16, u32
from gateway.driver import Wave
from gateway.errors import ContentError

SAMPLES, SAMPLES_COMPOUND = 0x096E, 0x0967
ARRAY, PERIOD, FIXED_VALUES, SCALE, UNIT = 0x096D, 0x098D, 0x0A16, 0x096F, 0x0996
BLOCK_TICKS = 2048  # 256 ms, what a periodic poll delivers at a time (guide p. 60)
WAVES_MAX = 64  # an object list cannot name more; older ones are forgotten

EXTENDED_RANGE = 0x1000
FIXED_INVALID, FIXED_SATURATION = 1, 4

_NO_SAMPLES = states.INVALID | states.UNAVAILABLE | states.CALIBRATION | states.TEST_DATA
_HEAD = Struct(">HHH")
_ARRAY = Struct(">HBBH")
_SCALE = Struct(">IIHH")
_ROUNDING = Context(prec=12)
_MILLISECONDS = {ticks: Decimal(ticks) / TICKS_A_SECOND for ticks in (8, 16, 32, 64, 128, 256)}
_BY_BYTES = 8


@dataclass(slots=True)
class WaveContext:
    """What is known of one wave object; None where the monitor has not said it yet."""

    sample_bits: int = 16
    mask: int | None = None  # set where the upper bits are marks, not value
    period_ticks: int | None = None
    missing: frozenset[int] = frozenset()  # samples that stand for "none"
    unit: int = UNIT_NONE
    scale: tuple[Decimal, Decimal] | None = None  # factor, offset
    scaled: bool = False  # the monitor has stated a scale, be it that there is none
    due: dict[int, int] = field(default_factory=dict)  # by physio id: the relative time of the next sample

    def learn(self, values: dict[int, bytes]) -> None:
        """Take the attributes of context that stand among the values. Raises ContentError when one is cut short."""
        if (array := values.get(ARRAY)) is not None:
            self._learn_array(array)
        if (period := values.get(PERIOD)) is not None:
            self.period_ticks = u32(period, 0) or None
        if (unit := values.get(UNIT)) is not None:
            self.unit = u16(unit, 0)
        if (scale := values.get(SCALE)) is not None:
            self.scaled, self.scale = True, _scale(scale)
        if (fixed := values.get(FIXED_VALUES)) is not None:
            self.missing = _missing(elements(fixed)[1])

    def _learn_array(self, array: bytes) -> None:
        if len(array) < _ARRAY.size:
            raise ContentError("a sample array specification that is cut short")
        _, bits, significant, flags = _ARRAY.unpack_from(array)
        self.sample_bits = bits
        self.mask = (1 << significant) - 1 if flags & EXTENDED_RANGE else None


@dataclass(frozen=True, slots=True)
class Block:
    """One sample array as it came: the physio id, the state, the bytes of its samples."""

    physio: int
    state: int
    data: bytes


def blocks_of(found: PolledObject) -> Iterator[Block]:
    """Yield the sample arrays of an object, single and compound. Raises ContentError when one is cut short."""
    if (single := found.values.get(SAMPLES)) is not None:
        yield from _blocks(single)
    if (compound := found.values.get(SAMPLES_COMPOUND)) is not None:
        yield from _blocks(elements(compound)[1])


def wave_of(block: Block, known: WaveContext, ticks: int) -> Wave | None:
    """Return the piece of wave in a block whose first sample is at `ticks`; None for one that came too late.

    A block that does not begin where the one before ended has a gap before it.
    """
    samples = _samples(block, known)
    if not samples:
        return None
    period = known.period_ticks or BLOCK_TICKS // len(samples) or 1
    due = known.due.get(block.physio)
    late = 0 if due is None else apart(due, ticks)
    if -WAVES_MAX * BLOCK_TICKS < late < 0:
        return None
    known.due[block.physio] = (ticks + period * len(samples)) % (1 << 32)
    return _wave(block, known, samples, period, gap=bool(late))


def _wave(block: Block, known: WaveContext, samples: tuple[int | None, ...], period: int, gap: bool) -> Wave:
    means = meaning(block.physio, known.unit)
    unit = unit_of(known.unit) if known.scaled else None
    factor, offset = known.scale or (Decimal(1), Decimal(0))
    return Wave(
        key=means.key if known.scaled else vendor_key(block.physio, "_unscaled"),
        sub=f"1.{means.place}.1.{block.physio}",
        samples=samples,
        period_s=_MILLISECONDS.get(period) or Decimal(period) / TICKS_A_SECOND,
        factor=factor,
        offset=offset,
        code=means.code if known.scaled else None,
        refid=means.refid if known.scaled else None,
        unit=None if unit is None else unit.ucum,
        unit_code=None if unit is None else unit.code,
        unit_refid=None if unit is None else unit.refid,
        gap=gap,
    )


def _blocks(data: bytes) -> Iterator[Block]:
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise ContentError("a sample array that is cut short")
        physio, state, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if len(data) - at < size:
            raise ContentError(f"a sample array of {name_of(physio)} that is cut short")
        yield Block(physio, state, data[at : at + size])
        at += size


def _samples(block: Block, known: WaveContext) -> tuple[int | None, ...]:
    data = block.data
    raw: tuple[int, ...] = tuple(data)
    if known.sample_bits != _BY_BYTES:
        raw = unpack(f">{len(data) // 2}H", data[: len(data) & ~1])
    if block.state & _NO_SAMPLES:
        return (None,) * len(raw)
    if known.mask is not None:
        mask = known.mask
        return raw if not raw or max(raw) <= mask else tuple([sample & mask for sample in raw])
    if known.missing and not known.missing.isdisjoint(raw):
        missing = known.missing
        return tuple([None if sample in missing else sample for sample in raw])
    return raw


def _scale(data: bytes) -> tuple[Decimal, Decimal] | None:
    """Return factor and offset of scale and range (096F), None where the wave has no absolute unit."""
    if len(data) < _SCALE.size:
        raise ContentError("a scale that is cut short")
    low_word, high_word, low_scaled, high_scaled = _SCALE.unpack_from(data)
    low, high = float_of(low_word), float_of(high_word)
    if not isinstance(low, Decimal) or not isinstance(high, Decimal) or low_scaled == high_scaled:
        return None
    factor = _ROUNDING.divide(high - low, Decimal(high_scaled - low_scaled))
    return factor, _ROUNDING.subtract(low, factor * low_scaled)


def _missing(entries: bytes) -> frozenset[int]:
    """Return the sample values that mean "invalid" or "saturated" (fixed values 0A16)."""
    found = (int.from_bytes(entries[at : at + 4], "big") for at in range(0, len(entries) - 3, 4))
    return frozenset(pair & 0xFFFF for pair in found if pair >> 16 in (FIXED_INVALID, FIXED_SATURATION))
