"""From a field of HL7 to the values of a DICOM attribute: names, times, codes, numbers (the kinds of order_map.csv).

A field that is empty says nothing (None); HL7's null `""` empties the attribute. Identifiers that are too long are
refused, descriptions are cut to what their VR holds (PS3.5, 6.2). No text that came keeps what DICOM would read as a
delimiter.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

from gateway.dataset import Element
from gateway.errors import ContentError
from gateway.formats.identifiers import tag_of
from gateway.formats.order_text import DELETED, Group
from gateway.orders import OrderRules

LENGTH_MAX = {"SH": 16, "LO": 64, "CS": 16, "AE": 16, "UI": 64, "ST": 1024, "LT": 10240, "PN": 194}

_SEXES = {"M": "M", "F": "F", "O": "O", "A": "O", "N": "O"}
_PRIORITIES = {"S": "STAT", "A": "HIGH", "P": "HIGH", "C": "HIGH", "R": "ROUTINE", "T": "MEDIUM"}
_TIMESTAMP = re.compile(r"(\d{8})(\d{2,6})?(?:\.(\d{1,6}))?\d*([+-]\d{4})?")
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
_TITLE = re.compile(r"(?=.*[^ ])[ -\[\]-~]{1,16}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_SIZES = {"8302-2": "height", "3137-7": "height", "29463-7": "weight", "3141-9": "weight"}
_SCALES = {"cm": 0.01, "mm": 0.001, "m": 1.0, "in": 0.0254, "[in_i]": 0.0254, "kg": 1.0, "g": 0.001, "lb": 0.45359237}


@dataclass(frozen=True, slots=True)
class Asked:
    """One row of the map: the attribute's VR and the fields to look in, in order."""

    vr: str
    fields: tuple[str, ...]


Reader = Callable[[Group, Asked, OrderRules], Element | None]


