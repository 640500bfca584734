"""MPPS service: what a Modality reports of its work is kept before it is answered (PS3.4, F.7).

    N-CREATE --0000--> in progress --N-SET 0000--> ... --N-SET COMPLETED, DISCONTINUED--> over

Each N-CREATE and N-SET is a Message: it goes on to an upstream SCP as MPPS and to the RIS as an order status, by the
routes. In the same transaction the step changes, and by it the worklist items it answers to. What is refused, and how:

    0111  N-CREATE for a step that is known           0112  N-SET for one that is not
    0110  N-SET after the end, Error ID A710          0117  a SOP Instance UID that is none
    0120  a mandatory attribute is missing            0121  it is empty            0106  it has no such value
    0213  nothing could be put on the disk            0110  the data set cannot be read

A step that was not scheduled is a step like any other. One service serves all Sources, and one request at a time: a
step's state is read, judged and changed without another coming between.
"""

import asyncio
import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from gateway.dataset import Attributes, overlaid, text_at
from gateway.errors import ContentError, StoreError
from gateway.formats.dicom import is_uid
from gateway.formats.identifiers import decode, name_of, to_json
from gateway.formats.mpps import (
    PERFORMED_SERIES,
    SCHEDULED_STEPS,
    Fault,
    Lack,
    changed,
    changed_fault,
    created_fault,
    forbidden,
    scheduled_items,
    state_of,
)
from gateway.imaging.service import (
    DUPLICATE_INSTANCE,
    INVALID_ATTRIBUTE_VALUE,
    MISSING_ATTRIBUTE,
    MISSING_ATTRIBUTE_VALUE,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    SUCCESS,
    Exchange,
    Outcome,
    Request,
)
from gateway.model import Accepted, Incoming, Kind
from gateway.orders import FindItem, ProcedureStep, ScheduledStep, StepChange, StepState

MPPS_SOP_CLASS = "1.2.840.10008.3.1.2.3.3"
N_SET_RQ, N_CREATE_RQ = 0x0120, 0x0140  # PS3.7, E.1
INVALID_INSTANCE = 0x0117
RESOURCE_LIMITATION = 0x0213
UNRECOGNISED_OPERATION = 0x0211
NO_LONGER_UPDATED = 0xA710  # Error ID (PS3.4, table F.7.2-2)
ACCESSIONS_MAX = 16

_STATUS = {
    Lack.MISSING: MISSING_ATTRIBUTE,
    Lack.EMPTY: MISSING_ATTRIBUTE_VALUE,
    Lack.INVALID: INVALID_ATTRIBUTE_VALUE,
}
_PATIENT_ID, _MODALITY = 0x00100020, 0x00080060

_log = logging.getLogger("gateway.imaging")

FindStep = Callable[[str], ProcedureStep | None]
Keywords = Callable[[str], Iterable[str]]


class Intake(Protocol):
    """The door in."""

    async def accept(self, incoming: Incoming) -> Accepted:
        """Keep an input and wait until it is durable. Raises StoreError."""
        ...


class ProcedureSteps:
    """Answers N-CREATE and N-SET of the Modality Performed Procedure Step SOP Class; a `Service`."""

    def __init__(self, intake: Intake, find_step: FindStep, find_item: FindItem, keywords: Keywords) -> None:
        """Take the parts; `find_step` and `find_item` read the store in a worker thread.

        `find_item` returns the worklist item that a step was scheduled as, `keywords` the DICOM keywords that the
        routes of a Source ask for.
        """
        self._intake = intake
        self._find_step = find_step
        self._find_item = find_item
        self._keywords = keywords
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, request: Request, exchange: Exchange) -> Outcome:
        """Answer one request; never raises for content or store."""
        try:
            attributes = decode(request.data, request.transfer_syntax)
        except ContentError as error:
            return self._refused(request, PROCESSING_FAILURE, f"data set unreadable: {error}")
        try:
            async with self._one_at_a_time:
                if request.field == N_CREATE_RQ:
                    return await self._create(request, attributes)
                if request.field == N_SET_RQ:
                    return await self._set(request, attributes)
        except StoreError as error:
            return self._refused(request, RESOURCE_LIMITATION, f"not kept: {error}")
        return self._refused(request, UNRECOGNISED_OPERATION, "only N-CREATE and N-SET")

    async def _create(self, request: Request, attributes: Attributes) -> Outcome:
        uid = request.sop_instance_uid or f"2.25.{uuid.uuid4().int}"
        if not is_uid(uid):
            return self._refused(request, INVALID_INSTANCE, "SOP Instance UID is not a valid UID")
        if await asyncio.to_thread(self._find_step, uid) is not None:
            return self._refused(request, DUPLICATE_INSTANCE, "this procedure step exists")
        fault = created_fault(attributes)
        if fault is not None:
            return self._faulty(request, fault)
        step = ProcedureStep(sop_instance_uid=uid, state=StepState.IN_PROGRESS, attributes=attributes)
        await self._keep(request, step, b"")
        return Outcome(status=SUCCESS, sop_instance_uid=uid)

    async def _set(self, request: Request, change: Attributes) -> Outcome:
        uid = request.sop_instance_uid
        step = await asyncio.to_thread(self._find_step, uid) if is_uid(uid) else None
        if step is None:
            return self._refused(request, NO_SUCH_INSTANCE, "no such procedure step")
        if step.state.final:
            comment = "Performed Procedure Step Object may no longer be updated"
            return self._refused(request, PROCESSING_FAILURE, comment, error_id=NO_LONGER_UPDATED)
        result = changed(step.attributes, change)
        fault = changed_fault(change, result)
        if fault is not None:
            return self._faulty(request, fault)
        if passed_over := forbidden(change):
            _log.info("step.passed_over source=%s attributes=%d", request.caller.source, len(passed_over))
        state = state_of(result)
        assert state is not None, "judged above"
        before = hashlib.sha256(to_json(step.attributes).encode()).digest()
        await self._keep(request, ProcedureStep(sop_instance_uid=uid, state=state, attributes=result), before)
        return Outcome(status=SUCCESS, sop_instance_uid=uid)

    async def _keep(self, request: Request, step: ProcedureStep, before: bytes) -> None:
        scheduled = scheduled_items(step.attributes)
        items = await asyncio.to_thread(lambda: [self._find_item(each) for each in scheduled])
        incoming = incoming_of(request, step, items, self._keywords(request.caller.source), before)
        accepted = await self._intake.accept(incoming)
        _log.info(
            "step.kept source=%s message=%d operation=%s state=%r scheduled=%d",
            request.caller.source,
            accepted.message_id,
            incoming.headers["operation"],
            step.state.value,
            sum(item is not None for item in items),
        )

    def _faulty(self, request: Request, fault: Fault) -> Outcome:
        names = " ".join(name_of(tag) for tag in fault.tags)
        return self._refused(request, _STATUS[fault.lack], f"{fault.lack.value}: {names}", fault.tags)

    def _refused(
        self,
        request: Request,
        status: int,
        comment: str,
        offending: tuple[int, ...] = (),
        error_id: int | None = None,
    ) -> Outcome:
        _log.warning(
            "step.refused source=%s peer=%s status=%04X reason=%r",
            request.caller.source,
            request.caller.host,
            status,
            comment,
        )
        return Outcome(status=status, comment=comment, offending=offending, error_id=error_id)


