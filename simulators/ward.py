"""Many simulated monitors in one process, each at its own pty, TCP port or UDP port.

A monitor is a machine without wires: bytes and time go in, pieces of bytes come out. This module plugs each one in,
plays its `unplug` steps, and counts what was sent.
"""

import argparse
import asyncio
import contextlib
import os
import pty
import time
import tty
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from simulators.arguments import add_journal, address, make_parser
from simulators.journal import Journal
from simulators.lifecycle import announce, stop_event, summarise
from simulators.script import Script, Step, read_step

TICK_S_MAX = 0.5
READ_BYTES = 4096


class Machine(Protocol):
    """One monitor. `now` is monotonic seconds."""

    script: Script

    def receive(self, data: bytes, now: float) -> None:
        """Take what the host said."""
        ...

    def tick(self, now: float) -> None:
        """Do what is due."""
        ...

    def take_output(self) -> list[bytes]:
        """Hand over what is sent, piece by piece."""
        ...

    def deadline(self, now: float) -> float:
        """Return when to tick."""
        ...


class End(Protocol):
    """Where a monitor is plugged in."""

    @property
    def name(self) -> str:
        """Return what the other side opens."""
        ...

    def send(self, data: bytes) -> bool:
        """Send; False when nobody took all of it."""
        ...

    async def plug(self, heard: Callable[[bytes], None]) -> None:
        """Bring the port; `heard` takes what comes."""
        ...

    def unplug(self) -> None:
        """Take the port away."""
        ...


