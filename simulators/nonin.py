"""A Nonin oximeter in format 2, 7, 8, 13 or text; it obeys the format select command."""

import math
from datetime import datetime

from simulators.bedside import Saying, arguments, run
from simulators.recording import Vitals

FRAMES_A_PACKET = 25
PACKETS_A_SECOND = 3
SELECT = bytes((0x02, 0x70, 0x02, 0x02))
ACK, NAK = b"\x06", b"\x15"
_SELECTABLE = {0x02: "2", 0x07: "7", 0x08: "8", 0x0D: "13"}
_SENSOR_ALARM, _GREEN, _SYNC = 0x08, 0x02, 0x01
_NO_PULSE, _NO_SPO2 = 511, 127
_REVISION = 0x30


class Nonin:
    """Renders one second of data in the format chosen."""

    period_s = 1.0

    def __init__(self, form: str) -> None:
        self._format = form

    def greet(self) -> bytes:
        """Say nothing in binary formats; the text output starts with a heading."""
        return b"NONIN 05/07/26 10:15\r\n" if self._format == "text" else b""

    def say(self, ordinal: int, vitals: Vitals | None, clock: datetime) -> Saying:
        """Return one second."""
        pulse = _NO_PULSE if vitals is None else vitals.pulse
        spo2 = _NO_SPO2 if vitals is None else vitals.spo2
        match self._format:
            case "text":
                return Saying(_text(vitals))
            case "8":
                return Saying(bytes((0x80 | pulse >> 7, pulse & 0x7F, spo2, _SENSOR_ALARM if vitals is None else 0x20)))
            case "13":
                return Saying(_spot(pulse, spo2, clock), f"{clock:%Y-%m-%d %H:%M:%S}")
            case _:
                return Saying(b"".join(self._packet(pulse, spo2, number) for number in range(PACKETS_A_SECOND)))

    def hear(self, data: bytes) -> bytes:
        """Change the format when asked to."""
        if not data.startswith(SELECT) or len(data) < len(SELECT) + 2:
            return b""
        wanted = _SELECTABLE.get(data[len(SELECT)])
        if wanted is None:
            return NAK
        self._format = wanted
        return ACK

    def _packet(self, pulse: int, spo2: int, number: int) -> bytes:
        floats = _float_bytes(pulse, spo2)
        missing = pulse == _NO_PULSE
        frames = bytearray()
        for place in range(FRAMES_A_PACKET):
            status = 0x80 | (_SYNC if place == 0 else 0)
            status |= _SENSOR_ALARM if missing else (_GREEN if place in (2, 3, 4) else 0)
            wave = 0x8000 if missing else 0x8000 + int(0x3000 * math.sin((number * FRAMES_A_PACKET + place) / 12))
            frames += self._frame(status, wave, floats[place])
        return bytes(frames)

    def _frame(self, status: int, wave: int, value: int) -> bytes:
        body = bytes(
            (0x01, status, wave >> 8, value) if self._format == "2" else (status, wave >> 8, wave & 0xFF, value)
        )
        return body + bytes((sum(body) & 0xFF,))


def _float_bytes(pulse: int, spo2: int) -> bytes:
    high, low = pulse >> 7, pulse & 0x7F
    places = bytearray(FRAMES_A_PACKET)
    places[0:4] = bytes((high, low, spo2, _REVISION))
    places[8:11] = bytes((spo2, spo2, spo2))
    places[13:17] = bytes((high, low, spo2, spo2))
    places[19:23] = bytes((high, low, high, low))
    return bytes(places)


def _spot(pulse: int, spo2: int, clock: datetime) -> bytes:
    stamp = bytes.fromhex(f"{clock:%Y%m%d%H%M%S}00")
    status = 0x0001 if pulse == _NO_PULSE else 0x0200
    data = stamp + status.to_bytes(2, "big") + pulse.to_bytes(2, "big") + bytes((0, spo2))
    return bytes((0x00, 0x02, 0x00, 0x0D)) + len(data).to_bytes(2, "big") + data + bytes((sum(data) & 0xFF, 0x03))


def _text(vitals: Vitals | None) -> bytes:
    return (
        b"SPO2=--- HR=---\r\n"
        if vitals is None
        else f"SPO2={vitals.spo2:03d} HR={vitals.pulse:03d}\r\n".encode("ascii")
    )


if __name__ == "__main__":
    parser = arguments("nonin", "A Nonin pulse oximeter.")
    parser.add_argument("--format", choices=("2", "7", "8", "13", "text"), default="7")
    asked = parser.parse_args()
    run(Nonin(asked.format), asked)
