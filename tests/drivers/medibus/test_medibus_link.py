"""The driver in the agent's loop, against the simulator on a pty and on TCP."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.config import DeviceSource
from gateway.model import Accepted, Incoming, Result
from gateway.registry import create_driver
from gateway.sources.link import DeviceLink
from gateway.status import LinkState, SourceStatus

HOUSE = Path(__file__).parents[3]
TIMEOUT_S = 20.0


class FakeIntake:
    def __init__(self) -> None:
        self.kept: list[Incoming] = []

    async def accept(self, incoming: Incoming) -> Accepted:
        self.kept.append(incoming)
        return Accepted(message_id=len(self.kept), repeated=False)

    @property
    def results(self) -> list[Result]:
        return [kept.result for kept in self.kept if kept.result is not None]

    def count(self, key: str) -> int:
        return sum(item.key == key for result in self.results for item in (*result.observations, *result.waves))


@asynccontextmanager
async def simulated(*words: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulators.medibus", *words, cwd=HOUSE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["ports"][0]
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@asynccontextmanager
async def listening(port: str, **options: Any) -> AsyncIterator[tuple[FakeIntake, SourceStatus]]:
    driver, faults = create_driver("medibus", {"interval_s": 0.5, **options})
    assert driver is not None, faults
    intake, status = FakeIntake(), SourceStatus(name="bed-1", type="device")
    link = DeviceLink(DeviceSource(name="bed-1", driver="medibus", port=port), driver, intake, SystemClock(), status)
    task = asyncio.create_task(link.run())
    try:
        yield intake, status
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not holds():  # noqa: ASYNC110 - what is awaited lies in another process
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("model", ["v500", "primus"])
async def test_values_and_curves_of_a_device_on_a_pty_are_kept(model: str) -> None:
    async with simulated("--model", model) as port, listening(port) as (intake, status):
        await until(lambda: intake.count("resp_rate") >= 3 and intake.count("paw_wave") >= 2)

    assert status.state is LinkState.UP and status.errors == 0
    assert intake.count("set_peep") and intake.count("vent_mode")
    assert {kept.quarantined for kept in intake.kept} == {None}


async def test_a_device_behind_a_terminal_server_is_read() -> None:
    async with (
        simulated("--tcp", "127.0.0.1:0", "--model", "evita4") as port,
        listening(f"tcp://{port}") as (intake, _),
    ):
        await until(lambda: intake.count("resp_rate") >= 2)


async def test_a_cable_that_was_pulled_and_a_device_that_restarted_need_no_person(tmp_path: Path) -> None:
    link = tmp_path / "vent"
    words = ("--pty", str(link), "--fault", "unplug@1+0.3", "--fault", "restart@2.5+1")
    async with simulated(*words) as _, listening(str(link)) as (intake, status):
        await until(lambda: intake.count("resp_rate") >= 1)
        await until(lambda: status.connections == 0)
        before = intake.count("resp_rate")
        await until(lambda: intake.count("resp_rate") >= before + 2)
        await until(lambda: [item for result in intake.results for item in result.conditions if item.code == "ICC"])
        before = intake.count("resp_rate")
        await until(lambda: intake.count("resp_rate") > before)
