"""HL7 v2 acknowledgements: building ours, reading a peer's (HL7 v2.8.2, 2.9; tables 0008, 0155, 0357).

A message whose MSH-15 and MSH-16 are empty is in original mode and gets one answer: AA, AE or AR. With either valued
it is in enhanced mode: a commit acknowledgement (CA, CE, CR) as MSH-15 asks, an application acknowledgement as MSH-16
asks. The gateway takes custody of what it stores, so both are its own to give: after the commit it sends CA and, where
both are asked for, AA right behind it. A refusal is told once: at commit level where MSH-15 asks, else by MSH-16.
An acknowledgement is never acknowledged.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache

from gateway.errors import ContentError
from gateway.formats.hl7 import Header, Hl7Path, Hl7Text, Separators, parse_path, read_header, version_of

ERRORS_MAX = 20  # of one answer: what is kept of them


class AckCode(Enum):
    """Table 0008: application (A) and commit (C), accept, error, reject."""

    AA = "AA"
    AE = "AE"
    AR = "AR"
    CA = "CA"
    CE = "CE"
    CR = "CR"

    @property
    def accepted(self) -> bool:
        """Return whether the peer took the message."""
        return self in (AckCode.AA, AckCode.CA)


class Outcome(Enum):
    """What became of a message that came; the value is the second letter of its code."""

    ACCEPTED = "A"
    ERROR = "E"  # the same message may succeed later
    REJECTED = "R"  # this message never will


class ErrorCode(Enum):
    """Table 0357: number and text."""

    ACCEPTED = (0, "Message accepted")
    SEGMENT_SEQUENCE = (100, "Segment sequence error")
    REQUIRED_FIELD_MISSING = (101, "Required field missing")
    DATA_TYPE = (102, "Data type error")
    TABLE_VALUE_NOT_FOUND = (103, "Table value not found")
    VALUE_TOO_LONG = (104, "Value too long")
    UNSUPPORTED_MESSAGE_TYPE = (200, "Unsupported message type")
    UNSUPPORTED_EVENT = (201, "Unsupported event code")
    UNSUPPORTED_PROCESSING_ID = (202, "Unsupported processing id")
    UNSUPPORTED_VERSION = (203, "Unsupported version id")
    UNKNOWN_KEY = (204, "Unknown key identifier")
    DUPLICATE_KEY = (205, "Duplicate key identifier")
    RECORD_LOCKED = (206, "Application record locked")
    INTERNAL = (207, "Application internal error")

    @property
    def number(self) -> int:
        """Return the code as it stands on the wire."""
        return self.value[0]

    @property
    def text(self) -> str:
        """Return the table's own words."""
        return self.value[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a message is refused: our words without patient data, the code, and (segment, sequence, field) if known."""

    text: str
    code: ErrorCode
    location: tuple[str, int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AckError:
    """One ERR segment: the code of table 0357 or whatever stands there, where, and the peer's words."""

    code: str | None
    location: str | None
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """A peer's answer. `control_id` is MSA-2 byte for byte: it answers the message whose MSH-10 equals it."""

    code: AckCode
    control_id: bytes
    text: str | None = None
    errors: tuple[AckError, ...] = ()


_UNREAD = read_header(b"MSH|^~\\&|||||||||P|2.5.1")
_ALWAYS, _NEVER, _ON_ERROR, _ON_SUCCESS = b"AL", b"NE", b"ER", b"SU"  # table 0155
_PUNCTUATION = str.maketrans("", "", "-:T")  # of ISO 8601, that HL7 leaves out
_RESPONSES = (b"ACK", b"MCF")
_ERR_SINCE = (2, 5)  # from here on ERR-2, ERR-3, ERR-4; before, ERR-1
_STRUCTURE_SINCE = (2, 4)  # from here on MSH-9 has three components


def is_acknowledgement(raw: bytes, header: Header) -> bool:
    """Return whether the message is itself an answer: of type ACK or MCF, or in original mode with MSA after MSH."""
    if header.message_type in _RESPONSES:
        return True
    if header.enhanced:
        return False
    at = raw.find(header.terminator)
    return at >= 0 and raw.startswith(b"MSA" + header.separator, at + len(header.terminator))


def answer_codes(header: Header | None, outcome: Outcome) -> tuple[AckCode, ...]:
    """Return which answers a message wants to an outcome, in the order they are sent; there may be none.

    A valued MSH-15 or MSH-16 that is not in table 0155 is taken as AL; an empty one beside a valued one as NE.
    """
    if header is None:
        return _codes(b"", b"", outcome)
    return _codes(header.field(15).strip()[:3], header.field(16).strip()[:3], outcome)


def encode_acknowledgement(
    header: Header | None, code: AckCode, *, control_id: str, now: datetime, fault: Fault | None = None
) -> bytes:
    """Return the answer to a message, as HL7 with its own separators, version and character set.

    `header` is None where the message's own could not be read: MSA-2 is then empty. `control_id` is ours (MSH-10),
    `now` is aware UTC. The error is told in MSA-3 too, because many peers read nothing else.
    """
    to = header or _UNREAD
    msh = _msh(to, control_id, now)
    msa = [b"MSA", code.value.encode(), to.control_id]
    segments = [msh, msa]
    if fault is not None:
        msa.append(_text(fault.text, to))
        segments.append(_err(to, fault))
    return b"".join(to.separator.join(fields).rstrip(to.separator) + b"\r" for fields in segments)


def read_acknowledgement(raw: bytes) -> Acknowledgement:
    """Read an answer.

    Raises ContentError when the bytes are not HL7, have no MSA, or carry a code that is not in table 0008.
    """
    header = read_header(raw)
    msa = _msa(raw, header)
    if len(msa) < 2 or not msa[1].strip():
        raise ContentError("answer without MSA-1")
    try:
        code = AckCode(msa[1].strip().upper().decode("ascii", "replace"))
    except ValueError:
        raise ContentError("answer with an unknown code in MSA-1") from None
    control_id = msa[2] if len(msa) > 2 else b""
    if len(msa) < 4 and not _has_errors(raw, header):  # the usual answer: nothing else to read
        return Acknowledgement(code=code, control_id=control_id, text=None, errors=())
    text = Hl7Text(raw)
    words = text.read(parse_path("MSA[1]-3"))
    return Acknowledgement(code=code, control_id=control_id, text=words[0] if words else None, errors=_errors(text))


@lru_cache(maxsize=256)
def _codes(commit: bytes, application: bytes, outcome: Outcome) -> tuple[AckCode, ...]:
    letter = outcome.value
    if not commit and not application:  # original mode
        return (AckCode(f"A{letter}"),)
    commits = _asked(commit, outcome)
    applies = _asked(application, outcome) and (outcome is Outcome.ACCEPTED or not commits)
    return tuple(AckCode(level + letter) for level, asked in (("C", commits), ("A", applies)) if asked)


def _asked(condition: bytes, outcome: Outcome) -> bool:
    condition = condition.upper()
    if condition == _ON_ERROR:
        return outcome is not Outcome.ACCEPTED
    if condition == _ON_SUCCESS:
        return outcome is Outcome.ACCEPTED
    return condition not in (b"", _NEVER)


def _msh(to: Header, control_id: str, now: datetime) -> list[bytes]:
    stamp = now.isoformat(timespec="milliseconds").translate(_PUNCTUATION).encode("ascii")
    parts = to.parts
    condition = _NEVER if to.enhanced else b""
    kind = _message_type(parts[8], parts[11], to.separators)
    return [
        b"MSH",
        parts[1],
        *parts[4:6],
        *parts[2:4],
        stamp,
        b"",
        kind,
        control_id.encode("ascii"),
        *parts[10:12],
        b"",
        b"",
        condition,
        condition,
        b"",
        parts[17],
    ]


@lru_cache(maxsize=128)
def _message_type(message_type: bytes, version: bytes, separators: Separators) -> bytes:
    """Return MSH-9 of the answer to a message with this MSH-9 and MSH-12."""
    components = message_type.split(separators.repetition, 1)[0].split(separators.component)
    if len(components) < 2 or not components[1]:
        return b"ACK"
    numbers = version_of(version.split(separators.component, 1)[0])
    structure = [b"ACK"] if numbers is not None and numbers >= _STRUCTURE_SINCE else []
    return separators.component.join([b"ACK", components[1], *structure])


def _err(to: Header, fault: Fault) -> list[bytes]:
    """Return the ERR segment in the shape of the message's version."""
    component, sub = to.separators.component, to.separators.subcomponent
    location = [str(part).encode("ascii") for part in fault.location or ()]
    code = [str(fault.code.number).encode(), _text(fault.code.text, to), b"HL70357"]
    version = to.version
    if version is None or version < _ERR_SINCE:
        where = location or [b"", b"", b""]
        return [b"ERR", component.join([*where, sub.join(code)])]
    words = _text(fault.text, to)
    return [b"ERR", b"", component.join(location), component.join(code), b"E", b"", b"", b"", words]


def _text(text: str, to: Header) -> bytes:
    """Return our own words, escaped for the message's separators."""
    names = {
        to.separators.subcomponent: b"T",
        to.separators.repetition: b"R",
        to.separators.component: b"S",
        to.separator: b"F",
        to.separators.escape: b"E",
    }
    letters = [letter.encode("ascii", "replace") for letter in text]
    return b"".join(
        to.separators.escape + names[letter] + to.separators.escape if letter in names else letter for letter in letters
    )


def _msa(raw: bytes, header: Header) -> list[bytes]:
    """Return the fields of the first MSA segment, its name first; empty where there is none."""
    mark = b"MSA" + header.separator
    for segment in raw.split(header.terminator):
        if segment.startswith(mark):
            return segment.split(header.separator)
    return []


def _has_errors(raw: bytes, header: Header) -> bool:
    return header.terminator + b"ERR" in raw


def _errors(text: Hl7Text) -> tuple[AckError, ...]:
    count = min(text.count("ERR"), ERRORS_MAX)
    return tuple(_error(text, occurrence) for occurrence in range(1, count + 1))


def _error(text: Hl7Text, occurrence: int) -> AckError:
    """Read one ERR segment, in the shape of 2.5 (ERR-2, ERR-3, ERR-8) or the one before (ERR-1)."""

    def first(field: int, component: int | None = None, subcomponent: int | None = None) -> str | None:
        path = Hl7Path("ERR", field, occurrence, 1, component, subcomponent)
        return next(iter(text.read(path)), None)

    code = first(3, 1)
    if code is not None:
        return AckError(code=code, location=first(2), text=first(8) or first(7) or first(3, 2))
    where = [part for part in (first(1, 1), first(1, 2), first(1, 3)) if part is not None]
    if first(1, 4) is None and len(where) == 1 and where[0].isdigit():  # nothing but a code
        return AckError(code=where[0], location=None, text=None)
    return AckError(code=first(1, 4, 1), location="^".join(where) or None, text=first(1, 4, 2))
