"""Procedure steps to an upstream SCP: the N-CREATE and N-SETs that a Modality sent us, under the same UID (PS3.4, F).

The data set goes on as it came where the peer takes the transfer syntax it came in, else it is written anew in one that
the peer takes; letters and values stay. Order is the lane's: an N-SET never overtakes its N-CREATE. What an answer
means:

    0000, warnings               delivered
    N-CREATE 0111                delivered: the peer has the step, from an earlier try
    N-SET 0110 with A710         delivered where it was tried before: the peer has the end of the step already
    0213 A7xx                    later          0110          later, a limited number of times
    anything else, no context    refused
"""

import logging

from gateway.dataset import values_at
from gateway.errors import ContentError
from gateway.formats.dicom import IMPLICIT_LITTLE
from gateway.formats.identifiers import decode, encode
from gateway.model import Parcel, Receipt, Verdict
from gateway.net.requestor import Answer, NoContextError, RequestedAssociation, Wanted
from gateway.protocols.dimse import Field

MPPS_SOP_CLASS = "1.2.840.10008.3.1.2.3.3"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
MPPS_CONTEXT = Wanted(MPPS_SOP_CLASS, (EXPLICIT_LITTLE, IMPLICIT_LITTLE))
"""What an association must ask for, so that `send_step` can use it."""

_CHARACTER_SET = 0x00080005
_WARNINGS = (0x0001, 0x0107, 0x0116)
_DUPLICATE, _PROCESSING_FAILURE, _RESOURCE_LIMITATION = 0x0111, 0x0110, 0x0213
_NO_LONGER_UPDATED = 0xA710
_FIELDS = {"N-CREATE": Field.N_CREATE, "N-SET": Field.N_SET}

_log = logging.getLogger("gateway.senders")


async def send_step(association: RequestedAssociation, parcel: Parcel) -> Receipt:
    """Bring one Message of kind MPPS on an association that asked for MPPS_CONTEXT.

    Raises LinkError when the association ends.
    """
    message, number = parcel.message, parcel.delivery.id
    operation = message.headers.get("operation", "")
    field, uid = _FIELDS.get(operation), message.identifier
    if field is None or uid is None or message.raw is None:
        return Receipt(delivery_id=number, verdict=Verdict.REFUSED, reason="not an N-CREATE or N-SET")
    accepted = association.accepts(MPPS_SOP_CLASS)
    if not accepted:
        return Receipt(delivery_id=number, verdict=Verdict.REFUSED, reason="the peer takes no MPPS")
    try:
        data = in_syntax(message.raw, message.headers.get("TransferSyntaxUID", IMPLICIT_LITTLE), accepted[0])
        answer = await association.normalised(field, MPPS_SOP_CLASS, uid, data)
    except (ContentError, NoContextError) as error:
        return Receipt(delivery_id=number, verdict=Verdict.REFUSED, reason=str(error))
    verdict, reason = verdict_of(field, answer, tried=parcel.delivery.attempts > 0)
    if reason is not None:
        _log.warning("step.answered delivery=%d operation=%s status=%04X", number, operation, answer.status)
    acknowledgement = f"{answer.status:04X} {answer.comment}".strip().encode("utf-8", "replace")
    return Receipt(delivery_id=number, verdict=verdict, reason=reason, acknowledgement=acknowledgement)


def in_syntax(data: bytes, standing: str, wanted: str) -> bytes:
    """Return a data set in another transfer syntax, the same bytes where it is the same. Raises ContentError."""
    if standing == wanted:
        return data
    attributes = decode(data, standing)
    return encode(attributes, wanted, values_at(attributes, _CHARACTER_SET))


def verdict_of(field: Field, answer: Answer, *, tried: bool) -> tuple[Verdict, str | None]:
    """Return what an answer means, and the words for it where it is not plain success."""
    status = answer.status
    if status == 0:
        return Verdict.DELIVERED, None
    if status in _WARNINGS or status >> 12 == 0xB:
        return Verdict.DELIVERED, f"taken with warning {status:04X}"
    if status == _DUPLICATE and field is Field.N_CREATE:
        return Verdict.DELIVERED, f"the peer has this procedure step already ({status:04X})"
    if status == _PROCESSING_FAILURE and answer.command.error_id == _NO_LONGER_UPDATED:
        verdict = Verdict.DELIVERED if tried else Verdict.REFUSED
        return verdict, f"the peer has the end of this procedure step already ({status:04X})"
    if status >> 8 == 0xA7 or status == _RESOURCE_LIMITATION:
        return Verdict.RETRY, f"out of resources ({status:04X})"
    if status == _PROCESSING_FAILURE:
        return Verdict.RETRY_CONTENT, f"processing failure ({status:04X})"
    return Verdict.REFUSED, f"refused with status {status:04X}"
