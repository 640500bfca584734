"""The ICU recordings as waves at any rate, and as the numbers of a monitor's screen."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "icu"
_SIGNALS = {  # our name: file, column, samples a second
    "ecg-i": ("wave-ecg-abp-pap-pleth-resp-125hz.csv", "i[mV]", 125),
    "ecg-ii": ("wave-ecg-pleth-250hz.csv", "ii[mV]", 250),
    "ecg-iii": ("wave-ecg-abp-pap-pleth-resp-125hz.csv", "iii[mV]", 125),
    "ecg-v": ("wave-ecg-pleth-250hz.csv", "v[mV]", 250),
    "pleth": ("wave-ecg-pleth-250hz.csv", "pleth[NU]", 250),
    "abp": ("wave-ecg-abp-resp-125hz.csv", "abp[mmHg]", 125),
    "pap": ("wave-ecg-abp-pap-pleth-resp-125hz.csv", "pap[mmHg]", 125),
    "resp": ("wave-ecg-abp-resp-125hz.csv", "resp[mV]", 125),
}


@dataclass(frozen=True, slots=True)
class Signal:
    """One recorded signal, played over and over."""

    rate: int
    samples: tuple[float, ...]

    def at(self, number: int, rate: int) -> float:
        """Return sample `number` of the signal as if it were taken `rate` times a second."""
        place, rest = divmod(number * self.rate, rate)
        first = self.samples[place % len(self.samples)]
        second = self.samples[(place + 1) % len(self.samples)]
        return first + (second - first) * rest / rate


@cache
def signal(name: str) -> Signal:
    """Return a signal: ecg-i, ecg-ii, ecg-iii, ecg-v, pleth, abp, pap or resp. Raises KeyError for another name."""
    file, column, rate = _SIGNALS[name]
    with (FOLDER / file).open(encoding="utf-8", newline="") as rows:
        return Signal(rate, tuple(float(row[column]) for row in csv.DictReader(rows)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BedVitals:
    """What a bedside monitor shows at one moment; a cuff pressure stays until the next one."""

    heart_rate: float
    resp_rate: float
    spo2: float
    pulse: float
    nibp_sys: float
    nibp_dia: float
    nibp_mean: float
    nibp_is_new: bool


def bed_vitals(start: int = 0) -> Iterator[BedVitals]:
    """Yield the minutes of the recording that have all values but the cuff's, from the given one on, without end."""
    minutes = _minutes()
    number = start
    while True:
        yield minutes[number % len(minutes)]
        number += 1


@cache
def _minutes() -> tuple[BedVitals, ...]:
    found: list[BedVitals] = []
    cuff = (120.0, 70.0, 87.0)
    with (FOLDER / "numerics.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            is_new = bool(row["nibp_sys"])
            if is_new:
                cuff = (float(row["nibp_sys"]), float(row["nibp_dia"]), float(row["nibp_mean"]))
            if all(row[name] for name in ("hr", "resp", "spo2", "pulse")):
                found.append(_minute(row, cuff, is_new))
    return tuple(found)


def _minute(row: dict[str, str], cuff: tuple[float, float, float], is_new: bool) -> BedVitals:
    return BedVitals(
        heart_rate=float(row["hr"]),
        resp_rate=float(row["resp"]),
        spo2=float(row["spo2"]),
        pulse=float(row["pulse"]),
        nibp_sys=cuff[0],
        nibp_dia=cuff[1],
        nibp_mean=cuff[2],
        nibp_is_new=is_new,
    )
