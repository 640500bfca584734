"""What an SDC provider, or somebody who pretends to be one, can do to memory, and to a connection unnoticed."""

import asyncio
import contextlib
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sdc11073.consumer.subscription import ConsumerSubscription

from gateway.config import SdcSource
from gateway.errors import LinkError
from gateway.sources import sdc_consumer, sdc_sink
from gateway.sources.sdc_inbox import BYTES_MAX, Ended, Inbox
from tests.gateway.sources.test_sdc import certificates, monitor

TIMEOUT_S = 20.0
PATH = "reports"


class Reports:
    """Stands where the library takes reports, and keeps what came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.refused: list[str] = []

    def do_post(self, _headers: Any, _path: str, _peer: Any, body: bytes) -> tuple[int, str, bytes]:
        self.bodies.append(body)
        return 200, "Ok", b""


class Meeting(Reports):
    """Tells whether two reports are ever in its hands at once."""

    def __init__(self) -> None:
        super().__init__()
        self.met = threading.Barrier(2)

    def do_post(self, *given: Any) -> tuple[int, str, bytes]:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.met.wait(0.2)
        return super().do_post(*given)


@contextmanager
def sink(reports: Reports, context: ssl.SSLContext | None = None) -> Iterator[sdc_sink.Sink]:
    opened = sdc_sink.Sink("127.0.0.1", 0, context, refused=reports.refused.append)
    opened.dispatcher.register_instance(PATH, reports)
    try:
        yield opened
    finally:
        opened.stop()


def posted(where: sdc_sink.Sink, head: bytes, body: bytes, path: str = PATH) -> bytes:
    """Send one request and return all that comes back, empty where the connection is broken off."""
    with socket.create_connection(where.server_address[:2], TIMEOUT_S) as connection:
        connection.sendall(b"POST /%s HTTP/1.1\r\nConnection: close\r\n%s\r\n\r\n" % (path.encode(), head))
        with connection.makefile("rb") as answer:
            try:
                connection.sendall(body)
                connection.shutdown(socket.SHUT_WR)
                return answer.read()
            except OSError:
                return b""


def packed(size: int) -> bytes:
    packing = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return b"".join(packing.compress(bytes(min(2**20, size - at))) for at in range(0, size, 2**20)) + packing.flush()


def gzipped(body: bytes) -> tuple[bytes, bytes]:
    return b"Content-Encoding: gzip\r\nContent-Length: %d" % len(body), body


def chunked(body: bytes) -> tuple[bytes, bytes]:
    return b"Transfer-Encoding: chunked", body


TOO_LARGE = "a report was not taken: a body of more than 8 MiB"
CUT = "a report was not taken: a body that ended too early"
UNREADABLE = "a report was not taken: a body that cannot be unpacked"
UNKNOWN = "a report was not taken: a body in an encoding that we do not know"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (gzipped(packed(BYTES_MAX + 1)), TOO_LARGE),
        (gzipped(packed(20 * BYTES_MAX)), TOO_LARGE),
        (gzipped(packed(5000)[:-9]), CUT),
        (gzipped(b"no gzip"), UNREADABLE),
        ((b"Content-Encoding: br\r\nContent-Length: 2", b"xx"), UNKNOWN),
        ((b"Content-Length: %d" % (BYTES_MAX + 1), b""), TOO_LARGE),
        ((b"Content-Length: -1", b""), TOO_LARGE),
        ((b"Content-Length: 9", b"short"), CUT),
        (chunked(b"%x\r\n" % (BYTES_MAX + 1)), TOO_LARGE),
        (chunked(b"-5\r\n"), TOO_LARGE),
        (chunked(b"5\r\nab"), CUT),
        (chunked(b"zz\r\nab"), UNKNOWN),
    ],
)
def test_a_body_without_a_bound_is_not_taken_and_the_reason_is_told(request_: tuple[bytes, bytes], reason: str) -> None:
    reports = Reports()
    with sink(reports) as opened:
        answer = posted(opened, *request_)

    assert (answer, reports.refused, reports.bodies) == (b"", [reason], [])


def test_a_body_that_holds_to_the_bound_is_taken_however_it_is_packed() -> None:
    reports = Reports()
    with sink(reports) as opened:
        answers = [
            posted(opened, *gzipped(packed(BYTES_MAX))),
            posted(opened, *chunked(b"3\r\n<a/\r\n1\r\n>\r\n0\r\n\r\n")),
            posted(opened, b"Content-Length: 4", b"<b/>"),
        ]

    assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 Ok"] * 3
    assert reports.bodies == [bytes(BYTES_MAX), b"<a/>", b"<b/>"]
    assert reports.refused == []


def test_a_bomb_from_one_who_does_not_know_where_reports_go_ends_nothing() -> None:
    reports = Reports()
    with sink(reports) as opened:
        answer = posted(opened, *gzipped(packed(BYTES_MAX + 1)), path="elsewhere")

    assert (answer, reports.refused) == (b"", [])


def test_documents_that_come_together_are_read_one_after_the_other() -> None:
    reports = Meeting()
    with sink(reports) as opened:
        senders = [threading.Thread(target=posted, args=(opened, *gzipped(packed(20)))) for _ in range(2)]
        for each in senders:
            each.start()
        for each in senders:
            each.join(TIMEOUT_S)

    assert reports.bodies == [bytes(20)] * 2
    assert reports.met.broken


def test_those_who_never_shake_hands_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdc_sink, "HANDSHAKE_TIMEOUT_S", 3600.0)
    own = certificates(tmp_path)["gateway"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own / "cert.pem", own / "key.pem")
    with sink(Reports(), context) as opened:
        where = opened.server_address[:2]
        silent = [socket.create_connection(where, TIMEOUT_S) for _ in range(sdc_sink.CONNECTIONS_MAX)]
        with socket.create_connection(where, TIMEOUT_S) as one_more:
            told = one_more.recv(1)
        for each in silent:
            each.close()

    assert told == b""


@contextmanager
def provider(answer: bytes) -> Iterator[str]:
    """Answer whatever is asked first with these bytes; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass  # it was hung up on

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        serving.join(TIMEOUT_S)


