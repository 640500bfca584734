"""The ICU recording: what a simulated patient's values are, one set after the other, over and over."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NUMERICS = Path(__file__).parent / "data" / "icu" / "numerics.csv"


@dataclass(frozen=True, slots=True)
class Vitals:
    """What an oximeter measures at one moment: SpO2 in %, pulse rate per minute."""

    spo2: int
    pulse: int


def oximeter_vitals(start: int = 0) -> Iterator[Vitals]:
    """Yield the sets that have both values, from the given one on, without end."""
    with NUMERICS.open(encoding="utf-8", newline="") as file:
        rows = [
            Vitals(round(float(row["spo2"])), round(float(row["pulse"])))
            for row in csv.DictReader(file)
            if row["spo2"] and row["pulse"]
        ]
    number = start
    while True:
        yield rows[number % len(rows)]
        number += 1
