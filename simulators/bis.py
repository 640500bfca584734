"""A BIS VISTA on the binary protocol: silent until asked, then a frame a second of each kind that was asked for.

    python -m simulators.bis --pty beds/bis --fault sensor-off@20+10 --fault checksum@5

No EEG stands in the ICU recording: it is a sum of rhythms whose depth follows the recorded heart rate, BIS with it.
The protocol has no clock, no alarms and no patient: those faults of the script change nothing.
"""

import asyncio
import math
import random
import struct
import time

from simulators.script import Script
from simulators.ward import Machine, arguments, play, serial_ends
from simulators.waveforms import bed_vitals

RAW_EEG, PROCESSED, PROCESSED_SPECTRA = 0x32, 0x34, 0x35
STOPS = {0x70: RAW_EEG, 0x74: PROCESSED}
MISSING = -3277
GAIN, GAIN_DIVISOR, OFFSET, OFFSET_DIVISOR = 50, 1000, -3234, 1
NOISE_BYTES = 40
SECOND_S = 1.0


def frame(message_id: int, message: bytes = b"", *, sequence: int = 0) -> bytes:
    """Return a data frame."""
    inner = struct.pack("<LLHH", 4, message_id, 0, len(message)) + message
    counted = struct.pack("<HHH", sequence, len(inner), 1) + inner
    return b"\xba\xab" + counted + struct.pack("<H", sum(counted) % 65536)


def requests(data: bytes) -> list[tuple[int, bytes]]:
    """Return the sound requests in what a host said: message id and argument."""
    found, at = [], data.find(b"\xba\xab")
    while 0 <= at <= len(data) - 22:
        size = int.from_bytes(data[at + 18 : at + 20], "little")
        whole = data[at : at + 22 + size]
        message_id = int.from_bytes(whole[12:16], "little")
        if len(whole) == 22 + size and whole == frame(message_id, whole[20:-2]):
            found.append((message_id, whole[20:-2]))
        at = data.find(b"\xba\xab", at + 2)
    return found


def trend(*, bis: float | None, sef: float, power: float, emg: float, quality: float, bsr: float = 0.0) -> bytes:
    """Return a trend block of 24 bytes; without a BIS every value but the signal quality is missing."""
    if bis is None:
        return struct.pack("<hhhhhhhhii", MISSING, MISSING, 0, *[MISSING] * 5, round(quality * 10), 0)
    tenths = round(bis * 10)
    levels = (round(power * 100), round(emg * 100), round(quality * 10), 0)
    return struct.pack("<hhhhhhhhii", round(bsr * 10), round(sef * 100), 0, tenths, tenths, tenths, *levels)


MISSING_TREND = struct.pack("<hhhhhhhhii", MISSING, MISSING, 0, *[MISSING] * 5, MISSING, 0)


def processed(channel_1: bytes, channel_2: bytes, both: bytes, *, sensor_legal: bool = True) -> bytes:
    """Return processed variables of 120 bytes."""
    head = struct.pack("<BBBBHH", 1, sensor_legal, 1, 1, 2, 0)
    scale = struct.pack("<llll", GAIN, GAIN_DIVISOR, OFFSET, OFFSET_DIVISOR)
    impedances_and_settings = struct.pack("<HHHHLLLL", 5, 0, 6, 0, 1, 15, 0, 0)
    return head + scale + impedances_and_settings + channel_1 + channel_2 + both


def spectra(depth: float) -> bytes:
    """Return two spectra of 60 bins: slow waves grow with the depth."""
    bins = [round(100 * (55 + 15 * depth * math.exp(-n / 8) - n * 0.4)) for n in range(60)]
    return struct.pack("<HH120h", 2, 60, *bins, *bins)


