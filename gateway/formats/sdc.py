"""SDC metrics and waves as the product's Observations and Waves (IEEE 11073-10207 participant model).

Codes of the nomenclature bring the product's keys; what has none there passes under `x_sdc_<code>`. A setting never
bears the key of the measurement whose code it shares. A value in a unit that is not its key's is never held against
the plausible range. Validity and activation become the reason of absence or a flag; a value of a test or a
demonstration is never published.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from gateway.formats.digits import is_plain
from gateway.formats.observing import QUESTIONABLE
from gateway.formats.sdc_facts import Activation, Category, Coded, Descriptor, MetricState, Mode, Validity, WaveState
from gateway.formats.sdc_tree import refid_of
from gateway.formats.terms import Term, term, term_of_code, unit_of_code
from gateway.model import Absent, Method, Observation, Wave

SETTING_OFFSET = 1 << 24  # a setting's term is the measured one in partition 258
DIGITS_MAX = 9  # decimals of a sample that are kept
SAMPLE_MAX = 10**15
PERIOD_S_MIN, PERIOD_S_MAX = Decimal("1e-6"), Decimal(3600)
TEXT_MAX = 1000  # characters of a text value
FIRST_YEAR_S, LAST_YEAR_S = 0.0, 7_258_118_400.0  # 1970 to 2200: outside it a time is no time

_PREFIX = {Category.PRESETTING: "preset_", Category.RECOMMENDATION: "advised_"}
_INACTIVE = {
    Activation.OFF: Absent.OFF,
    Activation.SHUTDOWN: Absent.OFF,
    Activation.NOT_READY: Absent.NAV,
    Activation.STANDBY: Absent.NAV,
    Activation.FAILURE: Absent.INV,
}
_NO_VALUE: dict[Validity, tuple[Absent, tuple[str, ...]]] = {
    Validity.ONGOING: (Absent.BUSY, ()),
    Validity.CALIBRATING: (Absent.BUSY, ("CAL",)),
    Validity.INVALID: (Absent.INV, ()),
    Validity.OVERFLOW: (Absent.INV, (">",)),
    Validity.UNDERFLOW: (Absent.INV, ("<",)),
    Validity.NOT_AVAILABLE: (Absent.NAV, ()),
}
_GOOD: dict[Validity, tuple[str, ...]] = {
    Validity.VALID: (),
    Validity.VALIDATED: ("VAL",),
    Validity.QUESTIONABLE: (QUESTIONABLE,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a metric is: the product's key, its term where it has one, and the codes that travel along."""

    key: str
    term: Term | None
    code: int | None
    refid: str | None
    loinc: str | None


def meaning(one: Descriptor) -> Meaning:
    """Return what a metric's descriptor says it is."""
    coded = one.coded or Coded(code=one.handle, system="handle")
    code = coded.mdc
    known = term_of_code(code) if code is not None else None
    name = known.key if known else _slug(coded.code)
    if one.category is Category.SETTING and (known is None or known.kind != "setting"):
        known, name = _setting(known), f"set_{name}"
    elif one.category in _PREFIX:
        known, name = None, f"{_PREFIX[one.category]}{name}"
    if known is None:
        return Meaning(key=f"x_sdc_{name}", term=None, code=code, refid=refid_of(coded), loinc=None)
    return Meaning(key=known.key, term=known, code=known.code, refid=known.refid, loinc=known.loinc)


def observation(
    one: Descriptor,
    state: MetricState,
    sub: str,
    *,
    observed_at: datetime | None = None,
    flags: tuple[str, ...] = (),
    limits: tuple[Decimal | None, Decimal | None] = (None, None),
) -> Observation:
    """Return a metric's state as an Observation; `flags` come beside those of the state, `limits` are low and high."""
    means = meaning(one)
    value, absent, own = worth(state)
    told = (*own, *flags) if absent is None else own
    if isinstance(value, Decimal) and not _plausible(means.term, one.unit, value) and QUESTIONABLE not in told:
        told = (*told, QUESTIONABLE)
    unit, unit_code, unit_refid = _unit(one.unit)
    return Observation(
        key=means.key,
        sub=sub,
        value=value,
        absent=absent,
        code=means.code,
        refid=means.refid,
        loinc=means.loinc,
        unit=unit,
        unit_code=unit_code,
        unit_refid=unit_refid,
        flags=told,
        method=_method(one),
        episodic=one.intermittent,
        observed_at=observed_at,
        low=limits[0],
        high=limits[1],
    )


