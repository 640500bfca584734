r"""HL7 v2 messages, read lazily: the header, single values, what a person searches by (HL7 v2.8.2, chapter 2).

Nothing is parsed that nobody asked for. Segments end with CR; feeds that write LF or CR LF are read too, decided by
how the MSH segment ends, so an LF inside a field of a sound message stays a part of it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from typing import NamedTuple

from gateway.errors import ContentError
from gateway.formats.charset import codec_of, splits_as_text
from gateway.formats.hl7_path import Hl7Path, PathError, parse_path

__all__ = [
    "Header",
    "Hl7Path",
    "Hl7Text",
    "Keys",
    "PathError",
    "keys_of",
    "parse_path",
    "read_header",
    "read_path",
    "segments_of",
    "unescaped",
    "value",
]

HEADER_BYTES_MAX = 16 * 1024  # of the MSH segment: it is echoed in answers, so it is bounded
TERMS_MAX = 16
TERM_BYTES_MAX = 200
_LEADING = b"\xef\xbb\xbf\r\n\t "  # a byte order mark, or blank lines, before MSH
_FIELDS_MAX = 18  # MSH-18 is the last one we read
_NO_FIELDS = [b""] * (_FIELDS_MAX + 1)
_DEFAULT_SEPARATORS = b"^~\\&"
_HEX = re.compile(r"X(?:[0-9A-Fa-f]{2})+")
_OTHER_ESCAPES = {".br": "\n", "H": "", "N": "", "P": "#"}
_KEYS: Mapping[bytes, tuple[int, ...]] = {b"PID": (3,), b"PV1": (19,), b"OBR": (18,), b"IPC": (1, 3), b"ZDS": (1,)}


class Separators(NamedTuple):
    """The encoding characters, MSH-2, in its order; usually `^~\\&`."""

    component: bytes
    repetition: bytes
    escape: bytes
    subcomponent: bytes


class Keys(NamedTuple):
    """What a message is found and ordered by.

    `terms` are what a person searches by: patient ids (PID-3.1), visit (PV1-19.1), accession and study numbers
    (OBR-18.1, IPC-1.1, IPC-3.1, ZDS-1.1). `lane_key` is by what order is kept where a Destination has several lanes:
    the patient, else the visit, else "".
    """

    terms: tuple[str, ...]
    lane_key: str


@dataclass(frozen=True, slots=True)
class Header:
    """The MSH segment: `parts[n - 1]` is MSH-n for n from 2 to 18, as bytes, undecoded, empty where it is missing.

    `terminator` is what ends the message's segments: CR, LF or CR LF.
    """

    parts: list[bytes]
    separator: bytes  # MSH-1
    terminator: bytes
    separators: Separators

    def field(self, number: int) -> bytes:
        """Return MSH-number, from 1 to 18, as received, empty where it is missing."""
        return self.parts[number - 1] if number > 1 else self.separator

    def component(self, number: int, component: int) -> bytes:
        """Return one component of MSH-number's first repetition, empty where it is missing."""
        first = self.field(number).partition(self.separators.repetition)[0]
        components = first.split(self.separators.component, component)
        return components[component - 1] if component <= len(components) else b""

    @property
    def message_type(self) -> bytes:
        """Return MSH-9.1: `ORU`."""
        return self.component(9, 1)

    @property
    def trigger(self) -> bytes:
        """Return MSH-9.2: `R01`, empty where MSH-9 has one component only."""
        return self.component(9, 2)

    @property
    def control_id(self) -> bytes:
        """Return MSH-10 as received."""
        return self.field(10)

    @property
    def version(self) -> tuple[int, ...] | None:
        """Return MSH-12.1 as numbers, (2, 5, 1), or None where it is no version."""
        return version_of(self.component(12, 1))

    @property
    def enhanced(self) -> bool:
        """Return whether MSH-15 or MSH-16 is valued: the enhanced acknowledgement mode (2.9.3)."""
        return bool(self.parts[14].strip() or self.parts[15].strip())

    def codec(self, default: str) -> str:
        """Return the Python codec that MSH-18 names, the default where it names none."""
        names = self.field(18)
        return codec_of(names, default) if names else default


