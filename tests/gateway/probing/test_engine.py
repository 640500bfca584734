"""The probe at ptys, TCP and UDP: simulated Devices, noise, silence."""

import asyncio
import os
import pty
import random
import socket
import sys
import time
import tomllib
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.config import DeviceSource
from gateway.driver import Driver, LineSettings
from gateway.errors import LinkError
from gateway.net.stream import Inbox
from gateway.probing import Report, engine, probe, stanza_of
from gateway.registry import create_driver, installed_drivers
from gateway.status import LineState
from gateway.typed import build

HOUSE = Path(__file__).parents[3]
PROBE_S_MAX = 20.0
TIMEOUT_S = 30.0
DRIVERS = installed_drivers()
NOT_PROBED = {
    "dash-unity": "it is on the network, not on a line",
    "line": "it knows no device before the configuration describes one",
}
WORDS = {"nellcor": ["--rate", "4"], "masimo": ["--rate", "4"], "nonin": ["--rate", "4"]}


def simulated_drivers() -> list[str]:
    """The drivers that have a simulator on a pty."""
    return [name for name in DRIVERS if name not in NOT_PROBED and has_pty(name)]


def has_pty(name: str) -> bool:
    module = HOUSE / "simulators" / f"{name.replace('-', '_')}.py"
    return module.exists() and any(
        word in module.read_text("utf-8") for word in ("--pty", "bedside", "ward", "answering")
    )


@asynccontextmanager
async def simulated(*words: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, cwd=HOUSE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield (await process.stdout.readline()).decode().split()[0]
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def probed(driver: str, folder: Path) -> Report:
    """Probe the driver's simulator: passively where its Device talks by itself, named where asking may harm others."""
    link = folder / f"{driver}.pty"
    module = f"simulators.{driver.replace('-', '_')}"
    async with simulated(module, "--pty", str(link), *WORDS.get(driver, [])):
        about = DRIVERS[driver].about
        insisted = not (about.talks or about.harmless_polls)
        tried = [DRIVERS[driver]] if insisted else DRIVERS.values()
        return await probe(str(link), tried, SystemClock(), active=not about.talks, insisted=insisted)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """All simulators at once, because a person's patience is the time of one."""
    folder, names = tmp_path_factory.mktemp("ports"), simulated_drivers()

    async def all_of_them() -> list[Report]:
        return await asyncio.gather(*(probed(name, folder) for name in names))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "SILENT_S", 1.0)  # those that talk do so at once
        return dict(zip(names, asyncio.run(all_of_them()), strict=True))


@pytest.mark.parametrize("driver", simulated_drivers())
def test_a_simulated_device_is_named_in_time(driver: str, reports: dict[str, Report]) -> None:
    report = reports[driver]

    assert report.finding is not None, report.hints
    assert report.finding.driver == driver
    assert report.finding.passive == DRIVERS[driver].about.talks
    assert report.seconds < PROBE_S_MAX


@pytest.mark.parametrize("driver", simulated_drivers())
def test_the_stanza_to_paste_is_one_that_the_gateway_takes(driver: str, reports: dict[str, Report]) -> None:
    report = reports[driver]
    assert report.finding is not None

    (table,) = tomllib.loads(stanza_of(report.finding, report.port, DRIVERS[driver]))["source"]
    source, faults = build(DeviceSource, table)

    assert source is not None, faults
    assert create_driver(source.driver, source.options)[0] is not None
    assert source.port == report.port


async def test_a_device_behind_tcp_is_named_with_its_model() -> None:
    async with simulated("simulators.nellcor", "--tcp", "127.0.0.1:0", "--rate", "4") as place:
        report = await probe(f"tcp://{place}", DRIVERS.values(), SystemClock())

    assert report.finding is not None
    assert (report.finding.driver, report.finding.device.model) == ("nellcor", "N-595")
    assert "spo2" in report.finding.keys


async def test_a_device_that_sends_datagrams_is_named() -> None:
    line = b"02/22/16 22:47:45 SN=0000056661 SPO2=098% BPM=097 PI=03.60% ALARM=0000 EXC=000800\r\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("127.0.0.1", port)
    )
    for delay_s in (0.1, 0.15, 0.2):
        asyncio.get_running_loop().call_later(delay_s, transport.sendto, line)
    report = await probe(f"udp://127.0.0.1:{port}", DRIVERS.values(), SystemClock(), budget_s=5)
    transport.close()

    assert report.finding is not None, report.hints
    assert report.finding.driver == "masimo"


