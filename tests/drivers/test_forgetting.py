"""A Device that fell silent may be another one when it speaks again: nothing of the first goes on in its Results."""

from dataclasses import replace
from typing import Any

import pytest

from drivers.masimo import Masimo
from drivers.nellcor import Nellcor
from drivers.nonin import Nonin
from gateway.driver import DeviceIdentity, Driver, Forgetting, Session, Wave
from gateway.driver_testing.transcripts import Transcript, pass_time
from tests.drivers.transcripts import all_transcripts

PAUSE_S = 60.0


def told(transcript: Transcript, session: Session, now: float) -> tuple[list[Any], float]:
    """Play what the Device says; return what is told of its patient, without alarms, and what time it is then."""
    results = []
    for word, rest in transcript.steps:
        if word == "wait":
            now = pass_time(session, now, float(rest))
        elif word not in ("says", "answers", "settle", "notice", "reads", "faults"):
            session.receive(transcript.sent_by(word, rest), now)
        results += [result for reading in session.take_readings() for result in reading.results]
    return [(each.observations, _whole(each.waves), each.device, each.patient_id) for each in results], now


def _whole(waves: tuple[Wave, ...]) -> list[Wave]:
    """Return waves without the mark that samples were lost before, which is true after a silence."""
    return [replace(wave, gap=False) for wave in waves]


FORGETTING = [each for each in all_transcripts() if isinstance(each.create().open(), Forgetting)]


@pytest.mark.parametrize("transcript", FORGETTING, ids=lambda each: f"{each.driver}-{each.path.stem}")
def test_after_a_silence_a_device_is_read_as_if_it_were_the_first(transcript: Transcript) -> None:
    fresh, _ = told(transcript, transcript.create().open(), 0.0)
    session = transcript.create().open()
    _, now = told(transcript, session, 0.0)
    now = pass_time(session, now, PAUSE_S)
    assert isinstance(session, Forgetting)
    session.forget(now)
    now = pass_time(session, now, PAUSE_S)
    session.take_readings()

    again, _ = told(transcript, session, now)

    assert again == fresh


@pytest.mark.parametrize(
    ("driver", "whole", "cut"),
    [
        (Masimo(), b"02/22/16 22:47:45 SPO2=098% BPM=097 PI=03.60% EXC=000800\r\n", 34),
        (Nellcor(), b"05-Jul-26 10:15:00    98       72       120\r\n", 24),
        (Nonin(format="8"), bytes.fromhex("80486120"), 2),
    ],
    ids=["masimo", "nellcor", "nonin"],
)
def test_what_the_plug_cut_off_is_never_ended_by_another_device(driver: Driver, whole: bytes, cut: int) -> None:
    session = driver.open()
    session.receive(b"\r\n" + 4 * whole + whole[:cut], 0.0)
    assert isinstance(session, Forgetting)
    session.forget(PAUSE_S)
    session.take_readings()

    session.receive(whole[cut:] + 2 * whole, PAUSE_S + 1)

    assert [reading.raw for reading in session.take_readings() if reading.results] in ([whole], [whole, whole])


def test_the_limits_of_a_device_that_is_gone_judge_no_value_of_the_next() -> None:
    session = Nellcor().open()
    session.receive(b"\nN-595 VERSION 2.1.0.0 CRC:1 SpO2 Limit: 85-100% PR Limit: 40-170BPM\r\n", 0.0)
    assert isinstance(session, Forgetting)
    session.forget(PAUSE_S)

    session.receive(b"05-Jul-26 10:15:08    84*      171*       45\r\n", PAUSE_S + 1)

    ((result,),) = [reading.results for reading in session.take_readings()]
    assert [(seen.flags, seen.low, seen.high) for seen in result.observations[:2]] == [(("A",), None, None)] * 2
    assert result.device == DeviceIdentity(manufacturer="Nellcor")
