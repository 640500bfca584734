import pytest

from gateway.alarms import Alarms
from gateway.clock import ManualClock


def test_an_alarm_is_told_once_at_each_edge(caplog: pytest.LogCaptureFixture) -> None:
    alarms = Alarms(ManualClock())
    for _ in range(3):
        alarms.put("destination-down:ris", "ris takes nothing")
    for _ in range(3):
        alarms.clear("destination-down:ris")

    assert [record.getMessage().split()[0] for record in caplog.records] == ["alarm.raised", "alarm.cleared"]
    assert alarms.standing() == []


def test_those_that_stand_are_listed_oldest_first_with_their_first_text() -> None:
    clock = ManualClock()
    alarms = Alarms(clock)
    alarms.put("b", "first")
    since = clock.now()
    clock.advance(5)
    alarms.put("a", "second")
    alarms.put("b", "changed")

    assert [(alarm.key, alarm.text) for alarm in alarms.standing()] == [("b", "first"), ("a", "second")]
    assert alarms.standing()[0].since == since


def test_a_condition_raises_and_ends_it() -> None:
    alarms = Alarms(ManualClock())
    alarms.hold("disk-low", True, "too little room")
    assert len(alarms.standing()) == 1
    alarms.hold("disk-low", False, "too little room")

    assert alarms.standing() == []


def test_a_condition_that_goes_on_tells_its_newest_reason_and_since_when(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    alarms = Alarms(clock)
    since = clock.now()
    alarms.put("destination-down:broker", "broker takes nothing: connection refused")
    clock.advance(5)
    alarms.hold("destination-down:broker", True, "broker takes nothing: not authorized")

    (alarm,) = alarms.standing()
    assert (alarm.text, alarm.since) == ("broker takes nothing: not authorized", since)
    assert len(caplog.records) == 1
