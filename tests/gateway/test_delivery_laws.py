"""A lane against any behaviour of its Sender: nothing is lost, order is kept, repeats carry the same control id."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.delivery import RETRY_S_MAX
from gateway.errors import LinkError, TemporaryError
from gateway.model import DeliveryState, Verdict
from tests.gateway.lanes import Answer, RecordingSender, World

TURNS_MAX = 2000

ANSWERS = st.sampled_from(
    [
        *[Verdict.DELIVERED] * 6,
        Verdict.RETRY,
        Verdict.RETRY_CONTENT,
        Verdict.REFUSED,
        LinkError("closed"),
        TemporaryError("busy", retry_after_s=7.0),
        RuntimeError("a bug"),
    ]
)


async def carry(folder: Path, script: list[Answer], count: int, batch_max: int, rewind_every: int) -> None:
    """Bring so many messages against the script, then check the laws."""
    world = World(folder)
    sender = RecordingSender(batch_max)
    sender.script = list(script)
    try:
        await world.keep(*[b"%d" % number for number in range(1, count + 1)])
        world.lane(sender, content_attempts_max=3)
        for turn in range(TURNS_MAX):
            if DeliveryState.PENDING.value not in world.states().values():
                break
            if world.tasks[-1].done():  # it met a bug: the supervisor starts another
                world.tasks[-1].exception()
                world.tasks.pop()
                world.lane(sender, content_attempts_max=3)
            if rewind_every and turn % rewind_every == 0:
                world.lanes[-1].rewind()
            world.pass_time(RETRY_S_MAX)
            await world.turn()
        check(world, sender, count)
    finally:
        await world.close()


def check(world: World, sender: RecordingSender, count: int) -> None:
    """Demand the laws of what happened."""
    delivered = {number for number, state in world.states().items() if state == DeliveryState.DELIVERED.value}
    parked = {number for number, state in world.states().items() if state == DeliveryState.PARKED.value}
    assert delivered | parked == set(range(1, count + 1))
    assert delivered <= {int(raw) for raw in sender.taken}
    first_tries = list(dict.fromkeys(parcel.delivery.id for parcel in sender.tried))
    assert first_tries == sorted(first_tries)
    first_taken = list(dict.fromkeys(int(raw) for raw in sender.taken))
    assert first_taken == sorted(first_taken)
    names = {(parcel.delivery.id, parcel.delivery.control_id, parcel.message.raw) for parcel in sender.tried}
    assert len(names) == len(first_tries)


@settings(max_examples=60, deadline=None)
@given(
    script=st.lists(ANSWERS, max_size=25),
    count=st.integers(1, 20),
    batch_max=st.integers(1, 8),
    rewind_every=st.sampled_from((0, 1, 3)),
)
def test_a_lane_keeps_its_laws(script: list[Answer], count: int, batch_max: int, rewind_every: int) -> None:
    with tempfile.TemporaryDirectory(prefix="lane-laws-") as folder:
        asyncio.run(carry(Path(folder), script, count, batch_max, rewind_every))
