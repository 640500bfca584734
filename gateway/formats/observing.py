"""How a driver states an Observation: the product's key brings the codes and units.

A value outside its plausible range is marked questionable and never altered. A vendor's own quantity has a key that
begins with `x_`; it has a unit where the driver names one, and no code.
"""

from datetime import datetime
from decimal import Decimal

from gateway.formats.terms import Term, term, unit_of
from gateway.model import Absent, Method, Observation, Wave

QUESTIONABLE = "QUES"
VENDOR_PREFIX = "x_"


def observe(
    key: str,
    value: Decimal | str | None,
    *,
    sub: str,
    absent: Absent | None = None,
    flags: tuple[str, ...] = (),
    method: Method = Method.AUTO,
    episodic: bool = False,
    observed_at: datetime | None = None,
    low: Decimal | None = None,
    high: Decimal | None = None,
    unit: str | None = None,
) -> Observation:
    """Return the Observation of a key, with codes and units from the terminology table.

    A value of None is absent for the reason given, NAV where none is given. `low` and `high` are the limits set on
    the Device. `unit` is UCUM and only for vendor keys. Raises KeyError for an unknown key or unit and ValueError
    for a value together with a reason of absence.
    """
    known = _vendor_term(key, unit) if key.startswith(VENDOR_PREFIX) else term(key)
    if isinstance(value, Decimal) and not known.plausible(value) and QUESTIONABLE not in flags:
        flags = (*flags, QUESTIONABLE)
    return Observation(
        key=key,
        sub=sub,
        value=value,
        absent=Absent.NAV if value is None and absent is None else absent,
        code=known.code,
        refid=known.refid,
        loinc=known.loinc,
        unit=known.ucum,
        unit_code=known.unit_code,
        unit_refid=known.unit_refid,
        flags=flags,
        method=method,
        episodic=episodic,
        observed_at=observed_at,
        low=low,
        high=high,
    )


def observe_wave(
    key: str,
    samples: tuple[int | None, ...],
    *,
    sub: str,
    period_s: Decimal,
    factor: Decimal = Decimal(1),
    offset: Decimal = Decimal(0),
    gap: bool = False,
    started_at: datetime | None = None,
    unit: str | None = None,
) -> Wave:
    """Return a piece of a waveform, with codes from the terminology table; `unit` is UCUM and only for vendor keys.

    Raises KeyError for an unknown key or unit.
    """
    known = _vendor_term(key, unit) if key.startswith(VENDOR_PREFIX) else term(key)
    return Wave(
        key=key,
        sub=sub,
        samples=samples,
        period_s=period_s,
        factor=factor,
        offset=offset,
        code=known.code,
        refid=known.refid,
        unit=known.ucum,
        unit_code=known.unit_code,
        unit_refid=known.unit_refid,
        gap=gap,
        started_at=started_at,
    )


def _vendor_term(key: str, ucum: str | None) -> Term:
    unit = unit_of(ucum) if ucum is not None else None
    return Term(
        key=key,
        display=key,
        code=None,
        refid=None,
        unit_code=unit.code if unit else None,
        unit_refid=unit.refid if unit else None,
        ucum=ucum,
        loinc=None,
        low=None,
        high=None,
        kind="numeric",
    )
