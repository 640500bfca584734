import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from gateway import delivery
from gateway.delivery import RETRY_S_MAX, backoff_s
from gateway.errors import LinkError, StoreError, TemporaryError
from gateway.model import DeliveryState, Verdict
from gateway.pacing import Pace
from gateway.status import LinkState
from gateway.store.keeping import slot_of
from gateway.store.reading import read_attempts
from gateway.supervision import supervise
from tests.gateway.lanes import WAIT_S, RecordingSender, World
from tests.gateway.store.stores import START, incoming

PENDING, DELIVERED, PARKED, DISCARDED = (state.value for state in DeliveryState)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.close()


def numbered(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1)]


async def test_everything_owed_is_brought_in_order_and_settled(world: World) -> None:
    sender = RecordingSender()
    await world.keep(*numbered(1, 50))
    world.lane(sender)
    await sender.wait(lambda: len(sender.taken) == 50)
    await world.keep(*numbered(51, 100))
    await sender.wait(lambda: len(sender.taken) == 100)
    await world.until(lambda: set(world.states().values()) == {DELIVERED})

    assert sender.taken == numbered(1, 100)
    assert world.status.delivered == 100
    assert world.status.state is LinkState.UP


@pytest.mark.parametrize(
    ("failures", "jitter", "expected_s"),
    [
        (1, 0.0, 1.0),
        (2, 0.0, 2.0),
        (3, 0.0, 4.0),
        (3, 1.0, 2.0),
        (9, 0.0, 256.0),
        (10, 0.0, 300.0),
        (10_000, 1.0, 150.0),
    ],
)
def test_the_wait_doubles_from_one_second_to_five_minutes_with_jitter(
    failures: int, jitter: float, expected_s: float
) -> None:
    assert backoff_s(failures, jitter) == expected_s


@pytest.mark.parametrize("failure", [LinkError("refused"), TemporaryError("busy"), Verdict.RETRY])
async def test_a_failure_is_tried_again_after_its_wait_and_never_earlier(
    world: World, failure: Exception | Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery.random, "random", lambda: 0.0)
    sender = RecordingSender()
    sender.script = [failure, failure, failure]
    world.lane(sender)
    await world.keep(b"1", b"2")
    for tries, wait_s in enumerate((1.0, 2.0, 4.0), start=1):
        await sender.wait(lambda tries=tries: len(sender.tried) == tries)  # type: ignore[misc]
        await world.until(
            lambda wait_s=wait_s: world.status.next_try_at == world.clock.now() + timedelta(seconds=wait_s)
        )  # type: ignore[misc]
        assert world.status.state is LinkState.DOWN
        await world.keep(b"news")  # does not shorten the wait
        world.pass_time(wait_s - 0.01)
        await world.turn()
        assert len(sender.tried) == tries
        world.pass_time(0.02)
    await sender.wait(lambda: sender.taken == [b"1", b"2", b"news", b"news", b"news"])

    assert [parcel.delivery.id for parcel in sender.tried[:4]] == [1, 1, 1, 1]
    assert len({parcel.delivery.control_id for parcel in sender.tried[:4]}) == 1
    await world.until(lambda: set(world.states().values()) == {DELIVERED})
    verdicts = [attempt.verdict for attempt in read_attempts(world.store.readers.connection, 1)]
    assert verdicts == ["retry", "retry", "retry", "delivered"]
    assert world.alarms.standing() == []


async def test_the_peers_own_hint_is_followed(world: World) -> None:
    sender = RecordingSender()
    sender.script = [TemporaryError("busy", retry_after_s=42.0)]
    world.lane(sender)
    await world.keep(b"1")
    await world.until(lambda: world.status.next_try_at == START + timedelta(seconds=42))
    world.pass_time(42.0)

    await sender.wait(lambda: sender.taken == [b"1"])


