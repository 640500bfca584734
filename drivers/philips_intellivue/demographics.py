"""Patient demographics: who the monitor says it is connected to (sheet section 14; guide p. 103).

Evidence, not truth: the patient id goes beside the values; names and the date of birth are read and not published.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from drivers.philips_intellivue.codes import METRICS, Unit, unit_of
from drivers.philips_intellivue.values import absolute_time, float_of, text_of, u16, u32
from gateway.driver import Method, Observation, observe

ADMITTED = 2
STATE, CATEGORY, SEX, PATIENT_ID = 0x0957, 0x0962, 0x0961, 0x095A
GIVEN_NAME, FAMILY_NAME, BORN = 0x095D, 0x095C, 0x0958
AGE, HEIGHT, WEIGHT, SURFACE, PACED = 0x09D8, 0x09DC, 0x09DF, 0x0956, 0x0A1E

_CATEGORIES = {1: "adult", 2: "paediatric", 3: "neonatal"}
_SEXES = {1: "male", 2: "female", 9: "unspecified"}
_PACED = {0: "not paced", 1: "paced"}


@dataclass(frozen=True, slots=True)
class Measure:
    """A number with its unit, as entered on the monitor."""

    value: Decimal
    unit: Unit | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demographics:
    """The patient as entered on the monitor. Valid only while `admitted`; None where nothing was entered."""

    admitted: bool
    patient_id: str | None = None
    given_name: str | None = None
    family_name: str | None = None
    born: str | None = None
    category: str | None = None
    sex: str | None = None
    paced: str | None = None
    age: Measure | None = None
    height: Measure | None = None
    weight: Measure | None = None
    surface: Measure | None = None


def demographics_of(values: dict[int, bytes]) -> Demographics:
    """Read the attributes of a patient demographics object. Raises ContentError when one is cut short."""
    born = absolute_time(values.get(BORN, b""))
    return Demographics(
        admitted=_number(values, STATE) == ADMITTED,
        patient_id=_text(values, PATIENT_ID),
        given_name=_text(values, GIVEN_NAME),
        family_name=_text(values, FAMILY_NAME),
        born=None if born is None else born.date().isoformat(),
        category=_CATEGORIES.get(_number(values, CATEGORY) or 0),
        sex=_SEXES.get(_number(values, SEX) or 0),
        paced=_PACED.get(-1 if (paced := _number(values, PACED)) is None else paced),
        age=_measure(values, AGE),
        height=_measure(values, HEIGHT),
        weight=_measure(values, WEIGHT),
        surface=_measure(values, SURFACE),
    )


def observations_of(patient: Demographics) -> tuple[Observation, ...]:
    """Return what of the demographics is published beside the id: nothing while nobody is admitted."""
    return tuple(_observations(patient)) if patient.admitted else ()


def _observations(patient: Demographics) -> Iterator[Observation]:
    texts = (
        ("x_philips_patient_category", CATEGORY, patient.category),
        ("x_philips_patient_sex", SEX, patient.sex),
        ("x_philips_paced_mode", PACED, patient.paced),
    )
    for key, identity, text in texts:
        if text is not None:
            yield observe(key, text, sub=f"1.16.2.{identity}", method=Method.SETTING_MANUAL)
    measures = (
        ("x_philips_patient_age", AGE, patient.age),
        ("height", HEIGHT, patient.height),
        ("weight", WEIGHT, patient.weight),
        ("bsa", SURFACE, patient.surface),
    )
    for key, identity, measure in measures:
        if measure is not None:
            yield _entered(key, identity, measure)


def _entered(key: str, identity: int, measure: Measure) -> Observation:
    unit = measure.unit
    known = None if key.startswith("x_") else observe(key, measure.value, sub="1.16.2.1")
    return Observation(
        key=key,
        sub=f"1.16.2.{identity}",
        value=measure.value,
        code=None if known is None else known.code or METRICS,
        refid=None if known is None else known.refid,
        loinc=None if known is None else known.loinc,
        unit=None if unit is None else unit.ucum,
        unit_code=None if unit is None else unit.code,
        unit_refid=None if unit is None else unit.refid,
        method=Method.SETTING_MANUAL,
        episodic=True,
    )


def _number(values: dict[int, bytes], identity: int) -> int | None:
    found = values.get(identity)
    return None if found is None else u16(found, 0)


def _text(values: dict[int, bytes], identity: int) -> str | None:
    found = values.get(identity)
    return (text_of(found) or None) if found is not None else None


def _measure(values: dict[int, bytes], identity: int) -> Measure | None:
    if (found := values.get(identity)) is None:
        return None
    value = float_of(u32(found, 0))
    return Measure(value, unit_of(u16(found, 4))) if isinstance(value, Decimal) else None
