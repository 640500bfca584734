"""Cleaning text: only words that medicine's own vocabulary knows stay, and none that names somebody in this object.

The vocabulary are the words of the meanings of DICOM's coded concepts that are written there in lower case: those in
capitals are mostly people's names (Willis, Wilson). Numbers go, because they are dates, ages and identifiers; a length
in millimetres stays.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_KEPT = re.compile(r"[0-9]{1,3}mm|t[12]", re.IGNORECASE)
_SCHEMES = ("DCM", "SCT")
WORD_CHARS_MIN = 3
STANDARD_SCHEMES = frozenset({"DCM", "SCT", "SRT", "SNM3", "LN", "UCUM", "RADLEX", "FMA", "NCIt", "MDC", "I9C", "I10"})


def cleaned(text: str, forbidden: frozenset[str]) -> str:
    """Return the words of a text that may stay, in their order, parted by single spaces."""
    known = vocabulary()
    words = (match[0] for match in _WORD.finditer(text))
    return " ".join(
        word
        for word in words
        if (word.lower() in known and word.lower() not in forbidden) or _KEPT.fullmatch(word) is not None
    )


def words_of(values: Iterable[str]) -> frozenset[str]:
    """Return the words of names and identifiers, in lower case."""
    return frozenset(match[0].lower() for value in values for match in _WORD.finditer(value))


@cache
def vocabulary() -> frozenset[str]:
    """Return the words that identify nobody."""
    from pydicom.sr._concepts_dict import concepts  # 30 MiB: only where a route asks for it

    table: dict[str, Any] = concepts
    meanings = (entry[0] for name in _SCHEMES for codes in table[name].values() for entry in codes.values())
    found = (match[0] for meaning in meanings for match in _WORD.finditer(str(meaning)))
    return frozenset(word for word in found if word.islower() and word.isalpha() and len(word) >= WORD_CHARS_MIN)
