"""Data format 8: four bytes a second, no checksum. Only the first has its highest bit set.

The first unit after noise only gets the format into step; it is not published. Numbers that no Device sends are noise
too: they are all that tells a wrong baud rate.
"""

from drivers.nonin.values import SPO2_MISSING, States, result_of
from gateway.model import Reading, Result
from gateway.protocols.border import reading_of

UNIT_BYTES = 4
SPO2_MAX = 100

_DISCONNECTED, _OUT_OF_TRACK, _LOW_PERFUSION, _MARGINAL_PERFUSION, _ARTIFACT = 0x40, 0x20, 0x10, 0x08, 0x04
_SENSOR_ALARM, _LOW_BATTERY = 0x08, 0x01
RESERVED_BITS = 0x56  # of the last byte


def sound_unit(unit: bytes | bytearray) -> bool:
    """Tell whether four bytes can be a unit: no pulse is 511 and never 0, no SpO2 is 127 and never above 100."""
    first, low, spo2, last = unit
    pulse = (first & 0x03) * 128 + low
    return first >= 0x80 > max(low, spo2, last) and pulse != 0 and (spo2 <= SPO2_MAX or spo2 == SPO2_MISSING)


class VitalFormat:
    """Format 8 of one Device."""

    name = "8"

    def measure(self, buffer: bytes | bytearray, start: int, in_step: bool) -> int:
        """Return 4 for a unit, 0 when more bytes are needed, -1 for noise."""
        unit = buffer[start : start + UNIT_BYTES]
        if (unit and unit[0] < 0x80) or any(later >= 0x80 for later in unit[1:]):
            return -1
        if len(unit) < UNIT_BYTES:
            return 0
        return UNIT_BYTES if sound_unit(unit) else -1

    def take(self, unit: bytes, in_step: bool) -> list[Reading]:
        """Take a unit: one Reading."""
        return [reading_of(unit, unit, _read)] if in_step else []

    def forget(self) -> None:
        """Nothing waits: every unit is a Reading."""


def _read(unit: bytes) -> tuple[Result, ...]:
    first, low, spo2, last = unit
    states = States(
        sensor_disconnected=bool(first & _DISCONNECTED),
        out_of_track=bool(first & _OUT_OF_TRACK),
        low_perfusion=bool(first & _LOW_PERFUSION),
        marginal_perfusion=bool(first & _MARGINAL_PERFUSION),
        artifact=bool(first & _ARTIFACT),
        sensor_alarm=bool(last & _SENSOR_ALARM),
        low_battery=bool(last & _LOW_BATTERY),
    )
    return (result_of((first & 0x03) * 128 + low, spo2, states),)
