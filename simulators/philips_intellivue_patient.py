"""What a simulated IntelliVue measures: the ICU recording as objects, and its waves as blocks of 256 ms."""

import csv
import struct
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from simulators.philips_intellivue_codec import (
    Thing,
    attribute,
    clock,
    listing,
    number,
    observed,
    samples,
    text,
)
from simulators.waveforms import FOLDER, signal

BLOCK_TICKS = 2048
INVALID, UNAVAILABLE, TEST, DEMO, IN_ALARM = 0x8000, 0x2000, 0x0800, 0x0400, 0x0002
BPM, PERCENT, MMHG, RPM, NONE, MILLIVOLT = 0x0AA0, 0x0220, 0x0F20, 0x0AE0, 0x0200, 0x10B2
HEART_RATE, HEART_RATE_HANDLE, SPO2, SPO2_HANDLE = 0x4182, 0x82D0, 0x4BB8, 0x841C

_FIELDS = ("hr", "abp_sys", "abp_dia", "abp_mean", "pulse", "resp", "spo2")


@dataclass(frozen=True, slots=True)
class WaveSource:
    """One wave: its code, handle, recorded signal, samples a block, and how a value becomes a sample."""

    physio: int
    handle: int
    name: str
    signal: str
    count: int
    significant: int
    flags: int
    low: float | None
    high: float | None
    decimals: int
    unit: int

    @property
    def top(self) -> int:
        """Return the largest sample."""
        return (1 << self.significant) - 1


WAVES = {
    found.physio: found
    for found in (
        WaveSource(0x0102, 0x02CB, "II", "ecg-ii", 128, 14, 0x3000, -40.96, 40.955, 3, MILLIVOLT),
        WaveSource(0x0101, 0x02CC, "I", "ecg-i", 128, 14, 0x3000, -40.96, 40.955, 3, MILLIVOLT),
        WaveSource(0x0143, 0x02CD, "V", "ecg-v", 128, 14, 0x3000, -40.96, 40.955, 3, MILLIVOLT),
        WaveSource(0x4BB4, 0x0421, "Pleth", "pleth", 32, 12, 0x8000, None, None, 0, NONE),
        WaveSource(0x4A14, 0x0354, "ABP", "abp", 32, 14, 0x2000, -40.0, 460.0, 0, MMHG),
        WaveSource(0x4A1C, 0x0358, "PAP", "pap", 32, 14, 0x2000, -40.0, 460.0, 0, MMHG),
        WaveSource(0x5000, 0x0500, "Resp", "resp", 16, 12, 0x8000, None, None, 0, NONE),
    )
}


