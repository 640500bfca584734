"""Many simulated monitors in one process; the script of what goes wrong; the recordings as waves."""

import asyncio
import os
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.datex_s5.framing import FrameSplitter
from drivers.datex_s5.requests import DISPLAYED, numerics_request
from simulators.journal import read_journal
from simulators.script import Script, Step, read_step
from simulators.waveforms import bed_vitals, signal
from tests.simulators.conftest import Start

TIMEOUT_S = 20.0
MONITORS = 20


async def read_frame(descriptor: int) -> bytes:
    """Read until one whole frame has come."""
    loop, data, came = asyncio.get_running_loop(), bytearray(), asyncio.Event()

    def take() -> None:
        with suppress(BlockingIOError):
            data.extend(os.read(descriptor, 65536))
        came.set()

    splitter = FrameSplitter()
    loop.add_reader(descriptor, take)
    try:
        while True:
            await came.wait()
            came.clear()
            for piece in splitter.feed(bytes(data)):
                if piece.record is not None:
                    return piece.record
            data.clear()
    finally:
        loop.remove_reader(descriptor)


async def test_twenty_monitors_in_one_process_answer_each_at_its_own_pty(start: Start, tmp_path: Path) -> None:
    journal = tmp_path / "sent.jsonl"
    running = start("datex_s5", "--monitors", MONITORS, "--pty", tmp_path / "bed", "--journal", journal)
    ports = [tmp_path / ("bed" if number == 0 else f"bed-{number + 1}") for number in range(MONITORS)]
    opened = [os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK) for port in ports]
    for descriptor in opened:
        os.write(descriptor, numerics_request(DISPLAYED, 10, (0, 1, 2, 3)))
    async with asyncio.timeout(TIMEOUT_S):
        records = await asyncio.gather(*[read_frame(descriptor) for descriptor in opened])
    done = running.stop()
    for descriptor in opened:
        os.close(descriptor)

    assert len(set(running.ready["ports"])) == MONITORS
    assert {len(record) for record in records} == {1152}
    assert len({record[44:] for record in records}) > MONITORS / 2  # each shows another stretch of the recording
    assert (done["sent"], done["taken"]) == (MONITORS, MONITORS)
    assert len(read_journal(journal)) == MONITORS


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("noise@5", Step("noise", 5.0, 0.0)),
        ("restart@20+2.5", Step("restart", 20.0, 2.5)),
        ("clock@30-3600", Step("clock", 30.0, -3600.0)),
    ],
)
def test_a_step_is_read_as_it_is_written(text: str, step: Step) -> None:
    assert read_step(text) == step


@pytest.mark.parametrize("text", ["", "noise", "rain@5", "noise@soon", "alarm@1+x"])
def test_what_is_no_step_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|could not convert"):
        read_step(text)


def test_a_lasting_fault_stands_for_its_time_and_a_single_one_happens_once() -> None:
    script = Script((read_step("alarm@10+5"), read_step("cut@3"), read_step("cut@4")))

    assert [script.stands("alarm", age) for age in (9.9, 10.0, 14.9, 15.0)] == [False, True, True, False]
    assert script.take("cut", 2.9) is None
    assert [script.take("cut", 9.0) is not None for _ in range(3)] == [True, True, False]
    assert [script.next_change(age) for age in (0.0, 10.0, 15.0)] == [10.0, 15.0, None]


@given(number=st.integers(0, 10**7), rate=st.sampled_from([25, 60, 100, 240, 300, 500]))
def test_a_signal_at_any_rate_stays_within_its_recording(number: int, rate: int) -> None:
    recorded = signal("abp")

    assert min(recorded.samples) <= recorded.at(number, rate) <= max(recorded.samples)


def test_a_signal_at_its_own_rate_is_the_recording() -> None:
    recorded = signal("ecg-ii")

    assert tuple(recorded.at(number, recorded.rate) for number in range(1000)) == recorded.samples[:1000]


def test_the_cuff_pressure_stays_until_the_next_one() -> None:
    minutes = list(islice(bed_vitals(), 500))

    runs = [pressure for pressure, _ in groupby(minute.nibp_sys for minute in minutes)]
    assert 5 < len(runs) < 100
    assert sum(minute.nibp_is_new for minute in minutes) > 5
