import asyncio
import base64
import contextlib
import json
import logging
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import SystemClock
from gateway.config import ClientTls, StowDestination
from gateway.errors import ContentError, GatewayError, LinkError, TemporaryError
from gateway.formats.dicom import part10_prefix, read_meta
from gateway.model import Parcel, Receipt, Verdict
from gateway.pacing import Bandwidth
from gateway.senders import stow
from gateway.senders.stow import StowSender, read_answer
from gateway.spool import Spool
from gateway.typed import Secret
from tests.gateway.imaging.objects import TEST_FILES, ct, parcel, written
from tests.gateway.senders.dicomweb_server import Archive, serving
from tests.gateway.spooling import keep_object

DESTINATION = StowDestination(name="cloud", url="http://127.0.0.1:1/dicom-web", connect_timeout_s=3)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.open()
    return spool


def keep(spool: Spool, path: Path) -> str:
    meta = read_meta(path)
    prefix = part10_prefix(
        sop_class_uid=meta.sop_class_uid, sop_instance_uid=meta.sop_instance_uid, transfer_syntax=meta.transfer_syntax
    )
    return keep_object(spool, prefix + path.read_bytes()[meta.dataset_offset :], len(prefix)).name


def keep_small(spool: Spool, number: int) -> str:
    return keep(spool, written(ct(SOPInstanceUID=f"1.9.{number}"), spool.folder / "small.dcm"))


def parcels(names: Sequence[str | None]) -> list[Parcel]:
    made = []
    for number, name in enumerate(names, 1):
        one = parcel(name)
        made.append(replace(one, delivery=replace(one.delivery, id=number)))
    return made


async def send(
    destination: StowDestination, spool: Spool, names: Sequence[str | None], **more: object
) -> tuple[list[Receipt], GatewayError | None]:
    sender = StowSender(destination, spool, **more)  # type: ignore[arg-type]
    receipts: list[Receipt] = []
    try:
        async for receipt in sender.send(parcels(names)):
            receipts.append(receipt)
    except (LinkError, TemporaryError) as error:
        return receipts, error
    finally:
        await sender.close()
    return receipts, None


def at(archive: Archive, **more: object) -> StowDestination:
    return replace(DESTINATION, url=f"http://127.0.0.1:{archive.port}/dicom-web", **more)  # type: ignore[arg-type]


def verdicts(receipts: list[Receipt]) -> dict[int, str]:
    return {receipt.delivery_id: receipt.verdict.value for receipt in receipts}


