"""Dräger ventilators (Evita 4, Evita V500) and an anaesthesia machine (Primus) on MEDIBUS and MEDIBUS.X.

    python -m simulators.medibus --model v500 --monitors 10 --pty beds/vent --fault alarm@20+10 --fault restart@60+5

Sends ICC every 3 s until somebody answers, then NOP every 2 s; embeds its identification request in the answer to ICC,
sends NOP and samples in the middle of slow frames, marks breaths, forgets everything after 3 s of silence. Every round
of values shows the next minute of the ICU recording. `--simulation` is the machine's own demo mode.
"""

import asyncio
import random
import time
from datetime import datetime, timedelta

from simulators.medibus_codec import ESC, NAK, SOH, HostEar, curve_record, damaged, frame, text_message
from simulators.medibus_models import LIMITS_HIGH, LIMITS_LOW, MODELS, PAW_HIGH, SENSOR_CODES, SPO2_LOST, Model
from simulators.medibus_patient import Lungs, lungs_of
from simulators.script import Script
from simulators.ward import Machine, arguments, play, serial_ends
from simulators.waveforms import bed_vitals

ICC_EVERY_S, NOP_AFTER_S, SILENCE_S = 3.0, 2.0, 3.0
SAMPLES_EVERY_S = 0.05  # how often collected samples leave
STREAMS_MAX = 4
NOISE_BYTES = 40
FIRST_TIME = datetime(2026, 7, 5, 10, 15)
_GERMAN = ["JAN", "FEB", "MAR", "APR", "MAI", "JUN", "JUL", "AUG", "SEP", "OKT", "NOV", "DEZ"]
_ENGLISH = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]


