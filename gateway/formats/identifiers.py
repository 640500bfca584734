"""DICOM data sets of queries, worklists and procedure steps: bytes to text values and back, and JSON for the store.

Reading elements is pydicom's; letters are ours to watch, because real Modalities declare one character set and send
another. Writing is ours too: pydicom's writer reads raw values of items again, in another character set. Reading takes
whatever the bytes are and never raises for a single value; writing takes the smallest character set that has every
letter (PS3.5, 6.1; PS3.3, C.12.1.1.2).

Deflated data sets are refused: nobody needs them for identifiers, and they inflate without limit.
"""

import base64
import re
import struct
import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple

from pydicom import datadict
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence as DicomSequence

from gateway.dataset import Attributes, Element
from gateway.errors import ContentError
from gateway.formats.character_sets import UTF_8, decode_text, encode_text, is_character_set
from gateway.formats.dataset_json import from_json as from_json
from gateway.formats.dataset_json import to_json as to_json
from gateway.formats.dicom import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE

CHARACTER_SET = 0x00080005
DEPTH_MAX = 16
ELEMENTS_MAX = 20_000
SHORT_BYTES_MAX = 0xFFFE

# What an answer may be written in where nobody wishes otherwise, smallest first; the last one has every letter.
SENSIBLE_SETS = (
    *("ISO_IR 100", "ISO_IR 101", "ISO_IR 109", "ISO_IR 148", "ISO_IR 144", "ISO_IR 126", "ISO_IR 166", "ISO_IR 13"),
    UTF_8,
)

_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_ASCII_VRS = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"})
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_SINGLE_VRS = frozenset({"LT", "ST", "UT", "UR"})  # a backslash is a letter in these
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_STRIPPED = " \0"
_UNDEFINED = 0xFFFFFFFF
_PIECE = re.compile(r"([=^\n\f\r\t])")  # where a name's or text's first character set holds again (PS3.5, 6.1.2.5.3)
_LINE = re.compile(r"([\n\f\r\t])")


@lru_cache(maxsize=2048)
def tag_of(name: str) -> int:
    """Return the tag of a keyword (`PatientID`) or of eight hexadecimal digits, with or without `(gggg,eeee)`.

    Raises ContentError for a name that is neither.
    """
    found = datadict.tag_for_keyword(name)
    if found is not None:
        return int(found)
    digits = name.strip("()").replace(",", "")
    if len(digits) == 8:
        try:
            return int(digits, 16)
        except ValueError:
            pass
    raise ContentError(f"no DICOM attribute is called {name[:64]!r}")


@lru_cache(maxsize=2048)
def name_of(tag: int) -> str:
    """Return the keyword of a tag, `(gggg,eeee)` where it has none."""
    return datadict.keyword_for_tag(tag) or f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


def vr_of(tag: int) -> str:
    """Return the first value representation that the data dictionary has for a tag, `UN` where it has none."""
    try:
        return datadict.dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        return "UN"


def decode(data: bytes, transfer_syntax: str, *, assumed: Sequence[str] = ()) -> dict[int, Element]:
    """Read a data set; `assumed` are the character sets where it names none and has letters beyond ASCII.

    Raises ContentError when the bytes are no data set in the transfer syntax, or are Deflated.
    """
    if transfer_syntax == DEFLATED:
        raise ContentError("a Deflated identifier is not read")
    implicit, little = transfer_syntax == IMPLICIT_LITTLE, transfer_syntax != EXPLICIT_BIG
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_dataset(BytesIO(data), implicit, little)
            reading = _Reading(little, assumed)
            return reading.attributes(dataset, (), 0)
    except ContentError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises all kinds for broken bytes, and its texts hold values
        raise ContentError(f"not a data set: {type(error).__name__}") from None


