"""Services and reports on associations that a peer opened: pynetdicom's own AE asks."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    CTImageStorage,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    PatientRootQueryRetrieveInformationModelGet,
    StorageCommitmentPushModel,
)

from gateway.clock import SystemClock
from gateway.config import DicomSource as Settings
from gateway.errors import LinkError, StoreError
from gateway.formats.dicom import read_meta
from gateway.imaging.negotiation import Offer
from gateway.imaging.service import PENDING, Exchange, Held, OpenAssociation, Outcome, Request, Suboperations
from gateway.model import Accepted, Incoming
from gateway.protocols.dimse import Field
from gateway.sources.dicom import DicomSource
from gateway.spool import Spool
from gateway.status import LinkState, SourceStatus
from gateway.typed import Address

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
CT_CLASS, EXPLICIT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
WORKLIST = str(ModalityWorklistInformationFind)
MPPS = str(ModalityPerformedProcedureStep)
COMMITMENT = str(StorageCommitmentPushModel)
GET = str(PatientRootQueryRetrieveInformationModelGet)
EMPTY_NAME = b"\x10\0\x10\0\0\0\0\0"
WAIT_S = 10.0


class Nothing:
    """An intake that no Instance reaches."""

    refusing: str | None = None

    def accept_blocking(self, incoming: Incoming, sync: Callable[[], None] | None = None) -> Accepted:
        raise StoreError("not expected here")


@asynccontextmanager
async def serving(folder: Path, offer: Offer, *, pdu_max: int = 16384, **more: object) -> AsyncIterator[DicomSource]:
    spool = Spool(folder / "spool")
    spool.open()
    status = SourceStatus("imaging", "dicom")
    conf = Settings(
        name="imaging",
        listen=Address("127.0.0.1", 0),  # type: ignore[arg-type]
        pdu_max=pdu_max,
        **more,  # type: ignore[arg-type]
    )
    source = DicomSource(conf, Nothing(), spool, SystemClock(), status, offer=offer)
    task = asyncio.create_task(source.run())
    async with asyncio.timeout(WAIT_S):
        while status.state is not LinkState.UP:  # noqa: ASYNC110  # the status has no event
            await asyncio.sleep(0.001)
    try:
        yield source
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        spool.close()


def associate(source: DicomSource, *contexts: Any, handlers: Any = (), ext_neg: Any = ()) -> Any:
    ae = AE("PEER")
    for context in contexts:
        ae.add_requested_context(context, [IMPLICIT, EXPLICIT])
    association = ae.associate("127.0.0.1", source.port, evt_handlers=list(handlers), ext_neg=list(ext_neg))
    assert association.is_established
    return association


def some() -> Dataset:
    """A data set that is not empty: an empty one is announced by pynetdicom and never sent."""
    dataset = Dataset()
    dataset.PatientName = "ZZTEST"
    return dataset


async def test_a_service_answers_with_pending_and_final_responses(tmp_path: Path) -> None:
    asked: list[Request] = []

    async def find(request: Request, exchange: Exchange) -> Outcome:
        asked.append(request)
        for _ in range(300):
            await exchange.pending(EMPTY_NAME)
        return Outcome(status=0)

    def query(source: DicomSource) -> list[int]:
        association = associate(source, WORKLIST)
        identifier = Dataset()
        identifier.PatientName = "ZZ*"
        statuses = [status.Status for status, _ in association.send_c_find(identifier, WORKLIST)]
        association.release()
        return statuses

    async with serving(tmp_path, Offer(services={(Field.C_FIND, WORKLIST): find})) as source:
        statuses = await asyncio.to_thread(query, source)

    assert statuses == [PENDING] * 300 + [0]
    (request,) = asked
    assert (request.field, request.sop_class_uid, request.transfer_syntax) == (Field.C_FIND, WORKLIST, IMPLICIT)
    assert (request.caller.calling_ae_title, request.caller.host, request.caller.source) == (
        "PEER",
        "127.0.0.1",
        "imaging",
    )
    assert b"ZZ*" in request.data


async def test_a_cancel_is_seen_while_the_service_works(tmp_path: Path) -> None:
    async def find(request: Request, exchange: Exchange) -> Outcome:
        while not exchange.cancelled:
            await exchange.pending(EMPTY_NAME)
            await asyncio.sleep(0.005)
        return Outcome(status=0xFE00)

    def query(source: DicomSource) -> int:
        association = associate(source, WORKLIST)
        responses = association.send_c_find(some(), WORKLIST, msg_id=5)
        last = None
        for number, (status, _) in enumerate(responses):
            last = status
            if number == 2:
                association.send_c_cancel(5, query_model=WORKLIST)
        association.release()
        assert last is not None
        return int(last.Status)

    async with serving(tmp_path, Offer(services={(Field.C_FIND, WORKLIST): find})) as source:
        assert await asyncio.to_thread(query, source) == 0xFE00


@pytest.mark.parametrize(
    ("fault", "status"), [(StoreError("disk full"), 0xA700), (ValueError("a bug"), 0x0110), (None, 0x0106)]
)
async def test_a_service_that_fails_is_answered(tmp_path: Path, fault: Exception | None, status: int) -> None:
    async def create(request: Request, exchange: Exchange) -> Outcome:
        if fault is not None:
            raise fault
        return Outcome(status=0x0106, comment="x" * 100, offending=(0x00100010,), data=EMPTY_NAME)

    def ask(source: DicomSource) -> Dataset:
        association = associate(source, MPPS)
        status, _ = association.send_n_create(some(), MPPS, "1.2.3")
        association.release()
        return status

    async with serving(tmp_path, Offer(services={(Field.N_CREATE, MPPS): create})) as source:
        answer = await asyncio.to_thread(ask, source)

    assert answer.Status == status
    if fault is None:
        assert answer.ErrorComment == "x" * 64


async def test_what_is_not_offered_is_answered_and_not_negotiated(tmp_path: Path) -> None:
    async def change(request: Request, exchange: Exchange) -> Outcome:
        return Outcome(status=0)

    def ask(source: DicomSource) -> tuple[int, int]:
        association = associate(source, MPPS, WORKLIST)
        status, _ = association.send_n_create(some(), MPPS, "1.2.3")
        rejected = len(association.rejected_contexts)
        association.release()
        return int(status.Status), rejected

    async with serving(tmp_path, Offer(services={(Field.N_SET, MPPS): change})) as source:
        assert await asyncio.to_thread(ask, source) == (0x0211, 1)


async def test_extended_negotiation_is_answered_and_told_to_the_service(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def find(request: Request, exchange: Exchange) -> Outcome:
        seen.append(request.sop_class_extended)
        return Outcome(status=0)

    def ask(source: DicomSource) -> bytes:
        wanted = SOPClassExtendedNegotiation()
        wanted.sop_class_uid = WORKLIST
        wanted.service_class_application_information = b"\x01\x01\x01"
        association = associate(source, WORKLIST, ext_neg=[wanted])
        list(association.send_c_find(some(), WORKLIST))
        answered = bytes(association.acceptor.sop_class_extended[WORKLIST])
        association.release()
        return answered

    offer = Offer(services={(Field.C_FIND, WORKLIST): find}, extended={WORKLIST: lambda asked: asked[:1] + b"\0"})
    async with serving(tmp_path, offer) as source:
        assert await asyncio.to_thread(ask, source) == b"\x01\0"
    assert seen == [b"\x01\0"]


async def test_instances_go_back_on_the_same_association(tmp_path: Path) -> None:
    meta = read_meta(CT)
    held = Held(
        path=CT,
        dataset_offset=meta.dataset_offset,
        sop_class_uid=CT_CLASS,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax=EXPLICIT,
    )
    told: list[tuple[str, ...]] = []

    async def get(request: Request, exchange: Exchange) -> Outcome:
        told.append(exchange.takes(CT_CLASS))
        statuses = [await exchange.store(held) for _ in range(3)]
        await exchange.pending(suboperations=Suboperations(remaining=0, completed=len(statuses)))
        return Outcome(status=0, suboperations=Suboperations(completed=statuses.count(0xB000)))

    came: list[Any] = []

    def keep(event: Any) -> int:
        came.append(event.request.DataSet.getvalue())
        return 0xB000

    def ask(source: DicomSource) -> list[Any]:
        ae = AE("PEER")
        ae.add_requested_context(GET, IMPLICIT)
        ae.add_requested_context(CTImageStorage, EXPLICIT)
        role = build_role(CTImageStorage, scp_role=True)
        association = ae.associate(
            "127.0.0.1", source.port, ext_neg=[role], evt_handlers=[(evt.EVT_C_STORE, keep)], max_pdu=4096
        )
        responses = [status for status, _ in association.send_c_get(some(), GET)]
        association.release()
        return responses

    async with serving(tmp_path, Offer(services={(Field.C_GET, GET): get})) as source:
        responses = await asyncio.to_thread(ask, source)

    assert told == [(EXPLICIT,)]
    assert came == [CT.read_bytes()[meta.dataset_offset :]] * 3
    assert [response.Status for response in responses] == [PENDING, 0]
    assert responses[-1].NumberOfCompletedSuboperations == 3


async def test_an_instance_that_is_gone_leaves_the_association_as_it_was(tmp_path: Path) -> None:
    gone = Held(
        path=tmp_path / "gone",
        dataset_offset=0,
        sop_class_uid=CT_CLASS,
        sop_instance_uid="1.2.3",
        transfer_syntax=EXPLICIT,
    )
    ended = threading.Event()

    async def get(request: Request, exchange: Exchange) -> Outcome:
        with pytest.raises(LinkError):
            await exchange.store(gone)
        return Outcome(status=0xA702, suboperations=Suboperations(failed=1))

    def ask(source: DicomSource) -> tuple[list[int], bool]:
        ae = AE("PEER")
        ae.add_requested_context(GET, IMPLICIT)
        ae.add_requested_context(CTImageStorage, EXPLICIT)
        role = build_role(CTImageStorage, scp_role=True)
        handlers = [(evt.EVT_ABORTED, lambda _: ended.set())]
        association = ae.associate("127.0.0.1", source.port, ext_neg=[role], evt_handlers=handlers)  # type: ignore[arg-type]
        statuses = [int(status.Status) for status, _ in association.send_c_get(some(), GET)]
        return statuses, ended.wait(WAIT_S)

    async with serving(tmp_path, Offer(services={(Field.C_GET, GET): get}), idle_timeout_s=0.5) as source:
        statuses, idled_out = await asyncio.to_thread(ask, source)

    assert statuses == [0xA702]
    assert idled_out, "nothing is awaited any more"


async def test_a_source_without_storage_sends_what_is_fetched_and_takes_nothing(tmp_path: Path) -> None:
    async def get(request: Request, exchange: Exchange) -> Outcome:
        return Outcome(status=0, comment=" ".join(exchange.takes(CT_CLASS)))

    def ask(source: DicomSource) -> tuple[int, int, bool]:
        ae = AE("PEER")
        ae.add_requested_context(GET, IMPLICIT)
        ae.add_requested_context(CTImageStorage, EXPLICIT)
        role = build_role(CTImageStorage, scu_role=True, scp_role=True)
        association = ae.associate("127.0.0.1", source.port, ext_neg=[role])
        stored = int(association.send_c_store(CT).Status)
        (got, _), *_ = association.send_c_get(some(), GET)
        association.release()
        plain = ae.associate("127.0.0.1", source.port)
        refused = CT_CLASS in {str(context.abstract_syntax) for context in plain.rejected_contexts}
        plain.release()
        return stored, int(got.Status), refused

    offer = Offer(services={(Field.C_GET, GET): get})
    async with serving(tmp_path, offer, services=("echo", "query")) as source:
        assert await asyncio.to_thread(ask, source) == (0x0122, 0, True)


async def test_a_report_goes_on_the_association_that_asked(tmp_path: Path) -> None:
    reported: list[int] = []
    stand: asyncio.Queue[OpenAssociation] = asyncio.Queue()
    came: list[Any] = []
    answered, told = threading.Event(), threading.Event()

    async def act(request: Request, exchange: Exchange) -> Outcome:
        return Outcome(status=0)

    async def opened(association: OpenAssociation) -> None:
        await stand.put(association)

    def hear(event: Any) -> tuple[int, None]:
        came.append((event.request.EventTypeID, str(event.request.AffectedSOPInstanceUID)))
        return 0, None

    def ask(source: DicomSource) -> None:
        association = associate(source, COMMITMENT, handlers=[(evt.EVT_N_EVENT_REPORT, hear)])
        association.send_n_action(some(), 1, COMMITMENT, "1.2.840.10008.1.20.1.1")
        answered.set()
        assert told.wait(WAIT_S)  # pynetdicom cannot answer any more once it has asked for the release
        association.release()

    offer = Offer(services={(Field.N_ACTION, COMMITMENT): act}, associated={COMMITMENT: opened})
    async with serving(tmp_path, offer) as source:
        asking = asyncio.create_task(asyncio.to_thread(ask, source))
        association = await asyncio.wait_for(stand.get(), WAIT_S)
        assert association.caller.calling_ae_title == "PEER"
        assert source.associations == (association,)
        # pynetdicom takes a report that comes earlier for the answer
        assert await asyncio.to_thread(answered.wait, WAIT_S)
        reported.append(await association.report(COMMITMENT, "1.2.840.10008.1.20.1.1", 1, EMPTY_NAME))
        with pytest.raises(LinkError):
            await association.report(MPPS, "1.2", 1, EMPTY_NAME)
        told.set()
        await asking
        with pytest.raises(LinkError):
            await association.report(COMMITMENT, "1.2.840.10008.1.20.1.1", 1, EMPTY_NAME)

    assert reported == [0]
    assert came == [(1, "1.2.840.10008.1.20.1.1")]


async def test_a_peer_that_leaves_ends_the_exchange(tmp_path: Path) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()
    begun = threading.Event()

    async def find(request: Request, exchange: Exchange) -> Outcome:
        begun.set()
        try:
            while True:
                await exchange.pending(EMPTY_NAME)
                await asyncio.sleep(0)
        except LinkError:
            await ended.put("told" if exchange.cancelled else "not told")
        return Outcome(status=0)

    def ask(source: DicomSource) -> None:
        association = associate(source, WORKLIST)
        responses = association.send_c_find(some(), WORKLIST)
        next(responses)
        assert begun.wait(WAIT_S)
        association.abort()

    async with serving(tmp_path, Offer(services={(Field.C_FIND, WORKLIST): find})) as source:
        await asyncio.to_thread(ask, source)
        assert await asyncio.wait_for(ended.get(), WAIT_S) == "told"
