"""A Masimo Rad-8 in ASCII 1: one line a second."""

from datetime import datetime

from simulators.bedside import Saying, arguments, run
from simulators.recording import Vitals


class Masimo:
    """Renders ASCII 1 lines."""

    period_s = 1.0

    def greet(self) -> bytes:
        """End the line that was cut when the cable was plugged in."""
        return b"PM=097 PI=03.60% ALARM=0000 EXC=000800\r\n"

    def say(self, ordinal: int, vitals: Vitals | None, clock: datetime) -> Saying:
        """Return one line."""
        stamp = f"{clock:%m/%d/%y %H:%M:%S}"
        if vitals is None:
            values, exceptions = "SPO2=---% BPM=--- PI=--.--%", 0x000820
        else:
            perfusion = f"{1 + vitals.pulse % 7:02d}.{vitals.spo2 % 100:02d}"
            values, exceptions = f"SPO2={vitals.spo2:03d}% BPM={vitals.pulse:03d} PI={perfusion}%", 0x000800
        options = "SPCO=--.-% SPMET=--.-% DESAT=-- PIDELTA=+--"
        line = f"{stamp} SN=0000056661 {values} {options} ALARM=0000 EXC={exceptions:06X}\r\n"
        return Saying(line.encode("ascii"), stamp)

    def hear(self, data: bytes) -> bytes:
        """Answer nothing."""
        return b""


if __name__ == "__main__":
    run(Masimo(), arguments("masimo", "A Masimo Rad-8 pulse oximeter, ASCII 1 output.").parse_args())
