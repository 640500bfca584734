"""The MLLP listener: HL7 v2 from any sender that may connect (see `mllp_connection.py` for one conversation).

Peers are judged before the first byte is exchanged: the allow list, the number of connections, and of those of one
peer. TLS begins after that. Answers leave after the commit, never before.
"""

import asyncio
import codecs
import logging
import socket
import ssl
from collections import Counter
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from gateway.clock import Clock, to_micros
from gateway.config import MllpSource
from gateway.errors import ConfigError, LinkError
from gateway.intake import Settle
from gateway.model import Incoming
from gateway.net.keepalive import keep_alive
from gateway.net.tls import HANDSHAKE_TIMEOUT_S, server_context
from gateway.sources.mllp_connection import MllpConnection
from gateway.status import LinkState, SourceStatus
from gateway.typed import Address, Network

HELD_BYTES_MAX = 64 << 20  # of all connections together: received and not settled
FRAMES_HELD_MIN = 4  # so many of the largest frames must fit in any case
STOP_TIMEOUT_S = 5.0  # for answers that are owed when the listener stops
FAULT_LOG_EVERY_S = 1.0
BACKLOG = 128
ACCEPT_PAUSE_S = 0.1  # when there is no descriptor left

_log = logging.getLogger("gateway.sources.mllp")


class Door(Protocol):
    """What the listener needs of `gateway.intake.Intake`."""

    @property
    def refusing(self) -> str | None:
        """Return why new input is refused right now, None when the door is open."""
        ...

    def submit(self, incoming: Incoming, settled: Settle) -> None:
        """Keep an input; `settled` is called on the loop."""
        ...


