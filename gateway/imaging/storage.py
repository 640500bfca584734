"""Storage service: what a C-STORE means (PS3.4, B), as a function of what came and of the parts that keep it.

An Instance is kept first and judged later: the Modality deletes its copy on Success, so a data set that we cannot
read, or whose UIDs are not the command's, is kept as it came and answered with a warning. The disk refuses, with
0xA700, which senders repeat; and an Instance whose SOP Instance UID is none (empty, longer than 64, anything but digits
and dots) is refused with 0xC000, because nothing that is asked for by UID could ever name it. Leading zeros and padding
are let pass. The order is fixed: name and folder, file, row, answer; the row is written while the file is synced, and
committed after.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gateway.clock import Clock
from gateway.errors import StoreError
from gateway.formats.dicom import is_uid
from gateway.imaging.order_priority import KEYWORD
from gateway.imaging.receiving import Received
from gateway.model import Accepted, Incoming, Kind
from gateway.spool import Spool

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
MISMATCH_WARNING = 0xB007  # data set does not match SOP Class
CANNOT_UNDERSTAND = 0xC000
COMMENT_MAX = 64  # (0000,0902) is LO

_log = logging.getLogger("gateway.imaging")


class Intake(Protocol):
    """The door in, as a worker thread sees it."""

    @property
    def refusing(self) -> str | None:
        """Return why new input is refused, None when it is not."""
        ...

    def accept_blocking(self, incoming: Incoming, sync: Callable[[], None] | None = None) -> Accepted:
        """Keep one input durably, its file by `sync`. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One Instance that came whole, and what the C-STORE command said of it.

    UIDs are cleaned of padding but may be anything else, of any length. `peer` is the calling AE title and host.
    """

    received: Received
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str
    peer: str
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The answer: a status of PS3.4 table B.2-1 and its Error Comment, which holds no patient data."""

    code: int
    comment: str = ""
    accepted: Accepted | None = None


@dataclass(frozen=True, slots=True)
class Keeper:
    """The parts that keep Instances of one Source.

    `keywords` are those that its Routes ask for; `order_priority` says how urgent the order of a header is, "" where
    nothing is known.
    """

    source: str
    spool: Spool
    intake: Intake
    clock: Clock
    keywords: Iterable[str] = ()
    order_priority: Callable[[Mapping[str, str]], str] = lambda header: ""


def store(arrival: Arrival, keeper: Keeper) -> Status:
    """Keep an Instance and say how it went; never raises for content, disk or store."""
    received = arrival.received
    header, fault = _judge_header(received)
    unnamed = _unnamed(arrival, header)
    if unnamed is not None:
        _log.warning("instance.refused source=%s status=C000 reason=%r", keeper.source, unnamed)
        keeper.spool.discard(received.draft)
        return Status(code=CANNOT_UNDERSTAND, comment=f"not kept: {unnamed}"[:COMMENT_MAX])
    try:
        accepted = keeper.intake.accept_blocking(_incoming(arrival, keeper, header, fault), received.draft.sync)
        if accepted.repeated and accepted.object_name is not None:
            keeper.spool.mend(accepted.object_name, received.digest, received.draft)
        else:
            keeper.spool.committed(received.draft)
    except StoreError as error:
        _log.error("instance.refused source=%s status=A700 reason=%s", keeper.source, error)
        keeper.spool.discard(received.draft)
        return refusal(str(error))
    doubt = fault or _mismatch(arrival, header)
    if doubt:
        _log.warning("instance.doubted source=%s message=%d reason=%s", keeper.source, accepted.message_id, doubt)
        return Status(code=MISMATCH_WARNING, comment=f"kept; {doubt}"[:COMMENT_MAX], accepted=accepted)
    return Status(code=SUCCESS, accepted=accepted)


def refusal(reason: str) -> Status:
    """Return the answer that makes a sender keep its copy and try again."""
    return Status(code=OUT_OF_RESOURCES, comment=f"not kept: {reason}"[:COMMENT_MAX])


def _judge_header(received: Received) -> tuple[dict[str, str], str | None]:
    if received.header is None:
        return {}, received.fault
    values = received.header.values
    if not values.get("SOPInstanceUID") and not values.get("SOPClassUID"):
        return values, "data set has neither SOP Class nor SOP Instance UID"
    return values, None


def _unnamed(arrival: Arrival, header: dict[str, str]) -> str | None:
    """Return why no Instance can have these names, None where one can; a data set without a name has the command's."""
    if not is_uid(arrival.sop_instance_uid):
        return "SOP Instance UID of the command is no UID"
    named = header.get("SOPInstanceUID")
    if named is not None and not is_uid(named):
        return "SOP Instance UID of the data set is no UID"
    return None


def _incoming(arrival: Arrival, keeper: Keeper, header: dict[str, str], fault: str | None) -> Incoming:
    study = header.get("StudyInstanceUID", "")
    identifier = header.get("SOPInstanceUID") or arrival.sop_instance_uid
    terms = (header.get("PatientID"), header.get("AccessionNumber"), study, arrival.sop_instance_uid)
    return Incoming(
        source=keeper.source,
        kind=Kind.DICOM,
        received_at=arrival.received_at,
        size=arrival.received.size,
        digest=arrival.received.digest,
        peer=arrival.peer,
        identifier=identifier,
        object_name=arrival.received.draft.name,
        headers=_headers(arrival, header, keeper),
        terms=tuple(dict.fromkeys(term for term in terms if term and term != identifier)),
        lane_key=study or identifier,
        quarantined=fault,
    )


def _headers(arrival: Arrival, header: dict[str, str], keeper: Keeper) -> dict[str, str]:
    """Return what Routes may look at: the object's own, and the order's priority where the object tells none."""
    told = {"SOPClassUID": arrival.sop_class_uid, "SOPInstanceUID": arrival.sop_instance_uid}
    if KEYWORD not in header and (priority := keeper.order_priority(header)):
        told[KEYWORD] = priority
    return {**told, **header, "TransferSyntaxUID": arrival.transfer_syntax}


def _mismatch(arrival: Arrival, header: dict[str, str]) -> str | None:
    if header.get("SOPInstanceUID") != arrival.sop_instance_uid:
        return "SOP Instance UID of command and data set differ"
    if header.get("SOPClassUID") != arrival.sop_class_uid:
        return "SOP Class UID of command and data set differ"
    return None