@contextmanager
def noisy(seed: int, size: int) -> Iterator[str]:
    """A pty on which so many random bytes come soon."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    asyncio.get_running_loop().call_later(0.1, os.write, master, random.Random(seed).randbytes(size))
    try:
        yield os.ttyname(slave)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("active", [False, True])
async def test_noise_is_nothing_recognised(active: bool) -> None:
    with noisy(seed=3, size=3000) as port:
        report = await probe(port, DRIVERS.values(), SystemClock(), active=active, budget_s=0.6)

    assert report.finding is None
    assert any("look like noise" in hint for hint in report.hints)
    assert any("first bytes" in hint for hint in report.hints)
    assert any("--active" in hint for hint in report.hints) != active
    assert any("may not be harmless" in hint for hint in report.hints) == active


async def test_silence_is_nothing_recognised_and_the_driver_may_be_asked_for() -> None:
    with noisy(seed=3, size=0) as port:
        began = time.monotonic()
        report = await probe(port, DRIVERS.values(), SystemClock(), budget_s=0.5)
        took_s = time.monotonic() - began

    assert report.finding is None
    assert took_s < 2
    assert report.hints[0].startswith("silence")
    assert any("--active" in hint and "datex-s5" in hint for hint in report.hints)


async def test_nothing_is_said_without_leave() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    try:
        await probe(os.ttyname(slave), DRIVERS.values(), SystemClock(), budget_s=0.6)
        with pytest.raises(BlockingIOError):
            os.read(master, 1)
    finally:
        os.close(master)
        os.close(slave)


async def test_with_leave_only_harmless_words_are_said() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    harmful = [driver for driver in DRIVERS.values() if not driver.about.harmless_polls]
    try:
        await probe(os.ttyname(slave), harmful, SystemClock(), active=True, budget_s=0.6)
        with pytest.raises(BlockingIOError):
            os.read(master, 1)
    finally:
        os.close(master)
        os.close(slave)


async def test_who_is_named_is_asked_all_the_same_and_taken_leave_of() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    try:
        pumps = [DRIVERS["fresenius"]]
        await probe(os.ttyname(slave), pumps, SystemClock(), active=True, insisted=True, budget_s=2)
        said = os.read(master, 4096)
    finally:
        os.close(master)
        os.close(slave)

    assert said.startswith(b"\x02DC")
    assert said.endswith(b"\x02FC76\x03")


async def test_a_port_that_is_not_there_is_a_link_error() -> None:
    with pytest.raises(LinkError):
        await probe("/dev/none", DRIVERS.values(), SystemClock())


# --- a serial line of which only some settings are right -------------------------------------------------------------


class Line:
    """A serial line on which a Masimo talks at one setting; at others it is garbled."""

    def __init__(self, right: LineSettings) -> None:
        self.right = right
        self.opened: list[LineSettings] = []

    async def open(self, port: str, line: LineSettings) -> "LineStream":
        self.opened.append(line)
        text = b"02/22/16 22:47:45 SN=0000056661 SPO2=098% BPM=097 PI=03.60% ALARM=0000 EXC=000800\r\n" * 4
        return LineStream(text if line == self.right else random.Random(1).randbytes(200))


class LineStream:
    """A port that counts an error for each second byte that is no text."""

    def __init__(self, data: bytes) -> None:
        self.peer = self.device = "line"
        self._errors = 100  # of another day
        self._garbled = not data.isascii()
        self._inbox = Inbox()
        self._inbox.feed(data)

    async def read(self) -> bytes:
        data = await self._inbox.take()
        self._errors += len(data) // 2 if self._garbled else 0
        return data

    def line_state(self) -> LineState:
        return LineState(lines=("CTS",), framing_errors=self._errors)

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


async def test_line_settings_are_swept_until_a_driver_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "GARBLED_S", 0.2)
    monkeypatch.setattr(engine, "IDENTITY_S", 0.1)
    drivers = [driver for name, driver in DRIVERS.items() if name in ("masimo", "datex-s5")]
    right = next(driver for driver in drivers if driver.about.name == "datex-s5").about.line
    line = Line(right)
    report = await probe("/dev/ttyS99", drivers, SystemClock(), opener=line.open, budget_s=10)

    assert report.finding is not None
    assert (report.finding.driver, report.finding.line) == ("masimo", right)
    assert line.opened[0] == LineSettings()
    assert line.opened[-1] == right
    stanza = stanza_of(report.finding, report.port, masimo(drivers))
    assert 'line = { baud = 19200, parity = "even"' in stanza


async def test_a_line_of_which_no_setting_is_right_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "GARBLED_S", 0.2)
    line = Line(LineSettings(baud=57))
    report = await probe("/dev/ttyS99", [DRIVERS["masimo"], DRIVERS["datex-s5"]], SystemClock(), opener=line.open)

    assert report.finding is None
    assert len(line.opened) == 3
    assert any("framing or parity errors: looks like a wrong baud rate" in hint for hint in report.hints)
    assert report.seconds < 3


def masimo(drivers: list[type[Driver]]) -> type[Driver]:
    return next(driver for driver in drivers if driver.about.name == "masimo")