class MllpListener:
    """A Source of type `mllp`."""

    def __init__(self, settings: MllpSource, intake: Door, clock: Clock, status: SourceStatus) -> None:
        """Take the parts. Raises ConfigError for an encoding that Python does not know."""
        try:
            codecs.lookup(settings.encoding)
        except LookupError:
            raise ConfigError(f"source {settings.name}: unknown encoding {settings.encoding!r}") from None
        self.settings = settings
        self.intake = intake
        self.clock = clock
        self.status = status
        self.port: int | None = None  # the one in use while listening
        self.listening = asyncio.Event()
        self._connections: set[MllpConnection] = set()
        self._per_host: Counter[str] = Counter()
        self._opening: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._held = 0
        self._held_max = max(HELD_BYTES_MAX, FRAMES_HELD_MIN * settings.frame_max)
        self._crowded: set[MllpConnection] = set()
        self._runner: MllpConnection | None = None
        self._id_prefix = f"{to_micros(clock.now()):X}-"
        self._ids = 0
        self._fault_logged_at = -FAULT_LOG_EVERY_S
        self._faults_unlogged = 0

    async def run(self) -> None:
        """Listen until cancelled; then answer what is on its way and close. Raises LinkError when it cannot listen."""
        context = server_context(self.settings.tls) if self.settings.tls is not None else None
        try:
            ear = _listen(self.settings.listen)
        except LinkError:
            self.status.state = LinkState.DOWN
            raise
        self.port = ear.getsockname()[1]
        self.status.state = LinkState.UP
        self.listening.set()
        _log.info("mllp.listening source=%s port=%d tls=%s", self.settings.name, self.port, context is not None)
        try:
            await self._accept(ear, context)
        finally:
            ear.close()
            self.listening.clear()
            self.status.state = LinkState.DOWN
            await self._stop()

    @property
    def held(self) -> int:
        """Return how many bytes are in memory: received and not settled, over all connections."""
        return self._held

    # Connections call these.

    def next_control_id(self) -> str:
        """Return an MSH-10 for an answer, never used before, also not by an earlier run."""
        self._ids += 1
        return f"{self._id_prefix}{self._ids:X}"

    def hold(self, size: int) -> None:
        """Note that so many more bytes (or fewer, where negative) are in memory."""
        self._held += size
        if size < 0 and self._crowded:
            self._make_room()

    def release(self, size: int) -> None:
        """Note that so many bytes have been settled."""
        self.hold(-size)

    def is_crowded_by(self, connection: MllpConnection) -> bool:
        """Return whether a connection must wait until there is room.

        When the bound is reached one connection goes on, so that a house full of half messages still empties.
        """
        if self._held <= self._held_max or connection.held == 0:
            return False
        if self._runner is None:
            self._runner = connection
        if connection is self._runner:
            return False
        self._crowded.add(connection)
        return True

    def fault(self, host: str, reason: str) -> None:
        """Note a peer's fault or a refusal; of a flood only the first of every second is logged."""
        self.status.saw_error(reason, self.clock.now())
        now = self.clock.monotonic()
        if now < self._fault_logged_at + FAULT_LOG_EVERY_S:
            self._faults_unlogged += 1
            return
        _log.warning(
            "mllp.refused source=%s peer=%s reason=%r unlogged=%d",
            self.settings.name,
            host,
            reason,
            self._faults_unlogged,
        )
        self._fault_logged_at = now
        self._faults_unlogged = 0

    def left(self, connection: MllpConnection) -> None:
        """Forget a connection that was lost."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._per_host[connection.host] -= 1
        if not self._per_host[connection.host]:
            del self._per_host[connection.host]
        self._crowded.discard(connection)
        self.status.connections = len(self._connections)
        if self._runner is connection:
            self._runner = None
        self._make_room()
        if not self._connections:
            self._empty.set()

    async def _accept(self, ear: socket.socket, context: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, address = await loop.sock_accept(ear)
            except OSError as error:  # out of descriptors; or the peer has gone already
                self.fault("unknown", f"not accepted: {error.strerror}")
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            host = _plain(address[0])
            reason = self._refusal(host)
            if reason is not None:
                self.fault(host, reason)
                peer.close()
                continue
            task = loop.create_task(self._open(peer, host, context))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _refusal(self, host: str) -> str | None:
        """Return why a peer may not connect, None where it may."""
        if self.settings.allow and not _is_allowed(host, self.settings.allow):
            return "not on the allow list"
        if len(self._connections) >= self.settings.connections_max:
            return f"more than {self.settings.connections_max} connections"
        if self._per_host[host] >= self.settings.connections_per_peer_max:
            return f"more than {self.settings.connections_per_peer_max} connections of one peer"
        return None

    async def _open(self, peer: socket.socket, host: str, context: ssl.SSLContext | None) -> None:
        """Take a connection in; with TLS it begins after the handshake."""
        connection = MllpConnection(self, host)
        self._entered(connection)
        is_open = False
        try:
            keep_alive(peer)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                peer,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if context is not None else None,
            )
            is_open = True
        except OSError as error:
            what = "TLS handshake failed" if context is not None else "not opened"
            self.fault(host, f"{what}: {getattr(error, 'reason', None) or error.strerror or type(error).__name__}")
        finally:
            if not is_open:
                peer.close()
                self.left(connection)

    def _entered(self, connection: MllpConnection) -> None:
        self._connections.add(connection)
        self._per_host[connection.host] += 1
        self._empty.clear()
        self.status.connections = len(self._connections)

    def _make_room(self) -> None:
        """Let connections read again: all of them, or the next one where the last has made its way."""
        if self._held <= self._held_max // 2:
            self._runner = None
            waiting, self._crowded = self._crowded, set()
            for connection in waiting:
                connection.uncrowd()
        elif self._crowded and (self._runner is None or self._runner.held == 0):
            self._runner = max(self._crowded, key=lambda connection: connection.held)
            self._crowded.discard(self._runner)
            self._runner.uncrowd()

    async def _stop(self) -> None:
        """Answer what is owed, within STOP_TIMEOUT_S, and close every connection."""
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for connection in list(self._connections):
            connection.end()
        if self._connections:
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self._empty.wait()
            except TimeoutError:
                for connection in list(self._connections):
                    connection.abort()


def _listen(address: Address) -> socket.socket:
    """Open the listening socket; an earlier run's closing connections do not hinder. `[::]` takes IPv4 too."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        ear = socket.create_server(
            (address.host, address.port), family=family, backlog=BACKLOG, dualstack_ipv6=address.host == "::"
        )
    except OSError as error:
        raise LinkError(f"{address.host}:{address.port}: {error.strerror or error}") from error
    ear.setblocking(False)
    return ear


def _plain(host: str) -> str:
    """Return an address without zone, and IPv4 as IPv4 also where it came through an IPv6 socket."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _is_allowed(host: str, allow: tuple[Network, ...]) -> bool:
    address = ip_address(host)
    return any(address in network for network in allow)
