"""Philips codes and what they are here: the vendor's 16-bit terms to keys, MDC codes and UCUM units.

`codes.csv` is the vendor's nomenclature (see CODES.md for where it is from), `keys.csv` names the product's key where
the code alone does not lead to it, `places.csv` says to which VMD of the monitor a quantity belongs; its first row that
fits holds. A standard physio id is an MDC term of partition 2, a unit of partition 4, an alarm of partition 3; ids from
F000 up are private and keep their number and the vendor's name.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from pathlib import Path

from gateway.driver import Containment
from gateway.formats.terms import Term, device_code, term, term_of_code

METRICS, EVENTS, UNITS = 2 << 16, 3 << 16, 4 << 16  # MDC partitions
PRIVATE_MIN = 0xF000
MDS_REFID = "MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS"
UNIT_NONE = 0

_FOLDER = Path(__file__).parent
_MEANINGS_CACHED = 2048
_TO_TERM = {
    # Plausible ranges are in the term's unit: factor and offset from the unit shown to it.
    ("kPa", "mm[Hg]"): (Decimal("7.500617"), Decimal(0)),
    ("[degF]", "Cel"): (Decimal(5) / 9, Decimal(-160) / 9),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit: its 32-bit MDC code, reference id and UCUM where there is one."""

    code: int
    refid: str
    ucum: str | None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a physio id with a unit is here; `place` is the VMD of its containment path.

    The range is in the unit shown, None where nothing is known of it.
    """

    key: str
    place: int
    code: int
    refid: str
    loinc: str | None
    unit: Unit | None
    low: Decimal | None
    high: Decimal | None

    def plausible(self, value: Decimal) -> bool:
        """Tell whether a value can be a patient's; True where no range is known."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class _Row:
    code: int
    name: str
    mdc_refid: str
    ucum: str
    short: str


@lru_cache(maxsize=_MEANINGS_CACHED)
def meaning(physio: int, unit_code: int) -> Meaning:
    """Return what a physio id (nomenclature partition 2) in a unit means here; an unknown one keeps its number."""
    known, unit = _term(physio), unit_of(unit_code)
    code = METRICS + physio
    if known is None:
        return Meaning(vendor_key(physio), place_of(physio), code, _refid(physio), None, unit, None, None)
    low, high = _range(known, unit)
    return Meaning(
        key=known.key,
        place=place_of(physio),
        code=known.code if known.code is not None else code,
        refid=known.refid or _refid(physio),
        loinc=known.loinc,
        unit=unit,
        low=low,
        high=high,
    )


@cache
def vendor_key(physio: int, suffix: str = "") -> str:
    """Return the key of a quantity that the terminology does not know: `x_philips_temp_gen_1`, `x_philips_f2ab`."""
    row = _rows("physio").get(physio)
    name = row.name.removeprefix("NOM_") if row else f"{physio:04x}"
    return f"x_philips_{name.lower()}{suffix}"


@lru_cache(maxsize=_MEANINGS_CACHED)
def unit_of(code: int) -> Unit | None:
    """Return a unit by the vendor's 16-bit code, None where the monitor states none."""
    if code == UNIT_NONE:
        return None
    row = _rows("unit").get(code)
    if row is None:
        return Unit(UNITS + code, f"NOM_DIM_{code:04X}", None)
    return Unit(UNITS + code, row.mdc_refid or row.name, row.ucum or None)


@cache
def place_of(physio: int) -> int:
    """Return the number of the VMD to which a quantity belongs."""
    return next(vmd for low, high, vmd, _ in _places() if low <= physio <= high)


@cache
def levels(places: frozenset[int]) -> tuple[Containment, ...]:
    """Return the device rows of a monitor with these VMDs: MDS 1.0.0.0 and each 1.n.0.0."""
    names = {vmd: refid for *_, vmd, refid in _places()}
    system = Containment(sub="1.0.0.0", code=device_code(MDS_REFID), refid=MDS_REFID)
    return system, *(
        Containment(sub=f"1.{place}.0.0", code=device_code(names[place]), refid=names[place])
        for place in sorted(places)
    )


@cache
def name_of(physio: int) -> str:
    """Return the vendor's name of a physio id without its prefix, or the number in hex."""
    row = _rows("physio").get(physio)
    return row.name.removeprefix("NOM_") if row else f"{physio:04X}"


@cache
def alarm_name(code: int) -> str:
    """Return the vendor's name of an alarm code without its prefix, or the number in hex."""
    row = _rows("alarm").get(code)
    return row.name.removeprefix("NOM_") if row else f"{code:04X}"


@cache
def physio_named(name: str) -> int | None:
    """Return the physio id of a vendor's name (`NOM_PLETH`) or label (`Pleth`), None for neither."""
    wanted = name.upper()
    for row in _rows("physio").values():
        if wanted in (row.name, row.name.removeprefix("NOM_")):
            return row.code
    for row in _rows("physio").values():
        if wanted in row.short.upper().split("/"):
            return row.code
    return None


@cache
def physio_of_key(key: str) -> int | None:
    """Return the physio id of a product key, None where the vendor has none."""
    for physio, known in _keys().items():
        if known == key:
            return physio
    try:
        code = term(key).code
    except KeyError:
        return None
    return code - METRICS if code is not None and 0 <= code - METRICS < PRIVATE_MIN else None


def _term(physio: int) -> Term | None:
    if (key := _keys().get(physio)) is not None:
        return term(key)
    return term_of_code(METRICS + physio) if physio < PRIVATE_MIN else None


def _refid(physio: int) -> str:
    row = _rows("physio").get(physio)
    return (row.mdc_refid or row.name) if row else f"NOM_{physio:04X}"


def _range(known: Term, unit: Unit | None) -> tuple[Decimal | None, Decimal | None]:
    if unit is None or unit.ucum == known.ucum:
        return known.low, known.high
    factor, offset = _TO_TERM.get((unit.ucum or "", known.ucum or ""), (None, Decimal(0)))
    if factor is None:
        return None, None
    low = None if known.low is None else (known.low - offset) / factor
    return low, None if known.high is None else (known.high - offset) / factor


@cache
def _places() -> tuple[tuple[int, int, int, str], ...]:
    with (_FOLDER / "places.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            (int(row["low"], 16), int(row["high"], 16), int(row["vmd"]), row["refid"]) for row in csv.DictReader(file)
        )


@cache
def _keys() -> dict[int, str]:
    with (_FOLDER / "keys.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["hex"], 16): row["key"] for row in csv.DictReader(file)}


@cache
def _rows(kind: str) -> dict[int, _Row]:
    return {row.code: row for row in _read(kind)}


def _read(kind: str) -> Iterator[_Row]:
    with (_FOLDER / "codes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == kind:
                yield _Row(int(row["hex"], 16), row["name"], row["mdc_refid"], row["units_or_ucum"], row["short"])
