"""A tap on a Device's wire: who looks on sees the raw bytes with their times and directions, and changes nothing.

A Source's loop tells its Tap what was heard and said; each onlooker has a bounded queue of its own. One that is too
slow loses the oldest pieces and is told how many.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

QUEUE_BYTES_MAX = 4 << 20  # of one onlooker


class Direction(Enum):
    """Who spoke."""

    HEARD = "<"  # from the Device
    SAID = ">"  # to the Device


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes as they crossed the wire; `at_s` is monotonic, `lost` the bytes before them that were not kept."""

    at_s: float
    direction: Direction
    data: bytes
    lost: int = 0


class Onlooker:
    """One who looks on; read by one task of the loop."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self._size = 0
        self._lost = 0
        self._news = asyncio.Event()

    def put(self, piece: Piece) -> None:
        """Take a piece."""
        self._pieces.append(piece)
        self._size += len(piece.data)
        while self._size > QUEUE_BYTES_MAX and len(self._pieces) > 1:
            gone = self._pieces.popleft()
            self._size -= len(gone.data)
            self._lost += len(gone.data)
        self._news.set()

    async def take(self) -> Piece:
        """Wait for the next piece."""
        while not self._pieces:
            self._news.clear()
            await self._news.wait()
        piece = self._pieces.popleft()
        self._size -= len(piece.data)
        lost, self._lost = self._lost, 0
        return Piece(piece.at_s, piece.direction, piece.data, lost)


class Tap:
    """The onlookers of one Source."""

    def __init__(self) -> None:
        self._onlookers: list[Onlooker] = []

    def tell(self, direction: Direction, data: bytes, at_s: float) -> None:
        """Show bytes to all who look on; costs nothing where nobody does."""
        for onlooker in self._onlookers:
            onlooker.put(Piece(at_s, direction, data))

    @contextmanager
    def watched(self) -> Iterator[Onlooker]:
        """Look on while the context lasts."""
        onlooker = Onlooker()
        self._onlookers.append(onlooker)
        try:
            yield onlooker
        finally:
            self._onlookers.remove(onlooker)
