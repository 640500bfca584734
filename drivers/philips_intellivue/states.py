"""Measurement states: what the bits beside a value say of it (sheet section 11.2; guide p. 87).

A value is a patient's only while the high byte is clear of what makes it none; NaN counts as no value in any state.
Flags are those of OBX-8 in the IHE PCD profiles.
"""

from decimal import Decimal
from functools import lru_cache

from drivers.philips_intellivue.values import Special
from gateway.driver import Absent

INVALID, QUESTIONABLE, UNAVAILABLE, CALIBRATION = 0x8000, 0x4000, 0x2000, 0x1000
TEST_DATA, DEMO_DATA = 0x0800, 0x0400
VALIDATED, EARLY, ONGOING, IN_ALARM, ALARM_INHIBITED = 0x0080, 0x0040, 0x0020, 0x0002, 0x0001

_NO_VALUE = INVALID | UNAVAILABLE | CALIBRATION | TEST_DATA | DEMO_DATA
_FLAGS = (
    (QUESTIONABLE, "QUES"),
    (CALIBRATION, "CAL"),
    (TEST_DATA, "TEST"),
    (DEMO_DATA, "DEMO"),
    (VALIDATED, "VAL"),
    (EARLY, "EARLY"),
    (ONGOING, "BUSY"),
    (IN_ALARM, "ALACT"),
    (ALARM_INHIBITED, "ALINH"),
)
_RANGE_FLAGS = {Special.PLUS_INFINITY: (">",), Special.MINUS_INFINITY: ("<",)}
_SPECIALS = {
    Special.NAN: Absent.NAV,
    Special.NRES: Absent.INV,
    Special.PLUS_INFINITY: Absent.INV,
    Special.MINUS_INFINITY: Absent.INV,
}


@lru_cache(maxsize=1024)
def flags_of(state: int) -> tuple[str, ...]:
    """Return the flags that a state's bits stand for."""
    return tuple(flag for bit, flag in _FLAGS if state & bit)


@lru_cache(maxsize=1024)
def absence_of(state: int) -> Absent | None:
    """Return why there is no value in this state, None where there is one."""
    if not state & _NO_VALUE:
        return None
    if state & UNAVAILABLE and state & ONGOING:
        return Absent.BUSY
    if state & (INVALID | TEST_DATA | DEMO_DATA):
        return Absent.INV
    return Absent.NAV


def judged(state: int, value: Decimal | Special) -> tuple[Decimal | None, Absent | None, tuple[str, ...]]:
    """Return the value or the reason of its absence, never both, and the flags."""
    absent = absence_of(state)
    if isinstance(value, Special):
        return None, absent or _SPECIALS[value], flags_of(state) + _RANGE_FLAGS.get(value, ())
    if absent is not None:
        return None, absent, flags_of(state)
    return value, None, flags_of(state)
