import asyncio
import threading

from gateway.sources import sdc_inbox
from gateway.sources.sdc_inbox import Ended, Inbox, Reported

TIMEOUT_S = 5.0


def report(number: int, size: int = 1) -> Reported:
    return Reported(raw=bytes([number % 256]) * size, states=())


async def take(inbox: Inbox) -> list[sdc_inbox.Event]:
    async with asyncio.timeout(TIMEOUT_S):
        return await inbox.take()


async def test_what_another_thread_offers_comes_in_order() -> None:
    inbox = Inbox()
    thread = threading.Thread(target=lambda: [inbox.offer(report(number)) for number in range(100)])
    thread.start()
    taken: list[sdc_inbox.Event] = []
    while len(taken) < 100:
        taken += await take(inbox)
    thread.join(TIMEOUT_S)

    assert taken == [report(number) for number in range(100)]
    assert inbox.lost == 0


async def test_what_finds_no_room_is_counted_and_ends_the_connection() -> None:
    inbox = Inbox()
    for number in range(sdc_inbox.EVENTS_MAX + 7):
        inbox.offer(report(number))
    taken = await take(inbox)

    assert len(taken) == sdc_inbox.EVENTS_MAX + 1
    assert isinstance(taken[-1], Ended)
    assert inbox.lost == 7


async def test_bytes_are_bounded_too() -> None:
    inbox = Inbox()
    inbox.offer(report(1, sdc_inbox.BYTES_MAX))
    inbox.offer(report(2))

    assert [type(event) for event in await take(inbox)] == [Reported, Ended]
    assert inbox.lost == 1


async def test_after_the_end_nothing_is_taken_and_nothing_counts_as_lost() -> None:
    inbox = Inbox()
    inbox.offer(Ended(reason="closed"))
    inbox.offer(report(1))
    inbox.offer(Ended(reason="again"))

    assert await take(inbox) == [Ended(reason="closed")]
    assert inbox.lost == 0
