"""A Nellcor N-595: a heading every 25 rows, a row every 2 s, `*` and status codes where a limit is violated."""

from datetime import datetime

from simulators.bedside import Saying, arguments, run
from simulators.recording import Vitals

ROWS_A_HEADING = 25
SPO2_LOW, SPO2_HIGH = 92, 100
PULSE_LOW, PULSE_HIGH = 50, 110
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Nellcor:
    """Renders the real-time printout."""

    period_s = 2.0

    def greet(self) -> bytes:
        """End the line that was cut when the cable was plugged in."""
        return b"  72   120\r\n"

    def say(self, ordinal: int, vitals: Vitals | None, clock: datetime) -> Saying:
        """Print one row, the heading before the first of every 25."""
        heading = self._heading() if (ordinal - 1) % ROWS_A_HEADING == 0 else ""
        stamp = f"{clock.day:02d}-{_MONTHS[clock.month - 1]}-{clock:%y %H:%M:%S}"
        row = f"{stamp}   ---      ---       ---      SD" if vitals is None else f"{stamp}{self._columns(vitals)}"
        return Saying(f"{heading}{row}\r\n".encode("ascii"), stamp)

    def hear(self, data: bytes) -> bytes:
        """Answer nothing."""
        return b""

    def _heading(self) -> str:
        limits = f"SpO2 Limit: {SPO2_LOW}-{SPO2_HIGH}%   PR Limit: {PULSE_LOW}-{PULSE_HIGH}BPM"
        return (
            f"N-595   VERSION 2.1.0.0    CRC:1234  {limits}\r\n"
            "        ADULT              0SAT-S                          SPO2 RESP MODE: NORMAL\r\n"
            "TIME                 %SPO2    BPM      PA       Status\r\n"
        )

    def _columns(self, vitals: Vitals) -> str:
        codes = []
        if vitals.pulse > PULSE_HIGH:
            codes.append("PH")
        if vitals.pulse < PULSE_LOW:
            codes.append("PL")
        if vitals.spo2 < SPO2_LOW:
            codes.append("SL")
        spo2 = f"{vitals.spo2}{'*' if 'SL' in codes else ' '}"
        pulse = f"{vitals.pulse}{'*' if {'PH', 'PL'} & set(codes) else ' '}"
        return f"   {spo2:>4}     {pulse:>4}      {40 + vitals.pulse % 60:>3}      {'  '.join(codes)}".rstrip()


if __name__ == "__main__":
    run(Nellcor(), arguments("nellcor", "A Nellcor N-595 pulse oximeter.").parse_args())
