"""The head of a DICOM Part 10 file: what routing, search and sending need, and never the pixels.

A Part 10 file (PS3.10, 7.1) is a preamble of 128 bytes, `DICM`, the file meta group 0002 in Explicit VR Little Endian,
and the data set in its transfer syntax. Reading goes forward over element headers, skips what nobody asked for, stops
behind the last element that was asked for, and gives up after a bounded number of bytes and elements. A Deflated data
set is inflated only for its first mebibyte. Sequences are stepped over without recursion.

Whether the content is right for its SOP Class is left to the archive.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pydicom import charset, datadict

from gateway.errors import ContentError

PREAMBLE_BYTES = 128
READ_BYTES_MAX = 4 << 20  # values read, not those skipped
INFLATED_BYTES_MAX = 1 << 20
VALUE_BYTES_MAX = 64 << 10  # longer values are cut: nobody routes by them
ELEMENTS_MAX = 20_000
DEPTH_MAX = 64

IMPLEMENTATION_UID = "2.25.217882447251272419420397505288011246975"  # ours; a UUID under 2.25 (PS3.5, B.2)
IMPLEMENTATION_VERSION = b"MEDGATEWAY_1"

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
UNCOMPRESSED = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)

DEFAULT_KEYWORDS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "Modality",
    "StationName",
    "StudyDescription",
    "SeriesDescription",
    "InstitutionName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "BodyPartExamined",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
)

_UNDEFINED = 0xFFFFFFFF
_PIXEL_GROUP = 0x7FE0
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_CHARSET_VRS = frozenset({b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"})
_TEXT_VRS = _CHARSET_VRS | {b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"TM", b"UI", b"UR"}
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "L", b"SL": "l", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}
_UID = re.compile(r"[0-9][0-9.]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """Group 0002 of a file: what lies in it, and where its data set begins, in bytes from the start."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    dataset_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The file meta, and the values asked for by keyword as text; multiple values are joined by a backslash."""

    meta: FileMeta
    values: dict[str, str] = field(default_factory=dict)


def is_uid(text: str) -> bool:
    """Tell whether a text is a UID: a digit, up to 63 digits and dots (PS3.5, 9.1; leading zeros are let pass)."""
    return _UID.fullmatch(text) is not None


def clean_uid(text: str) -> str:
    """Return a UID without padding, cut to the 64 characters that one can have."""
    return unpadded(text)[:64].rstrip(" \0")


def unpadded(text: str) -> str:
    """Return a UID without padding: NUL by the standard, blanks and line ends by some senders."""
    return text.strip(" \0\t\r\n")


def part10_prefix(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae: str = "") -> bytes:
    """Return preamble and file meta group to set before a data set as it came (PS3.10, 7.1).

    The values are written as they are, however odd, padded to even length.
    """
    elements = [
        _element(0x0001, b"OB", b"\0\1"),
        _element(0x0002, b"UI", _uid_bytes(sop_class_uid)),
        _element(0x0003, b"UI", _uid_bytes(sop_instance_uid)),
        _element(0x0010, b"UI", _uid_bytes(transfer_syntax)),
        _element(0x0012, b"UI", _uid_bytes(IMPLEMENTATION_UID)),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION),
    ]
    if source_ae:
        elements.append(_element(0x0016, b"AE", _padded(source_ae.encode("latin-1", "replace")[:16], b" ")))
    group = b"".join(elements)
    return bytes(PREAMBLE_BYTES) + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(group))) + group


def read_meta(path: Path) -> FileMeta:
    """Read group 0002 of a file.

    Raises ContentError when it is no Part 10 file or has no transfer syntax, OSError when it cannot be read.
    """
    with path.open("rb") as file:
        return _read_meta(file)


def transfer_syntax(path: Path) -> str:
    """Return the transfer syntax UID of a file. Raises ContentError and OSError as `read_meta`."""
    return read_meta(path).transfer_syntax