def encode(attributes: Attributes, transfer_syntax: str, character_sets: Sequence[str] = ()) -> bytes:
    """Write a data set; (0008,0005) is set to the character sets given, and left out where there are none.

    Raises ContentError for Deflated and for letters that the character sets lack.
    """
    if transfer_syntax == DEFLATED:
        raise ContentError("a Deflated identifier is not written")
    said = {tag: element for tag, element in attributes.items() if tag != CHARACTER_SET}
    if any(character_sets):
        said[CHARACTER_SET] = Element("CS", tuple(character_sets))
    form = _Form(transfer_syntax == IMPLICIT_LITTLE, "<" if transfer_syntax != EXPLICIT_BIG else ">")
    return _dataset(said, character_sets, form)


def character_sets_for(attributes: Attributes, wished: Iterable[Sequence[str]] = ()) -> tuple[str, ...]:
    """Return what (0008,0005) must say so that every letter can be written: () where ASCII is enough.

    The first of `wished` that has every letter is taken, else the smallest sensible one, in the end UTF-8.
    """
    letters = _letters_beyond_ascii(attributes)
    if not letters:
        return ()
    choices = [tuple(sets) for sets in wished if any(sets)] + [(name,) for name in SENSIBLE_SETS]
    for sets in choices:
        if all(map(is_character_set, sets)) and all(_is_in(text, sets) for text in letters):
            return sets
    return (UTF_8,)


