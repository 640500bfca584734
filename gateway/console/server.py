"""The console's two doors: the TCP port that machines watch, and the unix socket that operators' commands use.

A console port that cannot be opened is an alarm, never a reason to stop: data goes on. It is tried again at each
reload. The control socket lies in the data folder, which this process holds, so one left by a killed agent is removed.
"""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

from gateway.app import App
from gateway.console.control import Reload, control_application
from gateway.console.http_server import HttpServer
from gateway.console.observing import observing_application
from gateway.errors import StoreError
from gateway.values import Address

SOCKET_NAME = "control.sock"
SOCKET_MODE = 0o600
PORT_ALARM = "console-down"

_log = logging.getLogger("gateway.console")


class ConsoleServer:
    """Runs from `start` to `stop` in the agent's loop."""

    def __init__(self, app: App, reload: Reload | None = None) -> None:
        """Serve an App that has started; `reload` reads the configuration files and hands them to the App."""
        self._app = app
        self._reload = reload or _no_reload
        self._path = app.config.gateway.data_dir / SOCKET_NAME
        self._control: HttpServer | None = None
        self._port: HttpServer | None = None
        self._listen: Address | None = None

    async def start(self) -> None:
        """Open both. Raises StoreError when the control socket cannot be made in the data folder."""
        try:
            bound = bind_unix(self._path)
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}") from error
        self._control = HttpServer(control_application(self._app, self.reload), bound)
        await self._control.start()
        await self.listen()

    async def reload(self) -> list[str]:
        """Take the configuration files over, the console's port with them; return what was done, in words.

        Raises ConfigError or StoreError, and then the old configuration stands.
        """
        done = await self._reload()
        await self.listen()
        return done

    async def listen(self) -> None:
        """Serve the port that the configuration now names, where that is not done yet."""
        wanted = self._app.config.console.listen
        if wanted == self._listen and self._port is not None:
            return
        if self._port is not None:
            await self._port.stop()
            self._port = None
        try:
            bound = bind_tcp(wanted)
        except OSError as error:
            self._app.alarms.clear(PORT_ALARM)
            self._app.alarms.put(PORT_ALARM, f"the console cannot listen on {wanted}: {error.strerror or error}")
            return
        self._port = HttpServer(observing_application(self._app), bound)
        await self._port.start()
        self._listen = wanted
        self._app.alarms.clear(PORT_ALARM)
        _log.info("console.listening address=%s", wanted)

    async def stop(self) -> None:
        """Close both."""
        await asyncio.gather(*(server.stop() for server in (self._port, self._control) if server is not None))
        with suppress(FileNotFoundError):
            self._path.unlink()


def bind_unix(path: Path) -> socket.socket:
    """Return a socket bound at a path of any length, mode 0600. Raises OSError."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fchmod(bound.fileno(), SOCKET_MODE)  # before the name exists: nobody else connects even for an instant
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")  # sun_path holds 108 bytes, data folders may be deeper
    except OSError:
        bound.close()
        raise
    finally:
        os.close(folder)
    bound.setblocking(False)
    return bound


def bind_tcp(address: Address) -> socket.socket:
    """Return a socket bound to the first address that a host has. Raises OSError."""
    family, kind, protocol, _, place = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(place)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


async def _no_reload() -> list[str]:
    raise StoreError("this agent has no configuration file to read again")
