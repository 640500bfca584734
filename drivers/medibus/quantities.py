"""How a number of a Device becomes an Observation: key, codes, the Device's own unit, plausibility.

A value is published in the unit in which the Device sent it (mbar, kPa), never converted; only where two codes carry
one quantity at different magnitudes (litres and millilitres) is the number brought to one unit.
"""

from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from drivers.medibus.content import number_of
from drivers.medibus.tables import TEXT_UNIT, Quantity, units
from gateway.driver import Absent, Method, Observation
from gateway.formats.observing import QUESTIONABLE, VENDOR_PREFIX
from gateway.formats.terms import Term, term, unit_of


@dataclass(frozen=True, slots=True)
class Naming:
    """Everything of an Observation that does not change from one answer to the next."""

    key: str
    code: int | None
    refid: str | None
    loinc: str | None
    unit: str | None
    unit_code: int | None
    unit_refid: str | None
    term: Term | None
    per: Decimal | None  # units of the term in one of ours; None where they cannot be compared


@dataclass(frozen=True, slots=True)
class Limits:
    """The alarm limits set on the Device; None where there is none."""

    low: Decimal | None = None
    high: Decimal | None = None


NO_LIMITS = Limits()


@cache
def naming_of(quantity: Quantity) -> Naming:
    """Return keys, codes and units of a quantity; those of the terminology go before those of the vendor's tables."""
    known = None if quantity.key.startswith(VENDOR_PREFIX) else term(quantity.key)
    unit = None if quantity.unit == TEXT_UNIT else quantity.unit
    unit_code, unit_refid, per = _unit(unit, known)
    return Naming(
        key=quantity.key,
        code=quantity.mdc if known is None else known.code,
        refid=quantity.refid if known is None else known.refid,
        loinc=None if known is None else known.loinc,
        unit=unit,
        unit_code=unit_code,
        unit_refid=unit_refid,
        term=known,
        per=per,
    )


def scaled(quantity: Quantity, text: str) -> Decimal | str | None:
    """Return the value of a record in the unit of its quantity; None where it is blank."""
    if quantity.unit == TEXT_UNIT:
        return text.strip() or None
    value = number_of(text)
    if quantity.factor is None or not isinstance(value, Decimal):
        return value
    exact = value * quantity.factor
    return Decimal(int(exact)) if exact == exact.to_integral_value() else exact.normalize()


def observation(
    quantity: Quantity,
    value: Decimal | str | None,
    sub: str,
    *,
    method: Method = Method.AUTO,
    limits: Limits = NO_LIMITS,
    episodic: bool = False,
) -> Observation:
    """Return the Observation of a value; None is one that the Device does not send now."""
    name = naming_of(quantity)
    doubtful = isinstance(value, Decimal) and not _plausible(name, value)
    return Observation(
        key=name.key,
        sub=sub,
        value=value,
        absent=Absent.NAV if value is None else None,
        code=name.code,
        refid=name.refid,
        loinc=name.loinc,
        unit=name.unit,
        unit_code=name.unit_code,
        unit_refid=name.unit_refid,
        flags=(QUESTIONABLE,) if doubtful else (),
        method=method,
        episodic=episodic,
        low=limits.low,
        high=limits.high,
    )


def _unit(unit: str | None, known: Term | None) -> tuple[int | None, str | None, Decimal | None]:
    if known is not None and known.ucum == unit:
        return known.unit_code, known.unit_refid, Decimal(1)
    if unit is None:
        return None, None, None
    own = units().get(unit)
    if own is not None:
        same = known is not None and known.ucum == own.like
        return own.code, own.refid, own.per if same else None
    try:
        found = unit_of(unit)
    except KeyError:
        return None, None, None
    return found.code, found.refid, None


def _plausible(name: Naming, value: Decimal) -> bool:
    return name.term is None or name.per is None or name.term.plausible(value * name.per)
