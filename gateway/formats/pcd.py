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
"""

import re
from datetime import UTC, datetime
from decimal import Decimal

from gateway.errors import ContentError
from gateway.formats.containment import Attribute, attributes, is_system, levels, sub_order
from gateway.formats.digits import plain_digits
from gateway.formats.origin import Origin
from gateway.model import Condition, Containment, DeviceIdentity, Message, Method, Observation, Parcel, Result

PROFILE = "IHE_PCD_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO"
SERVICE = "182777000^monitoring of patient^SCT"
UNIT_UNKNOWN = "262144^MDC_DIM_NOS^MDC"
PRIVATE_TERM_MIN = 0xF000  # terms from here up are private in every partition
CONTINUOUS, EPISODIC = "69123^MDC_OBS_CTS^MDC", "69124^MDC_OBS_NONCTS^MDC"
METHODS = {
    Method.AUTO: "AMEAS^auto-measurement^MDC",
    Method.MANUAL: "MMEAS^manual-measurement^MDC",
    Method.CALCULATED: "ACALC^auto-calculation^MDC",
    Method.SETTING_AUTO: "ASET^auto-setting^MDC",
    Method.SETTING_MANUAL: "MSET^manual-setting^MDC",
    Method.SETTING_REMOTE: "RSET^remote-setting^MDC",
}
SETTINGS = frozenset({Method.SETTING_AUTO, Method.SETTING_MANUAL, Method.SETTING_REMOTE})

_CONTROLS = {code: f"\\X{code:02X}\\" for code in (*range(0x20), 0x7F)}
_ESCAPES = str.maketrans({"|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\\": "\\E\\"}) | _CONTROLS
_NOT_PLAIN = re.compile(r"[^A-Z0-9]")
_Row = tuple[tuple[int, ...], str]  # the tree's order; the segment from OBX-2 on


def render_pcd01(parcel: Parcel, origin: Origin) -> bytes:
    """Return the Parcel's Result as one ORU^R01 message, UTF-8, segments ended by CR.

    MSH-10 is the Delivery's control id and MSH-7 the Message's receipt, so a repeat is the same bytes. Raises
    ContentError when the Message holds no Result, or one that cannot be written (a path or number that is none).
    """
    message, control_id = parcel.message, parcel.delivery.control_id
    if message.result is None:
        raise ContentError(f"message {message.id}: no Result to render")
    segments = [
        _msh(message, message.result, control_id, origin),
        "PID|||||^^^^^^U" + "|" * 26 + "Y",
        f"PV1||U|{_place(origin)}".rstrip("|"),
        _obr(control_id, message, origin),
        *_numbered(_rows(message.result, origin)),
    ]
    return "".join(f"{segment}\r" for segment in segments).encode("utf-8", "replace")


def escape(text: str) -> str:
    """Return a text as HL7 data: delimiters and control characters as escape sequences (HL7 v2.6, 2.7)."""
    return text.translate(_ESCAPES)


def instant(at: datetime) -> str:
    """Return an instant as HL7 DTM in UTC with milliseconds: `20260115093031.250+0000`."""
    utc = at.astimezone(UTC)
    return f"{utc:%Y%m%d%H%M%S}.{utc.microsecond // 1000:03d}+0000"


def _msh(message: Message, result: Result, control_id: str, origin: Origin) -> str:
    demo = any("DEMO" in seen.flags for seen in result.observations)
    fields = [
        "MSH",
        "^~\\&",
        _entity(origin),
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


def _entity(origin: Origin) -> str:
    return f"{escape(origin.gateway)}^{origin.gateway_eui64}^EUI-64"


def _place(origin: Origin) -> str:
    place = origin.place()
    parts = [escape(place.get(name, "")) for name in ("point_of_care", "room", "bed", "facility")]
    return "^".join(parts).rstrip("^")


def _obr(control_id: str, message: Message, origin: Origin) -> str:
    assert message.result is not None
    began = message.result.observed_at or message.received_at
    reading = f"{escape(control_id)}^{_entity(origin)}"
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
    return _obx(code=f"{level.code}^{escape(level.refid)}^MDC", sub=level.sub, status="X", equipment=equipment)


def _equipment(device: DeviceIdentity, origin: Origin) -> str:
    ours = f"{escape(device.serial or '')}^^{origin.device_id}^EUI-64"
    if device.eui64 is None or device.eui64 == origin.device_id:
        return ours
    return f"{ours}~^^{escape(device.eui64)}^EUI-64"


def _attribute_row(item: Attribute, vendor: str) -> str:
    code = f"{item.code}^{item.refid}^MDC"
    if not isinstance(item.content, Condition):
        return _obx(kind="ST", code=code, sub=item.sub, value=escape(item.content))
    condition = item.content
    value = f"{escape(condition.code)}^{escape(condition.text)}^{vendor}"
    flags = "ST" if condition.technical else "SP"
    return _obx(kind="CWE", code=code, sub=item.sub, value=value, flags=flags)


def _metric_row(seen: Observation, vendor: str) -> str:
    return _obx(
        kind=_value_type(seen),
        code=_identifier(seen, vendor),
        sub=seen.sub,
        value=_value(seen),
        unit=_unit(seen),
        limits=_limits(seen),
        flags="~".join(escape(flag) for flag in _flags(seen)),
        status=_status(seen),
        at=instant(seen.observed_at) if seen.observed_at is not None else "",
        method=_method(seen),
    )


def _obx(
    *,
    kind: str = "",
    code: str,
    sub: str,
    value: str = "",
    unit: str = "",
    limits: str = "",
    flags: str = "",
    status: str = "R",
    at: str = "",
    method: str = "",
    equipment: str = "",
) -> str:
    head = (kind, code, sub, value, unit, limits, flags, "", "", status)  # OBX-2 to OBX-11
    return "|".join((*head, "", "", at, "", "", method, equipment)).rstrip("|")


def _value_type(seen: Observation) -> str:
    numeric = isinstance(seen.value, Decimal) or (seen.value is None and _has_unit(seen))
    return "NM" if numeric else "ST"


def _identifier(seen: Observation, vendor: str) -> str:
    if seen.code is not None and seen.code & 0xFFFF >= PRIVATE_TERM_MIN:
        text = escape(seen.refid or "")
        return f"{seen.code}^MDC_PRIVATE_{seen.code}^MDC^{seen.code}^{text}^{vendor}"
    refid = seen.refid or f"MDCX_{_NOT_PLAIN.sub('_', seen.key.removeprefix('x_').upper())}"
    first = f"{seen.code or 0}^{escape(refid)}^MDC"
    return f"{first}^{escape(seen.loinc)}^^LN" if seen.loinc else first


def _value(seen: Observation) -> str:
    if isinstance(seen.value, Decimal):
        return plain_digits(seen.value)
    return escape(seen.value or "")


def _has_unit(seen: Observation) -> bool:
    return seen.unit is not None or seen.unit_code is not None


def _unit(seen: Observation) -> str:
    ucum = f"{escape(seen.unit)}^{escape(seen.unit)}^UCUM" if seen.unit else ""
    mdc = f"{seen.unit_code}^{escape(seen.unit_refid or '')}^MDC" if seen.unit_code is not None else ""
    if ucum or mdc:
        return "^".join(part for part in (mdc, ucum) if part)
    return UNIT_UNKNOWN if isinstance(seen.value, Decimal) else ""


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