class BisMonitor:
    """One monitor; `script` says what goes wrong with it."""

    def __init__(self, *, start: int = 0, seed: int = 1, script: Script | None = None, began: float = 0.0) -> None:
        self.script = script or Script()
        self._random = random.Random(seed)
        self._vitals = bed_vitals(start)
        self._began = began
        self._output: list[bytes] = []
        self._power_on()

    def _power_on(self) -> None:
        self._due: dict[int, float] = {}
        self._with_spectra = False
        self._rate = 128
        self._sequence = 0
        self._sample = 0
        self._depth = 0.5

    def receive(self, data: bytes, now: float) -> None:
        """Take requests; a running stream goes on as it was."""
        if self.script.stands("restart", now - self._began):
            return
        for message_id, argument in requests(data):
            if message_id == 0x73:
                self._with_spectra = argument[:1] == b"\x01"
                self._due.setdefault(PROCESSED, now)
            elif message_id == 0x6F:
                self._rate = int.from_bytes(argument, "little") or 128
                self._due.setdefault(RAW_EEG, now)
            elif message_id in STOPS:
                self._due.pop(STOPS[message_id], None)

    def tick(self, now: float) -> None:
        """Send the seconds that are due."""
        age = now - self._began
        if self.script.stands("restart", age):
            self._power_on()
            return
        for kind, due in sorted(self._due.items()):
            if now >= due:
                self._due[kind] = max(due + SECOND_S, now)
                whole = self._eeg() if kind == RAW_EEG else self._second(age)
                if not self.script.stands("silence", age):
                    self._output.append(self._spoiled(whole, age))

    def take_output(self) -> list[bytes]:
        """Hand over the frames."""
        taken, self._output = self._output, []
        return taken

    def deadline(self, now: float) -> float:
        """Return when the next second is due."""
        return min(self._due.values(), default=now + SECOND_S)

    def _second(self, age: float) -> bytes:
        self._depth = min(1.0, max(0.0, (90 - next(self._vitals).heart_rate) / 60))
        off = self.script.stands("sensor-off", age)
        bis = None if off else 70 - 35 * self._depth + self._random.uniform(-1, 1)
        block = trend(
            bis=bis, sef=20 - 8 * self._depth, power=58 + 6 * self._depth, emg=27.1, quality=20 if off else 95
        )
        message = processed(block, MISSING_TREND, block, sensor_legal=not off)
        if self._with_spectra:
            return self._numbered(PROCESSED_SPECTRA, message + spectra(self._depth))
        return self._numbered(PROCESSED, message)

    def _eeg(self) -> bytes:
        samples: list[int] = []
        for _ in range(self._rate):
            at = self._sample / self._rate
            slow, spindle = 40 * self._depth * math.sin(math.tau * 1.5 * at), 12 * math.sin(math.tau * 11 * at)
            microvolts = slow + spindle + self._random.gauss(0, 4)
            samples += [round(microvolts * GAIN_DIVISOR / GAIN) + OFFSET] * 2
            self._sample += 1
        return self._numbered(RAW_EEG, struct.pack(f"<hh{len(samples)}h", 2, self._rate, *samples))

    def _numbered(self, message_id: int, message: bytes) -> bytes:
        self._sequence = (self._sequence + 1) % 65536
        return frame(message_id, message, sequence=self._sequence)

    def _spoiled(self, whole: bytes, age: float) -> bytes:
        if self.script.take("checksum", age):
            whole = whole[:-1] + bytes((whole[-1] ^ 1,))
        if self.script.take("cut", age):
            whole = whole[: len(whole) // 2]
        if self.script.take("noise", age):
            whole = self._random.randbytes(NOISE_BYTES) + whole
        return whole


if __name__ == "__main__":
    parser = arguments("bis", "A BIS VISTA brain monitor.", "--pty bed-12.pty --fault sensor-off@20+10")
    parser.add_argument("--start", type=int, default=0, metavar="ROW", help="first minute of the recording")
    asked = parser.parse_args()
    machines: list[Machine] = [
        BisMonitor(
            start=asked.start + 37 * number,
            seed=asked.seed + number,
            script=Script(tuple(asked.fault)),
            began=time.monotonic(),
        )
        for number in range(asked.monitors)
    ]
    asyncio.run(play(machines, serial_ends(asked), asked))
