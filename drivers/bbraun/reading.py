"""From the quadruples of BCC (`time,address,parameter,value`) to a Result for each pump.

`_NV` is no value and never zero, `_NA` temporarily none. Names that stand in no table pass as `x_bbraun_<name>`.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from drivers.bbraun.frames import RS
from gateway.driver import (
    Absent,
    Condition,
    ContentError,
    DeviceIdentity,
    Method,
    Observation,
    Priority,
    Result,
    observe,
    read_number,
)
from gateway.formats.terms import unit_of

PUMPS_MAX = 72
RACK = "50100"
NO_VALUE, NOT_AVAILABLE = "_NV", "_NA"
UNKNOWN_TIME = "65535"
MODELS = {
    "686": "Infusomat Space",
    "687": "Infusomat Space P",
    "688": "Perfusor Space",
    "I0002": "Perfusor Compact plus",
    "I0003": "Infusomat Compact plus",
}
GNERR = {"11": "no pumps", "39": "pump removed or unreachable", "68": "syntax or checksum", "811": "wrong slot"}
DOSE_UNIT = {"INDORT": "INDORTU", "DORT": "DORTU", "INDCON": "INDCONU"}
SILENT = frozenset({*DOSE_UNIT.values(), "GNNEW", "GNMODEL", "GNACK", "INSERNUM", "INNR", "INDTNR", "DATE", "TIME"})
PERSONAL = frozenset({"PATID", "NURSEID"})

_FOLDER = Path(__file__).parent
_ADDRESS = re.compile(r"501([0-9])([0-9A-O])")
_WORD = re.compile(r"-?[0-9]{1,10}")
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a parameter is published as."""

    key: str
    unit: str | None
    kind: str


@dataclass
class _Pump:
    values: dict[str, str] = field(default_factory=dict)


class Pumps:
    """What was heard in this round, by address."""

    def __init__(self) -> None:
        self._pumps: dict[str, _Pump] = {}
        self._version: str | None = None

    def read(self, text: str) -> None:
        """Take one block. Raises ContentError where nothing in it is a quadruple."""
        parts = [part for part in text.split(RS) if part.strip()]
        for part in parts:
            quadruple = part.strip("\r\n").split(",", 3)
            if len(quadruple) == 3 and quadruple[1] == RACK:
                self._version = quadruple[2]  # the answer to ADMIN:VERSION has no value
                continue
            if len(quadruple) != 4:
                raise ContentError("a block of BCC without quadruples")
            _, address, name, value = quadruple
            if len(self._pumps) < PUMPS_MAX or address in self._pumps:
                self._pumps.setdefault(address, _Pump()).values[name] = value.strip()

    def take_results(self) -> tuple[Result, ...]:
        """Return a Result for each pump that told anything, the rack's errors with the first."""
        pumps, self._pumps = self._pumps, {}
        found = [self._result(address, pump.values) for address, pump in sorted(pumps.items())]
        return tuple(result for result in found if result.observations or result.conditions)

    def _result(self, address: str, values: dict[str, str]) -> Result:
        system = system_of(address)
        numbered = enumerate((name for name in values if name not in SILENT | PERSONAL), 1)
        subs = {name: f"{system}.1.1.{place}" for place, name in numbered}
        observations = []
        conditions = []
        for name, sub in subs.items():
            states = list(_conditions(name, values[name], system))
            conditions += states
            if not states and not _is_state(name):
                observations.append(_observation(name, values, sub))
        clock = " ".join(values[name] for name in ("DATE", "TIME") if values.get(name))
        return Result(
            observations=tuple(observations),
            conditions=tuple(conditions),
            device=DeviceIdentity(
                manufacturer="B. Braun",
                model=_model(values),
                serial=values.get("INSERNUM") or None,
                software=self._version,
            ),
            device_time=clock or None,
            patient_id=_known(values.get("PATID")),
        )


