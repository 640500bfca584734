"""What a frame that came over MLLP is, and what is answered to it: decisions without wires.

A message whose header can be read is kept and accepted. Bytes that are no HL7, a header without type or control ID,
and a frame that is too large are kept for a person (quarantined) and answered AR, so that their sender hears of it.
An acknowledgement is kept for a person too and never answered: nobody here waits for one, and a Destination that got
it would never answer it either.
"""

import logging
from dataclasses import dataclass, field
from datetime import datetime

from gateway.errors import ContentError, place_of
from gateway.formats.acknowledgement import (
    ErrorCode,
    Fault,
    Outcome,
    answer_codes,
    encode_acknowledgement,
    is_acknowledgement,
)
from gateway.formats.hl7 import Header, keys_of, read_header
from gateway.formats.hl7_digest import digest_of
from gateway.formats.lab_orders import is_lab_order, read_lab_orders
from gateway.formats.orders import is_order, read_changes
from gateway.model import Incoming, Kind
from gateway.orders import Action, OrderChange, OrderRules
from gateway.protocols.mllp import END, START, encode_frame

_log = logging.getLogger("gateway.sources.mllp")
NOT_STORED = Fault(text="not stored, send again later", code=ErrorCode.INTERNAL)

_EMPTY = Fault(text="frame is empty", code=ErrorCode.SEGMENT_SEQUENCE)
_NO_TYPE = Fault(text="MSH-9 is empty", code=ErrorCode.REQUIRED_FIELD_MISSING, location=("MSH", 1, 9))
_NO_CONTROL_ID = Fault(text="MSH-10 is empty", code=ErrorCode.REQUIRED_FIELD_MISSING, location=("MSH", 1, 10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a connection's messages come from; `encoding` is the codec where MSH-18 names none.

    `orders` says how its orders become worklist items.
    """

    source: str
    peer: str
    encoding: str
    orders: OrderRules = field(default_factory=OrderRules)


@dataclass(frozen=True, slots=True)
class Read:
    """One frame, read. `incoming` is None where there is nothing to keep; `fault` is why it is rejected even so."""

    incoming: Incoming | None
    header: Header | None
    fault: Fault | None = None
    answered: bool = True


def read_frame(content: bytes, origin: Origin, now: datetime) -> Read:
    """Decide what a whole frame is."""
    try:
        header = _header(content)
    except ContentError as error:
        if not content:
            return Read(None, None, _EMPTY)
        fault = Fault(text=str(error), code=ErrorCode.SEGMENT_SEQUENCE)
        return Read(_unreadable(content, None, fault.text, origin, now), None, fault)
    missing = _missing(header)
    if missing is not None:
        return Read(_unreadable(content, header, missing.text, origin, now), header, missing)
    if is_acknowledgement(content, header):
        quarantined = "an acknowledgement that nobody waits for"
        return Read(_message(content, header, origin, now, quarantined), header, answered=False)
    return Read(_message(content, header, origin, now, None), header)


def read_oversize(head: bytes, frame_bytes_max: int, origin: Origin, now: datetime) -> Read:
    """Decide about a frame that grew beyond the limit, of which only the head is there."""
    fault = Fault(text=f"message is longer than {frame_bytes_max} bytes", code=ErrorCode.VALUE_TOO_LONG)
    try:
        header: Header | None = _header(head)
    except ContentError:
        header = None
    return Read(_unreadable(head, header, fault.text, origin, now), header, fault)


def answer(read: Read, *, stored: bool, control_id: str, now: datetime) -> bytes:
    """Return the frames to send for a message that is stored or is not: none, one, or CA and AA.

    What could not be stored is told as an error that a repeat may mend, even where it would have been rejected: the
    sender must not let go of what nobody kept.
    """
    if not read.answered:
        return b""
    fault, outcome = read.fault, Outcome.ACCEPTED if read.fault is None else Outcome.REJECTED
    if not stored:
        fault, outcome = NOT_STORED, Outcome.ERROR
    codes = answer_codes(read.header, outcome)
    ids = (control_id, f"{control_id}A")
    return b"".join(
        encode_frame(encode_acknowledgement(read.header, code, control_id=own, now=now, fault=fault))
        for code, own in zip(codes, ids, strict=False)
    )


def _header(content: bytes) -> Header:
    """Read the header; one that holds VT or FS could not be echoed without breaking the answer's frame."""
    header = read_header(content)
    if (END in content or START in content) and any(END in part or START in part for part in header.parts):
        raise ContentError("MSH holds a framing byte")
    return header


def _missing(header: Header) -> Fault | None:
    """Return the fault of a header by which the message could neither be routed nor be answered."""
    if not header.control_id.strip():
        return _NO_CONTROL_ID
    return None if header.message_type.strip() else _NO_TYPE


def _message(content: bytes, header: Header, origin: Origin, now: datetime, quarantined: str | None) -> Incoming:
    codec = header.codec(origin.encoding)
    keys = keys_of(content, header, codec)
    changes: tuple[object, ...] = ()
    if origin.orders.enabled and quarantined is None and (is_order(header) or is_lab_order(header)):
        changes = _changes(content, header, codec, origin, now)
    return Incoming(
        source=origin.source,
        kind=Kind.HL7,
        received_at=now,
        size=len(content),
        digest=digest_of(content),
        peer=origin.peer,
        identifier=header.control_id.decode(codec, "backslashreplace"),
        raw=content,
        terms=keys.terms,
        lane_key=keys.lane_key,
        quarantined=quarantined,
        changes=changes,
    )


def _changes(content: bytes, header: Header, codec: str, origin: Origin, now: datetime) -> tuple[object, ...]:
    """Return what a message changes in the worklist, or of the laboratory's orders.

    It is kept and accepted whatever is wrong with that.
    """
    try:
        ordered = read_lab_orders(content, header, codec, now) if is_lab_order(header) else ()
        if ordered:
            return ordered
        return read_changes(content, header, codec, origin.orders, source=origin.source, at=now)
    except Exception as error:  # noqa: BLE001 - border: a bug of the mapping must cost no message; it is listed
        _log.error("order.failed source=%s error=%s place=%s", origin.source, type(error).__name__, place_of(error))
        reason = f"the order could not be read: {type(error).__name__}"
        return (
            OrderChange(source=origin.source, action=Action.UPDATE, at=now, lacking=("everything",), notes=(reason,)),
        )


def _unreadable(content: bytes, header: Header | None, reason: str, origin: Origin, now: datetime) -> Incoming:
    identifier = header.control_id.decode("utf-8", "backslashreplace") if header is not None else ""
    return Incoming(
        source=origin.source,
        kind=Kind.UNREADABLE,
        received_at=now,
        size=len(content),
        digest=digest_of(content),
        peer=origin.peer,
        identifier=identifier.strip() or None,
        raw=content,
        quarantined=reason,
    )
