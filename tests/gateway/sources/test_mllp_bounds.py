"""The MLLP listener's bounds: sizes, times, connections, and how it stops."""

import asyncio
import contextlib
import socket
import tracemalloc
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.errors import ConfigError, LinkError
from gateway.model import Kind
from gateway.protocols.mllp import HEAD_BYTES_MAX, encode_frame
from gateway.sources import mllp, mllp_connection
from gateway.status import LinkState
from gateway.typed import Address, Size

WAIT_S = 10.0


def message(number: int = 1, body: bytes = b"", asks: bytes = b"") -> bytes:
    asked = b"|||" + asks if asks else b""
    return b"MSH|^~\\&|A|B|C|D|20260101||ORU^R01^ORU_R01|M%d|P|2.6%b\rPID|||7^^^X\r%b" % (number, asked, body)


async def test_an_oversize_message_is_quarantined_by_its_head_and_the_next_works(house: Any) -> None:
    raw = message(1, b"OBX|" + b"x" * 300_000)
    async with house(frame_max=Size(100_000)) as home:
        peer = await home.connect()
        await peer.send(encode_frame(raw) + encode_frame(message(2)))
        told = await peer.answer()

        assert (told.code.value, told.control_id, told.errors[0].code) == ("AR", b"M1", "104")
        assert told.text is not None
        assert "100000 bytes" in told.text
        assert await peer.codes(1) == [("AA", b"M2")]
        kept = home.intake.kept[0]
        assert (kept.kind, kept.raw, kept.identifier) == (Kind.UNREADABLE, raw[:HEAD_BYTES_MAX], "M1")


async def test_a_hundred_megabytes_without_an_end_are_refused_in_bounded_memory_and_the_next_works(house: Any) -> None:
    chunk = b"x" * (1 << 20)
    async with house(frame_max=Size(1 << 20)) as home:
        peer = await home.connect()
        await peer.send(b"\x0b" + message(1))
        tracemalloc.start()
        held = 0
        for _ in range(100):
            await peer.send(chunk)
            held = max(held, home.listener.held)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert await peer.codes(1) == [("AR", b"M1")]

        await peer.send(b"\x1c\r" + encode_frame(message(2)))
        assert await peer.codes(1) == [("AA", b"M2")]
        assert held <= 1 << 20
        assert peak < 16 << 20


async def test_a_peer_that_has_said_all_still_gets_its_answers(house: Any) -> None:
    async with house() as home:
        home.intake.holding = True
        peer = await home.connect()
        await peer.send(encode_frame(message(1)) + encode_frame(message(2))[:-1])
        peer.writer.write_eof()
        await home.intake.have(2)

        home.intake.settle()
        assert await peer.codes(2) == [("AA", b"M1"), ("AA", b"M2")]
        assert await peer.is_closed()


async def test_a_peer_that_left_early_does_not_hurt_what_it_sent(house: Any) -> None:
    async with house() as home:
        home.intake.holding = True
        peer = await home.connect()
        await peer.send(encode_frame(message(1)))
        await home.intake.have(1)
        peer.reset()
        await home.until(lambda: home.status.connections == 0)

        home.intake.holding = False
        home.intake.settle()
        assert home.status.received == 1
        assert home.listener.held == 0
        other = await home.connect()
        await other.send(encode_frame(message(1)))
        assert await other.codes(1) == [("AA", b"M1")]


async def test_half_a_message_of_a_peer_that_left_is_dropped_and_counted(house: Any) -> None:
    async with house() as home:
        peer = await home.connect()
        await peer.send(b"\x0bMSH|half")
        await home.until(lambda: home.listener.held > 0)
        peer.writer.transport.abort()
        await home.until(lambda: home.status.connections == 0)

        assert (home.listener.held, home.status.errors, home.intake.kept) == (0, 1, [])


async def test_silence_inside_a_frame_closes_the_connection(house: Any) -> None:
    async with house(frame_timeout_s=0.05) as home:
        peer = await home.connect()
        await peer.send(encode_frame(message(1)) + b"\x0bMSH|half")
        assert await peer.codes(1) == [("AA", b"M1")]
        assert await peer.is_closed()
        await home.until(lambda: home.status.connections == 0)
        assert (home.listener.held, home.status.errors) == (0, 1)