class MedibusDevice:
    """One Device; `script` says what goes wrong with it."""

    def __init__(
        self,
        model: Model,
        *,
        start: int = 0,
        seed: int = 1,
        script: Script | None = None,
        began: float = 0.0,
        simulation: bool = False,
    ) -> None:
        self.script = script or Script()
        self._model = model
        self._random = random.Random(seed)
        self._vitals = bed_vitals(start)
        self._lungs: Lungs = lungs_of(next(self._vitals))
        self._began = began
        self._simulation = simulation
        self._clock_offset = timedelta()
        self._output: list[bytes] = []
        self._icc_due = began
        self.values_sent = 0
        self._forget()

    def _forget(self) -> None:
        self._ear = HostEar()
        self._connected = False
        self._configured: list[tuple[str, int]] = []
        self._enabled: list[bool] = [False] * 12
        self._curves_from = 0.0
        self._next_sample: list[int] = []
        self._inspiring = False
        self._samples_due = 0.0
        self._heard_at = self._said_at = 0.0

    def receive(self, data: bytes, now: float) -> None:
        """Take what the host said; while it is off or silent nothing is heard."""
        if self._is_off(now) or self._is_silent(now):
            return
        if any(byte < 0x80 for byte in data):
            self._heard_at = now
        for start, code, argument, sound in self._ear.hear(data):
            if start == SOH:
                self._hear_answer(code, now)
            elif not sound:
                self._say(frame(SOH, NAK), now)
            else:
                self._answer(code, argument, now)
        if (wanted := self._ear.enabled()) is not None:
            self._enable(wanted, now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._is_off(now):
            self._forget()
            self._icc_due = now
            return
        if step := self.script.take("clock", self._age(now)):
            self._clock_offset += timedelta(seconds=step.seconds)
        if self._is_silent(now):
            return
        if self._connected and now - self._heard_at > SILENCE_S:
            self._forget()
            self._icc_due = now
        if not self._connected:
            if now >= self._icc_due:
                self._icc_due = now + ICC_EVERY_S
                self._say(frame(ESC, 0x51), now)
            return
        if now - self._said_at >= NOP_AFTER_S:
            self._say(frame(ESC, 0x30), now)
        if any(self._enabled) and now >= self._samples_due:
            self._samples_due = now + SAMPLES_EVERY_S
            if samples := self._samples(now):
                self._output.append(samples)

    def take_output(self) -> list[bytes]:
        """Hand over what is sent."""
        taken, self._output = self._output, []
        return taken

    def deadline(self, now: float) -> float:
        """Return when to tick."""
        change = self.script.next_change(self._age(now))
        waits = [now + 0.5, now + NOP_AFTER_S if change is None else self._began + change]
        waits.append(self._samples_due if any(self._enabled) else now + 0.5)
        return min(waits if self._connected else [*waits, max(now + 0.01, self._icc_due)])

    def _age(self, now: float) -> float:
        return now - self._began

    def _is_off(self, now: float) -> bool:
        return self.script.stands("restart", self._age(now))

    def _is_silent(self, now: float) -> bool:
        return self.script.stands("silence", self._age(now))

    def _hear_answer(self, code: int, now: float) -> None:
        if code == 0x51 and not self._connected:
            self._connected = True
            self._say(frame(ESC, 0x52), now)

    def _answer(self, code: int, argument: bytes, now: float) -> None:
        if code == 0x51:
            self._forget()
            self._connected, self._heard_at = True, now
            whole = frame(SOH, 0x51)
            self._say(whole[:2] + frame(ESC, 0x52) + whole[2:], now)
            return
        if not self._connected:
            return
        if code == 0x55:
            self._say(frame(SOH, 0x55), now)
            self._forget()
            self._icc_due = now + ICC_EVERY_S
            return
        data = b"" if code in self._model.unknown else self._data(code, argument, now)
        if code == 0x24:
            self.values_sent += 1
        self._say(self._spoiled(frame(SOH, code, data), now), now, may_be_split=True)

    def _data(self, code: int, argument: bytes, now: float) -> bytes:
        match code:
            case 0x24:
                self._lungs = lungs_of(next(self._vitals))
                return self._values(1, now)
            case 0x2B:
                return self._values(2, now)
            case 0x25:
                return _records(LIMITS_LOW)
            case 0x26:
                return _records(LIMITS_HIGH)
            case 0x27:
                return self._alarms(now)
            case 0x28:
                return self._clock(now) if self._model.has_clock else b""
            case 0x29:
                return self._model.settings_data
            case 0x2A:
                extra = text_message("62", "SIMULATION ON") if self._simulation else b""
                return self._model.texts_data + extra
            case 0x52:
                return self._model.identification.encode("ascii")
            case 0x53:
                return self._model.curves_data
            case 0x54:
                self._configure(argument)
        return b""

    def _values(self, page: int, now: float) -> bytes:
        values = self._model.values(self._lungs, page)
        if self.script.stands("sensor-off", self._age(now)):
            values = {code: value for code, value in values.items() if code not in SENSOR_CODES}
        return _records(values)

    def _alarms(self, now: float) -> bytes:
        high = PAW_HIGH if self.script.stands("alarm", self._age(now)) else b""
        return high + (SPO2_LOST if self.script.stands("sensor-off", self._age(now)) else b"")

    def _clock(self, now: float) -> bytes:
        at = FIRST_TIME + timedelta(seconds=int(self._age(now))) + self._clock_offset
        months = _GERMAN if self._model.german_months else _ENGLISH
        return f"{at:%H:%M:%S}{at:%d}-{months[at.month - 1]}-{at:%y}".encode("ascii")

    def _configure(self, argument: bytes) -> None:
        text = argument.decode("ascii", "replace")
        pairs = [(text[at : at + 2], int(text[at + 2 : at + 4], 16)) for at in range(0, len(text), 4)]
        self._configured = pairs[:STREAMS_MAX]
        self._enabled = [False] * 12

    def _enable(self, wanted: list[bool], now: float) -> None:
        if wanted == self._enabled or not self._connected:
            return
        self._enabled = [on and number < len(self._configured) for number, on in enumerate(wanted)]
        self._curves_from, self._samples_due = now, now
        self._next_sample = [0] * len(self._configured)

    def _samples(self, now: float) -> bytes:
        """Return the records between the last call and now, in the order of their times."""
        offered = {code: (interval, low, high, bins) for code, interval, low, high, bins in self._model.curves}
        due: dict[int, dict[int, int]] = {}
        for stream, (code, every) in enumerate(self._configured):
            if not self._enabled[stream]:
                continue
            interval, low, high, bins = offered[code]
            period = interval * every
            until = int((now - self._curves_from) * 1_000_000)
            while (at := self._next_sample[stream] * period) <= until:
                value = self._lungs.curve(code, at / 1_000_000)
                place = round((value - low) / (high - low) * bins)
                due.setdefault(at, {})[stream] = max(0, min(bins, place))
                self._next_sample[stream] += 1
        return b"".join(self._record(at, due[at]) for at in sorted(due))

    def _record(self, at: int, values: dict[int, int]) -> bytes:
        inspiring = self._lungs.inspiring(at / 1_000_000)
        mark = inspiring if inspiring != self._inspiring else None
        self._inspiring = inspiring
        return curve_record(values, mark)

    def _spoiled(self, whole: bytes, now: float) -> bytes:
        age = self._age(now)
        if self.script.take("checksum", age):
            whole = damaged(whole)
        if self.script.take("cut", age):
            whole = whole[: len(whole) // 2]
        if self.script.take("noise", age):
            whole = self._random.randbytes(NOISE_BYTES) + whole
        return whole

    def _say(self, whole: bytes, now: float, *, may_be_split: bool = False) -> None:
        """Send a frame; samples and an NOP go into its middle."""
        self._said_at = now
        if not may_be_split or not any(self._enabled):
            self._output.append(whole)
            return
        place = self._random.randrange(2, len(whole)) if len(whole) > 2 else len(whole)
        inner = self._samples(now) + (frame(ESC, 0x30) if self._random.random() < 0.2 else b"")
        self._output.append(whole[:place] + inner + whole[place:])


def _records(values: dict[str, bytes]) -> bytes:
    return b"".join(code.encode("ascii") + value for code, value in values.items())


if __name__ == "__main__":
    parser = arguments("medibus", "Dräger ventilators and an anaesthesia machine.", "--model v500 --pty bed-12.pty")
    parser.add_argument("--model", choices=tuple(MODELS), default="v500")
    parser.add_argument("--start", type=int, default=0, metavar="ROW", help="first minute of the recording")
    parser.add_argument("--simulation", action="store_true", help="the Device's own demo mode")
    asked = parser.parse_args()
    machines: list[Machine] = [
        MedibusDevice(
            MODELS[asked.model],
            start=asked.start + 37 * number,
            seed=asked.seed + number,
            script=Script(tuple(asked.fault)),
            began=time.monotonic(),
            simulation=asked.simulation,
        )
        for number in range(asked.monitors)
    ]
    asyncio.run(play(machines, serial_ends(asked), asked))
