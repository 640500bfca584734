"""The bytes of the Unity network, as a Dash 4000 was seen to make them."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

INVALID, MISSING = -32768, -32767
NO_SAMPLE = bytes.fromhex("800f")
BATCHES = 15
ECG_CHANNELS = (0x07, 0x08, 0x09, 0x0A)
_FOUR, _ONE, _OFF = 0x0B, 0x09, 0xFB
_SERVICES = ((0x03, 2000), (0x11, 32), (0x09, 2000), (0x13, 3000), (0x1C, 3001), (0x0D, 2000), (0x0C, 2000))


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryImage:
    """One parameter of a bed message, all 70 bytes of it."""

    code: int
    kind: int
    values: tuple[int, int, int]
    limits: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0)
    status: int = 0xC000
    extended: tuple[int, int, int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0, 0, 0)
    flags: tuple[int, int] = (0, 0)
    extra_limit: int = 0
    messages: bytes = bytes(10)
    more: bytes = bytes(10)
    position: int = 0
    port: int = 0


def header(
    address: bytes, *, sub: int, count: int, number: int = 0, target: bytes = b"", name: str = "", broadcast: int = 0
) -> bytes:
    """Build a header of 60 bytes; addresses are four bytes of IPv4."""
    packed = struct.pack(
        ">4s2x4s2xHHHHHH", target or address, address, 201, sub, 0 if broadcast else 1, number, broadcast, 0
    )
    return packed + name.encode("ascii").ljust(32, b"\0") + struct.pack(">HH", broadcast, count)


def bed_message(
    address: bytes, number: int, entries: Sequence[EntryImage], *, state: int, level: int, audio: int, admitted: int
) -> bytes:
    """Build a bed message with both headers."""
    head = bytes((state, level, audio, admitted, len(entries), 0))
    body = head + b"".join(_entry(entry, number) for entry in entries)
    inside = header(address, sub=20, count=len(body), number=number) + body
    return header(address, sub=20, count=len(inside)) + inside


def _entry(entry: EntryImage, number: int) -> bytes:
    return (
        struct.pack(">BBH3h", 1, entry.code, entry.status, *entry.values)
        + struct.pack(">BB6h", *entry.extended)
        + struct.pack(">BB2H6hh", 3, entry.code, *entry.flags, *entry.limits, entry.extra_limit)
        + entry.messages
        + entry.more
        + bytes((entry.kind, entry.code, entry.position, entry.port, number & 0xFF, 0))
    )


def wave_packet(number: int, channels: Mapping[int, Sequence[int] | None]) -> bytes:
    """Build 250 ms: 60 samples of an ECG channel, 15 of any other, None where the lead is off."""
    out = bytearray(struct.pack(">HH", number & 0xFFFF, 0))
    for batch in range(BATCHES):
        for code, samples in channels.items():
            count = 4 if code in ECG_CHANNELS else 1
            if samples is None:
                out += bytes((code, _OFF if count == 4 else 0xF9)) + NO_SAMPLE * count
            else:
                out += bytes((code, _FOUR if count == 4 else _ONE))
                out += struct.pack(f">{count}h", *samples[batch * count : (batch + 1) * count])
    trailer = bytes.fromhex("fa0d00090027") + bytes(13) + b"\x04" + bytes(15)
    return bytes(out) + trailer


def alarm_broadcast(
    address: bytes, network: bytes, location: str, *, level: int, code: int, text: str, counter: int
) -> bytes:
    """Build an alarm broadcast of 84 bytes."""
    head = header(address, target=network, sub=4, count=24, name=location, broadcast=1)
    return head + struct.pack(">BBBBH14sI", 0x81, level, level, code, 0x0101, text.encode("latin-1")[:13], counter)


def discovery(address: bytes, clock: int, location: str, patient: str) -> bytes:
    """Build a discovery broadcast of 88 bytes."""
    pairs = b"".join(struct.pack(">HH", *pair) for pair in _SERVICES)
    body = struct.pack(
        ">4s4sI16s15sB", b"\x01\x04\0\0", address, clock, location.encode(), patient.encode(), len(_SERVICES)
    )
    return (body + pairs).ljust(88, b"\0")
