"""An MLLP receiver that answers as told: written apart from gateway/, so that no mistake cancels itself out."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

Act = Callable[["ScriptedReceiver", bytes, asyncio.StreamWriter], Awaitable[None]]


def control_id(message: bytes) -> bytes:
    return message.split(b"\r", 1)[0].split(b"|")[9]


def acknowledgement(code: str, answered: bytes, *, error: str = "", end: str = "\r") -> bytes:
    segments = ["MSH|^~\\&|EHR|GENHOSP|WARDGW|GENHOSP|20260115093031.310+0000||ACK^R01^ACK|EHR-1|P|2.6"]
    segments.append(f"MSA|{code}|{answered.decode()}")
    if error:
        segments.append(f"ERR||OBX^4^3|{error}^Patient Doe is locked^HL70357|E||||Doe")
    return (end.join(segments) + end).encode()


def framed(content: bytes) -> bytes:
    return b"\x0b" + content + b"\x1c\r"


def answer(code: str, *, error: str = "", end: str = "\r", before: bytes = b"", after: bytes = b"") -> Act:
    async def act(receiver: "ScriptedReceiver", message: bytes, writer: asyncio.StreamWriter) -> None:
        content = acknowledgement(code, control_id(message), error=error, end=end)
        writer.write(before + framed(content) + after)

    return act


def say(data: bytes) -> Act:
    async def act(receiver: "ScriptedReceiver", message: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return act


def then_close(act: Act) -> Act:
    async def both(receiver: "ScriptedReceiver", message: bytes, writer: asyncio.StreamWriter) -> None:
        await act(receiver, message, writer)
        writer.close()

    return both


async def nothing(receiver: "ScriptedReceiver", message: bytes, writer: asyncio.StreamWriter) -> None:
    return


class ScriptedReceiver:
    """Messages received in order, each answered by the next act of the script, then by AA for ever."""

    def __init__(self, *script: Act) -> None:
        self.script = list(script)
        self.messages: list[bytes] = []
        self.connections = 0
        self.closed = 0
        self.changed = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def serving(cls, *script: Act, tls: ssl.SSLContext | None = None):  # type: ignore[no-untyped-def]
        receiver: Self = cls(*script)
        server = await asyncio.start_server(receiver._converse, "127.0.0.1", 0, ssl=tls)
        receiver.port = server.sockets[0].getsockname()[1]
        try:
            yield receiver
        finally:
            server.close()
            for writer in receiver.writers:
                writer.transport.abort()
            await receiver._until(lambda: receiver.closed >= receiver.connections)

    async def until_closed(self, count: int) -> None:
        await self._until(lambda: self.closed >= count)

    async def until_connected(self, count: int) -> None:
        await self._until(lambda: self.connections >= count)

    async def until_received(self, count: int) -> None:
        await self._until(lambda: len(self.messages) >= count)

    async def _until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not true():
                self.changed.clear()
                await self.changed.wait()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        self.changed.set()
        try:
            while True:
                frame = await reader.readuntil(b"\x1c\r")
                assert frame.startswith(b"\x0b")
                message = frame[1:-2]
                self.messages.append(message)
                self.changed.set()
                act = self.script.pop(0) if self.script else answer("AA")
                await act(self, message, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.closed += 1
            self.changed.set()
