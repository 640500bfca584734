import asyncio
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
import uvloop
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from gateway.clock import SystemClock
from gateway.errors import LinkError, TemporaryError
from gateway.formats.dicom import read_meta
from gateway.net.dicom_file import CHUNK_BYTES
from gateway.net.requestor import (
    Asked,
    NoContextError,
    Outgoing,
    Peer,
    PeerAbortError,
    Reply,
    RequestedAssociation,
    Wanted,
    open_association,
)
from gateway.protocols.dimse import Field

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
CT_CLASS, EXPLICIT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
ECHO = Wanted("1.2.840.10008.1.1", (IMPLICIT,))
STORE = Wanted(CT_CLASS, (EXPLICIT,))
WORKLIST = "1.2.840.10008.5.1.4.31"
WAIT_S = 10.0
ANSWERS_BEFORE_CANCEL = 1000


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@contextmanager
def scp(
    contexts: list[Any],
    handlers: Sequence[Any] = (),
    *,
    pdu_max: int = 16382,
    **options: Any,
) -> Iterator[Peer]:
    """pynetdicom's own AE as the peer."""
    ae = AE("PEER")
    ae.maximum_pdu_size = pdu_max
    for context in contexts:
        ae.add_supported_context(context, [EXPLICIT, IMPLICIT], scu_role=True, scp_role=True)
    server = ae.make_server(
        ("127.0.0.1", 0), server_class=ThreadedAssociationServer, evt_handlers=list(handlers), **options
    )
    ae._servers.append(server)  # its shutdown takes it out again
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Peer(host="127.0.0.1", port=server.server_address[1], ae_title="PEER", calling_ae_title="GATEWAY")
    finally:
        server.shutdown()
        thread.join(WAIT_S)


