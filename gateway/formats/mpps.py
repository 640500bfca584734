"""The data set of a Modality Performed Procedure Step: what must be in it, and what it answers to (PS3.4, F.7.2).

    N-CREATE --IN PROGRESS--> N-SET ... N-SET --COMPLETED or DISCONTINUED--> never changed again

What PS3.4 table F.7.2-1 demands of an SCU stands in `mpps.csv`. Only its type 1 attributes are insisted on: a missing
type 2 attribute is read as an empty one, because Modalities leave them out and nothing is lost by it. A discontinued
step may be without series for the same reason: refused, it would stay in progress for ever.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import resources

from gateway.dataset import EMPTY, Attributes, item_at, text_at
from gateway.orders import ProcedureStep, ScheduledStep, StepState

STATUS = 0x00400252
SCHEDULED_STEPS = 0x00400270
PERFORMED_SERIES = 0x00400340
STUDY_UID = 0x0020000D
SERIES_UID = 0x0020000E
ACCESSION_NUMBER = 0x00080050
STEP_ID = 0x00400009
REQUESTED_PROCEDURE_ID = 0x00401001
SCHEDULED_MAX = 64  # steps that one performed step may answer to
REFERENCES = (0x00081140, 0x00400220)  # Referenced Image and Non-Image Composite SOP Instance Sequence
REFERENCED_CLASS, REFERENCED_INSTANCE = 0x00081150, 0x00081155
DISCONTINUATION_REASON = 0x00400281
WRONG_ENTRY = "110514", "DCM"  # "Incorrect worklist entry selected" (PS3.16, CID 9300)

_CHARACTER_SET = 0x00080005
_CODE, _CODE_SCHEME = 0x00080100, 0x00080102


class Lack(Enum):
    """What is wrong with an attribute."""

    MISSING = "missing"
    EMPTY = "empty"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a data set is refused, and the tags at fault."""

    lack: Lack
    tags: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Requirement:
    """One row of the table: an attribute, by the sequence it stands in (0: at the top), and its types."""

    sequence: int
    tag: int
    create: str
    final: str


def state_of(attributes: Attributes) -> StepState | None:
    """Return the status that a data set names, None where it names none that there is."""
    try:
        return StepState(text_at(attributes, STATUS))
    except ValueError:
        return None


def is_wrong_entry(attributes: Attributes) -> bool:
    """Tell whether a step was given up because another entry of the worklist was meant: its order is to be done yet."""
    reason = item_at(attributes, DISCONTINUATION_REASON)
    return (
        state_of(attributes) is StepState.DISCONTINUED
        and (text_at(reason, _CODE), text_at(reason, _CODE_SCHEME)) == WRONG_ENTRY
    )


def created_fault(attributes: Attributes) -> Fault | None:
    """Return what is wrong with the data set of an N-CREATE, None where nothing is."""
    fault = _first_fault(attributes, [(row, row.create) for row in _requirements()])
    if fault is not None:
        return fault
    if state_of(attributes) is not StepState.IN_PROGRESS:
        return Fault(Lack.INVALID, (STATUS,))
    if len(attributes[SCHEDULED_STEPS].items) > SCHEDULED_MAX:
        return Fault(Lack.INVALID, (SCHEDULED_STEPS,))
    return None


def changed_fault(change: Attributes, result: Attributes) -> Fault | None:
    """Return what is wrong with an N-SET: `change` is its data set, `result` the whole step with it."""
    if STATUS in change and state_of(change) is None:
        return Fault(Lack.EMPTY if change[STATUS].is_empty else Lack.INVALID, (STATUS,))
    state = state_of(result)
    if state is None or not state.final:
        nested = [(row, row.create) for row in _requirements() if row.sequence == PERFORMED_SERIES]
        return _first_fault(change, nested)
    spared = (PERFORMED_SERIES,) if state is StepState.DISCONTINUED else ()
    return _first_fault(result, [(row, row.final) for row in _requirements() if row.tag not in spared])


def changed(step: Attributes, change: Attributes) -> Attributes:
    """Return a step's data set with that of an N-SET laid over it; sequences come whole (F.7.2.2.2).

    What an N-SET must not change (patient, schedule) stays as it was created.
    """
    fixed = {*_fixed(), _CHARACTER_SET}
    return {**step, **{tag: element for tag, element in change.items() if tag not in fixed}}


def forbidden(change: Attributes) -> tuple[int, ...]:
    """Return the tags in the data set of an N-SET that it must not set; they are passed over."""
    return tuple(tag for tag in change if tag in _fixed())


def scheduled_items(attributes: Attributes) -> dict[ScheduledStep, Attributes]:
    """Return what a step answers to, each once, in its order, with what the step itself says of it."""
    found: dict[ScheduledStep, Attributes] = {}
    for item in _items(attributes, SCHEDULED_STEPS):
        step = ScheduledStep(
            study_instance_uid=text_at(item, STUDY_UID),
            accession_number=text_at(item, ACCESSION_NUMBER),
            step_id=text_at(item, STEP_ID),
            requested_procedure_id=text_at(item, REQUESTED_PROCEDURE_ID),
        )
        found.setdefault(step, item)
    return found


def performed_instances(step: ProcedureStep) -> Iterator[tuple[str, str]]:
    """Yield SOP Class and SOP Instance UID of every object that a step says it made."""
    for series in _items(step.attributes, PERFORMED_SERIES):
        for sequence in REFERENCES:
            for item in _items(series, sequence):
                yield text_at(item, REFERENCED_CLASS), text_at(item, REFERENCED_INSTANCE)


def _items(attributes: Attributes, tag: int) -> tuple[Attributes, ...]:
    element = attributes.get(tag)
    return element.items if element is not None else ()


def _first_fault(attributes: Attributes, rows: list[tuple[_Requirement, str]]) -> Fault | None:
    """Return what is missing, else what is empty, with all tags concerned."""
    missing, empty = [], []
    for row, kind in rows:
        if kind != "1":
            continue
        for place in (attributes,) if row.sequence == 0 else _items(attributes, row.sequence):
            element = place.get(row.tag)
            if element is None:
                missing.append(row.tag)
            elif element.is_empty and not any(item != EMPTY for item in element.items):
                empty.append(row.tag)
    if missing:
        return Fault(Lack.MISSING, tuple(dict.fromkeys(missing)))
    return Fault(Lack.EMPTY, tuple(dict.fromkeys(empty))) if empty else None


@cache
def _requirements() -> tuple[_Requirement, ...]:
    text = (resources.files("gateway.formats") / "mpps.csv").read_text("utf-8")
    return tuple(
        _Requirement(int(row["sequence"] or "0", 16), int(row["tag"], 16), row["create"], row["final"])
        for row in csv.DictReader(text.splitlines())
    )


@cache
def _fixed() -> frozenset[int]:
    """Return the top-level attributes that only an N-CREATE sets ("not allowed" in table F.7.2-1)."""
    text = (resources.files("gateway.formats") / "mpps_fixed.csv").read_text("utf-8")
    return frozenset(int(row["tag"], 16) for row in csv.DictReader(text.splitlines()))
