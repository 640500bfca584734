"""Serial ports and ptys.

The port's descriptor is watched by the loop itself, so bytes are handed on as they come. The port is locked: a second
opener, in this process or another, is refused and told who holds it. Unplugging ends the Stream with a LinkError.
"""

import asyncio
import contextlib
import fcntl
import os
import termios

import serial

from gateway.driver import LineSettings
from gateway.errors import LinkError
from gateway.net.line_state import read_line_state
from gateway.net.ports import device_of, holder_of
from gateway.net.stream import Inbox
from gateway.status import LineState

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 5.0
READ_BYTES = 65536

PARITY = {
    "none": serial.PARITY_NONE,
    "even": serial.PARITY_EVEN,
    "odd": serial.PARITY_ODD,
    "mark": serial.PARITY_MARK,
    "space": serial.PARITY_SPACE,
}


async def open_serial(port: str, line: LineSettings) -> "SerialStream":
    """Open and lock a serial port. Raises LinkError: missing, in use, not allowed, settings not possible."""
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            opened = await asyncio.to_thread(_open, port, line)
    except TimeoutError as error:
        raise LinkError(f"{port}: did not open within {OPEN_TIMEOUT_S:.0f} s") from error
    return SerialStream(port, opened)


def _open(port: str, line: LineSettings) -> serial.Serial:
    try:
        opened = serial.Serial(
            port,
            baudrate=line.baud,
            bytesize=line.data_bits,
            parity=PARITY[line.parity],
            stopbits=line.stop_bits,
            rtscts=line.flow == "rtscts",
            xonxoff=line.flow == "xonxoff",
            timeout=0,
            exclusive=True,
        )
    except termios.error as error:
        asked = f"{line.baud} baud, {line.data_bits} data bits, parity {line.parity}, {line.stop_bits} stop bits"
        raise LinkError(f"{port}: does not take {asked}: {os.strerror(error.args[0])}") from error
    except (OSError, ValueError) as error:  # SerialException is an OSError
        raise LinkError(f"{port}: {_reason(port, error)}") from error
    with contextlib.suppress(OSError):  # further openers that ask for no lock are refused by the kernel
        fcntl.ioctl(opened.fileno(), termios.TIOCEXCL)
    return opened


def _reason(port: str, error: Exception) -> str:
    text = str(error)
    if "exclusively lock" in text or "Device or resource busy" in text:
        return f"in use by {holder_of(port) or 'another Source of this gateway, or a program that cannot be seen'}"
    if "Could not configure port" in text:  # pyserial's words for what answers no question of termios
        return "is no serial port"
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else text


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class SerialStream:
    """One open serial port."""

    def __init__(self, port: str, opened: serial.Serial) -> None:
        self.peer = port
        self.device = device_of(port)
        self._port = opened
        self._descriptor = opened.fileno()
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._watching = False
        self._watch()

    def line_state(self) -> LineState | None:
        """Return modem lines and error counters, None where the port keeps none."""
        return read_line_state(self._descriptor) if self._port.is_open else None

    async def read(self) -> bytes:
        """Wait for bytes. Raises LinkError when the port was unplugged."""
        data = await self._inbox.take()
        self._watch()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises LinkError when the port does not take them in time."""
        waiting = memoryview(data)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                while waiting:
                    waiting = waiting[await self._write_some(waiting) :]
        except TimeoutError as error:
            raise LinkError(f"{self.peer}: took no bytes within {WRITE_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            raise LinkError(f"{self.peer}: {error.strerror}") from error

    async def close(self) -> None:
        """Unlock and close; what the Device did not take is thrown away."""
        self._unwatch()
        self._inbox.end(None)
        with contextlib.suppress(OSError, TimeoutError, termios.error):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with contextlib.suppress(OSError, termios.error):
            termios.tcflush(self._descriptor, termios.TCOFLUSH)  # else close waits for a Device that is gone
        self._port.close()

    def _watch(self) -> None:
        if not self._watching and self._port.is_open and not self._inbox.full:
            self._loop.add_reader(self._descriptor, self._readable)
            self._watching = True

    def _unwatch(self) -> None:
        if self._watching:
            self._loop.remove_reader(self._descriptor)
            self._watching = False

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error.strerror or "lost")
            return
        if not data:
            self._end("disconnected")
            return
        self._inbox.feed(data)
        if self._inbox.full:
            self._unwatch()

    def _end(self, reason: str) -> None:
        self._unwatch()
        self._inbox.end(LinkError(f"{self.peer}: {reason}"))

    async def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            await self._writable()
            return 0

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._descriptor, _set, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._descriptor)
