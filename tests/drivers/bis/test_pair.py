"""The driver against the simulated monitor: in virtual time, and in the agent's loop on a pty."""

import asyncio
import json
import sys
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import pytest

from drivers.bis import BisVista
from gateway.clock import SystemClock
from gateway.config import DeviceSource
from gateway.driver import Absent, Reading
from gateway.model import Accepted, Incoming, Observation, Wave
from gateway.sources.link import DeviceLink
from gateway.status import LinkState, SourceStatus
from simulators.bis import BisMonitor
from simulators.script import Script, read_step

HOUSE = Path(__file__).parents[3]
STEP_S = 0.1


def played(seconds: float, *faults: str, **options: bool) -> list[tuple[float, Reading]]:
    monitor = BisMonitor(script=Script(tuple(map(read_step, faults))))
    session = BisVista(**options).open()
    now, readings = 0.0, []
    while now < seconds:
        now = round(now + STEP_S, 6)
        if session.deadline is not None and session.deadline <= now:
            session.tick(now)
        monitor.receive(session.take_output(), now)
        monitor.tick(now)
        for piece in monitor.take_output():
            session.receive(piece, now)
        readings += [(now, reading) for reading in session.take_readings()]
    return readings


def seen(readings: list[tuple[float, Reading]], key: str) -> list[tuple[float, Observation]]:
    return [
        (at, item)
        for at, reading in readings
        for result in reading.results
        for item in result.observations
        if item.key == key
    ]


def waves(readings: list[tuple[float, Reading]]) -> list[Wave]:
    return [wave for _, reading in readings for result in reading.results for wave in result.waves]


def test_a_minute_is_read_without_a_fault() -> None:
    readings = played(60)

    values = [item.value for _, item in seen(readings, "bis")]
    assert 59 <= len(values) <= 61 and all(isinstance(value, Decimal) and 30 < value < 75 for value in values)
    assert not [reading.fault for _, reading in readings if reading.fault]
    assert not any(wave.gap for wave in waves(readings))
    assert sum(len(wave.samples) for wave in waves(readings)) >= 59 * 2 * 128


def test_without_a_sensor_values_are_off_and_come_back() -> None:
    readings = played(30, "sensor-off@10+10")

    off = [item for _, item in seen(readings, "bis") if item.absent is not None]
    assert 9 <= len(off) <= 11 and {item.absent for item in off} == {Absent.OFF}
    assert seen(readings, "bis")[-1][1].value is not None
    told = {item.code for _, reading in readings for result in reading.results for item in result.conditions}
    assert told == {"DSC"}


def test_a_monitor_that_restarted_is_asked_again_without_a_person() -> None:
    times = [at for at, _ in seen(played(30, "restart@10+6"), "bis")]

    assert not [at for at in times if 10.2 < at < 16] and [at for at in times if 16 < at < 19.5]


@pytest.mark.parametrize("fault", ["checksum", "cut", "noise"])
def test_damage_costs_a_second_and_leaves_a_gap(fault: str) -> None:
    readings = played(60, *(f"{fault}@{at}.05" for at in range(5, 50, 5)))

    assert len(seen(readings, "bis")) >= 50
    assert {item.value for _, item in seen(readings, "x_bis_sqi")} == {Decimal("95.0")}
    assert [reading for _, reading in readings if reading.fault]
    assert any(wave.gap for wave in waves(readings)) or fault == "noise"


def test_who_only_listens_says_nothing() -> None:
    session = BisVista(transmit=False).open()

    assert session.deadline is None and session.take_output() == b""


class FakeIntake:
    def __init__(self) -> None:
        self.kept: list[Incoming] = []

    async def accept(self, incoming: Incoming) -> Accepted:
        self.kept.append(incoming)
        return Accepted(message_id=len(self.kept), repeated=False)


async def test_values_and_eeg_of_a_monitor_on_a_pty_are_kept() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "simulators.bis", cwd=HOUSE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    task = None
    try:
        port = json.loads(await process.stdout.readline())["ports"][0]
        intake, status = FakeIntake(), SourceStatus(name="bed-1", type="device")
        settings = DeviceSource(name="bed-1", driver="bis", port=port)
        task = asyncio.create_task(DeviceLink(settings, BisVista(spectra=True), intake, SystemClock(), status).run())
        async with asyncio.timeout(15):
            while len(intake.kept) < 4:  # noqa: ASYNC110 - what is awaited lies in another process
                await asyncio.sleep(0.01)
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()

    assert status.state is LinkState.UP and status.errors == 0
    results = [kept.result for kept in intake.kept if kept.result is not None]
    keys = {item.key for result in results for item in (*result.observations, *result.waves)}
    assert {"bis", "eeg_sef", "emg", "eeg_wave", "x_bis_spectrum_1", "x_bis_spectrum_2"} <= keys
