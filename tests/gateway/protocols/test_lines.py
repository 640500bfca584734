from decimal import Decimal
from itertools import pairwise

import pytest

from gateway.driver import observe
from gateway.errors import ContentError
from gateway.model import Result
from gateway.protocols.faults import FAULT_PAUSE_S, FAULT_PAUSE_S_MAX
from gateway.protocols.lines import LineSession


def read(line: bytes) -> tuple[Result, ...]:
    if line == b"nothing":
        return ()
    if line == b"bug":
        return (
            Result(
                observations=(observe("no_such_key", None, sub="")),
            ),
        )
    if not line.isdigit():
        raise ContentError("not a number")
    return (Result(observations=(observe("spo2", Decimal(int(line)), sub="1.1.1.1"),)),)


def opened() -> LineSession:
    session = LineSession(read, line_bytes_max=20)
    session.receive(b"rest\r\n", 0.0)
    return session


def test_a_line_gives_a_reading_with_its_raw_bytes() -> None:
    session = opened()
    session.receive(b" 98 \r\n97\r\n", 0.0)

    assert [reading.raw for reading in session.take_readings()] == [b" 98 \r\n", b"97\r\n"]


def test_what_stands_before_the_first_line_end_is_dropped() -> None:
    session = LineSession(read)
    session.receive(b"8\r\n97\r\n", 0.0)

    assert [reading.raw for reading in session.take_readings()] == [b"97\r\n"]


def test_a_device_that_starts_with_a_whole_line_is_believed() -> None:
    session = LineSession(read, first_line_dropped=False)
    session.receive(b"98\r\n", 0.0)

    assert len(session.take_readings()) == 1


@pytest.mark.parametrize("line", [b"nothing", b"", b"   ", b"\0"])
def test_a_line_without_results_gives_no_reading(line: bytes) -> None:
    session = opened()
    session.receive(line + b"\r\n", 0.0)

    assert session.take_readings() == []
    assert session.deadline is None


@pytest.mark.parametrize(("line", "fault"), [(b"abc", "not a number"), (b"bug", "driver failed: KeyError")])
def test_what_the_driver_cannot_read_is_kept(line: bytes, fault: str) -> None:
    session = opened()
    session.receive(line + b"\r\n", 0.0)

    (reading,) = session.take_readings()
    assert (reading.raw, reading.fault, reading.results) == (line + b"\r\n", fault, ())


def test_further_unreadable_lines_come_together_and_none_is_lost() -> None:
    session = opened()
    session.receive(b"a\r\nb\r\nc\r\n", 0.0)
    assert [reading.raw for reading in session.take_readings()] == [b"a\r\n"]
    assert session.deadline == FAULT_PAUSE_S

    session.tick(FAULT_PAUSE_S)

    assert [reading.raw for reading in session.take_readings()] == [b"b\r\nc\r\n"]
    assert session.deadline is None


def test_the_longest_line_is_read_and_one_byte_more_is_not() -> None:
    session = opened()
    session.receive(b"98".zfill(20) + b"\r\n" + b"98".zfill(21) + b"\r\n97\r\n", 0.0)
    assert len(session.take_readings()) == 2

    session.tick(1.0)

    (reading,) = session.take_readings()
    assert reading.fault is not None and "no line end in 20 bytes" in reading.fault
    assert reading.raw == b"98".zfill(21) + b"\r\n"


def test_bytes_that_are_not_ascii_never_reach_the_driver() -> None:
    session = opened()
    session.receive(b"9\xb8\r\n98\r\n", 0.0)
    assert [reading.raw for reading in session.take_readings()] == [b"98\r\n"]

    session.tick(1.0)

    (reading,) = session.take_readings()
    assert reading.fault is not None and reading.fault.startswith("bytes that are not ASCII")


def test_noise_without_end_is_reported_ever_more_rarely() -> None:
    session, reported = opened(), []
    for second in range(3600):
        session.receive(b"\xff" * 100, float(second))
        reported += [second for _ in session.take_readings()]

    pauses = [later - earlier for earlier, later in pairwise(reported)]
    assert pauses[0] <= FAULT_PAUSE_S + 1
    assert max(pauses) <= FAULT_PAUSE_S_MAX + 1
    assert len(reported) < 20


def test_a_sound_line_makes_the_pause_short_again() -> None:
    session = opened()
    for second in range(600):
        session.receive(b"bad\r\n", float(second))
    session.take_readings()
    assert session.deadline is not None
    session.receive(b"98\r\n", 599.0)
    session.tick(session.deadline)
    now = session.deadline or 1200.0

    session.receive(b"bad\r\n", now)

    assert session.deadline is None or session.deadline <= now + FAULT_PAUSE_S
