"""The tables of codes: what a number means in which generation of Devices.

`*_classic.csv` follow Draeger "MEDIBUS for Intensive Care Devices" 90 28 329, `*_x.csv` the MEDIBUS.X profile as two
open-source projects transcribed it (see docs/devices/medibus.md). The same code may mean different things in the two:
while the Device is not known, only what both agree upon is named. `factor` brings a number to the unit of the row.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Literal

Profile = Literal["classic", "x", "common"]

TEXT_UNIT = "text"  # a value that is no quantity
_FOLDER = Path(__file__).parent
SETTING_BASE = 0x01000000  # MDC codes of settings are those of the measured quantity above this


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured value or setting: our key, UCUM unit (None: unknown), what the number is multiplied by."""

    key: str
    unit: str | None
    factor: Decimal | None
    mdc: int | None
    refid: str | None
    name: str


@dataclass(frozen=True, slots=True)
class AlarmKind:
    """One alarm: what it means, its MDC event, and the codes (page 1) of the values that it may concern."""

    phrase: str
    name: str
    mdc: int | None
    technical: bool
    concerns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextKind:
    """One text message: `role` is `mode`, `standby`, `simulation`, `name` or empty."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Model:
    """One Device of the tables; `not_asked` are commands that it does not answer."""

    name: str
    kind: str
    profile: Profile
    not_asked: frozenset[int]


@dataclass(frozen=True, slots=True)
class CurveKind:
    """One real-time signal: the name by which it is asked for, our key, UCUM unit."""

    name: str
    key: str
    unit: str
    text: str


@dataclass(frozen=True, slots=True)
class UnitKind:
    """A unit that the terminology lacks, or one measured in another unit: `per` units of `like` are one."""

    code: int | None
    refid: str | None
    like: str | None
    per: Decimal | None


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of one generation, by code, alarms and data by page and code."""

    data: dict[tuple[int, str], Quantity]
    settings: dict[str, Quantity]
    alarms: dict[tuple[int, str], AlarmKind]
    texts: dict[str, TextKind]


@cache
def tables(profile: Profile) -> Tables:
    """Return the tables of a profile; `common` holds what both generations agree upon."""
    if profile == "common":
        return _common(tables("classic"), tables("x"))
    return Tables(
        data={(int(row["page"]), row["code"]): _quantity(row, 0) for row in _rows(f"data_{profile}.csv")},
        settings={row["code"]: _quantity(row, SETTING_BASE) for row in _rows(f"settings_{profile}.csv")},
        alarms={(int(row["page"]), row["code"]): _alarm(row) for row in _rows(f"alarms_{profile}.csv")},
        texts={row["code"]: TextKind(row["role"], row["text"]) for row in _rows(f"texts_{profile}.csv")},
    )


@cache
def models() -> dict[str, Model]:
    """Return the Devices by the four characters of their identification."""
    return {
        row["id"]: Model(
            name=row["model"],
            kind=row["kind"],
            profile="classic" if row["profile"] == "classic" else "x",
            not_asked=frozenset(int(code, 16) for code in row["not_asked"].split()),
        )
        for row in _rows("devices.csv")
    }


@cache
def curves() -> dict[str, CurveKind]:
    """Return the real-time signals by code."""
    return {row["code"]: CurveKind(row["name"], row["key"], row["unit"], row["text"]) for row in _rows("curves.csv")}


@cache
def units() -> dict[str, UnitKind]:
    """Return the units of these tables that need more than the terminology says, by UCUM."""
    return {
        row["unit"]: UnitKind(_int(row["code"]), row["refid"] or None, row["like"] or None, _decimal(row["per"]))
        for row in _rows("units.csv")
    }


def _common(classic: Tables, x: Tables) -> Tables:
    def agreed(place: tuple[int, str], found: Quantity) -> bool:
        other = classic.data.get(place)
        return other is None or (other.key, other.unit) == (found.key, found.unit)

    return Tables(
        data={place: found for place, found in x.data.items() if agreed(place, found)},
        settings={
            code: found
            for code, found in x.settings.items()
            if (other := classic.settings.get(code)) is None or other.key == found.key
        },
        alarms=x.alarms,
        texts=x.texts,
    )


def _quantity(row: dict[str, str], base: int) -> Quantity:
    mdc = _int(row["mdc"])
    return Quantity(
        key=row["key"],
        unit=row["unit"] or None,
        factor=_decimal(row["factor"]),
        mdc=None if mdc is None else mdc + base,
        refid=(row["refid"] or None) if base == 0 else None,
        name=row["name"],
    )


def _alarm(row: dict[str, str]) -> AlarmKind:
    return AlarmKind(
        row["phrase"], row["name"], _int(row["mdc"]), row["technical"] == "yes", tuple(row["concerns"].split())
    )


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _int(text: str) -> int | None:
    return int(text) if text else None


def _decimal(text: str) -> Decimal | None:
    return Decimal(text) if text else None