def system_of(address: str) -> int:
    """Return the number of a pump's MDS: 1 for the rack, then by pillar and slot."""
    match = _ADDRESS.fullmatch(address)
    if match is None or address == RACK:
        return 1
    return 2 + (int(match[1]) - 1) % 10 * 25 + "0123456789ABCDEFGHIJKLMNO".index(match[2])


@cache
def parameters() -> dict[str, Parameter]:
    """Return the known parameters by name."""
    return {row["name"]: Parameter(row["key"], row["unit"] or None, row["kind"]) for row in _rows("parameters.csv")}


@cache
def unit_codes() -> dict[str, str]:
    """Return the UCUM units by the code of BCC."""
    return {row["code"]: row["ucum"] for row in _rows("units.csv")}


def _observation(name: str, values: dict[str, str], sub: str) -> Observation:
    value = values[name]
    known = parameters().get(name) or Parameter(
        f"x_bbraun_{_SLUG.sub('_', name.lower()).strip('_') or 'value'}", None, "text"
    )
    method = Method.SETTING_MANUAL if known.kind == "setting" else Method.AUTO
    unit = known.unit
    if known.kind == "dose":
        unit = unit_codes().get(values.get(DOSE_UNIT[name], "").lstrip("0"))
    published = None if not known.key.startswith("x_") else unit if unit and _has_code(unit) else None
    absent = Absent.NI if value in (NO_VALUE, "") else Absent.NAV if value == NOT_AVAILABLE else None
    if name == "INRMT" and value == UNKNOWN_TIME:
        absent = Absent.NI
    if absent is not None:
        return observe(known.key, None, sub=sub, absent=absent, method=method, unit=published)
    number = read_number(value) if known.kind != "text" else None
    if known.kind != "text" and number is None:
        return observe(known.key, None, sub=sub, absent=Absent.INV, method=method, unit=published)
    return observe(known.key, number if number is not None else value, sub=sub, method=method, unit=published)


def _conditions(name: str, value: str, system: int) -> Iterator[Condition]:
    sub = f"{system}.0.0.0"
    if name == "GNERR":
        yield Condition(code=f"GNERR_{value}", text=GNERR.get(value, "error of the rack"), sub=sub)
    elif (flag := _flags().get(name)) is not None and value == "1":
        yield Condition(code=name, text=flag[0], priority=flag[1], sub=sub)
    elif name in _bits() and value not in (NO_VALUE, NOT_AVAILABLE, ""):
        if not _WORD.fullmatch(value):
            yield Condition(
                code=f"{name}_UNREAD", text="a field that cannot be read", priority=_BIT_PRIORITY.get(name), sub=sub
            )
            return
        for bit, text in _bits()[name].items():
            if int(value) >> bit & 1:  # a negative number has the highest bit, as it has in 32 bits
                yield Condition(code=f"{name}_{bit}", text=text, priority=_BIT_PRIORITY.get(name), sub=sub)


def _is_state(name: str) -> bool:
    return name == "GNERR" or name in _flags() or name in _bits()


@cache
def _flags() -> dict[str, tuple[str, Priority | None]]:
    return {
        row["name"]: (row["text"], Priority(row["priority"]) if row["priority"] else None) for row in _rows("flags.csv")
    }


@cache
def _bits() -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for row in _rows("bits.csv"):
        found.setdefault(row["field"], {})[int(row["bit"])] = row["text"]
    return found


def _model(values: dict[str, str]) -> str | None:
    told = (values.get("GNMODEL") or values.get("GNNEW") or "").strip("\r\n ")
    code = next((code for code in MODELS if told.startswith(code) or f" {code}" in told), None)
    return MODELS[code] if code else told[:64] or None


def _known(value: str | None) -> str | None:
    return None if value in (None, "", NO_VALUE, NOT_AVAILABLE) else value


def _has_code(ucum: str) -> bool:
    try:
        unit_of(ucum)
    except KeyError:
        return False
    return True


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


_BIT_PRIORITY = {"ALARM1": Priority.HIGH, "ALARM2": Priority.HIGH, "PREALARM": Priority.LOW}
