"""The listener of a DICOM Source: connections wait on the loop until they say something, then get a thread.

    accepted --first byte--> its thread: TLS handshake, A-ASSOCIATE --> associated
       lobby: at most so long, so many a host; the oldest makes room     associations_max

A connection that says nothing costs a file descriptor for five seconds and neither thread nor association. The
handshake runs in the connection's own thread, so that a client that stops midway stops nobody; such threads leave the
lobby only when the association stands, so they are bounded with it.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable

from gateway.clock import Clock
from gateway.net.keepalive import keep_alive

FIRST_PDU_S = 5.0
LOBBY_HOST_MAX = 16
LOBBY_MAX = 128
BACKLOG = 128
ACCEPT_PAUSE_S = 0.1

_log = logging.getLogger("gateway.sources")


class Lobby:
    """Connections that have no association yet, oldest first; from any thread.

    When a host, or all together, hold more than they may, the oldest is cut: who floods pushes out his own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, str] = {}

    def enter(self, sock: socket.socket, host: str) -> None:
        """Let a connection in."""
        with self._lock:
            same = [other for other, its_host in self._waiting.items() if its_host == host]
            if len(same) >= LOBBY_HOST_MAX:
                self._cut(same[0])
            elif len(self._waiting) >= LOBBY_MAX:
                self._cut(next(iter(self._waiting)))
            self._waiting[sock] = host

    def leave(self, sock: socket.socket) -> None:
        """Let a connection go on, or end."""
        with self._lock:
            self._waiting.pop(sock, None)

    def close(self) -> None:
        """Cut all."""
        with self._lock:
            for sock in list(self._waiting):
                self._cut(sock)

    def __len__(self) -> int:
        return len(self._waiting)

    def _cut(self, sock: socket.socket) -> None:
        del self._waiting[sock]
        shut(sock)


class Listener:
    """Accepts connections on the loop; `admits(host)` says whether a host may connect at all.

    `serve` is called in a thread of its own for each connection that has said something; it closes the connection.
    """

    def __init__(
        self,
        address: tuple[str, int],
        clock: Clock,
        *,
        admits: Callable[[str], bool],
        serve: Callable[[socket.socket, str], None],
    ) -> None:
        """Open the port. Raises OSError."""
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        self._clock = clock
        self._admits = admits
        self._serve = serve
        self.lobby = Lobby()
        self._socket = socket.create_server(address, family=family, backlog=BACKLOG)
        self._socket.setblocking(False)
        self._greeters: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Return the port listened on."""
        return int(self._socket.getsockname()[1])

    async def run(self) -> None:
        """Accept until cancelled; then the port is closed, and so is the lobby."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    sock, address = await loop.sock_accept(self._socket)
                except OSError as error:  # out of descriptors, or the peer has gone already: associations go on
                    _log.warning("dicom.not_accepted reason=%s", error.strerror)
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                    continue
                host = str(address[0])
                if not self._admits(host):
                    sock.close()
                    continue
                self.lobby.enter(sock, host)
                greeter = loop.create_task(self._greet(sock, host))
                self._greeters.add(greeter)
                greeter.add_done_callback(self._greeters.discard)
        finally:
            self.close()

    def close(self) -> None:
        """Close the port and cut who waits."""
        self._socket.close()
        for greeter in self._greeters:
            greeter.cancel()
        self.lobby.close()

    async def _greet(self, sock: socket.socket, host: str) -> None:
        """Wait for the first byte; give who speaks a thread."""
        started = False
        try:
            keep_alive(sock)
            async with asyncio.timeout(FIRST_PDU_S):
                await _readable(sock)
            threading.Thread(target=self._serve, args=(sock, host), name=f"dicom-{host}", daemon=True).start()
            started = True
        except (TimeoutError, OSError):
            pass  # gone or too slow: nothing was promised
        finally:
            if not started:
                self.lobby.leave(sock)
                sock.close()


async def _readable(sock: socket.socket) -> None:
    """Return when the first byte is there. Raises ConnectionError when the peer has gone instead."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _resolve, came)
    try:
        await came
    finally:
        loop.remove_reader(sock)
    if not sock.recv(1, socket.MSG_PEEK):
        raise ConnectionAbortedError("gone without a word")


def _resolve(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)


def shut(sock: socket.socket) -> None:
    """Shut a connection down in both directions, if it is still there."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed by the peer or by its own thread: what was wanted
