"""IHE PCD-01 and PCD-04 as monitors send them: MDC codes, containment in OBX-4, alarms in ORU^R40.

GE B-series and CARESCAPE, Mindray eGateway, VS and A-series, and others; rows without a value are device rows.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from drivers.hl7_monitor.message import MonitorMessage, Segment, instant_of
from drivers.hl7_monitor.rows import REASONS, limits_of, number_of, reason_of, slug, ucum_of, unit_of_ucum
from gateway.driver import (
    Absent,
    Condition,
    Containment,
    DeviceIdentity,
    Method,
    Observation,
    Phase,
    Priority,
    Result,
    Wave,
)
from gateway.formats.digits import writable
from gateway.formats.terms import Term, Unit, term_of_code, unit_of_code

ALARM_GROUP, WAVE_GROUPS = "196616", ("69121", "100001")
EVENT_PHASE, ALARM_STATE, ALARM_PRIORITY = "68481", "68482", "68484"
SAMPLE_RATE, RESOLUTION = "MDC_ATTR_SAMP_RATE", "2327"
METHODS = {
    "AMEAS": Method.AUTO,
    "MMEAS": Method.MANUAL,
    "ACALC": Method.CALCULATED,
    "MCALC": Method.CALCULATED,
    "ASET": Method.SETTING_AUTO,
    "MSET": Method.SETTING_MANUAL,
    "RSET": Method.SETTING_REMOTE,
}
PRIORITIES = {"PH": Priority.HIGH, "PM": Priority.MEDIUM, "PL": Priority.LOW, "PN": Priority.ADVISORY}
PHASES = {
    "start": Phase.START,
    "present": Phase.PRESENT,
    "continue": Phase.PRESENT,
    "update": Phase.PRESENT,
    "tpoint": Phase.PRESENT,
    "end": Phase.END,
}


def is_demo(message: MonitorMessage) -> bool:
    """Tell whether the values are a demonstration's: DEMO in OBX-8, or MSH-11 says training or debugging."""
    if message.msh(11)[:1] in ("D", "T"):
        return True
    return any("DEMO" in row.repetitions(8) for row in message.named("OBX"))


def read_pcd(message: MonitorMessage, utc_offset: str) -> tuple[Result, ...]:
    """Return one Result of a message. Never raises for a single row."""
    rows = list(_grouped(message))
    containment = {}
    observations: list[Observation] = []
    for group, row in rows:
        sub = _path(row.text(4))
        if sub is None or group.startswith(ALARM_GROUP) or group.startswith(WAVE_GROUPS):
            continue
        code, refid = row.component(3, 1), row.component(3, 2)
        if not row.text(2) and not row.text(5) and sub.endswith(".0"):
            containment[sub] = Containment(sub=sub, code=int(code) if code.isdecimal() else 0, refid=refid)
        elif row.text(2) != "NA":
            observations.append(_observation(row, sub, utc_offset))
    result = Result(
        observations=tuple(observations),
        waves=tuple(_waves(rows, message, utc_offset)),
        conditions=tuple(_alarms(rows)),
        containment=tuple(containment.values()),
        device=_device(message),
        observed_at=instant_of(message.device_time() or "", utc_offset),
        device_time=message.device_time(),
        device_clock=message.clock(utc_offset),
        patient_id=message.patient_id(),
    )
    return (result,) if result.observations or result.waves or result.conditions else ()


def _grouped(message: MonitorMessage) -> Iterator[tuple[str, Segment]]:
    group = ""
    for segment in message.segments:
        if segment.name == "OBR":
            group = segment.component(4, 1)
        elif segment.name == "OBX":
            yield group, segment


def _path(text: str) -> str | None:
    """Return OBX-4 as a path of four to six numbers, None where it is none."""
    parts = text.split(".")
    if not all(part.isdecimal() and part.isascii() and len(part) <= 6 for part in parts) or len(parts) > 6:
        return None
    return ".".join([*parts, *["0"] * (4 - len(parts))])


def _observation(row: Segment, sub: str, utc_offset: str) -> Observation:
    code, refid, system = (row.component(3, number) for number in (1, 2, 3))
    number = int(code) if code.isdecimal() and system in ("MDC", "") else None
    known = term_of_code(number) if number else None
    value, absent, flags = _value(row)
    unit, ucum = _unit(row, known)
    low, high = limits_of(row.text(7))
    usable = known is not None and known.kind != "wave" and (ucum is None or known.ucum in (None, ucum))
    return Observation(
        key=known.key if known is not None and usable else _own_key(code, refid, system),
        sub=sub,
        value=value,
        absent=absent,
        code=number or None,
        refid=refid or None,
        loinc=known.loinc if known is not None and usable else None,
        unit=ucum,
        unit_code=unit.code if unit else None,
        unit_refid=unit.refid if unit else None,
        flags=flags,
        method=next((METHODS[name] for name in row.repetitions(17) if name in METHODS), Method.AUTO),
        episodic="APERIODIC" in row.repetitions(17) or "69124" in row.repetitions(17),
        observed_at=instant_of(row.text(14), utc_offset),
        low=low,
        high=high,
    )