def read_text(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the first value, cut to the length of the VR."""
    found = _first(group, asked.fields)
    if found is None or found == DELETED:
        return _said(found, asked.vr)
    return Element(asked.vr, (clean(found, asked.vr),))


def read_id(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the first identifier. Raises ContentError where it is longer than its VR: cut, it would be another one."""
    for path in asked.fields:
        found = group.value(path)
        if found and found != DELETED:
            if len(found) > LENGTH_MAX[asked.vr] or "\\" in found:
                raise ContentError(f"{path} has {len(found)} characters, {LENGTH_MAX[asked.vr]} without backslash fit")
            return Element(asked.vr, (found,))
    return None


def read_uid(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return a UID. Raises ContentError where it is none."""
    found = _first(group, asked.fields)
    if found is None or found == DELETED:
        return None
    if len(found) > LENGTH_MAX["UI"] or not _UID.fullmatch(found):
        raise ContentError(f"{asked.fields[0]} holds no UID")
    return Element("UI", (found,))


def read_name(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return a patient's name (XPN): its repetitions by XPN-8 are the groups of a PN."""
    raws = [raw for raw in group.raw(asked.fields[0]) if raw.strip()]
    if not raws or raws[0] == DELETED:
        return _said(DELETED if raws else None, "PN")
    groups = {"A": "", "I": "", "P": ""}
    for raw in sorted(raws, key=lambda raw: group.text.component(raw, 7) not in ("L", "")):
        parts = [*group.text.components(raw), *[""] * 8]
        kind = parts[7] if parts[7] in groups else "A"
        groups[kind] = groups[kind] or _name(parts[0], parts[1], parts[2], parts[4], parts[3], parts[5])
    return Element("PN", ("=".join(groups.values()).rstrip("="),))


def read_person(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the name of a person (XCN: id first)."""
    for path in asked.fields:
        for raw in group.raw(path)[:1]:
            parts = [*group.text.components(raw), *[""] * 8]
            name = _name(parts[1], parts[2], parts[3], parts[5], parts[4], parts[6])
            if name:
                return Element("PN", (name,))
    return None


def read_performer(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return a name that stands in the subcomponents of the first component (NDL), or as in XCN."""
    for path in asked.fields:
        for raw in group.raw(path)[:1]:
            parts = [*group.text.subcomponents(group.text.component(raw, 1)), *[""] * 8]
            name = _name(parts[1], parts[2], parts[3], parts[5], parts[4], parts[6])
            if name:
                return Element("PN", (name,))
    return read_person(group, asked, rules)


def read_date(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the day of the first timestamp."""
    found = _timestamp(group, asked, rules)
    return None if found is None else Element("DA", (found[0],) if found[0] else ())


def read_time(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the time of the first timestamp; midnight where it names only a day."""
    found = _timestamp(group, asked, rules)
    return None if found is None else Element("TM", (found[1],) if found[0] else ())


def offset_of(group: Group, asked: Asked, rules: OrderRules) -> str:
    """Return the offset from UTC (`+0100`) of the first timestamp, "" where it names none."""
    found = _timestamp(group, asked, rules)
    return "" if found is None else found[2]


def read_sex(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return M, F or O; empty for what is unknown."""
    found = _first(group, asked.fields)
    if found is None:
        return None
    sex = _SEXES.get(found.upper(), "")
    return Element("CS", (sex,) if sex else ())


def read_priority(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the DICOM word for a priority of HL7 table 0027; longer words by their first letter."""
    found = _first(group, asked.fields)
    word = None if found is None else _PRIORITIES.get(found[:1].upper())
    return None if word is None else Element("SH", (word,))


def read_modality(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the modality, translated where the sender uses words of his own. Raises ContentError for no code."""
    found = _first(group, asked.fields)
    if found is None or found == DELETED:
        return None
    word = rules.modalities.get(found, found.upper())
    if not _CODE_STRING.fullmatch(word):
        raise ContentError(f"{asked.fields[0]} holds no modality")
    return Element("CS", (word,))


def read_stations(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the AE titles of the first field that has any. Raises ContentError for what is no AE title."""
    for path in asked.fields:
        titles = [group.text.plain(group.text.component(raw, 1)) for raw in group.raw(path)]
        titles = [title for title in titles if title and title != DELETED]
        if any(not _TITLE.fullmatch(title) for title in titles):
            raise ContentError(f"{path} holds no AE title")
        if titles:
            return Element("AE", tuple(titles))
    return None


def read_code(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return a code as a sequence of one item; without a coding scheme it is no code, only a text."""
    for path in asked.fields:
        for raw in group.raw(path)[:1]:
            parts = [*group.text.components(raw), *[""] * 6]
            code = _code(parts[0], parts[1], parts[2]) or _code(parts[3], parts[4], parts[5])
            if code is not None:
                return code
    return None


def read_protocol(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the protocol's code: of IPC-6, else the alternate code of OBR-4, else the first code there is."""
    for raw in group.raw("IPC-6")[:1] or group.raw("OBR-4")[:1]:
        parts = [*group.text.components(raw), *[""] * 6]
        alternate = _code(parts[3], parts[4], parts[5])
        if alternate is not None and not group.raw("IPC-6"):
            return alternate
    return read_code(group, asked, rules)


def read_issuer(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the assigning authority of an EI."""
    for path in asked.fields:
        for raw in group.raw(path)[:1]:
            parts = [*group.text.components(raw), *[""] * 4]
            if parts[1]:
                item = {tag_of("LocalNamespaceEntityID"): Element("UT", (clean(parts[1], "UT"),))}
                return Element("SQ", items=(item,))
            if parts[2] and parts[3]:
                item = {
                    tag_of("UniversalEntityID"): Element("UT", (clean(parts[2], "UT"),)),
                    tag_of("UniversalEntityIDType"): Element("CS", (parts[3],)),
                }
                return Element("SQ", items=(item,))
    return None


def read_patient_id(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the patient's id: of the authority configured, else the first. Raises ContentError for one too long."""
    for identifier, _, _ in patient_ids(group, asked.fields, rules)[:1]:
        if len(identifier) > LENGTH_MAX["LO"]:
            raise ContentError(f"{asked.fields[0]} is longer than {LENGTH_MAX['LO']} characters")
        return Element("LO", (clean(identifier, "LO"),))
    return None


def read_patient_issuer(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the assigning authority of the patient's id."""
    for _, issuer, _ in patient_ids(group, asked.fields, rules)[:1]:
        return Element("LO", (clean(issuer, "LO"),)) if issuer else None
    return None


def read_other_ids(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the patient's further ids."""
    others = patient_ids(group, asked.fields, rules)[1:]
    return (
        Element("SQ", items=tuple(other_id(identifier, issuer) for identifier, issuer, _ in others)) if others else None
    )


def other_id(identifier: str, issuer: str) -> dict[int, Element]:
    """Return an item of Other Patient IDs Sequence (0010,1002)."""
    item = {
        tag_of("PatientID"): Element("LO", (clean(identifier, "LO"),)),
        tag_of("TypeOfPatientID"): Element("CS", ("TEXT",)),
    }
    if issuer:
        item[tag_of("IssuerOfPatientID")] = Element("LO", (clean(issuer, "LO"),))
    return item


def read_location(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return a PL as text: point of care, room, bed."""
    for raw in group.raw(asked.fields[0])[:1]:
        parts = [part for part in group.text.components(raw)[:3] if part and part != DELETED]
        if parts:
            return Element(asked.vr, (clean(" ".join(parts), asked.vr),))
    return None


def read_patient_notes(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the notes after PID."""
    return _noted(group, asked, ("PID",))


def read_order_notes(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the notes after the order."""
    return _noted(group, asked, ("OBR", "ORC", "AIS"))


def read_height(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the patient's size in metres, of the OBX that says so."""
    return _measured(group, "height", "body height")


def read_weight(group: Group, asked: Asked, rules: OrderRules) -> Element | None:
    """Return the patient's weight in kilograms, of the OBX that says so."""
    return _measured(group, "weight", "body weight")


def patient_ids(group: Group, fields: Sequence[str], rules: OrderRules) -> list[tuple[str, str, str]]:
    """Return id, issuer and type of every repetition of a CX, the one of the configured authority first."""
    found: list[tuple[str, str, str]] = []
    for path in fields:
        for raw in group.raw(path):
            parts = [*group.text.components(raw), *[""] * 5]
            if parts[0] and parts[0] != DELETED:
                universal = group.text.plain(group.text.subcomponent(group.text.component(raw, 4), 2))
                found.append((parts[0], parts[3] or universal, parts[4]))
        if found:
            break
    if rules.authority:
        found.sort(key=lambda each: each[1] != rules.authority)
    return found


def clean(text: str, vr: str) -> str:
    """Return text as its VR takes it: no control characters, no backslash, no more letters than fit."""
    text = _CONTROL.sub(" ", text)
    if vr not in ("LT", "ST", "UT"):
        text = " ".join(text.replace("\\", "/").split())
    return text[: LENGTH_MAX.get(vr, len(text))].strip()


def _first(group: Group, paths: Sequence[str]) -> str | None:
    return next((found for path in paths if (found := group.value(path))), None)


def _said(found: str | None, vr: str) -> Element | None:
    return Element(vr) if found == DELETED else None


def _name(family: str, given: str, middle: str, prefix: str, suffix: str, degree: str) -> str:
    """Return a PN of the parts of an XPN or XCN: the orders of prefix and suffix differ."""
    suffix = " ".join(part for part in (suffix, degree) if part and part != DELETED)
    parts = [re.sub(r"[\^=\\\x00-\x1f]", " ", part).strip() for part in (family, given, middle, prefix, suffix)]
    return "^".join("" if part == DELETED else part for part in parts).rstrip("^")


def _timestamp(group: Group, asked: Asked, rules: OrderRules) -> tuple[str, str, str] | None:
    """Return day, time and offset of the first field that holds a timestamp; day "" where it is deleted."""
    for path in asked.fields:
        found = group.value(path)
        if found == DELETED:
            return "", "", ""
        stamp = _TIMESTAMP.fullmatch(found) if found else None
        if stamp is not None:
            read = _wall(stamp[1], stamp[2] or "", stamp[4] or "", rules.timezone)
            if read is not None:
                return read
    return None


@lru_cache(maxsize=256)
def _wall(day: str, time: str, offset: str, zone: str | None) -> tuple[str, str, str] | None:
    """Return the hospital's date, time and offset; None where the digits are no time."""
    time = time if len(time) % 2 == 0 else time[:-1]
    try:
        at = datetime.strptime(day + (time or "00").ljust(6, "0"), "%Y%m%d%H%M%S")
    except ValueError:
        return None
    if offset and zone and time:
        minutes = (int(offset[1:3]) * 60 + int(offset[3:])) * (-1 if offset[0] == "-" else 1)
        if abs(minutes) < 24 * 60:
            at = at.replace(tzinfo=timezone(timedelta(minutes=minutes))).astimezone(ZoneInfo(zone))
            offset = f"{at:%z}"
    return f"{at:%Y%m%d}", f"{at:%H%M%S}", offset


def _code(value: str, meaning: str, scheme: str) -> Element | None:
    if not value or not scheme or value == DELETED:
        return None
    long = len(value) > LENGTH_MAX["SH"]
    item = {
        tag_of("LongCodeValue" if long else "CodeValue"): Element("UC" if long else "SH", (clean(value, "UC"),)),
        tag_of("CodingSchemeDesignator"): Element("SH", (clean(scheme, "SH"),)),
        tag_of("CodeMeaning"): Element("LO", (clean(meaning or value, "LO"),)),
    }
    return Element("SQ", items=(item,))


def _noted(group: Group, asked: Asked, after: Sequence[str]) -> Element | None:
    lines = [line for name in after for line in group.notes.get(name, []) if line and line != DELETED]
    return Element(asked.vr, (clean("\n".join(lines), asked.vr),)) if lines else None


def _measured(group: Group, what: str, words: str) -> Element | None:
    for fields in group.segments("OBX"):
        parts = [*fields, *[""] * 7]
        code, name = group.text.component(parts[3], 1), group.text.component(parts[3], 2)
        if _SIZES.get(code) != what and name.lower() != words and code.lower() != words:
            continue
        try:
            size = float(parts[5]) * _SCALES.get(group.text.component(parts[6], 1), 1.0)
        except ValueError:
            continue
        return Element("DS", (f"{size:.6g}"[:16],)) if 0 < size < 1000 else None
    return None


READERS: dict[str, Reader] = {
    "text": read_text,
    "id": read_id,
    "uid": read_uid,
    "name": read_name,
    "person": read_person,
    "performer": read_performer,
    "date": read_date,
    "time": read_time,
    "sex": read_sex,
    "priority": read_priority,
    "modality": read_modality,
    "stations": read_stations,
    "code": read_code,
    "protocol": read_protocol,
    "issuer": read_issuer,
    "patient-id": read_patient_id,
    "patient-issuer": read_patient_issuer,
    "other-ids": read_other_ids,
    "location": read_location,
    "patient-notes": read_patient_notes,
    "order-notes": read_order_notes,
    "height": read_height,
    "weight": read_weight,
}
