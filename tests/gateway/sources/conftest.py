"""What the tests of the MLLP listener share: a house with a fake intake, and peers on real sockets."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvloop

from gateway.clock import SystemClock
from gateway.config import MllpSource
from gateway.errors import LinkError, StoreError
from gateway.formats.acknowledgement import Acknowledgement, read_acknowledgement
from gateway.model import Accepted, Incoming
from gateway.protocols.mllp import Decoder, Frame
from gateway.sources.mllp import MllpListener
from gateway.status import SourceStatus
from gateway.typed import Address

WAIT_S = 10.0
QUIET_S = 0.05

Settle = Callable[[Accepted | StoreError], None]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """The listener is tested on both loops; what else lives here on asyncio's."""
    if item.path.name.startswith("test_mllp"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


class FakeIntake:
    """Keeps in memory; settles at once, or when told while `holding`."""

    def __init__(self) -> None:
        self.kept: list[Incoming] = []
        self.waiting: list[Settle] = []
        self.holding = False
        self.failing = False
        self.refusing: str | None = None
        self.came = asyncio.Event()

    def submit(self, incoming: Incoming, settled: Settle) -> None:
        self.kept.append(incoming)
        self.came.set()
        self.waiting.append(settled)
        if not self.holding:
            self.settle()

    def settle(self) -> None:
        waiting, self.waiting = self.waiting, []
        for settled in waiting:
            settled(StoreError("disk full") if self.failing else Accepted(message_id=len(self.kept), repeated=False))

    async def have(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.kept) < count:
                self.came.clear()
                await self.came.wait()


class Peer:
    """A sender: raw bytes out, answers in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._decoder = Decoder(frame_bytes_max=1 << 20)
        self._frames: list[bytes] = []

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            async with asyncio.timeout(WAIT_S):
                await self.writer.drain()

    async def raw_answer(self, timeout_s: float = WAIT_S) -> bytes:
        async with asyncio.timeout(timeout_s):
            while not self._frames:
                data = await self.reader.read(65536)
                if not data:
                    raise ConnectionError("closed")
                self._frames += [
                    event.content for event in self._decoder.receive(data, 0.0) if isinstance(event, Frame)
                ]
        return self._frames.pop(0)

    async def answer(self) -> Acknowledgement:
        return read_acknowledgement(await self.raw_answer())

    async def codes(self, count: int) -> list[tuple[str, bytes]]:
        answers = [await self.answer() for _ in range(count)]
        return [(one.code.value, one.control_id) for one in answers]

    def reset(self) -> None:
        """Close so that the listener sees a reset, not an end."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def is_quiet(self) -> bool:
        try:
            await self.raw_answer(QUIET_S)
        except TimeoutError:
            return True
        return False

    async def is_closed(self) -> bool:
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


class House:
    """A listener that runs, its intake and its peers."""

    def __init__(self, listener: MllpListener, intake: FakeIntake, running: asyncio.Task[None]) -> None:
        self.listener, self.intake, self.status = listener, intake, listener.status
        self.running = running
        self.peers: list[Peer] = []

    async def connect(self, host: str = "127.0.0.1", **options: Any) -> Peer:
        assert self.listener.port is not None
        async with asyncio.timeout(WAIT_S):
            peer = Peer(
                *await asyncio.open_connection("127.0.0.1", self.listener.port, local_addr=(host, 0), **options)
            )
        self.peers.append(peer)
        return peer

    @staticmethod
    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running_house(**options: Any) -> AsyncIterator[House]:
    settings = MllpSource(**({"name": "emr", "listen": Address("127.0.0.1", 0)} | options))
    intake = FakeIntake()
    listener = MllpListener(settings, intake, SystemClock(), SourceStatus("emr", "mllp"))
    task = asyncio.create_task(listener.run())
    listening = asyncio.create_task(listener.listening.wait())
    try:
        await asyncio.wait({task, listening}, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        home = House(listener, intake, task)
        try:
            yield home
        finally:
            for peer in home.peers:
                peer.writer.transport.abort()
            intake.holding = False
            intake.settle()
    finally:
        listening.cancel()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, LinkError):
            await task


@pytest.fixture
def house() -> Callable[..., AbstractAsyncContextManager[House]]:
    """Return what runs a listener with the given settings."""
    return running_house
