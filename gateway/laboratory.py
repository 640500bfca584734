"""The nouns of the laboratory: what an analyser asks for, and what was ordered."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabQuery:
    """One question of an analyser: which tests are to be done with a sample, or for a patient.

    `delimiters` are those that the analyser used; each query is its own, so two equal ones are not the same.
    """

    sample_id: str | None = None
    patient_id: str | None = None
    tests: tuple[str, ...] = ()
    sequence: str = "1"
    delimiters: str = "|\\^&"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOrder:
    """What was ordered for one sample. `tests` are the codes that the analyser knows; `name` is family^given."""

    sample_id: str
    tests: tuple[str, ...] = field(default=())
    patient_id: str = ""
    name: str = ""
    birth_date: str = ""
    sex: str = ""
    urgent: bool = False
    ordered_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOrderChange:
    """One test of one sample was ordered or cancelled; `samples` are all numbers by which the sample is known."""

    order: LabOrder
    samples: tuple[str, ...]
    cancelled: bool = False
