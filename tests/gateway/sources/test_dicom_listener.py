import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from gateway.clock import SystemClock
from gateway.sources.dicom_listener import LOBBY_HOST_MAX, LOBBY_MAX, Listener, Lobby
from tests.gateway.sources.dicom_house import until

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [socket.socketpair() for _ in range(LOBBY_MAX + 1)]
    for _, peer in made:
        peer.setblocking(False)
    yield made
    for pair in made:
        for sock in pair:
            sock.close()


def _is_cut(pair: Pair) -> bool:
    try:
        return pair[1].recv(1) == b""
    except BlockingIOError:
        return False


def test_a_host_that_floods_pushes_out_its_own_oldest(pairs: list[Pair]) -> None:
    lobby = Lobby()
    lobby.enter(pairs[0][0], "10.0.0.9")
    for ours, _ in pairs[1 : LOBBY_HOST_MAX + 3]:
        lobby.enter(ours, "10.0.0.1")

    assert [number for number, pair in enumerate(pairs) if _is_cut(pair)] == [1, 2]
    assert len(lobby) == LOBBY_HOST_MAX + 1


def test_all_hosts_together_have_a_limit(pairs: list[Pair]) -> None:
    lobby = Lobby()
    for number, (ours, _) in enumerate(pairs):
        lobby.enter(ours, f"10.0.0.{number}")

    assert [number for number, pair in enumerate(pairs) if _is_cut(pair)] == [0]
    assert len(lobby) == LOBBY_MAX


def test_who_has_left_is_not_cut(pairs: list[Pair]) -> None:
    lobby = Lobby()
    lobby.enter(pairs[0][0], "10.0.0.1")
    lobby.leave(pairs[0][0])
    lobby.enter(pairs[1][0], "10.0.0.1")

    lobby.close()

    assert [number for number, pair in enumerate(pairs) if _is_cut(pair)] == [1]
    assert len(lobby) == 0


async def test_out_of_descriptors_the_port_stays_open(caplog: pytest.LogCaptureFixture) -> None:
    served: list[str] = []

    def serve(sock: socket.socket, host: str) -> None:
        sock.close()
        served.append(host)

    listener = Listener(("127.0.0.1", 0), SystemClock(), admits=lambda host: True, serve=serve)
    running = asyncio.create_task(listener.run())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.setblocking(False)
        lowest_free = os.dup(client.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", listener.port))
            await until(lambda: "dicom.not_accepted" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.send(b"x")
        await until(lambda: served == ["127.0.0.1"])
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
