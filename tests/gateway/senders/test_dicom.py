import asyncio
import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification

from gateway.clock import ManualClock, SystemClock
from gateway.config import ClientTls, DicomDestination
from gateway.errors import ContentError, GatewayError, LinkError, StoreError, TemporaryError
from gateway.formats.dicom import part10_prefix, read_meta
from gateway.imaging.body import open_body
from gateway.model import Delivery, DeliveryState, Kind, Message, Parcel, Receipt, Verdict
from gateway.pacing import Bandwidth
from gateway.senders.dicom import TURN_S, DicomSender
from gateway.senders.instances import verdict_of
from gateway.spool import Spool
from tests.gateway.senders.library_peer import serving
from tests.gateway.spooling import keep_object

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CT = TEST_FILES / "CT_small.dcm"
CT_CLASS, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.open()
    return spool


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def destination(port: int) -> DicomDestination:
    return DicomDestination(
        name="pacs", host="127.0.0.1", port=port, ae_title="PACS", connect_timeout_s=3, response_timeout_s=10
    )


def _parcel(number: int, object_name: str | None) -> Parcel:
    message = Message(
        id=number,
        source="imaging",
        kind=Kind.DICOM,
        received_at=NOW,
        size=1,
        digest=b"",
        peer=None,
        identifier=None,
        observed_at=None,
        raw=None,
        object_name=object_name,
        result=None,
        headers={},
        quarantined=None,
    )
    delivery = Delivery(
        id=number,
        message_id=number,
        destination="pacs",
        state=DeliveryState.PENDING,
        ordinal=number,
        control_id=str(number),
    )
    return Parcel(delivery=delivery, message=message)


def _keep(spool: Spool, dataset: bytes, *, uid: str, sop_class: str = CT_CLASS, syntax: str = EXPLICIT) -> str:
    prefix = part10_prefix(sop_class_uid=sop_class, sop_instance_uid=uid, transfer_syntax=syntax)
    return keep_object(spool, prefix + dataset, len(prefix)).name


def _keep_file(spool: Spool, path: Path) -> str:
    meta = read_meta(path)
    dataset = _dataset_bytes(path)
    return _keep(spool, dataset, uid=meta.sop_instance_uid, sop_class=meta.sop_class_uid, syntax=meta.transfer_syntax)


def _keep_small(spool: Spool, number: int, bulk: int = 2000) -> str:
    dataset = Dataset()
    dataset.SOPClassUID = CT_CLASS
    dataset.SOPInstanceUID = f"1.2.3.{number}"
    dataset.PixelData = os.urandom(bulk)
    dataset["PixelData"].VR = "OW"
    path = spool.folder / "small"
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    return _keep(spool, path.read_bytes(), uid=f"1.2.3.{number}")


def _dataset_bytes(path: Path) -> bytes:
    return path.read_bytes()[read_meta(path).dataset_offset :]


async def _send(
    settings: DicomDestination, spool: Spool, names: Sequence[str | None]
) -> tuple[list[Receipt], GatewayError | None]:
    sender = DicomSender(settings, spool, SystemClock())
    receipts: list[Receipt] = []
    try:
        async for receipt in sender.send([_parcel(number, name) for number, name in enumerate(names, 1)]):
            receipts.append(receipt)
    except (LinkError, TemporaryError) as error:
        return receipts, error
    finally:
        await sender.close()
    return receipts, None


async def _until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110  # processes outside tell nobody
            await asyncio.sleep(0.01)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextmanager
