"""The wire below a requested association: an asyncio transport that reads, and a way out for whole files.

Bytes go from the socket into the buffers that the upper layer names. What goes out plain is written to the socket
itself, by the loop where it fits at once and by the association's one thread where it does not, so that neither a slow
peer nor a slow disk stops the loop; over TLS the transport encrypts. While a response is awaited, the file that goes
next is opened and its beginning read (`look_ahead`), so that it goes out at once. Every write that makes no progress
for `stall_s` fails. TCP_QUICKACK is armed before anything is awaited and again at each read that brings only a part:
the kernel forgets it, and a peer that writes header and payload apart would wait 40 ms for us. What we write at once
acknowledges by itself.
"""

import asyncio
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar, cast

from gateway.errors import LinkError
from gateway.net.dicom_file import BegunFile, FileOut, behind, room_for_file, views
from gateway.net.keepalive import keep_alive

LIMIT_BYTES = 1 << 20  # of what a TLS transport holds before it makes us wait

_T = TypeVar("_T")

# Ask for immediate acknowledgements: arguments of setsockopt, around every read, because the kernel forgets it.
QUICKLY = (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class Wire(asyncio.BufferedProtocol):
    """One connection; `buffer`, `received` and `lost` are the association's, on the loop.

    `received` tells whether more is awaited before we write again.
    """

    def __init__(
        self,
        buffer: Callable[[], memoryview],
        received: Callable[[int], bool],
        lost: Callable[[str], None],
        *,
        stall_s: float,
        name: str,
    ) -> None:
        self._buffer = buffer
        self._received = received
        self._lost = lost
        self._stall_s = stall_s
        self._socket: socket.socket | None = None
        self._transport: asyncio.Transport | None = None
        self._is_tls = False
        self._room = asyncio.Event()
        self._room.set()
        self._writing = asyncio.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._chunk: bytearray | None = None
        self._ahead: tuple[FileOut, Future[BegunFile]] | None = None
        self.pace: Callable[[int], float] | None = None  # told of so many bytes of a file, says how long to wait

    async def connect(self, host: str, port: int, tls: ssl.SSLContext | None, server_name: str | None) -> None:
        """Connect, and shake hands where it is TLS. Raises OSError."""
        loop = asyncio.get_running_loop()
        sock = await _connect(host, port)
        try:
            keep_alive(sock)
            sock.setsockopt(*QUICKLY)
            self._is_tls = tls is not None
            self._socket = sock
            await loop.create_connection(
                lambda: self, sock=sock, ssl=tls, server_hostname=(server_name or host) if tls else None
            )
        except BaseException:
            self._socket = None
            sock.close()
            raise

    async def write(self, parts: list[bytes]) -> None:
        """Write all of it. Raises LinkError when the peer has gone or takes nothing for `stall_s`."""
        async with self._writing:
            await self._write(parts)
        self._acknowledge_quickly()

    async def write_file(self, head: list[bytes], file: FileOut) -> None:
        """Write PDUs, then a data set out of a file.

        Raises OSError before anything is written when the file cannot be opened, LinkError as `write` and when the file
        cannot be read to its end.
        """
        async with self._writing:
            ahead = self._take_ahead(file)
            if self._is_tls:
                await self._encrypt_file(head, await self._begun(self._executor.submit(self._begin_file, file)))
            elif ahead is None:
                await self._in_thread(self._send_file, head, file)
            else:
                await self._send_begun(head, ahead.result() if ahead.done() else await self._begun(ahead))
        self._acknowledge_quickly()

    def look_ahead(self, file: FileOut) -> None:
        """Open what will be written next and read its beginning, in the thread; what was written before is sent."""
        if not self._is_tls and self.pace is None:
            self._drop_ahead()
            with suppress(RuntimeError):  # closed
                self._ahead = file, self._executor.submit(self._begin_file, file)

    def pause(self, paused: bool) -> None:
        """Read nothing more for now, or go on."""
        if self._transport is not None and not self._transport.is_closing():
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    async def close(self) -> None:
        """End the connection and the thread; what is written is sent."""
        if self._transport is not None:
            self._transport.close()
        if not self._is_tls:
            self.cut()
        self._drop_ahead()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def cut(self) -> None:
        """End the connection at once: whoever writes sees it closed."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._transport is not None and self._is_tls:
            self._transport.abort()

    # --- asyncio's protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._transport.set_write_buffer_limits(LIMIT_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        return self._buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on that bytes came."""
        if self._received(nbytes):
            self._acknowledge_quickly()

    def pause_writing(self) -> None:
        """Let writers wait."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the connection ended."""
        self._room.set()
        reason = exc.strerror if isinstance(exc, OSError) else None
        self._lost(reason or "the peer closed the connection")

    # --- writing ---

    def _acknowledge_quickly(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.setsockopt(*QUICKLY)

    async def _write(self, parts: list[bytes]) -> None:
        if self._socket is None or self._transport is None or self._transport.is_closing():
            raise LinkError("not connected")
        data = b"".join(parts)
        if self._is_tls:
            self._transport.write(data)
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._room.wait()
            except TimeoutError:
                raise LinkError(f"the peer took nothing for {self._stall_s:g} s") from None
            return
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise LinkError(f"sending: {error.strerror or error}") from error
        if sent < len(data):
            await self._in_thread(self._send_all, [memoryview(data)[sent:]])

    async def _encrypt_file(self, head: list[bytes], begun: BegunFile) -> None:
        try:
            some: list[memoryview] | None = [*views(head), *begun.first]
            while some is not None:
                await self._write([bytes(part) for part in some])
                if self.pace is not None:
                    await asyncio.sleep(self.pace(sum(map(len, some))))
                some = await self._in_thread(_next, begun.more)
        finally:
            begun.close()

    async def _send_begun(self, head: list[bytes], begun: BegunFile) -> None:
        """Send what goes at once, and the rest in the thread."""
        try:
            left = self._send_some([*views(head), *begun.first])
            if left or not begun.complete:
                await self._in_thread(self._send_rest, left, begun.more)
        finally:
            begun.close()

    async def _begun(self, beginning: Future[BegunFile]) -> BegunFile:
        try:
            return await self._awaited(asyncio.wrap_future(beginning))
        except asyncio.CancelledError:
            beginning.add_done_callback(_close_begun)
            raise

    async def _in_thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run in the thread; when cancelled, cut the connection first so that the thread ends soon."""
        return await self._awaited(asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments))

    async def _awaited(self, running: asyncio.Future[_T]) -> _T:
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.cut()
            await asyncio.wait({running}, timeout=self._stall_s)
            if running.done() and not running.cancelled():
                running.exception()
            raise

    def _send_file(self, head: list[bytes], file: FileOut) -> None:
        begun = self._begin_file(file)
        try:
            self._send_rest([*views(head), *begun.first], begun.more)
        finally:
            begun.close()

    def _send_rest(self, parts: list[memoryview], more: Iterator[list[memoryview]]) -> None:
        while True:
            self._send_all(parts)
            if self.pace is not None:
                self._rest(self.pace(sum(map(len, parts))))
            following = next(more, None)
            if following is None:
                return
            parts = following

    def _begin_file(self, file: FileOut) -> BegunFile:
        self._chunk = self._chunk or room_for_file()
        return BegunFile(file, self._chunk)

    def _take_ahead(self, file: FileOut) -> Future[BegunFile] | None:
        """Return what was begun of this file, if it was the one looked ahead to."""
        if self._ahead is None or self._ahead[0] != file:
            self._drop_ahead()
            return None
        (_, begun), self._ahead = self._ahead, None
        return begun

    def _drop_ahead(self) -> None:
        if self._ahead is not None:
            (_, begun), self._ahead = self._ahead, None
            begun.add_done_callback(_close_begun)

    def _rest(self, seconds: float) -> None:
        """Wait in the thread; an end of the connection ends it."""
        if seconds > 0 and self._socket is not None:
            poll = select.poll()
            with suppress(ValueError):
                poll.register(self._socket, 0)
                poll.poll(seconds * 1000)

    def _send_some(self, parts: list[memoryview]) -> list[memoryview]:
        """Send what the socket takes now; return what is left. Raises LinkError."""
        if self._socket is None or self._transport is None or self._transport.is_closing():
            raise LinkError("not connected")
        try:
            return behind(parts, self._socket.sendmsg(parts))
        except BlockingIOError:
            return parts
        except OSError as error:
            raise LinkError(f"sending: {error.strerror or error}") from error

    def _send_all(self, parts: list[memoryview]) -> None:
        """Send everything, waiting for the peer where it must; in the thread. Raises LinkError."""
        assert self._socket is not None
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLOUT)
            while parts:
                try:
                    sent = self._socket.sendmsg(parts)
                except BlockingIOError:
                    if not poll.poll(self._stall_s * 1000):
                        raise LinkError(f"the peer took nothing for {self._stall_s:g} s") from None
                    continue
                parts = behind(parts, sent)
        except OSError as error:
            raise LinkError(f"sending: {error.strerror or error}") from error
        except ValueError as error:  # the loop has closed the socket: it has no descriptor any more
            raise LinkError("the connection is closed") from error


def _close_begun(begun: Future[BegunFile]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        begun.result().close()


def _next(parts: Iterator[list[memoryview]]) -> list[memoryview] | None:
    return next(parts, None)


async def _connect(host: str, port: int) -> socket.socket:
    """Return a connected socket that does not block; addresses are tried in turn. Raises OSError."""
    loop = asyncio.get_running_loop()
    error: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as failure:
            sock.close()
            error = failure
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise error
