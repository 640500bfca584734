import asyncio
import os
import pty
import queue
import socket
import threading
import tty
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from serial import serial_for_url
from serial.rfc2217 import PortManager

from gateway.driver import LineSettings
from gateway.errors import LinkError
from gateway.net import udp
from gateway.net.opening import open_stream
from gateway.net.stream import INBOX_BYTES_MAX, Inbox, Stream
from gateway.net.tcp import CalledStream
from gateway.net.udp import UdpStream

LINE = LineSettings()
TIMEOUT_S = 5.0


async def read_exactly(stream: Stream, size: int) -> bytes:
    data = b""
    async with asyncio.timeout(TIMEOUT_S):
        while len(data) < size:
            piece = await stream.read()
            assert piece
            data += piece
    return data


@pytest.fixture
def plugged() -> tuple[int, str]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    path = os.ttyname(slave)
    os.close(slave)
    return master, path


async def test_a_pty_is_read_and_written(plugged: tuple[int, str]) -> None:
    master, path = plugged
    stream = await open_stream(path, LINE)
    os.write(master, b"hello")

    assert await read_exactly(stream, 5) == b"hello"
    await stream.write(b"answer")
    assert os.read(master, 100) == b"answer"
    await stream.close()
    os.close(master)


@pytest.mark.parametrize(
    "line",
    [
        LineSettings(baud=115200, parity="even", stop_bits=2),
        LineSettings(data_bits=7, parity="odd"),
        LineSettings(flow="xonxoff"),
    ],
)
async def test_line_settings_are_taken_by_a_pty(plugged: tuple[int, str], line: LineSettings) -> None:
    master, path = plugged
    stream = await open_stream(path, line)
    os.write(master, b"x")

    assert await read_exactly(stream, 1) == b"x"
    await stream.close()
    os.close(master)


async def test_settings_that_a_port_does_not_take_are_told_in_words(plugged: tuple[int, str]) -> None:
    master, path = plugged
    even = LineSettings(baud=19200, parity="even")
    await (await open_stream(path, even)).close()

    with pytest.raises(LinkError, match="does not take 19200 baud, 8 data bits, parity even, 1 stop bits: Invalid"):
        await open_stream(path, even)  # a pty has no parity: it takes a change of something else along with it
    os.close(master)


async def test_what_is_no_serial_port_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "ttyUSB0"
    file.write_bytes(b"")

    with pytest.raises(LinkError, match="is no serial port"):
        await open_stream(str(file), LINE)


async def test_a_second_opener_is_refused_and_told_why(plugged: tuple[int, str]) -> None:
    master, path = plugged
    stream = await open_stream(path, LINE)

    with pytest.raises(LinkError, match="in use"):
        await open_stream(path, LINE)
    await stream.close()
    again = await open_stream(path, LINE)
    await again.close()
    os.close(master)


async def test_unplugging_is_a_link_error(plugged: tuple[int, str]) -> None:
    master, path = plugged
    stream = await open_stream(path, LINE)
    os.close(master)

    with pytest.raises(LinkError, match=path):
        async with asyncio.timeout(TIMEOUT_S):
            await stream.read()
    await stream.close()