def worth(state: MetricState) -> tuple[Decimal | str | None, Absent | None, tuple[str, ...]]:
    """Return the value or the reason of its absence, and flags of OBX-8 (10207, MeasurementValidity)."""
    if state.mode is not Mode.REAL:
        return None, Absent.NAV, ("TEST",)
    if state.activation in _INACTIVE:
        return None, _INACTIVE[state.activation], ()
    if state.validity in _NO_VALUE:
        absent, flags = _NO_VALUE[state.validity]
        return None, absent, flags
    value = _sound(state.value)
    return (None, Absent.NAV, ()) if value is None else (value, None, _GOOD[state.validity])


def wave(one: Descriptor, state: WaveState, sub: str, *, gap: bool, started_at: datetime | None = None) -> Wave | None:
    """Return a piece of a waveform; None where there are no samples or no sensible period.

    Samples of a piece that the Device calls invalid are None each, so that time goes on.
    """
    if not state.samples or one.period_s is None or not PERIOD_S_MIN <= one.period_s <= PERIOD_S_MAX:
        return None
    good = state.validity in _GOOD and state.activation is Activation.ON and state.mode is Mode.REAL
    samples, factor = _scaled(state.samples) if good else ((None,) * len(state.samples), Decimal(1))
    means = meaning(one)
    unit, unit_code, unit_refid = _unit(one.unit)
    return Wave(
        key=means.key,
        sub=sub,
        samples=samples,
        period_s=one.period_s,
        factor=factor,
        code=means.code,
        refid=means.refid,
        unit=unit,
        unit_code=unit_code,
        unit_refid=unit_refid,
        gap=gap,
        started_at=started_at,
    )


def is_wanted(one: Descriptor, waves: tuple[str, ...]) -> bool:
    """Tell whether a wave was asked for: by the product's key, MDC number, reference id or handle; `all` is each."""
    means = meaning(one)
    names = {means.key, one.handle, means.refid or "", str(means.code or ""), one.coded.code if one.coded else ""}
    return "all" in waves or not names.isdisjoint(waves)


def instant(seconds: float | None) -> datetime | None:
    """Return a Device's time as an instant, to the millisecond that BICEPS carries; None for what can be none."""
    if seconds is None or not FIRST_YEAR_S < seconds < LAST_YEAR_S:
        return None
    return datetime.fromtimestamp(round(seconds, 3), UTC)


def _slug(code: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", code.lower()).strip("_")[:40] or "unnamed"


def _setting(measured: Term | None) -> Term | None:
    """Return the term of the setting that goes with a measured one."""
    if measured is None or measured.code is None:
        return None
    if (found := term_of_code(measured.code + SETTING_OFFSET)) is not None:
        return found
    try:
        return term(f"set_{measured.key}")
    except KeyError:
        return None


def _method(one: Descriptor) -> Method:
    if one.category in (Category.SETTING, Category.PRESETTING):
        return Method.SETTING_MANUAL if one.manual else Method.SETTING_AUTO
    if one.category in (Category.CALCULATION, Category.RECOMMENDATION):
        return Method.CALCULATED
    return Method.MANUAL if one.manual else Method.AUTO


def _plausible(known: Term | None, unit: Coded | None, value: Decimal) -> bool:
    if known is None or known.unit_code is None or unit is None or unit.mdc != known.unit_code:
        return True
    return known.plausible(value)


def _unit(coded: Coded | None) -> tuple[str | None, int | None, str | None]:
    """Return UCUM, MDC code and reference id; a unit that is not in the table has no UCUM."""
    code = coded.mdc if coded else None
    if code is None:
        return None, None, None
    known = unit_of_code(code)
    return (known.ucum, known.code, known.refid) if known else (None, code, refid_of(coded))


def _sound(value: Decimal | str | None) -> Decimal | str | None:
    if isinstance(value, Decimal):
        return value if is_plain(value) else None
    return value[:TEXT_MAX] if value else None


def _scaled(samples: tuple[Decimal, ...]) -> tuple[tuple[int | None, ...], Decimal]:
    """Return samples as whole numbers of a power of ten that holds the decimals of all."""
    digits = 0
    for sample in samples:
        exponent = sample.as_tuple().exponent
        if isinstance(exponent, int):
            digits = max(digits, min(-exponent, DIGITS_MAX))
    return tuple(_whole(sample, digits) for sample in samples), Decimal(1).scaleb(-digits)


def _whole(sample: Decimal, digits: int) -> int | None:
    if not sample.is_finite() or abs(sample) >= SAMPLE_MAX:
        return None
    return round(sample.scaleb(digits))
