"""One connection of the simulated EMR, over all its reconnects.

connecting --connected--> sending --closed, timeout, wrong answer--> connecting (unanswered ones first)
"""

import asyncio
import hashlib
import itertools
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass, field
from typing import cast

from simulators.hl7_messages import Template, moment_now
from simulators.journal import Journal
from simulators.mllp_frames import FrameSplitter, frame

CONNECT_TIMEOUT_S = 5.0
RECONNECT_PAUSE_S = 0.1
REFUSED_PAUSE_S = 1.0
LATENCIES_MAX = 200_000
ACCEPTED = ("AA", "CA")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast one lane sends and how long it waits."""

    window: int
    interval_s: float
    ack_timeout_s: float


@dataclass(slots=True, kw_only=True)
class Sent:
    """A message that waits for its answer."""

    ordinal: int
    control_id: bytes
    body: bytes
    sent_s: float


@dataclass(kw_only=True)
class Campaign:
    """What all lanes share: what to send, how many, and the counters."""

    run: str
    templates: list[Template]
    journal: Journal
    count: int | None
    retry_refused: bool
    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    resent: int = 0
    wrong_answers: int = 0
    reconnects: int = 0
    stopping: bool = False
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_MAX))

    @property
    def exhausted(self) -> bool:
        """Return whether nothing new is to be sent."""
        return self.stopping or (self.count is not None and self.sent >= self.count)

    def stop(self) -> None:
        """Send nothing new."""
        self.stopping = True


class Lane:
    """Sends its own numbered messages in order; MSH-10 is `RUN-LANE-ORDINAL`."""

    def __init__(
        self, campaign: Campaign, number: int, to: tuple[str, int], pace: Pace, tls: ssl.SSLContext | None = None
    ) -> None:
        self.campaign, self.number, self._pace = campaign, number, pace
        self._to, self._tls = to, tls
        self._numbers = itertools.count(1)
        self._waiting: deque[Sent] = deque()
        self._wire: _Wire | None = None
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._done = asyncio.Event()

    @property
    def unanswered(self) -> int:
        """Return how many messages were sent and never answered."""
        return len(self._waiting)

    async def run(self) -> None:
        """Send until the campaign is exhausted and everything is answered."""
        while not self._done.is_set():
            wire = await self._connect()
            if wire is not None:
                await self._converse(wire)
            if not self._done.is_set():
                self.campaign.reconnects += 1
                await asyncio.sleep(RECONNECT_PAUSE_S)
            self.finish()

    def finish(self) -> None:
        """End when nothing is left to send or to wait for."""
        if self.campaign.exhausted and not self._waiting:
            self._done.set()
            if self._wire is not None:
                self._wire.close()

    async def _connect(self) -> "_Wire | None":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, wire = await loop.create_connection(lambda: _Wire(self), *self._to, ssl=self._tls)
        except OSError:  # refused or timed out: tried again
            return None
        return wire

    async def _converse(self, wire: "_Wire") -> None:
        self._wire = wire
        watch = asyncio.create_task(self._watch(wire))
        try:
            self._repeat(wire)
            self.send_more()
            self.finish()
            await wire.closed.wait()
        finally:
            self._wire = None
            wire.close()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            if self._timer is not None:
                self._timer.cancel()

    def _repeat(self, wire: "_Wire") -> None:
        for message in self._waiting:
            self.campaign.resent += 1
            message.sent_s = time.monotonic()
            wire.send([frame(message.body)])

    def send_more(self) -> None:
        """Fill the window, as far as the pace allows."""
        wire, frames = self._wire, []
        while wire is not None and len(self._waiting) < self._pace.window and not self.campaign.exhausted:
            now_s = time.monotonic()
            if self._pace.interval_s:
                if now_s < self._due_s:
                    self._wake_at(self._due_s)
                    break
                self._due_s = max(self._due_s + self._pace.interval_s, now_s - self._pace.interval_s)
            frames.append(frame(self._next(now_s).body))
        if frames and wire is not None:
            wire.send(frames)

    def _wake_at(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(due_s - time.monotonic(), self.send_more)

    def _next(self, now_s: float) -> Sent:
        campaign = self.campaign
        ordinal = next(self._numbers)
        template = campaign.templates[(ordinal - 1) % len(campaign.templates)]
        control_id = b"%s-%d-%d" % (campaign.run.encode(), self.number, ordinal)
        body = template.fill(control_id, moment_now(), b"%02d%07d" % (self.number, ordinal))
        message = Sent(ordinal=ordinal, control_id=control_id, body=body, sent_s=now_s)
        self._waiting.append(message)
        campaign.sent += 1
        return message

    def take_answers(self, answers: list[bytes]) -> None:
        """Match answers with the oldest messages that wait; anything else closes the connection."""
        for answer in answers:
            code, control_id = read_answer(answer)
            if not self._waiting or control_id != self._waiting[0].control_id or not code:
                self.campaign.wrong_answers += 1
                self.drop()
                break
            if code not in ACCEPTED and self.campaign.retry_refused:
                self.campaign.refused += 1
                asyncio.get_running_loop().call_later(REFUSED_PAUSE_S, self.drop)
                break
            self._settle(self._waiting.popleft(), code)
        self.campaign.journal.flush()
        self.send_more()
        if self.campaign.exhausted:
            self.finish()

    def drop(self) -> None:
        """Close the connection; what waits is sent again on the next."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _settle(self, message: Sent, code: str) -> None:
        campaign = self.campaign
        campaign.latencies_s.append(time.monotonic() - message.sent_s)
        if code in ACCEPTED:
            campaign.acknowledged += 1
        else:
            campaign.refused += 1
        if campaign.journal.kept:
            campaign.journal.note(
                ordinal=message.ordinal,
                id=message.control_id.decode(),
                sha256=hashlib.sha256(message.body).hexdigest(),
                code=code,
                connection=self.number,
                bytes=len(message.body),
            )

    async def _watch(self, wire: "_Wire") -> None:
        """Drop the connection when the oldest message has waited too long."""
        while not wire.closed.is_set():
            await asyncio.sleep(min(1.0, self._pace.ack_timeout_s / 4))
            if self._waiting and time.monotonic() - self._waiting[0].sent_s > self._pace.ack_timeout_s:
                self.drop()


class _Wire(asyncio.Protocol):
    """The bytes of one connection."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._splitter = FrameSplitter()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        wire = self._transport.get_extra_info("socket")
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        try:
            answers = self._splitter.feed(data)
        except ValueError:
            self._lane.drop()
            return
        if answers and not self._transport.is_closing():
            self._lane.take_answers(answers)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()

    def send(self, frames: list[bytes]) -> None:
        if not self._transport.is_closing():
            self._transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def close(self) -> None:
        self._transport.abort()


def read_answer(answer: bytes) -> tuple[str, bytes]:
    """Return MSA-1 and MSA-2 of an acknowledgement, empty where they are missing."""
    begin = answer.find(b"\rMSA") + 1
    if begin == 0 or answer[:3] != b"MSH":
        return "", b""
    end = answer.find(b"\r", begin)
    fields = answer[begin : end if end >= 0 else None].split(answer[begin + 3 : begin + 4])
    return (fields[1].decode("latin-1"), fields[2]) if len(fields) > 2 else ("", b"")
