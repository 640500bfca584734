"""What every Stream is, and the box in which bytes wait until they are read."""

import asyncio
from collections import deque
from typing import Protocol, runtime_checkable

from gateway.errors import LinkError
from gateway.status import LineState

INBOX_BYTES_MAX = 256 * 1024


class Stream(Protocol):
    """A two-way byte pipe to one Device. Opened by its module's function, read and closed by one task."""

    peer: str

    async def read(self) -> bytes:
        """Wait for bytes; b"" once the peer has closed. A cancelled read loses nothing. Raises LinkError."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes, within the Stream's own time limit. Raises LinkError."""
        ...

    async def close(self) -> None:
        """Let go of the port; never raises."""
        ...


@runtime_checkable
class Metered(Protocol):
    """A Stream whose port can tell of itself."""

    device: str

    def line_state(self) -> LineState | None:
        """Return modem lines and error counters, None where the port keeps none."""
        ...


class Inbox:
    """Bytes that came and were not read yet, on the loop's thread.

    `whole` keeps the pieces apart, as datagrams need it. `full` tells the feeder to wait; `ended` says why no more
    bytes come: None for an orderly end.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: LinkError | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def full(self) -> bool:
        """Return whether the feeder should wait for `room`."""
        return self._size >= INBOX_BYTES_MAX

    def feed(self, data: bytes) -> None:
        """Put bytes in."""
        if data and not self._ended:
            self._pieces.append(data)
            self._size += len(data)
            self._news.set()
            if self.full:
                self._room.clear()

    def end(self, error: LinkError | None) -> None:
        """Take notice that no more bytes come; the first reason stands."""
        if not self._ended:
            self._ended, self._error = True, error
            self._news.set()
            self._room.set()

    async def room(self) -> None:
        """Wait until there is room, or nothing more is wanted."""
        await self._room.wait()

    async def take(self) -> bytes:
        """Wait for bytes, then take them; b"" at an orderly end. Raises LinkError at any other."""
        await self._news.wait()
        if not self._pieces:
            if self._error is not None:
                raise self._error
            return b""
        if self._whole:
            data = self._pieces.popleft()
        else:
            data = b"".join(self._pieces)
            self._pieces.clear()
        self._size -= len(data)
        self._room.set()
        if not self._pieces and not self._ended:
            self._news.clear()
        return data
