import io
from pathlib import Path

import pydicom
import pytest

from gateway.clock import ManualClock
from gateway.errors import StoreError
from gateway.formats.dicom import part10_prefix
from gateway.imaging.storage import Arrival, Keeper, Status, store
from gateway.model import Accepted, Incoming, Kind
from gateway.spool import Spool

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
CT_CLASS, CT_UID = "1.2.840.10008.5.1.4.1.1.2", "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
EXPLICIT = "1.2.840.10008.1.2.1"


class FakeIntake:
    refusing: str | None = None

    def __init__(self) -> None:
        self.inputs: list[Incoming] = []
        self.fails = False

    def accept_blocking(self, incoming: Incoming) -> Accepted:
        if self.fails:
            raise StoreError("disk full")
        self.inputs.append(incoming)
        return Accepted(message_id=len(self.inputs), repeated=False)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.open()
    return spool


@pytest.fixture
def intake() -> FakeIntake:
    return FakeIntake()


def _dataset() -> bytes:
    whole = CT.read_bytes()
    meta = io.BytesIO(whole)
    return whole[pydicom.filereader.read_file_meta_info(CT).FileMetaInformationGroupLength + 144 : len(meta.getvalue())]


def _store(spool: Spool, intake: FakeIntake, dataset: bytes, *, uid: str = CT_UID, sop_class: str = CT_CLASS) -> Status:
    prefix = part10_prefix(sop_class_uid=sop_class, sop_instance_uid=uid, transfer_syntax=EXPLICIT)
    with spool.new_incoming() as file:
        file.write(prefix + dataset)
    arrival = Arrival(
        file=Path(file.name),
        dataset_offset=len(prefix),
        sop_class_uid=sop_class,
        sop_instance_uid=uid,
        transfer_syntax=EXPLICIT,
        peer="CT1@10.0.0.1",
        received_at=ManualClock().now(),
    )
    return store(arrival, Keeper("imaging", spool, intake, ManualClock(), ["Rows"]))


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


def test_a_uid_that_is_a_path_stays_in_the_folder(spool: Spool, intake: FakeIntake, tmp_path: Path) -> None:
    status = _store(spool, intake, _dataset(), uid="../../x")

    assert status.code == 0xB007
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
    assert {path.name for path in spool.folder.iterdir()} == {"incoming", "objects"}


def test_a_store_that_fails_is_out_of_resources(spool: Spool, intake: FakeIntake) -> None:
    intake.fails = True

    assert _store(spool, intake, _dataset()) == Status(code=0xA700, comment="not kept: disk full")


def test_the_row_is_written_after_the_file_is_safe(
    spool: Spool, intake: FakeIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    keep, accept = spool.keep, intake.accept_blocking
    monkeypatch.setattr(spool, "keep", lambda *a: (keep(*a), steps.append("kept"))[0])
    monkeypatch.setattr(intake, "accept_blocking", lambda i: (steps.append("accepted"), accept(i))[1])

    _store(spool, intake, _dataset())

    assert steps == ["kept", "accepted"]
