import asyncio

from gateway import tap
from gateway.tap import Direction, Onlooker, Piece, Tap


def put(onlooker: Onlooker, *pieces: bytes) -> None:
    for number, data in enumerate(pieces):
        onlooker.put(Piece(float(number), Direction.HEARD, data))


async def test_each_onlooker_gets_all_pieces_until_it_leaves() -> None:
    wire = Tap()
    with wire.watched() as one:
        with wire.watched() as other:
            wire.tell(Direction.SAID, b"a", 1.0)
        wire.tell(Direction.HEARD, b"b", 2.0)

        assert [(await one.take()).data, (await one.take()).data] == [b"a", b"b"]
        assert await other.take() == Piece(1.0, Direction.SAID, b"a")


async def test_who_is_too_slow_loses_the_oldest_and_is_told() -> None:
    onlooker, half = Onlooker(), bytes(tap.QUEUE_BYTES_MAX // 2)
    put(onlooker, half, half, b"end")

    first, second = await onlooker.take(), await onlooker.take()

    assert (first.lost, len(first.data)) == (len(half), len(half))
    assert (second.lost, second.data) == (0, b"end")


async def test_an_onlooker_waits_for_news() -> None:
    onlooker = Onlooker()
    waiting = asyncio.create_task(onlooker.take())
    await asyncio.sleep(0)
    put(onlooker, b"x")

    async with asyncio.timeout(5):
        assert (await waiting).data == b"x"
