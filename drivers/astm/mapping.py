"""From the records of one message to Results: one for each sample.

Values are published as the analyser wrote them. A number is a number only where it is clean: `<20` and `>500` stay
text with the flag `<` or `>`, a leading `?` is taken off and marked questionable, dots, dashes and nothing are missing
values. A code in a comment behind a result becomes a Condition.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from drivers.astm.settings import VENDOR_PREFIX, Test, known_tests, known_units
from gateway.driver import Absent, Condition, ContentError, DeviceIdentity, Method, Observation, Result, read_number
from gateway.formats.astm import Record, read_records
from gateway.formats.terms import Unit, term, unit_of

RESULTS_MAX = 2000
FLAGS = frozenset({"L", "H", "LL", "HH", "<", ">", "N", "A"})
SPECIMEN_KEY = "x_specimen_id"
STATUSES = {
    "P": "preliminary result",
    "C": "corrected result",
    "I": "result pending in the analyser",
    "X": "order cannot be done",
    "Q": "answer to a query",
    "R": "result sent before",
    "V": "result verified",
}

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")
_MISSING = re.compile(r"[.\-*_ ]*")
_RANGE = re.compile(r"\s*([-+]?[\d.]+)\s*(?:-|to|\^)\s*([-+]?[\d.]+)\s*", re.IGNORECASE)
_NOT_KEY = re.compile(r"[^a-z0-9]+")
_METHODS = {"M": Method.AUTO, "C": Method.CALCULATED, "E": Method.CALCULATED, "I": Method.MANUAL}
_NOTHING_KNOWN = Test()


@dataclass
class _Sample:
    """What was read of one sample so far."""

    patient_id: str
    specimen_id: str = ""
    observations: list[Observation] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    measured_at: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a site's analyser is read: its own tests over the known ones, and which P fields may hold the patient id."""

    tests: Mapping[str, Test]
    patient_id_fields: Sequence[int]
    manufacturer: str | None


def results_of(text: str, how: Dialect) -> tuple[Result, ...]:
    """Return the Results of a message. Raises ContentError for text that is no ASTM message."""
    records = list(read_records(text))
    if not records or records[0].type != "H":
        raise ContentError("the message does not begin with a header record")
    device, sent_at = _device(records[0], how), records[0].text(14)
    return tuple(
        Result(
            observations=tuple(sample.observations),
            conditions=tuple(sample.conditions),
            device=device,
            device_time=sample.measured_at or sent_at or None,
            patient_id=sample.patient_id or None,
        )
        for sample in _samples(records, how)
        if sample.observations or sample.conditions
    )


def mark_of(text: str) -> str | None:
    """Return by what a repeat of a message is known; None where it holds no time, so that none is taken for one."""
    records = list(read_records(text))
    times = [record.text(13) or record.text(12) for record in records if record.type == "R"]
    header = records[0] if records and records[0].type == "H" else None
    sent = header.text(14) if header is not None else ""
    if not sent and not any(times):
        return None
    samples = [record.text(3) or record.text(4) for record in records if record.type == "O"]
    return "/".join([header.text(5)[:64] if header else "", *samples[:1], sent or max(times)])[:200]


def _device(header: Record, how: Dialect) -> DeviceIdentity:
    name, *rest = header.components(5)
    return DeviceIdentity(
        manufacturer=how.manufacturer,
        model=name or None,
        software=next((part for part in rest[:1] if part), None) if len(rest) > 1 else None,
        serial=next((part for part in reversed(rest) if part), None),
    )


def _samples(records: Sequence[Record], how: Dialect) -> Iterator[_Sample]:
    patient, sample, results = "", None, 0
    for record in records[1:]:
        match record.type:
            case "P":
                patient = next((found for at in how.patient_id_fields if (found := record.component(at, 1))), "")
                if sample is not None:
                    yield sample
                    sample = None
            case "O":
                if sample is not None:
                    yield sample
                sample = _ordered(record, patient)
            case "R":
                sample = sample or _Sample(patient)
                results += 1
                if results > RESULTS_MAX:
                    raise ContentError(f"more than {RESULTS_MAX} results in one message")
                _add_result(sample, record, how)
            case "C" if sample is not None and sample.observations:
                _add_comment(sample, record)
    if sample is not None:
        yield sample


