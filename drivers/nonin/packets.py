"""Data formats 2 and 7: 75 frames of 5 bytes a second, 25 frames a packet, each number in its place of the packet.

A frame is found by its fixed bits and its checksum, two in a row to get into step; a packet's first frame carries
SYNC. A packet that lost a frame is dropped whole. Three packets, one second, make one Reading; the pleth wave goes
along where it is asked for.
"""

from dataclasses import replace
from decimal import Decimal

from drivers.nonin.values import States, ValueChoice, result_of
from gateway.driver import observe_wave
from gateway.model import Reading, Result, Wave
from gateway.protocols.border import reading_of

FRAME_BYTES = 5
PACKET_FRAMES = 25
PACKETS_A_READING = 3
SAMPLE_PERIOD_S = Decimal("0.0133333333")  # 75 a second
_PACKET_BYTES = FRAME_BYTES * PACKET_FRAMES

_SYNC, _SENSOR_ALARM, _OUT_OF_TRACK, _ARTIFACT, _DISCONNECTED = 0x01, 0x08, 0x10, 0x20, 0x40
_PERFUSION, _YELLOW, _RED = 0x06, 0x06, 0x04
_LOW_BATTERY = 0x01

# Places of the float bytes in a packet, counted from 0.
_PULSE, _SPO2, _REVISION, _STATUS_2, _SPO2_DISPLAY, _PULSE_DISPLAY = 0, 2, 3, 7, 8, 19


def sound_frame(buffer: bytes | bytearray, start: int, compressed: bool) -> bool:
    """Tell whether five bytes are a frame of format 2 (`compressed`) or 7."""
    first, second, third, fourth, checksum = buffer[start : start + FRAME_BYTES]
    if fourth & 0x80 or (first + second + third + fourth) & 0xFF != checksum:
        return False
    return _may_begin(first, compressed) and (second >= 0x80 or not compressed)


def _may_begin(first: int, compressed: bool) -> bool:
    return first == 0x01 if compressed else first >= 0x80


class PacketFormat:
    """Formats 2 and 7 of one Device: collects frames to packets and packets to Readings."""

    def __init__(self, *, compressed: bool, choice: ValueChoice, wave: bool = False) -> None:
        self.name = "2" if compressed else "7"
        self._compressed = compressed
        self._status_at = 1 if compressed else 0
        self._choice = choice
        self._wave = wave
        self._gap = False
        self._packet = bytearray()
        self._second = bytearray()

    def measure(self, buffer: bytes | bytearray, start: int, in_step: bool) -> int:
        """Return 5 for a sound frame, 0 when more bytes are needed, -1 for noise."""
        needed = FRAME_BYTES if in_step else 2 * FRAME_BYTES
        if start < len(buffer) and not _may_begin(buffer[start], self._compressed):
            return -1
        if len(buffer) - start < needed:
            return 0
        sound = all(sound_frame(buffer, start + at, self._compressed) for at in range(0, needed, FRAME_BYTES))
        return FRAME_BYTES if sound else -1

    def take(self, unit: bytes, in_step: bool) -> list[Reading]:
        """Take a frame; the last one of a second gives the Reading."""
        synchronous = bool(unit[self._status_at] & _SYNC)
        lost = bytes(self._packet) if synchronous or not in_step else b""
        del self._packet[: len(lost)]
        if synchronous or self._packet:
            self._packet += unit
        if lost:
            self._gap = True
            return [Reading(raw=lost, fault=f"a packet of format {self.name} lost frames")]
        if len(self._packet) < _PACKET_BYTES:
            return []
        self._second += self._packet
        self._packet.clear()
        if len(self._second) < PACKETS_A_READING * _PACKET_BYTES:
            return []
        raw = bytes(self._second)
        self._second.clear()
        return [reading_of(raw, raw, self._read)]

    def forget(self) -> None:
        """Let go of a second that is not whole."""
        self._gap = True
        self._packet.clear()
        self._second.clear()

    def _read(self, raw: bytes) -> tuple[Result, ...]:
        status = raw[self._status_at :: FRAME_BYTES]
        floats = raw[-_PACKET_BYTES:][3::FRAME_BYTES]
        display = self._choice == "display"
        pulse_at, spo2_at = (_PULSE_DISPLAY, _SPO2_DISPLAY) if display else (_PULSE, _SPO2)
        pulse = (floats[pulse_at] & 0x03) * 128 + (floats[pulse_at + 1] & 0x7F)
        revision = floats[_REVISION]
        states = _states(status, floats[_STATUS_2])
        result = result_of(pulse, floats[spo2_at], states, software=str(revision) if revision else None)
        return (replace(result, waves=(self._pleth(raw),)) if self._wave else result,)

    def _pleth(self, raw: bytes) -> Wave:
        """Return the 75 samples of a second: 8 bit in format 2, 16 bit in format 7, in no unit."""
        if self._compressed:
            samples = tuple(raw[2::FRAME_BYTES])
        else:
            samples = tuple(high << 8 | low for high, low in zip(raw[1::FRAME_BYTES], raw[2::FRAME_BYTES], strict=True))
        gap, self._gap = self._gap, False
        return observe_wave("pleth_wave", samples, sub="1.1.1.3", period_s=SAMPLE_PERIOD_S, gap=gap)


def _states(status: bytes, status_2: int) -> States:
    """Join the states of a second: what disturbs counts in any frame, what is missing now counts in the last packet."""
    ever = 0
    for bits in status:
        ever |= bits
    lately = 0
    for bits in status[-PACKET_FRAMES:]:
        lately |= bits
    perfusion = {bits & _PERFUSION for bits in status}
    return States(
        sensor_disconnected=bool(lately & _DISCONNECTED),
        sensor_alarm=bool(lately & _SENSOR_ALARM),
        out_of_track=bool(lately & _OUT_OF_TRACK),
        artifact=bool(ever & _ARTIFACT),
        low_perfusion=_RED in perfusion,
        marginal_perfusion=_YELLOW in perfusion,
        low_battery=bool(status_2 & _LOW_BATTERY),
    )
