"""A procedure step as an HL7 v2.5.1 order status: ORM^O01 or OMI^O23 (HL7 chapter 4; IHE RAD TF-2 4.3, not re-read).

    ORM  MSH PID { ORC OBR } ZDS          OMI  MSH PID { ORC OBR IPC }

ORC-1 is SC, "status changed"; ORC-5 says how the step stands: IP in progress, CM completed, DC discontinued; SC, still
scheduled, where the Modality gave it up because it had picked the wrong entry of its worklist (reason 110514). One
message tells of one N-CREATE or N-SET; it has a group for each scheduled step that the performed one answers to,
because a Modality may do several orders at once. Patient and order numbers are the order's as the worklist had it when
the step came, else the Modality's own; a step that was not scheduled has a group without order numbers. Rendering is a
function of the Parcel, so a repeat is the same bytes.

The Modality's times (OBR-7, OBR-8) carry no zone, because it names none; ORC-9 and OBR-22 are ours, in UTC.
"""

import json
from typing import Literal

from gateway.dataset import EMPTY, Attributes, Element, item_at, text_at
from gateway.errors import ContentError
from gateway.formats.identifiers import from_json
from gateway.formats.mpps import (
    ACCESSION_NUMBER,
    DISCONTINUATION_REASON,
    REQUESTED_PROCEDURE_ID,
    STEP_ID,
    STUDY_UID,
    is_wrong_entry,
    state_of,
)
from gateway.formats.origin import Origin
from gateway.formats.pcd_fields import entity, escape, instant
from gateway.model import Kind, Parcel
from gateway.orders import StepState

OrderStatus = Literal["orm-o01", "omi-o23"]

ORDER_STATUS = {StepState.IN_PROGRESS: "IP", StepState.COMPLETED: "CM", StepState.DISCONTINUED: "DC"}  # table 0038
STILL_SCHEDULED = "SC"

_TYPES = {"orm-o01": "ORM^O01^ORM_O01", "omi-o23": "OMI^O23^OMI_O23"}
_SCHEDULED = 0x00400100
_PLACER, _FILLER = (0x00402016, 0x00400026), (0x00402017, 0x00400027)  # the number, and who gave it
_ACCESSION_ISSUER = 0x00080051
_DESCRIPTIONS = (0x00321060, 0x00400007)
_CODES = (0x00321064, 0x00400008)
_STARTED, _ENDED = (0x00400244, 0x00400245), (0x00400250, 0x00400251)
_MODALITY = 0x00080060


def render_order_status(parcel: Parcel, origin: Origin, form: OrderStatus) -> bytes:
    """Return a procedure step's message, UTF-8, segments ended by CR.

    MSH-10 is the Delivery's control id. Raises ContentError when the Message is no procedure step.
    """
    message = parcel.message
    if message.kind is not Kind.MPPS:
        raise ContentError(f"message {message.id}: no procedure step")
    try:
        step = from_json(message.headers["step"])
        orders = [from_json(json.dumps(each)) for each in json.loads(message.headers["orders"])] or [{}]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ContentError(f"message {message.id}: a procedure step without its facts") from error
    state = state_of(step)
    if state is None:
        raise ContentError(f"message {message.id}: a procedure step without status")
    at = instant(message.received_at)
    segments = [
        _msh(origin, form, parcel.delivery.control_id, at),
        _pid({**step, **orders[0]}),
    ]
    status = STILL_SCHEDULED if is_wrong_entry(step) else ORDER_STATUS[state]
    for number, order in enumerate(orders, start=1):
        placer, filler = _number(order, *_PLACER), _number(order, *_FILLER)
        segments.append(_orc(placer, filler, status, _discontinued(step), at))
        segments.append(_obr(number, placer, filler, order, step, at, form))
        if form == "omi-o23":
            segments.append(_ipc(order, step))
    if form == "orm-o01":
        segments.append(f"ZDS|{escape(text_at(orders[0], STUDY_UID))}^{escape(origin.gateway)}^Application^DICOM")
    return "".join(f"{segment}\r" for segment in segments).encode("utf-8", "replace")


def with_numbers(order: Attributes, placer: str, filler: str) -> Attributes:
    """Return an order with its numbers and who gave them, from EI values (`P55210^OP`); "" leaves what stands."""
    found = dict(order)
    for value, (tag, issuer) in ((placer, _PLACER), (filler, _FILLER)):
        number, *names = value.split("^")
        if number:
            found[tag] = Element("LO", (number,))
            tags = zip((0x00400031, 0x00400032, 0x00400033), names, strict=False)
            item = {part: Element("UT" if part != 0x00400033 else "CS", (name,)) for part, name in tags if name}
            found[issuer] = Element("SQ", items=(item,) if item else ())
    return found


