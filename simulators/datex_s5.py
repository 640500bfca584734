"""GE S/5 monitors on the computer interface: silent until asked, as GE M1017617 and 8005313 have it.

    python -m simulators.datex_s5 --monitors 20 --pty beds/s5 --fault sensor-off@20+10 --fault restart@60+5

Displayed values, trends, auxiliary information, waves within the budget of 600 samples a second, alarms from interface
level 10. Every record of displayed values shows the next minute of the ICU recording; pressures are those of the
recorded waves.
"""

import asyncio
import random
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from simulators.datex_s5_codec import (
    INVALID,
    AlarmLine,
    GroupValues,
    Receiver,
    alarm_status,
    auxiliary,
    frame,
    numerics,
    record,
    wave_block,
)
from simulators.script import Script
from simulators.ward import Machine, arguments, local_time, play, serial_ends
from simulators.waveforms import BedVitals, bed_vitals, signal

DISPLAYED, TRENDS, AUXILIARY = 1, (2, 3), 4
WAVE_BUDGET = 600  # samples a second
ONCE_SPACING_S = 5.0
ALARM_SPACING_S = 2.0
DATA_BYTES_MAX = 1450
SPACINGS_S = (1.0, 0.5, 0.25, 0.2, 0.166, 0.125)
ALARM_LEVEL, EXTENDED_LEVEL = 10, 3
FIRST_TIME = 1_783_246_500  # 2026-07-05 10:15:00
NOISE_BYTES = 60
RATES = {1: 300, 2: 300, 3: 300, 8: 100, 38: 100, 39: 100, 22: 500, 35: 300, 32: 100}
RATES |= dict.fromkeys((4, 5, 6, 7, 16, 17, 36, 37, 18, 19, 20, 21), 100)
RATES |= dict.fromkeys((9, 10, 11, 12, 13, 14, 15, 23, 24, 29), 25)
SOURCES = {  # wave type: recorded signal, counts for one of its units, zero
    1: ("ecg-ii", 1000.0, 0.0),
    2: ("ecg-v", 1000.0, 0.0),
    3: ("ecg-i", 1000.0, 0.0),
    4: ("abp", 100.0, 0.0),
    5: ("pap", 100.0, 0.0),
    8: ("pleth", 1000.0, 0.41),
    15: ("resp", 100.0, 0.0),
}
_EXISTS, _ACTIVE, _SOURCE_ECG = 0x1, 0x2, 9 << 3
_LEADS_OFF = 0x7 << 11
_LEADS = 0x1271  # channels II, V, I; QRS source 1
ART, PA = 1, 3


@dataclass(slots=True)
class _Periodic:
    interval_s: float
    classes: tuple[int, ...]
    due: float


