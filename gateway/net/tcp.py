"""TCP Streams: to a Device or a serial server (`tcp://host:port`), or from a Device that calls us (`listen://`)."""

import asyncio
import logging
import socket
from typing import cast

from gateway.errors import LinkError
from gateway.net.stream import Inbox

CONNECT_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 5.0
# A cable that was pulled gives no FIN: the kernel asks after 30 s of silence and gives up 30 s later.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))

logger = logging.getLogger("gateway.net")


async def connect_tcp(host: str, port: int) -> "TcpStream":
    """Connect to a Device. Raises LinkError."""
    loop = asyncio.get_running_loop()
    stream = TcpStream(f"{host}:{port}")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await loop.create_connection(lambda: stream, host, port)
    except TimeoutError as error:
        raise LinkError(f"{host}:{port}: no connection within {CONNECT_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise LinkError(f"{host}:{port}: {error.strerror or error}") from error
    return stream


async def listen_tcp(host: str, port: int) -> "CalledStream":
    """Wait at an address for a Device that connects to us. Raises LinkError when the address is not to be had."""
    stream = CalledStream()
    try:
        server = await asyncio.get_running_loop().create_server(stream.answer, host, port, reuse_address=True)
    except OSError as error:
        raise LinkError(f"{host}:{port}: {error.strerror or error}") from error
    stream.begin(server)
    return stream


class TcpStream(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self._inbox = Inbox()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection (asyncio.Protocol)."""
        self._transport = cast(asyncio.Transport, transport)
        keep_alive(self._transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes (asyncio.Protocol)."""
        self._inbox.feed(data)
        if self._inbox.full and self._transport is not None:
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Take notice of the end (asyncio.Protocol)."""
        self._inbox.end(None if error is None else LinkError(f"{self.peer}: {error}"))
        self._writable.set()

    def pause_writing(self) -> None:
        """Take notice that the peer takes no more (asyncio.Protocol)."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Take notice that the peer takes again (asyncio.Protocol)."""
        self._writable.set()

    async def read(self) -> bytes:
        """Wait for bytes; b"" once the peer has closed. Raises LinkError."""
        data = await self._inbox.take()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises LinkError when the peer has gone or takes none in time."""
        if self._transport is None or self._transport.is_closing():
            raise LinkError(f"{self.peer}: closed")
        self._transport.write(data)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._writable.wait()
        except TimeoutError as error:
            raise LinkError(f"{self.peer}: took no bytes within {WRITE_TIMEOUT_S:.0f} s") from error

    async def close(self) -> None:
        """Close at once; what the peer did not take is thrown away."""
        self._inbox.end(None)
        if self._transport is not None:
            self._transport.abort()


def keep_alive(transport: asyncio.Transport) -> None:
    """Have the kernel find out when the peer has vanished without a word."""
    found: socket.socket = transport.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        found.setsockopt(socket.IPPROTO_TCP, option, value)


class CalledStream:
    """An address at which one Device calls us.

    One Device at a time: a second caller from elsewhere is turned away. The Device itself calling again means that
    its old connection is dead: the Stream ends, and the Device reaches the next one.
    """

    def __init__(self) -> None:
        self.peer = "nobody yet"
        self._server: asyncio.Server | None = None
        self._caller: TcpStream | None = None
        self._called = asyncio.Event()

    def begin(self, server: asyncio.Server) -> None:
        """Take the listener."""
        self._server = server

    @property
    def port(self) -> int:
        """Return the port that we listen on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def answer(self) -> asyncio.Protocol:
        """Return what meets a caller."""
        return _Caller(self)

    def meet(self, caller: TcpStream, host: str) -> bool:
        """Take a caller, or tell it to go: another one is being listened to."""
        if self._caller is None:
            self._caller, self.peer = caller, host
            self._called.set()
            return True
        if host == self.peer:
            logger.warning("link.called_again peer=%s", host)
            self._caller.connection_lost(None)
        else:
            logger.warning("link.caller_refused peer=%s", host)
        return False

    async def read(self) -> bytes:
        """Wait for a caller and its bytes; b"" once it has closed. Raises LinkError."""
        await self._called.wait()
        assert self._caller is not None
        return await self._caller.read()

    async def write(self, data: bytes) -> None:
        """Send bytes to the caller; before anyone called there is nobody to tell. Raises LinkError."""
        if self._caller is not None:
            await self._caller.write(data)

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is not None:
            self._server.close()
        if self._caller is not None:
            await self._caller.close()


class _Caller(TcpStream):
    def __init__(self, called: CalledStream) -> None:
        super().__init__("caller")
        self._called = called

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        host = str(transport.get_extra_info("peername")[0])
        self.peer = host
        if not self._called.meet(self, host):
            assert self._transport is not None
            self._transport.abort()
