"""A bad network between two ends of a TCP connection, on command.

    client <--> proxy (latency, bandwidth, cut after N bytes, half-open, RST, refuse) <--> server

Commands are JSON lines on standard input or on a control port (`--control HOST:PORT`), each answered with a line:

    {"latency_s": 0.2, "bandwidth": 65536}   settings: of everything that is forwarded from now on; 0 is none
    {"cut_after": 4096, "cut": "rst"}        the next connection ends after N forwarded bytes, by "fin" or "rst"
    {"half_open": true}                      nothing is forwarded any more, nothing is closed; false goes on
    {"refuse": true}                         the port is closed; false opens it again
    {"do": "rst"} or {"do": "fin"}           end every connection now
    {"do": "status"}                         counters only
"""

import argparse
import asyncio
import json
import socket
import struct
import sys
from dataclasses import dataclass

from simulators.arguments import add_listen, address, make_parser
from simulators.lifecycle import announce, stop_event, summarise

CHUNK_BYTES = 16 << 10
QUEUED_CHUNKS_MAX = 64
CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
SETTINGS = frozenset({"latency_s", "bandwidth", "cut_after", "cut", "half_open", "refuse"})


@dataclass
class Weather:
    """What the network is like now."""

    latency_s: float = 0.0
    bandwidth: int = 0  # bytes per second and direction, 0: no limit
    cut_after: int | None = None
    cut: str = "fin"


class Pair:
    """One connection and its other half."""

    def __init__(self, proxy: "Proxy", near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._proxy, self._writers = proxy, (near, far)
        self._bytes_left = proxy.weather.cut_after
        proxy.weather.cut_after = None

    async def run(self, near: asyncio.StreamReader, far: asyncio.StreamReader) -> None:
        """Forward both ways until one side ends."""
        near_writer, far_writer = self._writers
        ways = [asyncio.create_task(way) for way in (self._forward(near, far_writer), self._forward(far, near_writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self.end("fin")

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read now, write when the latency is over; the queue between is bounded."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS_MAX)
        loop = asyncio.get_running_loop()
        writing = asyncio.create_task(self._write_late(queue, writer))
        try:
            while data := await reader.read(CHUNK_BYTES):
                await queue.put((loop.time() + self._proxy.weather.latency_s, data))
            await queue.put((loop.time() + self._proxy.weather.latency_s, b""))
            await writing
        except ConnectionError:
            pass
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _write_late(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await queue.get()
            if due_s > loop.time():
                await asyncio.sleep(due_s - loop.time())
            await self._proxy.flowing.wait()
            if not data:
                return
            if self._bytes_left is not None:
                data = data[: self._bytes_left]
                self._bytes_left -= len(data)
            writer.write(data)
            await writer.drain()
            self._proxy.forwarded += len(data)
            if self._bytes_left == 0:
                self.end(self._proxy.weather.cut)
                return
            if self._proxy.weather.bandwidth:
                await asyncio.sleep(len(data) / self._proxy.weather.bandwidth)

    def end(self, how: str) -> None:
        """Close both halves, with FIN or with RST."""
        for writer in self._writers:
            wire = writer.get_extra_info("socket")
            if how == "rst" and not writer.transport.is_closing():
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """The listener, the pairs, the weather."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.weather = Weather()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.forwarded = self.connections = self.failed = 0
        self._to = to
        self._pairs: dict[asyncio.Task[None], Pair] = {}
        self._server: asyncio.Server | None = None
        self._address = ("127.0.0.1", 0)

    async def open(self, listen: tuple[str, int]) -> int:
        """Listen and return the port."""
        self._server = await asyncio.start_server(self._accept, *listen)
        self._address = self._server.sockets[0].getsockname()[:2]
        return self._address[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:
            self.failed += 1
            writer.close()
            return
        pair, task = Pair(self, writer, far_writer), asyncio.current_task()
        assert task is not None
        self._pairs[task] = pair
        try:
            await pair.run(reader, far_reader)
        finally:
            del self._pairs[task]

    async def command(self, line: bytes) -> dict[str, object]:
        """Obey one command and return the answer."""
        try:
            wanted = json.loads(line)
            unknown = set(wanted) - SETTINGS - {"do"}
        except (ValueError, TypeError) as error:
            return {"ok": False, "error": str(error)}
        if unknown or wanted.get("do") not in (None, "rst", "fin", "status"):
            return {"ok": False, "error": f"unknown: {', '.join(sorted(unknown)) or wanted['do']}"}
        for key in ("latency_s", "bandwidth", "cut_after", "cut"):
            if key in wanted:
                setattr(self.weather, key, wanted[key])
        await self._turn(wanted.get("half_open"), wanted.get("refuse"))
        if wanted.get("do") in ("rst", "fin"):
            self._end_all(wanted["do"])
        return {"ok": True, "open": len(self._pairs), **self.counts()}

    def counts(self) -> dict[str, object]:
        """Return what was counted."""
        return {"connections": self.connections, "forwarded": self.forwarded, "failed": self.failed}

    async def _turn(self, half_open: bool | None, refuse: bool | None) -> None:
        if half_open is not None:
            (self.flowing.clear if half_open else self.flowing.set)()
        if refuse and self._server is not None:
            self._server.close()
            self._server = None
        elif refuse is False and self._server is None:
            await self.open(self._address)

    def _end_all(self, how: str) -> None:
        for pair in list(self._pairs.values()):
            pair.end(how)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        await self._turn(None, refuse=True)
        self._end_all("fin")
        tasks = list(self._pairs)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)


async def _obey(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
    """Take commands from a control connection, or from standard input when there is no writer."""
    while line := await reader.readline():
        answer = json.dumps(await proxy.command(line))
        if writer is None:
            print(answer, flush=True)
        else:
            writer.write(answer.encode() + b"\n")
            await writer.drain()
    if writer is not None:
        writer.close()


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def run(options: argparse.Namespace) -> None:
    """Forward until SIGTERM."""
    stopped, proxy = stop_event(), Proxy(options.to)
    proxy.weather = Weather(latency_s=options.latency, bandwidth=options.bandwidth)
    port = await proxy.open(options.listen)
    if options.control is None:
        control, control_port = asyncio.create_task(_obey(proxy, await _standard_input(), None)), None
    else:
        server = await asyncio.start_server(lambda r, w: _obey(proxy, r, w), *options.control)
        control, control_port = asyncio.create_task(server.serve_forever()), server.sockets[0].getsockname()[1]
    announce(port=port, host=options.listen[0], control=control_port, to="{}:{}".format(*options.to))
    await stopped.wait()
    control.cancel()
    await asyncio.gather(control, return_exceptions=True)
    await proxy.close()
    summarise(**proxy.counts())


def main() -> None:
    """Run the command line."""
    parser = make_parser(
        "fault_proxy",
        "A TCP proxy that misbehaves on command.",
        "--listen 127.0.0.1:2577 --to 127.0.0.1:2576 --control 127.0.0.1:0",
    )
    add_listen(parser)
    parser.add_argument("--to", type=address, required=True, metavar="HOST:PORT")
    parser.add_argument(
        "--control", type=address, metavar="HOST:PORT", help="take commands here, not on standard input"
    )
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--bandwidth", type=int, default=0, metavar="BYTES_PER_SECOND")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