def _msh(origin: Origin, form: OrderStatus, control_id: str, at: str) -> str:
    head = ("MSH", "^~\\&", entity(origin), escape(origin.facility), "", "", at, "", _TYPES[form], escape(control_id))
    return _segment(*head, "P", "2.5.1", "", "", "", "", "", "UNICODE UTF-8")


def _pid(patient: Attributes) -> str:
    issuer = escape(text_at(patient, 0x00100021))
    number = escape(text_at(patient, 0x00100020))
    identifier = f"{number}^^^{issuer}".rstrip("^")
    name = _name(text_at(patient, 0x00100010))
    return _segment(
        "PID", "1", "", identifier, "", name, "", text_at(patient, 0x00100030), _sex(text_at(patient, 0x00100040))
    )


def _orc(placer: str, filler: str, status: str, reason: str, at: str) -> str:
    return _segment("ORC", "SC", placer, filler, "", status, "", "", "", at, *[""] * 6, reason)


def _obr(number: int, placer: str, filler: str, order: Attributes, step: Attributes, at: str, form: OrderStatus) -> str:
    ids = ["", "", ""]
    if form == "orm-o01":  # in an OMI these stand in IPC
        texts = (text_at(order, ACCESSION_NUMBER), text_at(order, REQUESTED_PROCEDURE_ID), _step_id(order))
        ids = [escape(text) for text in texts]
    times = (_moment(step, _STARTED), _moment(step, _ENDED))  # OBR-7, OBR-8
    head = ("OBR", str(number), placer, filler, _service(order), "", "", *times)
    modality = escape(_modality(order, step)) if form == "orm-o01" else ""
    return _segment(*head, *[""] * 9, *ids, "", at, "", modality)  # OBR-18 to OBR-20, OBR-22, OBR-24


def _ipc(order: Attributes, step: Attributes) -> str:
    accession = _numbered(text_at(order, ACCESSION_NUMBER), item_at(order, _ACCESSION_ISSUER))
    texts = (text_at(order, REQUESTED_PROCEDURE_ID), text_at(order, STUDY_UID), _step_id(order), _modality(order, step))
    return _segment("IPC", accession, *map(escape, texts))


def _number(order: Attributes, tag: int, issuer: int) -> str:
    return _numbered(text_at(order, tag), item_at(order, issuer))


def _numbered(number: str, issuer: Attributes) -> str:
    """Return an EI: number, namespace, universal id and its type."""
    parts = (number, *(text_at(issuer, tag) for tag in (0x00400031, 0x00400032, 0x00400033)))
    return "^".join(map(escape, parts)).rstrip("^") if number else ""


def _service(order: Attributes) -> str:
    """Return OBR-4: the requested procedure's code, or its words."""
    for tag in _CODES:
        if code := item_at(order, tag):
            parts = (text_at(code, 0x00080100), text_at(code, 0x00080104), text_at(code, 0x00080102))
            return "^".join(map(escape, parts)).rstrip("^")
    words = next((text for tag in _DESCRIPTIONS if (text := text_at(order, tag))), "")
    return f"^{escape(words)}" if words else ""


def _discontinued(step: Attributes) -> str:
    """Return ORC-16: why a step was given up."""
    code = item_at(step, DISCONTINUATION_REASON)
    if code == EMPTY:
        return ""
    parts = (text_at(code, 0x00080100), text_at(code, 0x00080104), text_at(code, 0x00080102))
    return "^".join(map(escape, parts)).rstrip("^")


def _step_id(order: Attributes) -> str:
    return text_at(order, STEP_ID) or text_at(order, _SCHEDULED, STEP_ID)


def _modality(order: Attributes, step: Attributes) -> str:
    return text_at(step, _MODALITY) or text_at(order, _SCHEDULED, _MODALITY)


def _moment(step: Attributes, tags: tuple[int, int]) -> str:
    """Return a Modality's date and time as HL7 DTM, to the second, without a zone."""
    date, time = (text_at(step, tag) for tag in tags)
    return date + time.partition(".")[0] if date.isdecimal() and time.partition(".")[0].isdecimal() else date


def _name(person: str) -> str:
    """Return PN as XPN: its prefix and suffix change places (PS3.5, 6.2; HL7 v2.5.1, 2.A.88)."""
    family, given, middle, prefix, suffix, *_ = [*person.partition("=")[0].split("^"), *[""] * 5]
    return "^".join(map(escape, (family, given, middle, suffix, prefix))).rstrip("^")


def _sex(sex: str) -> str:
    return sex if sex in ("M", "F", "O") else ""


def _segment(*fields: str) -> str:
    return "|".join(fields).rstrip("|")
