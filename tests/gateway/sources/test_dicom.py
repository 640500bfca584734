import asyncio
import datetime
import os
import re
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pydicom
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom import AE

from gateway.config import DicomPeer, ServerTls
from gateway.config import DicomSource as Settings
from gateway.errors import LinkError, StoreError
from gateway.formats.dicom import read_meta
from gateway.status import LinkState
from gateway.typed import Address, Size
from tests.gateway.sources.dicom_house import EXPLICIT, House, associate, association_threads, running, store, until
from tests.gateway.sources.own_scu import CT_CLASS, associate_rq, command, p_data, read_pdu, read_status, results

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CT = TEST_FILES / "CT_small.dcm"
IMPLICIT = "1.2.840.10008.1.2"
BROKEN = b"\x08\0\x16\0UI\xff\x0f1.2"  # promises more than there is


@pytest.fixture
def defaults() -> Settings:
    return Settings(name="imaging", listen=Address("127.0.0.1", 0))


@pytest.fixture
async def house(tmp_path: Path, defaults: Settings) -> AsyncIterator[House]:
    async with running(House(tmp_path), defaults) as house:
        yield house


def _strangers(folder: Path) -> set[Path]:
    """What lies in a folder but the Spool's own names."""
    return {path for path in folder.rglob("*") if not re.fullmatch("[0-9a-f]{64}", path.name)}


def _dataset_bytes(path: Path) -> bytes:
    return path.read_bytes()[read_meta(path).dataset_offset :]


# --- what well-behaved peers do ---


async def test_echo_is_answered_by_dcmtk(house: House) -> None:
    assert await house.echo() == 0


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm", "image_dfl.dcm", "rtplan.dcm"]
)
async def test_an_instance_of_any_syntax_is_kept_byte_for_byte(house: House, name: str) -> None:
    file = TEST_FILES / name
    syntax = read_meta(file).transfer_syntax
    sop_class = read_meta(file).sop_class_uid
    with await asyncio.to_thread(associate, house, (sop_class, syntax)) as sock:
        status, _ = await asyncio.to_thread(
            store, sock, read_meta(file).sop_instance_uid, _dataset_bytes(file), sop_class=sop_class
        )

    (incoming,) = house.intake.inputs
    assert status in (0x0000, 0xB007)
    kept = house.spool.path_of(incoming.object_name or "")
    assert _dataset_bytes(kept) == _dataset_bytes(file)
    assert read_meta(kept).transfer_syntax == syntax
    assert house.spool.verify(kept.name, incoming.digest) is None
    assert house.incoming() == []


async def test_storescu_stores_and_the_source_counts(house: House) -> None:
    code, output = await house.storescu(CT, TEST_FILES / "MR_small.dcm")

    assert code == 0, output
    assert [incoming.headers["Modality"] for incoming in house.intake.inputs] == ["CT", "MR"]
    assert house.intake.inputs[0].peer == "STORESCU@127.0.0.1"
    await until(lambda: house.status.received == 2 and house.status.connections == 0)


