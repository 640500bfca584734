import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from gateway.clock import SystemClock
from gateway.config import DeviceSource
from gateway.driver import About, LineSession, LineSettings, Result
from gateway.errors import LinkError
from gateway.model import Accepted, Incoming
from gateway.sources.link import DeviceLink
from gateway.status import SourceStatus


class Polite(LineSession):
    """Says goodbye."""

    said = b""

    def part(self) -> None:
        self.said = b"bye"

    def take_output(self) -> bytes:
        taken, self.said = self.said, b""
        return taken


@dataclass(frozen=True, kw_only=True)
class PoliteDriver:
    about: ClassVar[About] = About(name="polite", summary="-", models=("-",), source="-")

    def open(self) -> Polite:
        return Polite(lambda line: (Result(observations=()),))


class Line:
    """A Stream that is silent; a broken one refuses what is written."""

    def __init__(self, broken: bool = False) -> None:
        self.peer = "memory"
        self.broken = broken
        self.log: list[str] = []

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        if self.broken:
            raise LinkError("gone")
        self.log.append(data.decode("ascii"))

    async def close(self) -> None:
        self.log.append("closed")


class NoIntake:
    async def accept(self, incoming: Incoming) -> Accepted:
        return Accepted(message_id=1, repeated=False)


async def stopped(line: Line) -> list[str]:
    opened = asyncio.Event()

    async def open_line(port: str, settings: LineSettings) -> Line:
        opened.set()
        return line

    status = SourceStatus(name="bed-1", type="device")
    settings = DeviceSource(name="bed-1", driver="polite", port="memory")
    link = DeviceLink(settings, PoliteDriver(), NoIntake(), SystemClock(), status, opener=open_line)
    task = asyncio.create_task(link.run())
    await asyncio.wait_for(opened.wait(), 5)
    while not status.connections:  # noqa: ASYNC110 - plain state, one turn of the loop away
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return line.log


async def test_a_session_that_takes_leave_is_heard_before_the_line_is_closed() -> None:
    assert await stopped(Line()) == ["bye", "closed"]


async def test_a_line_that_is_gone_is_closed_all_the_same() -> None:
    assert await stopped(Line(broken=True)) == ["closed"]
