"""What must hold for every installed driver, over its transcripts."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.driver import Driver, Session
from gateway.model import Reading
from gateway.registry import installed_drivers
from tests.drivers.transcripts import Transcript, all_transcripts

TRANSCRIPTS = all_transcripts()
HELD_BYTES_MAX = 256 * 1024
BUFFERED_BYTES_MAX = 4096
WHOLE_MESSAGES = {"hl7-monitor"}  # a message is one frame here, however long: it has its own limit
FAULTS_A_MINUTE_MAX = 8  # of each of the at most three kinds that a Session gathers

every_transcript = pytest.mark.parametrize(
    "transcript", TRANSCRIPTS, ids=lambda found: f"{found.driver}/{found.path.stem}"
)
every_stream = pytest.mark.parametrize(
    "transcript",
    [found for found in TRANSCRIPTS if not found.datagrams],  # a datagram is never cut
    ids=lambda found: f"{found.driver}/{found.path.stem}",
)
every_driver = pytest.mark.parametrize("driver", installed_drivers().values(), ids=lambda found: found.about.name)
moderate = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read_all(session: Session, pieces: list[bytes]) -> list[Reading]:
    """All at one instant; then time passes until nothing is gathered any more."""
    readings = []
    for piece in pieces:
        session.receive(piece, 0.0)
        readings += session.take_readings()
    now = 0.0
    for _ in range(10):
        if session.deadline is None:
            break
        now = max(now, session.deadline)
        session.tick(now)
        readings += session.take_readings()
    return readings


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def sound(readings: list[Reading]) -> list[Reading]:
    return [reading for reading in readings if reading.fault is None]


def test_every_installed_driver_has_transcripts() -> None:
    assert {found.driver for found in TRANSCRIPTS} >= set(installed_drivers())


@every_driver
def test_a_driver_says_what_it_is(driver: type[Driver]) -> None:
    about = driver.about

    assert about.name and about.summary and about.models and about.source
    assert about.silence_s is None or about.silence_s > 0


@every_stream
def test_byte_by_byte_is_as_good_as_at_once(transcript: Transcript) -> None:
    data = transcript.sent

    one_by_one = read_all(transcript.create().open(), [bytes((byte,)) for byte in data])

    assert one_by_one == read_all(transcript.create().open(), [data])


@every_stream
@moderate
@given(places=st.lists(st.integers(0, 10_000), max_size=30))
def test_how_bytes_are_cut_never_matters(transcript: Transcript, places: list[int]) -> None:
    data = transcript.sent

    assert read_all(transcript.create().open(), cut(data, places)) == read_all(transcript.create().open(), [data])


@every_stream
@moderate
@given(noise=st.binary(max_size=300), place=st.integers(0, 10_000), places=st.lists(st.integers(0, 10_000), max_size=5))
def test_how_damaged_bytes_are_cut_never_matters(
    transcript: Transcript, noise: bytes, place: int, places: list[int]
) -> None:
    data = transcript.sent
    at = place % (len(data) + 1)
    damaged = data[:at] + noise + data[at:]

    assert read_all(transcript.create().open(), cut(damaged, places)) == read_all(transcript.create().open(), [damaged])


@every_transcript
@moderate
@given(noise=st.binary(max_size=2000))
def test_after_garbage_the_device_is_read_again(transcript: Transcript, noise: bytes) -> None:
    data = transcript.pieces if transcript.datagrams else [transcript.sent]
    clean = sound(read_all(transcript.create().open(), [*data, *data]))
    per_copy = sound(read_all(transcript.create().open(), data))

    after = sound(read_all(transcript.create().open(), [*data, noise, *data, *data, *data]))

    assert len(after) >= len(per_copy)
    if len(clean) >= 2 * len(per_copy) and per_copy:
        assert after[-1].results == clean[-1].results


@every_driver
@moderate
@given(pieces=st.lists(st.binary(max_size=600), max_size=8), pause_s=st.floats(0, 100))
def test_no_bytes_raise(driver: type[Driver], pieces: list[bytes], pause_s: float) -> None:
    session = driver().open()

    for number, piece in enumerate(pieces):
        now = number * pause_s
        session.receive(piece, now)
        session.tick(now)
        session.take_readings()
        session.settle(stored=number % 2 == 0, now=now)
        session.take_output()


@every_transcript
@few
@given(changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=6))
def test_no_flipped_bytes_raise(transcript: Transcript, changes: list[tuple[int, int]]) -> None:
    data = bytearray(transcript.sent)
    for place, change in changes:
        if data:
            data[place % len(data)] ^= change

    read_all(transcript.create().open(), [bytes(data)])


@every_driver
@pytest.mark.parametrize("noise", [b"\x00", b"\xff", b"A", b"\x80", bytes(range(256)), b"\x01\x80", b"x\n"], ids=repr)
def test_what_a_session_holds_stays_bounded(driver: type[Driver], noise: bytes) -> None:
    session = driver().open()

    data = noise * (200_000 // len(noise))
    for start in range(0, len(data), 4000):
        session.receive(data[start : start + 4000], start / 10_000)
        limit = HELD_BYTES_MAX if driver.about.name in WHOLE_MESSAGES else BUFFERED_BYTES_MAX
        assert session.buffered_bytes < limit  # type: ignore[attr-defined]
        assert sum(len(reading.raw) for reading in session.take_readings()) < HELD_BYTES_MAX


@every_driver
def test_an_hour_of_noise_gives_few_faults(driver: type[Driver]) -> None:
    session, faults = driver().open(), 0

    for second in range(600):
        session.receive(b"\xfe\x81noise \xff\r\n" * 9, float(second))
        faults += len(session.take_readings())

    assert 1 <= faults <= 3 * FAULTS_A_MINUTE_MAX


NONIN_CHECKED = [
    found for found in TRANSCRIPTS if found.driver == "nonin" and found.path.stem in ("format2", "format7", "format13")
]


@pytest.mark.parametrize("transcript", NONIN_CHECKED, ids=lambda found: found.path.stem)
@moderate
@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_wrong_checksum_never_yields_a_value(transcript: Transcript, place: int, change: int) -> None:
    sent = bytearray(transcript.sent)
    sent[place % len(sent)] ^= change

    read = sound(read_all(transcript.create().open(), [bytes(sent)]))

    assert all(_sums_hold(reading.raw, transcript.path.stem) for reading in read)


def _sums_hold(raw: bytes, name: str) -> bool:
    if name == "format13":
        return sum(raw[6:-2]) & 0xFF == raw[-2]
    return all(sum(raw[at : at + 4]) & 0xFF == raw[at + 4] for at in range(0, len(raw), 5))
