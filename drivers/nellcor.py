"""Nellcor pulse oximeters: the ASCII real-time output (Nellcor NPB-190/195/290/295, N-395, N-595, N-600 manuals).

    heading 1   N-595   VERSION 2.1.0.0    CRC:1234  SpO2 Limit: 85-100%   PR Limit: 40-170BPM
    heading 2   ADULT   0SAT-S   SPO2 RESP MODE: NORMAL                        (N-595, N-600)
    titles      TIME   %SPO2   BPM   PA   Status
    row         05-Jul-26 10:15:02    88*     130*       45      PH  SL

A row comes every 2 s, the heading again after 25 rows and after every change. `*` tells a violated limit, `---` that
there is no value. A heading with TREND announces rows of the trend memory: they are recognised and not published.
Nothing is ever sent to the Device.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import ClassVar, Literal

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

LINE_BYTES_MAX = 400  # no published line is longer than 120; more means a wrong baud rate or a binary mode

_HEADING = re.compile(r"(?P<model>\S.*?)\s+VERSION:?\s+(?P<software>\S+)(?P<rest>.*)", re.IGNORECASE)
_SPO2_LIMITS = re.compile(r"SpO2\s+Limits?:?\s*(\d+)\s*-\s*(\d+)", re.IGNORECASE)
_PULSE_LIMITS = re.compile(r"PR\s+Limits?:?\s*(\d+)\s*-\s*(\d+)", re.IGNORECASE)
_SETTINGS_LINE = re.compile(r"(ADULT|NEO)", re.IGNORECASE)
_TITLES = re.compile(r"TIME\s+%\s*SPO2", re.IGNORECASE)
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_ROW = re.compile(
    rf"(?P<time>\d{{1,2}}-(?:{_MONTHS})-\d{{2}}\s+\d\d:\d\d:\d\d)"
    r"\s+(?P<spo2>\d{1,3}\*?|-{2,3}\*?)\s+(?P<pulse>\d{1,3}\*?|-{2,3}\*?)"
    r"\s+(?P<amplitude>\d{1,3}\*?|-{1,3}\*?)(?P<codes>(?:\s+[A-Z]{2})*)",  # without PA: a row cut short
    re.IGNORECASE,
)

_PATIENT, _EQUIPMENT = False, True
_STATUS: dict[str, tuple[str, bool]] = {
    "AO": ("alarm off", _EQUIPMENT),
    "AS": ("alarm silenced", _EQUIPMENT),
    "LB": ("low battery", _EQUIPMENT),
    "LM": ("loss of pulse with motion", _EQUIPMENT),
    "LP": ("loss of pulse", _PATIENT),
    "MO": ("patient motion or interference", _EQUIPMENT),
    "PH": ("pulse rate above limit", _PATIENT),
    "PL": ("pulse rate below limit", _PATIENT),
    "PS": ("pulse search", _EQUIPMENT),
    "SH": ("saturation above limit", _PATIENT),
    "SL": ("saturation below limit", _PATIENT),
    "SD": ("sensor disconnected", _EQUIPMENT),
    "SO": ("sensor off patient", _EQUIPMENT),
}
_NO_VALUE = {"SD": Absent.OFF, "SO": Absent.NAV}  # whatever stands in the columns
_WHY_MISSING = _NO_VALUE | {"PS": Absent.BUSY, "LM": Absent.INV, "LP": Absent.INV, "MO": Absent.INV}
_DOUBTFUL = {"LM", "LP", "MO", "PS"}


@dataclass(frozen=True, kw_only=True)
class Nellcor:
    """Settings of a Nellcor source.

    `pa` says what the PA column is: `amplitude` publishes the pulse amplitude as the Device prints it, `tenths` a
    perfusion index in tenths of a percent (reported of the PM1000N, unverified).
    """

    about: ClassVar[About] = About(
        name="nellcor",
        summary="Nellcor pulse oximeters, ASCII real-time output",
        models=("N-395", "N-595", "N-600", "N-600x", "NPB-190", "NPB-195", "NPB-290", "NPB-295", "PM100N", "PM1000N"),
        source="Nellcor operator's and service manuals of the models named; public N-595 and PM1000N drivers",
        unverified=(
            "no public capture exists: tested with lines in the documented shape",
            "scale of the PA column; tenths of a percent on the PM1000N rests on one analysis program",
            "meaning of the status codes BU, CS and ID",
            "N-200 (framed output): not supported",
        ),
        line=LineSettings(baud=9600),
        silence_s=5.0,
    )

    pa: Literal["amplitude", "tenths"] = "amplitude"

    def open(self) -> Session:
        """Start listening."""
        listing = _Listing(self)
        return LineSession(
            listing.read,
            forget=listing.forget,
            terminator=b"\n",
            line_bytes_max=LINE_BYTES_MAX,
            wrong_mode="check that baud rates agree and the port's output is ASCII",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    low_code: str
    high_code: str
    low: Decimal | None = None
    high: Decimal | None = None


class _Listing:
    """The printout so far: what the last heading said, and whether it announced the trend memory."""

    def __init__(self, driver: Nellcor) -> None:
        self._driver = driver
        self._trend = False
        self._containment = oximeter()
        self.forget()

    def forget(self) -> None:
        """Take notice that it may be another Device; rows after a trend's heading stay trend until a heading comes."""
        self._device = DeviceIdentity(manufacturer="Nellcor")
        self._spo2_limits = _Limits(low_code="SL", high_code="SH")
        self._pulse_limits = _Limits(low_code="PL", high_code="PH")

    def read(self, line: bytes) -> tuple[Result, ...]:
        text = line.decode("ascii").lstrip("\x02\x03")
        if row := _ROW.fullmatch(text):
            return () if self._trend else (self._result(row),)
        if heading := _HEADING.fullmatch(text):
            self._read_heading(heading)
        elif not (_SETTINGS_LINE.match(text) or _TITLES.match(text)):
            raise ContentError("neither a heading nor a row of the real-time output")
        return ()

    def _read_heading(self, heading: re.Match[str]) -> None:
        rest = heading["rest"]
        self._trend = "TREND" in rest.upper()
        self._device = replace(self._device, model=heading["model"], software=heading["software"])
        self._spo2_limits = _set(self._spo2_limits, _SPO2_LIMITS.search(rest))
        self._pulse_limits = _set(self._pulse_limits, _PULSE_LIMITS.search(rest))

    def _result(self, row: re.Match[str]) -> Result:
        codes = tuple(row["codes"].upper().split())
        return Result(
            observations=(
                _observation("spo2", row["spo2"], "1.1.1.1", codes, self._spo2_limits),
                _observation("pulse_rate_spo2", row["pulse"], "1.1.1.2", codes, self._pulse_limits),
                self._perfusion(row["amplitude"], codes),
            ),
            device=self._device,
            containment=self._containment,
            conditions=tuple(_condition(code) for code in codes),
            device_time=" ".join(row["time"].split()),
            device_clock=read_clock(row["time"], "%d-%b-%y %H:%M:%S"),
        )

    def _perfusion(self, text: str, codes: Sequence[str]) -> Observation:
        value = _value(text, codes)
        absent = _why_missing(codes) if value is None else None
        if self._driver.pa == "tenths":
            tenth = None if value is None else value / 10
            return observe("spo2_perfusion_index", tenth, sub="1.1.1.3", absent=absent)
        return observe("x_nellcor_pulse_amplitude", value, sub="1.1.1.3", absent=absent, unit="1")