async def test_a_failure_in_the_middle_of_a_hand_repeats_only_what_was_not_taken(world: World) -> None:
    sender = RecordingSender()
    sender.script = [Verdict.DELIVERED, Verdict.DELIVERED, LinkError("closed")]
    await world.keep(*numbered(1, 5))
    world.lane(sender)
    await world.until(lambda: world.status.state is LinkState.DOWN)
    world.pass_time(2.0)
    await sender.wait(lambda: len(sender.taken) == 5)

    assert sender.taken == numbered(1, 5)


async def test_what_is_refused_is_parked_and_the_lane_goes_on(world: World) -> None:
    sender = RecordingSender()
    sender.script = [Verdict.DELIVERED, Verdict.REFUSED]
    await world.keep(*numbered(1, 4))
    world.lane(sender)
    await sender.wait(lambda: len(sender.tried) == 4)
    await world.until(lambda: PENDING not in world.states().values())

    assert world.states() == {1: DELIVERED, 2: PARKED, 3: DELIVERED, 4: DELIVERED}
    assert [alarm.key for alarm in world.alarms.standing()] == ["parked:ris"]


async def test_content_is_tried_a_limited_number_of_times_and_then_parked(world: World) -> None:
    sender = RecordingSender()
    sender.script = [Verdict.RETRY_CONTENT] * 3
    await world.keep(b"1", b"2")
    world.lane(sender, content_attempts_max=3)
    for tries in (1, 2):
        await sender.wait(lambda tries=tries: len(sender.tried) == tries)  # type: ignore[misc]
        await world.until(lambda: world.status.state is LinkState.DOWN)
        world.pass_time(RETRY_S_MAX)
    await sender.wait(lambda: sender.taken == [b"2"])
    await world.until(lambda: world.states() == {1: PARKED, 2: DELIVERED})

    assert [parcel.delivery.id for parcel in sender.tried] == [1, 1, 1, 2]


async def test_one_disliked_delivery_is_parked_though_those_behind_it_are_taken(world: World) -> None:
    sender = RecordingSender()
    sender.disliked = {b"1"}
    await world.keep(b"1", b"2")
    world.lane(sender, content_attempts_max=3)
    for tries in (1, 2):
        await sender.wait(lambda tries=tries: sender.bodies_tried().count(b"1") == tries)  # type: ignore[misc]
        await world.until(lambda: world.status.state is LinkState.DOWN)
        await world.keep(b"more %d" % tries)
        world.pass_time(RETRY_S_MAX)
    await world.until(lambda: set(world.states().values()) == {PARKED, DELIVERED})

    assert world.states()[1] is PARKED
    assert sender.bodies_tried().count(b"1") == 3
    assert sorted(sender.taken) == [b"2", b"more 1", b"more 2"]


async def test_transport_failures_have_no_limit(world: World) -> None:
    sender = RecordingSender()
    sender.script = [LinkError("refused")] * 40
    world.lane(sender, content_attempts_max=3)
    await world.keep(b"1")
    for tries in range(1, 41):
        await sender.wait(lambda tries=tries: len(sender.tried) == tries)  # type: ignore[misc]
        await world.until(lambda tries=tries: world.status.failures == tries)  # type: ignore[misc]
        world.pass_time(RETRY_S_MAX)

    await sender.wait(lambda: sender.taken == [b"1"])


async def test_hold_stops_the_lane_until_a_person_acts(world: World) -> None:
    sender = RecordingSender()
    sender.script = [Verdict.REFUSED]
    lane = world.lane(sender, on_error="hold")
    await world.keep(b"1", b"2")
    await world.until(lambda: world.status.state is LinkState.HELD)
    await world.keep(b"3")
    world.pass_time(RETRY_S_MAX)
    await world.turn()
    assert len(sender.tried) == 1
    assert [alarm.key for alarm in world.alarms.standing()] == ["destination-held:ris"]
    lane.rewind()
    await sender.wait(lambda: sender.taken == [b"1", b"2", b"3"])

    assert world.alarms.standing() == []


async def test_a_held_lane_that_is_taken_away_takes_its_alarm_along(world: World) -> None:
    sender = RecordingSender()
    sender.script = [Verdict.REFUSED]
    world.lane(sender, on_error="hold")
    await world.keep(b"1")
    await world.until(lambda: world.status.state is LinkState.HELD)
    held = [alarm.key for alarm in world.alarms.standing()]
    world.tasks[0].cancel()
    await asyncio.wait(world.tasks, timeout=WAIT_S)

    assert held == ["destination-held:ris"]
    assert world.alarms.standing() == []