# --- Orthanc ---


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[int]:
    """Orthanc with its DICOMweb plugin; the port of its HTTP server."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        http, dicom = one.getsockname()[1], other.getsockname()[1]
    config = {
        "HttpPort": http,
        "DicomPort": dicom,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"gateway": "secret word"},
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        ["Orthanc", str(tmp_path / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(1000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", http), 1):
                break
            process.poll()
            assert process.returncode is None
            asyncio.run(asyncio.sleep(0.02))
        yield http
    finally:
        process.kill()
        process.wait(10)


async def test_orthanc_keeps_what_is_stored_over_the_web(orthanc: int, spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret word\n")
    destination = replace(
        DESTINATION,
        url=f"http://127.0.0.1:{orthanc}/dicom-web/",
        username="gateway",
        secret=Secret(file=tmp_path / "password"),
    )
    names = ("CT_small.dcm", "JPEG2000.dcm", "MR_small_bigendian.dcm", "test-SR.dcm", "waveform_ecg.dcm")
    paths = [TEST_FILES / name for name in names]

    receipts, error = await send(destination, spool, [keep(spool, path) for path in paths])

    assert error is None
    assert verdicts(receipts) == dict.fromkeys(range(1, 6), "delivered")
    assert await asyncio.to_thread(_held_by, orthanc) == {str(pydicom.dcmread(path).SOPInstanceUID) for path in paths}
    probing = StowSender(destination, spool)
    assert "DICOMweb answered" in await probing.probe()
    await probing.close()
    _, refused = await send(replace(destination, username=None), spool, [keep(spool, paths[0])])
    assert isinstance(refused, TemporaryError)
    assert "401" in str(refused)


def _held_by(port: int) -> set[str]:
    token = base64.b64encode(b"gateway:secret word").decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/instances?expand", headers={"Authorization": f"Basic {token}"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return {each["MainDicomTags"]["SOPInstanceUID"] for each in json.load(response)}


# --- what is sent ---


async def test_a_batch_is_one_request_with_every_object_as_it_lies(spool: Spool) -> None:
    names = [keep(spool, TEST_FILES / name) for name in ("CT_small.dcm", "JPEG2000.dcm")]
    with serving(Archive()) as archive:
        receipts, error = await send(at(archive), spool, names)

    assert error is None
    assert verdicts(receipts) == {1: "delivered", 2: "delivered"}
    assert len(archive.requests) == 1
    assert archive.bodies == [spool.path_of(name).read_bytes() for name in names]
    assert archive.authorizations == [None]


@pytest.mark.parametrize(
    ("username", "expected"), [(None, "Bearer word"), ("me", "Basic " + base64.b64encode(b"me:word").decode())]
)
async def test_the_secret_says_who_we_are(spool: Spool, tmp_path: Path, username: str | None, expected: str) -> None:
    (tmp_path / "secret").write_text("word\n")
    with serving(Archive()) as archive:
        told = at(archive, username=username, secret=Secret(file=tmp_path / "secret"))
        await send(told, spool, [keep_small(spool, 1)])
        _, error = await send(replace(told, secret=Secret(file=tmp_path / "none")), spool, [keep_small(spool, 1)])

    assert archive.authorizations == [expected]
    assert isinstance(error, LinkError)
    assert "word" not in str(error)


class Preparing:
    """Makes of each object a copy with another name, or fails."""

    def __init__(self, spool: Spool, fault: Exception | None = None) -> None:
        self._spool = spool
        self._fault = fault

    def changes(self, destination: str) -> bool:
        return True

    def prepare(self, parcel: Parcel, path: Path, transfer_syntax: str | None) -> Path | None:
        if self._fault is not None and parcel.delivery.id == 1:
            raise self._fault
        return written(
            ct(SOPInstanceUID=f"1.8.{parcel.delivery.id}"), self._spool.incoming / f"{parcel.delivery.id}.dcm"
        )


async def test_what_a_rule_made_goes_out_and_what_it_refuses_does_not(spool: Spool) -> None:
    names = [keep_small(spool, number) for number in (1, 2)]
    with serving(Archive(failed={"1.8.2": 0xC000})) as archive:
        receipts, _ = await send(at(archive), spool, names, preparer=Preparing(spool, ContentError("not clean")))

    assert archive.requests == [["1.8.2"]]
    assert verdicts(receipts) == {1: "refused", 2: "refused"}
    assert receipts[0].reason == "not clean"
    assert not list(spool.incoming.glob("[0-9].dcm"))


async def test_a_large_batch_is_several_requests(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stow, "REQUEST_BYTES_MAX", 1100)
    names = [keep_small(spool, number) for number in range(4)]
    with serving(Archive()) as archive:
        receipts, _ = await send(at(archive), spool, names)

    assert [len(uids) for uids in archive.requests] == [2, 2]
    assert set(verdicts(receipts).values()) == {"delivered"}


async def test_of_two_contents_under_one_uid_each_has_an_answer_of_its_own(spool: Spool) -> None:
    names = [
        keep(spool, written(ct(SOPInstanceUID=uid, StudyDescription=text), spool.folder / "one.dcm"))
        for uid, text in (("1.9.1", "first"), ("1.9.2", ""), ("1.9.1", "second"))
    ]
    with serving(Archive()) as archive:
        receipts, _ = await send(at(archive), spool, names)

    assert archive.requests == [["1.9.1", "1.9.2"], ["1.9.1"]]
    assert set(verdicts(receipts).values()) == {"delivered"}


async def test_the_library_writes_no_log_of_its_own(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), serving(Archive()) as archive:
        await send(at(archive), spool, [keep_small(spool, 1)])

    assert not [record for record in caplog.records if record.name.startswith("http")]


async def test_bandwidth_holds_for_the_web_too(spool: Spool) -> None:
    bandwidth = Bandwidth(20_000, SystemClock())
    began = asyncio.get_running_loop().time()
    with serving(Archive()) as archive:
        await send(at(archive), spool, [keep(spool, TEST_FILES / "MR_small.dcm")], bandwidth=bandwidth)

    assert 0.2 < asyncio.get_running_loop().time() - began < 5  # 9.8 kB at 20 kB/s, a quarter of a second at once


# --- what is answered ---


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        (Archive(says_nothing=True), {1: "delivered", 2: "delivered", 3: "delivered"}),
        (Archive(forgets={"1.9.2"}), {1: "delivered", 3: "delivered", 2: "retry-content"}),
        (Archive(forgets={"1.9.1", "1.9.2", "1.9.3"}), {1: "retry-content"}),
        (
            Archive(statuses=[202], warned={"1.9.1": 0xB000}, failed={"1.9.2": 0xA900}),
            {1: "delivered", 2: "refused", 3: "delivered"},
        ),
        (
            Archive(statuses=[202], failed={"1.9.1": 0xA700}),
            {1: "retry-content", 2: "delivered", 3: "delivered"},
        ),
        (Archive(statuses=[202], failed={"1.9.2": 0xA700, "1.9.3": 0xA700}), {1: "delivered", 2: "retry"}),
        (Archive(statuses=[409], failed=dict.fromkeys(("1.9.1", "1.9.2", "1.9.3"), 0xA700)), {1: "retry"}),
        (Archive(statuses=[409], failed=dict.fromkeys(("1.9.1", "1.9.2", "1.9.3"), 0x0110)), {1: "retry-content"}),
        (Archive(statuses=[409, 200, 409, 200], says_nothing=True), {1: "delivered", 2: "retry-content"}),
        (Archive(statuses=[400, 200, 400, 200]), {1: "delivered", 2: "refused", 3: "delivered"}),
        (Archive(statuses=[413, 413, 200, 200]), {1: "refused", 2: "delivered", 3: "delivered"}),
        (Archive(statuses=[500, 500]), {1: "retry-content"}),
    ],
)
async def test_an_answer_settles_each_instance(spool: Spool, archive: Archive, expected: dict[int, str]) -> None:
    names = [keep_small(spool, number) for number in (1, 2, 3)]
    with serving(archive):
        receipts, error = await send(at(archive), spool, names)

    assert error is None
    assert verdicts(receipts) == expected
    assert receipts[-1].verdict in (Verdict.DELIVERED, Verdict.REFUSED) or receipts[-1].reason


async def test_a_warning_is_kept(spool: Spool) -> None:
    with serving(Archive(statuses=[202], warned={"1.9.1": 0xB006})) as archive:
        (receipt,), _ = await send(at(archive), spool, [keep_small(spool, 1)])

    assert (receipt.verdict, receipt.reason) == (Verdict.DELIVERED, "stored with warning B006")
    assert receipt.acknowledgement == b"202 B006"


@pytest.mark.parametrize("status", [302, 401, 403, 404, 408, 429, 502, 503, 504])
async def test_what_is_no_fault_of_the_objects_stops_everything_for_now(spool: Spool, status: int) -> None:
    archive = Archive(statuses=[status], headers={"Retry-After": "42"})
    with serving(archive):
        receipts, error = await send(at(archive), spool, [keep_small(spool, 1), keep_small(spool, 2)])

    assert receipts == []
    assert isinstance(error, TemporaryError)
    assert error.retry_after_s == 42
    assert len(archive.requests) == 1


async def test_a_connection_that_breaks_or_is_refused_is_a_link_error(spool: Spool) -> None:
    big = keep(spool, TEST_FILES / "examples_ybr_color.dcm")
    with serving(Archive(cut_after=1000)) as archive:
        _, broken = await send(at(archive), spool, [big])
    _, away = await send(at(archive), spool, [big])

    assert isinstance(broken, LinkError)
    assert isinstance(away, LinkError)
    assert "refused" in str(away).lower()


async def test_what_an_archive_chokes_on_is_found_and_stops_nobody_for_ever(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.senders.suspects.SUSPECT_AFTER", 2)
    waiting = parcels([keep_small(spool, number) for number in range(4)])
    told: list[list[tuple[int, str]]] = []
    with serving(Archive(chokes={"1.9.0"})) as archive:
        sender = StowSender(at(archive), spool)
        for _ in range(6):
            told.append([])
            try:
                async for receipt in sender.send(waiting):
                    told[-1].append((receipt.delivery_id, receipt.verdict.value))
            except LinkError:
                told[-1].append((0, "broken"))
            waiting = [each for each in waiting if (each.delivery.id, "delivered") not in told[-1]]
        await sender.close()

    first, *others = [each.delivery.id for each in parcels([None] * 4)]
    alone, stored = [(0, "broken")], [(number, "delivered") for number in others]
    assert told == [alone, alone, alone, [*stored, (first, "retry-content")], alone, alone]
    assert [len(request) for request in archive.requests[:3]] == [4, 4, 1]


async def test_an_archive_that_never_answers_is_given_up(spool: Spool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        destination = replace(
            DESTINATION, url=f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web", response_timeout_s=0.3
        )
        _, error = await send(destination, spool, [keep_small(spool, 1)])

    assert isinstance(error, LinkError)


async def test_a_wrong_certificate_is_a_link_error(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    destination = replace(DESTINATION, url="https://127.0.0.1:1/x", tls=ClientTls(ca=tmp_path / "ca.pem"))

    _, error = await send(destination, spool, [keep_small(spool, 1)])

    assert isinstance(error, LinkError)


async def test_a_missing_file_is_refused(spool: Spool) -> None:
    receipts, _ = await send(DESTINATION, spool, ["0" * 64, None])

    assert verdicts(receipts) == {1: "refused", 2: "refused"}


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["00081199", "00081198", "00081155", "00081197", "Value", "vr"]), inner, max_size=4
            )
        ),
        max_leaves=20,
    ).map(lambda said: json.dumps(said).encode())
)
@settings(max_examples=100, deadline=None)
def test_no_answer_breaks_its_reading(body: bytes) -> None:
    answer = read_answer(body)

    assert answer is None or all(0 <= reason <= 0xFFFF for reason in answer.failed.values())


def test_a_large_object_is_not_held_in_memory(tmp_path: Path) -> None:
    script = """
