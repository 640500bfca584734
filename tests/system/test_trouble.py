"""Trouble at a running agent: each gets a clear answer, and the next good input works."""

import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE

from gateway.cli.client import call
from tests.gateway.sources.own_scu import CT_CLASS, associate_rq, command, p_data, read_pdu, read_status
from tests.system.agents import Agent, free_port

TIMEOUT_S = 20.0
CONFIG = """
[gateway]
data_dir = "{data}"
[retention]
reserve = "1 MiB"
stop_intake_below = "{stop}"
[console]
listen = "127.0.0.1:{console}"
[[source]]
name = "emr"
type = "mllp"
listen = "127.0.0.1:{mllp}"
[[source]]
name = "imaging"
type = "dicom"
listen = "127.0.0.1:{dicom}"
[[destination]]
name = "deaf"
type = "mllp"
host = "127.0.0.1"
port = {deaf}
ack_timeout_s = 0.3
[[route]]
from = ["emr"]
to = ["deaf"]
"""
EXPLICIT = "1.2.840.10008.1.2.1"
CT = Path(pydicom.data.__file__).parent / "test_files" / "CT_small.dcm"


class House:
    """A running agent whose one Destination accepts connections and never answers."""

    def __init__(self, folder: Path, stop: str = "1 MiB") -> None:
        self.deaf = socket.create_server(("127.0.0.1", 0))
        self.data, self.mllp, self.dicom = folder / "data", free_port(), free_port()
        config = folder.parent / f"{folder.name}.toml"
        ports = {"mllp": self.mllp, "dicom": self.dicom, "deaf": self.deaf.getsockname()[1], "console": free_port()}
        config.write_text(CONFIG.format(data=self.data, stop=stop, **ports))
        self.agent = Agent(config, folder.parent / "agent.log")

    def ask(self, data: bytes) -> bytes:
        """Write to a new MLLP connection and return the first answer."""
        with socket.create_connection(("127.0.0.1", self.mllp), TIMEOUT_S) as peer:
            peer.sendall(data)
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                part = peer.recv(4096)
                assert part, "closed without an answer"
                answer += part
            return answer

    def good_message_is_accepted(self, control_id: bytes) -> bool:
        return b"MSA|AA|" + control_id in self.ask(frame(control_id))

    def echo_is_answered(self) -> bool:
        return dcmtk("echoscu", "-to", "5", "127.0.0.1", str(self.dicom)).returncode == 0

    def rss_kb(self) -> int:
        status = Path(f"/proc/{self.agent.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])


def frame(control_id: bytes, more: bytes = b"") -> bytes:
    return b"\x0bMSH|^~\\&|A|B|C|D|20260101||ADT^A01|" + control_id + b"|P|2.5\rPID|1||ZZ1\r" + more + b"\x1c\r"


def dcmtk(*command: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "TCP_NODELAY": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house")
    yield made
    assert made.agent.stop() == 0
    made.deaf.close()


def test_bytes_that_are_no_hl7_are_answered_ar_and_kept(house: House) -> None:
    answer = house.ask(b"\x0bhello\x1c\r")

    assert b"MSA|AR" in answer
    assert b"not HL7" in answer
    assert house.good_message_is_accepted(b"G1")
    assert call(house.data, "status")["sources"][0]["quarantined"] == 1


def test_a_hundred_megabytes_without_an_end_block_are_refused_without_growing(house: House) -> None:
    assert house.good_message_is_accepted(b"G1")
    before = house.rss_kb()
    with socket.create_connection(("127.0.0.1", house.mllp), TIMEOUT_S) as peer:
        peer.sendall(frame(b"BIG")[:-2])
        for _ in range(100):
            peer.sendall(b"x" * (1 << 20))
        answer = peer.recv(4096)
        peer.sendall(b"\x1c\r" + frame(b"NEXT"))
        following = peer.recv(4096)

    assert b"MSA|AR|BIG" in answer
    assert b"16777216 bytes" in answer
    assert b"MSA|AA|NEXT" in following
    assert house.rss_kb() - before < 64 << 10


def test_a_pdu_of_four_gigabytes_is_cut_off_and_fifty_silent_callers_disturb_nobody(house: House) -> None:
    assert house.echo_is_answered()
    before = house.rss_kb()
    with socket.create_connection(("127.0.0.1", house.dicom), TIMEOUT_S) as peer:
        peer.sendall(b"\x01\x00\xff\xff\xff\xff")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(300):
                peer.sendall(b"x" * (1 << 20))
    with ExitStack() as silent:
        for _ in range(50):
            silent.enter_context(socket.create_connection(("127.0.0.1", house.dicom), TIMEOUT_S))
        assert house.echo_is_answered()

    assert house.rss_kb() - before < 32 << 10


def test_a_broken_data_set_is_kept_with_a_warning_and_the_next_one_is_plain_success(
    house: House, tmp_path: Path
) -> None:
    image = pydicom.dcmread(CT)
    good = tmp_path / "good.dcm"
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.save_as(good)
    stores = [store_rubbish(house.dicom), dcmtk("storescu", "-v", "127.0.0.1", str(house.dicom), str(good))]

    assert stores[0] == 0xB007
    assert stores[1].returncode == 0
    assert "Success" in stores[1].stdout + stores[1].stderr
    status = call(house.data, "status")["sources"][1]
    assert (status["received"], status["quarantined"]) == (2, 1)


def test_two_objects_under_one_uid_are_both_kept_and_alarmed_and_a_repeat_is_stored_once(
    house: House, tmp_path: Path
) -> None:
    image = pydicom.dcmread(CT)
    image.save_as(tmp_path / "one.dcm")
    pixels = [image.PixelData, image.PixelData[::-1]]
    image.PixelData = pixels[1]
    image.save_as(tmp_path / "other.dcm")
    for name in ("one", "one", "other", "one"):
        sent = dcmtk("storescu", "-v", "127.0.0.1", str(house.dicom), str(tmp_path / f"{name}.dcm"))
        assert "Success" in sent.stdout + sent.stderr
    alarm = wait_for_alarm(house, "uid-conflict:imaging")
    source = call(house.data, "status")["sources"][1]
    objects = (house.data / "spool" / "objects").iterdir()
    kept = [pydicom.dcmread(file).PixelData for file in objects if file.stat().st_size]  # the others are ahead of need

    assert (source["received"], source["repeated"]) == (2, 2)
    assert sorted(kept) == sorted(pixels)
    assert "messages 2 and 1" in alarm["text"]
    call(house.data, "acknowledge", {"alarm": "uid-conflict:imaging", "who": "test"})
    assert call(house.data, "status")["alarms"] == []


def wait_for_alarm(house: House, key: str) -> dict[str, str]:
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := [alarm for alarm in call(house.data, "status")["alarms"] if alarm["key"] == key]):
        assert time.monotonic() < deadline, key
        threading.Event().wait(0.05)
    alarm: dict[str, str] = found[0]
    return alarm


def test_what_is_no_uid_is_refused_and_nothing_leaves_the_spool(house: House, tmp_path: Path) -> None:
    before = files_but_objects(tmp_path)
    with socket.create_connection(("127.0.0.1", house.dicom), TIMEOUT_S) as peer:
        peer.settimeout(TIMEOUT_S)
        peer.sendall(associate_rq((CT_CLASS, EXPLICIT)))
        assert read_pdu(peer)[0] == 2
        statuses = []
        for uid in ("../../x", "/etc/x", "1" * 5000, "1.2\0.3", ""):
            peer.sendall(p_data(3, command(uid)) + p_data(2, b"x"))
            statuses.append(read_status(peer)[0])

    assert statuses == [0xC000] * 5
    assert call(house.data, "status")["sources"][1]["received"] == 0
    assert files_but_objects(tmp_path) == before
    assert house.echo_is_answered()


def files_but_objects(folder: Path) -> set[Path]:
    """What lies in a folder but the files of the Spool, which have names of their own making."""
    return {path for path in folder.rglob("*") if re.fullmatch("[0-9a-f]{64}", path.name) is None}


def store_rubbish(port: int) -> int:
    """C-STORE bytes that are no data set, with pynetdicom's command encoder; return the status."""
    ct, explicit = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
    entity = AE()
    entity.add_requested_context(ct, explicit)
    association = entity.associate("127.0.0.1", port)
    assert association.is_established
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ct, generate_uid()
    request.DataSet = BytesIO(b"\x08\x00\x05\x00CS\xff\xffno data set at all")
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    assert answer is not None
    return int(answer.Status)


def test_a_destination_that_never_answers_is_told_and_stops_nobody(house: House) -> None:
    assert house.good_message_is_accepted(b"G1")
    deadline = time.monotonic() + TIMEOUT_S
    while "no acknowledgement" not in str((told := call(house.data, "status"))["destinations"][0]["last_error"]):
        assert time.monotonic() < deadline, told["destinations"]
        threading.Event().wait(0.05)

    assert told["destinations"][0]["state"] == "down"
    assert told["destinations"][0]["pending"] == 1
    assert "destination-down:deaf" in [alarm["key"] for alarm in told["alarms"]]
    assert house.good_message_is_accepted(b"G2")


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_refuses_in_the_protocols_words_and_resumes_by_itself(tmp_path: Path) -> None:
    image = tmp_path / "image.dcm"
    dataset = pydicom.dcmread(CT)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.save_as(image)
    with small_disk(tmp_path / "disk") as disk, ExitStack() as ending:
        house = House(disk / "house", stop="8 MiB")
        ending.callback(house.agent.kill)
        ending.callback(house.deaf.close)
        assert house.good_message_is_accepted(b"G1")
        ballast = disk / "ballast"
        ballast.write_bytes(b"\0" * (17 << 20))
        wait_for_intake(house, open_=False)
        refused = house.ask(frame(b"F1"))
        stored = dcmtk("storescu", "-v", "127.0.0.1", str(house.dicom), str(image))
        ballast.unlink()
        wait_for_intake(house, open_=True)

        assert b"MSA|AE|F1" in refused
        assert b"207" in refused
        assert "OutOfResources" in (stored.stdout + stored.stderr).replace(" ", "")
        assert house.good_message_is_accepted(b"F1")
        assert dcmtk("storescu", "127.0.0.1", str(house.dicom), str(image)).returncode == 0
        assert house.agent.stop() == 0


def wait_for_intake(house: House, *, open_: bool) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while (call(house.data, "status")["store"]["intake"] == "open") is not open_:
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)