async def test_the_held_one_may_be_discarded(world: World) -> None:
    sender = RecordingSender()
    sender.script = [Verdict.REFUSED]
    lane = world.lane(sender, on_error="hold")
    await world.keep(b"1", b"2")
    await world.until(lambda: world.status.state is LinkState.HELD)
    acts = world.store.acts
    await asyncio.wrap_future(world.store.call(lambda c: acts.discard(c, [1], "wrong", "anna", START)))
    lane.rewind()

    await sender.wait(lambda: sender.taken == [b"2"])
    await world.until(lambda: world.states() == {1: DISCARDED, 2: DELIVERED})


async def test_an_operators_retry_is_brought_though_younger_ones_went_before(world: World) -> None:
    sender = RecordingSender()
    sender.script = [Verdict.REFUSED]
    lane = world.lane(sender)
    await world.keep(b"1", b"2")
    await world.until(lambda: world.states() == {1: PARKED, 2: DELIVERED})
    acts = world.store.acts
    await asyncio.wrap_future(world.store.call(lambda c: acts.retry(c, [1], "anna", START)))
    lane.rewind()
    await sender.wait(lambda: sender.taken == [b"2", b"1"])

    await world.until(lambda: world.states() == {1: DELIVERED, 2: DELIVERED})


async def test_an_operator_ends_a_long_wait(world: World) -> None:
    sender = RecordingSender()
    sender.script = [TemporaryError("busy", retry_after_s=300.0)]
    lane = world.lane(sender)
    await world.keep(b"1")
    await world.until(lambda: world.status.next_try_at is not None)
    lane.rewind()

    await sender.wait(lambda: sender.taken == [b"1"])


async def test_a_new_lane_tries_at_once_what_an_earlier_one_put_off(world: World) -> None:
    sender, mended = RecordingSender(), RecordingSender()
    sender.script = [TemporaryError("busy", retry_after_s=300.0)]
    lane = world.lane(sender)
    await world.keep(b"1")
    await world.until(lambda: world.status.next_try_at is not None)
    lane.finish()
    await world.tasks[0]
    world.lane(mended)  # a restart, or a reload with the right address

    await mended.wait(lambda: mended.taken == [b"1"])


async def test_an_operators_hurry_ends_with_the_next_failure(world: World) -> None:
    sender = RecordingSender()
    sender.script = [TemporaryError("busy", retry_after_s=300.0), TemporaryError("busy", retry_after_s=300.0)]
    lane = world.lane(sender)
    await world.keep(b"1")
    await world.until(lambda: world.status.next_try_at is not None)
    lane.rewind()
    await sender.wait(lambda: len(sender.tried) == 2)
    await world.keep(b"2")
    await world.turn()

    assert sender.taken == []
    assert len(sender.tried) == 2


async def test_a_settle_that_fails_is_written_later_and_brought_only_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "SETTLE_AGAIN_S", 0.01)
    settle = world.store.settle
    refusals = [True] * 5

    def refuse_first(*arguments: object, **named: object) -> None:
        if refusals:
            refusals.pop()
            raise StoreError("the store's queue is full")
        settle(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store, "settle", refuse_first)
    sender = RecordingSender()
    world.lane(sender)
    await world.keep(b"1", b"2", b"3")
    await world.until(lambda: world.states() == {1: DELIVERED, 2: DELIVERED, 3: DELIVERED})

    assert sender.taken == [b"1", b"2", b"3"]