def incoming_of(
    request: Request,
    step: ProcedureStep,
    items: Iterable[Attributes | None],
    keywords: Iterable[str],
    before: bytes,
) -> Incoming:
    """Return the Message of one N-CREATE or N-SET.

    `before` tells apart N-SETs that say the same of a step that has changed between them. The headers say all that
    an order status needs, so that a repeated Delivery is the same bytes: `step` is the step without its series,
    `orders` the worklist items it answers to, laid over what the step itself says of them.
    """
    attributes, said = step.attributes, scheduled_items(step.attributes)
    scheduled = tuple(said)
    studies = [each.study_instance_uid for each in scheduled]
    accessions = [each.accession_number for each in scheduled][:ACCESSIONS_MAX]
    terms = (text_at(attributes, _PATIENT_ID), *accessions, *studies)
    return Incoming(
        source=request.caller.source,
        kind=Kind.MPPS,
        received_at=request.received_at,
        size=len(request.data),
        digest=hashlib.sha256(before + request.data).digest(),
        peer=f"{request.caller.calling_ae_title}@{request.caller.host}",
        identifier=step.sop_instance_uid,
        raw=request.data,
        headers=_headers(request, step, scheduled, keywords)
        | {"step": _shortened(attributes), "orders": _orders(said.values(), items)},
        terms=tuple(dict.fromkeys(term for term in terms if term)),
        lane_key=next(filter(None, studies), step.sop_instance_uid),
        changes=(StepChange(step=step, scheduled=scheduled, at=request.received_at),),
    )


def _headers(
    request: Request, step: ProcedureStep, scheduled: tuple[ScheduledStep, ...], keywords: Iterable[str]
) -> dict[str, str]:
    wanted = frozenset(keywords)
    named = {
        name: "\\".join(element.values)
        for tag, element in step.attributes.items()
        if element.values and (name := name_of(tag)) in wanted
    }
    facts = {
        "operation": "N-CREATE" if request.field == N_CREATE_RQ else "N-SET",
        "SOPClassUID": MPPS_SOP_CLASS,
        "SOPInstanceUID": step.sop_instance_uid,
        "TransferSyntaxUID": request.transfer_syntax,
        "PerformedProcedureStepStatus": step.state.value,
        "Modality": text_at(step.attributes, _MODALITY),
        "PatientID": text_at(step.attributes, _PATIENT_ID),
        "AccessionNumber": next((each.accession_number for each in scheduled if each.accession_number), ""),
        "StudyInstanceUID": next((each.study_instance_uid for each in scheduled), ""),
    }
    return {**named, **{name: value for name, value in facts.items() if value}}


def _shortened(attributes: Attributes) -> str:
    left_out = (PERFORMED_SERIES, SCHEDULED_STEPS)
    return to_json({tag: element for tag, element in attributes.items() if tag not in left_out})


def _orders(said: Iterable[Attributes], items: Iterable[Attributes | None]) -> str:
    known: dict[str, Mapping[str, object]] = {}
    for own, item in zip(said, items, strict=True):
        text = to_json(own if item is None else overlaid(own, item))
        known[text] = json.loads(text)
    return json.dumps(list(known.values()), ensure_ascii=False, separators=(",", ":"))
