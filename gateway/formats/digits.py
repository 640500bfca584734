"""Numbers as text: the digits of the Device, neither more nor fewer, and never an exponent."""

import re
from decimal import Context, Decimal

from gateway.errors import ContentError

DIGITS_MAX = 40  # no measured value needs more; an exponent could otherwise demand megabytes of zeros
_TWELVE = Context(prec=12)
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")


def writable(value: Decimal) -> Decimal:
    """Return a number of ours (a period, a factor) that `plain_digits` takes: a third has 28 digits, and 12 will do."""
    if not value.is_finite():
        return value
    _sign, digits, exponent = value.as_tuple()
    if len(digits) + abs(int(exponent)) <= DIGITS_MAX:
        return value
    return _TWELVE.plus(value)


def read_number(text: str) -> Decimal | None:
    """Return the number that a Device wrote, None for anything else and for one that no feed could write.

    Decimal itself is too kind: it takes `1_0`, `NaN` and digits of any script.
    """
    number = Decimal(text) if _NUMBER.fullmatch(text) is not None else None
    return number if number is not None and is_plain(number) else None


def is_plain(value: Decimal) -> bool:
    """Tell whether `plain_digits` takes a number."""
    if not value.is_finite():
        return False
    _sign, digits, exponent = value.as_tuple()
    return len(digits) + abs(int(exponent)) <= DIGITS_MAX


def plain_digits(value: Decimal) -> str:
    """Return a number as HL7 NM and JSON both take it: `37.0` stays `37.0`, `1E+3` becomes `1000`.

    Raises ContentError for NaN, infinity, and numbers that need more than DIGITS_MAX digits.
    """
    if not value.is_finite():
        raise ContentError("a value is not a finite number")
    _sign, digits, exponent = value.as_tuple()
    if len(digits) + abs(int(exponent)) > DIGITS_MAX:
        raise ContentError(f"a number needs more than {DIGITS_MAX} digits")
    return format(value, "f")
