"""The nouns of the imaging workflow: what is asked for, and what a Modality reports having done."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from gateway.dataset import Attributes


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepChange:
    """A step as an N-CREATE or N-SET leaves it, and what it was scheduled as; written with its Message."""

    step: ProcedureStep
    scheduled: tuple[ScheduledStep, ...]
    at: datetime
