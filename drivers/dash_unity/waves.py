"""Wave packets of the Unity network: 15 batches of a sixtieth of a second, four times a second.

A batch names each channel by a code and gives its samples: 4 of an ECG lead (240 a second), 1 of respiration and
pleth (60 a second). The scale of none is known: samples are published as counts under keys of the vendor.
"""

import struct
from dataclasses import dataclass, field
from decimal import Decimal

from gateway.errors import ContentError
from gateway.formats.observing import observe_wave
from gateway.model import Condition, Wave

TRAILER_BYTES = 35
_TRAILER_MARK = 0xFA0D
_NO_SAMPLE = 0x800F - 0x10000
_FLAGS_OFF = 0xFB
_BATCHES_A_SECOND = 60
_FOUR_SAMPLES, _ONE_SAMPLE = 0xB, 0x9  # low digit of the code
_CHANNELS = {
    0x07: ("ecg_i", "ECG I", "1.1.1.81"),
    0x08: ("ecg_ii", "ECG II", "1.1.1.82"),
    0x09: ("ecg_iii", "ECG III", "1.1.1.83"),
    0x0A: ("ecg_v", "ECG V", "1.1.1.84"),
    0x17: ("resp", "RESP", "1.1.2.81"),
    0x27: ("pleth", "PLETH", "1.5.1.81"),
}
_UNKNOWN_VMD = 20


@dataclass(slots=True)
class _Channel:
    per_batch: int
    is_off: bool = False
    samples: list[int] = field(default_factory=list)


def wave_number(data: bytes) -> int | None:
    """Return the sequence number of a wave packet, None where the datagram is none."""
    is_wave = len(data) > 4 + TRAILER_BYTES and data[2:4] == b"\0\0" and _samples_of(data[5]) > 0
    return int.from_bytes(data[:2], "big") if is_wave else None


def read_waves(data: bytes, gap: bool) -> tuple[tuple[Wave, ...], tuple[Condition, ...]]:
    """Read a wave packet; `gap` tells that packets before it were lost.

    Raises ContentError when it does not end with its trailer where the batches end.
    """
    channels: dict[int, _Channel] = {}
    at, end = 4, len(data) - TRAILER_BYTES
    while at < end:
        code, flags = data[at], data[at + 1]
        count = _samples_of(flags)
        if not count or at + 2 + 2 * count > end:
            raise ContentError("a wave channel without known samples")
        channel = channels.setdefault(code, _Channel(count))
        if channel.per_batch != count:
            raise ContentError("a wave channel that changes its rate")
        channel.is_off |= flags == _FLAGS_OFF
        channel.samples += struct.unpack_from(f">{count}h", data, at + 2)
        at += 2 + 2 * count
    if int.from_bytes(data[end : end + 2], "big") != _TRAILER_MARK:
        raise ContentError("a wave packet without its trailer")
    waves = tuple(_wave(code, channel, gap) for code, channel in channels.items())
    return waves, tuple(_lead_off(code) for code, channel in channels.items() if channel.is_off)


def _samples_of(flags: int) -> int:
    return {_FOUR_SAMPLES: 4, _ONE_SAMPLE: 1}.get(flags & 0xF, 0)


def _named(code: int) -> tuple[str, str, str]:
    return _CHANNELS.get(code, (f"{code:02x}", f"WAVE {code:02X}", f"1.{_UNKNOWN_VMD}.{code}.81"))


def _wave(code: int, channel: _Channel, gap: bool) -> Wave:
    name, _, sub = _named(code)
    samples = tuple(None if sample == _NO_SAMPLE else sample for sample in channel.samples)
    period_s = Decimal(1) / (_BATCHES_A_SECOND * channel.per_batch)
    return observe_wave(f"x_dash_{name}_wave", samples, sub=sub, period_s=period_s, gap=gap)


def _lead_off(code: int) -> Condition:
    _, name, sub = _named(code)
    return Condition(code=f"{name} OFF", text="lead off", sub=sub)
