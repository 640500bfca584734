"""Do the pixels of an object show who the patient is? Where that is not known it is not guessed.

Burned In Annotation (0028,0301) says it. Where it is absent, only images that come straight from a tomograph are taken
to be without (`unburned.csv`): ultrasound, screen captures, photographs and digitised films write names into pictures,
and so do tomographs into what they derive. A document's pages are pictures as well.
"""

import csv
from functools import cache
from importlib.resources import files

from pydicom import Dataset

TABLE = "unburned.csv"
_DOCUMENT = 0x00420011


def burned_reason(head: Dataset, *, has_pixels: bool) -> str | None:
    """Return why an object may show names that no profile takes out, None where it shows none."""
    if _DOCUMENT in head:
        return "a document cannot be de-identified"
    if not has_pixels:
        return None
    said = str(head.get("BurnedInAnnotation", "") or "").strip().upper()
    if said == "NO":
        return None
    if said:
        return "its pixels have burned-in annotations"
    sop_class = str(head.get("SOPClassUID", ""))
    if sop_class not in unburned_classes():
        return "whether its pixels have burned-in annotations is unknown"
    kind = head.get("ImageType") or ()
    words = [kind] if isinstance(kind, str) else [str(word) for word in kind]
    if any(mark in word.upper() for word in words for mark in ("SECONDARY", "SCREEN", "SAVE")):
        return "it is a secondary image, whose pixels may have burned-in annotations"
    return None


@cache
def unburned_classes() -> frozenset[str]:
    """Return the SOP Classes whose primary images have nothing burned in."""
    text = files("gateway.imaging").joinpath(TABLE).read_text("utf-8")
    return frozenset(row["uid"] for row in csv.DictReader(line for line in text.splitlines() if line[:1] != "#"))
