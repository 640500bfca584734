"""What the rows (OBX) of all dialects have in common: values, units, keys, limits."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

from drivers.hl7_monitor.message import Segment
from gateway.driver import Absent, Observation, observe, read_number
from gateway.formats.terms import Unit, term, unit_of

MISSING = re.compile(r"[-*.? ]*")
REASONS = {code.value: code for code in Absent}  # of OBX-8
WITHDRAWN = frozenset({"X", "D", "W"})  # OBX-11 (table 0085): cannot be obtained, deleted, wrong

_FOLDER = Path(__file__).parent
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")
_LIMITS = re.compile(r"\s*([-+]?[\d.]+)?\s*-\s*([-+]?[\d.]+)?\s*")
_ANNOTATION = re.compile(r"\{[^}]*\}")
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Known:
    """What a code of a dialect is published as; `unit` is UCUM, "gas" for what the site must say."""

    key: str
    unit: str | None


@cache
def codes(dialect: str) -> dict[str, Known]:
    """Return the known codes of a dialect."""
    return {
        row["code"]: Known(row["key"], row["unit"] or None) for row in _rows("codes.csv") if row["dialect"] == dialect
    }


@cache
def units() -> dict[str, str]:
    """Return the UCUM unit of each unit as monitors write it."""
    return {row["written"]: row["ucum"] for row in _rows("units.csv")}


def slug(text: str) -> str:
    """Return a text as a part of a key."""
    return _SLUG.sub("_", text.lower()).strip("_")[:40] or "value"


def number_of(text: str) -> Decimal | None:
    """Return a number as written, None for anything else, and for one that no feed could write."""
    return read_number(text) if _NUMBER.fullmatch(text) is not None else None


def reason_of(row: Segment) -> Absent | None:
    """Return why a row has no value, whatever stands in OBX-5: OBX-8 says so, or OBX-11 takes it back."""
    told = next((REASONS[flag] for flag in row.repetitions(8) if flag in REASONS), None)
    return told or (Absent.NAV if row.text(11) in WITHDRAWN else None)


def ucum_of(text: str) -> str | None:
    """Return the UCUM unit of a unit as written: what we do not know stays as it is, so that it is never ours.

    Annotations (`{beats}/min`) say nothing of the unit.
    """
    plain = _ANNOTATION.sub("", text)
    return units().get(plain, plain) or None


def limits_of(text: str) -> tuple[Decimal | None, Decimal | None]:
    """Return OBX-7 as low and high: `50-120`; a lone hyphen is none."""
    match = _LIMITS.fullmatch(text)
    if match is None:
        return None, None
    return number_of(match[1] or ""), number_of(match[2] or "")


def observed(
    known: Known,
    text: str,
    *,
    sub: str,
    unit: str = "",
    absent: Absent | None = None,
    flags: tuple[str, ...] = (),
    row: Segment | None = None,
    observed_at: datetime | None = None,
    episodic: bool = False,
) -> Observation:
    """Return the Observation of a code: under our key where the unit is ours, else under one of the maker's.

    `unit` is as written, "" where the row has none. A `row` may say that there is no value, and has limits.
    """
    said = ucum_of(unit) or known.unit
    key = known.key
    if not key.startswith("x_") and said is not None and term(key).ucum != said:
        key = f"x_{key}_{slug(said)}"
    is_known = (
        said is not None and (said == known.unit or not unit or unit in units()) and unit_of_ucum(said) is not None
    )
    coded = said if key.startswith("x_") and is_known else None
    low, high = limits_of(row.text(7)) if row is not None else (None, None)
    absent = absent or (reason_of(row) if row is not None else None)
    value: Decimal | str | None = None
    if absent is None and not MISSING.fullmatch(text):
        number = number_of(text)
        value = text if number is None else number
    return observe(
        key,
        value,
        sub=sub,
        absent=(absent or Absent.NAV) if value is None else None,
        flags=flags,
        episodic=episodic,
        observed_at=observed_at,
        low=low,
        high=high,
        unit=coded,
    )


def unit_of_ucum(ucum: str | None) -> Unit | None:
    """Return the MDC unit of a UCUM unit, None where it has none."""
    try:
        return unit_of(ucum) if ucum else None
    except KeyError:
        return None


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
