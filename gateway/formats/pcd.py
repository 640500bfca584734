"""PCD-01: a Result as HL7 v2.6 ORU^R01^ORU_R01 (IHE DEV TF-2, DEC; field rules as of IHE SDPi and HL7 PoCD).

    MSH PID PV1 OBR { OBX }

Device rows come before what they contain; each metric is one OBX. Rendering is a pure function of the Parcel, so a
repeat is byte-identical. What is said how:

- The patient is always unknown here (PID-3 empty, PID-5 name type U, PID-31 Y): what a Device shows as patient is
  evidence, not identity. The place (PV1-3) is the Source's bed.
- Times are UTC with `+0000`. OBR-7 is the Device's time where it can be trusted, else our time of receipt; OBX-14
  stands only where an Observation has a time of its own.
- A missing value keeps its row: OBX-8 says why, OBX-11 is X.
- A code the standard does not number travels as 0 with its reference id; a number of the private range as
  MDC_PRIVATE_<code> with the maker's coding system.
- A number without a unit is MDC_DIM_NOS: NM demands OBX-6, and we do not guess.
- Conditions and the Device's clock are attributes at <MDS>.0.0.n: Conditions as CWE under MDC_ATTR_EVT_COND in the
  maker's coding system with OBX-8 ST (technical) or SP (physiological), the clock as text under MDC_ATTR_TIME_ABS.
- An alarm is such a Condition with its priority (PH, PM, PL, PN) and ALACT while it stands, ALINH when it is silenced;
  one that has ended has PN and no ALACT. The event's MDC code is the alternate code.
- Waves go along only where the Destination asks for them (`pcd_waves.py`).
"""

import re
from decimal import Decimal

from gateway.errors import ContentError
from gateway.formats.containment import Attribute, attributes, is_system, levels, sub_order
from gateway.formats.digits import plain_digits
from gateway.formats.origin import Origin
from gateway.formats.pcd_fields import entity, escape, identifier, instant, obx, unit
from gateway.formats.pcd_waves import is_waves_alone, wave_groups
from gateway.formats.terms import term_of_code
from gateway.model import (
    Condition,
    Containment,
    DeviceIdentity,
    Message,
    Method,
    Observation,
    Parcel,
    Phase,
    Priority,
    Result,
)

PROFILE = "IHE_PCD_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO"
SERVICE = "182777000^monitoring of patient^SCT"
CONTINUOUS, EPISODIC = "69123^MDC_OBS_CTS^MDC", "69124^MDC_OBS_NONCTS^MDC"
METHODS = {
    Method.AUTO: "AMEAS^auto-measurement^MDC",
    Method.MANUAL: "MMEAS^manual-measurement^MDC",
    Method.CALCULATED: "ACALC^auto-calculation^MDC",
    Method.SETTING_AUTO: "ASET^auto-setting^MDC",
    Method.SETTING_MANUAL: "MSET^manual-setting^MDC",
    Method.SETTING_REMOTE: "RSET^remote-setting^MDC",
}
PRIORITIES = {Priority.HIGH: "PH", Priority.MEDIUM: "PM", Priority.LOW: "PL", Priority.ADVISORY: "PN", None: "PN"}
SETTINGS = frozenset({Method.SETTING_AUTO, Method.SETTING_MANUAL, Method.SETTING_REMOTE})

_NOT_PLAIN = re.compile(r"[^A-Z0-9]")
_Row = tuple[tuple[int, ...], str]  # the tree's order; the segment from OBX-2 on


def render_pcd01(parcel: Parcel, origin: Origin, *, waves: bool = False) -> bytes:
    """Return the Parcel's Result as one ORU^R01 message, UTF-8, segments ended by CR; with its waves where asked.

    MSH-10 is the Delivery's control id and MSH-7 the Message's receipt, so a repeat is the same bytes. Raises
    ContentError when the Message holds no Result, or one that cannot be written (a path or number that is none, or
    waves alone where none are asked for).
    """
    message, control_id = parcel.message, parcel.delivery.control_id
    if message.result is None:
        raise ContentError(f"message {message.id}: no Result to render")
    if not waves and is_waves_alone(message.result):
        raise ContentError(f"message {message.id}: waves alone, and this destination takes none")
    segments = [
        _msh(message, message.result, control_id, origin),
        "PID|||||^^^^^^U" + "|" * 26 + "Y",
        f"PV1||U|{_place(origin)}".rstrip("|"),
        _obr(control_id, message, origin),
        *_numbered(_rows(message.result, origin)),
        *(wave_groups(message, message.result, control_id, origin) if waves else ()),
    ]
    return "".join(f"{segment}\r" for segment in segments).encode("utf-8", "replace")


def _msh(message: Message, result: Result, control_id: str, origin: Origin) -> str:
    demo = any("DEMO" in seen.flags for seen in result.observations)
    fields = [
        "MSH",
        "^~\\&",
        entity(origin),
        escape(origin.facility),
        "",
        "",
        instant(message.received_at),
        "",
        "ORU^R01^ORU_R01",
        escape(control_id),
        "D" if demo else "P",
        "2.6",
        "",
        "",
        "AL",
        "NE",
        "",
        "UNICODE UTF-8",
        "en^English^ISO639",
        "",
        PROFILE,
    ]
    return "|".join(fields)