def read_header(raw: bytes) -> Header:
    """Read the MSH segment of a message, or of its beginning.

    Raises ContentError when the bytes do not begin with MSH and a separator, or MSH is longer than HEADER_BYTES_MAX.
    """
    start = 0
    if raw[:3] != b"MSH":
        start = _leading_bytes(raw)
        if raw[start : start + 3] != b"MSH":
            raise ContentError("not HL7: does not begin with MSH")
    separator = raw[start + 3 : start + 4]
    if not separator or separator.isalnum() or not 0x20 < separator[0] < 0x7F:
        raise ContentError("not HL7: no field separator after MSH")
    end = _end_of_segment(raw, start)
    if end - start > HEADER_BYTES_MAX:
        raise ContentError(f"MSH is longer than {HEADER_BYTES_MAX} bytes")
    parts = raw[start:end].split(separator, _FIELDS_MAX)
    if len(parts) < 2:
        raise ContentError("not HL7: MSH has no fields")
    parts += _NO_FIELDS[len(parts) :]
    return Header(parts, separator, _terminator(raw, end), separators_of(parts[1]))


@lru_cache(maxsize=64)
def separators_of(encoding_characters: bytes) -> Separators:
    """Return the separators of an MSH-2; those it leaves out are the usual ones."""
    signs = encoding_characters[:4] + _DEFAULT_SEPARATORS[len(encoding_characters) :]
    return Separators(signs[0:1], signs[1:2], signs[2:3], signs[3:4])


def version_of(text: bytes) -> tuple[int, ...] | None:
    """Return a version as numbers, (2, 5, 1), or None where it is none."""
    numbers = text.strip()[:10].split(b".")
    return tuple(map(int, numbers)) if all(map(bytes.isdigit, numbers)) else None


class Hl7Text:
    """A message to ask for values, decoded and split once, on the first question.

    `encoding` is the codec where MSH-18 names none. Bytes that are wrong in it read as U+FFFD. A message that is not
    HL7 answers every question with nothing.
    """

    def __init__(self, raw: bytes, encoding: str = "utf-8") -> None:
        self._raw = raw
        try:
            self._header: Header | None = read_header(raw)
            self._codec = self._header.codec(encoding)
        except ContentError:
            self._header = None

    def read(self, path: Hl7Path) -> tuple[str, ...]:
        """Return every value at the path, in order, unescaped; missing and empty ones are left out."""
        if self._header is None:
            return ()
        segments = self._segments(path.segment, self._header)
        if path.occurrence is not None:
            segments = segments[path.occurrence - 1 : path.occurrence]
        return tuple(text for segment in segments for text in self._values(segment, path) if text)

    def count(self, segment: str) -> int:
        """Return how many segments of the name there are."""
        return len(self._segments(segment, self._header)) if self._header is not None else 0

    def _segments(self, name: str, header: Header) -> list[list[str]]:
        separator = header.separator.decode("ascii")
        end = header.terminator.decode("ascii")
        if name == "MSH":
            return [self._text.partition(end)[0].split(separator)]
        return [found.split(separator) for found in _text_scanner(end, separator, name).findall(self._text)]

    @cached_property
    def _text(self) -> str:
        return self._raw[_leading_bytes(self._raw) :].decode(self._codec, "replace")

    def _values(self, segment: list[str], path: Hl7Path) -> Iterator[str]:
        header = self._header
        assert header is not None
        number = path.field
        if segment[0] == "MSH":
            if number <= 2:  # the separators themselves
                yield header.field(number).decode("latin-1")
                return
            number -= 1
        if number >= len(segment):
            return
        repetitions = segment[number].split(header.separators.repetition.decode("latin-1"))
        if path.repetition is not None:
            repetitions = repetitions[path.repetition - 1 : path.repetition]
        for text in repetitions:
            text = _part(text, header.separators.component.decode("latin-1"), path.component)
            text = _part(text, header.separators.subcomponent.decode("latin-1"), path.subcomponent)
            yield _unescaped(text, header, self._codec)


def read_path(raw: bytes, path: Hl7Path, encoding: str = "utf-8") -> tuple[str, ...]:
    """Return every value at the path; see `Hl7Text.read`. For several questions ask one `Hl7Text`."""
    return Hl7Text(raw, encoding).read(path)


def value(raw: bytes, path: str, encoding: str = "utf-8") -> str | None:
    """Return the first value at the path (`PID-3.1`), or None. Raises PathError for a wrong path."""
    return next(iter(read_path(raw, parse_path(path), encoding)), None)


def keys_of(raw: bytes, header: Header, codec: str = "utf-8") -> Keys:
    """Return what a message is found by and ordered by, not looking at more of it than that.

    `codec` is the message's own (`Header.codec`). Terms come in the order of the message, without repeats, at most
    TERMS_MAX, each of at most TERM_BYTES_MAX bytes.
    """
    terms: dict[str, None] = {}
    patient = visit = ""
    for name, term in islice(_keys(raw, header, codec), 4 * TERMS_MAX):
        terms[term] = None
        if name == b"PID":
            patient = patient or term
        elif name == b"PV1":
            visit = visit or term
    return Keys(terms=tuple(islice(terms, TERMS_MAX)), lane_key=patient or visit)


