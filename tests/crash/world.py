"""The world around the agent in a campaign: simulators that outlive it, a broker, and the configuration."""

import json
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.agents import ROOT, Agent, free_port

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 60.0  # the modality waits for its last reports
POLL_S = 0.05

# Slow and failing, but seldom enough that the lane keeps up with the load: a failure costs it a second and more.
SLOW_EMR = [
    {"fault": "late", "probability": 0.01, "delay_s": 0.2},
    {"fault": "split", "probability": 0.05},
    {"fault": "close", "probability": 0.001},
    {"fault": "half", "probability": 0.001},
    {"fault": "wrong_id", "probability": 0.0005},
    {"fault": "garbage", "probability": 0.0005},
    {"fault": "ae207", "probability": 0.001},
    {"fault": "silent", "probability": 0.0005},
]
SLOW_PACS = [
    {"fault": "slow", "probability": 0.02, "delay_s": 0.3},
    {"fault": "full", "probability": 0.005},
    {"fault": "abort", "probability": 0.005},
    {"fault": "close", "probability": 0.005},
]

CONFIG = """
[gateway]
name = "crash"
data_dir = "{data}"

[retention]
max_size = "100 GiB"
reserve = "{reserve}"
stop_intake_below = "{stop_intake_below}"

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
services = ["echo", "storage", "commitment"]
peers = [{{ ae_title = "MODALITY", host = "127.0.0.1", port = {modality} }}, {{ ae_title = "PROBE" }}]

[[source]]
name = "bed-1"
type = "device"
driver = "nellcor"
port = "{bed_1}"

[[source]]
name = "bed-2"
type = "device"
driver = "nellcor"
port = "{bed_2}"

[[destination]]
name = "slow"
type = "mllp"
host = "127.0.0.1"
port = {slow}
ack_timeout_s = 2
content_attempts_max = 50

[[destination]]
name = "healthy"
type = "mllp"
host = "127.0.0.1"
port = {healthy}
ack_timeout_s = 5

[[destination]]
name = "broker"
type = "mqtt"
url = "mqtt://127.0.0.1:{broker}"

[[destination]]
name = "pacs"
type = "dicom"
host = "127.0.0.1"
port = {pacs}
ae_title = "PACS"
response_timeout_s = 5
content_attempts_max = 50

[[route]]
from = ["emr"]
to = ["slow", "healthy", "broker"]

[[route]]
from = ["bed-*"]
to = ["healthy", "broker"]

[[route]]
from = ["imaging"]
to = ["pacs"]
"""


class Simulator:
    """One simulator as a process: ready when it said so, ended by SIGTERM."""

    def __init__(self, name: str, *options: object, says_ready: bool = True) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"simulators.{name}", *map(str, options)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            cwd=ROOT,
        )
        self.ready: dict[str, Any] = json.loads(self._first_line()) if says_ready else {}

    @property
    def port(self) -> int:
        return int(self.ready["port"])

    def _first_line(self) -> bytes:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(READY_TIMEOUT_S):
                self.process.kill()
                raise TimeoutError(f"{self.process.args!r} did not say it is ready")
        return self.process.stdout.readline()

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


@dataclass
class Load:
    """How much is sent."""

    messages_per_s: int = 120
    instances_per_s: int = 15
    devices_rate: int = 20  # times faster than life: a row every 0.1 s
    instance_bytes: str = "48KB"
    associations: int = 2
    committed_every: int = 10  # Instances that the modality asks to be committed to at a time
    slow_emr: Sequence[dict[str, object]] = tuple(SLOW_EMR)
    slow_pacs: Sequence[dict[str, object]] = tuple(SLOW_PACS)