def _place(origin: Origin) -> str:
    place = origin.place()
    parts = [escape(place.get(name, "")) for name in ("point_of_care", "room", "bed", "facility")]
    return "^".join(parts).rstrip("^")


def _obr(control_id: str, message: Message, origin: Origin) -> str:
    assert message.result is not None
    began = message.result.observed_at or message.received_at
    reading = f"{escape(control_id)}^{entity(origin)}"
    return f"OBR|1|{reading}|{reading}|{SERVICE}|||{instant(began)}"


def _numbered(rows: list[_Row]) -> list[str]:
    ordered = sorted(rows, key=lambda row: row[0])
    return [f"OBX|{number}|{text}" for number, (_, text) in enumerate(ordered, start=1)]


def _rows(result: Result, origin: Origin) -> list[_Row]:
    vendor = _coding_system(result.device)
    rows = [(sub_order(level.sub), _level_row(level, result.device, origin)) for level in levels(result)]
    rows += [(sub_order(item.sub), _attribute_row(item, vendor)) for item in attributes(result)]
    rows += [(sub_order(seen.sub), _metric_row(seen, vendor)) for seen in result.observations]
    return rows


def _level_row(level: Containment, device: DeviceIdentity, origin: Origin) -> str:
    equipment = _equipment(device, origin) if is_system(level.sub) else ""
    return obx(code=f"{level.code}^{escape(level.refid)}^MDC", sub=level.sub, status="X", equipment=equipment)


def _equipment(device: DeviceIdentity, origin: Origin) -> str:
    ours = f"{escape(device.serial or '')}^^{origin.device_id}^EUI-64"
    if device.eui64 is None or device.eui64 == origin.device_id:
        return ours
    return f"{ours}~^^{escape(device.eui64)}^EUI-64"


def _attribute_row(item: Attribute, vendor: str) -> str:
    code = f"{item.code}^{item.refid}^MDC"
    if not isinstance(item.content, Condition):
        return obx(kind="ST", code=code, sub=item.sub, value=escape(item.content))
    condition = item.content
    value = f"{escape(condition.code)}^{escape(condition.text)}^{vendor}"
    if condition.mdc is not None:
        known = term_of_code(condition.mdc)
        value += f"^{condition.mdc}^{known.refid if known and known.refid else ''}^MDC"
    return obx(kind="CWE", code=code, sub=item.sub, value=value, flags="~".join(_condition_flags(condition)))


def _condition_flags(condition: Condition) -> list[str]:
    kind = "ST" if condition.technical else "SP"
    if condition.priority is None:
        return [kind]
    kind = "SA" if condition.priority is Priority.ADVISORY else kind
    if condition.phase is Phase.END:
        return [kind, PRIORITIES[None]]
    return [kind, PRIORITIES[condition.priority], "ALACT", *(["ALINH"] if condition.silenced else [])]


def _metric_row(seen: Observation, vendor: str) -> str:
    return obx(
        kind=_value_type(seen),
        code=identifier(seen.key, seen.code, seen.refid, seen.loinc, vendor),
        sub=seen.sub,
        value=_value(seen),
        unit=unit(seen.unit, seen.unit_code, seen.unit_refid, demanded=isinstance(seen.value, Decimal)),
        limits=_limits(seen),
        flags="~".join(escape(flag) for flag in _flags(seen)),
        status=_status(seen),
        at=instant(seen.observed_at) if seen.observed_at is not None else "",
        method=_method(seen),
    )


def _value_type(seen: Observation) -> str:
    numeric = isinstance(seen.value, Decimal) or (seen.value is None and _has_unit(seen))
    return "NM" if numeric else "ST"


def _value(seen: Observation) -> str:
    if isinstance(seen.value, Decimal):
        return plain_digits(seen.value)
    return escape(seen.value or "")


def _has_unit(seen: Observation) -> bool:
    return seen.unit is not None or seen.unit_code is not None


def _limits(seen: Observation) -> str:
    low = plain_digits(seen.low) if seen.low is not None else ""
    high = plain_digits(seen.high) if seen.high is not None else ""
    if low and high:
        return f"{low}-{high}"
    return f">{low}" if low else f"<{high}" if high else ""


def _flags(seen: Observation) -> list[str]:
    reason = (seen.absent.value,) if seen.absent is not None else ()
    return list(dict.fromkeys((*reason, *seen.flags)))


def _status(seen: Observation) -> str:
    if seen.absent is not None:
        return "X"
    return "F" if "VAL" in seen.flags else "R"


def _method(seen: Observation) -> str:
    if seen.method in SETTINGS:
        return METHODS[seen.method]
    return f"{METHODS[seen.method]}~{EPISODIC if seen.episodic else CONTINUOUS}"


def _coding_system(device: DeviceIdentity) -> str:
    maker = _NOT_PLAIN.sub("", (device.manufacturer or "").upper())[:12]
    return f"99{maker}" if maker else "L"  # HL7 table 0396: 99zzz and L are local codes
