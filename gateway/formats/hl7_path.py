"""Paths into HL7 v2 messages: `SEG[n]-F(r).C.S`.

`PID-3.1` names the first component of every repetition of PID-3 in every PID segment; `[n]` and `(r)` choose one
segment and one repetition, counted from 1, and `[*]` and `(*)` say "every" aloud.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_NUMBER_MAX = 9999
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Hl7Path:
    """Where a value stands; numbers count from 1, None means every one, or the whole of the level above."""

    segment: str
    field: int
    occurrence: int | None = None
    repetition: int | None = None
    component: int | None = None
    subcomponent: int | None = None


class PathError(ValueError):
    """A path is written wrongly; `position` is where, counted from 0 in the text given."""

    def __init__(self, text: str, *, position: int) -> None:
        super().__init__(f"{text} at position {position}")
        self.position = position


@lru_cache(maxsize=1024)
def parse_path(text: str) -> Hl7Path:
    """Read a path such as `OBX[2]-5(1).2`.

    Raises PathError, a ValueError, with the position of the first fault.
    """
    segment = _SEGMENT.match(text)
    if segment is None:
        raise PathError("expected a segment name such as PID", position=0)
    occurrence, at = _chosen(text, segment.end(), "[", "]")
    if text[at : at + 1] != "-":
        raise PathError("expected '-' and a field number", position=at)
    field, at = _number(text, at + 1)
    repetition, at = _chosen(text, at, "(", ")")
    component = subcomponent = None
    if text[at : at + 1] == ".":
        component, at = _number(text, at + 1)
        if text[at : at + 1] == ".":
            subcomponent, at = _number(text, at + 1)
    if at < len(text):
        raise PathError("expected the end of the path", position=at)
    return Hl7Path(segment[0], field, occurrence, repetition, component, subcomponent)


def _chosen(text: str, at: int, opening: str, closing: str) -> tuple[int | None, int]:
    """Return the number between brackets, None for every one, and where to go on."""
    if text[at : at + 1] != opening:
        return None, at
    chosen: int | None = None
    if text[at + 1 : at + 2] == "*":
        at += 2
    else:
        chosen, at = _number(text, at + 1)
    if text[at : at + 1] != closing:
        raise PathError(f"expected {closing!r}", position=at)
    return chosen, at + 1


def _number(text: str, at: int) -> tuple[int, int]:
    digits = _NUMBER.match(text, at)
    if digits is None:
        raise PathError("expected a number from 1 on", position=at)
    if len(digits[0]) > 6 or not 1 <= int(digits[0]) <= _NUMBER_MAX:
        raise PathError(f"expected a number from 1 to {_NUMBER_MAX}", position=at)
    return int(digits[0]), digits.end()