def _ordered(record: Record, patient: str) -> _Sample:
    specimen = record.component(3, 1) or next((part for part in record.components(4) if part), "")
    if record.component(4, 1).rstrip(" #").lower() == "sample":  # Radiometer: `Sample #^259`
        specimen = specimen if record.component(3, 1) else record.component(4, 2)
    sample = _Sample(patient, specimen)
    if specimen:
        sample.observations.append(Observation(key=SPECIMEN_KEY, sub="1.1.1.1", value=specimen, episodic=True))
    return sample


def _add_result(sample: _Sample, record: Record, how: Dialect) -> None:
    name, suffix = _test_of(record)
    sub = f"1.1.1.{len(sample.observations) + 1}"
    sample.measured_at = sample.measured_at or record.text(13) or record.text(12)
    sample.observations.append(_observation(record, name, suffix, sub, how))
    if (meaning := STATUSES.get(status := record.text(9))) is not None:
        sample.conditions.append(Condition(code=f"STATUS_{status}", text=meaning, sub=sub))


def _observation(record: Record, name: str, suffix: str, sub: str, how: Dialect) -> Observation:
    written = record.text(5)
    unit = known_units().get(written, written) or None
    test = _known(name, unit, how)
    unit = unit or test.unit
    key = test.key or f"x_astm_{_NOT_KEY.sub('_', name.lower()).strip('_') or 'test'}"
    value, absent, marks = _value(record.text(4))
    low, high = _range(record)
    known = term(key) if not key.startswith(VENDOR_PREFIX) else None
    code = _unit_of(unit)
    return Observation(
        key=key,
        sub=sub,
        value=value,
        absent=absent,
        code=known.code if known else None,
        refid=known.refid if known else None,
        loinc=test.loinc,
        unit=unit,
        unit_code=code.code if code else None,
        unit_refid=code.refid if code else None,
        flags=tuple(dict.fromkeys([*marks, *_flags(record)])),
        method=_METHODS.get(suffix, Method.AUTO),
        episodic=True,
        low=low,
        high=high,
    )


def _known(name: str, unit: str | None, how: Dialect) -> Test:
    """Return what a test is: the site's word first, where it is about this unit, then the table."""
    own = how.tests.get(name)
    if own is not None and (own.unit is None or unit is None or own.unit == unit):
        return own
    return known_tests().get((name, unit or "")) or _NOTHING_KNOWN


def _test_of(record: Record) -> tuple[str, str]:
    """Return the test's name and what the analyser says of its origin: M, C, E, I (field 3: `^^^name^suffix`)."""
    parts = record.components(3)
    told = [part for part in parts[3:] if part] or [part for part in parts if part]
    name = told[0] if told else "test"
    suffix = told[1] if len(told) > 1 and told[1] in _METHODS else ""
    return name[:64], suffix


def _value(text: str) -> tuple[Decimal | str | None, Absent | None, tuple[str, ...]]:
    """Return value, reason of absence and flags of what stands in field 4."""
    doubtful = text.startswith("?")
    text = text.removeprefix("?").strip()
    marks = ("QUES",) if doubtful else ()
    if _MISSING.fullmatch(text):
        return None, Absent.NAV, marks
    if _NUMBER.fullmatch(text) and (number := read_number(text)) is not None:
        return number, None, marks
    if text[0] in "<>":
        return text, None, (*marks, text[0])
    return text, None, marks


def _flags(record: Record) -> list[str]:
    return [flag for parts in record.repeats(7) for flag in parts[:1] if flag in FLAGS and flag != "N"]


def _range(record: Record) -> tuple[Decimal | None, Decimal | None]:
    """Return the reference range of field 6: `3.9^7.8`, `3.9 to 7.8`, `3.9-7.8`."""
    match = _RANGE.fullmatch("^".join(record.components(6)))
    if match is None:
        return None, None
    return read_number(match[1]), read_number(match[2])


def _add_comment(sample: _Sample, record: Record) -> None:
    parts = [part for part in record.components(4) if part]
    if parts:
        code = parts[0] if len(parts) > 1 else (record.text(5) or "COMMENT")
        sample.conditions.append(
            Condition(code=code[:64], text=" ".join(parts[1:] or parts), sub=sample.observations[-1].sub)
        )


def _unit_of(ucum: str | None) -> Unit | None:
    """Return the MDC unit of a UCUM unit, None where it has none."""
    try:
        return unit_of(ucum) if ucum else None
    except KeyError:
        return None