async def test_the_lane_waits_when_too_much_is_unwritten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "UNSETTLED_MAX", 4)
    held: list[tuple[tuple[object, ...], dict[str, object]]] = []
    settle = world.store.settle
    monkeypatch.setattr(world.store, "settle", lambda *given, **named: held.append((given, named)))
    sender = RecordingSender(batch_max=4)
    await world.keep(*numbered(1, 20))  # all before the lane, so that it takes full batches
    world.lane(sender)
    await sender.wait(lambda: len(sender.taken) == 8)
    for _ in range(20):
        await world.turn()
    assert len(sender.taken) == 8
    monkeypatch.setattr(world.store, "settle", settle)
    for given, named in held:
        settle(*given, **named)  # type: ignore[arg-type]
    await sender.wait(lambda: len(sender.taken) == 20)

    assert sender.taken == numbered(1, 20)


async def test_a_crash_between_taken_and_settled_repeats_under_the_same_control_id(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.store.settle = lambda *given, **named: None  # type: ignore[method-assign] # what a crash forgets
    sender = RecordingSender()
    world.lane(sender)
    await world.keep(b"1", b"2")
    await sender.wait(lambda: len(sender.taken) == 2)
    first = [(parcel.delivery.control_id, parcel.message.raw) for parcel in sender.tried]
    await world.close()
    world = World(tmp_path)
    sender = RecordingSender()
    world.lane(sender)
    await sender.wait(lambda: len(sender.taken) == 2)

    assert [(parcel.delivery.control_id, parcel.message.raw) for parcel in sender.tried] == first
    await world.until(lambda: world.states() == {1: DELIVERED, 2: DELIVERED})
    await world.close()


async def test_two_lanes_keep_the_order_of_each_key_and_do_not_wait_for_each_other(world: World) -> None:
    slow, quick = RecordingSender(batch_max=3), RecordingSender(batch_max=3)
    slow.open_gate.clear()
    world.lane(slow, lane=0, lanes=2)
    world.lane(quick, lane=1, lanes=2)
    inputs = [incoming(b"%d" % number, lane_key=f"patient-{number % 7}") for number in range(70)]
    await world.keep(*inputs)
    expected = {key: [b"%d" % number for number in range(key, 70, 7)] for key in range(7)}
    await quick.wait(lambda: len(quick.taken) >= 10)
    assert slow.taken == []
    slow.open_gate.set()
    await world.until(lambda: len(slow.taken) + len(quick.taken) == 70)

    for key, raws in expected.items():
        carried = [[raw for raw in sender.taken if int(raw) % 7 == key] for sender in (slow, quick)]
        assert raws in carried
        assert [] in carried


async def test_an_idle_lane_does_not_search_the_others_backlog_again(world: World) -> None:
    stuck, idle = RecordingSender(), RecordingSender()
    stuck.open_gate.clear()
    await world.keep(*[incoming(b"%d" % number) for number in range(50)])  # no key: all in the first lane
    world.lane(stuck, lane=0, lanes=2)
    lane = world.lane(idle, lane=1, lanes=2)
    await world.until(lambda: lane._cursors[0].after == 50)
    mine = next(key for key in map(str, range(100)) if slot_of(key) % 2 == 1)
    await world.keep(incoming(b"mine", lane_key=mine))

    await idle.wait(lambda: idle.taken == [b"mine"])


async def test_one_lanes_failure_does_not_stop_the_other(world: World) -> None:
    broken, healthy = RecordingSender(), RecordingSender()
    broken.script = [LinkError("refused")] * 100
    world.lane(broken, lane=0, lanes=2)
    world.lane(healthy, lane=1, lanes=2)
    await world.keep(*[incoming(b"%d" % number, lane_key=f"patient-{number}") for number in range(40)])
    total = world.store.readers.connection.execute("SELECT count(*) FROM delivery WHERE slot % 2 = 1").get

    await healthy.wait(lambda: len(healthy.taken) == total)
    assert len(broken.taken) == 0


async def test_a_lane_that_crashes_is_started_again_and_loses_nothing(world: World) -> None:
    senders: list[RecordingSender] = []
    reasons: list[str] = []

    async def run() -> None:
        sender = RecordingSender()
        if not senders:
            sender.script = [Verdict.DELIVERED, RuntimeError("a bug")]
        senders.append(sender)
        lane = delivery.Lane(sender, world.store, world.clock, world.status, world.alarms, world.executor)
        await lane.run()

    await world.keep(b"1", b"2", b"3")
    task = asyncio.create_task(supervise("ris/0", run, reasons.append, world.clock))
    await world.until(lambda: PENDING not in world.states().values())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert len(senders) == 2
    assert senders[0].closed == 1
    assert reasons[0].startswith("RuntimeError at lanes.py:")
    assert senders[1].taken[-2:] == [b"2", b"3"]


async def test_finish_ends_a_lane_after_the_delivery_in_hand(world: World) -> None:
    sender = RecordingSender()
    sender.open_gate.clear()
    lane = world.lane(sender)
    await world.keep(b"1", b"2")
    lane.finish()
    sender.open_gate.set()
    await asyncio.wait_for(world.tasks[0], WAIT_S)

    assert len(sender.taken) <= 1
    assert sender.closed == 1


async def test_a_lane_that_was_told_to_finish_ends_when_what_was_taken_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[tuple[object, ...], dict[str, object]]] = []
    settle = world.store.settle
    monkeypatch.setattr(world.store, "settle", lambda *given, **named: held.append((given, named)))
    sender = RecordingSender()
    lane = world.lane(sender)
    await world.keep(b"1", b"2")
    await sender.wait(lambda: len(sender.taken) == 2)
    lane.finish()
    await world.turn()
    ended_early = world.tasks[0].done()
    for given, named in held:
        settle(*given, **named)  # type: ignore[arg-type]
    await asyncio.wait(world.tasks, timeout=WAIT_S)

    assert not ended_early
    assert world.tasks[0].done()
    assert world.states() == {1: DELIVERED, 2: DELIVERED}


