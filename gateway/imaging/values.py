"""Whether one value fits one key: the kinds of matching of PS3.4, C.2.2.2, by value representation.

    AE CS LO LT SH ST UC UR UT   single value or wildcard, case sensitive
    PN                           single value or wildcard, whatever the case and width of the letters, any name group
    UI                           list of UIDs
    DA TM DT                     single value or range; a time without seconds means its whole minute (PS3.5, 6.2)
    IS DS and binary numbers     the same number
    all others                   the same text

Where a key has several values, one that fits is enough; so it is where the entity has several.
"""

import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import NamedTuple

from gateway.errors import ContentError

WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
RANGE_VRS = frozenset({"DA", "TM", "DT"})

_NUMBER_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_NAME_COMPONENTS = 5
_TIME_END = "235959999999"
_FIRST, _LAST = "00000101000000000000", "99991231235959999999"  # of a DT, as digits

_Read = Callable[[str], str | None]


class Span(NamedTuple):
    """A range of DA, TM or DT: both ends inclusive, as text that sorts like time; None where it is open.

    `is_range` is false for a single value, whose span is what its precision covers.
    """

    low: str | None
    high: str | None
    is_range: bool

    def holds(self, value: str) -> bool:
        """Return whether a point lies within."""
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)


def is_universal(vr: str, key: Sequence[str]) -> bool:
    """Return whether a key asks for nothing: it is empty, or `*` where that is a wildcard (C.2.2.2.3, C.2.2.2.4)."""
    return not any(key) or (vr in WILDCARD_VRS and any(one and not one.strip("*") for one in key))


def fits(vr: str, key: Sequence[str], values: Sequence[str]) -> bool:
    """Return whether one of an entity's values fits a key that is not universal; an entity without values never does.

    Raises ContentError where the key is no date, time or range although its VR wants one.
    """
    test = _TESTS.get(vr, _same)
    return any(test(wanted, value) for wanted in key if wanted for value in values if value)


def check_key(vr: str, key: Sequence[str]) -> None:
    """Raise ContentError where a key is no date, time or range although its VR wants one."""
    if vr in RANGE_VRS:
        for wanted in key:
            if wanted:
                _SPANS[vr](wanted)


def date_span(text: str) -> Span:
    """Read a DA key: `20260131`, `20260101-20260131`, `-20260131`, `20260101-`. Raises ContentError."""
    return _dates(text)


def time_span(text: str) -> Span:
    """Read a TM key; what an end leaves out is everything within it: `-12` ends at 12:59:59.999999.

    Raises ContentError.
    """
    return _times(text)


def date_point(value: str) -> str | None:
    """Return a DA value as eight digits, None where it is none; ACR-NEMA's dots are read too."""
    digits = value.replace(".", "").strip()
    return digits if len(digits) == 8 and digits.isdecimal() and digits.isascii() else None


def time_point(value: str) -> str | None:
    """Return a TM value as twelve digits HHMMSSffffff, missing ones zero, None where it is none."""
    digits = _time_digits(value)
    return None if digits is None else digits.ljust(12, "0")


def has_wildcard(text: str) -> bool:
    """Return whether a key holds `*` or `?`."""
    return "*" in text or "?" in text


def glob(pattern: str, text: str) -> bool:
    """Return whether text fits a pattern of `*` and `?`; time grows with the product of the lengths at worst."""
    at = index = kept = 0
    star = -1
    while index < len(text):
        if at < len(pattern) and (pattern[at] == "?" or (pattern[at] == text[index] and pattern[at] != "*")):
            at, index = at + 1, index + 1
        elif at < len(pattern) and pattern[at] == "*":
            star, kept, at = at, index, at + 1
        elif star >= 0:
            kept += 1
            at, index = star + 1, kept
        else:
            return False
    return not pattern[at:].strip("*")


def _same(wanted: str, value: str) -> bool:
    return wanted == value


def _text(wanted: str, value: str) -> bool:
    wanted, value = _composed(wanted), _composed(value)
    return glob(wanted, value) if has_wildcard(wanted) else wanted == value


def _number(wanted: str, value: str) -> bool:
    try:
        return Decimal(wanted) == Decimal(value)
    except InvalidOperation:
        return wanted == value


def _name(wanted: str, value: str) -> bool:
    """Compare names by their groups: alphabetic=ideographic=phonetic.

    A key of one group is looked for in every group, because a Modality types into one field what the RIS keeps in
    another; a key of several must fit group by group.
    """
    keys, groups = _folded(wanted), _folded(value)
    if len(keys) == 1:
        return any(_group(keys[0], group) for group in groups if group)
    return all(
        not key.strip("*") or (index < len(groups) and _group(key, groups[index])) for index, key in enumerate(keys)
    )


def _group(wanted: str, value: str) -> bool:
    if not has_wildcard(wanted):
        return wanted == value
    if glob(wanted, value):
        return True
    parts, components = wanted.split("^"), value.split("^")
    size = max(_NAME_COMPONENTS, len(parts), len(components))
    padded = zip(parts + [""] * (size - len(parts)), components + [""] * (size - len(components)), strict=True)
    return len(parts) > 1 and all(glob(part, component) for part, component in padded)


