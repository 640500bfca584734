"""Fields of PCD-01 that observations and waves share: escapes, instants, codes, units, one OBX."""

import re
from datetime import UTC, datetime

from gateway.formats.origin import Origin

UNIT_UNKNOWN = "262144^MDC_DIM_NOS^MDC"
PRIVATE_TERM_MIN = 0xF000  # terms from here up are private in every partition

_CONTROLS = {code: f"\\X{code:02X}\\" for code in (*range(0x20), 0x7F)}
_ESCAPES = str.maketrans({"|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\\": "\\E\\"}) | _CONTROLS
_NOT_PLAIN = re.compile(r"[^A-Z0-9]")


def escape(text: str) -> str:
    """Return a text as HL7 data: delimiters and control characters as escape sequences (HL7 v2.6, 2.7)."""
    return text.translate(_ESCAPES)


def instant(at: datetime) -> str:
    """Return an instant as HL7 DTM in UTC with milliseconds: `20260115093031.250+0000`."""
    utc = at.astimezone(UTC)
    return f"{utc:%Y%m%d%H%M%S}.{utc.microsecond // 1000:03d}+0000"


def entity(origin: Origin) -> str:
    """Return the gateway as an HD or the rest of an EI: name, EUI-64."""
    return f"{escape(origin.gateway)}^{origin.gateway_eui64}^EUI-64"


def identifier(key: str, code: int | None, refid: str | None, loinc: str | None, vendor: str) -> str:
    """Return OBX-3; `vendor` is the maker's coding system for what is private."""
    if code is not None and code & 0xFFFF >= PRIVATE_TERM_MIN:
        return f"{code}^MDC_PRIVATE_{code}^MDC^{code}^{escape(refid or '')}^{vendor}"
    name = refid or f"MDCX_{_NOT_PLAIN.sub('_', key.removeprefix('x_').upper())}"
    first = f"{code or 0}^{escape(name)}^MDC"
    return f"{first}^{escape(loinc)}^^LN" if loinc else first


def unit(ucum: str | None, code: int | None, refid: str | None, *, demanded: bool) -> str:
    """Return OBX-6; where NM or NA demands one and none is known, the unknown unit."""
    told = f"{escape(ucum)}^{escape(ucum)}^UCUM" if ucum else ""
    mdc = f"{code}^{escape(refid or '')}^MDC" if code is not None else ""
    if told or mdc:
        return "^".join(part for part in (mdc, told) if part)
    return UNIT_UNKNOWN if demanded else ""


def obx(
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
    """Return an OBX from its second field on, without the empty ones at its end."""
    head = (kind, code, sub, value, unit, limits, flags, "", "", status)  # OBX-2 to OBX-11
    return "|".join((*head, "", "", at, "", "", method, equipment)).rstrip("|")