class _Reading:
    """Turns pydicom's elements into ours without its conversion of values, which raises for wildcards and ranges."""

    def __init__(self, little: bool, assumed: Sequence[str]) -> None:
        self._little = little
        self._assumed = tuple(assumed)
        self._seen = 0

    def attributes(self, dataset: Dataset, terms: Sequence[str], depth: int) -> dict[int, Element]:
        if depth > DEPTH_MAX:
            raise ContentError(f"sequences are nested deeper than {DEPTH_MAX}")
        declared = dataset.get_item(CHARACTER_SET) if CHARACTER_SET in dataset.keys() else None  # noqa: SIM118
        if declared is not None:
            names = _ascii_values(_bytes_of(declared))
            terms = names or terms
        elif depth == 0:
            terms = self._assumed
        found: dict[int, Element] = {}
        for tag in dataset.keys():  # noqa: SIM118 - iterating pydicom's Dataset would convert every value
            number = int(tag)
            if number & 0xFFFF == 0 or number >> 16 <= 0x0007 or number >> 16 == 0xFFFE:
                continue  # group lengths, command elements, stray delimiters
            self._seen += 1
            if self._seen > ELEMENTS_MAX:
                raise ContentError(f"more than {ELEMENTS_MAX} elements")
            element = self._element(dataset, number, terms, depth)
            if element is not None:
                found[number] = element
        return found

    def _element(self, dataset: Dataset, tag: int, terms: Sequence[str], depth: int) -> Element | None:
        raw = dataset.get_item(tag)
        length, value = getattr(raw, "length", _UNDEFINED), raw.value
        if isinstance(value, bytes) and length not in (len(value), _UNDEFINED):
            raise ContentError("the data set is cut short")
        vr = str(raw.VR) if raw.VR not in (None, "UN") else vr_of(tag)
        if vr == "SQ":
            value = dataset[tag].value
            if not isinstance(value, DicomSequence):
                return Element("SQ")
            return Element("SQ", items=tuple(self.attributes(item, terms, depth + 1) for item in value))
        return Element(vr, self._values(_bytes_of(raw), vr, terms))

    def _values(self, value: bytes, vr: str, terms: Sequence[str]) -> tuple[str, ...]:
        if not value:
            return ()
        if vr in _TEXT_VRS:
            return _split(decode_text(value, terms), vr)
        if vr in _ASCII_VRS:
            return _split(value.decode("ascii", "replace"), vr)
        if vr in _NUMBERS:
            size = struct.calcsize(_NUMBERS[vr])
            order = "<" if self._little else ">"
            numbers = struct.unpack(f"{order}{len(value) // size}{_NUMBERS[vr]}", value[: len(value) // size * size])
            return tuple(map(str, numbers))
        if vr == "AT":
            order = "<" if self._little else ">"
            pairs = struct.iter_unpack(f"{order}HH", value[: len(value) // 4 * 4])
            return tuple(f"{group:04X}{element:04X}" for group, element in pairs)
        return (base64.b64encode(value).decode("ascii"),)


def _bytes_of(raw: RawDataElement | DataElement) -> bytes:
    value = raw.value
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    values = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return "\\".join(map(str, values)).encode("latin-1", "replace")


def _ascii_values(value: bytes) -> tuple[str, ...]:
    names = tuple(name.strip(_STRIPPED) for name in value.decode("ascii", "replace").split("\\"))
    return names if any(names) else ()


def _split(text: str, vr: str) -> tuple[str, ...]:
    if vr in _SINGLE_VRS:
        text = text.rstrip(_STRIPPED)
        return (text,) if text else ()
    values = tuple(part.strip(_STRIPPED) for part in text.split("\\"))
    return values if any(values) or len(values) > 1 else ()


def _is_in(text: str, terms: Sequence[str]) -> bool:
    try:
        for piece in _PIECE.split(text):
            encode_text(piece, terms)
    except UnicodeError:
        return False
    return True


class _Form(NamedTuple):
    """A transfer syntax as far as elements differ in it; `order` is that of `struct`."""

    implicit: bool
    order: str


def _dataset(attributes: Attributes, terms: Sequence[str], form: _Form) -> bytes:
    return b"".join(_element(tag, attributes[tag], terms, form) for tag in sorted(attributes))


def _element(tag: int, element: Element, terms: Sequence[str], form: _Form) -> bytes:
    """Return an element with its header (PS3.5, 7.1); sequences and items have explicit lengths."""
    if element.vr == "SQ":
        items = (_dataset(item, terms, form) for item in element.items)
        value = b"".join(struct.pack(f"{form.order}HHL", 0xFFFE, 0xE000, len(item)) + item for item in items)
    else:
        value = _encoded(element, terms, form.order == "<")
    head = struct.pack(f"{form.order}HH", tag >> 16, tag & 0xFFFF)
    if form.implicit:
        return head + struct.pack(f"{form.order}L", len(value)) + value
    vr = element.vr.encode("ascii")
    if element.vr in _LONG_VRS:
        return head + vr + b"\0\0" + struct.pack(f"{form.order}L", len(value)) + value
    if len(value) > SHORT_BYTES_MAX:
        raise ContentError(f"{name_of(tag)} is longer than {SHORT_BYTES_MAX} bytes")
    return head + vr + struct.pack(f"{form.order}H", len(value)) + value


def _encoded(element: Element, terms: Sequence[str], little: bool) -> bytes:
    """Return the value of an element as bytes of even length."""
    vr = element.vr
    if not element.values:
        return b""
    if vr in _NUMBERS:
        kind = float if vr in ("FL", "FD") else int
        order = "<" if little else ">"
        numbers: list[Any] = [kind(value) for value in element.values]
        return struct.pack(f"{order}{len(numbers)}{_NUMBERS[vr]}", *numbers)
    if vr == "AT":
        order = "<" if little else ">"
        return b"".join(struct.pack(f"{order}HH", int(one[:4], 16), int(one[4:], 16)) for one in element.values)
    if vr in _TEXT_VRS:
        value = b"\\".join(_written(one, vr, terms) for one in element.values)
    elif vr in _ASCII_VRS:
        value = "\\".join(element.values).encode("ascii", "replace")
    else:
        value = base64.b64decode(element.values[0])
    return value if len(value) % 2 == 0 else value + (b"\0" if vr in ("UI", "UN", "OB") else b" ")


def _written(text: str, vr: str, terms: Sequence[str]) -> bytes:
    if text.isascii():
        return text.encode("ascii")
    delimiters = _PIECE if vr == "PN" else _LINE
    try:
        return b"".join(encode_text(piece, terms) for piece in delimiters.split(text))
    except UnicodeError:
        raise ContentError("a letter is not in the character set of the answer") from None


def _letters_beyond_ascii(attributes: Attributes) -> list[str]:
    found: list[str] = []
    for element in attributes.values():
        if element.vr in _TEXT_VRS:
            found += [value for value in element.values if not value.isascii()]
        for item in element.items:
            found += _letters_beyond_ascii(item)
    return found