class S5Monitor:
    """One monitor; `level` is its interface level, 2 to 11, `first_time` what its clock shows at the beginning."""

    def __init__(
        self,
        *,
        level: int = 10,
        start: int = 0,
        seed: int = 1,
        script: Script | None = None,
        began: float = 0.0,
        first_time: int = FIRST_TIME,
    ) -> None:
        self.script = script or Script()
        self._level = level
        self._random = random.Random(seed)
        self._vitals = bed_vitals(start)
        self._began = began
        self._clock_offset = 0
        self._first_time = first_time
        self._measured: BedVitals = next(self._vitals)
        self._output: list[bytes] = []
        self._power_on()

    def _power_on(self) -> None:
        self._receiver = Receiver()
        self._numbers = {0: 0, 1: 0, 4: 0}
        self._streams: dict[int, _Periodic] = {}
        self._once_at: dict[int, float] = {}
        self._waves: tuple[int, ...] = ()
        self._wave_due = self._wave_since = 0.0
        self._wave_sent: dict[int, int] = {}
        self._wave_counter = 0
        self._wave_gap = True
        self._alarms_wanted = False
        self._alarms_told: tuple[str, ...] | None = None
        self._alarms_at = float("-inf")

    def receive(self, data: bytes, now: float) -> None:
        """Take requests; what is not sound is passed over without an answer."""
        if self._is_off(now):
            return
        for found in self._receiver.feed(data):
            main_type, kind = struct.unpack_from("<h", found, 14)[0], found[18]
            if kind != 0 or struct.unpack_from("<h", found, 16)[0] != 0:
                continue
            if main_type == 0 and len(found) >= 49:
                self._asked_numerics(found[40:], now)
            elif main_type == 1 and len(found) >= 72:
                self._asked_waves(found[40:], now)
            elif main_type == 4 and len(found) >= 52 and self._level >= ALARM_LEVEL:
                self._asked_alarms(found[40:], now)

    def tick(self, now: float) -> None:
        """Send what is due."""
        if self._is_off(now):
            self._power_on()
            return
        if step := self.script.take("clock", self._age(now)):
            self._clock_offset += int(step.seconds)
        for kind, stream in sorted(self._streams.items()):
            if now >= stream.due and (kind == DISPLAYED or DISPLAYED in self._streams):
                stream.due = max(stream.due + stream.interval_s, now)
                if kind == DISPLAYED:
                    self._measured = next(self._vitals)
                self._send_numerics(kind, stream.classes, now)
        if self._waves and now >= self._wave_due:
            self._wave_due = max(self._wave_due + self._spacing(), now)
            self._send_waves(now)
        if self._alarms_wanted and now - self._alarms_at >= ALARM_SPACING_S:
            self._tell_alarms(now)

    def take_output(self) -> list[bytes]:
        """Hand over the frames."""
        taken, self._output = self._output, []
        return taken

    def deadline(self, now: float) -> float:
        """Return when something is due."""
        due = [stream.due for stream in self._streams.values()]
        if self._waves:
            due.append(self._wave_due)
        if self._alarms_wanted:
            due.append(max(self._alarms_at + ALARM_SPACING_S, now + 0.1))
        if (change := self.script.next_change(self._age(now))) is not None:
            due.append(self._began + change)
        return min(due, default=now + 1.0)

    def _age(self, now: float) -> float:
        return now - self._began

    def _is_off(self, now: float) -> bool:
        return self.script.stands("restart", self._age(now))

    def _time(self, now: float) -> int:
        return self._first_time + int(self._age(now)) + self._clock_offset

    def _asked_numerics(self, data: bytes, now: float) -> None:
        kind, interval, bits = struct.unpack_from("<BhI", data)
        classes = self._classes(bits)
        if interval == 0:
            self._streams.pop(kind, None)
        elif interval == -1:
            if now - self._once_at.get(kind, float("-inf")) >= ONCE_SPACING_S:
                self._once_at[kind] = now
                self._send_numerics(kind, classes, now)
        elif interval > 0 and kind in (DISPLAYED, *TRENDS):
            self._streams[kind] = _Periodic(float(interval), classes, now if kind == DISPLAYED else now + interval)

    def _classes(self, bits: int) -> tuple[int, ...]:
        if self._level < EXTENDED_LEVEL:
            return (0,)
        return tuple(number for number in range(4) if (bits >> number & 1 if number else not bits & 1))

    def _asked_waves(self, data: bytes, now: float) -> None:
        command = struct.unpack_from("<h", data)[0]
        if command == 1:
            self._waves = ()
        elif command == 0:
            asked = data[4:12] if 0xFF not in data[4:12] else data[4 : 4 + data[4:12].index(0xFF)]
            self._waves = tuple(_affordable(asked))
            self._wave_since = now
            self._wave_due = now + self._spacing()
            self._wave_sent = dict.fromkeys(self._waves, 0)
            self._wave_gap = True

    def _asked_alarms(self, data: bytes, now: float) -> None:
        command = struct.unpack_from("<h", data)[0]
        if command in (0, 2):
            self._alarms_wanted |= command == 2
            self._alarms_told = None
            self._tell_alarms(now)
        elif command == 3:
            self._alarms_wanted = False

    def _send_numerics(self, kind: int, classes: tuple[int, ...], now: float) -> None:
        at = self._time(now)
        if kind == AUXILIARY:
            self._send(0, [(kind, auxiliary(at - 90, 0, 0, 185))], now)
            return
        off = self.script.stands("sensor-off", self._age(now))
        groups = self._groups(off, now)
        parts = [(kind, numerics(number, kind, groups, time=at, level=self._level)) for number in classes]
        self._send(0, parts, now)

    def _groups(self, off: bool, now: float) -> dict[str, GroupValues]:
        seen, on = self._measured, _EXISTS | _ACTIVE
        rate = round(seen.heart_rate)
        ecg = on | _SOURCE_ECG | (_LEADS_OFF if off else 0)
        groups = {
            "ecg": GroupValues(ecg, _LEADS, {} if off else {"hr": rate, "imp_rr": round(seen.resp_rate)}),
            "ecg_extra": GroupValues(values={} if off else {"hr_ecg": rate, "hr_max": rate + 1, "hr_min": rate - 1}),
            "arrh_ecg": GroupValues(ecg, _LEADS, {} if off else {"hr": rate, "pvc": 0}),
            "p1": GroupValues(on, ART, self._pressures("abp", now, rate)),
            "p2": GroupValues(on, PA, self._pressures("pap", now, rate)),
            "nibp": GroupValues(on, 0x8 if seen.nibp_is_new else 0x108, _cuff(seen)),
            "spo2": GroupValues(_EXISTS if off else on, 0, {} if off else _saturation(seen)),
        }
        if self._level >= ALARM_LEVEL:  # groups that are newer than the captured monitor's modules hold 0
            groups |= {name: GroupValues(fill=0) for name in ("t5", "t6", "delp", "cpp2", "picco")}
        return groups

    def _pressures(self, name: str, now: float, rate: int) -> dict[str, int]:
        recorded = signal(name)
        first = int(self._age(now)) * recorded.rate
        span = [recorded.at(first + number, recorded.rate) for number in range(2 * recorded.rate)]
        low, high = min(span), max(span)
        mean = sum(span) / len(span)
        return {"sys": round(high * 100), "dia": round(low * 100), "mean": round(mean * 100), "hr": rate}

    def _spacing(self) -> float:
        load = sum(RATES[kind] for kind in self._waves)
        if load <= 200:
            return SPACINGS_S[0]
        wanted = (2 * load * spacing + 8 * len(self._waves) <= DATA_BYTES_MAX for spacing in SPACINGS_S[1:])
        return next((spacing for spacing, fits in zip(SPACINGS_S[1:], wanted, strict=True) if fits), SPACINGS_S[-1])

    def _send_waves(self, now: float) -> None:
        off = self.script.stands("sensor-off", self._age(now))
        parts = []
        for kind in self._waves:
            samples = self._samples(kind, now, off)
            lead_off = off and kind <= 3
            block = wave_block(samples, gap=self._wave_gap, counter=self._wave_counter, lead_off=lead_off)
            parts.append((kind, block))
        self._wave_counter += 1
        self._wave_gap = False
        self._send(1, parts, now)

    def _samples(self, kind: int, now: float, off: bool) -> list[int]:
        rate, first = RATES[kind], self._wave_sent[kind]
        count = max(0, int((now - self._wave_since) * rate) - first)
        count = min(count, (DATA_BYTES_MAX // len(self._waves) - 6) // 2)
        self._wave_sent[kind] = first + count
        source = SOURCES.get(kind)
        if source is None or (off and kind in (1, 2, 3, 8)):
            return [INVALID] * count
        name, counts, zero = source
        recorded = signal(name)
        return [round((recorded.at(first + number, rate) - zero) * counts) for number in range(count)]

    def _tell_alarms(self, now: float) -> None:
        age = self._age(now)
        texts = [("HR HIGH", 3)] if self.script.stands("alarm", age) else []
        if self.script.stands("sensor-off", age):
            texts += [("LEADS OFF", 2), ("SpO2 PROBE OFF", 2)]
        told, names = self._alarms_told, tuple(text for text, _ in texts)
        if names == told:
            return
        self._alarms_told, self._alarms_at = names, now
        lines = [AlarmLine(text, colour, text not in (told or ())) for text, colour in texts]
        self._send(4, [(1, alarm_status(lines))], now)

    def _send(self, main_type: int, parts: list[tuple[int, bytes]], now: float) -> None:
        number = self._numbers[main_type]
        self._numbers[main_type] = (number + 1) % 256
        age = self._age(now)
        if self.script.stands("silence", age):
            return
        body = record(main_type, parts, number=number, level=self._level, time=self._time(now))
        if self.script.take("noise", age):
            self._output.append(self._random.randbytes(NOISE_BYTES))
        whole = frame(body, checksum_error=17 if self.script.take("checksum", age) else 0)
        self._output.append(whole[: len(whole) // 2] if self.script.take("cut", age) else whole)


def _affordable(asked: bytes) -> Iterator[int]:
    left = WAVE_BUDGET
    for kind in dict.fromkeys(asked):
        if RATES.get(kind, WAVE_BUDGET + 1) <= left:
            left -= RATES[kind]
            yield kind


def _cuff(seen: BedVitals) -> dict[str, int]:
    return {
        "sys": round(seen.nibp_sys * 100),
        "dia": round(seen.nibp_dia * 100),
        "mean": round(seen.nibp_mean * 100),
    }


def _saturation(seen: BedVitals) -> dict[str, int]:
    return {"SpO2": round(seen.spo2 * 100), "pr": round(seen.pulse), "ir_amp": 150}


if __name__ == "__main__":
    parser = arguments("datex_s5", "GE S/5 monitors.", "--monitors 20 --pty beds/s5 --fault restart@60+5")
    parser.add_argument("--level", type=int, choices=range(2, 12), default=10, help="interface level (default 10)")
    options = parser.parse_args()
    now = time.monotonic() * options.speed
    machines: list[Machine] = [
        S5Monitor(
            level=options.level,
            start=37 * number,
            seed=options.seed + number,
            script=Script(tuple(options.fault)),
            began=now,
            first_time=local_time(),
        )
        for number in range(options.monitors)
    ]
    asyncio.run(play(machines, serial_ends(options), options))
