"""Storage commitment between the agent and Orthanc: asked for over one association, granted over another."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from gateway.store.connection import open_reader
from tests.system.agents import HEAD, Agent, free_port, listens, until

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"

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
ae_title = "ORTHANC"
commitment = true
commitment_delay_s = 0.2
"""
)


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Orthanc, which knows the gateway; its port, and the one that it calls back."""
    pacs, gateway = free_port(), free_port()
    config = {
        "DicomPort": pacs,
        "DicomAet": "ORTHANC",
        "HttpServerEnabled": False,
        "StorageDirectory": str(tmp_path / "orthanc"),
        "IndexDirectory": str(tmp_path / "orthanc"),
        "Plugins": [],
        "DicomModalities": {"gateway": {"AET": "GATEWAY", "Host": "127.0.0.1", "Port": gateway}},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(config))
    log = (tmp_path / "orthanc.log").open("wb")
    process = subprocess.Popen(["Orthanc", str(tmp_path / "orthanc.json")], stdout=log, stderr=log)
    try:
        until(lambda: listens(pacs))
        yield pacs, gateway
    finally:
        process.kill()
        process.wait(10)
        log.close()


def test_orthanc_commits_to_what_it_was_sent(orthanc: tuple[int, int], tmp_path: Path) -> None:
    pacs, gateway = orthanc
    data, config = tmp_path / "data", tmp_path / "gateway.toml"
    config.write_text(CONFIG.format(data=data, console=free_port(), dicom=gateway, pacs=pacs))
    agent = Agent(config, tmp_path / "agent.log")

    def states() -> list[int]:
        connection = open_reader(data / "gateway.db")
        try:
            return [state for (state,) in connection.execute("SELECT state FROM archival").fetchall()]
        finally:
            connection.close()

    try:
        files = [str(TEST_FILES / name) for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm")]
        subprocess.run(["storescu", "-R", "-aec", "GATEWAY", "127.0.0.1", str(gateway), *files], check=True, timeout=30)
        until(lambda: states() == [2, 2, 2])
    finally:
        assert agent.stop() == 0