@dataclass
class World:
    """Everything but the agent; `folder` holds journals, logs and the configuration."""

    folder: Path
    data: Path
    seed: int = 1
    load: Load = field(default_factory=Load)
    reserve: str = "1 MiB"
    stop_intake_below: str = "1 MiB"
    module: str = "gateway.cli.main"

    def start(self) -> None:
        """Start receivers, then devices; the load starts with `send`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._all: list[Simulator] = []
        self._senders: list[Simulator] = []
        self._mosquitto = _start_mosquitto(self.folder, broker := free_port())
        seed = ("--seed", self.seed)
        slow = self._receiver("mllp_receiver", "slow", "--faults", json.dumps(self.load.slow_emr), *seed)
        healthy = self._receiver("mllp_receiver", "healthy")
        pacs = self._receiver("dicom_receiver", "pacs", "--faults", json.dumps(self.load.slow_pacs), *seed)
        self._receiver("mqtt_receiver", "broker", "--to", f"127.0.0.1:{broker}", "--topic", "mdg/#")
        for bed in ("bed-1", "bed-2"):
            options = ("--pty", self.folder / bed, "--rate", self.load.devices_rate, "--journal", self.journal(bed))
            self._all.append(Simulator("nellcor", *options, says_ready=False))
            wait_until(lambda bed=bed: (self.folder / bed).is_symlink(), READY_TIMEOUT_S)  # type: ignore[misc]
        self.ports = {"slow": slow.port, "healthy": healthy.port, "pacs": pacs.port, "broker": broker}
        self.listening = {"mllp": free_port(), "dicom": free_port(), "console": free_port()}
        self._modality_port = free_port()  # where reports of commitment come
        self.write_config(self.ports)

    def write_config(self, ports: dict[str, int]) -> None:
        """Write the agent's configuration, with the destinations behind these ports."""
        self.config.write_text(
            CONFIG.format(
                data=self.data,
                bed_1=(self.folder / "bed-1").readlink(),
                bed_2=(self.folder / "bed-2").readlink(),
                reserve=self.reserve,
                stop_intake_below=self.stop_intake_below,
                modality=self._modality_port,
                **self.listening,
                **ports,
            ),
            "utf-8",
        )

    @property
    def config(self) -> Path:
        return self.folder / "gateway.toml"

    def journal(self, name: str) -> Path:
        """Return where a simulator writes what it sent or received."""
        return self.folder / f"{name}.jsonl"

    def send(self, mllp_port: int | None = None) -> None:
        """Start the load."""
        to = f"127.0.0.1:{mllp_port or self.listening['mllp']}"
        options = ("--kind", "mix", "--connections", 4, "--window", 4, "--rate", self.load.messages_per_s)
        more = ("--retry-refused", "--ack-timeout", 5, "--seed", self.seed, "--journal", self.journal("emr"))
        self._senders.append(Simulator("emr", "--to", to, *options, *more))
        self._senders.append(Simulator("modality", *self._modality_options()))

    def _modality_options(self) -> list[object]:
        load = self.load
        return [
            *("--to", f"127.0.0.1:{self.listening['dicom']}", "--associations", load.associations),
            *("--series", "CT", "--instances", 10, "--size", load.instance_bytes, "--rate", load.instances_per_s),
            *("--commitment", load.committed_every, "--listen", f"127.0.0.1:{self._modality_port}"),
            *("--seed", self.seed, "--journal", self.journal("imaging")),
        ]

    def stop_sending(self) -> None:
        """Send nothing new; devices too. What was sent is waited for a while."""
        devices = [one for one in self._all if "simulators.nellcor" in one.process.args]  # type: ignore[operator]
        for sender in [*self._senders, *devices]:
            sender.stop()

    def agent(self, *, until_ready: bool = True) -> Agent:
        """Start the agent."""
        return Agent(self.config, self.folder / "agent.log", module=self.module, until_ready=until_ready)

    def stop(self) -> None:
        """End everything that was started."""
        for simulator in [*self._senders, *self._all]:
            simulator.stop()
        self._mosquitto.terminate()
        self._mosquitto.wait(STOP_TIMEOUT_S)

    def _receiver(self, program: str, name: str, *options: object) -> Simulator:
        made = Simulator(program, "--journal", self.journal(name), *options)
        self._all.append(made)
        return made


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait until something holds. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"did not come true within {timeout_s} s")
        time.sleep(POLL_S)


def _start_mosquitto(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n", "ascii")
    with (folder / "mosquitto.log").open("wb") as log:
        return subprocess.Popen([program, "-c", str(config)], stdout=log, stderr=log)
