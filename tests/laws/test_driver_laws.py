"""What must hold for every installed driver, over its transcripts: the laws of the kit."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.driver import Driver
from gateway.driver_testing import laws
from gateway.registry import installed_drivers
from tests.drivers.transcripts import Transcript, all_transcripts

TRANSCRIPTS = all_transcripts()
DRIVERS = installed_drivers()
WHOLE_MESSAGES = {"hl7-monitor"}  # a message is one frame here, however long: it has its own limit
PLACES = st.integers(0, 100_000)
CHANGES = st.lists(st.tuples(PLACES, st.integers(1, 255)), min_size=1, max_size=6)
CONTROLS = b"\x00\x01\x02\x03\x04\x05\x06\n\x0b\r\x10\x14\x15\x1b\x1c~\x7d\xc0\xc1"  # what frames begin and end with
NOISE = st.binary(max_size=300) | st.lists(st.sampled_from(CONTROLS), max_size=8).map(bytes)

moderate = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def name_of(transcript: Transcript) -> str:
    return f"{transcript.driver}/{transcript.path.stem}"


every_transcript = pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=name_of)
every_stream = pytest.mark.parametrize(
    "transcript",
    [found for found in TRANSCRIPTS if not found.datagrams],  # a datagram is never cut
    ids=name_of,
)
every_checked = pytest.mark.parametrize("transcript", [found for found in TRANSCRIPTS if found.checked], ids=name_of)
every_driver = pytest.mark.parametrize("driver", DRIVERS.values(), ids=lambda found: found.about.name)


def test_every_installed_driver_has_transcripts() -> None:
    assert {found.driver for found in TRANSCRIPTS} >= set(DRIVERS)


@every_driver
def test_a_driver_says_what_it_is(driver: type[Driver]) -> None:
    about = driver.about

    assert about.name and about.summary and about.models and about.source
    assert about.silence_s is None or about.silence_s > 0


@every_stream
def test_byte_by_byte_is_as_good_as_at_once(transcript: Transcript) -> None:
    laws.cutting_never_matters(transcript, range(len(transcript.sent)))


@every_stream
@moderate
@given(places=st.lists(PLACES, max_size=30))
def test_how_bytes_are_cut_never_matters(transcript: Transcript, places: list[int]) -> None:
    laws.cutting_never_matters(transcript, places)


@every_stream
@moderate
@given(noise=NOISE, at=PLACES, places=st.lists(PLACES, max_size=5))
def test_how_damaged_bytes_are_cut_never_matters(
    transcript: Transcript, noise: bytes, at: int, places: list[int]
) -> None:
    laws.cutting_never_matters(transcript, places, noise, at)


@every_transcript
@moderate
@given(noise=st.binary(max_size=2000))
def test_after_garbage_the_device_is_read_again(transcript: Transcript, noise: bytes) -> None:
    laws.garbage_ends(transcript, noise)


@every_transcript
@few
@given(changes=CHANGES)
def test_no_changed_bytes_raise(transcript: Transcript, changes: list[laws.Place]) -> None:
    laws.changed_bytes_raise_nothing(transcript, changes)


@every_checked
@moderate
@given(change=st.tuples(PLACES, st.integers(1, 255)))
def test_a_wrong_checksum_never_yields_a_value(transcript: Transcript, change: laws.Place) -> None:
    laws.a_changed_byte_yields_nothing_new(transcript, change)


@every_driver
@moderate
@given(pieces=st.lists(st.binary(max_size=600), max_size=8), pause_s=st.floats(0, 100))
def test_no_bytes_raise(driver: type[Driver], pieces: list[bytes], pause_s: float) -> None:
    laws.no_bytes_raise(driver(), pieces, pause_s)


@every_driver
@pytest.mark.parametrize("noise", laws.FLOODS, ids=repr)
def test_what_a_session_holds_stays_bounded(driver: type[Driver], noise: bytes) -> None:
    limit = laws.HELD_BYTES_MAX if driver.about.name in WHOLE_MESSAGES else laws.BUFFERED_BYTES_MAX

    laws.a_flood_is_bounded(driver(), noise, limit)


@every_driver
def test_ten_minutes_of_noise_give_few_faults(driver: type[Driver]) -> None:
    laws.noise_gives_few_faults(driver())


@pytest.mark.parametrize("name", [name for name, driver in DRIVERS.items() if driver.about.acknowledges])
def test_what_is_not_stored_is_not_acknowledged(name: str) -> None:
    waited_for = [laws.what_is_not_stored_is_not_acknowledged(found) for found in TRANSCRIPTS if found.driver == name]

    assert sum(waited_for) > 0


UNCHECKED = {"nellcor", "masimo", "hl7-monitor", "dash-unity"}  # text lines, MLLP, datagrams: no check characters


def test_every_driver_of_a_protocol_with_checksums_is_tried_with_them() -> None:
    assert set(DRIVERS) - {found.driver for found in TRANSCRIPTS if found.checked} == UNCHECKED