def _storescp(port: int, folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["storescp", "--bit-preserving", "+xa", *options, "-aet", "PACS", "-od", str(folder), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asyncio.run(_until(lambda: _listens(port)))
        yield folder
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
def storescp(port: int, tmp_path: Path) -> Iterator[Path]:
    """DCMTK's receiver, writing what comes bit for bit."""
    with _storescp(port, tmp_path / "received", "--promiscuous") as folder:
        yield folder


@pytest.fixture
def storescp_of_known_classes(port: int, tmp_path: Path) -> Iterator[Path]:
    """The same, accepting only the SOP Classes that it knows."""
    with _storescp(port, tmp_path / "received") as folder:
        yield folder


class Scp:
    """A small archive that answers as told; statuses are taken in turn, the last one stays."""

    def __init__(self) -> None:
        self.statuses = [0x0000]
        self.uids: list[str] = []
        self.priorities: list[int] = []
        self.data_sets: list[bytes] = []
        self.on_store: Callable[[], None] = lambda: None
        self.released = threading.Event()
        self.associations = 0
        self.aborts_at = 0  # the C-STORE, counted from 1, that is answered by A-ABORT

    def answer(self, event: evt.Event) -> Dataset:
        self.uids.append(str(event.request.AffectedSOPInstanceUID))
        self.priorities.append(int(event.request.Priority))
        self.data_sets.append(event.request.DataSet.getvalue())
        self.on_store()
        if len(self.uids) == self.aborts_at:
            event.assoc.abort()
        response = Dataset()
        response.Status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return response

    def requested(self, event: evt.Event) -> None:
        self.associations += 1
        self.association = event.assoc

    def ended(self, _event: evt.Event) -> None:
        self.released.set()


@contextmanager
def _archive(
    scp: Scp,
    port: int,
    *,
    called: bool = False,
    calling: tuple[str, ...] = (),
    takes: tuple[str, str] = (CTImageStorage, EXPLICIT),
) -> Iterator[Scp]:
    ae = AE("OTHER" if called else "PACS")
    ae.require_called_aet = called
    ae.require_calling_aet = list(calling)
    ae.add_supported_context(Verification)
    ae.add_supported_context(*takes)
    handlers = [(evt.EVT_C_STORE, scp.answer), (evt.EVT_RELEASED, scp.ended), (evt.EVT_REQUESTED, scp.requested)]
    with serving(ae, port, handlers):
        yield scp


@contextmanager
def _scripted(port: int, talk: Callable[[socket.socket], None]) -> Iterator[threading.Event]:
    """A peer that accepts one connection and does what `talk` says."""
    listener = socket.create_server(("127.0.0.1", port))
    done = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                talk(sock)
        done.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield done
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


# --- delivered ---


async def test_what_is_no_object_is_refused_and_the_object_beside_it_goes(
    destination: DicomDestination, spool: Spool, storescp: Path
) -> None:
    """A Destination that spoke HL7 before a reload may still be owed messages."""
    hl7 = _parcel(1, None)
    hl7 = replace(hl7, message=replace(hl7.message, kind=Kind.HL7, raw=b"MSH|"))
    sender = DicomSender(destination, spool, SystemClock())
    receipts = [receipt async for receipt in sender.send([hl7, _parcel(2, _keep_small(spool, 1))])]

    assert [(each.delivery_id, each.verdict) for each in receipts] == [(1, Verdict.REFUSED), (2, Verdict.DELIVERED)]


async def test_objects_of_every_kind_arrive_at_dcmtk_byte_for_byte(
    destination: DicomDestination, spool: Spool, storescp: Path
) -> None:
    files = [path for path in sorted(TEST_FILES.glob("*.dcm")) if _is_sound(path)]

    receipts, error = await _send(destination, spool, [_keep_file(spool, file) for file in files])

    assert error is None
    assert len(files) > 65
    assert {receipt.verdict for receipt in receipts} == {Verdict.DELIVERED}
    assert sorted(receipt.delivery_id for receipt in receipts) == list(range(1, len(files) + 1))
    received = {_dataset_bytes(path) for path in storescp.iterdir()}  # noqa: ASYNC240
    sent = {pydicom.dcmread(file).SOPInstanceUID: file for file in files}  # of one UID the last one stays
    assert received == {_dataset_bytes(file) + b"\0" * (len(_dataset_bytes(file)) % 2) for file in sent.values()}


def _is_sound(path: Path) -> bool:
    with contextlib.suppress(ContentError):
        return read_meta(path).sop_instance_uid != "" and "SOPInstanceUID" in pydicom.dcmread(path)
    return False


async def test_one_association_serves_a_batch_and_is_released(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    names = [_keep_small(spool, number) for number in range(64)]
    with _archive(Scp(), port) as scp:
        receipts, error = await _send(destination, spool, names)
        assert await asyncio.to_thread(scp.released.wait, 10)

    assert error is None
    assert [receipt.delivery_id for receipt in receipts] == list(range(1, 65))
    assert scp.uids == [f"1.2.3.{number}" for number in range(64)]
    assert scp.associations == 1


# --- an association outlives its batch ---


async def test_the_next_batch_goes_on_the_same_association_which_is_released_after_a_while(
    destination: DicomDestination, spool: Spool, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _archive(Scp(), port) as scp:
        sender = DicomSender(destination, spool, SystemClock())
        for number in range(1, 4):
            if number == 3:
                monkeypatch.setattr("gateway.senders.archive_line.LINGER_S", 0.01)
            told = [receipt.verdict async for receipt in sender.send([_parcel(number, _keep_small(spool, number))])]
            assert told == [Verdict.DELIVERED]
        assert scp.associations == 1
        assert await asyncio.to_thread(scp.released.wait, 10)

        told = [receipt.verdict async for receipt in sender.send([_parcel(4, _keep_small(spool, 4))])]
        await sender.close()

    assert told == [Verdict.DELIVERED]
    assert scp.associations == 2


async def test_what_needs_other_contexts_gets_an_association_of_its_own(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    with _archive(Scp(), port) as scp:
        sender = DicomSender(destination, spool, SystemClock())
        other = _keep(spool, b"", uid="1.2.3.2", sop_class="1.2.840.10008.5.1.4.1.1.4")
        for number, name in enumerate((_keep_small(spool, 1), other, _keep_small(spool, 3))):
            receipts = [receipt async for receipt in sender.send([_parcel(number, name)])]
            assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED if number == 1 else Verdict.DELIVERED]
        await sender.close()

    assert scp.uids == ["1.2.3.1", "1.2.3.3"]
    assert scp.associations == 3


async def test_a_peer_that_leaves_a_resting_association_has_not_failed(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    with _archive(Scp(), port) as scp:
        scp.aborts_at = 2
        sender = DicomSender(destination, spool, SystemClock())
        for batch in ((1,), (2, 3)):
            parcels = [_parcel(number, _keep_small(spool, number)) for number in batch]
            told = [(receipt.delivery_id, receipt.verdict) async for receipt in sender.send(parcels)]
            assert told == [(number, Verdict.DELIVERED) for number in batch]
        await sender.close()

    assert scp.uids == ["1.2.3.1", "1.2.3.2", "1.2.3.2", "1.2.3.3"]
    assert scp.associations == 2


async def test_a_peer_that_is_silent_on_a_resting_association_is_waited_for_once(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    scp, go_on = Scp(), threading.Event()
    with _archive(scp, port):
        sender = DicomSender(replace(destination, response_timeout_s=0.4), spool, SystemClock())
        parcels = [_parcel(number, _keep_small(spool, number)) for number in (1, 2)]
        assert [receipt.verdict async for receipt in sender.send(parcels[:1])] == [Verdict.DELIVERED]
        scp.on_store = lambda: go_on.wait(20) and None
        with pytest.raises(LinkError, match="no response"):
            _ = [receipt async for receipt in sender.send(parcels[1:])]
        go_on.set()
        await sender.close()

    assert scp.uids == ["1.2.3.1", "1.2.3.2"]


async def test_many_small_objects_to_a_peer_with_nagle_are_quick_and_no_response_is_lost(
    destination: DicomDestination, spool: Spool, storescp: Path
) -> None:
    names = [_keep_small(spool, number) for number in range(64)]
    sender = DicomSender(destination, spool, SystemClock())
    began = time.monotonic()
    for _ in range(6):
        parcels = [_parcel(number, name) for number, name in enumerate(names)]
        receipts = [receipt async for receipt in sender.send(parcels)]
        assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED] * 64
    await sender.close()

    assert time.monotonic() - began < 10  # pauses of 40 ms would make it more than fifteen


async def test_more_syntaxes_than_contexts_take_more_associations(
    destination: DicomDestination, spool: Spool, storescp: Path
) -> None:
    names = [_keep(spool, b"", uid=f"1.2.{number}", sop_class=f"1.2.3.{number}") for number in range(1, 131)]

    receipts, error = await _send(destination, spool, names)

    assert error is None
    assert len(receipts) == 130


# --- every other outcome ---


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (0x0000, Verdict.DELIVERED),
        (0xB000, Verdict.DELIVERED),
        (0xB006, Verdict.DELIVERED),
        (0xB007, Verdict.DELIVERED),
        (0x0111, Verdict.DELIVERED),
        (0xA700, Verdict.RETRY),
        (0xA7FF, Verdict.RETRY),
        (0x0213, Verdict.RETRY),
        (0x0110, Verdict.RETRY_CONTENT),
        (0xA900, Verdict.REFUSED),
        (0xC000, Verdict.REFUSED),
        (0xC211, Verdict.REFUSED),
        (0x0122, Verdict.REFUSED),
        (0x0124, Verdict.REFUSED),
    ],
)
def test_a_status_has_its_verdict(status: int, verdict: Verdict) -> None:
    got, reason = verdict_of(status)

    assert got is verdict
    assert (reason is None) == (status == 0)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0xA900, "refused with status A900 (data set does not match its SOP Class)"),
        (0xC001, "refused with status C001 (cannot understand)"),
        (0x0122, "refused with status 0122 (SOP Class not supported)"),
        (0x0123, "refused with status 0123"),
    ],
)
def test_a_refusal_is_told_in_the_standards_words(status: int, words: str) -> None:
    assert verdict_of(status) == (Verdict.REFUSED, words)