def read_header(source: Path | BinaryIO, keywords: Iterable[str] = ()) -> Header:
    """Read the default keywords and those given from the head of a Part 10 file.

    Unknown keywords are left out, as are elements that are absent, empty, binary or a sequence. Raises ContentError
    with the tag and place of the fault, never a value; OSError when the file cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return read_header(file, keywords)
    meta = _read_meta(source)
    wanted = {tag: keyword for keyword in (*DEFAULT_KEYWORDS, *keywords) if (tag := _tag_of(keyword)) is not None}
    if meta.transfer_syntax == DEFLATED:
        source = io.BytesIO(_inflate_head(source))
    reader = _Reader(source, meta.transfer_syntax)
    raw = reader.read(wanted)
    return Header(meta=meta, values=_texts(raw, wanted, "<" if reader.order == "little" else ">"))


class _Reader:
    """Goes over the elements of a data set, from where the file stands."""

    def __init__(self, file: BinaryIO, syntax: str) -> None:
        self._file = file
        self._start = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(self._start)
        self._at = self._start
        self._spent = 0
        self._elements = 0
        self.order = "big" if syntax == EXPLICIT_BIG else "little"
        self._tag = struct.Struct(">HH" if self.order == "big" else "<HH")
        self._short = struct.Struct(">H" if self.order == "big" else "<H")
        self._long = struct.Struct(">L" if self.order == "big" else "<L")
        self._implicit = syntax == IMPLICIT_LITTLE or self._looks_implicit()

    def read(self, wanted: dict[int, str]) -> dict[int, tuple[bytes, bytes]]:
        """Return VR and value of the wanted elements that stand at the top level."""
        found: dict[int, tuple[bytes, bytes]] = {}
        last = max(wanted, default=0)
        while self._at < self._end:
            start = self._at
            tag = self._read_tag()
            if tag > last or tag >> 16 >= _PIXEL_GROUP:
                break
            vr, length = self._read_vr_and_length(tag, self._implicit)
            if length == _UNDEFINED:
                self._skip_undefined(tag, self._implicit or vr == b"UN")
            elif tag in wanted and length and vr != b"SQ":
                found[tag] = (vr, self._take_value(tag, start, length))
            else:
                self._skip(tag, length)
        return found

    def _looks_implicit(self) -> bool:
        """Tell whether the first element has no VR although the syntax promises one (seen from several converters)."""
        head = self._file.read(8)
        self._file.seek(self._start)
        return len(head) == 8 and not _is_vr(head[4:6]) and head[:2] != b"\xfe\xff"

    def _take_value(self, tag: int, start: int, length: int) -> bytes:
        self._check(tag, start, length)
        value = self._take(min(length, VALUE_BYTES_MAX))
        self._skip(tag, length - len(value))
        return value

    def _read_tag(self) -> int:
        self._elements += 1
        if self._elements > ELEMENTS_MAX:
            raise ContentError(f"more than {ELEMENTS_MAX} elements before byte {self._at}")
        group, element = self._tag.unpack(self._take(4))
        return int(group) << 16 | int(element)

    def _read_vr_and_length(self, tag: int, implicit: bool) -> tuple[bytes, int]:
        if tag >> 16 == 0xFFFE:  # items and delimiters have no VR (PS3.5, 7.5)
            return b"", int(self._long.unpack(self._take(4))[0])
        if implicit:
            return _vr_of(tag), int(self._long.unpack(self._take(4))[0])
        head = self._take(4)
        vr = head[:2]
        if vr in _LONG_VRS:
            return vr, int(self._long.unpack(self._take(4))[0])
        if not _is_vr(vr):
            raise ContentError(f"{_name(tag)} at byte {self._at - 8}: no value representation")
        return vr, int(self._short.unpack(head[2:])[0])

    def _skip_undefined(self, opened: int, implicit: bool) -> None:
        """Step over an element of undefined length, with everything nested in it (PS3.5, 7.5)."""
        encodings = [implicit]
        while encodings:
            tag = self._read_tag()
            vr, length = self._read_vr_and_length(tag, encodings[-1])
            if tag in (_ITEM_END, _SEQUENCE_END):
                encodings.pop()
            elif length == _UNDEFINED:
                encodings.append(encodings[-1] or vr == b"UN")  # UN of undefined length is implicit (PS3.5, 6.2.2)
                if len(encodings) > DEPTH_MAX:
                    raise ContentError(f"{_name(opened)} at byte {self._at}: nested deeper than {DEPTH_MAX}")
            else:
                self._skip(tag, length)

    def _skip(self, tag: int, length: int) -> None:
        self._check(tag, self._at, length)
        self._at = self._file.seek(self._at + length)

    def _check(self, tag: int, place: int, length: int) -> None:
        if self._at + length > self._end:
            raise ContentError(f"{_name(tag)} at byte {place}: {length} bytes expected, {self._end - self._at} left")

    def _take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise ContentError(f"data set cut short at byte {self._at + len(data)}")
        self._at += length
        self._spent += length
        if self._spent > READ_BYTES_MAX:
            raise ContentError(f"head longer than {READ_BYTES_MAX} bytes")
        return data


def _read_meta(file: BinaryIO) -> FileMeta:
    if file.read(PREAMBLE_BYTES + 4)[PREAMBLE_BYTES:] != b"DICM":
        raise ContentError("no DICM behind the preamble")
    values: dict[int, bytes] = {}
    while True:
        at = file.tell()
        head = file.read(8)
        if head[:2] != b"\2\0":
            break
        if len(head) < 8:
            raise ContentError(f"file meta cut short at byte {at}")
        element, vr, length = struct.unpack("<2xH2sH", head)
        if vr in _LONG_VRS:
            length = struct.unpack("<L", file.read(4).ljust(4, b"\xff"))[0]
        if length > VALUE_BYTES_MAX or len(values) > 100:
            raise ContentError(f"file meta (0002,{element:04X}) at byte {at}: {length} bytes")
        values[element] = file.read(length)
        if len(values[element]) < length:
            raise ContentError(f"file meta cut short at byte {at}")
    file.seek(at)
    if not (syntax := _uid_text(values.get(0x0010))):
        raise ContentError("file meta without a transfer syntax")
    return FileMeta(
        sop_class_uid=_uid_text(values.get(0x0002)),
        sop_instance_uid=_uid_text(values.get(0x0003)),
        transfer_syntax=syntax,
        dataset_offset=at,
    )


def _inflate_head(file: BinaryIO) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    head = bytearray()
    try:
        while len(head) < INFLATED_BYTES_MAX and not inflater.eof:
            packed = inflater.unconsumed_tail or file.read(16 << 10)
            if not packed:
                break
            head += inflater.decompress(packed, INFLATED_BYTES_MAX - len(head))
    except zlib.error as error:
        raise ContentError(f"deflated data set broken behind {len(head)} inflated bytes") from error
    return bytes(head)


def _texts(raw: dict[int, tuple[bytes, bytes]], wanted: dict[int, str], order: str) -> dict[str, str]:
    names = raw.get(0x00080005, (b"CS", b""))[1].decode("ascii", "replace").strip(" \0").split("\\")
    encodings = [charset.python_encoding.get(name.strip(), "latin_1") for name in names]
    texts = {}
    for tag, (vr, value) in raw.items():
        text = _text(_vr_of(tag) if vr == b"UN" else vr, value, encodings, order)  # some converters write UN throughout
        if text:
            texts[wanted[tag]] = text
    return texts


def _text(vr: bytes, value: bytes, encodings: list[str], order: str) -> str:
    if vr in _CHARSET_VRS:
        return _decode(value, encodings, vr).strip(" \0")
    if vr in _TEXT_VRS:
        parts = value.decode("latin-1").split("\\")
        return "\\".join(part.strip(" \0") for part in parts).strip("\\")
    if code := _NUMBERS.get(vr):
        count = len(value) // struct.calcsize(code)
        numbers = struct.unpack_from(f"{order}{count}{code}", value)
        return "\\".join(format(number, ".9g") if code in "fd" else str(number) for number in numbers)
    return ""


def _decode(value: bytes, encodings: list[str], vr: bytes) -> str:
    """Decode text of one character set, or of several that code extensions switch between (PS3.5, 6.1.2.5)."""
    if b"\x1b" not in value or len(encodings) == 1:
        return value.decode(encodings[0], "replace")
    delimiters = {0x5E, 0x3D} if vr == b"PN" else {0x0D, 0x0A, 0x09, 0x0C}
    try:
        return charset.decode_bytes(value, encodings, delimiters)
    except (LookupError, UnicodeError):
        return value.decode("latin-1")


def _tag_of(keyword: str) -> int | None:
    return datadict.tag_for_keyword(keyword)


def _vr_of(tag: int) -> bytes:
    try:
        return datadict.dictionary_VR(tag).encode()[:2]
    except KeyError:
        return b"UN"


def _is_vr(vr: bytes) -> bool:
    return vr.isalpha() and vr.isupper()


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    if vr in _LONG_VRS:
        return struct.pack("<HH2s2xL", 0x0002, element, vr, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _uid_bytes(uid: str) -> bytes:
    return _padded(uid.encode("latin-1", "replace")[:64], b"\0")


def _padded(value: bytes, filler: bytes) -> bytes:
    return value + filler * (len(value) % 2)


def _uid_text(value: bytes | None) -> str:
    return (value or b"").decode("latin-1").strip(" \0")
