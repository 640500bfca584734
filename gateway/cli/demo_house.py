"""The house the demo shows: simulators and the agent as child processes, their ports and the agent's configuration.

    bedside Devices (ptys), EMR (MLLP), modalities (DICOM) --> agent --> MLLP receivers, MQTT broker and consumer, PACS

One modality stores images of its own; another, CT1, does the scheduled workflow: the EMR's orders are its worklist, its
procedure steps become order status at the RIS, its images are committed to.

The simulators are programs of their own: they are started, never imported. Everything listens on 127.0.0.1.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import GatewayError

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 12.0
ADT_PER_S = 2.0
IMAGES_PER_S = 1.0
ORDERS_PER_S = 0.5
WORKLIST_INTERVAL_S = 0.5


class DemoError(GatewayError):
    """A part of the demo did not start or ended by itself."""


@dataclass(frozen=True, kw_only=True)
class DemoDevice:
    """One simulated bedside Device; `arguments` are its simulator's, `options` its stanza's (TOML)."""

    name: str
    driver: str
    bed: str
    device_id: str
    simulator: str
    arguments: tuple[str, ...] = ()
    options: str = ""


@dataclass(frozen=True, kw_only=True)
class DemoReceiver:
    """One simulated hospital system that receives, by the name of the Destination that leads there."""

    name: str
    type: str
    simulator: str


def _device(
    number: int, driver: str, simulator: str | None = None, *, arguments: tuple[str, ...] = (), options: str = ""
) -> DemoDevice:
    return DemoDevice(
        name=f"bed-{number}-{driver}",
        driver=driver,
        bed=f"DEMO-ICU^^{number}",
        device_id=f"0201F3FFFE00DE{number:02d}",
        simulator=simulator or driver,
        arguments=arguments,
        options=options,
    )


DEVICES = (
    _device(1, "nellcor"),
    _device(2, "masimo"),
    _device(3, "nonin"),
    _device(4, "philips-intellivue", "philips_intellivue", options='waves = ["ecg-ii", "pleth"]'),
    _device(5, "datex-s5", "datex_s5"),
    _device(6, "medibus", arguments=("--model", "v500")),
    _device(7, "alaris"),
)
RECEIVERS = (
    DemoReceiver(name="emr", type="mllp", simulator="mllp_receiver"),
    DemoReceiver(name="broker", type="mqtt", simulator="mqtt_receiver"),
    DemoReceiver(name="pacs", type="dicom", simulator="dicom_receiver"),
    DemoReceiver(name="ris", type="mllp", simulator="mllp_receiver"),
)
SCHEDULED = "ct1"
INPUTS = ("emr-simulator", "orders", "modality", SCHEDULED, *(device.name for device in DEVICES))


class Child:
    """One child process: its lines of output are read by a thread, its errors go to a file."""

    def __init__(self, name: str, command: list[str], log: Path, on_line: Callable[[str], None] | None = None) -> None:
        self.name, self.log = name, log
        self._first: str | None = None
        self._spoke = threading.Event()
        self._on_line = on_line
        with log.open("wb") as errors:
            self.process = subprocess.Popen(  # noqa: S603 - our own modules, arguments of our own
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the demo, which stops its children in order
            )
        self._reader = threading.Thread(target=self._read, name=f"demo-{name}", daemon=True)
        self._reader.start()

    def ready(self) -> str:
        """Return the first line; raises DemoError when none comes in time."""
        if not self._spoke.wait(READY_TIMEOUT_S) or self._first is None:
            raise DemoError(f"{self.name} did not start: {self.last_words()}")
        return self._first

    def last_words(self) -> str:
        """Return the last line of its errors."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it said nothing (exit status {self.process.poll()})"

    def stop(self) -> None:
        """Ask it to end; it is waited for in `join`."""
        if self.process.poll() is None:
            self.process.terminate()

    def join(self) -> None:
        """Wait until it has ended; kill it when it does not."""
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)
        self._reader.join(STOP_TIMEOUT_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if self._first is None:
                self._first = line
                self._spoke.set()
            elif self._on_line is not None:
                self._on_line(line)
        self._spoke.set()


class House:
    """All children of one demo, in a folder of their own."""

    def __init__(self, folder: Path, on_feed: Callable[[str], None]) -> None:
        """Start nothing yet; `on_feed` gets every line the MQTT consumer prints, on a thread of its own."""
        self.folder, self.config, self.data_dir = folder, folder / "gateway.toml", folder / "data"
        self._on_feed = on_feed
        self._children: dict[str, Child] = {}
        for part in ("journals", "logs", "ports", "data"):
            (folder / part).mkdir()

    def journal(self, name: str) -> Path:
        """Return where a simulator writes what it sent or received."""
        return self.folder / "journals" / f"{name}.jsonl"

    def open(self) -> None:
        """Start the receivers, the Devices and the agent, in this order; raises DemoError."""
        emr = self._ready_port("emr", "mllp_receiver", "--journal", self.journal("emr"))
        ris = self._ready_port("ris", "mllp_receiver", "--journal", self.journal("ris"))
        pacs = self._ready_port("pacs", "dicom_receiver", "--ae-title", "PACS", "--journal", self.journal("pacs"))
        broker = self._ready_port("mqtt-broker", "broker")
        consumer = ("--to", f"127.0.0.1:{broker}", "--version", "3.1.1", "--journal", self.journal("broker"), "--echo")
        self._simulator("broker", "mqtt_receiver", *consumer, on_line=self._on_feed).ready()
        for device in DEVICES:
            options = ("--pty", self._port(device), "--journal", self.journal(device.name))
            self._simulator(device.name, device.simulator, *device.arguments, *options).ready()
        self._mllp, self._dicom = _free_port(), _free_port()
        ports = {device.name: self._port(device).resolve() for device in DEVICES}  # the ptys the links lead to
        text = configuration(
            self.data_dir, ports, mllp=(self._mllp, emr), dicom=(self._dicom, pacs), broker=broker, ris=ris
        )
        self.config.write_text(text, encoding="utf-8")
        self._start("agent", [sys.executable, "-m", "gateway.cli.main", "run", "-c", str(self.config)])

    def start_inputs(self) -> None:
        """Let the EMR and the modalities send; call this when the agent listens."""
        hl7, imaging = ("--to", f"127.0.0.1:{self._mllp}"), ("--to", f"127.0.0.1:{self._dicom}")
        changes = ("--xo-every", 3, "--ca-every", 4, "--change-after", 0)
        self._simulator("orders", "orders", *hl7, "--rate", ORDERS_PER_S, *changes, "--station", "CT1").ready()
        day = ("--own-station", "--calling", "CT1", "--poll", WORKLIST_INTERVAL_S, "--size", "32KB")
        journal = ("--journal", self.journal(SCHEDULED))
        self._simulator(SCHEDULED, "modality", "--scheduled", *imaging, *day, *journal).ready()
        journal = ("--journal", self.journal("emr-simulator"))
        self._simulator("emr-simulator", "emr", *hl7, "--rate", ADT_PER_S, *journal).ready()
        journal = ("--journal", self.journal("modality"))
        self._simulator("modality", "modality", *imaging, "--rate", IMAGES_PER_S, *journal).ready()

    def stop_inputs(self) -> None:
        """Stop everything that sends; what was accepted stays with the agent."""
        self._stop([name for name in INPUTS if name in self._children])

    def check(self) -> None:
        """Raise DemoError when a child has ended by itself."""
        for child in self._children.values():
            if child.process.poll() is not None:
                raise DemoError(f"{child.name} ended by itself: {child.last_words()}")

    def close(self) -> None:
        """Stop what still runs: senders, then the agent, then the receivers."""
        self.stop_inputs()
        self._stop([name for name in ("agent",) if name in self._children])
        self._stop(list(self._children))

    def _stop(self, names: list[str]) -> None:
        for name in names:
            self._children[name].stop()
        for name in names:
            self._children.pop(name).join()

    def _port(self, device: DemoDevice) -> Path:
        return self.folder / "ports" / device.name

    def _ready_port(self, name: str, module: str, *arguments: object) -> int:
        return int(_facts(self._simulator(name, module, *arguments).ready())["port"])

    def _simulator(
        self, name: str, module: str, *arguments: object, on_line: Callable[[str], None] | None = None
    ) -> Child:
        return self._start(name, [sys.executable, "-m", f"simulators.{module}", *map(str, arguments)], on_line)

    def _start(self, name: str, command: list[str], on_line: Callable[[str], None] | None = None) -> Child:
        child = Child(name, command, self.folder / "logs" / f"{name}.log", on_line)
        self._children[name] = child
        return child


def configuration(
    data_dir: Path,
    ports: Mapping[str, Path],
    *,
    mllp: tuple[int, int],
    dicom: tuple[int, int],
    broker: int,
    ris: int,
) -> str:
    """Return the demo's gateway.toml.

    `ports` are the serial ports by the Device's name; `mllp` and `dicom` the TCP ports (of the Source, of the
    Destination); `ris` is where order status goes.
    """
    tables = [
        f'[gateway]\nname = "demo"\ndata_dir = {_quoted(data_dir)}\nfacility = "DEMO"',
        '[retention]\nreserve = "16 MiB"\nstop_intake_below = "64 MiB"',
        f'[console]\nlisten = "127.0.0.1:{_free_port()}"',
        f'[[source]]\nname = "adt-and-orders"\ntype = "mllp"\nlisten = "127.0.0.1:{mllp[0]}"',
        f'[[source]]\nname = "imaging"\ntype = "dicom"\nlisten = "127.0.0.1:{dicom[0]}"\nae_title = "GATEWAY"\n'
        'services = ["echo", "storage", "worklist", "mpps", "commitment"]',
        *(_device_table(device, ports[device.name]) for device in DEVICES),
        f'[[destination]]\nname = "emr"\ntype = "mllp"\nhost = "127.0.0.1"\nport = {mllp[1]}',
        f'[[destination]]\nname = "broker"\ntype = "mqtt"\nurl = "mqtt://127.0.0.1:{broker}"\nversion = "3.1.1"',
        f'[[destination]]\nname = "pacs"\ntype = "dicom"\nhost = "127.0.0.1"\nport = {dicom[1]}\nae_title = "PACS"',
        f'[[destination]]\nname = "ris"\ntype = "mllp"\nhost = "127.0.0.1"\nport = {ris}\norder_status = "orm-o01"',
        '[[route]]\nfrom = ["bed-*"]\nto = ["emr", "broker"]',
        '[[route]]\nfrom = ["adt-and-orders"]\nto = ["emr"]',
        '[[route]]\nfrom = ["imaging"]\nto = ["pacs", "ris"]',
    ]
    return "\n\n".join(tables) + "\n"


def _device_table(device: DemoDevice, port: Path) -> str:
    return (
        f'[[source]]\nname = "{device.name}"\ntype = "device"\ndriver = "{device.driver}"\nport = {_quoted(port)}\n'
        f'bed = "{device.bed}"\ndevice_id = "{device.device_id}"\noptions = {{ {device.options} }}'
    )


def _quoted(path: Path) -> str:
    return json.dumps(os.fspath(path))


def _facts(line: str) -> dict[str, Any]:
    facts = json.loads(line)
    assert isinstance(facts, dict)
    return facts


def _free_port() -> int:
    with socket.socket() as wire:
        wire.bind(("127.0.0.1", 0))
        return int(wire.getsockname()[1])