async def test_a_clock_set_far_back_does_not_stop_delivery(world: World) -> None:
    sender = RecordingSender()
    sender.script = [Verdict.RETRY]
    lane = world.lane(sender)
    await world.keep(b"1")
    await world.until(lambda: world.status.next_try_at is not None)
    await world.until(lambda: lane._unsettled == 0)
    world.clock.advance(5.0)
    world.clock._now -= timedelta(days=365)
    lane.wake()

    await sender.wait(lambda: sender.taken == [b"1"])


@pytest.mark.parametrize("hours", [None, "00:00-00:01"])
async def test_a_lane_that_waits_ends_when_it_is_cancelled_as_news_come(world: World, hours: str | None) -> None:
    sender = RecordingSender()
    sender.script = [LinkError("refused")]
    world.clock.advance(60.0)
    world.lane(sender, pace=Pace(world.clock, hours=hours))
    await world.keep(b"1")
    await world.turn()
    await world.turn()
    world.lanes[0].wake()
    world.tasks[0].cancel()

    ended, _ = await asyncio.wait(world.tasks, timeout=WAIT_S)
    assert ended == set(world.tasks)


async def test_a_transport_that_breaks_after_the_last_receipt_costs_nothing(world: World) -> None:
    class Breaking(RecordingSender):
        async def send(self, parcels):  # type: ignore[no-untyped-def,override]
            async for receipt in RecordingSender.send(self, parcels):
                yield receipt
            raise LinkError("closed after the last")

    sender = Breaking()
    world.lane(sender)
    await world.keep(b"1")
    await world.until(lambda: world.states() == {1: DELIVERED})

    assert sender.taken == [b"1"]


# --- priority, hours, breaker ---


async def test_what_is_urgent_goes_before_what_waited_longer(world: World) -> None:
    sender = RecordingSender(batch_max=2)
    sender.open_gate.clear()
    await world.keep(*numbered(1, 6))
    world.lane(sender)
    await world.until(lambda: sender.batches == 1)
    await world.keep(b"stat 1", b"stat 2", urgent=True)
    sender.open_gate.set()
    await sender.wait(lambda: len(sender.taken) == 8)
    await world.until(lambda: set(world.states().values()) == {DELIVERED})

    assert sender.taken == [b"1", b"2", b"stat 1", b"stat 2", b"3", b"4", b"5", b"6"]


