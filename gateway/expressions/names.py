"""What the names in a `when` expression stand for, checked when it is compiled.

source, kind, peer           of every Message
MSH-9.1, PID-3(2).1          HL7 messages
Modality, SeriesDescription  DICOM Instances and procedure steps: any keyword (PS3.6) that holds text or numbers
bed, patient_id, device.…    Observations: whose they are
spo2, spo2.unit              Observations: the value by its key in the terminology table, and what is said of it
"""

from collections.abc import Collection

from gateway.expressions.tree import ExpressionError, Fact, Header, Hl7Value, Measured, Path
from gateway.formats.hl7_path import PathError, parse_path
from gateway.formats.terms import all_terms
from gateway.model import Kind
from gateway.typed import did_you_mean

ALWAYS = ("source", "kind", "peer")
BESIDE = ("bed", "patient_id")
DEVICE = ("manufacturer", "model", "serial", "software", "eui64")
ATTRIBUTES = (
    "value", "unit", "flags", "absent", "method", "episodic", "code", "refid", "loinc", "sub", "low", "high"
)  # fmt: skip
KINDS = tuple(kind.value for kind in Kind if kind is not Kind.UNREADABLE)

_ONE_TEXT = {"LT", "ST", "UR", "UT"}  # PS3.5, 6.2: a backslash is an ordinary character in these
_NO_TEXT = {"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "NONE", "AT"}
_WORDS = {Kind.HL7: "an HL7 path", Kind.DICOM: "a DICOM keyword", Kind.OBSERVATIONS: "a name of Observations"}


def hl7_value(text: str, position: int, kinds: Collection[Kind]) -> Hl7Value:
    """Return what an HL7 path stands for; raises ExpressionError."""
    try:
        path = parse_path(text)
    except PathError as error:
        reason = str(error).rpartition(" at position ")[0]
        raise ExpressionError(position + error.position, f"{text!r} is no HL7 path: {reason}") from None
    _require(Kind.HL7, text, position, kinds)
    return Hl7Value(path)


def named_value(parts: tuple[str, ...], position: int, kinds: Collection[Kind]) -> Path:
    """Return what a dotted name stands for; raises ExpressionError, with the nearest known name as its hint."""
    name, *rest = parts
    text = ".".join(parts)
    if name in ALWAYS or name in BESIDE:
        if rest:
            raise ExpressionError(position, f"{name!r} has no part {rest[0]!r}")
        if name in BESIDE:
            _require(Kind.OBSERVATIONS, text, position, kinds)
        return Fact(name)
    if name == "device":
        _require(Kind.OBSERVATIONS, text, position, kinds)
        return _device(rest, position)
    if name[:1].isupper():
        return _header(name, rest, position, kinds)
    _require(Kind.OBSERVATIONS, text, position, kinds, _keyword_like(name) if Kind.DICOM in kinds else "")
    return _measured(name, rest, position)


def _device(rest: list[str], position: int) -> Fact:
    if len(rest) != 1 or rest[0] not in DEVICE:
        near = did_you_mean(rest[0], DEVICE) if rest else ""
        raise ExpressionError(position, f"'device' has the parts {', '.join(DEVICE)}{near}")
    return Fact(f"device.{rest[0]}")


def _measured(key: str, rest: list[str], position: int) -> Measured:
    known = [term.key for term in all_terms()]
    if key not in known and not key.startswith("x_"):
        hint = "an HL7 path is written PID-3.1, its segment in upper case" if len(key) == 3 else ""
        raise ExpressionError(position, f"unknown name {key!r}{did_you_mean(key, [*known, *ALWAYS, *BESIDE])}", hint)
    if not rest:
        return Measured(key, "value")
    if len(rest) > 1 or rest[0] not in ATTRIBUTES:
        near = did_you_mean(rest[0], ATTRIBUTES)
        raise ExpressionError(position, f"an Observation has no part {'.'.join(rest)!r}{near}", ", ".join(ATTRIBUTES))
    return Measured(key, rest[0])


def _header(keyword: str, rest: list[str], position: int, kinds: Collection[Kind]) -> Header:
    if rest:
        hint = f"an HL7 path is written {keyword}-{rest[0]}" if rest[0][0].isdigit() else ""
        raise ExpressionError(position, f"{keyword!r} has no part {rest[0]!r}", hint)
    representation = _representation(keyword)
    if representation is None:
        raise ExpressionError(position, f"unknown name {keyword!r}{_nearest(keyword)}")
    _require(Kind.DICOM, keyword, position, kinds if Kind.MPPS not in kinds else {*kinds, Kind.DICOM})
    parts = set(representation.split(" or "))
    if parts & _NO_TEXT:
        raise ExpressionError(position, f"{keyword!r} ({representation}) holds neither text nor numbers")
    return Header(keyword, several=not parts & _ONE_TEXT)


def _require(kind: Kind, text: str, position: int, kinds: Collection[Kind], hint: str = "") -> None:
    if kinds and kind not in kinds:
        come = ", ".join(sorted(each.value for each in kinds))
        raise ExpressionError(position, f"{text!r} is {_WORDS[kind]}, but only {come} comes by this route", hint)


def _representation(keyword: str) -> str | None:
    """Return the value representation of a keyword (PS3.6), None when there is no such keyword."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword  # 0.1 s and 20 MiB: only where a route asks for it

    tag = tag_for_keyword(keyword)
    return None if tag is None else dictionary_VR(tag)


def _nearest(keyword: str) -> str:
    from pydicom.datadict import keyword_dict

    if len(keyword) == 3 and keyword.isupper():
        return f" (an HL7 path is written {keyword}-1.1)"
    terms = [term.key for term in all_terms()]
    return _keyword_cased(keyword) or did_you_mean(keyword, keyword_dict) or did_you_mean(keyword.lower(), terms)


def _keyword_like(name: str) -> str:
    return _keyword_cased(name).strip(" ()")


def _keyword_cased(name: str) -> str:
    """Return a hint where only upper and lower case differ from a keyword."""
    from pydicom.datadict import keyword_dict

    folded = name.casefold()
    return next((f" (did you mean {word!r}?)" for word in keyword_dict if word.casefold() == folded), "")
