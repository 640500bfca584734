"""UDP Streams: `udp://host:port` and `udp-host://host:port`.

An address of this machine (or 0.0.0.0) is listened on; any other is the Device's, to which we talk. One Device at a
time: the first sender is listened to, others are passed over, so that no bed gets another bed's values. Answers go to
that sender. Each read gives one datagram.

Where several Devices send to one port (broadcasts of a ward), who comes first is chance: `udp://ADDRESS:PORT?from=HOST`
listens to that host alone.

Some Devices answer from other ports than the one that is asked: `udp-host://` talks to the port named and hears every
port of that host, and no other host.
"""

import asyncio
import errno
import logging
import socket
from typing import cast

from gateway.errors import LinkError
from gateway.net.stream import Inbox

RESOLVE_TIMEOUT_S = 10.0
SENDER_SILENCE_S = 10.0  # after that another sender may take its place, with a fresh Session

logger = logging.getLogger("gateway.net")

_Address = tuple[str, int]


async def open_udp(host: str, port: int, sender: str | None = None) -> "UdpStream":
    """Open a datagram socket; `sender` is the only host that is heard. Raises LinkError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            family, address = found[0][0], found[0][4]
            only = None
            if sender is not None:
                only = str((await loop.getaddrinfo(sender, port, family=family, type=socket.SOCK_DGRAM))[0][4][0])
            stream = UdpStream(f"{host}:{port}", only=only)
            if await _bound(stream, family, address):
                return stream
            await loop.create_datagram_endpoint(lambda: stream, remote_addr=address[:2])  # type: ignore[arg-type]
            return stream
    except TimeoutError as error:
        raise LinkError(f"{host}:{port}: not resolved within {RESOLVE_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise LinkError(f"{host}:{port}: {error.strerror or error}") from error


async def open_udp_host(host: str, port: int) -> "UdpStream":
    """Open a datagram socket that talks to one port of a host and hears all of them. Raises LinkError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            family, _, _, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
        stream = UdpStream(f"{host}:{port}", target=(str(address[0]), port))
        unbound = socket.socket(family, socket.SOCK_DGRAM)
        unbound.setblocking(False)
        unbound.bind(("", 0))
        await loop.create_datagram_endpoint(lambda: stream, sock=unbound)
    except TimeoutError as error:
        raise LinkError(f"{host}:{port}: not resolved within {RESOLVE_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise LinkError(f"{host}:{port}: {error.strerror or error}") from error
    return stream


async def _bound(stream: "UdpStream", family: int, address: tuple[object, ...]) -> bool:
    found = socket.socket(family, socket.SOCK_DGRAM)
    found.setblocking(False)
    try:
        found.bind(address)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return False
        raise
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: stream, sock=found)
    return True


class UdpStream(asyncio.DatagramProtocol):
    """One datagram socket and the Device behind it."""

    def __init__(self, peer: str, target: _Address | None = None, only: str | None = None) -> None:
        """Take what to call the peer, the port to talk to where it is not the sender's, and who alone is heard."""
        self.peer = peer
        self._target = target
        self._only = target[0] if target is not None else only
        self._inbox = Inbox(whole=True)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.DatagramTransport | None = None
        self._sender: _Address | None = None
        self._heard_at = 0.0
        self._strangers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket (asyncio.DatagramProtocol)."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._sender = transport.get_extra_info("peername")

    @property
    def port(self) -> int:
        """Return our own port."""
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, address: _Address) -> None:
        """Take a datagram (asyncio.DatagramProtocol); what does not fit any more is lost, as UDP has it."""
        now = self._loop.time()
        if self._only is not None and address[0] != self._only:
            return
        if self._sender is None:
            self._sender = address
            self.peer = address[0] if self._target is None else self.peer
        elif address[0] != self._sender[0]:
            self._meet_stranger(address, now)
            return
        self._sender, self._heard_at = address, now
        if not self._inbox.full:
            self._inbox.feed(data)

    def error_received(self, error: Exception) -> None:
        """Take notice that nobody listens over there (asyncio.DatagramProtocol)."""
        self._inbox.end(LinkError(f"{self.peer}: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """Take notice of the end (asyncio.DatagramProtocol)."""
        self._inbox.end(None if error is None else LinkError(f"{self.peer}: {error}"))

    async def read(self) -> bytes:
        """Wait for one datagram. Raises LinkError."""
        return await self._inbox.take()

    async def write(self, data: bytes) -> None:
        """Send one datagram to the Device; before it was heard there is nobody to tell. Raises LinkError."""
        if self._transport is None or self._transport.is_closing():
            raise LinkError(f"{self.peer}: closed")
        listener = self._target or self._sender
        if listener is not None:
            connected = self._transport.get_extra_info("peername") is not None
            self._transport.sendto(data, None if connected else listener)

    async def close(self) -> None:
        """Close the socket."""
        self._inbox.end(None)
        if self._transport is not None:
            self._transport.close()

    def _meet_stranger(self, address: _Address, now: float) -> None:
        if now - self._heard_at > SENDER_SILENCE_S:
            self._inbox.end(None)
            return
        self._strangers += 1
        if self._strangers == 1:
            logger.warning("link.stranger_ignored peer=%s stranger=%s", self.peer, address[0])
