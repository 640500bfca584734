"""The driver through the agent's link on UDP, the simulated monitor at the other end, and both without wires."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.dash_unity import DashUnity
from gateway.clock import SystemClock
from gateway.config import DeviceSource
from gateway.model import Absent, Accepted, Incoming, Kind, Phase, Priority, Reading, Result
from gateway.registry import create_driver
from gateway.sources.link import DeviceLink
from gateway.status import LinkState, SourceStatus
from simulators.dash_unity import UnityEnd, UnityMonitor
from simulators.dash_unity_codec import EntryImage, bed_message
from simulators.script import Script, read_step
from simulators.ward import Bed

TIMEOUT_S = 20.0
SPEED = 10.0
STEP_S = 0.05
HERE = bytes((127, 0, 0, 1))


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


@contextlib.asynccontextmanager
async def ward(*steps: str) -> AsyncIterator[tuple[Intake, SourceStatus]]:
    loop = asyncio.get_running_loop()
    machine = UnityMonitor(script=Script(tuple(read_step(step) for step in steps)), began=loop.time() * SPEED)
    end = UnityEnd("127.0.0.1", 0)
    bed = Bed(machine, end, speed=SPEED)
    await bed.plug()
    driver, faults = create_driver("dash-unity", {"waves": True})
    assert driver is not None, faults
    intake, status = Intake(), SourceStatus(name="bed-1", type="device")
    source = DeviceSource(name="bed-1", driver="dash-unity", port=f"udp-host://{end.name}")
    link = DeviceLink(source, driver, intake, SystemClock(), status)
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
        while not holds():  # noqa: ASYNC110 - plain state at the other end of the network
            await asyncio.sleep(0.005)


def has(result: Result, key: str) -> bool:
    return any(item.key == key and item.value is not None for item in result.observations)


async def test_numerics_and_waves_come_in_from_ports_that_were_not_asked() -> None:
    async with ward() as (intake, status):
        await until(lambda: sum(has(result, "spo2") for result in intake.results) >= 2)
        await until(lambda: sum(bool(result.waves) for result in intake.results) >= 8)

    assert status.state is LinkState.UP
    assert {item.kind for item in intake.kept} == {Kind.OBSERVATIONS}
    waves = [result.waves for result in intake.results if result.waves]
    assert {len(found) for found in waves} == {6}
    assert [found[0].gap for found in waves] == [True] + [False] * (len(waves) - 1)


class Pair:
    """A Session and a monitor, and a network that delivers at once."""

    def __init__(self, driver: DashUnity, *steps: str) -> None:
        self.session = driver.open()
        self.monitor = UnityMonitor(script=Script(tuple(read_step(step) for step in steps)))
        self.readings: list[tuple[float, Reading]] = []
        self.said: list[bytes] = []
        self.now = 0.0

    def run(self, seconds: float) -> "Pair":
        while self.now < seconds:
            self.now += STEP_S
            if (due := self.session.deadline) is not None and due <= self.now:
                self.session.tick(self.now)
            while said := self.session.take_output():
                self.said.append(said)
                self.monitor.receive(said, self.now)
            self.monitor.tick(self.now)
            for datagram in self.monitor.take_output():
                self.session.receive(datagram, self.now)
            self.readings += [(self.now, reading) for reading in self.session.take_readings()]
        return self

    @property
    def results(self) -> list[tuple[float, Result]]:
        return [(at, result) for at, reading in self.readings for result in reading.results]

    def beds(self, since: float = 0.0) -> list[Result]:
        return [result for at, result in self.results if at > since and len(result.containment) > 1]


def test_streams_are_asked_for_again_and_again() -> None:
    pair = Pair(DashUnity(waves=True)).run(120)

    assert len(pair.beds()) == 60
    assert sum(bool(result.waves) for _, result in pair.results) == 480
    assert len(pair.said) == 2 * 24
    assert not any(reading.fault for _, reading in pair.readings)


def test_a_monitor_that_was_restarted_is_read_again_without_a_person() -> None:
    pair = Pair(DashUnity(waves=True), "restart@40+20").run(100)

    assert len(pair.beds(since=66)) >= 16
    first = next(result for at, result in pair.results if at > 60 and result.waves)
    assert first.waves[0].gap


def test_alarms_start_stay_and_end() -> None:
    pair = Pair(DashUnity(), "alarm@20+15", "sensor-off@60+10").run(100)

    told = [
        (item.code, item.phase, item.priority)
        for _, result in pair.results
        for item in result.conditions
        if item.phase in (Phase.START, Phase.END)
    ]
    assert told.count(("V TACH", Phase.START, Priority.HIGH)) == 1
    assert told.count(("V TACH", Phase.END, Priority.HIGH)) == 1
    assert ("SCREEN CRISIS", Phase.START, Priority.HIGH) in told
    assert ("SCREEN CRISIS", Phase.END, Priority.HIGH) in told
    assert ("LEADS FAIL", Phase.END, Priority.MEDIUM) in told


def test_sensors_that_are_off_give_reasons_and_no_values() -> None:
    pair = Pair(DashUnity(waves=True), "sensor-off@10+20").run(40)

    off = pair.beds(since=15)[0]
    assert {item.absent for item in off.observations if item.key in ("heart_rate", "spo2")} == {Absent.INV}
    block = next(result for at, result in pair.results if at > 15 and result.waves)
    assert {item.code for item in block.conditions} == {"ECG I OFF", "ECG II OFF", "ECG III OFF", "ECG V OFF"}
    assert has(pair.beds(since=35)[0], "spo2")


@pytest.mark.parametrize("fault", ["noise", "cut", "checksum"])
def test_damage_costs_the_datagram_it_hits(fault: str) -> None:
    pair = Pair(DashUnity(), f"{fault}@20.5").run(60)

    assert len(pair.beds()) in (29, 30)
    assert sum(reading.fault is not None for _, reading in pair.readings) == 1


def test_a_clock_that_jumps_is_told() -> None:
    pair = Pair(DashUnity(), "clock@15+3600").run(40)

    clocks = [result.device_clock for _, result in pair.results if result.device_clock]
    assert max(clocks) - min(clocks) > clocks[1] - clocks[0] + (clocks[1] - clocks[0])


def test_nothing_is_said_where_nothing_may_be_sent() -> None:
    assert Pair(DashUnity(transmit=False)).run(60).said == []


def test_settings_that_ask_for_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="neither"):
        DashUnity(numerics=False)
    with pytest.raises(ValueError, match="location"):
        DashUnity(location="x" * 32)


SPECIAL = {
    -32768: (Absent.INV, set()),
    -32767: (Absent.NAV, set()),
    -32766: (Absent.BUSY, {"BP BLOOD DRAW"}),
    -32765: (Absent.BUSY, {"BP FLUSHING"}),
    -32764: (Absent.BUSY, {"BP ZEROING"}),
    -32763: (Absent.BUSY, {"BP CALIBRATING"}),
    -32762: (Absent.INV, {"BP NO PULSE"}),
    -32761: (Absent.INV, {"BP SENSOR FAIL"}),
}


@pytest.mark.parametrize("raw", SPECIAL)
def test_every_special_value_has_its_reason(raw: int) -> None:
    entry = EntryImage(code=0x4D, kind=2, values=(raw, raw, raw), limits=(50, 140, 0, 0, 0, 0))
    session = DashUnity(transmit=False).open()

    session.receive(bed_message(HERE, 1, [entry], state=0, level=0, audio=0, admitted=1), 0.0)

    (result,) = session.take_readings()[0].results
    values = [item for item in result.observations if item.key.startswith("ibp_")]
    assert [(item.key, item.absent) for item in values] == [
        (key, SPECIAL[raw][0]) for key in ("ibp_mean", "ibp_sys", "ibp_dia")
    ]
    assert {item.code for item in result.conditions} == SPECIAL[raw][1]


def test_unknown_parameters_pass_under_the_vendors_number_and_two_pressures_stand_apart() -> None:
    entries = [
        EntryImage(code=0x84, kind=64, values=(1, 2, 3)),
        EntryImage(code=0x4D, kind=2, values=(80, 120, 60)),
        EntryImage(code=0x4D, kind=2, values=(9, 12, 6)),
    ]
    session = DashUnity(transmit=False).open()

    session.receive(bed_message(HERE, 1, entries, state=1, level=0, audio=0, admitted=0), 0.0)

    (result,) = session.take_readings()[0].results
    assert {item.key: item.value for item in result.observations if item.key.startswith("x_dash_84")} == {
        "x_dash_84_value0": 1,
        "x_dash_84_value1": 2,
        "x_dash_84_value2": 3,
    }
    pressures = {item.sub: item.value for item in result.observations if item.key == "ibp_sys"}
    assert sorted(pressures.values()) == [12, 120]  # type: ignore[type-var]
    assert len({item.sub for item in result.observations}) == len(result.observations)
    assert {item.sub for item in result.containment} >= {".".join([*sub.split(".")[:3], "0"]) for sub in pressures}


@settings(max_examples=50, deadline=None)
@given(place=st.integers(0, 615), change=st.integers(1, 255))
def test_a_damaged_bed_message_raises_nothing(place: int, change: int) -> None:
    entries = [EntryImage(code=code, kind=1, values=(1, 2, 3)) for code in (0x3A, 0x2D, 0x18)]
    data = bytearray(bed_message(HERE, 1, entries, state=0, level=0, audio=0, admitted=1))
    data[place % len(data)] ^= change
    session = DashUnity(transmit=False).open()

    session.receive(bytes(data), 0.0)

    for reading in session.take_readings():
        assert reading.fault is None or "driver failed" not in reading.fault
