"""The driver through the agent's link on a real pty and a real UDP port, the simulated monitor at the other end."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.config import DeviceSource
from gateway.model import Accepted, Incoming, Kind, Result
from gateway.registry import create_driver
from gateway.sources.link import DeviceLink
from gateway.status import LinkState, SourceStatus
from simulators.philips_intellivue import IntellivueMachine
from simulators.philips_intellivue_monitor import Settings
from simulators.script import Script, read_step
from simulators.ward import Bed, End, PtyEnd, UdpEnd

TIMEOUT_S = 20.0


class Intake:
    """Keeps everything it is given."""

    def __init__(self) -> None:
        self.kept: list[Incoming] = []

    async def accept(self, incoming: Incoming) -> Accepted:
        self.kept.append(incoming)
        return Accepted(message_id=len(self.kept), repeated=False)

    @property
    def results(self) -> list[Result]:
        return [item.result for item in self.kept if item.result is not None]

    def seen(self, key: str) -> int:
        return sum(any(item.key == key and item.value is not None for item in one.observations) for one in self.results)


@contextlib.asynccontextmanager
async def ward(end: End, port: str, *steps: str, demo: bool = False) -> AsyncIterator[tuple[Intake, SourceStatus]]:
    lan = port.startswith("udp")
    script = Script(tuple(read_step(step) for step in steps))
    began = asyncio.get_running_loop().time()
    machine = IntellivueMachine(Settings(demo=demo), script=script, began=began, port=24105 if lan else None)
    bed = Bed(machine, end)
    await bed.plug()
    driver, faults = create_driver("philips-intellivue", {"waves": ["ecg-ii", "pleth"]})
    assert driver is not None, faults
    intake, status = Intake(), SourceStatus(name="bed-1", type="device")
    settings = DeviceSource(name="bed-1", driver="philips-intellivue", port=port)
    link = DeviceLink(settings, driver, intake, SystemClock(), status)
    tasks = [asyncio.create_task(bed.run()), asyncio.create_task(link.run())]
    try:
        yield intake, status
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not holds():  # noqa: ASYNC110 - plain state at the other end of a cable
            await asyncio.sleep(0.005)


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def plugged(kind: str, folder: Path) -> tuple[End, str]:
    if kind == "pty":
        return PtyEnd(folder / "bed"), str(folder / "bed")
    port = free_udp_port()
    return UdpEnd("127.0.0.1", 0, ("127.0.0.1", port)), f"udp://127.0.0.1:{port}"


@pytest.mark.parametrize("kind", ["pty", "udp"])
async def test_values_waves_and_alarms_come_in(kind: str, tmp_path: Path) -> None:
    end, port = plugged(kind, tmp_path)

    async with ward(end, port, "alarm@0+600") as (intake, status):
        await until(lambda: intake.seen("heart_rate") and sum(bool(result.waves) for result in intake.results) > 3)
        await until(lambda: any(item.priority for result in intake.results for item in result.conditions))

    assert status.state is LinkState.UP
    assert {item.kind for item in intake.kept} == {Kind.OBSERVATIONS}
    assert {wave.key for result in intake.results for wave in result.waves} >= {"ecg_wave_ii"}


async def test_a_cable_that_is_pulled_and_plugged_again_is_read_again_within_five_seconds(tmp_path: Path) -> None:
    end, port = plugged("pty", tmp_path)
    loop = asyncio.get_running_loop()

    async with ward(end, port, "unplug@2+1") as (intake, _):
        await until(lambda: intake.seen("heart_rate"))
        await until(lambda: not Path(port).exists())
        await until(Path(port).exists)
        back_at, before = loop.time(), intake.seen("heart_rate")
        await until(lambda: intake.seen("heart_rate") > before)
        taken_s = loop.time() - back_at

    assert taken_s < 5.0
    assert not any(item.quarantined for item in intake.kept)


async def test_a_monitor_in_demo_mode_publishes_nothing_and_the_status_says_so(tmp_path: Path) -> None:
    end, port = plugged("pty", tmp_path)

    async with ward(end, port, demo=True) as (intake, status):
        await until(lambda: status.notice)
        assert status.notice == "demo mode"

    assert intake.kept == []