def _leading_bytes(raw: bytes) -> int:
    """Return how many bytes stand before MSH that mean nothing."""
    return len(raw) - len(raw.lstrip(_LEADING)) if raw[:1] in _LEADING else 0


def _end_of_segment(raw: bytes, start: int) -> int:
    """Return where the segment that starts there ends: at the first CR or LF, or at the end of the bytes."""
    end = raw.find(b"\r", start)
    if end < 0:
        end = len(raw)
    line = raw.find(b"\n", start, end)
    return end if line < 0 else line


def _terminator(raw: bytes, end: int) -> bytes:
    """Return what ends the segment that ends there: CR, LF or CR LF; CR where it ends with the bytes."""
    two = raw[end : end + 2]
    return two if two == b"\r\n" else two[:1] or b"\r"


def _part(text: str, separator: str, number: int | None) -> str:
    if number is None:
        return text
    parts = text.split(separator, number)
    return parts[number - 1] if number <= len(parts) else ""


def _keys(raw: bytes, header: Header, codec: str) -> Iterator[tuple[bytes, str]]:
    """Yield segment name and first component of every repetition of the fields in _KEYS."""
    if splits_as_text(codec):
        text = Hl7Text(raw, codec)
        for name, numbers in _KEYS.items():
            for number in numbers:
                for term in text.read(Hl7Path(name.decode("ascii"), number, component=1)):
                    yield name, term
        return
    separator = header.separator
    for segment in _scanner(header.terminator, separator).findall(raw):
        name = segment[:3]
        for number in _KEYS[name]:
            parts = segment.split(separator, number + 1)
            if len(parts) > number and parts[number]:
                for term in _first_components(parts[number], header, codec):
                    yield name, term


@lru_cache(maxsize=64)
def _scanner(terminator: bytes, separator: bytes) -> re.Pattern[bytes]:
    """Return what finds all segments that hold keys, in one pass."""
    return re.compile(rb"%b((?:%b)%b[^%b]*)" % (terminator, b"|".join(_KEYS), re.escape(separator), terminator))


@lru_cache(maxsize=1024)
def _text_scanner(end: str, separator: str, name: str) -> re.Pattern[str]:
    """Return what finds every segment of the name."""
    return re.compile(f"{end}({name}{re.escape(separator)}[^{end}]*)")


def _first_components(field: bytes, header: Header, codec: str) -> Iterator[str]:
    separators = header.separators
    repetitions = field.split(separators.repetition, TERMS_MAX) if separators.repetition in field else [field]
    for repetition in repetitions[:TERMS_MAX]:
        first = repetition.partition(separators.component)[0].strip()
        if first and first != b'""':
            text = first[:TERM_BYTES_MAX].decode(codec, "replace")
            yield text if separators.escape not in first else _unescaped(text, header, codec)


def segments_of(raw: bytes, header: Header, codec: str) -> list[list[str]]:
    """Return every segment as its fields, undivided and with escapes; field n stands at n, of MSH too.

    For a reader that needs nearly all of a message; for single values ask an `Hl7Text`.
    """
    text = raw[_leading_bytes(raw) :].decode(codec, "replace")
    separator = header.separator.decode("ascii")
    found = [line.strip("\r\n").split(separator) for line in text.split(header.terminator.decode("ascii"))]
    return [fields if fields[0] != "MSH" else ["MSH", separator, *fields[1:]] for fields in found if fields[0]]


def unescaped(text: str, header: Header, codec: str) -> str:
    """Return a part of a field without its escape sequences (2.7)."""
    return _unescaped(text, header, codec)


def _unescaped(text: str, header: Header, codec: str) -> str:
    r"""Resolve escape sequences (2.7): separators, `\Xhh..\`, `\.br\`; highlighting goes, unknown ones stay."""
    escape = header.separators.escape.decode("latin-1")
    if escape not in text:
        return text
    plain = {
        "F": header.separator,
        "S": header.separators.component,
        "R": header.separators.repetition,
        "E": header.separators.escape,
        "T": header.separators.subcomponent,
    }

    def resolved(found: re.Match[str]) -> str:
        name = found[1]
        if name in plain:
            return plain[name].decode("latin-1")
        if _HEX.fullmatch(name):
            return bytes.fromhex(name[1:]).decode(codec, "replace")
        return _OTHER_ESCAPES.get(name, found[0])

    sign = re.escape(escape)
    return re.sub(f"{sign}([^{sign}]*){sign}", resolved, text)