import asyncio, resource, sys, socket, threading
from dataclasses import replace
from pathlib import Path
from gateway.senders.stow import StowSender
from tests.gateway.senders.test_stow import DESTINATION, parcels
class Files:
    def path_of(self, name): return Path(sys.argv[1])
def take(server):
    peer, _ = server.accept()
    got, view = 1, bytearray(1 << 18)
    while got and view[got - 4 : got] != b"--\\r\\n": got = peer.recv_into(view)
    peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
async def main(port):
    sender = StowSender(replace(DESTINATION, url=f"http://127.0.0.1:{port}/d"), Files())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = [each.verdict.value async for each in sender.send(parcels(["a"]))]
    print(said[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
with socket.create_server(("127.0.0.1", 0)) as server:
    threading.Thread(target=take, args=(server,)).start()
    asyncio.run(main(server.getsockname()[1]))
"""
    path = written(ct(), tmp_path / "a.dcm")
    with path.open("r+b") as file:
        file.seek(-36, 2)
        file.write((1 << 27).to_bytes(4, "little"))
        file.truncate(file.tell() + (1 << 27))

    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=False, timeout=60, cwd=root
    )
    assert done.returncode == 0, done.stderr

    verdict, grown_kib = done.stdout.split()
    assert verdict == "delivered"
    assert int(grown_kib) < 20 << 10
