"""Philips MDIL, Nihon Kohden, Dräger Infinity, and any other sender of ORU^R01: one row, one value."""

from collections.abc import Callable
from decimal import Decimal

from drivers.hl7_monitor.message import MonitorMessage, Segment, instant_of
from drivers.hl7_monitor.rows import Known, codes, limits_of, number_of, observed, reason_of, slug, ucum_of
from gateway.driver import Absent, Condition, DeviceIdentity, Observation, Priority, Result
from gateway.formats.terms import term_of_code, unit_of_code

Row = Callable[[Segment, str, str], Observation | Condition | None]

PARTITION = 65536
ZERO_IS_NOTHING = frozenset({"136000", "136001", "136002", "136003", "136004", "136005", "136006", "004001", "073003"})


def read_rows(message: MonitorMessage, row: Row, utc_offset: str, manufacturer: str | None) -> tuple[Result, ...]:
    """Return one Result of a message, each row by the dialect's own function."""
    observations: list[Observation] = []
    conditions: list[Condition] = []
    for segment in message.named("OBX"):
        found = row(segment, f"1.1.1.{len(observations) + 1}", utc_offset)
        if isinstance(found, Observation):
            observations.append(found)
        elif found is not None:
            conditions.append(found)
    if not observations and not conditions:
        return ()
    return (
        Result(
            observations=tuple(observations),
            conditions=tuple(conditions),
            device=DeviceIdentity(manufacturer=manufacturer, model=message.msh(3).split("^")[0] or None),
            observed_at=instant_of(message.device_time() or "", utc_offset),
            device_time=message.device_time(),
            device_clock=message.clock(utc_offset),
            patient_id=message.patient_id(),
        ),
    )


def philips_row(row: Segment, sub: str, utc_offset: str) -> Observation | Condition | None:
    """Read `0002-4182^HR^MDIL`: partition and low word of the MDC code in hex; alarms have MDIL-ALERT."""
    code, label, system = (row.component(3, number) for number in (1, 2, 3))
    if system == "MDIL-ALERT":
        return Condition(code=f"{code} {label}"[:64], text=row.text(5) or label, priority=Priority.LOW)
    number, unit_number = _mdil(code), _mdil(row.component(6, 1))
    known = term_of_code(number) if number is not None else None
    unit = unit_of_code(unit_number) if unit_number is not None else None
    ucum = unit.ucum if unit else ucum_of(row.component(6, 2) or row.component(6, 1))
    value, absent = _plain(row)
    ours = known is not None and known.kind != "wave" and (ucum is None or known.ucum == ucum)
    low, high = limits_of(row.text(7))
    return Observation(
        key=known.key if known is not None and ours else f"x_philips_{slug(label or code)}",
        sub=sub,
        value=value,
        absent=absent,
        code=number,
        refid=known.refid if known is not None else None,
        loinc=known.loinc if known is not None and ours else None,
        unit=ucum,
        unit_code=unit.code if unit else None,
        unit_refid=unit.refid if unit else None,
        observed_at=instant_of(row.text(14), utc_offset),
        low=low,
        high=high,
    )


def nihon_kohden_row(row: Segment, sub: str, utc_offset: str) -> Observation | Condition | None:
    """Read `001000^VITAL HR`; a 0 that means nothing (QT, apnoea of flavour B) is no value."""
    code, label = row.component(3, 1), row.component(3, 2)
    known = codes("nihon-kohden").get(code) or Known(f"x_nihon_kohden_{slug(label or code)}", None)
    text = row.text(5)
    nothing = code in ZERO_IS_NOTHING and number_of(text) == 0 and row.text(11) == "O"
    return observed(
        known,
        text,
        sub=sub,
        unit=row.text(6),
        absent=Absent.NAV if nothing else None,
        row=row,
        observed_at=instant_of(row.text(14), utc_offset),
        episodic=row.text(13) == "APERIODIC",
    )


def draeger_row(row: Segment, sub: str, utc_offset: str) -> Observation | Condition | None:
    """Read `HR^^local^8867-4&1^^LOINC`; SN values have a comparator before the number, blanks are no value."""
    label, code = row.component(3, 1), row.component(3, 4).split("&")[0]
    known = codes("draeger").get(code) or Known(f"x_draeger_{slug(label)}", None)
    comparator, number = row.component(5, 1), row.component(5, 2)
    text = row.text(5)
    if row.text(2) == "SN":
        text = number if comparator in ("=", "") else f"{comparator}{number}"
    return observed(
        known,
        text,
        sub=sub,
        unit=row.component(6, 1),
        flags=(comparator,) if comparator in ("<", ">") else (),
        row=row,
        observed_at=instant_of(row.text(14), utc_offset),
    )


def any_row(row: Segment, sub: str, utc_offset: str) -> Observation | Condition | None:
    """Read a row of a sender that is none of the known ones: kept under its own name."""
    code, label = row.component(3, 1), row.component(3, 2)
    if not (code or label):
        return None
    known = Known(f"x_hl7_{slug(label or code)}", None)
    unit, at = row.component(6, 1), instant_of(row.text(14), utc_offset)
    return observed(known, row.text(5), sub=sub, unit=unit, row=row, observed_at=at)


def _plain(row: Segment) -> tuple[Decimal | str | None, Absent | None]:
    text, absent = row.text(5), reason_of(row)
    if absent is not None or not text:
        return None, absent or Absent.NAV
    number = number_of(text)
    return (text if number is None else number), None


def _mdil(text: str) -> int | None:
    partition, _, word = text.partition("-")
    try:
        return int(partition, 16) * PARTITION + int(word, 16)
    except ValueError:
        return None
