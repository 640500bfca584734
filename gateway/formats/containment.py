"""The device tree of a Result: the rows above the metrics, and the attributes of the device itself.

Levels are dotted ordinals MDS.VMD.CHAN.METRIC (IEEE 11073-10201 as HL7 OBX-4 carries it); a level that does not
exist is 0. Attributes of the whole Device stand at `<MDS>.0.0.n`.

What a Device says of itself and what its own clock shows travel as such attributes: each Condition as an event
condition, the clock as absolute time in the Device's own words.
"""

from dataclasses import dataclass
from functools import lru_cache

from gateway.errors import ContentError
from gateway.model import Condition, Containment, Result

GENERIC_MDS, GENERIC_MDS_REFID = 69633, "MDC_DEV_MDS"  # partition 1, MDC_DEV + 1: a device system of any sort
CONDITION_CODE, CONDITION_REFID = 68487, "MDC_ATTR_EVT_COND"  # as IHE PCIM uses it
CLOCK_CODE, CLOCK_REFID = 67975, "MDC_ATTR_TIME_ABS"
CONDITION_KEY, CLOCK_KEY = "x_condition", "x_device_time"

_ATTRIBUTES_RESERVED = 3  # <MDS>.0.0.1 to .3: height, weight and sex of the patient (IHE SDPi R8001, R8002, R8121)
_LEVELS_MIN, _LEVELS_MAX = 4, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One attribute of the Device itself: a Condition, or the Device's clock as text."""

    key: str
    sub: str
    code: int
    refid: str
    content: Condition | str

    @property
    def is_alarm(self) -> bool:
        """Tell whether this is an alarm: a Condition with a priority."""
        return isinstance(self.content, Condition) and self.content.priority is not None


@lru_cache(maxsize=8192)  # asked several times for every value; a ward has a few hundred paths
def sub_order(sub: str) -> tuple[int, ...]:
    """Return a containment path as numbers: sorting by them gives the tree's order.

    Raises ContentError when it is not four to six dotted numbers.
    """
    parts = sub.split(".")
    if not _LEVELS_MIN <= len(parts) <= _LEVELS_MAX or not all(_is_ordinal(part) for part in parts):
        raise ContentError(f"containment path {sub[:40]!r} is not MDS.VMD.CHAN.METRIC")
    return tuple(map(int, parts))


def _is_ordinal(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) <= 6


def levels(result: Result) -> tuple[Containment, ...]:
    """Return the device rows in tree order; a Device system that its driver did not name is added as a generic one."""
    rows = {row.sub: row for row in result.containment}
    for top in _tops(result):
        sub = f"{top}.0.0.0"
        rows.setdefault(sub, Containment(sub=sub, code=GENERIC_MDS, refid=GENERIC_MDS_REFID))
    return tuple(sorted(rows.values(), key=lambda row: sub_order(row.sub)))


def attributes(result: Result) -> tuple[Attribute, ...]:
    """Return the Result's Conditions and device time as attributes of its first Device system."""
    contents: list[Condition | str] = list(result.conditions)
    if result.device_time is not None:
        contents.insert(0, result.device_time)
    if not contents:
        return ()
    top, first = _tops(result)[0], _first_free(result)
    return tuple(_attribute(content, f"{top}.0.0.{first + n}") for n, content in enumerate(contents))


def is_system(sub: str) -> bool:
    """Tell whether a row is a Device system (MDS): all levels below the first are 0."""
    return sub.endswith(".0.0.0")


def _tops(result: Result) -> list[int]:
    subs = [row.sub for row in result.containment] + [seen.sub for seen in result.observations]
    subs += [wave.sub for wave in result.waves]
    return sorted({sub_order(sub)[0] for sub in subs}) or [1]


def _first_free(result: Result) -> int:
    orders = [sub_order(seen.sub) for seen in result.observations]
    taken = [order[3] for order in orders if order[1:3] == (0, 0)]
    return max(_ATTRIBUTES_RESERVED, *taken, _ATTRIBUTES_RESERVED) + 1


def _attribute(content: Condition | str, sub: str) -> Attribute:
    if isinstance(content, Condition):
        return Attribute(key=CONDITION_KEY, sub=sub, code=CONDITION_CODE, refid=CONDITION_REFID, content=content)
    return Attribute(key=CLOCK_KEY, sub=sub, code=CLOCK_CODE, refid=CLOCK_REFID, content=content)
