"""The driver through the agent's link on a real pty, the simulated monitor at the other end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.config import DeviceSource
from gateway.model import Accepted, Incoming, Kind, Result
from gateway.registry import create_driver
from gateway.sources.link import DeviceLink
from gateway.status import LinkState, SourceStatus
from simulators.datex_s5 import S5Monitor
from simulators.script import Script, read_step
from simulators.ward import Bed, End, PtyEnd, TcpEnd

TIMEOUT_S = 20.0
SPEED = 10.0  # the monitor lives ten times as fast


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
        return sum(
            any(item.key == key and item.value is not None for item in found.observations) for found in self.results
        )


@contextlib.asynccontextmanager
async def ward(end: End, port: Callable[[], str], *steps: str) -> AsyncIterator[tuple[Intake, SourceStatus]]:
    loop = asyncio.get_running_loop()
    machine = S5Monitor(script=Script(tuple(read_step(step) for step in steps)), began=loop.time() * SPEED)
    bed = Bed(machine, end, speed=SPEED)
    await bed.plug()
    driver, faults = create_driver("datex-s5", {"interval_s": 5, "waves": ["ecg1", "pleth"]})
    assert driver is not None, faults
    intake, status = Intake(), SourceStatus(name="bed-1", type="device")
    link = DeviceLink(DeviceSource(name="bed-1", driver="datex-s5", port=port()), driver, intake, SystemClock(), status)
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


@pytest.mark.parametrize("kind", ["pty", "tcp"])
async def test_values_waves_and_alarms_come_in(kind: str, tmp_path: Path) -> None:
    link = tmp_path / "bed"
    end: End = PtyEnd(link) if kind == "pty" else TcpEnd("127.0.0.1", 0)

    def port() -> str:
        return str(link) if kind == "pty" else f"tcp://{end.name}"

    async with ward(end, port, "alarm@0+600") as (intake, status):
        await until(lambda: intake.seen("heart_rate") and sum(bool(result.waves) for result in intake.results) > 3)
        await until(lambda: any(item.code == "HR HIGH" for result in intake.results for item in result.conditions))

    assert status.state is LinkState.UP
    assert {item.kind for item in intake.kept} == {Kind.OBSERVATIONS}
    waves = [result.waves for result in intake.results if result.waves]
    assert all(len(pair) == 2 for pair in waves)
    assert {pair[0].key for pair in waves} == {"ecg_wave_ii"}


async def test_a_cable_that_is_pulled_and_plugged_again_is_read_again(tmp_path: Path) -> None:
    link = tmp_path / "bed"
    loop = asyncio.get_running_loop()

    async with ward(PtyEnd(link), lambda: str(link), "unplug@10+10") as (intake, status):
        await until(lambda: status.state is LinkState.UP)
        await until(lambda: not link.exists())
        await until(link.exists)
        back_at, before = loop.time(), intake.seen("heart_rate")
        await until(lambda: intake.seen("heart_rate") > before)
        taken_s = loop.time() - back_at

    assert taken_s < 5.0
    assert not any(item.quarantined for item in intake.kept)