@contextmanager
def raw_peer(serve: Callable[[socket.socket], None]) -> Iterator[Peer]:
    """A peer that does what no library would."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(WAIT_S)

        def run() -> None:
            with suppress(OSError):
                sock, _ = server.accept()
                sock.settimeout(WAIT_S)
                with sock:
                    serve(sock)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield Peer(
                host="127.0.0.1",
                port=server.getsockname()[1],
                ae_title="PEER",
                calling_ae_title="GATEWAY",
                connect_timeout_s=0.5,
                response_timeout_s=0.5,
                stall_s=0.5,
            )
        finally:
            thread.join(WAIT_S)


async def _open(peer: Peer, *contexts: Wanted, **options: Any) -> RequestedAssociation:
    return await open_association(peer, contexts or (STORE, ECHO), SystemClock(), **options)


def _send_ct(association: RequestedAssociation, path: Path = CT, **options: Any) -> Any:
    meta = read_meta(path)
    size = path.stat().st_size - meta.dataset_offset
    out = Outgoing(
        path=path,
        dataset_offset=meta.dataset_offset,
        size=size,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax=meta.transfer_syntax,
    )
    return association.store(out, **options)


def _out(path: Path, offset: int, size: int, uid: str = "1.2.3") -> Outgoing:
    return Outgoing(
        path=path,
        dataset_offset=offset,
        size=size,
        sop_class_uid=CT_CLASS,
        sop_instance_uid=uid,
        transfer_syntax=EXPLICIT,
    )


def _until_closed(folder: Path) -> None:
    """Wait until this process has no file of a folder open."""
    until = time.monotonic() + WAIT_S
    while any(number.resolve().is_relative_to(folder) for number in Path("/proc/self/fd").iterdir()):
        assert time.monotonic() < until, "a file stays open"
        time.sleep(0.01)


# --- what well-behaved peers do ---


async def test_an_echo_is_answered_and_released() -> None:
    released = threading.Event()
    with scp([Verification], [(evt.EVT_RELEASED, lambda _: released.set())]) as peer:
        association = await _open(peer, ECHO)
        answer = await association.echo()
        await association.release()

        assert answer.status == 0
        assert await asyncio.to_thread(released.wait, WAIT_S)
        with pytest.raises(LinkError):
            await association.echo()


@pytest.mark.parametrize("pdu_max", [0, 128, 4096, 16382, 1 << 20])
async def test_a_file_arrives_as_it_lies_whatever_the_peers_pdu(pdu_max: int) -> None:
    came: list[Any] = []

    def keep(event: Any) -> int:
        came.append((event.request.DataSet.getvalue(), event.request.MoveOriginatorApplicationEntityTitle))
        return 0xB007

    with scp([CTImageStorage], [(evt.EVT_C_STORE, keep)], pdu_max=pdu_max) as peer:
        association = await _open(peer)
        first = await _send_ct(association, move_originator=("MOVER", 9))
        second = await _send_ct(association)
        await association.release()

    dataset = CT.read_bytes()[read_meta(CT).dataset_offset :]
    assert (first.status, second.status) == (0xB007, 0xB007)
    assert came == [(dataset, "MOVER"), (dataset, None)]


@pytest.mark.parametrize("size", [0, 1, 2, 16370, 262143, 262144, 262145, 262146, 700_001])
async def test_every_size_arrives_whole_and_even(size: int, tmp_path: Path) -> None:
    came: list[bytes] = []

    def keep(event: Any) -> int:
        came.append(event.request.DataSet.getvalue())
        return 0

    path = tmp_path / "object"
    path.write_bytes(b"head" + os.urandom(size))
    with scp([CTImageStorage], [(evt.EVT_C_STORE, keep)]) as peer:
        association = await _open(peer)
        await association.store(_out(path, 4, size))
        await association.abort()

    assert came == [path.read_bytes()[4:] + b"\0" * (size % 2)]


async def test_dcmtk_takes_what_is_stored(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with _storescp(tmp_path, port):
        peer = Peer(host="127.0.0.1", port=port, ae_title="ANY", calling_ae_title="GATEWAY")
        association = await _patiently(lambda: _open(peer))
        assert (await _send_ct(association)).status == 0
        assert (await association.echo()).status == 0
        await association.release()

    assert pydicom.dcmread(next(_paths(tmp_path))) == pydicom.dcmread(CT)


@contextmanager
def _storescp(folder: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen(["storescp", "+B", "-od", str(folder), str(port)])
    try:
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


def _paths(folder: Path) -> Iterator[Path]:
    return folder.iterdir()


async def _patiently(attempt: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return await attempt()
        except LinkError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


def _identifier() -> bytes:
    return b"\x10\0\x10\0\0\0\0\0"  # (0010,0010), empty


def _is_cancelled(event: Any, *, patiently: bool) -> bool:
    """Wait for C-CANCEL where it must come: a pynetdicom that goes on sending hears it late, or never."""
    for _ in range(int(WAIT_S / 0.01) if patiently else 0):
        if event.is_cancelled:
            return True
        threading.Event().wait(0.01)
    return bool(event.is_cancelled)


def _find_handler(count: int, seen: list[Any]) -> Callable[[Any], Iterator[tuple[int, Any]]]:
    def handle(event: Any) -> Iterator[tuple[int, Any]]:
        for number in range(count):
            if _is_cancelled(event, patiently=number >= ANSWERS_BEFORE_CANCEL):
                seen.append("cancelled")
                yield 0xFE00, None
                return
            answer = Dataset()
            answer.PatientID = f"{number}"
            yield 0xFF00, answer
        yield 0x0000, None

    return handle


async def test_find_yields_every_answer_and_the_final_status() -> None:
    with scp([ModalityWorklistInformationFind], [(evt.EVT_C_FIND, _find_handler(300, []))]) as peer:
        association = await _open(peer, Wanted(WORKLIST, (IMPLICIT,)))
        answers = [answer async for answer in association.find(WORKLIST, _identifier())]
        await association.release()

    assert [status for status, _ in answers] == [0xFF00] * 300 + [0]
    assert b"299" in answers[-2][1]
    assert answers[-1][1] == b""


async def test_leaving_a_find_early_cancels_it_and_the_association_goes_on() -> None:
    seen: list[Any] = []
    handlers = [(evt.EVT_C_FIND, _find_handler(100_000, seen))]
    with scp([ModalityWorklistInformationFind, Verification], handlers) as peer:
        association = await _open(peer, Wanted(WORKLIST, (IMPLICIT,)), ECHO)
        answers = association.find(WORKLIST, _identifier())
        assert (await anext(answers))[0] == 0xFF00
        await answers.aclose()

        assert (await association.echo()).status == 0
        assert seen == ["cancelled"]
        await association.release()


async def test_normalised_services_bring_their_data_and_answers() -> None:
    came: list[Any] = []

    def create(event: Any) -> tuple[int, Dataset]:
        came.append((str(event.request.AffectedSOPInstanceUID), event.attribute_list.PatientID))
        return 0x0000, event.attribute_list

    def change(event: Any) -> tuple[int, None]:
        came.append((str(event.request.RequestedSOPInstanceUID), event.modification_list.PatientID))
        return 0x0110, None

    handlers = [(evt.EVT_N_CREATE, create), (evt.EVT_N_SET, change)]
    with scp([ModalityPerformedProcedureStep], handlers) as peer:
        mpps = str(ModalityPerformedProcedureStep)
        association = await _open(peer, Wanted(mpps, (IMPLICIT,)))
        data = struct.pack("<HHL", 0x10, 0x20, 2) + b"ZZ"
        created = await association.normalised(Field.N_CREATE, mpps, "1.2.3", data)
        changed = await association.normalised(Field.N_SET, mpps, "1.2.3", data)
        await association.release()

    assert (created.status, created.data, created.transfer_syntax) == (0, data, IMPLICIT)
    assert changed.status == 0x0110
    assert came == [("1.2.3", "ZZ"), ("1.2.3", "ZZ")]


async def test_a_report_of_the_peer_on_our_association_is_answered() -> None:
    asked: list[Asked] = []
    answered: list[int] = []

    def act(event: Any) -> tuple[int, None]:
        def report() -> None:
            result = Dataset()
            result.TransactionUID = "1.2"
            status, _ = event.assoc.send_n_event_report(
                result, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1", 7
            )
            answered.append(status.Status)

        threading.Thread(target=report).start()
        return 0, None

    async def serve(request: Asked) -> Reply:
        asked.append(request)
        return Reply(status=0)

    with scp([StorageCommitmentPushModel], [(evt.EVT_N_ACTION, act)]) as peer:
        commitment = str(StorageCommitmentPushModel)
        association = await _open(peer, Wanted(commitment, (IMPLICIT,)), serve=serve)
        await association.normalised(Field.N_ACTION, commitment, "1.2.840.10008.1.20.1.1", _identifier(), action_type=1)
        async with asyncio.timeout(WAIT_S):
            while not answered:  # noqa: ASYNC110  # a thread outside tells nobody
                await asyncio.sleep(0.01)
        await association.release()

    assert answered == [0]
    assert (asked[0].command.field, asked[0].command.event_type) == (Field.N_EVENT_REPORT, 1)
    assert b"1.2" in asked[0].data


async def test_a_thousand_operations_never_lose_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(os.urandom(500))
    with scp([CTImageStorage, Verification], [(evt.EVT_C_STORE, lambda _: 0)]) as peer:
        association = await _open(peer)
        for number in range(150):
            assert (await association.store(_out(path, 0, 500, f"1.2.{number}"))).status == 0
            assert (await association.echo()).status == 0
        await association.release()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_what_was_looked_ahead_to_is_sent_whole_and_what_was_not_too(
    tls: bool, contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    came: list[bytes] = []

    def keep(event: Any) -> int:
        came.append(event.request.DataSet.getvalue())
        return 0

    sizes = (0, 1, 700_001, 5000, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES)
    files = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}"
        path.write_bytes(b"head" + os.urandom(size))
        files.append(_out(path, 4, size, f"1.2.{number}"))
    with scp([CTImageStorage], [(evt.EVT_C_STORE, keep)], ssl_context=contexts[0] if tls else None) as peer:
        association = await _open(replace(peer, tls=contexts[1]) if tls else peer, STORE)
        gone = _out(tmp_path / "gone", 0, 10)
        for file, ahead in zip(files, [*files[1:4], files[0], gone, files[6], files[5]], strict=True):
            assert (await association.store(file, ahead=ahead)).status == 0
        await association.store(files[1], ahead=gone)
        with pytest.raises(FileNotFoundError):
            await association.store(gone)
        assert (await association.store(files[1], ahead=files[2])).status == 0
        await association.release()

    sent = [file.path.read_bytes()[4:] for file in files]
    assert came == [each + b"\0" * (len(each) % 2) for each in [*sent, sent[1], sent[1]]]
    await asyncio.to_thread(_until_closed, tmp_path)


async def test_a_context_that_was_not_taken_is_refused_before_anything_is_sent() -> None:
    with scp([Verification]) as peer:
        association = await _open(peer)
        assert association.accepts(CT_CLASS) == ()
        assert association.accepts(ECHO.sop_class_uid) == (IMPLICIT,)
        with pytest.raises(NoContextError):
            await _send_ct(association)
        assert (await association.echo()).status == 0
        await association.release()
        with pytest.raises(NoContextError):
            await _open(peer, STORE)


async def test_a_missing_file_leaves_the_association_sound(tmp_path: Path) -> None:
    with scp([CTImageStorage, Verification]) as peer:
        association = await _open(peer)
        with pytest.raises(FileNotFoundError):
            await association.store(_out(tmp_path / "gone", 0, 10))
        assert (await association.echo()).status == 0
        await association.release()


async def test_a_file_that_ends_early_ends_the_association(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"1234")
    with scp([CTImageStorage]) as peer:
        association = await _open(peer)
        with pytest.raises(LinkError):
            await association.store(_out(path, 0, 10))
        assert not association.is_open
        await association.abort()


async def test_a_hundred_and_twenty_eight_contexts_are_asked_for() -> None:
    with scp([CTImageStorage, Verification]) as peer:
        contexts = [Wanted(f"1.2.3.{number}", (EXPLICIT, IMPLICIT)) for number in range(127)]
        association = await _open(peer, *contexts, STORE)
        assert association.accepts(CT_CLASS) == (EXPLICIT,)
        await association.release()


# --- peers that misbehave ---


def _read_pdu(sock: socket.socket) -> int:
    head = sock.recv(6, socket.MSG_WAITALL)
    if len(head) < 6:
        return 0
    kind, length = struct.unpack(">BxL", head)
    while length:
        length -= len(sock.recv(min(length, 65536)))
    return int(kind)


def _accept(sock: socket.socket, pdu_max: int = 16384) -> None:
    """Accept the first context, in Explicit VR Little Endian."""
    _read_pdu(sock)
    syntax = EXPLICIT.encode()
    items = struct.pack(">BxH", 0x10, 21) + b"1.2.840.10008.3.1.1.1"
    items += struct.pack(">BxHBxBx", 0x21, 8 + len(syntax), 1, 0) + struct.pack(">BxH", 0x40, len(syntax)) + syntax
    items += struct.pack(">BxHBxHL", 0x50, 8, 0x51, 4, pdu_max)
    body = struct.pack(">H2x16s16s32x", 1, b"PEER", b"GATEWAY") + items
    sock.sendall(struct.pack(">BxL", 2, len(body)) + body)


def _response(number: int) -> bytes:
    command = struct.pack("<HHLH", 0, 0x0100, 2, 0x8001) + struct.pack("<HHLH", 0, 0x0120, 2, number)
    command += struct.pack("<HHLH", 0, 0x0800, 2, 0x0101) + struct.pack("<HHLH", 0, 0x0900, 2, 0)
    return struct.pack(">BxLLBB", 4, len(command) + 6, len(command) + 2, 1, 3) + command


async def test_nobody_there_is_a_link_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        peer = Peer(host="127.0.0.1", port=taken.getsockname()[1], ae_title="A", calling_ae_title="B")
        with pytest.raises(LinkError, match="refused"):
            await _open(peer)


@pytest.mark.parametrize(("result", "error"), [(1, LinkError), (2, TemporaryError)])
async def test_a_rejection_is_for_now_or_for_good(result: int, error: type[Exception]) -> None:
    def serve(sock: socket.socket) -> None:
        _read_pdu(sock)
        sock.sendall(struct.pack(">BxLxBBB", 3, 4, result, 3, 2))
        sock.recv(1)

    with raw_peer(serve) as peer, pytest.raises(error, match="local limit exceeded"):
        await _open(peer)


@pytest.mark.parametrize("serve", [lambda sock: sock.recv(1 << 16) and sock.recv(1), _read_pdu], ids=["silent", "gone"])
async def test_no_answer_to_the_request_is_a_link_error(serve: Callable[[socket.socket], None]) -> None:
    with raw_peer(serve) as peer, pytest.raises(LinkError):
        await _open(peer)


async def test_a_peer_that_stops_reading_is_given_up(tmp_path: Path) -> None:
    done = threading.Event()

    def serve(sock: socket.socket) -> None:
        _accept(sock)
        done.wait(WAIT_S)

    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    with raw_peer(serve) as peer:
        association = await _open(peer, STORE)
        began = time.monotonic()
        with pytest.raises(LinkError, match="took nothing"):
            await association.store(_out(path, 0, 64 << 20))
        await association.abort()
        done.set()

        assert time.monotonic() - began < 5


async def test_who_is_cancelled_while_he_releases_leaves_no_connection_behind() -> None:
    asked, closed = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        _accept(sock)
        assert _read_pdu(sock) == 5  # A-RELEASE-RQ; its answer is long in coming
        asked.set()
        while _read_pdu(sock):
            pass
        closed.set()

    with raw_peer(serve) as peer:
        releasing = asyncio.create_task((await _open(peer)).release())
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing

        assert await asyncio.to_thread(closed.wait, WAIT_S)


async def test_a_peer_that_never_answers_is_given_up() -> None:
    def serve(sock: socket.socket) -> None:
        _accept(sock)
        while _read_pdu(sock):
            pass

    with raw_peer(serve) as peer:
        association = await _open(peer, STORE)
        with pytest.raises(LinkError, match="no response"):
            await _send_ct(association)
        assert not association.is_open
        await association.abort()


async def test_an_abort_in_reply_is_told_from_a_break() -> None:
    def serve(sock: socket.socket) -> None:
        _accept(sock)
        _read_pdu(sock)
        sock.sendall(struct.pack(">BxL4x", 7, 4))
        sock.recv(1 << 20)

    with raw_peer(serve) as peer:
        association = await _open(peer, STORE)
        with pytest.raises(PeerAbortError):
            await _send_ct(association)
        await association.abort()


async def test_an_answer_to_another_message_is_nobodys() -> None:
    def serve(sock: socket.socket) -> None:
        _accept(sock)
        _read_pdu(sock)
        sock.sendall(_response(77))
        while _read_pdu(sock):
            pass

    with raw_peer(serve) as peer:
        association = await _open(peer, STORE)
        with pytest.raises(LinkError, match="nothing that was asked"):
            await _send_ct(association)
        await association.abort()


async def test_a_cancelled_store_leaves_nothing_running(tmp_path: Path) -> None:
    def serve(sock: socket.socket) -> None:
        _accept(sock)
        while _read_pdu(sock):
            pass

    with raw_peer(lambda sock: serve(sock)) as peer:
        association = await _open(replace(peer, response_timeout_s=WAIT_S), STORE)
        task = asyncio.create_task(_send_ct(association))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not association.is_open
        await association.abort()


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "1"]
    subprocess.run([*command, "-keyout", key, "-out", cert, *names], check=True, capture_output=True)
    return cert, key


@pytest.fixture
async def contexts(certificate: tuple[Path, Path]) -> AsyncIterator[tuple[ssl.SSLContext, ssl.SSLContext]]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*certificate)
    yield server, ssl.create_default_context(cafile=str(certificate[0]))


async def test_a_file_goes_over_tls(contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path) -> None:
    came: list[bytes] = []

    def keep(event: Any) -> int:
        came.append(event.request.DataSet.getvalue())
        return 0

    path = tmp_path / "object"
    path.write_bytes(os.urandom(1_500_001))
    with scp([CTImageStorage, Verification], [(evt.EVT_C_STORE, keep)], ssl_context=contexts[0]) as peer:
        association = await _open(replace(peer, tls=contexts[1]))
        assert (await association.store(_out(path, 0, 1_500_001))).status == 0
        assert (await association.echo()).status == 0
        await association.release()

    assert came == [path.read_bytes() + b"\0"]


async def test_an_unknown_certificate_is_a_link_error(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with scp([Verification], ssl_context=contexts[0]) as peer, pytest.raises(LinkError, match="CERTIFICATE"):
        await _open(replace(peer, tls=ssl.create_default_context()))
