"""The bare limit of durable intake: frames off the socket, group commit of the raw bytes, a canned answer.

No routing, no repeats, no deliveries, no counters, no checks: what is left when all that makes a gateway is taken away.
"""

import asyncio
import sys
import threading
from collections import deque

import apsw
import uvloop

_ACK = b"\x0bMSH|^~\\&|L|L|S|S|20260101000000||ACK|1|P|2.6\rMSA|%s|%s\r\x1c\r"


class Store:
    """One thread, one table, FULL."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = apsw.Connection(path)
        self._connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=4000")
        self._connection.execute("CREATE TABLE frame (id INTEGER PRIMARY KEY AUTOINCREMENT, raw BLOB)")
        self._loop = loop
        self._queue: deque[tuple[bytes, Listener]] = deque()
        self._wake = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, raw: bytes, listener: "Listener") -> None:
        """Queue a frame."""
        with self._wake:
            self._queue.append((raw, listener))
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queue:
                    self._wake.wait()
                group = [self._queue.popleft() for _ in range(min(len(self._queue), 500))]
            self._connection.execute("BEGIN IMMEDIATE")
            marks = ",".join(["(?)"] * len(group))
            self._connection.execute(f"INSERT INTO frame (raw) VALUES {marks}", [raw for raw, _ in group])
            self._connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_answer, group)


class Listener(asyncio.Protocol):
    """Cuts frames at the end block."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Queue every whole frame."""
        self._buffer += data
        while (end := self._buffer.find(b"\x1c\r")) >= 0:
            frame, self._buffer = self._buffer[1:end], self._buffer[end + 2 :]
            self._store.put(frame, self)


def _answer(group: list[tuple[bytes, Listener]]) -> None:
    for raw, listener in group:
        fields = raw[: raw.index(b"\r")].split(b"|")
        code = b"CA" if len(fields) > 14 and fields[14] == b"AL" else b"AA"
        listener.transport.write(_ACK % (code, fields[9]))


async def main(path: str) -> None:
    """Print the port and serve until killed."""
    loop = asyncio.get_running_loop()
    store = Store(path, loop)
    server = await loop.create_server(lambda: Listener(store), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    sys.setswitchinterval(0.001)
    uvloop.run(main(sys.argv[1]))
