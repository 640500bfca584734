"""One MLLP connection to a peer, client side: bytes written whole, answers taken as the codec's events.

connected --write--> asked --event--> connected
          --closed, too much unasked--> lost
"""

import asyncio
import select
from collections import deque
from typing import cast

from gateway.config import ClientTls
from gateway.errors import LinkError
from gateway.net.keepalive import keep_alive
from gateway.net.tls import client_context
from gateway.protocols.mllp import Decoder, Event

REPLY_BYTES_MAX = 256 * 1024  # an acknowledgement is some hundred bytes; errors may be wordy
END_WITHOUT_CR_S = 0.5  # after this an answer that ends with FS alone is believed
EVENTS_MAX = 64  # answers nobody asked for
SETTLED_MAX = 64  # control ids remembered: in enhanced mode a second answer may follow the first

_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class MllpLink(asyncio.Protocol):
    """A connection; `settled` are the control ids last answered on it, oldest first."""

    def __init__(self) -> None:
        self.settled: deque[bytes] = deque(maxlen=SETTLED_MAX)
        self._decoder = Decoder(frame_bytes_max=REPLY_BYTES_MAX, end_without_cr_s=END_WITHOUT_CR_S)
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._lost: str | None = None
        self._loop = asyncio.get_running_loop()
        self._poll = select.poll()

    @property
    def usable(self) -> bool:
        """Return whether the peer still listens: it has not closed, not even unnoticed by the loop."""
        return self._lost is None and not self._transport.is_closing() and not self._poll.poll(0)

    def write(self, frame: bytes) -> None:
        """Write a whole frame; what came before it is no answer to it and is forgotten."""
        self._events.clear()
        self._transport.write(frame)

    async def receive(self) -> Event:
        """Return the next event. Raises LinkError when the connection is lost; waits without a limit of its own."""
        while not self._events:
            if self._lost is not None:
                raise LinkError(self._lost)
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def abort(self) -> None:
        """Cut the connection at once."""
        self._transport.abort()

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the socket up (called by the loop)."""
        self._transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        keep_alive(raw)
        self._poll.register(raw.fileno(), _GONE)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the peer (called by the loop)."""
        self._take(self._decoder.receive(data, self._loop.time()))
        if (deadline := self._decoder.deadline) is not None:
            self._loop.call_at(deadline, self._tick)

    def eof_received(self) -> None:
        """Take the last answer, if its CR only is missing (called by the loop)."""
        self._take(self._decoder.finish())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits (called by the loop)."""
        if self._lost is None:
            self._lost = "closed by the peer" if exc is None else f"connection lost: {type(exc).__name__}"
        self._wake()

    def _tick(self) -> None:
        self._take(self._decoder.tick(self._loop.time()))

    def _take(self, events: list[Event]) -> None:
        self._events.extend(events)
        if len(self._events) > EVENTS_MAX:
            self._events.clear()
            self._lost = f"more than {EVENTS_MAX} answers nobody asked for"
            self._transport.abort()
        if events:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def connect(host: str, port: int, tls: ClientTls | None, timeout_s: float) -> MllpLink:
    """Open a connection. Raises LinkError when that fails or takes longer than `timeout_s` seconds."""
    loop = asyncio.get_running_loop()
    place = f"{host}:{port}"
    try:
        async with asyncio.timeout(timeout_s):
            if tls is None:
                _, link = await loop.create_connection(MllpLink, host, port)
            else:
                context, name = client_context(tls), tls.server_name or host
                _, link = await loop.create_connection(MllpLink, host, port, ssl=context, server_hostname=name)
            return link
    except TimeoutError as error:
        raise LinkError(f"{place}: no connection within {timeout_s:g} s") from error
    except OSError as error:
        raise LinkError(f"{place}: {error.strerror or error}") from error