async def test_a_sender_with_nagle_is_not_slowed_to_forty_milliseconds_an_object(house: House, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(CT)
    dataset.Rows, dataset.PixelData = 32, bytes(8192)
    for number in range(100):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        dataset.save_as(tmp_path / f"{number}.dcm")
    began = time.monotonic()

    code, output = await house.run("dcmsend", "-v", "+sd", "127.0.0.1", house.port, tmp_path, env={"TCP_NODELAY": "0"})

    assert code == 0, output
    assert len(house.intake.inputs) == 100
    assert time.monotonic() - began < 3.5  # with pauses of 40 ms it takes more than four seconds


async def test_private_classes_are_stored_and_queries_are_not_offered(house: House) -> None:
    contexts = [
        ("1.3.46.670589.2.4.1.1", "1.2.3.4.5"),
        ("1.2.840.10008.5.1.4.31", IMPLICIT),
        ("1.2.840.10008.5.1.4.39.2", IMPLICIT),
        ("1.2.840.10008.5.1.4.38.1", EXPLICIT),
    ]
    sock = await asyncio.to_thread(house.raw)
    with sock:
        sock.sendall(associate_rq(*contexts))
        _, body = await asyncio.to_thread(read_pdu, sock)

    assert results(body) == {1: 0, 3: 3, 5: 3, 7: 0}


async def test_services_say_what_is_offered(tmp_path: Path, defaults: Settings) -> None:
    async with running(House(tmp_path), replace(defaults, services=("echo",))) as house:
        assert await house.echo() == 0
        code, output = await house.storescu(CT)

    assert code != 0
    assert "No Acceptable Presentation Contexts" in output


# --- who may associate ---


async def test_unknown_calling_titles_and_hosts_are_rejected_for_good(tmp_path: Path, defaults: Settings) -> None:
    peers = (
        DicomPeer(ae_title="CT1", host="127.0.0.1"),
        DicomPeer(ae_title="MR1", host="10.9.8.7"),
        DicomPeer(ae_title="US1"),
    )
    async with running(House(tmp_path), replace(defaults, peers=peers)) as house:
        assert await house.echo("-aet", "CT1") == 0
        assert await house.echo("-aet", "US1") == 0
        for title in ("MR1", "OTHER"):
            _, output = await house.run("echoscu", "-v", "-aet", title, "127.0.0.1", house.port)
            assert "Calling AE Title Not Recognized" in output
            assert "Rejected Permanent" in output


async def test_another_called_title_is_rejected_where_that_is_asked(tmp_path: Path, defaults: Settings) -> None:
    async with running(House(tmp_path), replace(defaults, require_called_ae_title=True)) as house:
        assert await house.echo("-aec", "GATEWAY") == 0
        _, output = await house.run("echoscu", "-v", "-aec", "OTHER", "127.0.0.1", house.port)

    assert "Called AE Title Not Recognized" in output


async def test_hosts_outside_the_networks_are_not_heard(tmp_path: Path, defaults: Settings) -> None:
    async with running(House(tmp_path), replace(defaults, allow=(ip_network("10.0.0.0/8"),))) as house:
        assert await house.echo() != 0
        await until(lambda: "not allowed" in (house.status.last_error or ""))


async def test_one_association_too_many_is_rejected_for_now(tmp_path: Path, defaults: Settings) -> None:
    async with running(House(tmp_path), replace(defaults, associations_max=1)) as house:
        with await asyncio.to_thread(associate, house):
            _, output = await house.run("echoscu", "-v", "127.0.0.1", house.port)
        assert "Rejected Transient" in output
        assert "Local Limit Exceeded" in output
        await until(lambda: house.status.connections == 0)
        assert await house.echo() == 0


@pytest.mark.parametrize("title", [b"", b"CT\x001", b"\xd6RT\\1", b"\x01" * 16])
async def test_blank_and_odd_titles_are_tolerated(house: House, title: bytes) -> None:
    with await asyncio.to_thread(lambda: associate(house, called=title, calling=title)) as sock:
        assert (await asyncio.to_thread(store, sock, "1.2.3", b"x"))[0] == 0xB007


async def test_padded_uids_are_tolerated(house: House) -> None:
    with await asyncio.to_thread(lambda: associate(house, pad=b"\0")) as sock:
        uid = read_meta(CT).sop_instance_uid
        status, comment = await asyncio.to_thread(store, sock, uid + " ", _dataset_bytes(CT))

    assert (status, comment) == (0x0000, "")
    assert house.intake.inputs[0].headers["TransferSyntaxUID"] == EXPLICIT


# --- hostile and broken peers; each time the next good input must work ---


async def _is_well(house: House) -> None:
    count = len(house.intake.inputs)
    code, output = await house.storescu(CT)
    assert code == 0, output
    assert len(house.intake.inputs) == count + 1
    assert house.incoming() == []


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_pdu_of_four_gigabytes_is_cut_before_it_takes_memory(house: House) -> None:
    before = _resident_bytes()

    def flood() -> int:
        sent = 0
        with house.raw() as sock:
            sock.sendall(struct.pack(">BxL", 1, 0xFFFFFFFF))
            try:
                while sent < 100 << 20:
                    sent += sock.send(bytes(1 << 20))
            except OSError:
                return sent
        return sent

    assert await asyncio.to_thread(flood) < 20 << 20
    assert _resident_bytes() - before < 30 << 20
    await _is_well(house)


async def test_a_pdu_longer_than_agreed_is_cut_within_an_association(house: House) -> None:
    with await asyncio.to_thread(associate, house) as sock:
        sock.sendall(struct.pack(">BxL", 4, 0x7FFFFFFF) + bytes(4096))
        kind, _ = await asyncio.to_thread(read_pdu, sock)

    assert kind in (0, 7)
    await _is_well(house)


async def test_fifty_silent_connections_keep_nobody_out(house: House) -> None:
    silent = [await asyncio.to_thread(house.raw) for _ in range(50)]
    began = time.monotonic()

    assert await house.echo() == 0

    assert time.monotonic() - began < 2
    await until(lambda: not association_threads())
    for sock in silent:
        sock.close()


@pytest.mark.parametrize("kind", [7, 5], ids=["abort", "release"])
async def test_a_request_that_is_taken_back_at_once_is_no_fault(
    house: House, caplog: pytest.LogCaptureFixture, kind: int
) -> None:
    with await asyncio.to_thread(house.raw) as sock:
        sock.sendall(associate_rq((CT_CLASS, EXPLICIT)) + struct.pack(">BxL4x", kind, 4))
        await asyncio.to_thread(read_pdu, sock)
    await until(lambda: not association_threads())

    assert "crashed" not in caplog.text
    await _is_well(house)


async def test_silent_connections_are_cut_after_five_seconds(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sources.dicom_listener.FIRST_PDU_S", 0.3)
    monkeypatch.setattr("gateway.sources.dicom_association.FIRST_PDU_S", 0.3)
    with await asyncio.to_thread(house.raw) as silent, await asyncio.to_thread(house.raw) as half:
        half.sendall(b"\x01\0")
        assert await asyncio.to_thread(silent.recv, 1) == b""
        assert await asyncio.to_thread(half.recv, 1) == b""
    await until(lambda: not association_threads(), 12)


async def test_a_stall_in_the_middle_of_a_pdu_frees_the_slot(
    tmp_path: Path, defaults: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sources.dicom_association.STALL_S", 0.3)
    async with running(House(tmp_path), replace(defaults, associations_max=1)) as house:
        with await asyncio.to_thread(associate, house) as sock:
            sock.sendall(p_data(3, command("1.2.3")) + p_data(0, bytes(100)) + p_data(2, bytes(1000))[:500])
            assert (await asyncio.to_thread(read_pdu, sock))[0] in (0, 7)
            await until(lambda: house.status.connections == 0)
            await _is_well(house)


async def test_an_idle_association_is_aborted(tmp_path: Path, defaults: Settings) -> None:
    async with running(House(tmp_path), replace(defaults, idle_timeout_s=0.3)) as house:
        with await asyncio.to_thread(associate, house) as sock:
            assert (await asyncio.to_thread(read_pdu, sock))[0] == 7


@pytest.mark.parametrize("ending", [struct.pack(">BxL4x", 7, 4), b""], ids=["abort", "close"])
async def test_an_object_that_breaks_off_leaves_nothing(house: House, ending: bytes) -> None:
    with await asyncio.to_thread(associate, house) as sock:
        sock.sendall(p_data(3, command("1.2.3")) + p_data(0, bytes(5000)))
        await until(lambda: len(house.incoming()) == 1)
        sock.sendall(ending)
    await until(lambda: house.incoming() == [])

    assert house.intake.inputs == []
    assert list(house.spool.names()) == []
    await _is_well(house)


async def test_an_aborted_repeat_does_not_harm_what_was_acknowledged(house: House) -> None:
    uid = read_meta(CT).sop_instance_uid
    await _is_well(house)
    with await asyncio.to_thread(associate, house) as sock:
        sock.sendall(p_data(3, command(uid)) + p_data(0, _dataset_bytes(CT)[:5000]))
        await until(lambda: len(house.incoming()) == 1)
    await until(lambda: house.incoming() == [])

    (incoming,) = house.intake.inputs
    assert [*house.spool.names()] == [incoming.object_name]
    assert house.spool.verify(incoming.object_name or "", incoming.digest) is None


@pytest.mark.parametrize("uid", ["../../x", "/etc/x", "a\0b", "1" * 5000, "\xd6.1", ""])
async def test_what_is_no_uid_is_refused_and_never_becomes_a_path(house: House, tmp_path: Path, uid: str) -> None:
    before = _strangers(tmp_path)
    with await asyncio.to_thread(associate, house) as sock:
        status, comment = await asyncio.to_thread(store, sock, uid, _dataset_bytes(CT))
        next_status, _ = await asyncio.to_thread(store, sock, read_meta(CT).sop_instance_uid, _dataset_bytes(CT))

    assert (status, next_status) == (0xC000, 0x0000)
    assert "no UID" in comment
    assert _strangers(tmp_path) == before
    assert len(house.intake.inputs) == len(list(house.spool.names())) == 1
    await _is_well(house)


@pytest.mark.parametrize("uid", ["01.002.0003", "1.2.3 ", "1.2.3\0\0", "1.2.3 \0", " 1.2.3"])
async def test_an_odd_uid_is_no_reason_to_refuse(house: House, uid: str) -> None:
    dataset = struct.pack("<HH2sH", 8, 0x16, b"UI", 26) + CT_CLASS.encode() + b"\0"
    dataset += struct.pack("<HH2sH", 8, 0x18, b"UI", len(uid)) + uid.encode()
    with await asyncio.to_thread(associate, house) as sock:
        status, comment = await asyncio.to_thread(store, sock, uid, dataset)

    assert (status, comment) == (0x0000, "")
    assert house.intake.inputs[0].identifier == uid.strip(" \0")


async def test_a_broken_data_set_is_kept_with_a_warning_and_the_next_one_works(house: House) -> None:
    with await asyncio.to_thread(associate, house) as sock:
        status, comment = await asyncio.to_thread(store, sock, "1.2.3", BROKEN)
        good, _ = await asyncio.to_thread(store, sock, read_meta(CT).sop_instance_uid, _dataset_bytes(CT))

    assert (status, good) == (0xB007, 0x0000)
    assert "unreadable" in comment
    assert house.intake.inputs[0].quarantined
    assert house.intake.inputs[1].quarantined is None


async def test_a_command_without_a_data_set_is_not_understood(house: House) -> None:
    with await asyncio.to_thread(associate, house) as sock:
        sock.sendall(p_data(3, command("1.2.3", with_data=False)))
        status, _ = await asyncio.to_thread(read_status, sock)

    assert status >> 12 == 0xC
    await _is_well(house)


@pytest.mark.parametrize(
    "rubbish",
    [
        p_data(3, b"\xff" * 100),
        p_data(3, command("1.2.3", field=0x4242)),
        p_data(3, command("1.2.3"), context=99) + p_data(2, b"x", context=99),
        struct.pack(">BxLLBB", 4, 6, 1000, 1, 3),
        struct.pack(">BxL", 4, 4) + bytes(4),
        struct.pack(">BxL", 0x42, 0),
        p_data(1, bytes(60_000)) * 2,
        p_data(3, command("1.2.3", field=0x20)) + p_data(0, bytes(60_000)) * 18,
    ],
    ids=["command", "field", "context", "pdv-length", "no-pdv", "pdu-type", "long-command", "long-identifier"],
)
async def test_rubbish_ends_the_association_and_nothing_else(house: House, rubbish: bytes) -> None:
    with await asyncio.to_thread(associate, house) as sock:
        sock.sendall(rubbish)
        assert (await asyncio.to_thread(read_pdu, sock))[0] in (0, 7)
    await until(lambda: not association_threads())
    await _is_well(house)


async def test_a_low_disk_is_answered_with_a700_and_gets_better(house: House) -> None:
    house.intake.refusing = "disk low"
    code, output = await house.storescu(CT)

    assert code != 0
    assert "OutOfResources" in output.replace(" ", "") or "0xa700" in output.lower()
    assert house.incoming() == []
    assert list(house.spool.names()) == []
    house.intake.refusing = None
    await _is_well(house)


@pytest.mark.parametrize("fault", [StoreError("not stored"), RuntimeError("a bug")])
async def test_a_failing_store_is_answered_with_a700(house: House, fault: Exception) -> None:
    house.intake.fails = fault
    with await asyncio.to_thread(associate, house) as sock:
        status, _ = await asyncio.to_thread(store, sock, "1.2.3", _dataset_bytes(CT))
        house.intake.fails = None
        again, _ = await asyncio.to_thread(store, sock, "1.2.3", _dataset_bytes(CT))

    assert (status, again) == (0xA700, 0xB007)


@pytest.fixture
def tiny_house(tmp_path: Path) -> Iterator[House]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "tiny"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    yield House(folder)
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_disk_that_fills_up_during_an_object_is_answered_with_a700(
    tiny_house: House, defaults: Settings
) -> None:
    async with running(tiny_house, defaults) as house:

        def send_big(sock: socket.socket) -> tuple[int, str]:
            sock.sendall(p_data(3, command("1.2.3")))
            for _ in range(64):
                sock.sendall(p_data(0, bytes(64 << 10)))
            sock.sendall(p_data(2, b""))
            return read_status(sock)

        with await asyncio.to_thread(associate, house) as sock:
            status, comment = await asyncio.to_thread(send_big, sock)
            again, _ = await asyncio.to_thread(store, sock, read_meta(CT).sop_instance_uid, _dataset_bytes(CT))

        assert (status, again) == (0xA700, 0x0000)
        assert "No space" in comment
        assert house.incoming() == []


async def test_memory_does_not_grow_with_the_object(house: House) -> None:
    def send_big(sock: socket.socket) -> tuple[int, int]:
        sock.sendall(p_data(3, command("1.2.3")))
        before, fragment = _resident_bytes(), p_data(0, bytes(120 << 10))
        for _ in range(500):
            sock.sendall(fragment)
        grown = _resident_bytes() - before
        sock.sendall(p_data(2, b"x"))
        return read_status(sock)[0], grown

    with await asyncio.to_thread(associate, house) as sock:
        status, grown = await asyncio.to_thread(send_big, sock)

    assert status == 0xB007
    assert grown < 25 << 20
    assert house.intake.inputs[0].size > 60_000_000


async def test_nothing_of_a_patient_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    with await asyncio.to_thread(associate, house) as sock:
        await asyncio.to_thread(store, sock, "1.2.3", _dataset_bytes(CT))
        await asyncio.to_thread(store, sock, "1.2.3", _dataset_bytes(CT)[:400])
    await house.storescu(CT)

    text = caplog.text
    assert "instance.doubted" in text
    assert "CompressedSamples" not in text
    assert "1CT1" not in text


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ServerTls(cert=folder / "cert.pem", key=folder / "key.pem")


async def test_silent_tls_clients_stop_nobody(tmp_path: Path, defaults: Settings, certificate: ServerTls) -> None:
    async with running(House(tmp_path), replace(defaults, tls=certificate)) as house:
        silent = [await asyncio.to_thread(house.raw) for _ in range(5)]
        began = time.monotonic()
        code, output = await house.storescu(CT, options=("+tla", "-ic"))

        assert code == 0, output
        assert time.monotonic() - began < 3
        assert len(house.intake.inputs) == 1
        for sock in silent:
            sock.close()


async def test_without_a_certificate_the_peer_is_refused_where_one_is_asked(
    tmp_path: Path, defaults: Settings, certificate: ServerTls
) -> None:
    mutual = replace(certificate, ca=certificate.cert, verify_client=True)
    async with running(House(tmp_path), replace(defaults, tls=mutual)) as house:
        assert (await house.storescu(CT, options=("+tla", "-ic")))[0] != 0
        options = ("+tls", str(certificate.key), str(certificate.cert), "-ic")
        code, output = await house.storescu(CT, options=options)

    assert code == 0, output


# --- the listener itself ---


async def test_a_port_that_is_taken_is_a_link_error(tmp_path: Path, house: House, defaults: Settings) -> None:
    taken = replace(defaults, listen=Address("127.0.0.1", house.port))
    with pytest.raises(LinkError, match=str(house.port)):
        async with running(House(tmp_path / "second"), taken):
            pass


async def test_stopping_ends_running_associations(tmp_path: Path, defaults: Settings) -> None:
    async with running(House(tmp_path), replace(defaults, pdu_max=Size(64 << 10))) as house:
        socks = [await asyncio.to_thread(associate, house) for _ in range(5)]
        socks[0].sendall(p_data(3, command("1.2.3")) + p_data(0, bytes(5000)))
        await until(lambda: len(house.incoming()) == 1)
    kinds = [(await asyncio.to_thread(read_pdu, sock))[0] for sock in socks]
    for sock in socks:
        sock.close()

    assert set(kinds) <= {0, 7}
    assert house.incoming() == []
    with pytest.raises(OSError, match="refused"):
        house.raw()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=300), associated=st.booleans())
async def test_arbitrary_bytes_never_stop_the_listener(house: House, data: bytes, associated: bool) -> None:
    def say() -> None:
        with associate(house) if associated else house.raw() as sock:
            sock.sendall(data)

    await asyncio.to_thread(say)
    assert house.status.state is LinkState.UP


def test_pynetdicom_peers_are_served(tmp_path: Path, defaults: Settings) -> None:
    async def talk() -> int:
        async with running(House(tmp_path), defaults) as house:

            def store() -> int:
                ae = AE("PYN")
                ae.add_requested_context(CT_CLASS, EXPLICIT)
                association = ae.associate("127.0.0.1", house.port)
                status = association.send_c_store(pydicom.dcmread(CT))
                association.release()
                return int(status.Status)

            return await asyncio.to_thread(store)

    assert asyncio.run(talk()) == 0