class PtyEnd:
    """A raw pty under a symbolic link, or without one; what nobody reads is dropped when its buffer is full."""

    def __init__(self, link: Path | None) -> None:
        self._link = link
        self._master = self._slave = -1
        self.name = ""

    async def plug(self, heard: Callable[[bytes], None]) -> None:
        """Make a pty and lead the link to it."""
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.name = os.ttyname(self._slave)
        asyncio.get_running_loop().add_reader(self._master, self._read, heard)
        if self._link is not None:
            fresh = self._link.with_name(f"{self._link.name}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.name)
            fresh.rename(self._link)

    def _read(self, heard: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            heard(os.read(self._master, READ_BYTES))

    def send(self, data: bytes) -> bool:
        """Write what fits."""
        try:
            return os.write(self._master, data) == len(data)
        except OSError:
            return False

    def unplug(self) -> None:
        """Close both sides; the path vanishes."""
        asyncio.get_running_loop().remove_reader(self._master)
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        os.close(self._master)
        os.close(self._slave)


class TcpEnd:
    """A TCP listener for one caller at a time, as a terminal server has it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._server: asyncio.Server | None = None
        self._caller: asyncio.StreamWriter | None = None
        self._heard: Callable[[bytes], None] = lambda data: None

    @property
    def name(self) -> str:
        """Return host:port."""
        return f"{self._address[0]}:{self._address[1]}"

    async def plug(self, heard: Callable[[bytes], None]) -> None:
        """Listen."""
        self._heard = heard
        self._server = await asyncio.start_server(self._serve, *self._address)
        self._address = self._server.sockets[0].getsockname()[:2]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._caller = writer
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                self._heard(data)
        writer.close()
        if self._caller is writer:
            self._caller = None

    def send(self, data: bytes) -> bool:
        """Send to the caller."""
        if self._caller is None or self._caller.is_closing():
            return False
        self._caller.write(data)
        return True

    def unplug(self) -> None:
        """Hang up and stop listening."""
        if self._caller is not None:
            self._caller.transport.abort()
        if self._server is not None:
            self._server.close()


class UdpEnd(asyncio.DatagramProtocol):
    """A UDP port of a monitor: answers go to whom it heard last; `target` is whom it tells without being asked."""

    def __init__(self, host: str, port: int, target: tuple[str, int] | None = None) -> None:
        self._address = (host, port)
        self._peer = target
        self._transport: asyncio.DatagramTransport | None = None
        self._heard: Callable[[bytes], None] = lambda data: None

    @property
    def name(self) -> str:
        """Return host:port."""
        return f"{self._address[0]}:{self._address[1]}"

    async def plug(self, heard: Callable[[bytes], None]) -> None:
        """Bind the port."""
        self._heard = heard
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self._address)
        self._address = self._transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Take a datagram (asyncio.DatagramProtocol)."""
        self._peer = address
        self._heard(data)

    def error_received(self, error: Exception) -> None:
        """Nobody listens over there: UDP does not care (asyncio.DatagramProtocol)."""

    def send(self, data: bytes) -> bool:
        """Send one datagram."""
        if self._transport is None or self._transport.is_closing() or self._peer is None:
            return False
        self._transport.sendto(data, self._peer)
        return True

    def unplug(self) -> None:
        """Close the port."""
        if self._transport is not None:
            self._transport.close()


class Bed:
    """One monitor at its end of the cable."""

    def __init__(
        self, machine: Machine, end: End, journal: Journal | None = None, speed: float = 1.0, *, whole: bool = False
    ) -> None:
        """Take the parts; `speed` is how much faster than life time passes, `whole` puts all bytes into the journal."""
        self.end = end
        self._speed = speed
        self._whole = whole
        self.sent = 0
        self.taken = 0
        self._machine = machine
        self._journal = journal
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Play until cancelled; the port is brought by `plug` before."""
        began = self._now()
        plugged = True
        try:
            while True:
                now = self._now()
                wanted = not self._machine.script.stands("unplug", now - began)
                if wanted and not plugged:
                    await self.end.plug(self._hear)
                elif plugged and not wanted:
                    self.end.unplug()
                plugged = wanted
                self._machine.tick(now)
                self._send(plugged)
                await self._wait(min(self._machine.deadline(now), now + TICK_S_MAX))
        finally:
            if plugged:
                self.end.unplug()

    async def plug(self) -> None:
        """Bring the port for the first time."""
        await self.end.plug(self._hear)

    def _hear(self, data: bytes) -> None:
        self._machine.receive(data, self._now())
        self._wake.set()

    def _send(self, plugged: bool) -> None:
        for piece in self._machine.take_output():
            self.sent += 1
            began_at = time.time()
            was_taken = plugged and self.end.send(piece)
            self.taken += was_taken
            if self._journal is not None and self._journal.kept and was_taken:
                digest, more = sha256(piece).hexdigest(), {"data": piece.hex()} if self._whole else {}
                self._journal.note(
                    ordinal=self.taken, id=self.end.name, sha256=digest, bytes=len(piece), began_at=began_at, **more
                )
                self._journal.flush()

    async def _wait(self, until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - self._now()) / self._speed):
                await self._wake.wait()
        self._wake.clear()

    def _now(self) -> float:
        return time.monotonic() * self._speed


def arguments(module: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return the parser that ward simulators share."""
    parser = make_parser(module, description, example)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pty", type=Path, metavar="LINK", help="ptys under this link, LINK-2, LINK-3 and so on")
    where.add_argument("--tcp", type=address, metavar="HOST:PORT", help="listen; PORT+1 and so on for further ones")
    parser.add_argument("--monitors", type=int, default=1, metavar="N", help="how many monitors (default 1)")
    parser.add_argument("--fault", type=step, action="append", default=[], help="KIND@START[+SECONDS], several times")
    parser.add_argument("--speed", type=float, default=1.0, metavar="FACTOR", help="how much faster than life")
    parser.add_argument("--for", dest="seconds", type=float, default=None, metavar="S", help="stop after S seconds")
    add_journal(parser)
    parser.add_argument("--journal-bytes", action="store_true", help="put the bytes themselves into the journal (hex)")
    return parser


def switched_on(now: float, number: int) -> float:
    """Return when a monitor of a ward was switched on, within the last second: no two keep step with each other."""
    return now - number * 0.618 % 1.0


def local_time() -> int:
    """Return the local time of day as if it were UTC, in seconds since 1970: what a monitor's clock shows."""
    return int(datetime.now().replace(tzinfo=UTC).timestamp())


def step(text: str) -> Step:
    """Read a step of a script for argparse."""
    try:
        return read_step(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def serial_ends(asked: argparse.Namespace) -> list[End]:
    """Return the ends that `--pty` or `--tcp` name, ptys without links by default."""
    numbers = range(asked.monitors)
    if asked.tcp is not None:
        host, port = asked.tcp
        return [TcpEnd(host, port + number if port else 0) for number in numbers]
    if asked.pty is None:
        return [PtyEnd(None) for _ in numbers]
    links = [asked.pty if number == 0 else asked.pty.with_name(f"{asked.pty.name}-{number + 1}") for number in numbers]
    return [PtyEnd(link) for link in links]


async def play(machines: Sequence[Machine], ends: Sequence[End], asked: argparse.Namespace) -> None:
    """Plug all monitors in, announce their ports, play, and say at the end what was sent."""
    journal = Journal(asked.journal)
    whole = asked.journal_bytes
    beds = [Bed(machine, end, journal, asked.speed, whole=whole) for machine, end in zip(machines, ends, strict=True)]
    for bed in beds:
        await bed.plug()
    stopped = stop_event()
    announce(ports=[bed.end.name for bed in beds])
    tasks = [asyncio.create_task(bed.run(), name=f"bed {number}") for number, bed in enumerate(beds)]
    ending = asyncio.create_task(stopped.wait())
    await asyncio.wait([*tasks, ending], timeout=asked.seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, ending):
        task.cancel()
    await asyncio.gather(*tasks, ending, return_exceptions=True)
    journal.close()
    summarise(sent=sum(bed.sent for bed in beds), taken=sum(bed.taken for bed in beds))
