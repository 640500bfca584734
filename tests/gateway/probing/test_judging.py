import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.driver import Driver, LineSettings
from gateway.probing.judging import Finding, Judge
from gateway.probing.plan import listener, settings_to_try, speaker
from gateway.registry import installed_drivers
from tests.drivers.transcripts import Transcript, all_transcripts

DRIVERS = installed_drivers()
LISTENERS = {name: made for name, driver in DRIVERS.items() if (made := listener(driver)) is not None}
PIECE_BYTES, PIECE_S = 96, 0.1  # 9600 baud


def heard(driver: Driver, data: bytes) -> Finding | None:
    judge, now = Judge(driver, LineSettings(), passive=True), 0.0
    for start in range(0, len(data), PIECE_BYTES):
        judge.hear(data[start : start + PIECE_BYTES], now)
        now += PIECE_S
        judge.tick(now)
        judge.say()
        if (finding := judge.finding()) is not None:
            return finding
    return None


@pytest.mark.parametrize("name", LISTENERS)
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_recognised_by_nobody(name: str, seed: int) -> None:
    assert heard(LISTENERS[name], random.Random(seed).randbytes(8_000)) is None


@pytest.mark.parametrize("name", LISTENERS)
@settings(max_examples=20, deadline=None)
@given(unit=st.binary(min_size=1, max_size=12))
def test_a_stuck_line_is_recognised_by_nobody_or_by_format_8(name: str, unit: bytes) -> None:
    """Four bytes of which the first alone has the high bit are a set of Nonin's format 8: it has no checksum."""
    finding = heard(LISTENERS[name], unit * (3000 // len(unit)))

    assert finding is None or finding.driver == "nonin"


SPEAKING = [
    found
    for found in all_transcripts()
    if found.driver in LISTENERS and found.path.stem in ("n595", "rad8", "format2", "format7", "format8", "text")
]


@pytest.mark.parametrize("transcript", SPEAKING, ids=lambda found: f"{found.driver}/{found.path.stem}")
def test_a_devices_bytes_are_recognised_by_its_driver_alone(transcript: Transcript) -> None:
    found = {name for name, made in LISTENERS.items() if heard(made, transcript.sent * 3) is not None}

    assert found == {transcript.driver}


def test_settings_are_tried_each_once_the_usual_one_first() -> None:
    tried = settings_to_try(driver.about for driver in DRIVERS.values())

    assert tried[0] == LineSettings()
    assert len(tried) == len(set(tried))
    assert all(driver.about.line in tried for driver in DRIVERS.values())
    assert settings_to_try([]) == [LineSettings()]


@pytest.mark.parametrize("name", [name for name, driver in DRIVERS.items() if driver.about.harmless_polls])
def test_a_passive_judge_never_speaks_whatever_its_session_wants(name: str) -> None:
    made = speaker(DRIVERS[name])
    assert made is not None
    active, passive = (Judge(made, LineSettings(), passive=flag) for flag in (False, True))
    for judge in (active, passive):
        judge.hear(b"\x05", 0.0)  # some only answer
        judge.tick(0.0)

    assert active.say() != b""
    assert passive.say() == b""


@pytest.mark.parametrize("name", [name for name, driver in DRIVERS.items() if not driver.about.harmless_polls])
def test_nobody_may_ask_whose_questions_are_not_called_harmless(name: str) -> None:
    assert speaker(DRIVERS[name]) is None
