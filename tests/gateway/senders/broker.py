"""A real mosquitto on loopback, and a subscriber to it that is not ours."""

import asyncio
import contextlib
import queue
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

WAIT_S = 10.0


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """mosquitto with the given lines of configuration; it may be killed and started again on its port."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.port = free_port()
        self._file = folder / f"mosquitto-{self.port}.conf"
        listener = [f"listener {self.port} 127.0.0.1", "user root", "log_type all", "log_dest stderr"]
        self._file.write_text("\n".join([*listener, *(lines or ("allow_anonymous true",))]) + "\n")
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.log: list[str] = []
        self._logged = asyncio.Event()

    async def start(self) -> None:
        since = len(self.log)
        self._process = await asyncio.create_subprocess_exec(
            "mosquitto", "-c", str(self._file), stderr=asyncio.subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read())
        await self.until_logged(" running", since)

    async def kill(self) -> None:
        if self._process is not None and self._reading is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            await self._reading
            self._process = None

    async def until_logged(self, text: str, since: int = 0) -> None:
        async with asyncio.timeout(WAIT_S):
            while not any(text in line for line in self.log[since:]):
                assert self._reading is not None
                assert not self._reading.done(), self.log
                self._logged.clear()
                await self._logged.wait()

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self.log.append(line.decode())
            self._logged.set()
        self._logged.set()


@contextlib.asynccontextmanager
async def running(folder: Path, *lines: str) -> AsyncIterator[Broker]:
    broker = Broker(folder, *lines)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.kill()


class Subscriber:
    """What one paho client gets, in order."""

    def __init__(self) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()

    async def next(self) -> paho.MQTTMessage:
        return await asyncio.to_thread(self.messages.get, True, WAIT_S)

    async def take(self, count: int) -> list[paho.MQTTMessage]:
        return [await self.next() for _ in range(count)]

    def so_far(self) -> Iterator[paho.MQTTMessage]:
        while not self.messages.empty():
            yield self.messages.get()


@contextlib.asynccontextmanager
async def subscribed(port: int, topic: str = "#", *, qos: int = 1) -> AsyncIterator[Subscriber]:
    subscriber, ready = Subscriber(), asyncio.Event()
    loop = asyncio.get_running_loop()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

    def on_connect(client: paho.Client, *told: Any) -> None:
        client.subscribe(topic, qos)

    def on_subscribe(*told: Any) -> None:
        loop.call_soon_threadsafe(ready.set)

    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = lambda client, userdata, message: subscriber.messages.put(message)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        async with asyncio.timeout(WAIT_S):
            await ready.wait()
        yield subscriber
    finally:
        client.disconnect()
        await asyncio.to_thread(client.loop_stop)
