"""The agent as systemd starts it: a process, real sockets, signals. What it promised survives being killed."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hl7.client
import pytest

from gateway.cli.client import AgentNotRunning, call
from tests.gateway.console.house import eventually, free_port
from tests.system.agents import HEAD

WAIT_S = 20.0

CONFIG = (
    HEAD
    + """
[[source]]
name = "emr"
type = "mllp"
listen = "127.0.0.1:{mllp}"
[[destination]]
name = "ris"
type = "mllp"
host = "127.0.0.1"
port = {peer}
"""
)


def hl7_message(number: int) -> bytes:
    return f"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|M{number}|P|2.5\rPID|1||4711^^^H\r".encode()


class Agent:
    """`gateway run` in a process of its own."""

    def __init__(self, folder: Path, peer: int, environment: dict[str, str] | None = None) -> None:
        self.data = folder / "data"
        self.config = folder / "gateway.toml"
        self.log = folder / "agent.log"
        self.mllp = free_port()
        self.environment = environment or {}
        self.config.write_text(CONFIG.format(data=self.data, console=free_port(), mllp=self.mllp, peer=peer))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, until: str = "up") -> None:
        """Start and wait until its one Source is in a state."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.cli.main", "run", "-c", str(self.config)],
                stderr=log,
                stdout=log,
                env=os.environ | self.environment,
            )
        eventually(lambda: self.source_is(until))

    def source_is(self, state: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(AgentNotRunning):
            return all(source["state"] == state for source in self.status()["sources"])
        return False

    def status(self) -> dict[str, Any]:
        return call(self.data, "status")

    def destination(self) -> dict[str, Any]:
        destination: dict[str, Any] = self.status()["destinations"][0]
        return destination

    def send(self, *numbers: int) -> list[str]:
        """Send with python-hl7's client; return the codes it was answered."""
        with hl7.client.MLLPClient("127.0.0.1", self.mllp) as client:
            client.socket.settimeout(WAIT_S)  # an answer that never comes fails here, by name
            return [client.send_message(hl7_message(number)).split(b"MSA|")[1][:2].decode() for number in numbers]

    def end(self, number: signal.Signals) -> tuple[int, float]:
        """Send a signal; return the exit status and how long that took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(WAIT_S), time.monotonic() - began

    def gateway(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "gateway.cli.main", *words, "-c", str(self.config)]
        return subprocess.run(command, capture_output=True, timeout=WAIT_S, check=False)


class Receiver:
    """The simulated EMR, and its journal."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._journal = folder / "journal.jsonl"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        place = f"127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "simulators.mllp_receiver", "--listen", place, "--journal", str(self._journal)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["ready"]

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=WAIT_S)

    def got(self) -> list[tuple[str, str]]:
        """Return control id and hash of each message, in order."""
        if not self._journal.exists():
            return []
        lines = [json.loads(line) for line in self._journal.read_text().splitlines()]
        return [(line["id"], line["sha256"]) for line in lines]


def expected(*numbers: int) -> list[tuple[str, str]]:
    return [(f"M{number}", hashlib.sha256(hl7_message(number)).hexdigest()) for number in numbers]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    simulated = Receiver(tmp_path)
    yield simulated
    simulated.stop()


@pytest.fixture
def agent(tmp_path: Path, receiver: Receiver) -> Iterator[Agent]:
    started = Agent(tmp_path, receiver.port)
    yield started
    if started.process is not None and started.process.poll() is None:
        started.process.kill()
        started.process.wait(WAIT_S)


def test_a_message_is_kept_delivered_unchanged_and_shown(agent: Agent, receiver: Receiver) -> None:
    receiver.start()
    agent.start()

    assert agent.send(1, 2) == ["AA", "AA"]

    eventually(lambda: agent.destination()["delivered"] == 2)
    assert receiver.got() == expected(1, 2)
    assert agent.gateway("message", "1", "--raw").stdout == hl7_message(1)
    shown = json.loads(agent.gateway("message", "1", "--json").stdout)
    assert shown["deliveries"][0]["state"] == "delivered"
    assert shown["deliveries"][0]["attempt_list"][0]["acknowledgement"].split("MSA|")[1].startswith("AA|M1")
    assert b"4711" not in agent.log.read_bytes()


