"""What stands in the messages of a BIS VISTA: processed variables, spectra, raw EEG. The length names the layout.

A trend block holds what was computed of one channel or of several; its fields, scales and offsets stand in `trend.csv`.
The bilateral layouts are declared in the public source and not used there: unverified.
"""

import csv
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path

from gateway.errors import ContentError

MISSING_MAX = -3277  # a value at or below this is none
SPECTRUM_BINS = 60  # 0.5 to 30 Hz
SPECTRA_BYTES = 4 + 2 * 2 * SPECTRUM_BINS
CHANNELS_MAX = 2

_COMMON = struct.Struct("<BBBBHH4i4H4I")  # 48 bytes in front of the blocks
_BILATERAL = struct.Struct("<BBBBHHhh4ih12s")
_BILATERAL_BLOCKS_AT, _BILATERAL_IMPEDANCES_AT = 104, 72


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the trend blocks stand in a message of one length."""

    first: int
    size: int
    names: tuple[str, ...]
    bilateral: bool


_NAMES = ("channel_1", "channel_2", "combined")
LAYOUTS = {
    120: Layout(48, 24, _NAMES, bilateral=False),
    156: Layout(48, 36, _NAMES, bilateral=False),
    288: Layout(_BILATERAL_BLOCKS_AT, 44, ("block_1", "block_2", "block_3", "block_4"), bilateral=True),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a trend block; an offset of None does not stand in that layout."""

    name: str
    key: str
    scale: Decimal
    unit: str | None
    offset: int | None
    offset_bilateral: int | None
    format: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Microvolts of raw EEG: gain * (sample - offset)."""

    gain: Decimal
    offset: Decimal


DEFAULT_SCALE = Scale(Decimal("0.05"), Decimal(-3234))  # until the first processed variables came


@dataclass(frozen=True, slots=True)
class Sensor:
    """Sensor and cable: whether the monitor takes them for genuine, and what its quick test found."""

    sensor_id: int
    sensor_legal: bool
    cable_id: int
    cable_legal: bool
    quick_test: int


@dataclass(frozen=True, slots=True)
class Processed:
    """One second of processed variables; values by field, None where there is none."""

    sensor: Sensor
    scale: Scale
    impedances: tuple[tuple[int, int], ...]  # value and test result
    filter: int
    smoothing: int
    blocks: tuple[tuple[str, dict[str, Decimal | None]], ...]
    spectra: tuple[tuple[Decimal | None, ...], ...]


@dataclass(frozen=True, slots=True)
class RawEeg:
    """Raw samples, one tuple for each channel."""

    rate: int
    channels: tuple[tuple[int, ...], ...]


@cache
def fields() -> tuple[Field, ...]:
    """Return the fields of a trend block."""
    return tuple(_fields())


def read_processed(message: bytes, with_spectra: bool) -> Processed:
    """Read processed variables (34h) or those with spectra (35h). Raises ContentError for a length not described."""
    spectra = message[-SPECTRA_BYTES:] if with_spectra else b""
    body = message[: len(message) - len(spectra)]
    layout = LAYOUTS.get(len(body))
    if layout is None or (with_spectra and len(spectra) != SPECTRA_BYTES):
        raise ContentError(f"processed variables of {len(message)} bytes: no such layout is known")
    blocks = tuple(
        (name, _block(body[layout.first + number * layout.size :][: layout.size], layout))
        for number, name in enumerate(layout.names)
    )
    return (_bilateral if layout.bilateral else _unilateral)(body, blocks, _spectra(spectra))


def read_raw_eeg(message: bytes) -> RawEeg:
    """Read raw EEG (32h). Raises ContentError when channels, rate and length do not fit together."""
    if len(message) < 4:
        raise ContentError(f"raw EEG of {len(message)} bytes")
    channels, rate = struct.unpack_from("<hh", message)
    count, rest = divmod(len(message) - 4, 2 * channels) if 1 <= channels <= CHANNELS_MAX else (0, 1)
    if rest or rate <= 0:
        raise ContentError(f"raw EEG of {channels} channels, {rate} samples a second, {len(message)} bytes")
    samples = struct.unpack_from(f"<{count * channels}h", message, 4)
    return RawEeg(rate, tuple(samples[channel::channels] for channel in range(channels)))


def _unilateral(
    body: bytes,
    blocks: tuple[tuple[str, dict[str, Decimal | None]], ...],
    spectra: tuple[tuple[Decimal | None, ...], ...],
) -> Processed:
    found = _COMMON.unpack_from(body)
    return Processed(
        sensor=Sensor(found[0], bool(found[1]), found[2], bool(found[3]), found[5]),
        scale=_scale(*found[6:10]),
        impedances=((found[10], found[11]), (found[12], found[13])),
        filter=found[14],
        smoothing=found[15],
        blocks=blocks,
        spectra=spectra,
    )


def _bilateral(
    body: bytes,
    blocks: tuple[tuple[str, dict[str, Decimal | None]], ...],
    spectra: tuple[tuple[Decimal | None, ...], ...],
) -> Processed:
    found = _BILATERAL.unpack_from(body)
    settings = struct.unpack_from("<8H4I", body, _BILATERAL_IMPEDANCES_AT)
    return Processed(
        sensor=Sensor(found[0], bool(found[1]), found[2], bool(found[3]), found[5]),
        scale=_scale(*found[8:12]),
        impedances=tuple(zip(settings[:8:2], settings[1:8:2], strict=True)),
        filter=settings[8],
        smoothing=settings[9],
        blocks=blocks,
        spectra=spectra,
    )


def _scale(gain: int, gain_divisor: int, offset: int, offset_divisor: int) -> Scale:
    if gain == 0 or gain_divisor == 0 or offset_divisor == 0:
        return DEFAULT_SCALE
    return Scale(Decimal(gain) / gain_divisor, Decimal(offset) / offset_divisor)


def _block(block: bytes, layout: Layout) -> dict[str, Decimal | None]:
    values: dict[str, Decimal | None] = {}
    for field in fields():
        offset = field.offset_bilateral if layout.bilateral else field.offset
        if offset is None or offset + struct.calcsize(field.format) > len(block):
            continue
        if layout.bilateral and field.name == "bursts":
            values[field.name] = Decimal(block[offset])  # a single byte in this layout
        else:
            values[field.name] = _value(struct.unpack_from(f"<{field.format}", block, offset)[0], field.scale)
    return values


def _value(number: int, scale: Decimal) -> Decimal | None:
    return None if number <= MISSING_MAX else number * scale


def _spectra(data: bytes) -> tuple[tuple[Decimal | None, ...], ...]:
    if not data:
        return ()
    channels, size = struct.unpack_from("<HH", data)
    if channels > CHANNELS_MAX or size > SPECTRUM_BINS:
        raise ContentError(f"spectra of {channels} channels and {size} bins")
    bins = struct.unpack_from(f"<{2 * SPECTRUM_BINS}h", data, 4)
    hundredth = Decimal("0.01")
    return tuple(
        tuple(_value(one, hundredth) for one in bins[channel * SPECTRUM_BINS :][:size]) for channel in range(channels)
    )


def _fields() -> Iterator[Field]:
    with (Path(__file__).parent / "trend.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield Field(
                name=row["name"],
                key=row["key"],
                scale=Decimal(row["scale"]),
                unit=row["unit"] or None,
                offset=int(row["offset"]) if row["offset"] else None,
                offset_bilateral=int(row["offset_bilateral"]) if row["offset_bilateral"] else None,
                format=row["format"],
            )
