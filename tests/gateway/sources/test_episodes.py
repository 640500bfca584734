from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Condition, Episode, Phase, Priority, Result, Turn
from gateway.sources import episodes
from gateway.sources.episodes import FORGOTTEN_S, Episodes

AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
LOW = Condition(code="SPO2 LOW", text="SpO2 low", priority=Priority.MEDIUM)


def story(*alarms: Condition, every_s: float = 1.0) -> list[Episode]:
    known = Episodes("bed-12")
    told = []
    for number, alarm in enumerate(alarms):
        (condition,) = known.follow(Result(observations=(), conditions=(alarm,)), AT, number * every_s).conditions
        assert condition.episode is not None
        told.append(condition.episode)
    return told


def turns(*alarms: Condition, every_s: float = 1.0) -> list[Turn]:
    return [episode.turn for episode in story(*alarms, every_s=every_s)]


def test_an_alarm_is_one_episode_from_start_to_end() -> None:
    ended = replace(LOW, phase=Phase.END)

    told = story(LOW, LOW, replace(LOW, phase=Phase.PRESENT), ended, LOW)

    assert [episode.turn for episode in told] == [Turn.START, Turn.CONTINUE, Turn.CONTINUE, Turn.END, Turn.START]
    assert [episode.update for episode in told] == [1, 2, 3, 4, 1]
    assert [episode.instance for episode in told] == ["bed-12-20260115T093000Z-1"] * 4 + ["bed-12-20260115T093000Z-2"]


def test_what_changes_is_told() -> None:
    high, silenced = replace(LOW, priority=Priority.HIGH), replace(LOW, priority=Priority.HIGH, silenced=True)
    latched = replace(silenced, phase=Phase.LATCHED)

    assert turns(LOW, high, silenced, latched, replace(latched, phase=Phase.END)) == [
        Turn.START,
        Turn.ESCALATE,
        Turn.UPDATE,
        Turn.UPDATE,
        Turn.RESET,
    ]
    assert turns(high, LOW) == [Turn.START, Turn.DEESCALATE]


def test_an_alarm_that_starts_again_or_was_long_unheard_is_a_new_one() -> None:
    start = replace(LOW, phase=Phase.START)

    assert [episode.update for episode in story(start, start)] == [1, 1]
    assert turns(LOW, LOW, every_s=FORGOTTEN_S + 1) == [Turn.START, Turn.START]


def test_an_end_of_what_was_never_heard_is_an_end() -> None:
    assert turns(replace(LOW, phase=Phase.END)) == [Turn.END]


def test_alarms_elsewhere_are_others_and_states_have_no_episode() -> None:
    known, state = Episodes("bed-12"), Condition(code="LB", text="low battery")
    result = Result(observations=(), conditions=(replace(LOW, sub="1.1.1.1"), state, replace(LOW, sub="1.1.1.2")))

    one, none, other = known.follow(result, AT, 0.0).conditions

    assert one.episode is not None
    assert other.episode is not None
    assert none == state
    assert one.episode.instance != other.episode.instance


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from(Phase), st.sampled_from(Priority))))
def test_updates_of_an_instance_count_from_one_without_gaps(steps: list[tuple[str, Phase | None, Priority]]) -> None:
    alarms = [Condition(code=code, text="", phase=phase, priority=priority) for code, phase, priority in steps]

    seen: dict[str, int] = {}
    for episode in story(*alarms):
        assert episode.update == seen.get(episode.instance, 0) + 1
        seen[episode.instance] = episode.update


def test_what_is_known_stays_bounded() -> None:
    known = Episodes("bed-12")
    for number in range(3 * episodes.STANDING_MAX):
        known.follow(Result(observations=(), conditions=(replace(LOW, code=str(number)),)), AT, float(number) / 1000)

    assert len(known._standing) == episodes.STANDING_MAX
