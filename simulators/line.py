"""A capnograph that prints one line a second, `$CO2,<time>,<etCO2>,<rate>,<alarms>*hh`, hh as NMEA 0183 has it."""

from datetime import datetime
from functools import reduce
from operator import xor

from simulators.bedside import Saying, arguments, run
from simulators.recording import Vitals

RATE_LOW = 8


class Capnograph:
    """Renders the lines; its breaths follow the recorded pulse, since the recording has no capnogram."""

    period_s = 1.0

    def greet(self) -> bytes:
        """Tell the software, as it does when it is switched on."""
        return b"$BOOT 1.0\r\n"

    def say(self, ordinal: int, vitals: Vitals | None, clock: datetime) -> Saying:
        """Print one line."""
        stamp = f"{clock:%H:%M:%S}"
        if vitals is None:
            return Saying(_line(f"CO2,{stamp},--,--,OC"), stamp)
        rate = vitals.pulse // 5
        alarms = "AP" if rate < RATE_LOW else ""
        return Saying(_line(f"CO2,{stamp},{20 + vitals.spo2 // 5},{rate},{alarms}"), stamp)

    def hear(self, data: bytes) -> bytes:
        """Answer nothing."""
        return b""


def _line(text: str) -> bytes:
    data = text.encode("ascii")
    return b"$%s*%02X\r\n" % (data, reduce(xor, data, 0))


if __name__ == "__main__":
    run(Capnograph(), arguments("line", "A capnograph that prints lines.").parse_args())
