"""Data format 13: one frame per spot check, with the Device's clock; stored measurements come first.

00 02  00 0D  length  century year month day hour minute second fraction  status  pulse  0  SpO2 ...  checksum 03
"""

from drivers.nonin.values import States, result_of
from gateway.errors import ContentError
from gateway.model import Reading, Result
from gateway.protocols.border import reading_of

HEADER = bytes((0x00, 0x02, 0x00, 0x0D))
DATA_BYTES_MIN = 14
DATA_BYTES_MAX = 96  # longer than any described; a larger length is noise
FRAME_BYTES_MAX = len(HEADER) + 2 + DATA_BYTES_MAX + 2
_END = 0x03

_NO_MEASUREMENT = 0x01
_FROM_MEMORY, _LOW_BATTERY = 0x10, 0x01


class SpotFormat:
    """Format 13 of one Device."""

    name = "13"

    def measure(self, buffer: bytes | bytearray, start: int, in_step: bool) -> int:
        """Return the length of a frame whose checksum holds, 0 when more bytes are needed, -1 for noise."""
        head = bytes(buffer[start : start + len(HEADER) + 2])
        if not head.startswith(HEADER[: len(head)]):
            return -1
        if len(head) < len(HEADER) + 2:
            return 0
        data_bytes = int.from_bytes(head[len(HEADER) :], "big")
        if not DATA_BYTES_MIN <= data_bytes <= DATA_BYTES_MAX:
            return -1
        frame = buffer[start : start + len(head) + data_bytes + 2]
        if len(frame) < len(head) + data_bytes + 2:
            return 0
        sound = frame[-1] == _END and sum(frame[len(head) : -2]) & 0xFF == frame[-2]
        return len(frame) if sound else -1

    def take(self, unit: bytes, in_step: bool) -> list[Reading]:
        """Take a frame: one Reading."""
        return [reading_of(unit, unit[len(HEADER) + 2 : -2], _read)]

    def forget(self) -> None:
        """Nothing waits: every unit is a Reading."""


def _read(data: bytes) -> tuple[Result, ...]:
    high, low = data[8], data[9]
    states = States(
        no_measurement=bool(high & _NO_MEASUREMENT),
        from_memory=bool(low & _FROM_MEMORY),
        low_battery=bool(low & _LOW_BATTERY),
    )
    pulse = int.from_bytes(data[10:12], "big") & 0x1FF
    return (result_of(pulse, data[13] & 0x7F, states, device_time=_device_time(data[:7]), episodic=True),)


def _device_time(digits: bytes) -> str:
    text = digits.hex()
    if not text.isdecimal():
        raise ContentError("the time stamp is not BCD")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]} {text[8:10]}:{text[10:12]}:{text[12:]}"
