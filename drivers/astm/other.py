"""Two analysers that are taken for ASTM and are not: bioMérieux mini VIDAS and Arkray Spotchem EL.

    mini VIDAS   STX { RS tag value | } GS check LF      the check is the sum from the first RS to GS, in hex
    Spotchem EL  STX text ETX                            `24/10/29 13:08 ID# … [B. Plasma] Na 131 mmol/L …`

Both rules come from one published message each; nothing is acknowledged.
"""

import re
from decimal import Decimal

from drivers.astm.settings import known_tests, known_units
from gateway.driver import ContentError, DeviceIdentity, Observation, Result
from gateway.formats.terms import unit_of

_SPOTCHEM = re.compile(
    r"(?P<time>\d\d/\d\d/\d\d \d\d:\d\d) ID# ?(?P<id>\S*)\s+\[(?P<type>[^\]]*)\](?P<values>.*)", re.DOTALL
)
_SPOTCHEM_VALUE = re.compile(r"(?P<test>[A-Za-z][A-Za-z0-9+-]*)\s+(?P<value>[<>]?\d+\.?\d*|-+)\s+(?P<unit>\S+)")


def read_mini_vidas(line: bytes) -> tuple[Result, ...]:
    """Return the result of one message. Raises ContentError."""
    body, found, check = line.lstrip(b"\x02").rpartition(b"\x1d")
    if not found or f"{sum(body + found) & 0xFF:02x}".encode() != check.strip().lower():
        raise ContentError("check characters of a mini VIDAS message do not match")
    values = {part[:2]: part[2:].strip("| ") for part in body.decode("latin-1").split("\x1e") if part}
    if not values.get("rt"):
        raise ContentError("a mini VIDAS message without a test")
    seen = []
    if specimen := values.get("ci"):
        seen.append(Observation(key="x_specimen_id", sub="1.1.1.1", value=specimen, episodic=True))
    for tag, what in (("qn", "quantitative"), ("ql", "qualitative")):
        if text := values.get(tag):
            key = f"x_astm_{re.sub('[^a-z0-9]+', '_', values['rt'].lower()).strip('_') or 'test'}_{what}"
            value = Decimal(text) if re.fullmatch(r"-?\d+\.?\d*", text) else text
            seen.append(Observation(key=key, sub=f"1.1.1.{len(seen) + 1}", value=value, episodic=True))
    when = f"{values.get('td', '')} {values.get('tt', '')}".strip()
    device = DeviceIdentity(manufacturer="bioMérieux", model="mini VIDAS")
    return (
        Result(observations=tuple(seen), device=device, device_time=when or None, patient_id=values.get("pi") or None),
    )


def read_spotchem(line: bytes) -> tuple[Result, ...]:
    """Return the results of one printed line. Raises ContentError."""
    match = _SPOTCHEM.search(line.lstrip(b"\x02").decode("latin-1"))
    if match is None:
        raise ContentError("not a line of a Spotchem EL")
    seen = [Observation(key="x_specimen_id", sub="1.1.1.1", value=match["id"] or "unknown", episodic=True)]
    for value in _SPOTCHEM_VALUE.finditer(match["values"]):
        seen.append(_spotchem_value(value, f"1.1.1.{len(seen) + 1}"))
    device = DeviceIdentity(manufacturer="Arkray", model="Spotchem EL")
    return (Result(observations=tuple(seen), device=device, device_time=match["time"]),)


def _spotchem_value(match: re.Match[str], sub: str) -> Observation:
    unit = known_units().get(match["unit"], match["unit"])
    known = known_tests().get((match["test"], unit))
    text = match["value"]
    number = Decimal(text) if text[0].isdigit() else text
    code = unit_of(unit) if unit == "mmol/L" else None
    return Observation(
        key=known.key if known else f"x_astm_{match['test'].lower().strip('+-')}",
        sub=sub,
        value=number,
        loinc=known.loinc if known else None,
        unit=unit,
        unit_code=code.code if code else None,
        unit_refid=code.refid if code else None,
        flags=(text[0],) if text[0] in "<>" else (),
        episodic=True,
    )
