"""N-CREATE and N-SET to an upstream SCP: pynetdicom as the peer, with every answer it can give."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import ModalityPerformedProcedureStep, Verification  # type: ignore[attr-defined]

from gateway.clock import SystemClock
from gateway.dataset import Element
from gateway.formats.identifiers import encode
from gateway.model import Delivery, DeliveryState, Kind, Message, Parcel, Receipt, Verdict
from gateway.net.requestor import Answer, Peer, Wanted, open_association
from gateway.protocols.dimse import Command, Field
from gateway.senders.dicom_mpps import MPPS_CONTEXT, in_syntax, send_step, verdict_of

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DATA_SET = {
    0x00100010: Element("PN", ("ZZTEST^Åsa",)),
    0x00400252: Element("CS", ("IN PROGRESS",)),
    0x00400270: Element("SQ", items=({0x00080050: Element("SH", ("A1",))},)),
}


class Upstream:
    """pynetdicom's MPPS SCP; remembers what came and answers as told."""

    def __init__(self, syntax: str, sop_class: Any) -> None:
        self.status: Any = 0x0000
        self.came: list[tuple[str, str, Dataset]] = []
        entity = AE("RIS")
        entity.add_supported_context(sop_class, syntax)
        handlers: list[Any] = [(evt.EVT_N_CREATE, self._create), (evt.EVT_N_SET, self._set)]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None and server.socket is not None
        self.server = server
        self.port = int(server.socket.getsockname()[1])

    def _create(self, event: Any) -> tuple[Any, None]:
        self.came.append(("N-CREATE", str(event.request.AffectedSOPInstanceUID), event.attribute_list))
        return self.status, None

    def _set(self, event: Any) -> tuple[Any, None]:
        self.came.append(("N-SET", str(event.request.RequestedSOPInstanceUID), event.modification_list))
        return self.status, None


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[tuple[str, Any], Upstream]]:
    """Peers by what they take: pynetdicom needs half a second to stop one."""
    made: dict[tuple[str, Any], Upstream] = {}
    yield made
    for one in made.values():
        one.server.shutdown()


@pytest.fixture
def upstream(servers: dict[tuple[str, Any], Upstream]) -> Callable[..., Upstream]:
    def make(syntax: str = EXPLICIT, sop_class: Any = ModalityPerformedProcedureStep) -> Upstream:
        if (syntax, sop_class) not in servers:
            servers[syntax, sop_class] = Upstream(syntax, sop_class)
        one = servers[syntax, sop_class]
        one.status, one.came = 0x0000, []
        return one

    return make


def parcel(operation: str = "N-CREATE", *, raw: bytes | None = b"", attempts: int = 0, uid: str = "1.2.3") -> Parcel:
    data = encode(DATA_SET, EXPLICIT, ("ISO_IR 100",)) if raw == b"" else raw
    message = Message(
        id=1,
        source="imaging",
        kind=Kind.MPPS,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        size=0,
        digest=b"",
        peer=None,
        identifier=uid,
        observed_at=None,
        raw=data,
        object_name=None,
        result=None,
        headers={"operation": operation, "TransferSyntaxUID": EXPLICIT},
        quarantined=None,
    )
    delivery = Delivery(
        id=4,
        message_id=1,
        destination="ris",
        state=DeliveryState.PENDING,
        ordinal=1,
        control_id="A-4",
        attempts=attempts,
    )
    return Parcel(delivery=delivery, message=message)


async def sent(port: int, *parcels: Parcel) -> list[Receipt]:
    peer = Peer(host="127.0.0.1", port=port, ae_title="RIS", calling_ae_title="GATEWAY")
    echo = Wanted("1.2.840.10008.1.1", (IMPLICIT,))
    association = await open_association(peer, [MPPS_CONTEXT, echo], SystemClock())
    try:
        return [await send_step(association, each) for each in parcels]
    finally:
        await association.release()


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
async def test_a_step_goes_on_under_its_own_uid(upstream: Callable[..., Upstream], syntax: str) -> None:
    peer = upstream(syntax)
    receipts = await sent(peer.port, parcel("N-CREATE"), parcel("N-SET"))

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED] * 2
    assert [(operation, uid) for operation, uid, _ in peer.came] == [("N-CREATE", "1.2.3"), ("N-SET", "1.2.3")]
    for _, _, dataset in peer.came:
        assert str(dataset.PatientName) == "ZZTEST^Åsa"
        assert dataset.ScheduledStepAttributesSequence[0].AccessionNumber == "A1"


async def test_a_refusal_is_told_with_its_status(upstream: Callable[..., Upstream]) -> None:
    peer = upstream()
    peer.status = 0x0106
    (receipt,) = await sent(peer.port, parcel())

    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, "refused with status 0106")
    assert receipt.acknowledgement is not None
    assert receipt.acknowledgement.startswith(b"0106")


async def test_a_peer_without_mpps_refuses_it(upstream: Callable[..., Upstream]) -> None:
    peer = upstream(IMPLICIT, Verification)
    (receipt,) = await sent(peer.port, parcel())

    assert (receipt.verdict, receipt.reason) == (Verdict.REFUSED, "the peer takes no MPPS")


@pytest.mark.parametrize("one", [parcel("N-DELETE"), parcel(raw=None)])
async def test_what_is_no_step_is_refused(upstream: Callable[..., Upstream], one: Parcel) -> None:
    (receipt,) = await sent(upstream().port, one)

    assert receipt.verdict is Verdict.REFUSED


async def test_bytes_that_cannot_be_written_anew_are_refused(upstream: Callable[..., Upstream]) -> None:
    one = parcel()
    one.message.headers["TransferSyntaxUID"] = "1.2.840.10008.1.2.1.99"  # Deflated
    (receipt,) = await sent(upstream(IMPLICIT).port, one)

    assert receipt.verdict is Verdict.REFUSED


@pytest.mark.parametrize(
    ("field", "status", "error_id", "tried", "verdict"),
    [
        (Field.N_CREATE, 0x0000, None, False, Verdict.DELIVERED),
        (Field.N_CREATE, 0x0107, None, False, Verdict.DELIVERED),
        (Field.N_CREATE, 0x0111, None, False, Verdict.DELIVERED),
        (Field.N_SET, 0x0111, None, False, Verdict.REFUSED),
        (Field.N_SET, 0x0110, 0xA710, True, Verdict.DELIVERED),
        (Field.N_SET, 0x0110, 0xA710, False, Verdict.REFUSED),
        (Field.N_SET, 0x0110, None, True, Verdict.RETRY_CONTENT),
        (Field.N_SET, 0x0112, None, False, Verdict.REFUSED),
        (Field.N_CREATE, 0x0213, None, False, Verdict.RETRY),
        (Field.N_CREATE, 0xA700, None, False, Verdict.RETRY),
        (Field.N_CREATE, 0x0122, None, False, Verdict.REFUSED),
    ],
)
def test_what_each_status_means(field: Field, status: int, error_id: int | None, tried: bool, verdict: Verdict) -> None:
    answer = Answer(status=status, command=Command(field=0x8140, status=status, error_id=error_id))

    assert verdict_of(field, answer, tried=tried)[0] is verdict


def test_the_same_syntax_is_the_same_bytes() -> None:
    assert in_syntax(b"whatever", EXPLICIT, EXPLICIT) == b"whatever"
