"""What a site says about its analyser: which tests are which codes, and where its dialect departs from the standard."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gateway.formats.terms import term

VENDOR_PREFIX = "x_"

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Test:
    """What one test of the analyser is published as.

    `key` is the product's name or begins with `x_`; without one it is made from the test's name. `unit` restricts
    this to results in that unit (UCUM), or states it where the analyser sends none.
    """

    key: str = field(default="", metadata={"pattern": r"([a-z][a-z0-9_]{0,63})?", "expects": "a key such as x_lab_crp"})
    loinc: str | None = field(default=None, metadata={"pattern": r"\d{1,7}-\d", "expects": "a LOINC code"})
    unit: str | None = None

    def __post_init__(self) -> None:
        """Refuse a key that stands in no table."""
        if self.key and not self.key.startswith(VENDOR_PREFIX):
            try:
                term(self.key)
            except KeyError:
                raise ValueError(f"{self.key} stands in no table; a key of your own begins with x_") from None


@cache
def known_tests() -> dict[tuple[str, str], Test]:
    """Return what is known of common tests, by the analyser's name and the UCUM unit ("" for none)."""
    return {(row["test"], row["unit"]): Test(key=row["key"], loinc=row["loinc"] or None) for row in _rows("tests.csv")}


@cache
def known_units() -> dict[str, str]:
    """Return the UCUM unit of each unit as analysers write it."""
    return {row["written"]: row["ucum"] for row in _rows("units.csv")}


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