@pytest.mark.parametrize(
    ("statuses", "verdicts"),
    [
        ([0x0000, 0xC000, 0xB007, 0x0000], {1: "delivered", 2: "refused", 3: "delivered", 4: "delivered"}),
        ([0x0000, 0xA700, 0xA700, 0xA700], {1: "delivered", 2: "retry"}),  # the peer is full
        ([0xA700, 0xA700, 0x0000, 0x0000], {1: "retry-content", 3: "delivered", 4: "delivered"}),
        (
            [0xA700, 0x0000, 0xA700, 0x0000],
            {1: "retry-content", 2: "delivered", 4: "delivered"},
        ),  # one Instance's fault
        ([0x0000, 0x0000, 0x0000, 0xA700], {1: "delivered", 2: "delivered", 3: "delivered", 4: "retry"}),
        ([0x0000, 0x0110, 0x0000, 0x0000], {1: "delivered", 2: "retry-content"}),
    ],
)
async def test_a_refusal_does_not_stop_the_batch_and_a_full_peer_does(
    destination: DicomDestination, spool: Spool, port: int, statuses: list[int], verdicts: dict[int, str]
) -> None:
    names = [_keep_small(spool, number) for number in range(4)]
    scp = Scp()
    scp.statuses = statuses
    with _archive(scp, port):
        receipts, error = await _send(destination, spool, names)

    assert error is None
    assert {receipt.delivery_id: receipt.verdict.value for receipt in receipts} == verdicts
    assert all(receipt.verdict is Verdict.DELIVERED or receipt.reason for receipt in receipts)
    assert receipts[-1].verdict.value == verdicts[receipts[-1].delivery_id]


