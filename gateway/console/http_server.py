"""uvicorn as one task among others: no signal handlers, no exit of its own, silent peers are let go.

The socket is opened and bound by the caller, so that a port in use is an OSError there and not the end of the process.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

FIRST_REQUEST_S = 10.0  # a peer that connects and asks nothing
KEEP_ALIVE_S = 5
CONNECTIONS_MAX = 64
START_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 2.0
BACKLOG = 64

_PEER_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class HttpServer:
    """Serves one application on one bound socket from `start` to `stop`."""

    def __init__(self, application: Starlette, bound: socket.socket) -> None:
        self._socket = bound
        self._server = _Server(
            uvicorn.Config(
                application,
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,
                backlog=BACKLOG,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; returns once requests are answered. Raises TimeoutError."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="console-http")
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._server.listening.wait()

    async def stop(self) -> None:
        """Answer what was asked and close."""
        if self._task is None:
            return
        self._server.should_exit = True
        done, _ = await asyncio.wait([self._task], timeout=STOP_TIMEOUT_S)
        if not done:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._socket.close()


class _Server(uvicorn.Server):
    """Leaves the process's signals alone and tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: SIGTERM and SIGINT are the agent's."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen and say so."""
        await super().startup(sockets)
        self.listening.set()


class _Connection(H11Protocol):
    """Knows the user at the other end of a unix socket, and lets go of peers that ask nothing."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        wire = transport.get_extra_info("socket")
        if wire.family == socket.AF_UNIX:
            raw = wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
            _, uid, _ = _PEER_CREDENTIALS.unpack(raw)
            self.client = (f"uid {uid}", 0)
        self._patience = asyncio.get_running_loop().call_later(FIRST_REQUEST_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._patience.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        asked: object = self.cycle  # None before the first request, though its annotation says otherwise
        if asked is None:
            self.transport.close()