def test_what_was_acknowledged_survives_kill_9_and_is_delivered_in_order(agent: Agent, receiver: Receiver) -> None:
    agent.start()  # nobody receives yet
    assert agent.send(*range(20)) == ["AA"] * 20
    assert agent.end(signal.SIGKILL)[0] == -signal.SIGKILL

    stopped = json.loads(agent.gateway("status", "--json").stdout)
    receiver.start()
    agent.start()

    assert (stopped["running"], stopped["destinations"][0]["pending"]) == (False, 20)
    eventually(lambda: agent.destination()["delivered"] == 20)
    assert receiver.got() == expected(*range(20))
    assert agent.send(7) == ["AA"]  # the sender never heard and repeats
    assert agent.status()["sources"][0]["repeated"] == 1
    assert len(receiver.got()) == 20
    assert agent.gateway("verify").returncode == 0


def test_sighup_takes_a_valid_configuration_over_and_refuses_an_invalid_one(agent: Agent, receiver: Receiver) -> None:
    receiver.start()
    agent.start()
    sound = agent.config.read_text()
    moved, other = free_port(), agent.mllp

    agent.config.write_text(sound.replace(f":{other}", f":{moved}") + "[[source]]\nnam = 1\n")
    agent.process.send_signal(signal.SIGHUP)
    eventually(lambda: "configuration-refused" in {alarm["key"] for alarm in agent.status()["alarms"]})
    assert agent.send(1) == ["AA"]

    agent.config.write_text(sound.replace(f":{other}", f":{moved}"))
    agent.process.send_signal(signal.SIGHUP)
    eventually(lambda: not agent.status()["alarms"])
    agent.mllp = moved
    eventually(lambda: _listens(moved))
    assert agent.send(2) == ["AA"]
    assert not _listens(other)
    eventually(lambda: agent.destination()["delivered"] == 2)
    assert receiver.got() == expected(1, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order_while_peers_are_connected(number: signal.Signals, agent: Agent) -> None:
    agent.start()  # nobody receives: its Destination backs off
    agent.send(1)
    with socket.create_connection(("127.0.0.1", agent.mllp)) as half:
        half.sendall(b"\x0bMSH|^~\\&|A")

        status, took_s = agent.end(number)

    assert status == 0
    assert took_s < 10
    assert not (agent.data / "gateway.db.open").exists()
    assert not (agent.data / "control.sock").exists()
    assert "agent.stopped" in agent.log.read_text()


def test_a_stop_that_hangs_is_ended() -> None:
    script = "import threading; from gateway.cli.run import end_within; end_within(0.1); threading.Event().wait(60)"

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=WAIT_S, check=False)

    assert ended.returncode == 1
    assert b"agent.stop_timed_out" in ended.stderr


def test_the_service_manager_hears_of_ready_reload_watchdog_and_stop(tmp_path: Path, receiver: Receiver) -> None:
    place = tmp_path / "notify"
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(place))
        channel.settimeout(0.2)
        listening = threading.Thread(target=_listen, args=(channel, heard, "STOPPING=1"))
        listening.start()
        agent = Agent(tmp_path, receiver.port, {"NOTIFY_SOCKET": str(place), "WATCHDOG_USEC": "200000"})
        agent.start()
        try:
            eventually(lambda: heard.count("WATCHDOG=1") >= 3)
            agent.process.send_signal(signal.SIGHUP)
            eventually(lambda: "RELOADING=1" in heard and heard.index("RELOADING=1") < _last(heard, "READY=1"))
        finally:
            agent.end(signal.SIGTERM)
            listening.join(WAIT_S)

    assert heard[0] == "READY=1"
    assert "STOPPING=1" in heard


def test_a_second_agent_is_refused_in_one_line(agent: Agent) -> None:
    agent.start()

    second = agent.gateway("run")

    assert second.returncode == 1
    assert second.stderr.decode().splitlines()[-1] == f"gateway: {agent.data} is in use by another gateway"
    assert agent.send(1) == ["AA"]


def test_a_listeners_port_in_use_is_an_alarm_and_the_rest_runs(agent: Agent, receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", agent.mllp)):
        agent.start(until="down")
        assert eventually(lambda: [a for a in agent.status()["alarms"] if a["key"] == "source-down:emr"])
    eventually(lambda: agent.source_is("up"))
    eventually(lambda: not agent.status()["alarms"])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _listen(channel: socket.socket, heard: list[str], until: str) -> None:
    ends = time.monotonic() + 3 * WAIT_S
    while until not in heard and time.monotonic() < ends:
        with contextlib.suppress(TimeoutError):
            heard += channel.recv(4096).decode().split("\n")


def _last(words: list[str], word: str) -> int:
    return len(words) - 1 - words[::-1].index(word)
