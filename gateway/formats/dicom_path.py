"""Where an attribute stands in a DICOM data set, as configuration writes it, and what may be done to it.

A path is a keyword or "(gggg,eeee)", behind the sequences that lead to it: `RequestAttributesSequence.AccessionNumber`
is that of every item, `RequestAttributesSequence[0].AccessionNumber` that of the first. Private attributes are named
by their tag with the block that the object itself uses.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR, tag_for_keyword

PIXEL_GROUP = 0x7FE0
DEPTH_MAX = 16
_STEP = re.compile(r"([A-Za-z][A-Za-z0-9]{0,63}|\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\))(?:\[([0-9]{1,4})\])?")
_FIXED = {0x00080016: "SOPClassUID", 0x00080005: "SpecificCharacterSet"}
_NOT_HASHED = ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "DA", "TM", "DT", "AS", "AT", "FL", "FD")


@dataclass(frozen=True, slots=True)
class Step:
    """One sequence on the way: its tag, and which item (None: every one)."""

    tag: int
    item: int | None


@dataclass(frozen=True, slots=True)
class Path:
    """Where an attribute stands: `text` is how the file writes it."""

    text: str
    steps: tuple[Step, ...]
    tag: int


def change_faults(act: str, paths: Iterable[str]) -> list[str]:
    """Return what is wrong with the paths that a route names under `hash`, `copy` (what is written), `set`, `remove`.

    Under "read" it is what `copy` takes from, which may be anything.
    """
    faults = []
    for text in paths:
        try:
            reason = None if act == "read" else _unchangeable(read_path(text), act)
            if reason is not None:
                faults.append(f"{text!r}: {reason}")
            read_path(text)
        except ValueError as error:
            faults.append(str(error))
    return faults


def read_path(text: str) -> Path:
    """Read a path. Raises ValueError that says what is wrong."""
    steps: list[Step] = []
    for part in text.split("."):
        match = _STEP.fullmatch(part.strip())
        if match is None:
            raise ValueError(f'{text!r}: expected a keyword or "(gggg,eeee)", in sequences parted by dots')
        tag = int(match[2] + match[3], 16) if match[2] else tag_for_keyword(match[1])
        if tag is None:
            raise ValueError(f"{text!r}: {match[1]!r} is no keyword of the data dictionary")
        steps.append(Step(tag, None if match[4] is None else int(match[4])))
    if len(steps) > DEPTH_MAX:
        raise ValueError(f"{text!r}: deeper than {DEPTH_MAX} sequences")
    for step in steps[:-1]:
        if step.tag >> 16 & 1 == 0 and vr_of(step.tag) != "SQ":
            raise ValueError(f"{text!r}: ({step.tag >> 16:04X},{step.tag & 0xFFFF:04X}) is no sequence")
    if steps[-1].item is not None:
        raise ValueError(f"{text!r}: a number in brackets stands behind a sequence that leads to something")
    return Path(text, tuple(steps[:-1]), steps[-1].tag)


def vr_of(tag: int) -> str:
    """Return the value representation of the data dictionary, LO for private and unknown attributes."""
    try:
        return dictionary_VR(tag)[:2]
    except KeyError:
        return "LO"


def _unchangeable(path: Path, key: str) -> str | None:
    group = path.tag >> 16
    if not path.steps and path.tag in _FIXED:
        return f"{_FIXED[path.tag]} stays as it is"
    if group <= 0x0002 or group == 0xFFFE:
        return "not an attribute of a data set"
    if group == PIXEL_GROUP and not path.steps:
        return "pixels are never changed"
    vr = vr_of(path.tag)
    if key == "set" and vr in ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "AT"):
        return f"a value of type {vr} cannot be written as text"
    if key == "hash" and vr in _NOT_HASHED:
        return f"a value of type {vr} cannot be hashed"
    return None