async def test_an_idle_connection_is_closed(house: Any) -> None:
    async with house(idle_timeout_s=0.05) as home:
        peer = await home.connect()
        await peer.send(encode_frame(message(1)))
        assert await peer.codes(1) == [("AA", b"M1")]
        assert await peer.is_closed()


async def test_a_connection_that_waits_for_us_is_not_idle(house: Any) -> None:
    async with house(idle_timeout_s=0.02) as home:
        home.intake.holding = True
        peer = await home.connect()
        await peer.send(encode_frame(message(1)))
        await home.intake.have(1)
        assert await peer.is_quiet()
        assert home.status.connections == 1

        home.intake.settle()
        assert await peer.codes(1) == [("AA", b"M1")]


async def test_a_peer_that_does_not_read_its_answers_is_closed(house: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with house(frame_timeout_s=0.2) as home:
        peer = await home.connect()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        frames = encode_frame(message(1).replace(b"M1", b"M" * 8000)) * 50  # answers as large as the messages
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(WAIT_S):
                while home.status.connections:
                    peer.writer.write(frames)
                    await peer.writer.drain()
        await home.until(lambda: home.status.connections == 0)
        assert "the peer does not read its answers" in caplog.text


async def test_what_is_unsettled_is_bounded_per_connection(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp_connection, "UNSETTLED_BYTES_MAX", 200_000)
    body = b"OBX|" + b"x" * 10_000
    async with house() as home:
        home.intake.holding = True
        peer = await home.connect()
        sending = asyncio.create_task(peer.send(b"".join(encode_frame(message(n, body)) for n in range(1000))))
        await home.intake.have(20)
        assert await peer.is_quiet()
        assert home.listener.held < 1_000_000
        assert len(home.intake.kept) < 100

        home.intake.holding = False
        home.intake.settle()
        assert await peer.codes(1000) == [("AA", b"M%d" % n) for n in range(1000)]
        await sending
        assert home.listener.held == 0


async def test_pipelined_frames_are_bounded_by_number_too(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp_connection, "UNSETTLED_FRAMES_MAX", 10)
    async with house() as home:
        home.intake.holding = True
        peer = await home.connect()
        await peer.send(b"".join(encode_frame(message(n)) for n in range(50)))
        await home.intake.have(50)
        await peer.send(encode_frame(message(50)))
        assert await peer.is_quiet()
        assert len(home.intake.kept) == 50

        home.intake.holding = False
        home.intake.settle()
        assert await peer.codes(51) == [("AA", b"M%d" % n) for n in range(51)]


async def test_a_house_full_of_half_messages_still_empties(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp, "HELD_BYTES_MAX", 1)
    frame_max = 2_000_000
    body = b"OBX|" + b"x" * (frame_max - 200)
    async with house(frame_max=Size(frame_max), frame_timeout_s=WAIT_S) as home:
        peers = [await home.connect() for _ in range(12)]
        peak = 0

        async def exchange(number: int, peer: Any) -> list[tuple[str, bytes]]:
            nonlocal peak
            frame = encode_frame(message(number, body))
            for at in range(0, len(frame), 100_000):
                await peer.send(frame[at : at + 100_000])
                peak = max(peak, home.listener.held)
                await asyncio.sleep(0)
            return await peer.codes(1)

        answers = await asyncio.gather(*(exchange(number, peer) for number, peer in enumerate(peers)))
        assert answers == [[("AA", b"M%d" % number)] for number in range(12)]
        assert peak <= (mllp.FRAMES_HELD_MIN + 2) * frame_max + 12 * (256 << 10)
        assert home.listener.held == 0


async def test_peers_off_the_allow_list_are_turned_away(house: Any) -> None:
    async with house(allow=(ip_network("127.0.0.2/32"),)) as home:
        stranger = await home.connect("127.0.0.1")
        assert await stranger.is_closed()
        known = await home.connect("127.0.0.2")
        await known.send(encode_frame(message(1)))
        assert await known.codes(1) == [("AA", b"M1")]
        assert home.status.last_error == "not on the allow list"


async def test_connections_are_capped_and_a_place_comes_free(house: Any) -> None:
    async with house(connections_max=2) as home:
        first, _ = await home.connect(), await home.connect()
        await home.until(lambda: home.status.connections == 2)
        assert await (await home.connect()).is_closed()

        first.writer.close()
        await home.until(lambda: home.status.connections == 1)
        fourth = await home.connect()
        await fourth.send(encode_frame(message(1)))
        assert await fourth.codes(1) == [("AA", b"M1")]


async def test_connections_of_one_peer_are_capped(house: Any) -> None:
    async with house(connections_per_peer_max=1) as home:
        first = await home.connect("127.0.0.1")
        await home.until(lambda: home.status.connections == 1)
        assert await (await home.connect("127.0.0.1")).is_closed()
        other = await home.connect("127.0.0.2")
        await other.send(encode_frame(message(1)))
        assert await other.codes(1) == [("AA", b"M1")]

        first.writer.close()
        await home.until(lambda: home.status.connections == 1)
        again = await home.connect("127.0.0.1")
        await again.send(encode_frame(message(2)))
        assert await again.codes(1) == [("AA", b"M2")]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv4_peer_of_an_ipv6_listener_is_known_by_its_ipv4_address(house: Any) -> None:
    async with house(listen=Address("::", 0), allow=(ip_network("127.0.0.2/32"),)) as home:
        assert await (await home.connect("127.0.0.1")).is_closed()
        known = await home.connect("127.0.0.2")
        await known.send(encode_frame(message(1)))
        assert await known.codes(1) == [("AA", b"M1")]
        assert home.intake.kept[0].peer == "127.0.0.2"


async def test_fifty_silent_connections_do_not_hinder_the_next(house: Any) -> None:
    async with house() as home:
        for _ in range(50):
            await home.connect()
        peer = await home.connect()
        await peer.send(encode_frame(message(1)))
        assert await peer.codes(1) == [("AA", b"M1")]


async def test_the_listener_starts_again_on_the_same_port(house: Any) -> None:
    async with house() as home:
        port = home.listener.port
        assert port is not None
        peer = await home.connect()
        await peer.send(encode_frame(message(1)))
        await peer.answer()
    async with house(listen=Address("127.0.0.1", port)) as home:
        peer = await home.connect()
        await peer.send(encode_frame(message(2)))
        assert await peer.codes(1) == [("AA", b"M2")]


async def test_a_port_in_use_is_a_link_error(house: Any) -> None:
    async with house() as home:
        assert home.listener.port is not None
        with pytest.raises(LinkError):
            async with house(listen=Address("127.0.0.1", home.listener.port)):
                pass


async def test_an_unknown_encoding_is_a_config_error(house: Any) -> None:
    with pytest.raises(ConfigError):
        async with house(encoding="klingon"):
            pass


async def test_stopping_answers_what_is_owed_and_takes_nothing_new(house: Any) -> None:
    async with house() as home:
        home.intake.holding = True
        peer, idle = await home.connect(), await home.connect()
        await peer.send(encode_frame(message(1)))
        await home.intake.have(1)

        home.running.cancel()
        assert await idle.is_closed()
        with pytest.raises(ConnectionRefusedError):
            await home.connect()
        home.intake.settle()
        assert await peer.codes(1) == [("AA", b"M1")]
        assert await peer.is_closed()
        with pytest.raises(asyncio.CancelledError):
            await home.running
        assert (home.status.connections, home.status.state) == (0, LinkState.DOWN)


async def test_stopping_does_not_wait_for_ever(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllp, "STOP_TIMEOUT_S", 0.05)
    async with house() as home:
        home.intake.holding = True
        peer = await home.connect()
        await peer.send(encode_frame(message(1)))
        await home.intake.have(1)

        home.running.cancel()
        assert await peer.is_closed()
        await asyncio.wait({home.running}, timeout=WAIT_S)
        assert home.running.cancelled()