def _unit(row: Segment, known: Term | None) -> tuple[Unit | None, str | None]:
    """Return OBX-6 as an MDC unit and in UCUM; one that we do not know as it was written."""
    code, name, system = (row.component(6, number) for number in (1, 2, 3))
    if code.isdecimal() and system in ("MDC", ""):
        unit = unit_of_code(int(code))
        return unit, unit.ucum if unit else name or code
    ucum = ucum_of(code)
    if known is not None and known.ucum == ucum and known.unit_code is not None:
        return unit_of_code(known.unit_code), ucum  # several MDC units are `/min`
    return unit_of_ucum(ucum), ucum


def _own_key(code: str, refid: str, system: str) -> str:
    if system == "MDC" or refid.startswith("MDC_"):
        return f"x_mdc_{code}" if code.isdecimal() and code != "0" else f"x_{slug(refid)}"
    return f"x_{slug(system)}_{slug(code or refid)}"


def _value(row: Segment) -> tuple[Decimal | str | None, Absent | None, tuple[str, ...]]:
    told = [flag for flag in row.repetitions(8) if flag]
    absent = reason_of(row)
    flags = tuple(flag for flag in told if flag not in REASONS)
    if row.text(2) == "SN":
        text = f"{row.component(5, 1).removeprefix('=')}{row.component(5, 2)}"
    else:
        text = row.component(5, 2) or row.component(5, 1) if row.text(2) in ("CWE", "CE") else row.text(5)
    if absent is not None or not text:
        return None, absent or Absent.NAV, flags
    number = number_of(text) if row.text(2) in ("NM", "SN", "") else None
    return (text if number is None else number), None, flags


def _waves(rows: list[tuple[str, Segment]], message: MonitorMessage, utc_offset: str) -> Iterator[Wave]:
    """Yield the waveforms: NA rows, with the rate and resolution that follow them."""
    for index, (group, row) in enumerate(rows):
        if row.text(2) != "NA" or not (sub := _path(row.text(4))):
            continue
        rate, factor = None, Decimal(1)
        for later_group, later in rows[index + 1 :]:
            if later_group != group or later.text(2) == "NA":
                break
            if later.component(3, 2) == SAMPLE_RATE:
                rate = number_of(later.text(5))
            elif later.component(3, 1) == RESOLUTION:
                factor = number_of(later.text(5)) or Decimal(1)
        if rate is None or rate <= 0:
            continue
        code, refid, system = (row.component(3, number) for number in (1, 2, 3))
        known = term_of_code(int(code)) if code.isdecimal() and system in ("MDC", "") else None
        yield Wave(
            key=known.key if known else _own_key(code, refid, system),
            sub=sub,
            samples=tuple(_sample(part) for part in row.components(5)),
            period_s=writable(1 / rate),
            factor=factor,
            code=int(code) if known else None,
            refid=refid or None,
            unit=known.ucum if known else None,
            unit_code=known.unit_code if known else None,
            unit_refid=known.unit_refid if known else None,
            started_at=_start(row, utc_offset),
        )


def _start(row: Segment, utc_offset: str) -> datetime | None:
    return instant_of(row.text(14), utc_offset)


def _sample(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _alarms(rows: list[tuple[str, Segment]]) -> Iterator[Condition]:
    """Yield the alarm of each PCD-04 group: facet 1 is the event, the others follow it by code."""
    first: Segment | None = None
    told: dict[str, Segment] = {}
    for group, row in [*rows, ("", None)]:
        begins = row is not None and group.startswith(ALARM_GROUP) and row.text(4).split(".")[-1:] == ["1"]
        if first is not None and (begins or row is None or not group.startswith(ALARM_GROUP)):
            yield _alarm(first, told)
            first, told = None, {}
        if row is None or not group.startswith(ALARM_GROUP):
            continue
        if begins:
            first = row
        told[row.component(3, 1)] = row


def _alarm(event: Segment, told: dict[str, Segment]) -> Condition:
    code, text = event.component(3, 1), event.component(5, 9) or event.component(5, 2) or event.text(5)
    phase = told[EVENT_PHASE].text(5).lower() if EVENT_PHASE in told else ""
    priority = told[ALARM_PRIORITY].text(5) if ALARM_PRIORITY in told else ""
    state = told[ALARM_STATE].text(5).lower() if ALARM_STATE in told else ""
    if code == ALARM_GROUP:
        code = event.component(5, 1) or code
    found = PHASES.get(phase)
    return Condition(
        code=(event.component(3, 2) or code)[:64],
        text=text or event.component(3, 2),
        technical="ST" in event.repetitions(8) or event.component(3, 1) == ALARM_GROUP,
        priority=PRIORITIES.get(priority, Priority.LOW),
        phase=Phase.LATCHED if state == "latched" and found is not Phase.END else found,
        mdc=int(code) if code.isdecimal() else None,
    )


def _device(message: MonitorMessage) -> DeviceIdentity:
    name, identifier, kind = [*message.msh(3).split("^"), "", "", ""][:3]
    eui = identifier.upper() if kind == "EUI-64" and len(identifier) == 16 else None
    return DeviceIdentity(manufacturer=message.msh(4).split("^")[0] or None, model=name or None, eui64=eui)
