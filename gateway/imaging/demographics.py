"""Whether a stored object says the same of its patient and order as the worklist item it answers to.

What disagrees is reported, never changed: coercion is a rule of its own. Absent values disagree with nothing, but an
object without a Patient ID is not the patient of an item that has one.
"""

import unicodedata
from collections.abc import Mapping

from gateway.dataset import Attributes, text_at

COMPARED = {
    "PatientID": 0x00100020,
    "PatientName": 0x00100010,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "AccessionNumber": 0x00080050,
    "StudyInstanceUID": 0x0020000D,
}


def disagreements(headers: Mapping[str, str], item: Attributes) -> tuple[str, ...]:
    """Return the keywords in which an object's header differs from a worklist item."""
    found = []
    for keyword, tag in COMPARED.items():
        said, wanted = headers.get(keyword, "").strip(), text_at(item, tag).strip()
        if wanted and (said or keyword == "PatientID") and not _same(keyword, said, wanted):
            found.append(keyword)
    return tuple(found)


def _same(keyword: str, one: str, other: str) -> bool:
    return bool(_names(one) & _names(other)) if keyword == "PatientName" else one == other


def _names(text: str) -> set[str]:
    """Return the groups of a name (alphabetic, ideographic, phonetic) without case, accents' forms and empty ends."""
    groups = (unicodedata.normalize("NFKC", group).casefold() for group in text.split("="))
    return {"^".join(part.strip() for part in group.split("^")).rstrip("^") for group in groups if group.strip("^ ")}
