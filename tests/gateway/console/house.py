"""A whole agent in a thread of its own, with a scripted MLLP peer: what console and command tests talk to."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from gateway.app import App
from gateway.clock import SystemClock
from gateway.configfile import load
from gateway.console.server import SOCKET_NAME, ConsoleServer
from gateway.formats.hl7_digest import digest_of
from gateway.model import Accepted, Incoming, Kind
from gateway.store.reading import read_deliveries

WAIT_S = 10.0

CONFIG = """
[gateway]
name = "house"
data_dir = "{data}"
[retention]
reserve = "1 MiB"
stop_intake_below = "1 MiB"
[console]
listen = "127.0.0.1:{console}"
[[source]]
name = "emr"
type = "mllp"
listen = "127.0.0.1:{mllp}"
[[destination]]
name = "ris"
type = "mllp"
host = "127.0.0.1"
port = {peer}
[[destination]]
name = "pacs"
type = "dicom"
host = "127.0.0.1"
port = 1
ae_title = "PACS"
enabled = false
[[route]]
from = ["emr"]
to = ["ris"]
"""


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def hl7(number: int) -> bytes:
    """Return an HL7 message with MSH-10 `M<number>`."""
    return f"MSH|^~\\&|A|B|C|D|20260101||ADT^A01|M{number}|P|2.5\rPID|1||4711^^^H\r".encode()


def incoming(number: int) -> Incoming:
    """Return that message as the Source would bring it."""
    raw = hl7(number)
    return Incoming(
        source="emr",
        kind=Kind.HL7,
        received_at=datetime.now(UTC),
        size=len(raw),
        digest=digest_of(raw),
        identifier=f"M{number}",
        raw=raw,
        terms=("4711",),
    )


def eventually(condition: Callable[[], Any]) -> Any:
    """Return the first true value of a condition within ten seconds."""
    until = time.monotonic() + WAIT_S
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, "the condition did not come true"
        pause.wait(0.01)


class House:
    """One Source `emr`, one Destination `ris` at the scripted peer, one disabled Destination `pacs`."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        self.data = data or folder / "data"
        self.config = folder / "gateway.toml"
        self.console_port = free_port()
        self.mllp_port = free_port()
        self.answer = "AA"
        self._folder = folder
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="house")

    def __enter__(self) -> "House":
        self._thread.start()
        assert self._ready.wait(WAIT_S)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the agent's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT_S)

    def keep(self, *numbers: int) -> list[Accepted]:
        """Take messages in through the door."""

        async def accept() -> list[Accepted]:
            return [await self.app.intake.accept(incoming(number)) for number in numbers]

        accepted: list[Accepted] = self.do(accept())
        return accepted

    def park(self, *numbers: int) -> list[int]:
        """Take messages in and have the peer refuse them; return their Deliveries."""
        self.answer = "AE"
        ids = [accepted.message_id for accepted in self.keep(*numbers)]
        eventually(lambda: all(self.states().get(number) == "parked" for number in ids))
        self.answer = "AA"
        return ids  # one Delivery each, and nothing else was kept before

    def states(self) -> dict[int, str]:
        """Return where every Delivery stands."""
        readers = self.app.store.readers
        found = read_deliveries(readers.connection, readers.epoch, limit=1000)
        return {delivery.id: delivery.state.name.lower() for delivery in found}

    def audit(self) -> list[tuple[str, str, str]]:
        """Return who did what, in order."""
        rows: list[Any] = self.app.store.readers.connection.execute("SELECT who, act, detail FROM audit").fetchall()
        return rows

    def alarms(self) -> set[str]:
        """Return the keys of what stands."""
        return {alarm.key for alarm in self.app.alarms.standing()}

    def get(self, path: str) -> httpx.Response:
        """Ask the console's port."""
        return httpx.get(f"http://127.0.0.1:{self.console_port}{path}", timeout=WAIT_S, trust_env=False)

    def control(self, method: str, path: str, content: Any = None) -> httpx.Response:
        """Ask the control socket."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.data / SOCKET_NAME))) as client:
            body = content if isinstance(content, bytes) else None
            table = None if isinstance(content, bytes) else content
            return client.request(method, f"http://agent{path}", content=body, json=table, timeout=WAIT_S)

    def _main(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        peer = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = peer.sockets[0].getsockname()[1]
        text = CONFIG.format(data=self.data, console=self.console_port, mllp=self.mllp_port, peer=port)
        self.config.write_text(text)
        self.app = App(load(self.config).required(), SystemClock())
        try:
            await self.app.start()
            self.console = ConsoleServer(self.app, self._reload)
            await self.console.start()
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._ready.set()
        await self._stop.wait()
        await self.console.stop()
        await self.app.stop()
        peer.close()

    async def _reload(self) -> list[str]:
        return await self.app.reload((await asyncio.to_thread(load, self.config)).required())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while frame := await reader.readuntil(b"\x1c\r"):
                control_id = frame.split(b"|")[9]
                answer = b"\x0bMSH|^~\\&|C|D|A|B|20260101||ACK|1|P|2.5\rMSA|%b|%b\r\x1c\r"
                writer.write(answer % (self.answer.encode(), control_id))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
