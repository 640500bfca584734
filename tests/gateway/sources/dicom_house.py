"""A DICOM Source that runs in the test's own process, with a Spool and a fake intake; and how to talk to it."""

import asyncio
import os
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.config import DicomSource as Settings
from gateway.model import Accepted, Incoming
from gateway.sources.dicom import DicomSource
from gateway.spool import Spool
from gateway.status import LinkState, SourceStatus
from tests.gateway.sources.own_scu import CT_CLASS, associate_rq, command, p_data, read_pdu, read_status

EXPLICIT = "1.2.840.10008.1.2.1"


class FakeIntake:
    """Accepts everything at once, or says and does what a test tells it to."""

    refusing: str | None = None

    def __init__(self) -> None:
        self.inputs: list[Incoming] = []
        self.fails: Exception | None = None

    def accept_blocking(self, incoming: Incoming, sync: Callable[[], None] | None = None) -> Accepted:
        if sync is not None:
            sync()
        if self.fails is not None:
            raise self.fails
        self.inputs.append(incoming)
        return Accepted(message_id=len(self.inputs), repeated=False)


class House:
    """A running Source with its Spool and a fake intake; peers run beside the loop."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool")
        self.spool.open()
        self.intake = FakeIntake()
        self.status = SourceStatus("imaging", "dicom")
        self.port = 0

    async def run(self, *command: object, env: dict[str, str] | None = None) -> tuple[int, str]:
        words = [str(word) for word in command]
        done = await asyncio.to_thread(
            subprocess.run, words, capture_output=True, text=True, timeout=30, env={**os.environ, **(env or {})}
        )
        return done.returncode, done.stdout + done.stderr

    async def echo(self, *options: str) -> int:
        return (await self.run("echoscu", "-to", "5", "-ta", "5", *options, "127.0.0.1", self.port))[0]

    async def storescu(self, *files: Path, options: tuple[str, ...] = ()) -> tuple[int, str]:
        return await self.run("storescu", "-v", "-ta", "10", "-td", "20", *options, "127.0.0.1", self.port, *files)

    def raw(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        sock.settimeout(10)
        return sock

    def incoming(self) -> list[str]:
        return list(self.spool.coming)


@asynccontextmanager
async def running(house: House, conf: Settings) -> AsyncIterator[House]:
    """Run the Source; when it has stopped no thread of it is left."""
    source = DicomSource(conf, house.intake, house.spool, SystemClock(), house.status)
    task = asyncio.create_task(source.run())
    await until(lambda: house.status.state is LinkState.UP or task.done())
    if task.done():
        task.result()
    house.port = source.port
    try:
        yield house
    finally:
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        house.spool.close()
        assert time.monotonic() - began < 9
        await until(lambda: not association_threads())


async def until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110  # threads outside tell nobody
            await asyncio.sleep(0.01)


def association_threads() -> list[threading.Thread]:
    """Return the threads of connections."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("dicom-")]


def associate(house: House, *contexts: tuple[str, str], **more: bytes) -> socket.socket:
    """Open an association, for CT in Explicit VR Little Endian where nothing else is asked for."""
    sock = house.raw()
    sock.sendall(associate_rq(*(contexts or ((CT_CLASS, EXPLICIT),)), **more))
    kind, _ = read_pdu(sock)
    assert kind == 2, f"PDU type {kind}"
    return sock


def store(sock: socket.socket, uid: str, dataset: bytes, *, sop_class: str = CT_CLASS) -> tuple[int, str]:
    """Store a data set in one fragment; return status and Error Comment."""
    sock.sendall(p_data(3, command(uid, sop_class=sop_class)) + p_data(2, dataset))
    return read_status(sock)