async def test_a_cancelled_read_loses_nothing(plugged: tuple[int, str]) -> None:
    master, path = plugged
    stream = await open_stream(path, LINE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await stream.read()
    os.write(master, b"hello")

    assert await read_exactly(stream, 5) == b"hello"
    await stream.close()
    os.close(master)


async def test_more_than_the_inbox_holds_comes_through_whole(plugged: tuple[int, str]) -> None:
    master, path = plugged
    stream = await open_stream(path, LINE)
    sent = os.urandom(3 * INBOX_BYTES_MAX)
    writing = asyncio.create_task(asyncio.to_thread(_write_all, master, sent))

    assert await read_exactly(stream, len(sent)) == sent
    await writing
    await stream.close()
    os.close(master)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@pytest.mark.parametrize(
    "port",
    [
        "/dev/no-such-port",
        "replay:/no/such/file",
        "tcp://127.0.0.1:1",
        "tcp://host",
        "tcp://host:99999",
        "smoke://host:1",
        "socket://127.0.0.1:1",
        "rfc2217://127.0.0.1:1",
        "udp://no.such.host.invalid:9",
        "udp://127.0.0.1:9?from=no.such.host.invalid",
        "udp-host://127.0.0.1:9?from=127.0.0.1",
    ],
)
async def test_what_cannot_be_opened_is_a_link_error_that_names_it(port: str) -> None:
    with pytest.raises(LinkError) as caught:
        await open_stream(port, LINE)

    assert port.removeprefix("replay:").rpartition("//")[2].rpartition(":")[0] in str(caught.value)


@pytest.fixture
async def device() -> AsyncIterator[tuple[int, "asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"]]:
    callers: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda reader, writer: callers.put_nowait((reader, writer)), "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], callers
    server.close()


@pytest.mark.parametrize("scheme", ["tcp", "socket"])
async def test_a_device_behind_tcp_is_read_written_and_its_end_noticed(scheme: str, device) -> None:
    port, callers = device
    stream = await open_stream(f"{scheme}://127.0.0.1:{port}", LINE)
    reader, writer = await callers.get()
    writer.write(b"hello")
    assert await read_exactly(stream, 5) == b"hello"
    await stream.write(b"answer")
    assert await reader.readexactly(6) == b"answer"
    writer.close()

    if scheme == "tcp":
        assert await stream.read() == b""
    else:
        with pytest.raises(LinkError):
            await stream.read()
    await stream.close()


async def test_a_device_behind_an_rfc2217_server_is_read_and_written() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    heard: queue.Queue[bytes] = queue.Queue()
    stop = threading.Event()
    server = threading.Thread(target=_serve_rfc2217, args=(listener, heard, stop))
    server.start()
    try:
        stream = await open_stream(f"rfc2217://127.0.0.1:{listener.getsockname()[1]}", LINE)
        await stream.write(b"answer\xff")
        assert await asyncio.to_thread(_take, heard, 7) == b"answer\xff"
        assert await read_exactly(stream, 6) == b"hello\xff"
        await stream.close()
    finally:
        stop.set()
        server.join(TIMEOUT_S)
        listener.close()


def _serve_rfc2217(listener: socket.socket, heard: "queue.Queue[bytes]", stop: threading.Event) -> None:
    """A serial server of pyserial's own; it says hello once it has heard something."""
    connection, _ = listener.accept()
    connection.settimeout(0.05)
    manager = PortManager(serial_for_url("loop://", timeout=0), _Connection(connection))
    greeted = False
    while not stop.is_set():
        with suppress(TimeoutError):
            data = b"".join(manager.filter(connection.recv(1000)))
            if data:
                heard.put(data)
                if not greeted:
                    connection.sendall(b"".join(manager.escape(b"hello\xff")))
                    greeted = True
    connection.close()


class _Connection:
    def __init__(self, connection: socket.socket) -> None:
        self.write = connection.sendall


def _take(heard: "queue.Queue[bytes]", size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += heard.get(timeout=TIMEOUT_S)
    return data


async def test_a_device_may_call_us() -> None:
    stream = await open_stream("listen://127.0.0.1:0", LINE)
    assert isinstance(stream, CalledStream)
    _, writer = await asyncio.open_connection("127.0.0.1", stream.port)
    writer.write(b"hello")

    assert await read_exactly(stream, 5) == b"hello"
    assert stream.peer == "127.0.0.1"
    writer.close()
    assert await stream.read() == b""
    await stream.close()


async def test_a_device_that_calls_again_ends_its_old_connection() -> None:
    stream = await open_stream("listen://127.0.0.1:0", LINE)
    assert isinstance(stream, CalledStream)
    _, first = await asyncio.open_connection("127.0.0.1", stream.port)
    first.write(b"hello")
    await read_exactly(stream, 5)

    _, second = await asyncio.open_connection("127.0.0.1", stream.port)

    async with asyncio.timeout(TIMEOUT_S):
        assert await stream.read() == b""
    await stream.close()
    first.close()
    second.close()


async def test_datagrams_come_one_by_one_and_answers_go_to_the_sender() -> None:
    stream = await open_stream("udp://127.0.0.1:0", LINE)
    assert isinstance(stream, UdpStream)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as monitor:
        monitor.settimeout(TIMEOUT_S)
        monitor.sendto(b"one", ("127.0.0.1", stream.port))
        monitor.sendto(b"two", ("127.0.0.1", stream.port))

        assert [await stream.read(), await stream.read()] == [b"one", b"two"]
        await stream.write(b"answer")
        assert monitor.recv(100) == b"answer"
    await stream.close()


async def test_another_sender_is_not_mixed_in() -> None:
    stream = await open_stream("udp://0.0.0.0:0", LINE)
    assert isinstance(stream, UdpStream)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        ours.bind(("127.0.0.1", 0))
        stranger.bind(("127.0.0.2", 0))
        ours.sendto(b"bed 1", ("127.0.0.1", stream.port))
        assert await stream.read() == b"bed 1"
        stranger.sendto(b"bed 2", ("127.0.0.1", stream.port))
        ours.sendto(b"bed 1 again", ("127.0.0.1", stream.port))

        assert await stream.read() == b"bed 1 again"
    await stream.close()


async def test_of_a_ward_that_broadcasts_one_host_alone_is_heard_whoever_speaks_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(udp, "SENDER_SILENCE_S", -1.0)
    stream = await open_stream("udp://0.0.0.0:0?from=localhost", LINE)
    assert isinstance(stream, UdpStream)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        ours.bind(("127.0.0.1", 0))
        stranger.bind(("127.0.0.2", 0))
        for sender, text in ((stranger, b"bed 2"), (ours, b"bed 1"), (stranger, b"bed 2"), (ours, b"bed 1 again")):
            sender.sendto(text, ("127.0.0.1", stream.port))

        assert [await stream.read(), await stream.read()] == [b"bed 1", b"bed 1 again"]
    await stream.close()


async def test_a_device_that_answers_from_another_port_is_heard_and_no_other_host() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answering,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        asked.bind(("127.0.0.1", 0))
        asked.settimeout(TIMEOUT_S)
        answering.bind(("127.0.0.1", 0))
        stranger.bind(("127.0.0.2", 0))
        stream = await open_stream(f"udp-host://127.0.0.1:{asked.getsockname()[1]}", LINE)
        await stream.write(b"first")
        _, ours = asked.recvfrom(100)
        stranger.sendto(b"bed 2", ours)
        answering.sendto(b"bed 1", ours)

        assert await stream.read() == b"bed 1"
        await stream.write(b"second")
        assert asked.recv(100) == b"second"
    await stream.close()


async def test_a_recording_is_played_and_then_quiet(tmp_path: Path) -> None:
    recording = tmp_path / "seen.bin"
    recording.write_bytes(b"raw\r\nbytes")
    stream = await open_stream(f"replay:{recording}", LINE)

    assert await read_exactly(stream, 10) == b"raw\r\nbytes"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await stream.read()
    await stream.close()


async def test_a_recording_with_times_keeps_them(tmp_path: Path) -> None:
    recording = tmp_path / "seen.txt"
    recording.write_text("# gateway recording 1\n0.0 68 65\n# a remark\n0.15 6c6c6f\n")
    began = asyncio.get_running_loop().time()
    stream = await open_stream(f"replay:{recording}", LINE)

    assert [await stream.read(), await stream.read()] == [b"he", b"llo"]
    assert asyncio.get_running_loop().time() - began >= 0.14
    await stream.close()


async def test_a_broken_recording_is_a_link_error(tmp_path: Path) -> None:
    recording = tmp_path / "seen.txt"
    recording.write_text("# gateway recording 1\nnever 68\n")
    stream = await open_stream(f"replay:{recording}", LINE)

    with pytest.raises(LinkError, match="not a line of a recording"):
        await stream.read()
    await stream.close()


async def test_what_came_before_the_end_is_still_read() -> None:
    inbox = Inbox()
    inbox.feed(b"last words")
    inbox.end(LinkError("gone"))

    assert await inbox.take() == b"last words"
    with pytest.raises(LinkError, match="gone"):
        await inbox.take()
