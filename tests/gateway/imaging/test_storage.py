import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from gateway.clock import ManualClock
from gateway.errors import StoreError
from gateway.formats.dicom import part10_prefix
from gateway.imaging.receiving import BLOCK_BYTES, ObjectSink, Received
from gateway.imaging.storage import Arrival, Keeper, Status, store
from gateway.model import Accepted, Incoming, Kind
from gateway.spool import Spool, content_hash

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
CT_CLASS, CT_UID = "1.2.840.10008.5.1.4.1.1.2", "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
EXPLICIT = "1.2.840.10008.1.2.1"


class FakeIntake:
    refusing: str | None = None

    def __init__(self) -> None:
        self.inputs: list[Incoming] = []
        self.fails = False

    def accept_blocking(self, incoming: Incoming, sync: Callable[[], None] | None = None) -> Accepted:
        if self.fails:
            raise StoreError("disk full")
        assert sync is not None
        sync()
        for number, earlier in enumerate(self.inputs, 1):
            if (earlier.identifier, earlier.digest) == (incoming.identifier, incoming.digest):
                return Accepted(message_id=number, repeated=True, object_name=earlier.object_name)
        self.inputs.append(incoming)
        return Accepted(message_id=len(self.inputs), repeated=False)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    spool.open()
    yield spool
    spool.close()


@pytest.fixture
def intake() -> FakeIntake:
    return FakeIntake()


def _dataset() -> bytes:
    whole = CT.read_bytes()
    meta = io.BytesIO(whole)
    return whole[pydicom.filereader.read_file_meta_info(CT).FileMetaInformationGroupLength + 144 : len(meta.getvalue())]


def _receive(spool: Spool, dataset: bytes, prefix: bytes) -> Received:
    sink = ObjectSink(memoryview(bytearray(BLOCK_BYTES)), spool, prefix, ["Rows", "RequestedProcedurePriority"], None)
    view = memoryview(dataset)
    while view:
        buffer = sink.buffer(len(view))
        buffer[:] = view[: len(buffer)]
        sink.wrote(len(buffer))
        view = view[len(buffer) :]
    received = sink.finish()
    assert received is not None
    return received


def _store(
    spool: Spool,
    intake: FakeIntake,
    dataset: bytes,
    *,
    uid: str = CT_UID,
    sop_class: str = CT_CLASS,
    order_priority: str = "",
) -> Status:
    prefix = part10_prefix(sop_class_uid=sop_class, sop_instance_uid=uid, transfer_syntax=EXPLICIT)
    arrival = Arrival(
        received=_receive(spool, dataset, prefix),
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        transfer_syntax=EXPLICIT,
        peer="CT1@10.0.0.1",
        received_at=ManualClock().now(),
    )
    return store(arrival, Keeper("imaging", spool, intake, ManualClock(), order_priority=lambda header: order_priority))


def test_an_instance_is_kept_indexed_and_answered_with_success(spool: Spool, intake: FakeIntake) -> None:
    status = _store(spool, intake, _dataset())

    (incoming,) = intake.inputs
    assert status.code == 0x0000
    assert incoming.kind is Kind.DICOM
    assert (incoming.source, incoming.peer, incoming.identifier) == ("imaging", "CT1@10.0.0.1", CT_UID)
    assert incoming.quarantined is None
    assert incoming.terms == ("1CT1", STUDY)
    assert incoming.lane_key == STUDY
    assert incoming.headers["Modality"] == "CT"
    assert incoming.headers["Rows"] == "128"
    assert incoming.headers["TransferSyntaxUID"] == EXPLICIT
    assert incoming.object_name is not None
    assert spool.path_of(incoming.object_name).read_bytes().endswith(_dataset())
    assert incoming.raw is None


def test_an_instance_has_the_priority_of_its_order_where_it_tells_none(spool: Spool, intake: FakeIntake) -> None:
    own = pydicom.dcmread(CT)
    own.RequestedProcedurePriority = "LOW"
    changed = io.BytesIO()
    own.save_as(changed, implicit_vr=False, little_endian=True, enforce_file_format=False)
    body = changed.getvalue()[changed.getvalue().index(b"\x08\0\x05\0") :]

    for dataset in (_dataset(), body):
        _store(spool, intake, dataset, order_priority="STAT")

    assert [each.headers["RequestedProcedurePriority"] for each in intake.inputs] == ["STAT", "LOW"]


@pytest.mark.parametrize("dataset", [b"", b"\x08", b"\xff" * 500, b"not a data set at all", _dataset()[:301]])
def test_an_unreadable_data_set_is_kept_quarantined_with_a_warning(
    spool: Spool, intake: FakeIntake, dataset: bytes
) -> None:
    status = _store(spool, intake, dataset)

    (incoming,) = intake.inputs
    assert status.code == 0xB007
    assert len(status.comment) <= 64
    assert incoming.quarantined is not None
    assert incoming.identifier == CT_UID
    assert spool.path_of(incoming.object_name or "").read_bytes().endswith(dataset)


