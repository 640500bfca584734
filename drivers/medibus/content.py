"""What stands in responses (Protocol Definition 4.03, p. 11 to 15, 20): fixed records of ASCII, no meaning yet.

Every function takes the data of one response as ASCII bytes below 80h and raises ContentError when its shape is wrong.
Codes are two upper-case hex digits and stay text.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gateway.errors import ContentError

DATA_VALUE_CHARS = 4  # p. 11, 12
SETTING_VALUE_CHARS = 5
ALARM_PHRASE_CHARS = 12
TEXT_CHARS_MAX = 32
CURVE_BINS_MAX = 4095

_CODE = re.compile(r"[0-9A-F]{2}")
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)", re.ASCII)
_CURVE_RECORD_CHARS = 23
_PRIORITY_MAX = 31
_CENTURY_TURN = 80  # years 80 to 99 are of the 1900s: the manual's own example is of 1993
_IDENTITY = re.compile(r"(?P<id>[0-9A-Za-z]{4})'(?P<name>[^']{1,32})'(?P<device>.{5}):(?P<medibus>.{5})")
_VERSION = re.compile(r"\d\d\.\d\d")
_CLOCK = re.compile(
    r"\s*(\d{1,2}):\s*(\d{1,2})(?::\s*(\d{1,2}))?\s*(\d{1,2})\s*-\s*([A-Za-z]{3})[\s-]*(\d{1,2})\s*", re.ASCII
)
_MONTHS = {
    name: number
    for names in ("JAN FEB MAR APR MAI JUN JUL AUG SEP OKT NOV DEZ", "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC")
    for number, name in enumerate(names.split(), 1)
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the Device is: four characters that choose the profile, its name, its own and its MEDIBUS revision."""

    id: str
    name: str
    device_revision: str
    medibus_revision: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """One pending alarm; priority 1 to 31, 31 the highest."""

    code: str
    priority: int
    phrase: str


@dataclass(frozen=True, slots=True)
class CurveScale:
    """How samples of one real-time signal are scaled: value = low + bin * (high - low) / bins."""

    code: str
    interval_us: int
    low: Decimal
    high: Decimal
    bins: int


def read_values(data: bytes, value_chars: int) -> list[tuple[str, str]]:
    """Split records of a code and a value (6.2: 4 characters, settings: 5); the value keeps its blanks."""
    size = 2 + value_chars
    text = _ascii(data)
    if len(text) % size:
        raise ContentError(f"{len(text)} characters are no whole number of records of {size}")
    return [(_code(text[at : at + 2]), text[at + 2 : at + size]) for at in range(0, len(text), size)]


def number_of(value: str) -> Decimal | str | None:
    """Return a value as a number, as text where it is none, None where it is blank or a lone minus."""
    plain = value.replace(" ", "")
    if plain in ("", "-", ".", "-."):
        return None
    return Decimal(plain) if _NUMBER.fullmatch(plain) else value.strip()


def read_alarms(data: bytes) -> list[Alarm]:
    """Split records of priority, code and phrase of 12 characters (p. 12)."""
    size = 3 + ALARM_PHRASE_CHARS
    text = _ascii(data)
    if len(text) % size:
        raise ContentError(f"{len(text)} characters are no whole number of alarms of {size}")
    return [_alarm(text[at : at + size]) for at in range(0, len(text), size)]


def read_texts(data: bytes) -> list[tuple[str, str]]:
    """Split text messages: code, length as a character above 30h, text, ETX (p. 14)."""
    texts, at = [], 0
    text = _ascii(data)
    while at < len(text):
        code = _code(text[at : at + 2])
        length = ord(text[at + 2 : at + 3] or "\0") - 0x30
        end = at + 3 + length
        if not 0 <= length <= TEXT_CHARS_MAX or text[end : end + 1] != "\x03":
            raise ContentError(f"text message {code} does not end where its length says")
        texts.append((code, text[at + 3 : end].strip()))
        at = end + 1
    return texts