@cache
def rows() -> tuple[dict[str, float], ...]:
    """Return the minutes of the recording that have all the values shown; a cuff reading stays until the next."""
    found: list[dict[str, float]] = []
    cuff = {"nibp_sys": 120.0, "nibp_dia": 70.0, "nibp_mean": 87.0}
    with (FOLDER / "numerics.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["nibp_sys"]:
                cuff = {name: float(row[name]) for name in cuff}
            if all(row[name] for name in _FIELDS):
                found.append({name: float(row[name]) for name in _FIELDS} | cuff)
    return tuple(found)


def numerics(row: dict[str, float], *, extra: int, sensors: bool, alarm: bool, cuff_at: datetime) -> list[Thing]:
    """Return the numeric objects of a minute; `extra` are state bits of all values, without sensors there is none."""
    off = 0 if sensors else INVALID

    def seen(physio: int, unit: int, name: str, decimals: int = 0, state: int = 0) -> bytes:
        value = row[name] if sensors else None
        return observed(physio, off | extra | (state if sensors else 0), unit, value, decimals)

    def plain(handle: int, value: bytes) -> Thing:
        return Thing(1, handle, (attribute(0x0950, value),))

    cuff = [
        observed(physio, extra, MMHG, row[name], 0)
        for physio, name in ((0x4A05, "nibp_sys"), (0x4A06, "nibp_dia"), (0x4A07, "nibp_mean"))
    ]
    pressure = [
        seen(physio, MMHG, name) for physio, name in ((0x4A17, "abp_mean"), (0x4A15, "abp_sys"), (0x4A16, "abp_dia"))
    ]
    return [
        Thing(0, 0x863C),
        Thing(1, 0x826E, (attribute(0x0990, clock(cuff_at)), attribute(0x094B, listing(*cuff)))),
        plain(HEART_RATE_HANDLE, seen(HEART_RATE, BPM, "hr", state=IN_ALARM if alarm else 0)),
        plain(0x82E9, observed(0x4261, extra, BPM, 0.0)),
        Thing(1, 0x8352, (attribute(0x094B, listing(*pressure)),)),
        plain(SPO2_HANDLE, seen(SPO2, PERCENT, "spo2", 1)),
        plain(0x8425, seen(0x4822, BPM, "pulse")),
        plain(0x842C, observed(0x4BB0, off | extra, NONE, 1.7 if sensors else None, 1)),
        plain(0x8500, seen(0x500A, RPM, "resp")),
    ]


def static_numerics(things: list[Thing]) -> list[Thing]:
    """Return the same objects with their static context alone: handle, type, specification."""
    return [
        Thing(
            thing.context,
            thing.handle,
            (
                attribute(0x0921, struct.pack(">H", thing.handle)),
                attribute(0x092F, struct.pack(">HH", 1, 6)),
                attribute(
                    0x093F, struct.pack(">IHHBBH", 8192, 1, 0xC228 if thing.handle == 0x826E else 0x4228, 0, 0, 0)
                ),
            ),
        )
        for thing in things
    ]


def wave_block(source: WaveSource, block: int, state: int, sensors: bool) -> Thing:
    """Return the samples of one block, counted from the monitor's start."""
    data = _played(source.physio)
    size = 2 * source.count
    start = block * size % len(data)
    piece = data[start : start + size]
    piece += data[: size - len(piece)]
    if not sensors:
        state, piece = state | INVALID, struct.pack(">H", (source.top + 1) // 2) * source.count
    return Thing(1, source.handle, (attribute(0x096E, samples(source.physio, state, piece)),))


def wave_context(source: WaveSource) -> tuple[bytes, ...]:
    """Return the attributes that say how a wave's samples are to be read."""
    low, high = number(source.low, source.decimals), number(source.high, source.decimals)
    return (
        attribute(0x0921, struct.pack(">H", source.handle)),
        attribute(0x092F, struct.pack(">HH", 1, 9)),
        attribute(0x093F, struct.pack(">IHHBBH", BLOCK_TICKS, 1, 0x4280, 0, 0, 0)),
        attribute(0x096D, struct.pack(">HBBH", source.count, 16, source.significant, source.flags)),
        attribute(0x0A16, listing(struct.pack(">HH", 4, 0x8008), struct.pack(">HH", 2, 0x8004))),
        attribute(0x098D, struct.pack(">I", BLOCK_TICKS // source.count)),
        attribute(0x0924, struct.pack(">I", 0x00020000 | source.physio)),
        attribute(0x0927, text(f"{source.name:<6}")),
        attribute(0x0996, struct.pack(">H", source.unit)),
        attribute(0x096F, low + high + struct.pack(">HH", 0, source.top)),
    )


@cache
def _played(physio: int) -> bytes:
    """Return a whole recorded wave as samples on the wire."""
    source = WAVES[physio]
    played, rate = signal(source.signal), source.count * 8000 // BLOCK_TICKS
    seconds = len(played.samples) // played.rate
    values = [played.at(place, rate) for place in range(seconds * rate)]
    low = min(values) if source.low is None else source.low
    high = max(values) if source.high is None else source.high
    scaled = (round((value - low) / (high - low) * source.top) for value in values)
    return struct.pack(f">{len(values)}H", *(min(max(sample, 0), source.top) for sample in scaled))
