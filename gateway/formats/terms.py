"""The terminology tables: the product's names with their IEEE 11073-10101 (MDC), UCUM and LOINC codes.

The tables are data files beside this module (`vitals.csv`, `units.csv`, `devices.csv`; see TERMINOLOGY.md) and are
read at first use. Plausible ranges tell a fault of cable, parser or unit from a sick patient; they are no alarm
limits.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from sys import intern
from typing import Literal, cast

TermKind = Literal["numeric", "enum", "wave", "event", "setting"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One quantity: codes are context-free 32-bit MDC codes, `ucum` its unit, the range inclusive in that unit."""

    key: str
    display: str
    code: int | None
    refid: str | None
    unit_code: int | None
    unit_refid: str | None
    ucum: str | None
    loinc: str | None
    low: Decimal | None
    high: Decimal | None
    kind: TermKind

    def plausible(self, value: Decimal) -> bool:
        """Tell whether a value can be a patient's; True where no range is known."""
        if not value.is_finite():
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit of measure with its MDC code."""

    code: int
    refid: str
    ucum: str


def term(key: str) -> Term:
    """Return the term of a product key (`spo2`). Raises KeyError for a key that stands in no table."""
    return _terms()[key]


def all_terms() -> tuple[Term, ...]:
    """Return every term, in the order of the table."""
    return tuple(_terms().values())


def unit_of(ucum: str) -> Unit:
    """Return the MDC unit of a UCUM unit (`mL/dL`). Raises KeyError for one that stands in no table."""
    return _units()[ucum]


def term_of_code(code: int) -> Term | None:
    """Return the term of a context-free 32-bit MDC code, the first where several keys share it; None if unknown."""
    return _terms_by_code().get(code)


def unit_of_code(code: int) -> Unit | None:
    """Return the unit of a context-free 32-bit MDC unit code; None if unknown."""
    return _units_by_code().get(code)


def device_code(refid: str) -> int:
    """Return the MDC code of a device, VMD or channel term. Raises KeyError for one that stands in no table."""
    return _devices()[refid]


def device_refid(code: int) -> str | None:
    """Return the reference id of a device, VMD or channel code; None if unknown."""
    return _device_refids().get(code)


@cache
def _terms() -> dict[str, Term]:
    return {row["key"]: _term_of(row) for row in _rows("vitals.csv")}


@cache
def _units() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for row in _rows("units.csv"):
        ucum, code = row["ucum"], row["unit_mdc_code"]
        if ucum and code:
            units.setdefault(ucum, Unit(code=int(code), refid=row["unit_mdc_refid"], ucum=ucum))
    return units


@cache
def _terms_by_code() -> dict[int, Term]:
    return {found.code: found for found in reversed(_terms().values()) if found.code is not None}


@cache
def _units_by_code() -> dict[int, Unit]:
    rows = [row for row in _rows("units.csv") if row["ucum"] and row["unit_mdc_code"]]  # several codes share a unit
    found = (Unit(code=int(row["unit_mdc_code"]), refid=row["unit_mdc_refid"], ucum=row["ucum"]) for row in rows)
    return {unit.code: unit for unit in found}


@cache
def _device_refids() -> dict[int, str]:
    return {code: refid for refid, code in _devices().items()}


@cache
def _devices() -> dict[str, int]:
    return {row["mdc_refid"]: int(row["mdc_code"]) for row in _rows("devices.csv") if row["mdc_code"]}


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _term_of(row: dict[str, str]) -> Term:
    return Term(
        key=intern(row["key"]),
        display=row["display"],
        code=_int(row["mdc_code"]),
        refid=row["mdc_refid"] or None,
        unit_code=_int(row["unit_mdc_code"]),
        unit_refid=_shared(row["unit_mdc_refid"]),
        ucum=_shared(row["ucum"]),
        loinc=row["loinc"] or None,
        low=_number(row["low_plausible"]),
        high=_number(row["high_plausible"]),
        kind=cast(TermKind, intern(row["kind"])),
    )


def _int(text: str) -> int | None:
    return int(text) if text else None


def _shared(text: str) -> str | None:
    return intern(text) if text else None


@cache
def _number(text: str) -> Decimal | None:
    return Decimal(text) if text else None
