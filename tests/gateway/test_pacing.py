import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.pacing import PROBE_S, Bandwidth, Breaker, Hours, Pace


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-01-01T{text}:00").replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "now", "closed_s"),
    [
        ("20:00-06:00", "20:00", 0),
        ("20:00-06:00", "05:59", 0),
        ("20:00-06:00", "06:00", 14 * 3600),
        ("20:00-06:00", "19:59", 60),
        ("08:00-18:00", "08:00", 0),
        ("08:00-18:00", "18:00", 14 * 3600),
        ("08:00-18:00", "07:00", 3600),
        ("08:00-08:00", "03:00", 0),
    ],
)
def test_hours_are_open_from_the_first_to_before_the_last(hours: str, now: str, closed_s: float) -> None:
    assert Hours(hours).closed_s(at(now)) == closed_s


def test_hours_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()

    assert Hours("20:00-06:00").closed_s(at("19:00")) == 0
    assert Hours("20:00-06:00").closed_s(at("18:00")) == 3600


@given(sizes=st.lists(st.integers(1, 100_000), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_no_more_than_the_bandwidth_goes_beyond_one_burst(sizes: list[int]) -> None:
    clock = ManualClock()
    bandwidth = Bandwidth(10_000, clock)
    for size in sizes:
        clock.advance(bandwidth.debt_s(size))

    assert sum(sizes) <= 10_000 * (clock.monotonic() + 0.25) + 1


def test_a_pause_saves_up_no_more_than_a_burst() -> None:
    clock = ManualClock()
    bandwidth = Bandwidth(1000, clock)
    clock.advance(3600)

    assert bandwidth.debt_s(250) == 0
    assert bandwidth.debt_s(1000) == pytest.approx(1.0)


def test_after_a_failure_one_lane_tries_and_the_others_wait_for_it() -> None:
    clock = ManualClock()
    breaker = Breaker(clock)
    woken: list[str] = []
    for lane in ("a", "b", "c"):
        breaker.join(lane, lambda lane=lane: woken.append(lane))  # type: ignore[misc]

    assert breaker.wait_s("a") == 0
    breaker.failed("a", 4.0)
    breaker.failed("b", 2.0)  # was under way when the door closed
    assert breaker.wait_s("c") == 2.0
    clock.advance(2.0)
    assert breaker.wait_s("c") == 0
    assert breaker.wait_s("a") == PROBE_S
    breaker.failed("a", 60.0)  # no lane that tries
    assert breaker.wait_s("c") == 0
    breaker.failed("c", 8.0)
    assert breaker.wait_s("a") == 8.0
    clock.advance(8.0)
    assert breaker.wait_s("a") == 0
    assert set(woken) == {"a", "b", "c"}  # at each failure all but the one that failed
    woken.clear()
    breaker.succeeded()
    assert woken == ["a", "b", "c"]
    assert [breaker.wait_s(lane) for lane in ("a", "b", "c")] == [0, 0, 0]


def test_a_lane_that_tries_for_ever_or_ends_lets_the_next_one_try() -> None:
    clock = ManualClock()
    breaker = Breaker(clock)
    breaker.failed("a", 1.0)
    clock.advance(1.0)
    assert breaker.wait_s("a") == 0
    clock.advance(PROBE_S)
    assert breaker.wait_s("b") == 0
    breaker.leave("b")

    assert breaker.wait_s("c") == 0


def test_a_pace_is_what_the_configuration_says() -> None:
    clock = ManualClock()

    assert Pace(clock).bandwidth is None
    assert Pace(clock).hours is None
    bandwidth = Pace(clock, bandwidth_max="10 MB/s", hours="20:00-06:00").bandwidth
    assert bandwidth is not None
    assert bandwidth.debt_s(20_000_000) == pytest.approx(2.0)
