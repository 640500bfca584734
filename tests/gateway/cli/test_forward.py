import contextlib
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from gateway.cli.main import main
from tests.gateway.imaging.objects import TEST_FILES, ct, written

CONFIG = """
[gateway]
data_dir = "{data}"
[[source]]
name = "imaging"
type = "dicom"
listen = "127.0.0.1:0"
[[destination]]
name = "pacs"
type = "dicom"
host = "127.0.0.1"
port = {port}
ae_title = "PACS"
[[destination]]
name = "research"
type = "dicom"
host = "127.0.0.1"
port = {port}
ae_title = "PACS"
[[destination]]
name = "ris"
type = "mllp"
host = "127.0.0.1"
port = 9
[[route]]
from = ["imaging"]
to = ["pacs"]
set = {{ InstitutionName = "Ward" }}
[[route]]
from = ["imaging"]
to = ["research"]
deidentify = "basic"
secret = {{ file = "{secret}" }}
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def config(tmp_path: Path, port: int) -> Path:
    (tmp_path / "secret").write_text("a secret")
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG.format(data=tmp_path / "data", port=port, secret=tmp_path / "secret"))
    return file


@pytest.fixture
def received(tmp_path: Path, port: int) -> Iterator[Path]:
    folder = tmp_path / "received"
    folder.mkdir()
    process = subprocess.Popen(["storescp", "--promiscuous", "+xa", "-aet", "PACS", "-od", str(folder), str(port)])
    try:
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            threading.Event().wait(0.02)
        yield folder
    finally:
        process.kill()
        process.wait(10)


def run(capsys: pytest.CaptureFixture[str], config: Path, *words: str | Path) -> tuple[int, str, str]:
    status = main([str(words[0]), "-c", str(config), *map(str, words[1:])])
    said = capsys.readouterr()
    return status, said.out, said.err


def only(folder: Path) -> pydicom.Dataset:
    (path,) = folder.iterdir()
    return pydicom.dcmread(path)


def test_files_and_folders_are_sent(
    config: Path, received: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copy(TEST_FILES / name, folder)

    status, out, _ = run(capsys, config, "send", folder, TEST_FILES / "JPEG2000.dcm", "--to", "pacs", "--json")

    assert status == 0
    assert [outcome["text"] for outcome in json.loads(out)["files"]] == ["stored"] * 3
    assert len(list(received.iterdir())) == 3


def test_what_is_no_object_is_told_and_the_rest_goes(
    config: Path, received: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_text("no DICOM")

    status, out, _ = run(
        capsys, config, "send", tmp_path / "letter.txt", tmp_path / "none", TEST_FILES / "CT_small.dcm", "--to", "pacs"
    )

    assert status == 1
    assert [line.split()[0] for line in out.splitlines()] == ["FAILED", "FAILED", "ok"]


def test_the_routes_of_a_source_apply_where_it_is_named(
    config: Path, received: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(ct(), tmp_path / "a.dcm")

    status, out, _ = run(capsys, config, "send", path, "--to", "research")
    assert status == 1
    assert "de-identified" in out
    assert list(received.iterdir()) == []

    status, _, _ = run(capsys, config, "send", path, "--to", "research", "--as", "imaging")
    assert status == 0
    assert only(received).PatientName == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("send", "a.dcm", "--to", "pacz"), "did you mean 'pacs'"),
        (("send", "a.dcm", "--to", "ris"), "takes no DICOM files"),
        (("send", "a.dcm", "--to", "pacs", "--as", "none"), "no source 'none'"),
        (("echo", "pacz"), "did you mean 'pacs'"),
    ],
)
def test_a_wrong_name_is_said_in_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    status, _, err = run(capsys, config, *words)

    assert status == 1
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_peer_that_is_away_is_told_for_each_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, config, "send", TEST_FILES / "CT_small.dcm", "--to", "pacs")

    assert status == 1
    assert "refused" in out


def test_echo_asks_a_destination_or_any_peer(
    config: Path, received: Path, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, config, "echo", "pacs", "--json")
    assert status == 0
    assert json.loads(out)["ok"] is True

    status, out, _ = run(capsys, tmp_path / "none.toml", "echo", f"127.0.0.1:{port}", "--ae-title", "PACS")
    assert status == 0
    assert "C-ECHO answered by PACS" in out

    status, _, err = run(capsys, config, "echo", "127.0.0.1:9")
    assert status == 1
    assert "refused" in err
