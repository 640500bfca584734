import logging
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.model import Result
from gateway.sources.device_clock import TELL_AGAIN, DeviceClock

AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
LOCAL = AT.astimezone().replace(tzinfo=None)


def shown(seconds: float) -> Result:
    return Result(observations=(), device_clock=LOCAL + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [0.0, 1.9, -3600.0, 86_400.5])
def test_the_offset_is_the_devices_time_less_ours(seconds: float) -> None:
    clock = DeviceClock("bed-1", step_s=2.0)

    clock.compare(shown(seconds), AT)

    assert clock.offset_s == seconds


@pytest.mark.parametrize("hours", [-5, 0, 2])
def test_a_device_that_names_its_zone_is_compared_by_the_instant(hours: int) -> None:
    clock = DeviceClock("bed-1", step_s=2.0)
    there = (AT + timedelta(seconds=30)).astimezone(timezone(timedelta(hours=hours)))

    clock.compare(Result(observations=(), device_clock=there), AT)

    assert clock.offset_s == 30


def test_a_result_without_a_clock_tells_nothing() -> None:
    clock = DeviceClock("bed-1", step_s=2.0)

    clock.compare(Result(observations=(), device_time="10:15"), AT)

    assert clock.offset_s is None


def test_only_what_matters_is_told_and_not_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = DeviceClock("bed-1", step_s=2.0)
    with caplog.at_level(logging.WARNING):
        clock.compare(shown(1.5), AT)
        assert not caplog.records
        for ahead_s in (60, 70, 80):
            clock.compare(shown(ahead_s), AT)
        assert len(caplog.records) == 1
        clock.compare(shown(TELL_AGAIN.total_seconds() + 90), AT + TELL_AGAIN)

    assert [record.message for record in caplog.records] == [
        "device.clock_off source=bed-1 offset_s=60.0",
        "device.clock_off source=bed-1 offset_s=90.0",
    ]
