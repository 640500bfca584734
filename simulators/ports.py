"""Where a simulated Device is plugged in: a pty that looks like a serial port, or TCP.

A pty is raw and has nobody on it until the other side opens it; like a cable, it drops what nobody takes. `unplug`
takes it away, `plug` brings another one under the same link.
"""

import contextlib
import os
import pty
import select
import socket
import tty
from pathlib import Path
from typing import Protocol

POLL_S = 0.02
CALL_TIMEOUT_S = 10.0


class Port(Protocol):
    """One side of a line."""

    @property
    def name(self) -> str:
        """Return what the other side opens."""
        ...

    def wait(self, seconds: float | None) -> bool:
        """Wait until somebody listens; False when nobody came in time."""
        ...

    def send(self, data: bytes) -> bool:
        """Send; False when nobody took it."""
        ...

    def receive(self, seconds: float) -> bytes:
        """Wait for bytes up to the time given; b"" for none."""
        ...

    def unplug(self) -> None:
        """Take the port away."""
        ...

    def plug(self) -> None:
        """Bring it back."""
        ...


class PtyPort:
    """A pty; `link` is a symbolic link that always leads to the present one."""

    def __init__(self, link: Path | None) -> None:
        self._link = link
        self._master = -1
        self._path = ""
        self.plug()

    @property
    def name(self) -> str:
        """Return the path of the pty."""
        return self._path

    def plug(self) -> None:
        """Make a pty and lead the link to it."""
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self._path = os.ttyname(slave)
        os.close(slave)  # from now on the master tells by HUP whether anybody has opened it
        os.set_blocking(self._master, False)
        if self._link is not None:
            fresh = self._link.with_name(f"{self._link.name}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self._path)
            fresh.rename(self._link)

    def unplug(self) -> None:
        """Close the pty; its path vanishes."""
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        os.close(self._master)

    def wait(self, seconds: float | None) -> bool:
        """Wait until the other side has opened the pty."""
        poll = select.poll()
        poll.register(self._master, select.POLLHUP)
        waited = 0.0
        while any(event & select.POLLHUP for _, event in poll.poll(0)):
            if seconds is not None and waited >= seconds:
                return False
            select.select([], [], [], POLL_S)
            waited += POLL_S
        return True

    def send(self, data: bytes) -> bool:
        """Write what fits; a line has no back pressure."""
        if not self.wait(0):
            return False
        try:
            return os.write(self._master, data) == len(data)
        except (BlockingIOError, OSError):
            return False

    def receive(self, seconds: float) -> bytes:
        """Read what the other side said."""
        if not select.select([self._master], [], [], seconds)[0]:
            return b""
        try:
            return os.read(self._master, 4096)
        except OSError:
            return b""


class TcpPort:
    """A TCP listener with one caller, or (`call`) a Device that calls the other side."""

    def __init__(self, host: str, port: int, *, call: bool = False) -> None:
        self._address = (host, port)
        self._call = call
        self._listener: socket.socket | None = None
        self._peer: socket.socket | None = None
        self.plug()

    @property
    def name(self) -> str:
        """Return host:port."""
        return f"{self._address[0]}:{self._address[1]}"

    def plug(self) -> None:
        """Listen; a Device that calls does so in `wait`."""
        if not self._call:
            self._listener = socket.create_server(self._address)
            self._address = self._listener.getsockname()[:2]

    def unplug(self) -> None:
        """Hang up and stop listening."""
        for held in (self._peer, self._listener):
            if held is not None:
                held.close()
        self._peer = self._listener = None

    def wait(self, seconds: float | None) -> bool:
        """Wait for a caller, or call."""
        if self._peer is not None:
            return True
        try:
            if self._listener is None:
                self._peer = socket.create_connection(self._address, timeout=CALL_TIMEOUT_S)
            else:
                self._listener.settimeout(seconds)
                self._peer = self._listener.accept()[0]
        except OSError:
            return False
        self._peer.settimeout(CALL_TIMEOUT_S)
        return True

    def send(self, data: bytes) -> bool:
        """Send to the caller; without one nothing is sent."""
        if self._peer is None:
            return False
        try:
            self._peer.sendall(data)
        except OSError:
            self._peer.close()
            self._peer = None
            return False
        return True

    def receive(self, seconds: float) -> bytes:
        """Read what the caller said."""
        if self._peer is None or not select.select([self._peer], [], [], seconds)[0]:
            return b""
        with contextlib.suppress(OSError):
            return self._peer.recv(4096)
        return b""
