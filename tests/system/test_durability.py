"""Nothing is acknowledged before it is on disk: shown by the system calls of the running agent."""

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid

from simulators.dicom_objects import test_images as dicom_images
from tests.system.agents import HEAD, Agent, free_port
from tests.system.syscalls import Call, Fault, Trace, read_trace, strace

MESSAGES = 20
INSTANCES = 5
CONNECTIONS, PIPELINED = 6, 15
TIMEOUT_S = 20.0
SUCCESS = bytes.fromhex("0000000902000000" + "0000")  # Status (0000,0900), two bytes, implicit little endian


@dataclass
class Run:
    """One run of the agent under strace: the trace, and what was sent and acknowledged."""

    trace: Trace
    data: Path
    mllp: int
    dicom: int
    control_ids: list[bytes]
    instances: list[bytes]
    pipelined: list[bytes]

    def message_faults(self) -> list[list[Fault]]:
        return [self.trace.log_faults(key, self._answer(self.mllp, key, b"MSA|AA|" + key)) for key in self.control_ids]

    def pipelined_faults(self) -> list[list[Fault]]:
        return [self.trace.log_faults(key, self.trace.sent(self.mllp, b"MSA|AA|" + key)) for key in self.pipelined]

    def instance_faults(self, trace: Trace | None = None) -> list[list[Fault]]:
        judged = trace or self.trace
        answers = [(key, self._answer(self.dicom, key, SUCCESS)) for key in self.instances]
        return [judged.file_faults(key, answer) + judged.log_faults(key, answer) for key, answer in answers]

    def _answer(self, port: int, key: bytes, success: bytes) -> Call:
        answer = self.trace.answer_to(port, key)
        assert success in answer.data  # the whole acknowledgement went in the first send
        return answer


CONFIG = (
    HEAD
    + """
[[source]]
name = "emr"
type = "mllp"
listen = "127.0.0.1:{mllp}"
[[source]]
name = "imaging"
type = "dicom"
listen = "127.0.0.1:{dicom}"
"""
)


def run_traced(folder: Path, module: str) -> Run:
    """Run the agent under strace, send to both listeners, one input after the other."""
    data, mllp, dicom = folder / "data", free_port(), free_port()
    config = folder / "gateway.toml"
    config.write_text(CONFIG.format(data=data, mllp=mllp, dicom=dicom, console=free_port()), "utf-8")
    agent = Agent(config, folder / "log", module=module, prefix=strace(folder / "trace"))
    try:
        control_ids = [send_message(mllp, number) for number in range(MESSAGES)]
        instances = [store_instance(folder, dicom, number) for number in range(INSTANCES)]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            pipelined = [key for keys in pool.map(partial(send_pipelined, mllp), range(CONNECTIONS)) for key in keys]
    finally:
        stop(agent)
    return Run(Trace(read_trace(folder / "trace"), data), data, mllp, dicom, control_ids, instances, pipelined)


def stop(agent: Agent) -> None:
    """Stop the agent itself: strace would keep the signal."""
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text("ascii").split()
    subprocess.run(["kill", "-TERM", *children], check=True)
    agent.process.wait(TIMEOUT_S)


def send_message(port: int, number: int) -> bytes:
    """Send one message, read its answer, return its MSH-10."""
    return exchange(port, [b"DURABLE-%d-" % number])[0]


def send_pipelined(port: int, connection: int) -> list[bytes]:
    """Send messages ahead of their answers, while other connections do the same."""
    return exchange(port, [b"AHEAD-%d-%d-" % (connection, number) for number in range(PIPELINED)])


def exchange(port: int, control_ids: list[bytes]) -> list[bytes]:
    """Send one message for each MSH-10 on one connection, read all answers."""
    text = b"\x0bMSH|^~\\&|A|B|C|D|20260101||ADT^A01^ADT_A01|%s|P|2.5\rPID|1||ZZTEST\r\x1c\r"
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(b"".join(text % control_id for control_id in control_ids))
        answers = b""
        while answers.count(b"\x1c\r") < len(control_ids):
            answers += connection.recv(65536)
    assert all(b"MSA|AA|" + control_id in answers for control_id in control_ids)
    return control_ids


def store_instance(folder: Path, port: int, number: int) -> bytes:
    """Store one small image with DCMTK, return its SOP Instance UID."""
    image = pydicom.dcmread(next(path for path in dicom_images() if path.name == "CT_small.dcm"))
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
    file = folder / f"{number}.dcm"
    image.save_as(file)
    command = ["storescu", "127.0.0.1", str(port), str(file)]
    subprocess.run(command, check=True, timeout=TIMEOUT_S, capture_output=True)
    return str(image.SOPInstanceUID).encode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_traced(tmp_path_factory.mktemp("full"), "gateway.cli.main")


def test_every_sync_an_input_needs_has_returned_before_its_acknowledgement_leaves(run: Run) -> None:
    assert run.message_faults() == [[]] * MESSAGES
    assert run.instance_faults() == [[]] * INSTANCES
    assert run.pipelined_faults() == [[]] * CONNECTIONS * PIPELINED


def test_the_same_check_fails_when_commits_are_not_synced(tmp_path: Path) -> None:
    normal = run_traced(tmp_path, "tests.system.agent_normal")

    assert all(faults for faults in normal.message_faults())
    assert all(faults for faults in normal.instance_faults())
    assert "gateway.db-wal" in normal.message_faults()[0][0].missing


@pytest.mark.parametrize(
    ("name", "target"),
    [("fdatasync", "gateway.db-wal"), ("fdatasync", "spool/incoming/"), ("fsync", "spool/objects"), ("link", "")],
)
def test_the_check_misses_no_call_that_an_instance_needs(run: Run, name: str, target: str) -> None:
    trace = run.trace.without(name, str(run.data / target) if target else "")

    assert all(faults for faults in run.instance_faults(trace))