async def test_urgent_and_other_deliveries_are_each_tried_again(world: World) -> None:
    sender = RecordingSender()
    sender.script = [LinkError("closed"), Verdict.DELIVERED, LinkError("closed")]
    await world.keep(b"1", b"2")
    await world.keep(b"stat", urgent=True)
    world.lane(sender)
    while len(sender.taken) < 3:
        await world.turn()
        world.pass_time(10.0)

    assert sender.taken == [b"stat", b"1", b"2"]
    assert len(sender.tried) == 5


async def test_outside_its_hours_a_destination_gets_only_what_is_urgent(world: World) -> None:
    closed = (START + timedelta(hours=2)).astimezone().strftime("%H:%M")
    until = (START + timedelta(hours=8)).astimezone().strftime("%H:%M")
    sender = RecordingSender()
    world.lane(sender, pace=Pace(world.clock, hours=f"{closed}-{until}"))
    await world.keep(b"1")
    await world.turn()
    await world.keep(b"stat", urgent=True)
    await sender.wait(lambda: sender.taken == [b"stat"])
    await world.turn()
    assert sender.taken == [b"stat"]
    assert world.status.state is LinkState.UP
    world.pass_time(2 * 3600)

    await sender.wait(lambda: sender.taken == [b"stat", b"1"])


async def test_a_lane_outside_its_hours_does_not_keep_another_from_trying_what_is_urgent(world: World) -> None:
    closed = (START + timedelta(hours=2)).astimezone().strftime("%H:%M")
    until = (START + timedelta(hours=8)).astimezone().strftime("%H:%M")
    pace = Pace(world.clock, hours=f"{closed}-{until}")
    keys = [next(key for key in map(str, range(100)) if slot_of(key) % 2 == lane) for lane in range(2)]
    quiet, urgent = RecordingSender(), RecordingSender()
    urgent.script = [LinkError("refused")]
    await world.keep(incoming(b"1", lane_key=keys[0]))
    await world.keep(incoming(b"stat", lane_key=keys[1]), urgent=True)
    world.lane(quiet, lane=0, lanes=2, pace=pace)
    world.lane(urgent, lane=1, lanes=2, pace=pace)
    for _ in range(10):
        await world.turn()
        world.pass_time(30.0)

    await urgent.wait(lambda: urgent.taken == [b"stat"])
    assert quiet.tried == []


async def test_lanes_of_a_destination_knock_one_at_a_time_at_a_closed_door(world: World) -> None:
    senders = [RecordingSender() for _ in range(4)]
    for sender in senders:
        sender.script = [LinkError("refused")] * 100
    pace = Pace(world.clock)
    await world.keep(*[incoming(b"%d" % number, lane_key=f"study-{number}") for number in range(40)])
    for number, sender in enumerate(senders):
        world.lane(sender, lane=number, lanes=4, pace=pace)
    await world.until(lambda: sum(len(sender.tried) for sender in senders) >= 1)
    await world.turn()
    tried = sum(len(sender.tried) for sender in senders)
    for _ in range(3):
        world.pass_time(RETRY_S_MAX)
        await world.turn()
        await world.turn()
    assert sum(len(sender.tried) for sender in senders) <= tried + 3

    for sender in senders:
        sender.script = []
    for _ in range(40):
        world.pass_time(RETRY_S_MAX)
        await world.turn()
        if sum(len(sender.taken) for sender in senders) == 40:
            break
    assert sum(len(sender.taken) for sender in senders) == 40


async def test_what_a_peer_says_of_one_delivery_stops_no_other_lane(world: World) -> None:
    disliking, healthy = RecordingSender(), RecordingSender()
    disliking.script = [Verdict.RETRY] * 100
    pace = Pace(world.clock)
    mine = next(key for key in map(str, range(100)) if slot_of(key) % 2 == 1)
    await world.keep(incoming(b"stuck"), *[incoming(b"%d" % number, lane_key=mine) for number in range(20)])
    world.lane(disliking, lane=0, lanes=2, pace=pace)
    world.lane(healthy, lane=1, lanes=2, pace=pace)

    await healthy.wait(lambda: len(healthy.taken) == 20)
    assert disliking.taken == []