def _set(limits: _Limits, found: re.Match[str] | None) -> _Limits:
    if found is None:
        return replace(limits, low=None, high=None)
    return replace(limits, low=Decimal(found[1]), high=Decimal(found[2]))


def _observation(key: str, text: str, sub: str, codes: Sequence[str], limits: _Limits) -> Observation:
    value = _value(text, codes)
    absent = _why_missing(codes) if value is None else None
    flags = () if value is None else _flags(value, text.endswith("*"), codes, limits)
    return observe(key, value, sub=sub, absent=absent, flags=flags, low=limits.low, high=limits.high)


def _value(text: str, codes: Sequence[str]) -> Decimal | None:
    digits = text.rstrip("*")
    if not digits.isdecimal() or any(code in _NO_VALUE for code in codes):
        return None
    return Decimal(int(digits))


def _why_missing(codes: Sequence[str]) -> Absent:
    return next((reason for code, reason in _WHY_MISSING.items() if code in codes), Absent.NAV)


def _flags(value: Decimal, violated: bool, codes: Sequence[str], limits: _Limits) -> tuple[str, ...]:
    flags = ("QUES",) if _DOUBTFUL.intersection(codes) else ()
    if not violated:
        return flags
    if limits.high_code in codes or (limits.high is not None and value > limits.high):
        return ("H", *flags)
    if limits.low_code in codes or (limits.low is not None and value < limits.low):
        return ("L", *flags)
    return ("A", *flags)  # a limit is violated; which one is not known before the next heading


def _condition(code: str) -> Condition:
    text, technical = _STATUS.get(code, ("status code without a public meaning", _EQUIPMENT))
    return Condition(code=code, text=text, technical=technical)
