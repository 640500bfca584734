"""Streams through pyserial's URL handlers (`socket://`, `rfc2217://`): they only block, so a thread reads them."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

import serial

from gateway.driver import LineSettings
from gateway.errors import LinkError
from gateway.net.serial import PARITY
from gateway.net.stream import Inbox

OPEN_TIMEOUT_S = 15.0
WRITE_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0
POLL_S = 0.05  # how long a read gathers bytes: latency, and how soon the thread stops
READ_BYTES = 4096


async def open_url(url: str, line: LineSettings) -> "ThreadedStream":
    """Open a pyserial URL. Raises LinkError."""
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            opened = await asyncio.to_thread(_open, url, line)
    except TimeoutError as error:
        raise LinkError(f"{url}: did not open within {OPEN_TIMEOUT_S:.0f} s") from error
    return ThreadedStream(url, opened)


def _open(url: str, line: LineSettings) -> serial.SerialBase:
    try:
        return serial.serial_for_url(
            url,
            baudrate=line.baud,
            bytesize=line.data_bits,
            parity=PARITY[line.parity],
            stopbits=line.stop_bits,
            timeout=POLL_S,  # no write_timeout: the rfc2217 handler refuses one
        )
    except (OSError, ValueError, NotImplementedError) as error:  # SerialException is an OSError
        raise LinkError(f"{url}: {error}") from error


_V = TypeVar("_V")


class ThreadedStream:
    """One open pyserial URL."""

    def __init__(self, url: str, opened: serial.SerialBase) -> None:
        self.peer = url
        self._port = opened
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"link {url}", daemon=True)
        self._thread.start()

    async def read(self) -> bytes:
        """Wait for bytes. Raises LinkError when the connection was lost."""
        return await self._inbox.take()

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises LinkError."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await asyncio.to_thread(self._port.write, data)
        except TimeoutError as error:
            raise LinkError(f"{self.peer}: took no bytes within {WRITE_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            raise LinkError(f"{self.peer}: {error}") from error

    async def close(self) -> None:
        """Stop the thread and close."""
        self._stopping.set()
        self._inbox.end(None)
        await asyncio.to_thread(self._thread.join, CLOSE_TIMEOUT_S)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._port.close)

    def _run(self) -> None:
        error: LinkError | None = None
        try:
            while not self._stopping.is_set():
                data = self._port.read(READ_BYTES)  # what came within POLL_S
                if data:
                    self._tell(self._inbox.feed, data)
        except (OSError, TypeError, AttributeError) as cause:  # pyserial's own errors for a port that was closed
            error = LinkError(f"{self.peer}: {cause}")
        self._tell(self._inbox.end, error)

    def _tell(self, act: Callable[[_V], None], value: _V) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens any more
            self._loop.call_soon_threadsafe(act, value)