BOMB = packed(20 * BYTES_MAX)


@pytest.mark.parametrize(
    "answer",
    [
        b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(BOMB), BOMB),
        b"Content-Length: %d\r\n\r\n%s" % (BYTES_MAX + 1, bytes(BYTES_MAX + 1)),
        b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n%s\r\n" % bytes(2**20) * 9 + b"0\r\n\r\n",
        b"Connection: close\r\n\r\n" + bytes(BYTES_MAX + 1),
    ],
)
async def test_an_answer_without_a_bound_ends_the_connection(answer: bytes) -> None:
    with provider(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n" + answer) as address:
        settings = SdcSource(name="bed-14", endpoint=address)
        with pytest.raises(LinkError, match="a body of more than 8 MiB"):
            await connected(settings)


async def connected(settings: SdcSource) -> sdc_consumer.Connection:
    return await asyncio.to_thread(sdc_consumer.connect, settings, Inbox())


async def test_a_device_that_grants_only_some_subscriptions_is_not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    granted = ConsumerSubscription.subscribe

    def subscribe(self: Any, *given: Any) -> None:
        if "EpisodicAlertReport" not in self.short_filter_string:
            granted(self, *given)

    monkeypatch.setattr(ConsumerSubscription, "subscribe", subscribe)
    async with monitor() as device:
        settings = SdcSource(name="bed-14", endpoint=device.address, waves=("all",))
        with pytest.raises(LinkError, match="subscriptions were refused"):
            await connected(settings)


def test_a_renewal_with_an_answer_that_nobody_understands_ends_its_subscription(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Choking:
        is_subscribed = True

        def renew(self) -> None:
            managing.stop()
            raise AttributeError("'NoneType' object has no attribute 'find'")

    managing = sdc_consumer._Subscriptions(None, None, None, None, "http://x")
    monkeypatch.setattr(sdc_consumer, "RENEW_S", 0.0)
    monkeypatch.setattr(managing, "stop", managing._halt.set)
    choking, sound = Choking(), SimpleNamespace(is_subscribed=True, renew=lambda: None)
    managing.subscriptions.update(a=choking, b=sound)

    managing.run()

    assert (choking.is_subscribed, sound.is_subscribed) == (False, True)


async def test_an_mdib_that_grows_without_end_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox()
    reports = sdc_consumer._Reports(inbox)
    monkeypatch.setattr(reports, "_live", True)
    entries = SimpleNamespace(objects=[None] * (sdc_consumer.ENTRIES_MAX // 2))
    monkeypatch.setattr(reports, "_mdib", SimpleNamespace(descriptions=entries, context_states=entries))
    reports.handle(b"<a/>", lambda: None)
    entries.objects.append(None)

    reports.handle(b"<b/>", lambda: None)

    assert await inbox.take() == [Ended(reason="an MDIB of more than 20000 entries")]
