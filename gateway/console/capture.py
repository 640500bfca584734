"""What crosses a Device's wire, as lines of a recording, for as long as somebody listens."""

import asyncio
from collections.abc import AsyncIterator

from gateway.clock import Clock
from gateway.net.replay import HEADER, recorded
from gateway.tap import Tap

REMARK_S = 1.0  # so that who has hung up is noticed, and who waits sees that we live


async def recorded_lines(tap: Tap, clock: Clock) -> AsyncIterator[str]:
    """Yield the header, then a line for each piece, a remark where nothing came for a while, until closed."""
    began_s = clock.monotonic()
    yield f"{HEADER.decode('ascii')}\n# started {clock.now().isoformat(timespec='milliseconds')}\n"
    with tap.watched() as onlooker:
        while True:
            try:
                async with asyncio.timeout(REMARK_S):
                    piece = await onlooker.take()
            except TimeoutError:
                yield "#\n"
                continue
            if piece.lost:
                yield f"# {piece.lost} bytes were not kept here: the reader was too slow\n"
            yield recorded(max(0.0, piece.at_s - began_s), piece.direction, piece.data)
