"""Storage commitment: the data sets of request and report (PS3.4, J.3; PS3.3, C.14)."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.dataset import Attributes, Element, text_at
from gateway.errors import ContentError
from gateway.formats.dicom import is_uid
from gateway.formats.identifiers import decode, encode

TRANSACTION_UID = 0x00081195
REFERENCED_SOPS, FAILED_SOPS = 0x00081199, 0x00081198
REFERENCED_CLASS, REFERENCED_INSTANCE = 0x00081150, 0x00081155
FAILURE_REASON = 0x00081197
ALL_COMMITTED, FAILURES_EXIST = 1, 2  # event types
PROCESSING_FAILURE = 0x0110


@dataclass(frozen=True, slots=True)
class Reference:
    """One Instance that commitment is asked for."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """What an N-ACTION asks for: its Instances in their order, each once."""

    transaction_uid: str
    references: tuple[Reference, ...]


def read_request(data: bytes, transfer_syntax: str) -> CommitmentRequest:
    """Read the data set of an N-ACTION.

    Raises ContentError without a Transaction UID, without Instances, or for one that lacks a UID.
    """
    attributes = decode(data, transfer_syntax)
    transaction_uid = text_at(attributes, TRANSACTION_UID)
    if not is_uid(transaction_uid):
        raise ContentError("no Transaction UID")
    sequence = attributes.get(REFERENCED_SOPS)
    references = tuple(dict.fromkeys(_reference(item) for item in (sequence.items if sequence is not None else ())))
    if not references:
        raise ContentError("no Referenced SOP Sequence")
    return CommitmentRequest(transaction_uid=transaction_uid, references=references)


def write_report(
    transaction_uid: str, outcomes: Iterable[tuple[Reference, int]], transfer_syntax: str
) -> tuple[int, bytes]:
    """Return event type and data set of an N-EVENT-REPORT; an outcome is 0 for committed, else its Failure Reason.

    Every Instance of the request stands in it (J.3.3.1.2).
    """
    committed, failed = [], []
    for reference, reason in outcomes:
        item = {
            REFERENCED_CLASS: Element("UI", (reference.sop_class_uid,)),
            REFERENCED_INSTANCE: Element("UI", (reference.sop_instance_uid,)),
        }
        if reason:
            failed.append(item | {FAILURE_REASON: Element("US", (str(reason),))})
        else:
            committed.append(item)
    report: dict[int, Element] = {TRANSACTION_UID: Element("UI", (transaction_uid,))}
    if committed:
        report[REFERENCED_SOPS] = Element("SQ", items=tuple(committed))
    if failed:
        report[FAILED_SOPS] = Element("SQ", items=tuple(failed))
    return FAILURES_EXIST if failed else ALL_COMMITTED, encode(report, transfer_syntax)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReport:
    """What an N-EVENT-REPORT says: SOP Instance UIDs committed to, and the Failure Reasons of the others."""

    transaction_uid: str
    committed: tuple[str, ...]
    failed: dict[str, int]


def write_request(request: CommitmentRequest, transfer_syntax: str) -> bytes:
    """Return the data set of an N-ACTION."""
    items = tuple(
        {
            REFERENCED_CLASS: Element("UI", (each.sop_class_uid,)),
            REFERENCED_INSTANCE: Element("UI", (each.sop_instance_uid,)),
        }
        for each in request.references
    )
    asked = {
        TRANSACTION_UID: Element("UI", (request.transaction_uid,)),
        REFERENCED_SOPS: Element("SQ", items=items),
    }
    return encode(asked, transfer_syntax)


def read_report(data: bytes, transfer_syntax: str) -> CommitmentReport:
    """Read the data set of an N-EVENT-REPORT.

    Raises ContentError without a Transaction UID, or for an Instance without a UID. A failure without a reason is a
    processing failure.
    """
    attributes = decode(data, transfer_syntax)
    transaction_uid = text_at(attributes, TRANSACTION_UID)
    if not is_uid(transaction_uid):
        raise ContentError("no Transaction UID")
    failed = {}
    for item in _items(attributes, FAILED_SOPS):
        reason = text_at(item, FAILURE_REASON)
        failed[_instance(item)] = int(reason) if reason.isdigit() and int(reason) else PROCESSING_FAILURE
    committed = tuple(_instance(item) for item in _items(attributes, REFERENCED_SOPS))
    return CommitmentReport(transaction_uid=transaction_uid, committed=committed, failed=failed)


def _items(attributes: Attributes, tag: int) -> tuple[Attributes, ...]:
    sequence = attributes.get(tag)
    return sequence.items if sequence is not None else ()


def _instance(item: Attributes) -> str:
    uid = text_at(item, REFERENCED_INSTANCE)
    if not is_uid(uid):
        raise ContentError("an Instance without UID")
    return uid


def _reference(item: Attributes) -> Reference:
    sop_class, sop_instance = text_at(item, REFERENCED_CLASS), text_at(item, REFERENCED_INSTANCE)
    if not is_uid(sop_class) or not is_uid(sop_instance):
        raise ContentError("a reference without SOP Class or SOP Instance UID")
    return Reference(sop_class, sop_instance)
