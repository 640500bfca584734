"""Masimo pulse oximeters: the ASCII 1 output (Rad-8 operator's manual, pages 4-20 to 4-24, 7-3, 7-4).

    02/22/16 22:47:45 SN=0000056661 SPO2=098% BPM=097 PI=03.60% ... ALARM=0000 EXC=000800

One line a second, no checksum, nothing to send. Which keys there are depends on model and options, so lines are read
by key, never by place. EXC says what may be believed: with no, a defective, an unrecognised or a detached sensor and
during pulse search there is no value, whatever stands in the column; with low perfusion, interference, ambient light
or low signal quality the value is questionable.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from gateway.driver import (
    About,
    Absent,
    Condition,
    ContentError,
    DeviceIdentity,
    LineSession,
    LineSettings,
    Observation,
    Result,
    Session,
    observe,
    oximeter,
    read_clock,
)

LINE_BYTES_MAX = 400

_RECORD = re.compile(r"(?P<time>\d\d/\d\d/\d\d \d\d:\d\d:\d\d)(?P<tokens>(?: +[A-Z0-9]+=\S+)+)")
_TREND_RECORD = re.compile(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d .*\bSpO2=.*\bPR=")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_MISSING = re.compile(r"[+-]?-+(\.-+)?")
_HEX = re.compile(r"[0-9A-Fa-f]{2,8}")

_REQUIRED = ("SPO2", "BPM", "EXC")  # EXC stands last: without it the line was cut and no value can be judged
_NO_VALUE = (  # bit of EXC, why there is no value; the first that is set counts
    (0x000001, Absent.OFF),
    (0x000002, Absent.INV),
    (0x000080, Absent.INV),
    (0x000020, Absent.NAV),
    (0x000008, Absent.BUSY),
)
_QUESTIONABLE = 0x000004 | 0x000010 | 0x000040 | 0x000400
_SPCO_DOUBTFUL, _SPMET_DOUBTFUL = 0x200000, 0x400000
_SET_ACTIVE = 0x000800  # normal operation, no exception

_EXCEPTIONS = {
    0x000001: "no sensor",
    0x000002: "defective sensor",
    0x000004: "low perfusion",
    0x000008: "pulse search",
    0x000010: "interference",
    0x000020: "sensor off patient",
    0x000040: "ambient light",
    0x000080: "unrecognised sensor",
    0x000100: "incompatible sensor",
    0x000400: "low signal quality",
    0x001000: "no cable",
    0x002000: "cable life expired",
    0x004000: "incompatible cable",
    0x008000: "unrecognised cable",
    0x010000: "defective cable",
    0x020000: "sensor calibrating",
    0x040000: "sensor life expired",
    0x080000: "emitter temperature",
    0x100000: "sensor current limit",
    0x200000: "SpCO low confidence",
    0x400000: "SpMet low confidence",
}
_PATIENT, _EQUIPMENT = False, True
_ALARMS = {
    0x0001: ("SpO2 high", _PATIENT),
    0x0002: ("SpO2 low", _PATIENT),
    0x0004: ("pulse rate high", _PATIENT),
    0x0008: ("pulse rate low", _PATIENT),
    0x0010: ("alarm active", _PATIENT),
    0x0020: ("alarm silenced", _EQUIPMENT),
    0x0040: ("battery low", _EQUIPMENT),
    0x0100: ("SpCO high", _PATIENT),
    0x0200: ("SpCO low", _PATIENT),
    0x0400: ("SpMet high", _PATIENT),
    0x0800: ("SpMet low", _PATIENT),
    0x1000: ("desaturation index", _PATIENT),
    0x2000: ("PI delta", _PATIENT),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quantity:
    key: str
    sub: str
    unit: str | None = None  # of vendor quantities
    always: bool = False  # published as missing even where it was never measured
    high: int = 0  # bits of ALARM
    low: int = 0
    doubtful: int = 0  # bits of EXC of its own


_QUANTITIES = {
    "SPO2": _Quantity(key="spo2", sub="1.1.1.1", always=True, high=0x0001, low=0x0002),
    "BPM": _Quantity(key="pulse_rate_spo2", sub="1.1.1.2", always=True, high=0x0004, low=0x0008),
    "PI": _Quantity(key="spo2_perfusion_index", sub="1.1.1.3", always=True),
    "SPCO": _Quantity(key="spco", sub="1.1.1.4", high=0x0100, low=0x0200, doubtful=_SPCO_DOUBTFUL),
    "SPMET": _Quantity(key="spmet", sub="1.1.1.5", high=0x0400, low=0x0800, doubtful=_SPMET_DOUBTFUL),
    "SPHB": _Quantity(key="sphb", sub="1.1.1.6"),
    "SPOC": _Quantity(key="x_masimo_spoc", sub="1.1.1.7", unit="mL/dL"),
    "PVI": _Quantity(key="pleth_variability_index", sub="1.1.1.8"),
    "DESAT": _Quantity(key="x_masimo_desat", sub="1.1.1.9", unit="1"),
    "PIDELTA": _Quantity(key="x_masimo_pi_delta", sub="1.1.1.10", unit="%"),
}


@dataclass(frozen=True, kw_only=True)
class Masimo:
    """Settings of a Masimo source. The lines do not name the model: say it here to have it published."""

    about: ClassVar[About] = About(
        name="masimo",
        summary="Masimo pulse oximeters, ASCII 1 output",
        models=("Rad-8", "Rad-87", "Radical-5", "Radical-7", "Radical-7 colour"),
        source="Masimo Rad-8 and Rad-87 operator's manuals; published lines of the models named",
        unverified=(
            "ALARM bits: found by experiment, not published by the maker; treat as a hint",
            "EXC bits from 001000 upwards and 000100: from program comments, single source",
            "EXC1 (colour models): bits unknown, kept as a number",
            "unit of SPHB (g/dL assumed) and SPOC (mL/dL assumed)",
            "ASCII 2 and VueLink outputs: wire format not public, not supported",
        ),
        line=LineSettings(baud=9600),
        silence_s=3.0,
    )

    model: str | None = None

    def open(self) -> Session:
        """Start listening."""
        monitor = _Monitor(self)
        return LineSession(
            monitor.read,
            forget=monitor.forget,
            terminator=b"\n",
            line_bytes_max=LINE_BYTES_MAX,
            wrong_mode="set the serial output to ASCII 1 at 9600 baud (VueLink and ASCII 2 cannot be read)",
        )


class _Monitor:
    """One Device: which optional quantities it has measured since the Stream was opened."""

    def __init__(self, driver: Masimo) -> None:
        self._driver = driver
        self._measured: set[str] = set()
        self._containment = oximeter()

    def forget(self) -> None:
        """Take notice that it may be another Device, with other options."""
        self._measured.clear()

    def read(self, line: bytes) -> tuple[Result, ...]:
        text = line.decode("ascii")
        record = _RECORD.fullmatch(text)
        if record is None:
            raise ContentError(_what_else(text))
        tokens = [(key, value) for key, _, value in (token.partition("=") for token in record["tokens"].split())]
        fields = dict(tokens)
        if len(fields) < len(tokens):
            raise ContentError("a key stands twice in one record")
        if missing := [key for key in _REQUIRED if key not in fields]:
            raise ContentError(f"a record without {', '.join(missing)}")
        return (self._result(record["time"], fields),)

    def _result(self, device_time: str, fields: dict[str, str]) -> Result:
        alarm, exceptions = _bits(fields, "ALARM"), _bits(fields, "EXC")
        found = (self._observation(name, text, alarm, exceptions) for name, text in fields.items())
        return Result(
            observations=tuple(observation for observation in found if observation is not None),
            device=DeviceIdentity(manufacturer="Masimo", model=self._driver.model, serial=_serial(fields.get("SN"))),
            containment=self._containment,
            conditions=_conditions(alarm, exceptions, _bits(fields, "EXC1")),
            device_time=device_time,
            device_clock=read_clock(device_time, "%m/%d/%y %H:%M:%S"),
        )

    def _observation(self, name: str, text: str, alarm: int, exceptions: int) -> Observation | None:
        quantity = _QUANTITIES.get(name)
        if quantity is None:
            return None
        value = _number(name, text)
        if value is not None:
            self._measured.add(name)
        elif not quantity.always and name not in self._measured:
            return None  # an option that is not installed is no missing value
        why = next((reason for bit, reason in _NO_VALUE if exceptions & bit), None)
        if value is None or why is not None:
            return observe(quantity.key, None, sub=quantity.sub, absent=why, unit=quantity.unit)
        flags = _flags(quantity, alarm, exceptions)
        return observe(quantity.key, value, sub=quantity.sub, flags=flags, unit=quantity.unit)


def _what_else(text: str) -> str:
    if _TREND_RECORD.match(text):
        return "a record of the trend download: set the serial output to ASCII 1"
    return "not an ASCII 1 record: check that the serial output is ASCII 1"


def _number(name: str, text: str) -> Decimal | None:
    digits = text.removesuffix("%")
    if _NUMBER.fullmatch(digits):
        return Decimal(digits)
    if _MISSING.fullmatch(digits):
        return None
    raise ContentError(f"{name} is neither a number nor dashes")


def _bits(fields: dict[str, str], name: str) -> int:
    text = fields.get(name, "00")
    if not _HEX.fullmatch(text):
        raise ContentError(f"{name} is not a hexadecimal number")
    return int(text, 16)


def _serial(text: str | None) -> str | None:
    return None if text is None or not text.strip("-") else text


def _flags(quantity: _Quantity, alarm: int, exceptions: int) -> tuple[str, ...]:
    flags: list[str] = []
    if alarm & quantity.high:
        flags.append("H")
    if alarm & quantity.low:
        flags.append("L")
    if exceptions & (_QUESTIONABLE | quantity.doubtful):
        flags.append("QUES")
    return tuple(flags)


def _conditions(alarm: int, exceptions: int, more: int) -> tuple[Condition, ...]:
    found = [Condition(code=f"EXC {bit:06X}", text=text) for bit, text in _EXCEPTIONS.items() if exceptions & bit]
    unknown = exceptions & ~(sum(_EXCEPTIONS) | _SET_ACTIVE)
    if unknown:
        found.append(Condition(code=f"EXC {unknown:06X}", text="exception without a public meaning"))
    if more:
        found.append(Condition(code=f"EXC1 {more:08X}", text="exceptions without a public meaning"))
    for bit, (text, technical) in _ALARMS.items():
        if alarm & bit:
            found.append(Condition(code=f"ALARM {bit:04X}", text=text, technical=technical))
    unknown_alarm = alarm & ~sum(_ALARMS)
    if unknown_alarm:
        found.append(Condition(code=f"ALARM {unknown_alarm:04X}", text="alarm without a public meaning"))
    return tuple(found)