def test_uids_that_differ_from_the_command_are_a_warning(spool: Spool, intake: FakeIntake) -> None:
    status = _store(spool, intake, _dataset(), uid="1.2.3")

    (incoming,) = intake.inputs
    assert (status.code, incoming.identifier, incoming.quarantined) == (0xB007, CT_UID, None)
    assert "1.2.3" in incoming.terms
    assert _store(spool, intake, _dataset(), sop_class="1.2.3").code == 0xB007


@pytest.mark.parametrize("uid", ["../../x", "..", "", "1" * 65, "1.2\0.3", "1.2.a", "\u00d6.1", "1" * 5000])
def test_what_is_no_uid_is_refused_and_leaves_nothing(
    spool: Spool, intake: FakeIntake, tmp_path: Path, uid: str
) -> None:
    status = _store(spool, intake, _dataset(), uid=uid)

    assert (status.code, status.accepted, intake.inputs) == (0xC000, None, [])
    assert "no UID" in status.comment
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
    assert {path.name for path in spool.folder.iterdir()} == {"incoming", "objects"}
    assert (list(spool.names()), spool.coming) == ([], set())


@pytest.mark.parametrize("uid", [b"../../x", b"1.2\0.3", b"1" * 66, b"\xd6.1 "])
def test_a_data_set_whose_name_is_no_uid_is_refused(spool: Spool, intake: FakeIntake, uid: bytes) -> None:
    named = struct.pack("<HH2sH", 8, 0x16, b"UI", 26) + CT_CLASS.encode() + b"\0"
    named += struct.pack("<HH2sH", 8, 0x18, b"UI", len(uid)) + uid
    status = _store(spool, intake, named)

    assert (status.code, intake.inputs, list(spool.names())) == (0xC000, [], [])


@pytest.mark.parametrize("uid", ["01.002.3", "1.2..3", "1.2.3.", "9" * 64])
def test_an_odd_uid_that_can_be_asked_for_is_kept(spool: Spool, intake: FakeIntake, uid: str) -> None:
    padded = uid.encode() + b" " * (len(uid) % 2)
    named = struct.pack("<HH2sH", 8, 0x16, b"UI", 26) + CT_CLASS.encode() + b"\0"
    named += struct.pack("<HH2sH", 8, 0x18, b"UI", len(padded)) + padded
    status = _store(spool, intake, named, uid=uid)

    (incoming,) = intake.inputs
    assert (status.code, incoming.identifier) == (0x0000, uid)


def test_a_store_that_fails_is_out_of_resources(spool: Spool, intake: FakeIntake) -> None:
    intake.fails = True

    assert _store(spool, intake, _dataset()) == Status(code=0xA700, comment="not kept: disk full")


def test_what_is_refused_leaves_no_object(spool: Spool, intake: FakeIntake) -> None:
    intake.fails = True
    _store(spool, intake, _dataset())

    assert list(spool.names()) == []
    assert spool.coming == set()


def test_a_repeat_is_one_object_and_replaces_a_rotten_one(spool: Spool, intake: FakeIntake) -> None:
    _store(spool, intake, _dataset())
    name = intake.inputs[0].object_name or ""
    assert _store(spool, intake, _dataset()).code == 0x0000
    assert list(spool.names()) == [name]

    spool.path_of(name).write_bytes(spool.path_of(name).read_bytes()[:-1] + b"X")
    assert _store(spool, intake, _dataset()).code == 0x0000

    assert list(spool.names()) == [name]
    assert spool.verify(name, intake.inputs[0].digest) is None


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 400, BLOCK_BYTES, 5 * BLOCK_BYTES, 9 * BLOCK_BYTES + 4097])
def test_any_size_is_written_and_hashed_whole(spool: Spool, size: int) -> None:
    prefix = part10_prefix(sop_class_uid=CT_CLASS, sop_instance_uid=CT_UID, transfer_syntax=EXPLICIT)
    dataset = os.urandom(size)

    received = _receive(spool, dataset, prefix)

    assert received.draft.path.read_bytes() == prefix + dataset
    assert (received.size, received.digest) == (len(prefix) + size, content_hash(dataset).digest())


@pytest.mark.parametrize("filler", [BLOCK_BYTES - 2000, BLOCK_BYTES, 3 * BLOCK_BYTES])
def test_a_header_that_reaches_beyond_the_first_block_is_read(spool: Spool, filler: int) -> None:
    private = struct.pack("<HH2s2xL", 0x0009, 0x1001, b"OB", filler) + bytes(filler)
    at = _dataset().index(b"\x10\0\x10\0")  # before the patient's name
    prefix = part10_prefix(sop_class_uid=CT_CLASS, sop_instance_uid=CT_UID, transfer_syntax=EXPLICIT)

    received = _receive(spool, _dataset()[:at] + private + _dataset()[at:] + bytes(4 * BLOCK_BYTES), prefix)

    assert received.header is not None
    assert received.header.values["StudyInstanceUID"] == STUDY
    assert received.header.values["Rows"] == "128"