@lru_cache(maxsize=8192)
def _folded(name: str) -> tuple[str, ...]:
    """Return the groups of a name without what does not count: case, width, padding, trailing delimiters."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    groups = ["^".join(part.strip() for part in group.split("^")).rstrip("^") for group in plain.split("=")]
    while len(groups) > 1 and not groups[-1]:
        groups.pop()
    return tuple(groups)


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _date(wanted: str, value: str) -> bool:
    point = date_point(value)
    return point is not None and _dates(wanted).holds(point)


def _time(wanted: str, value: str) -> bool:
    point = time_point(value)
    return point is not None and _times(wanted).holds(point)


def _datetime(wanted: str, value: str) -> bool:
    point = _datetime_end(value, _FIRST)
    return point is not None and _datetimes(wanted).holds(point)


@lru_cache(maxsize=256)
def _dates(text: str) -> Span:
    low, high, is_range = _ends(text, "a date")
    first, last = _pointed(low, date_point, "a date"), _pointed(high, date_point, "a date")
    return Span(first, last, is_range)


@lru_cache(maxsize=256)
def _times(text: str) -> Span:
    low, high, is_range = _ends(text, "a time")
    first = _pointed(low, time_point, "a time")
    last = _pointed(high, _time_end, "a time")
    return Span(first, last, is_range)


@lru_cache(maxsize=256)
def _datetimes(text: str) -> Span:
    low, high, is_range = _datetime_ends(text.replace(" ", ""))
    return Span(
        _pointed(low, lambda value: _datetime_end(value, _FIRST), "a date and time"),
        _pointed(high, lambda value: _datetime_end(value, _LAST), "a date and time"),
        is_range,
    )


def _ends(text: str, what: str) -> tuple[str, str, bool]:
    plain = text.replace(" ", "")
    low, hyphen, high = plain.partition("-")
    if (hyphen and not low and not high) or "-" in high:
        raise ContentError(f"expected {what} or a range")
    return (low, high, True) if hyphen else (plain, plain, False)


def _datetime_ends(text: str) -> tuple[str, str, bool]:
    """Split a DT range at the hyphen that is no offset from UTC: an offset has four digits and ends its value."""
    for at, sign in enumerate(text):
        if sign != "-":
            continue
        low, high = text[:at], text[at + 1 :]
        if all(not end or _datetime_end(end, _FIRST) is not None for end in (low, high)) and (low or high):
            is_offset = len(high) == 4 and len(low) > 4 and "-" not in high and _is_offset(high)
            if not is_offset:
                return low, high, True
    return text, text, False


def _is_offset(digits: str) -> bool:
    """Return whether four digits are an offset (to -1200); a year as the end of a range is larger."""
    return digits.isdecimal() and int(digits) <= 1200


def _pointed(text: str, read: _Read, what: str) -> str | None:
    if not text:
        return None
    point = read(text)
    if point is None:
        raise ContentError(f"expected {what} or a range")
    return point


def _time_digits(value: str) -> str | None:
    """Return the digits of a TM value: HH, HHMM, HHMMSS, then up to six of a fraction; None where it is none."""
    whole, _, fraction = value.replace(":", "").strip().partition(".")
    if len(whole) not in (2, 4, 6) or (fraction and len(whole) != 6) or len(fraction) > 6:
        return None
    digits = whole + fraction
    if not (digits.isdecimal() and digits.isascii()):
        return None
    pairs = [int(whole[at : at + 2]) for at in range(0, len(whole), 2)]
    return digits if all(pair <= most for pair, most in zip(pairs, (24, 59, 60), strict=False)) else None


def _time_end(value: str) -> str | None:
    digits = _time_digits(value)
    if digits is None:
        return None
    return _TIME_END if digits.startswith("24") else digits + _TIME_END[len(digits) :]


def _datetime_end(value: str, filling: str) -> str | None:
    """Return a DT value as twenty digits in UTC, where it names an offset; what it leaves out is taken of `filling`."""
    body, offset = value, 0
    if len(value) > 5 and value[-5] in "+-" and value[-4:].isdecimal():
        body = value[:-5]
        offset = (int(value[-4:-2]) * 60 + int(value[-2:])) * (-1 if value[-5] == "-" else 1)
    whole, _, fraction = body.partition(".")
    digits = whole + fraction
    if len(whole) not in (4, 6, 8, 10, 12, 14) or not (digits.isdecimal() and digits.isascii()) or len(fraction) > 6:
        return None
    full = digits + filling[len(digits) :]
    if not offset:
        return full
    try:
        at = datetime.strptime(full[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC) - timedelta(minutes=offset)
    except (ValueError, OverflowError):
        return None
    return f"{at:%Y%m%d%H%M%S}{full[14:]}"


_SPANS: dict[str, Callable[[str], Span]] = {"DA": _dates, "TM": _times, "DT": _datetimes}
_TESTS: dict[str, Callable[[str, str], bool]] = {
    **dict.fromkeys(WILDCARD_VRS, _text),
    **dict.fromkeys(_NUMBER_VRS, _number),
    "PN": _name,
    "DA": _date,
    "TM": _time,
    "DT": _datetime,
}
