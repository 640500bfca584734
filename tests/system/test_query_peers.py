"""Query/Retrieve of the running agent, asked by DCMTK and by pynetdicom, while no PACS is there."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from tests.system.agents import free_port
from tests.system.test_peers import running

FILES = [Path(str(get_testdata_file(name))) for name in ("CT_small.dcm", "MR_small.dcm", "rtdose.dcm", "reportsi.dcm")]
TOOL_TIMEOUT_S = 30


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """An agent that holds the files and owes them to nobody; its port, and where MOVESCU listens."""
    port, back = free_port(), free_port()
    stanzas = f"""
[[source]]
name = "imaging"
type = "dicom"
listen = "127.0.0.1:{port}"
services = ["echo", "storage", "query"]
peers = [
    {{ ae_title = "STORESCU" }}, {{ ae_title = "FINDSCU" }}, {{ ae_title = "GETSCU" }}, {{ ae_title = "PYNETDICOM" }},
    {{ ae_title = "MOVESCU", host = "127.0.0.1", port = {back} }},
]
"""
    with running(tmp_path_factory.mktemp("query"), stanzas):
        run("storescu", "-aec", "GATEWAY", "127.0.0.1", str(port), *map(str, FILES))
        yield port, back


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, timeout=TOOL_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr.decode("latin-1")
    return (done.stdout + done.stderr).decode("latin-1")


def read(file: Path) -> Dataset:
    """Read a file without what DCMTK's storescu leaves out: group lengths and padding behind the data set."""
    found = pydicom.dcmread(file)
    for tag in [tag for tag in found.keys() if tag.element == 0 or tag.group == 0xFFFC]:  # noqa: SIM118
        del found[tag]
    return found


def by_uid(folder: Path) -> dict[str, Dataset]:
    return {str(found.SOPInstanceUID): found for found in map(read, folder.iterdir())}


def study_of(file: Path) -> str:
    return str(pydicom.dcmread(file, stop_before_pixels=True).StudyInstanceUID)


def expected(*files: Path) -> dict[str, Dataset]:
    return {str(found.SOPInstanceUID): found for found in map(read, files)}


def test_findscu_finds_every_study_with_its_patient(box: tuple[int, int]) -> None:
    keys = ("0008,0052=STUDY", "0020,000d", "0010,0020", "0008,0061", "0020,1208")
    words = [word for key in keys for word in ("-k", key)]

    told = run("findscu", "-S", "-aec", "GATEWAY", "127.0.0.1", str(box[0]), *words)

    for file in FILES:
        found = pydicom.dcmread(file, stop_before_pixels=True)
        assert str(found.StudyInstanceUID) in told
        assert str(found.PatientID) in told
    assert told.count("(0020,1208) IS [1") == len(FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_movescu_brings_a_study_back_equal(box: tuple[int, int], file: Path, tmp_path: Path) -> None:
    keys = ("0008,0052=STUDY", f"0020,000d={study_of(file)}")
    words = [word for key in keys for word in ("-k", key)]

    run(
        *("movescu", "-S", "-aec", "GATEWAY", "-aem", "MOVESCU", "--port", str(box[1]), "-od", str(tmp_path)),
        *("127.0.0.1", str(box[0]), *words),
    )

    assert by_uid(tmp_path) == expected(file)


def test_getscu_brings_a_study_back_equal(box: tuple[int, int], tmp_path: Path) -> None:
    keys = ("0008,0052=STUDY", f"0020,000d={study_of(FILES[0])}")
    words = [word for key in keys for word in ("-k", key)]

    run("getscu", "-S", "-aec", "GATEWAY", "-od", str(tmp_path), "127.0.0.1", str(box[0]), *words)

    assert by_uid(tmp_path) == expected(FILES[0])


def test_pynetdicom_finds_and_gets(box: tuple[int, int]) -> None:
    got: list[Dataset] = []
    original = read(FILES[1])
    ae = AE()
    ae.add_requested_context(PatientRootQueryRetrieveInformationModelFind)
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
    ae.add_requested_context(original.SOPClassUID, UID(original.file_meta.TransferSyntaxUID))
    roles = [build_role(original.SOPClassUID, scp_role=True)]
    handlers = [(evt.EVT_C_STORE, lambda event: got.append(event.dataset) or 0x0000)]
    assoc = ae.associate("127.0.0.1", box[0], ae_title="GATEWAY", ext_neg=roles, evt_handlers=handlers)
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.PatientID, asked.PatientName = "PATIENT", original.PatientID, ""

    found = [
        identifier
        for _, identifier in assoc.send_c_find(asked, PatientRootQueryRetrieveInformationModelFind)
        if identifier
    ]
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.StudyInstanceUID = "STUDY", original.StudyInstanceUID
    statuses = [status.Status for status, _ in assoc.send_c_get(asked, StudyRootQueryRetrieveInformationModelGet)]
    assoc.release()

    assert [one.PatientName for one in found] == [original.PatientName]
    assert statuses[-1] == 0x0000
    assert got == [original]


def test_a_move_to_a_title_that_nobody_named_is_refused(box: tuple[int, int]) -> None:
    words = ("-k", "0008,0052=STUDY", "-k", f"0020,000d={study_of(FILES[0])}")

    done = subprocess.run(
        ("movescu", "-v", "-S", "-aec", "GATEWAY", "-aem", "STRANGER", "127.0.0.1", str(box[0]), *words),
        capture_output=True,
        timeout=TOOL_TIMEOUT_S,
        check=False,
    )

    assert b"0xa801" in (done.stdout + done.stderr).lower() or b"MoveDestinationUnknown" in done.stdout + done.stderr