async def test_what_the_peer_has_no_context_for_is_refused_and_the_rest_goes(
    destination: DicomDestination, spool: Spool, storescp_of_known_classes: Path
) -> None:
    names = [_keep_small(spool, 1), _keep(spool, b"x", uid="1.2.9", sop_class="1.2.99"), _keep_small(spool, 2)]

    receipts, _ = await _send(destination, spool, names)
    only, error = await _send(destination, spool, names[1:2])

    verdicts = [receipt.verdict for receipt in receipts]
    assert verdicts == [Verdict.DELIVERED, Verdict.REFUSED, Verdict.DELIVERED]
    assert receipts[1].reason == "the peer takes no 1.2.99 in Explicit VR Little Endian"
    assert error is None
    assert [receipt.verdict for receipt in only] == [Verdict.REFUSED]


async def test_a_missing_file_and_a_wrong_name_are_refused(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    with _archive(Scp(), port):
        receipts, error = await _send(destination, spool, ["a" * 64, "../../etc/passwd", None, _keep_small(spool, 1)])

    assert error is None
    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED] * 3 + [Verdict.DELIVERED]
    assert "missing" in (receipts[0].reason or "")


async def test_the_command_carries_the_data_sets_own_uid(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    name = _keep_small(spool, 1)
    other = _keep(spool, _dataset_bytes(spool.path_of(name)), uid="9.9.9")
    with _archive(Scp(), port) as scp:
        await _send(destination, spool, [other])

    assert scp.uids == ["1.2.3.1"]


async def test_nobody_listening_is_a_link_error(destination: DicomDestination, spool: Spool) -> None:
    receipts, error = await _send(destination, spool, [_keep_small(spool, 1)])

    assert receipts == []
    assert isinstance(error, LinkError)
    assert "refused" in str(error)


async def test_a_permanent_rejection_is_a_link_error_that_says_why(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    with _archive(Scp(), port, called=True):
        _, error = await _send(destination, spool, [_keep_small(spool, 1)])

    assert type(error) is LinkError
    assert "called AE title not recognised" in str(error)


async def test_a_transient_rejection_is_temporary(destination: DicomDestination, spool: Spool, port: int) -> None:
    def reject(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(b"\x03\0\0\0\0\x04\0\x02\x03\x01")
        sock.recv(1)

    with _scripted(port, reject):
        _, error = await _send(destination, spool, [_keep_small(spool, 1)])

    assert isinstance(error, TemporaryError)


def _accept_association(sock: socket.socket) -> None:
    """Answer an A-ASSOCIATE-RQ for one CT context the short way."""
    head = sock.recv(6, socket.MSG_WAITALL)
    request = sock.recv(int.from_bytes(head[2:6], "big"), socket.MSG_WAITALL)
    context = b"\x40\0\0\x13" + EXPLICIT.encode()
    items = b"\x10\0\0\x15" + b"1.2.840.10008.3.1.1.1"
    items += b"\x21\0" + (4 + len(context)).to_bytes(2, "big") + b"\x01\0\0\0" + context
    user = b"\x51\0\0\x04\0\0\x40\0" + b"\x52\0\0\x051.2.3"
    items += b"\x50\0" + len(user).to_bytes(2, "big") + user
    body = request[:68] + items
    sock.sendall(b"\x02\0" + len(body).to_bytes(4, "big") + body)


@pytest.mark.parametrize("moment", ["at-once", "associated"])
async def test_a_peer_that_goes_away_is_a_link_error(
    destination: DicomDestination, spool: Spool, port: int, moment: str
) -> None:
    def leave(sock: socket.socket) -> None:
        if moment == "at-once":
            sock.recv(10)
        else:
            _accept_association(sock)

    with _scripted(port, leave):
        began = time.monotonic()
        receipts, error = await _send(destination, spool, [_keep_small(spool, 1)])

    assert receipts == []
    assert isinstance(error, LinkError)
    assert time.monotonic() - began < 8


async def test_an_object_that_makes_the_peer_abort_is_tried_a_limited_number_of_times(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    def abort(sock: socket.socket) -> None:
        _accept_association(sock)
        sock.recv(200, socket.MSG_WAITALL)
        sock.sendall(b"\x07\0\0\0\0\x04\0\0\0\0")  # A-ABORT by the service user
        while sock.recv(65536):
            pass

    with _scripted(port, abort):
        receipts, error = await _send(destination, spool, [_keep_small(spool, 1), _keep_small(spool, 2)])

    assert error is None
    assert [(receipt.delivery_id, receipt.verdict) for receipt in receipts] == [(1, Verdict.RETRY_CONTENT)]


async def test_a_peer_that_never_answers_is_given_up(destination: DicomDestination, spool: Spool, port: int) -> None:
    def say_nothing(sock: socket.socket) -> None:
        _accept_association(sock)
        while sock.recv(65536):
            pass

    with _scripted(port, say_nothing):
        began = time.monotonic()
        _, error = await _send(replace(destination, response_timeout_s=0.5), spool, [_keep_small(spool, 1)])

    assert isinstance(error, LinkError)
    assert "no response" in str(error)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("others", [True, False])
async def test_an_object_that_is_never_answered_goes_last_and_then_counts_as_a_failure_where_others_are_taken(
    destination: DicomDestination, spool: Spool, port: int, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.senders.suspects.SUSPECT_AFTER", 2)
    scp, go_on = Scp(), threading.Event()
    poison = _keep_small(spool, 1)
    parcels = [_parcel(1, poison)] + [_parcel(number, _keep_small(spool, number)) for number in (2, 3) if others]

    def say_nothing() -> None:
        if scp.uids[-1] == "1.2.3.1":
            go_on.wait(20)

    scp.on_store = say_nothing
    sender = DicomSender(replace(destination, response_timeout_s=0.4), spool, SystemClock())
    told: list[list[tuple[int, Verdict]]] = []
    with _archive(scp, port):
        for _ in range(3):
            told.append([])
            try:
                async for receipt in sender.send(parcels):
                    told[-1].append((receipt.delivery_id, receipt.verdict))
            except LinkError:
                told[-1].append((0, Verdict.RETRY))
        await sender.close()
        go_on.set()

    lane_is_kept = (0, Verdict.RETRY)
    taken = [(2, Verdict.DELIVERED), (3, Verdict.DELIVERED), (1, Verdict.RETRY_CONTENT)]
    assert told == [[lane_is_kept], [lane_is_kept], taken if others else [lane_is_kept]]


async def test_a_peer_that_stops_reading_is_given_up(
    destination: DicomDestination, spool: Spool, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.senders.dicom.STALL_S", 0.5)
    enough = threading.Event()

    def stop_reading(sock: socket.socket) -> None:
        _accept_association(sock)
        enough.wait(20)

    with _scripted(port, stop_reading):
        began = time.monotonic()
        _, error = await _send(destination, spool, [_keep_small(spool, 1, bulk=40 << 20)])
        took_s = time.monotonic() - began
        enough.set()

    assert isinstance(error, LinkError)
    assert took_s < 6


async def test_what_was_delivered_before_a_failure_is_told(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    names = [_keep_small(spool, number) for number in range(3)]
    scp = Scp()
    with _archive(scp, port):
        sender = DicomSender(destination, spool, SystemClock())
        receipts: list[Receipt] = []
        stalled = threading.Event()

        def stall_on_second() -> None:
            if len(scp.uids) == 2:
                stalled.set()
                threading.Event().wait(1)

        scp.on_store = stall_on_second

        async def collect() -> None:
            async for receipt in sender.send([_parcel(number, name) for number, name in enumerate(names)]):
                receipts.append(receipt)

        task = asyncio.create_task(collect())
        assert await asyncio.to_thread(stalled.wait, 10)
        await sender.close()
        with pytest.raises(LinkError):
            await task

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED]


async def test_a_cancelled_send_ends_soon_and_leaves_no_thread(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    def say_nothing(sock: socket.socket) -> None:
        _accept_association(sock)
        while sock.recv(65536):
            pass

    async def collect(sender: DicomSender, name: str) -> list[Receipt]:
        return [receipt async for receipt in sender.send([_parcel(1, name)])]

    with _scripted(port, say_nothing):
        sender = DicomSender(replace(destination, response_timeout_s=60), spool, SystemClock())
        task = asyncio.create_task(collect(sender, _keep_small(spool, 1)))
        await _until(lambda: sender._line.is_open)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await sender.close()

    await _until(lambda: not [each for each in threading.enumerate() if each.name.startswith("dicom-out")])
    assert time.monotonic() - began < 5


# --- TLS ---


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of its own for `localhost`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "key.pem").write_bytes(private)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


@pytest.fixture
def storescp_tls(port: int, tmp_path: Path, certificate: tuple[Path, Path]) -> Iterator[Path]:
    cert, key = certificate
    with _storescp(port, tmp_path / "received", "+tls", str(key), str(cert), "-ic") as folder:
        yield folder


async def test_tls_is_spoken_and_the_peers_name_is_verified(
    destination: DicomDestination, spool: Spool, storescp_tls: Path, certificate: tuple[Path, Path]
) -> None:
    name = _keep_small(spool, 1, bulk=2 << 20)
    named = replace(destination, tls=ClientTls(ca=certificate[0], server_name="localhost"))
    wrong = replace(destination, tls=ClientTls(ca=certificate[0], server_name="other.example"))

    receipts, error = await _send(named, spool, [name])
    nothing, refused = await _send(wrong, spool, [name])

    assert error is None
    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED]
    assert nothing == []
    assert isinstance(refused, LinkError)
    assert "certificate" in str(refused).lower()


# --- probe ---


async def test_the_probe_says_echo(destination: DicomDestination, spool: Spool, storescp: Path) -> None:
    sender = DicomSender(destination, spool, SystemClock())

    assert "C-ECHO answered by PACS" in await sender.probe()
    await sender.close()


async def test_the_probe_tells_what_failed(destination: DicomDestination, spool: Spool) -> None:
    sender = DicomSender(replace(destination, host="no-such-host.invalid"), spool, SystemClock())

    with pytest.raises(LinkError, match=r"no-such-host\.invalid"):
        await sender.probe()
    await sender.close()


# --- Orthanc ---


async def test_orthanc_keeps_what_is_sent(
    destination: DicomDestination, spool: Spool, port: int, tmp_path: Path
) -> None:
    conf = tmp_path / "orthanc.json"
    storage = tmp_path / "orthanc"
    conf.write_text(
        f'{{"DicomPort": {port}, "DicomAet": "PACS", "HttpServerEnabled": false, "StorageDirectory": "{storage}",'
        f' "IndexDirectory": "{storage}", "Plugins": [], "StorageCompression": false}}'
    )
    process = subprocess.Popen(["Orthanc", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        await _until(lambda: _listens(port), 20)
        receipts, error = await _send(destination, spool, [_keep_file(spool, CT)])
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)

    assert error is None
    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED]
    stored = [path for path in storage.rglob("*") if path.is_file()]
    assert any(path.read_bytes().endswith(_dataset_bytes(CT)) for path in stored)


# --- what is made on the way ---


class Preparing:
    """Makes of each object one in the syntax that is wanted, and says what it was asked."""

    def __init__(self, spool: Spool, fault: Exception | None = None) -> None:
        self._spool = spool
        self._fault = fault
        self.asked: list[str | None] = []
        self.made: list[Path] = []

    def changes(self, destination: str) -> bool:
        return self._fault is not None

    def prepare(self, parcel: Parcel, path: Path, transfer_syntax: str | None) -> Path | None:
        self.asked.append(transfer_syntax)
        if self._fault is not None:
            raise self._fault
        if transfer_syntax is None:
            return None
        with self._spool.new_incoming() as file, open_body(path) as body:
            body.write(file, transfer_syntax)
        self.made.append(Path(file.name))
        return self.made[-1]


async def _send_prepared(
    settings: DicomDestination, spool: Spool, names: Sequence[str], preparing: Preparing
) -> list[Receipt]:
    sender = DicomSender(settings, spool, SystemClock(), preparer=preparing)
    receipts = [
        receipt async for receipt in sender.send([_parcel(number, name) for number, name in enumerate(names, 1)])
    ]
    await sender.close()
    return receipts


async def test_an_uncompressed_syntax_that_the_peer_does_not_take_is_converted(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    names = [_keep_file(spool, TEST_FILES / name) for name in ("MR_small_bigendian.dcm", "JPEG2000.dcm")]
    preparing = Preparing(spool)
    scp = Scp()
    with _archive(scp, port, takes=(MRImageStorage, "1.2.840.10008.1.2")):
        receipts = await _send_prepared(destination, spool, names, preparing)

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED, Verdict.REFUSED]
    assert receipts[1].reason == "the peer takes no Secondary Capture Image Storage in JPEG 2000 Image Compression"
    assert preparing.asked == ["1.2.840.10008.1.2"]
    assert not preparing.made[0].exists()
    with open_body(TEST_FILES / "MR_small_bigendian.dcm") as body, (spool.folder / "made").open("wb") as made:
        body.write(made, "1.2.840.10008.1.2")
    assert scp.data_sets == [_dataset_bytes(spool.folder / "made")]


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (ContentError("not de-identified: x"), Verdict.REFUSED),
        (StoreError("full"), Verdict.RETRY),
        (OSError(28, "No space"), Verdict.RETRY),
    ],
)
async def test_what_cannot_be_made_ready_is_refused_or_tried_later(
    destination: DicomDestination, spool: Spool, storescp: Path, fault: Exception, verdict: Verdict
) -> None:
    (receipt,) = await _send_prepared(destination, spool, [_keep_small(spool, 1)], Preparing(spool, fault))

    assert receipt.verdict is verdict


async def test_an_archive_that_tires_while_a_file_is_made_gets_it_on_another_association(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    scp = Scp()

    class Slow(Preparing):
        def changes(self, destination: str) -> bool:
            return True

        def prepare(self, parcel: Parcel, path: Path, transfer_syntax: str | None) -> Path | None:
            scp.association.abort()
            while sender._line.is_open:
                threading.Event().wait(0.001)
            return super().prepare(parcel, path, EXPLICIT)

    sender = DicomSender(destination, spool, SystemClock(), preparer=Slow(spool))
    parcels = [_parcel(number, _keep_small(spool, number)) for number in (1, 2)]
    with _archive(scp, port):
        receipts = [receipt async for receipt in sender.send(parcels)]
        await sender.close()

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED] * 2
    assert (scp.uids, scp.associations) == (["1.2.3.1", "1.2.3.2"], 3)


async def test_a_batch_goes_study_by_study(destination: DicomDestination, spool: Spool, port: int) -> None:
    names = []
    for number, study in enumerate(("1.5", "1.6", "1.5", "1.7", "1.6", "1.5")):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.StudyInstanceUID = CT_CLASS, f"1.2.{number}", study
        path = spool.folder / "study"
        dataset.save_as(path, implicit_vr=False, little_endian=True)
        names.append(_keep(spool, path.read_bytes(), uid=f"1.2.{number}"))
    with _archive(Scp(), port) as scp:
        receipts, _ = await _send(destination, spool, names)

    assert scp.uids == [f"1.2.{number}" for number in (0, 2, 5, 1, 4, 3)]
    assert [receipt.delivery_id for receipt in receipts] == [1, 3, 6, 2, 5, 4]


@pytest.mark.parametrize(
    ("statuses", "verdicts"), [([0], [Verdict.DELIVERED] * 2), ([0, 0xA700], [Verdict.DELIVERED, Verdict.RETRY])]
)
async def test_a_turn_ends_after_a_while_so_that_what_is_urgent_gets_its_own(
    statuses: list[int], verdicts: list[Verdict], destination: DicomDestination, spool: Spool, port: int
) -> None:
    clock = ManualClock()
    parcels = [_parcel(number, _keep_small(spool, number)) for number in range(1, 6)]
    scp = Scp()
    scp.statuses, scp.on_store = statuses, lambda: clock.advance(TURN_S / 2)
    with _archive(scp, port):
        sender = DicomSender(destination, spool, clock)
        receipts = [receipt async for receipt in sender.send(parcels)]
        scp.statuses = [0]
        others = [receipt.delivery_id async for receipt in sender.send(parcels[2:])]
        await sender.close()

    assert [receipt.verdict for receipt in receipts] == verdicts
    assert others == [3, 4]


async def test_a_turn_does_not_end_before_it_is_known_who_is_at_fault(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    clock = ManualClock()
    parcels = [_parcel(number, _keep_small(spool, number)) for number in range(1, 4)]
    scp = Scp()
    scp.statuses, scp.on_store = [0xA700, 0], lambda: clock.advance(TURN_S)
    with _archive(scp, port):
        sender = DicomSender(destination, spool, clock)
        receipts = [receipt async for receipt in sender.send(parcels)]
        await sender.close()

    told = [(receipt.delivery_id, receipt.verdict) for receipt in receipts]
    assert told == [(2, Verdict.DELIVERED), (1, Verdict.RETRY_CONTENT)]


async def test_bandwidth_is_shared_by_the_lanes(destination: DicomDestination, spool: Spool, storescp: Path) -> None:
    bandwidth = Bandwidth(2_000_000, SystemClock())
    names = [_keep_small(spool, number, bulk=600_000) for number in range(2)]

    async def lane(name: str) -> None:
        sender = DicomSender(destination, spool, SystemClock(), bandwidth=bandwidth)
        assert [each.verdict async for each in sender.send([_parcel(1, name)])] == [Verdict.DELIVERED]
        await sender.close()

    began = time.monotonic()
    await asyncio.gather(*map(lane, names))

    assert 0.3 < time.monotonic() - began < 5  # 1.2 MB at 2 MB/s, a quarter of a second at once


async def test_urgent_instances_bear_a_high_priority_and_committed_ones_their_names(
    destination: DicomDestination, spool: Spool, port: int
) -> None:
    parcel = _parcel(1, _keep_small(spool, 1))
    urgent = replace(parcel, delivery=replace(parcel.delivery, priority=1))
    with _archive(Scp(), port) as scp:
        sender = DicomSender(replace(destination, commitment=True), spool, SystemClock())
        receipts = [receipt async for receipt in sender.send([urgent])]
        await sender.close()

    assert scp.priorities == [1]
    assert [receipt.archived for receipt in receipts] == [(CT_CLASS, "1.2.3.1")]
