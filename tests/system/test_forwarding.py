"""The running agent forwards by its rules: one archive gets what came, another what no longer names anybody."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.gateway.imaging.objects import ct, written
from tests.system.agents import HEAD, Agent, free_port, listens, until

CONFIG = (
    HEAD
    + """
[[source]]
name = "imaging"
type = "dicom"
listen = "127.0.0.1:{dicom}"
[[destination]]
name = "pacs"
type = "dicom"
host = "127.0.0.1"
port = {pacs}
ae_title = "PACS"
[[destination]]
name = "research"
type = "dicom"
host = "127.0.0.1"
port = {research}
ae_title = "RESEARCH"
[[route]]
from = ["imaging"]
to = ["pacs"]
[[route]]
from = ["imaging"]
to = ["research"]
when = 'Modality == "CT"'
deidentify = "basic"
secret = {{ file = "{folder}/secret" }}
set = {{ ClinicalTrialProtocolID = "STUDY-7" }}
"""
)


@contextlib.contextmanager
def archive(folder: Path, port: int) -> Iterator[Path]:
    folder.mkdir()
    process = subprocess.Popen(["storescp", "--bit-preserving", "+xa", "-od", str(folder), str(port)])
    try:
        until(lambda: listens(port))
        yield folder
    finally:
        process.kill()
        process.wait(10)


def test_each_archive_gets_what_its_route_says(tmp_path: Path) -> None:
    pacs_port, research_port, dicom = free_port(), free_port(), free_port()
    (tmp_path / "secret").write_text("a secret")
    config = tmp_path / "gateway.toml"
    config.write_text(
        CONFIG.format(
            data=tmp_path / "data",
            folder=tmp_path,
            console=free_port(),
            dicom=dicom,
            pacs=pacs_port,
            research=research_port,
        )
    )
    clean, burned = ct(SOPInstanceUID="1.9.1"), ct(SOPInstanceUID="1.9.2", BurnedInAnnotation="YES")
    other = ct(SOPInstanceUID="1.9.3", Modality="MR")
    files = [str(written(each, tmp_path / f"{number}.dcm")) for number, each in enumerate((clean, burned, other))]
    with archive(tmp_path / "pacs", pacs_port) as pacs, archive(tmp_path / "research", research_port) as research:
        agent = Agent(config, tmp_path / "agent.log")
        try:
            subprocess.run(["storescu", "127.0.0.1", str(dicom), *files], check=True, timeout=30)
            until(lambda: len(list(pacs.iterdir())) == 3 and len(list(research.iterdir())) == 1)
            until(lambda: "delivery.parked destination=research" in (tmp_path / "agent.log").read_text())
        finally:
            assert agent.stop() == 0
        kept = {str(pydicom.dcmread(path).PatientName) for path in pacs.iterdir()}
        (made,) = [pydicom.dcmread(path) for path in research.iterdir()]

    assert kept == {"DOE^JANE"}
    assert (made.PatientName, made.PatientIdentityRemoved) == ("", "YES")
    assert made.ClinicalTrialProtocolID == "STUDY-7"
    assert made.SOPInstanceUID.startswith("2.25.")
    assert made.PixelData == clean.PixelData
    assert "DOE" not in (tmp_path / "agent.log").read_text()
    assert not list((tmp_path / "data" / "spool" / "incoming").glob("tmp*"))


@pytest.fixture(autouse=True)
def _spoken(capfd: pytest.CaptureFixture[str]) -> None:
    """Take what the programs say."""