def read_identity(data: bytes) -> Identity | None:
    """Read a Device identification; None where it is empty (p. 15)."""
    if not data:
        return None
    found = _IDENTITY.fullmatch(_ascii(data))
    if found is None:
        raise ContentError("an identification of unknown shape")
    return Identity(found["id"], found["name"].strip(), found["device"].strip(), found["medibus"].strip())


def takes_arguments(identity: Identity | None) -> bool:
    """Tell whether commands with arguments may be sent: not to MEDIBUS below 03.00 (p. 7)."""
    revision = identity.medibus_revision if identity is not None else ""
    return not (_VERSION.fullmatch(revision) and revision < "03.00")


def read_clock(data: bytes) -> tuple[str, datetime | None] | None:
    """Return date and time as printed, and read where they can be; None where there are none.

    Months are German by definition and English in life; leading zeros may be blanks and seconds missing (p. 13).
    """
    text = _ascii(data)
    if not text.strip():
        return None
    found = _CLOCK.fullmatch(text)
    cut = found.start(4) if found else len(text)
    shown = " ".join(f"{text[:cut]} {text[cut:]}".split())
    month = _MONTHS.get(found[5].upper()) if found else None
    if found is None or month is None:
        return shown, None
    year = int(found[6]) + (1900 if int(found[6]) >= _CENTURY_TURN else 2000)
    try:
        return shown, datetime(year, month, int(found[4]), int(found[1]), int(found[2]), int(found[3] or 0))
    except ValueError:
        return shown, None


def read_curve_scales(data: bytes) -> list[CurveScale]:
    """Split records of a real-time configuration: code, interval in microseconds, minimum, maximum, bins (p. 20)."""
    text = _ascii(data)
    if len(text) % _CURVE_RECORD_CHARS:
        raise ContentError(f"{len(text)} characters are no whole number of signals of {_CURVE_RECORD_CHARS}")
    return [_scale(text[at : at + _CURVE_RECORD_CHARS]) for at in range(0, len(text), _CURVE_RECORD_CHARS)]


def read_curve_choice(argument: bytes) -> list[tuple[str, int]]:
    """Split the argument of 54h: pairs of a code and how many samples are one (p. 21)."""
    text = _ascii(argument)
    pairs = [(text[at : at + 2], text[at + 2 : at + 4]) for at in range(0, len(text), 4)]
    if not all(_CODE.fullmatch(code) and _CODE.fullmatch(every) and int(every, 16) for code, every in pairs):
        raise ContentError("a choice of real-time signals of unknown shape")
    return [(code, int(every, 16)) for code, every in pairs]


def _ascii(data: bytes) -> str:
    return data.decode("ascii", "replace")


def _code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise ContentError("a record does not begin with a code of two hex digits")
    return text


def _alarm(text: str) -> Alarm:
    priority = ord(text[0]) - 0x30
    if not 1 <= priority <= _PRIORITY_MAX:
        raise ContentError(f"alarm priority {priority}, expected 1 to {_PRIORITY_MAX}")
    return Alarm(_code(text[1:3]), priority, text[3:].strip())


def _scale(text: str) -> CurveScale:
    code = _code(text[:2])
    interval, low, high = (number_of(part) for part in (text[2:10], text[10:15], text[15:20]))
    bins = int(text[20:], 16) if re.fullmatch(r"[0-9A-Fa-f]{3}", text[20:]) else 0
    if not (isinstance(interval, Decimal) and isinstance(low, Decimal) and isinstance(high, Decimal)):
        raise ContentError(f"signal {code}: interval or range is no number")
    if not 0 < interval < 10**8 or interval != int(interval) or not 0 < bins <= CURVE_BINS_MAX:
        raise ContentError(f"signal {code}: interval {interval} us, {bins} bins")
    return CurveScale(code, int(interval), low, high, bins)
