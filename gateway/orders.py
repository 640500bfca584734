"""The nouns of the imaging workflow: what is asked for, and what a Modality reports having done."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from gateway.dataset import Attributes

AE_TITLE = {  # PS3.5 table 6.2-1: 16 characters at most, no backslash, no control characters, not spaces alone
    "pattern": r"(?=.*[^ ])[ -\[\]-~]{1,16}",
    "expects": "an AE title: 1 to 16 ASCII characters, none of them a backslash or control character",
}


class StepState(Enum):
    """Performed Procedure Step Status (PS3.3, C.4.14); a final one never changes again."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"

    @property
    def final(self) -> bool:
        """Return whether the step is over."""
        return self is not StepState.IN_PROGRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcedureStep:
    """What a Modality reports of one performed step; `attributes` is all it has said so far (MPPS, PS3.4 annex F)."""

    sop_instance_uid: str
    state: StepState
    attributes: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledStep:
    """What a performed step answers to: one item of its Scheduled Step Attributes Sequence (0040,0270).

    Everything but the study is "" where the step was not scheduled.
    """

    study_instance_uid: str
    accession_number: str = ""
    step_id: str = ""
    requested_procedure_id: str = ""


FindItem = Callable[[ScheduledStep], Attributes | None]  # of the worklist


@dataclass(frozen=True, slots=True, kw_only=True)
class StepChange:
    """A step as an N-CREATE or N-SET leaves it, and what it was scheduled as; written with its Message."""

    step: ProcedureStep
    scheduled: tuple[ScheduledStep, ...]
    at: datetime


class StepStatus(Enum):
    """Scheduled Procedure Step Status (0040,0020) as the worklist keeps it; beyond the standard's: HELD, CANCELED."""

    SCHEDULED = "SCHEDULED"
    ARRIVED = "ARRIVED"
    READY = "READY"
    STARTED = "STARTED"
    DEPARTED = "DEPARTED"
    HELD = "HELD"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    CANCELED = "CANCELED"

    @property
    def is_open(self) -> bool:
        """Return whether a Modality still sees the step in its worklist."""
        return self not in _SHUT


_SHUT = frozenset({StepStatus.HELD, StepStatus.COMPLETED, StepStatus.DISCONTINUED, StepStatus.CANCELED})


class Action(Enum):
    """What an order message does to the steps it means."""

    CREATE = "create"  # what it says is all there is
    UPDATE = "update"  # what it says is laid over what stands; a step that is not known is created
    STATUS = "status"  # nothing but the status


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderChange:
    """What one order message does to one scheduled step, or with `step_id` "" and STATUS to all steps of the order.

    `placer` and `filler` are order numbers with their namespace (`P55210^OP`), "" where there is none. `attributes`
    is what the message says; an element without a value deletes. `exact` tells that the message itself named the step:
    otherwise the id was made of another number, and steps are looked for by the order's numbers too. `lacking` are the
    names of what a new item would need and the message has not; `notes` what was left out of it and why, without
    patient data.
    """

    source: str
    action: Action
    at: datetime
    accession: str = ""
    step_id: str = ""
    exact: bool = False
    placer: str = ""
    filler: str = ""
    status: StepStatus | None = None
    attributes: Attributes = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientChange:
    """New demographics of a patient, and with `former_id` that this patient took over another one's orders.

    Issuers are assigning authorities; an empty one fits any.
    """

    source: str
    at: datetime
    patient_id: str
    issuer: str = ""
    former_id: str = ""
    former_issuer: str = ""
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistItem:
    """One scheduled procedure step as the store keeps it; `version` grows with every change of any item."""

    id: int
    version: int
    source: str
    message_id: int | None
    accession: str
    step_id: str
    status: StepStatus
    performed: bool  # the status came from a Modality (MPPS), not from the order
    changed_at: datetime
    attributes: Attributes


@dataclass(frozen=True, kw_only=True)
class Station:
    """Where steps go whose order names no station: those of a modality, and of a location where that is given."""

    ae_title: str = field(metadata=AE_TITLE)
    modality: str | None = None
    location: str | None = None  # PV1-3 or IPC-8 begins with it
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class OrderRules:
    """`orders` of an mllp source: how this sender's HL7 becomes worklist items (docs/worklist.md).

    `fields` replaces where an attribute is read from: `AccessionNumber = ["OBR-18", "ORC-3.1"]`. `modalities`
    translates OBR-24 and IPC-5. `timezone` is the zone of the hospital (`Europe/Berlin`): times with an offset are
    brought there. `authority` chooses among several patient ids by PID-3.4.1.
    """

    enabled: bool = True
    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)
    modalities: dict[str, str] = field(default_factory=dict)
    stations: tuple[Station, ...] = ()
    timezone: str | None = None
    authority: str | None = None
