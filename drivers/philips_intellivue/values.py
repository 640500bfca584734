"""Basic encodings of the data export interface, big endian (sheet section 3; guide p. 41).

FLOAT-Type is an 8-bit exponent and a 24-bit mantissa, both signed; its special values are told by the mantissa alone.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from struct import Struct, error

from gateway.errors import ContentError

TICKS_A_SECOND = 8000  # RelativeTime counts eighths of a millisecond
TICKS_WRAP = 1 << 32

U16 = Struct(">H")
U32 = Struct(">I")
_PAIR = Struct(">HH")

_FLOATS_CACHED = 8192
_PRIVATE_USE = str.maketrans(
    {
        "\ue145": "E",  # subscript
        "\ue14c": "L",
        "\ue400": "l/",
        "\ue401": "H2",
        "\ue40d": "*",  # alarm star
        "\ue425": "V",  # with dot
        "\ufeff": None,  # filler after a wide character
    }
)


class Special(Enum):
    """What a FLOAT-Type can be besides a number."""

    NAN = "no value"
    NRES = "not at this resolution"
    PLUS_INFINITY = "over range"
    MINUS_INFINITY = "under range"


_SPECIALS = {
    0x7FFFFF: Special.NAN,
    0x800000: Special.NRES,
    0x800001: Special.NAN,  # reserved in IEEE 11073-20601; no source for this interface
    0x7FFFFE: Special.PLUS_INFINITY,
    0x800002: Special.MINUS_INFINITY,
}


@lru_cache(maxsize=_FLOATS_CACHED)
def float_of(word: int) -> Decimal | Special:
    """Return the value of a FLOAT-Type given as an unsigned 32-bit number; the exponent keeps the precision shown."""
    mantissa, exponent = word & 0xFFFFFF, word >> 24
    if (special := _SPECIALS.get(mantissa)) is not None:
        return special
    if mantissa & 0x800000:
        mantissa -= 0x1000000
    if exponent & 0x80:
        exponent -= 0x100
    number = Decimal(mantissa).scaleb(exponent)
    return number if exponent <= 0 else number.quantize(Decimal(1)) if exponent <= 20 else number


def absolute_time(data: bytes) -> datetime | None:
    """Return an AbsoluteTime (8 BCD bytes, no zone); None where it is not set (all FF) or no date."""
    digits = data[:7].hex()
    if len(data) != 8 or not digits.isdecimal():
        return None
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S")
    except ValueError:
        return None


def text_of(data: bytes) -> str:
    """Return a String: length in bytes, then UTF-16BE up to its zero. Raises ContentError when it is cut short."""
    if len(data) < 2 or U16.unpack_from(data)[0] > len(data) - 2:
        raise ContentError("a String that is cut short")
    return wide_text(data[2 : 2 + U16.unpack_from(data)[0]])


def wide_text(data: bytes) -> str:
    """Return UTF-16BE text without what follows its zero and without padding; private characters are spelled out."""
    text = data[: len(data) & ~1].decode("utf-16-be", "replace")
    return text.partition("\0")[0].translate(_PRIVATE_USE).strip()


def labels_of(data: bytes) -> tuple[str, ...]:
    """Return the VariableLabels in a value: length, then ASCII; each begins at an even place (seen from an MP70).

    Raises ContentError when one is cut short.
    """
    labels, at = [], 0
    while at < len(data):
        size = u16(data, at)
        if at + 2 + size > len(data):
            raise ContentError("a label that is cut short")
        labels.append(label_of(data[at + 2 : at + 2 + size]))
        at += 2 + size + (size & 1)
    return tuple(labels)


def label_of(data: bytes) -> str:
    """Return the text of one VariableLabel."""
    return data.decode("ascii", "replace").partition("\0")[0].strip()


def u16(data: bytes, at: int) -> int:
    """Return the unsigned 16-bit number at a place. Raises ContentError beyond the end."""
    try:
        return int(U16.unpack_from(data, at)[0])
    except error as reason:
        raise ContentError("a value that is cut short") from reason


def u32(data: bytes, at: int) -> int:
    """Return the unsigned 32-bit number at a place. Raises ContentError beyond the end."""
    try:
        return int(U32.unpack_from(data, at)[0])
    except error as reason:
        raise ContentError("a value that is cut short") from reason


def elements(data: bytes) -> tuple[int, bytes]:
    """Return the count of a list and the bytes of its elements (count, length, elements).

    Raises ContentError when they are cut short.
    """
    if len(data) < 4:
        raise ContentError("a list that is cut short")
    count, size = _PAIR.unpack_from(data)
    if size > len(data) - 4:
        raise ContentError("a list that is cut short")
    return count, data[4 : 4 + size]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield id and value of each attribute of an AttributeList's elements. Raises ContentError when cut short."""
    at, end = 0, len(data)
    while at < end:
        if at + 4 > end:
            raise ContentError("an attribute that is cut short")
        identity, size = _PAIR.unpack_from(data, at)
        at += 4
        if at + size > end:
            raise ContentError("an attribute that is cut short")
        yield identity, data[at : at + size]
        at += size


class MonitorClock:
    """The monitor's wall clock: one pair of absolute and relative time, from which every relative time follows."""

    def __init__(self) -> None:
        self._pair: tuple[datetime, int] | None = None

    def set(self, at: datetime | None, ticks: int) -> None:
        """Take a new pair (attributes 0987 and 098F)."""
        if at is not None:
            self._pair = (at, ticks)

    def forget(self) -> None:
        """Take notice that relative time begins anew."""
        self._pair = None

    def at(self, ticks: int) -> datetime | None:
        """Return a relative time on the monitor's wall clock, which has no zone; None before a pair is known."""
        if self._pair is None:
            return None
        at, paired = self._pair
        try:
            return at + timedelta(milliseconds=apart(paired, ticks) / 8)
        except OverflowError:
            return None


def apart(earlier: int, later: int) -> int:
    """Return the ticks between two relative times, negative when the second is older; they wrap after 6.2 days."""
    return (later - earlier + TICKS_WRAP // 2) % TICKS_WRAP - TICKS_WRAP // 2
