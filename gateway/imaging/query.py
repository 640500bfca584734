"""Query/Retrieve: what a C-FIND, C-MOVE or C-GET identifier asks for, by level and root (PS3.4, C.4, C.6).

    Patient Root   PATIENT > STUDY > SERIES > IMAGE
    Study Root               STUDY > SERIES > IMAGE      the patient's attributes stand at STUDY

Without relational queries, every level above the one asked for is named by its unique key, one value each; with them
(extended negotiation) nothing above needs to be named. Lists of UIDs are taken at every level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from gateway.dataset import Attributes, Element, text_at, values_at
from gateway.errors import ContentError
from gateway.formats.identifiers import tag_of
from gateway.imaging.values import date_span
from gateway.store.holdings import LEVELS, Narrowing

C_FIND_RQ, C_GET_RQ, C_MOVE_RQ = 0x0020, 0x0010, 0x0021
QUERY_LEVEL = 0x00080052
PATIENT_ID, STUDY_UID, SERIES_UID, INSTANCE_UID = 0x00100020, 0x0020000D, 0x0020000E, 0x00080018
STUDY_DATE = 0x00080020
UNIQUE_KEYS = dict(zip(LEVELS, (PATIENT_ID, STUDY_UID, SERIES_UID, INSTANCE_UID), strict=True))
UIDS_MAX = 10_000

# Computed, not stored: PS3.4, C.3.4 and C.6
COUNTED = frozenset(
    tag_of(name)
    for name in (
        "NumberOfPatientRelatedStudies",
        "NumberOfPatientRelatedSeries",
        "NumberOfPatientRelatedInstances",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "NumberOfSeriesRelatedInstances",
        "ModalitiesInStudy",
        "SOPClassesInStudy",
    )
)


class Root(Enum):
    """An information model, by the middle of its SOP Class UIDs."""

    PATIENT = "1.2.840.10008.5.1.4.1.2.1."
    STUDY = "1.2.840.10008.5.1.4.1.2.2."

    @property
    def find(self) -> str:
        """Return the SOP Class of its C-FIND."""
        return f"{self.value}1"

    @property
    def move(self) -> str:
        """Return the SOP Class of its C-MOVE."""
        return f"{self.value}2"

    @property
    def get(self) -> str:
        """Return the SOP Class of its C-GET."""
        return f"{self.value}3"

    @property
    def levels(self) -> tuple[str, ...]:
        """Return its levels, top first."""
        return LEVELS if self is Root.PATIENT else LEVELS[1:]


def root_of(sop_class_uid: str) -> Root:
    """Return the information model of a SOP Class. Raises ContentError for one that is not ours."""
    for root in Root:
        if sop_class_uid in (root.find, root.move, root.get):
            return root
    raise ContentError("not a Query/Retrieve SOP Class")


def is_query(sop_class_uid: str) -> bool:
    """Tell whether a SOP Class is one of Query/Retrieve's."""
    return any(sop_class_uid in (root.find, root.move, root.get) for root in Root)


def relational(proposed: bytes) -> bytes:
    """Answer extended negotiation (PS3.4, C.5.1.1): relational queries where they are asked for, nothing else."""
    return bytes(int(place == 0 and asked == 1) for place, asked in enumerate(proposed[:4]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A checked identifier: its level, and what its unique keys say for the index."""

    root: Root
    level: str
    narrowing: Narrowing


def read_asked(identifier: Attributes, root: Root, *, relational: bool = False, retrieving: bool = False) -> Asked:
    """Check level and unique keys of an identifier.

    Raises ContentError, with names of keys and never values: an unknown level, a unique key above the level that is
    missing or no single value, and for a retrieval a unique key that is missing or a wildcard at its own level.
    """
    level = text_at(identifier, QUERY_LEVEL)
    if level not in root.levels:
        raise ContentError(f"QueryRetrieveLevel: one of {', '.join(root.levels)} expected")
    above = root.levels[: root.levels.index(level)]
    if not relational:
        for upper in above:
            _expect_single(identifier, upper)
    if retrieving and not _listed(identifier, UNIQUE_KEYS[level]):
        raise ContentError(f"{_KEY_NAMES[level]}: a value without wildcards expected")
    return Asked(root=root, level=level, narrowing=_narrowing(identifier, level))


def _narrowing(identifier: Attributes, level: str) -> Narrowing:
    """Return what the index can use; values with wildcards are left to the matching."""
    low, high = _dates(identifier)
    return Narrowing(
        patients=_listed(identifier, PATIENT_ID)[:1],
        studies=_listed(identifier, STUDY_UID),
        series=_listed(identifier, SERIES_UID) if level in ("SERIES", "IMAGE") else (),
        instances=_listed(identifier, INSTANCE_UID) if level == "IMAGE" else (),
        date_low=low,
        date_high=high,
    )


def _expect_single(identifier: Attributes, level: str) -> None:
    values = _listed(identifier, UNIQUE_KEYS[level])
    if len(values) != 1:
        raise ContentError(f"{_KEY_NAMES[level]}: one value expected above the level asked for")


def _listed(identifier: Attributes, tag: int) -> tuple[str, ...]:
    values = values_at(identifier, tag)
    if any("*" in value or "?" in value for value in values) or len(values) > UIDS_MAX:
        return ()
    return values


def _dates(identifier: Attributes) -> tuple[str, str]:
    text = text_at(identifier, STUDY_DATE)
    if not text:
        return "", ""
    span = date_span(text)
    return span.low or "", span.high or ""


def counted_elements(counts: dict[str, Sequence[str]]) -> dict[int, Element]:
    """Return counts by keyword as attributes."""
    found = {}
    for keyword, values in counts.items():
        vr = {"ModalitiesInStudy": "CS", "SOPClassesInStudy": "UI"}.get(keyword, "IS")
        found[tag_of(keyword)] = Element(vr, tuple(values))
    return found


_KEY_NAMES = dict(zip(LEVELS, ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), strict=True))
