"""One MLLP connection: frames in, answers out, in the order of the frames.

    TCP accepted --(TLS handshake)--> open --idle, fault, stop--> closing --> lost

Answers leave when the message is on disk and every earlier answer has left. What has come and is not settled yet is
bounded per connection and over the whole listener: beyond it the socket is not read. Runs on the loop, without a task.
"""

import asyncio
import logging
from collections import deque
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, cast

from gateway.errors import StoreError
from gateway.model import Accepted
from gateway.protocols.mllp import CommitBlock, Decoder, Event, Frame, Junk, Oversize, Partial
from gateway.sources.mllp_reading import Origin, Read, answer, read_frame, read_oversize

if TYPE_CHECKING:
    from gateway.sources.mllp import MllpListener

UNSETTLED_BYTES_MAX = 4 << 20  # of one connection; one frame may be larger
UNSETTLED_FRAMES_MAX = 256  # of one connection: pipelining beyond this waits in the kernel
TIMER_SLACK_S = 0.005

_log = logging.getLogger("gateway.sources.mllp")


class _Owed:
    """A frame that came; `answer` is None until it is settled."""

    __slots__ = ("answer", "read", "size")

    def __init__(self, read: Read, size: int) -> None:
        self.read = read
        self.size = size
        self.answer: bytes | None = None


class MllpConnection(asyncio.Protocol):
    """One peer's connection; `listener` is the house it came to."""

    def __init__(self, listener: "MllpListener", host: str) -> None:
        settings = listener.settings
        self.host = host
        self._listener = listener
        self._settings = settings
        self._origin = Origin(source=settings.name, peer=host, encoding=settings.encoding, orders=settings.orders)
        self._decoder = Decoder(
            frame_bytes_max=settings.frame_max,
            frame_timeout_s=settings.frame_timeout_s,
            end_without_cr_s=settings.end_without_cr_s,
        )
        self._transport: asyncio.Transport | None = None
        self._owed: deque[_Owed] = deque()
        self._unsettled = 0
        self._buffered = 0
        self._paused_for: set[str] = set()
        self._heard_at = listener.clock.monotonic()
        self._stuck_since: float | None = None  # the peer does not read its answers
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._is_late = False  # a deadline has come; what lies unread in the socket is heard first
        self._ending = False  # the peer, or we, will not go on: close when all is answered

    @property
    def held(self) -> int:
        """Return how many bytes are in memory for this connection."""
        return self._unsettled + self._buffered

    # The loop calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to listen to the peer."""
        self._transport = cast(asyncio.Transport, transport)
        self._heard_at = self._listener.clock.monotonic()
        self._arm(self._heard_at)

    def data_received(self, data: bytes) -> None:
        """Take bytes that came."""
        now = self._listener.clock.monotonic()
        self._heard_at = now
        for event in self._decoder.receive(data, now):
            self._take(event)
        self._note_buffer()
        if self._decoder.inside:
            self._arm(now)
        if self._unsettled > UNSETTLED_BYTES_MAX or len(self._owed) > UNSETTLED_FRAMES_MAX:
            self._pause("unsettled")
        if self._listener.is_crowded_by(self):
            self._pause("crowded")

    def eof_received(self) -> bool:
        """Take notice that the peer sends no more; without TLS it may still wait for answers."""
        for event in self._decoder.finish():
            self._take(event)
        self._note_buffer()
        self._ending = True
        transport = self._transport
        return bool(self._owed) and transport is not None and transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the peer; what is unsettled is still kept, but answered to nobody."""
        del exc
        if self._decoder.inside:
            self._fault("connection lost inside a frame")
            self._decoder.finish()
        self._note_buffer()
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._listener.left(self)

    def pause_writing(self) -> None:
        """Stop reading from a peer that does not read."""
        self._stuck_since = self._listener.clock.monotonic()
        self._pause("answers")
        self._arm(self._stuck_since)

    def resume_writing(self) -> None:
        """Read again."""
        self._stuck_since = None
        self._resume("answers")

    # The listener calls these.

    def uncrowd(self) -> None:
        """Read again: there is room in the house."""
        self._resume("crowded")

    def end(self) -> None:
        """Take nothing more; close when everything that came is answered."""
        self._ending = True
        self._pause("ending")
        self._close_when_done()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, event: Event) -> None:
        listener = self._listener
        if isinstance(event, Frame):
            self._submit(read_frame(event.content, self._origin, listener.clock.now()), len(event.content))
        elif isinstance(event, Oversize):
            read = read_oversize(event.head, self._settings.frame_max, self._origin, listener.clock.now())
            self._submit(read, len(event.head))
        elif isinstance(event, Partial):
            self._fault(f"a frame of {event.count} bytes never ended")
        elif isinstance(event, CommitBlock):
            self._fault("a commit block came, though nothing was sent")
        else:
            assert isinstance(event, Junk)
            _log.debug("mllp.skipped source=%s peer=%s bytes=%d", self._settings.name, self.host, event.count)

    def _submit(self, read: Read, size: int) -> None:
        owed = _Owed(read, size)
        self._owed.append(owed)
        if read.fault is not None:
            self._fault(read.fault.text)
        if read.incoming is None:
            self._answer(owed, self._listener.clock.now(), stored=True)
            return
        refusing = self._listener.intake.refusing
        if refusing is not None:
            self._settled(owed, StoreError(refusing), counted=False)
            return
        self._unsettled += size
        self._listener.hold(size)
        self._listener.intake.submit(read.incoming, partial(self._settled, owed))

    def _settled(self, owed: _Owed, outcome: Accepted | StoreError, *, counted: bool = True) -> None:
        """Hear from intake; the answer leaves when those before it have."""
        listener = self._listener
        if counted:
            self._unsettled -= owed.size
            listener.release(owed.size)
        now = listener.clock.now()
        stored = isinstance(outcome, Accepted)
        if stored:
            listener.status.saw_input(now)
        else:
            self._fault(f"not stored: {outcome}")
        self._answer(owed, now, stored=stored)
        if "unsettled" in self._paused_for and self._has_room():
            self._resume("unsettled")

    def _answer(self, owed: _Owed, now: datetime, *, stored: bool) -> None:
        if not stored and self._settings.store_error == "silence":
            owed.answer = b""
        else:
            owed.answer = answer(owed.read, stored=stored, control_id=self._listener.next_control_id(), now=now)
        self._send_answers()

    def _send_answers(self) -> None:
        queue = self._owed
        ready = []
        while queue and queue[0].answer is not None:
            ready.append(queue.popleft().answer or b"")
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if ready:
            transport.write(ready[0] if len(ready) == 1 else b"".join(ready))
        self._close_when_done()

    def _has_room(self) -> bool:
        return self._unsettled <= UNSETTLED_BYTES_MAX // 2 and len(self._owed) <= UNSETTLED_FRAMES_MAX // 2

    def _note_buffer(self) -> None:
        grown = self._decoder.buffered - self._buffered
        if grown:
            self._buffered += grown
            self._listener.hold(grown)

    def _close_when_done(self) -> None:
        if self._ending and not self._owed and self._transport is not None:
            self._transport.close()

    def _pause(self, reason: str) -> None:
        if not self._paused_for and self._transport is not None:
            self._transport.pause_reading()
        self._paused_for.add(reason)

    def _resume(self, reason: str) -> None:
        if reason not in self._paused_for:
            return
        self._paused_for.discard(reason)
        if not self._paused_for and self._transport is not None:
            now = self._listener.clock.monotonic()
            self._heard_at = now
            self._decoder.receive(b"", now)  # we did not listen: the frame's time begins anew
            self._transport.resume_reading()
            self._arm(now)

    def _fault(self, reason: str) -> None:
        self._listener.fault(self.host, reason)

    # One timer serves every deadline: it is set for the earliest and looks again when it comes.

    def _deadline(self) -> float:
        waits = [self._heard_at + self._settings.idle_timeout_s]
        if self._stuck_since is not None:
            waits.append(self._stuck_since + self._settings.frame_timeout_s)
        if not self._paused_for and self._decoder.deadline is not None:
            waits.append(self._decoder.deadline)
        return min(waits)

    def _arm(self, now: float) -> None:
        deadline = self._deadline()
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        wait = max(deadline - now, 0.0) + TIMER_SLACK_S
        self._timer = asyncio.get_running_loop().call_later(wait, self._look)

    def _look(self) -> None:
        """See whether a deadline has come, and once more after the socket was read: a busy loop is no silent peer."""
        self._timer = None
        if self._transport is None:
            return
        now = self._listener.clock.monotonic()
        if now < self._deadline():
            self._is_late = False
            self._arm(now)
        elif not self._is_late:
            self._is_late = True
            self._timer_at = now
            self._timer = asyncio.get_running_loop().call_later(0, self._look)
        else:
            self._is_late = False
            self._overdue(now, self._transport)

    def _overdue(self, now: float, transport: asyncio.Transport) -> None:
        if self._stuck_since is not None and now >= self._stuck_since + self._settings.frame_timeout_s:
            self._fault("the peer does not read its answers")
            transport.abort()
            return
        if not self._paused_for and self._tick(now):
            return
        if now >= self._heard_at + self._settings.idle_timeout_s:
            if not self._owed:
                _log.info("mllp.idle source=%s peer=%s", self._settings.name, self.host)
                transport.close()
                return
            self._heard_at = now  # it is we who keep the peer waiting
        self._arm(now)

    def _tick(self, now: float) -> bool:
        """Let the decoder see the time; return whether an unfinished frame timed out and the connection goes."""
        events = self._decoder.tick(now)
        for event in events:
            self._take(event)
        self._note_buffer()
        if not any(isinstance(event, Partial) for event in events):
            return False
        self._pause("ending")
        self._ending = True
        self._close_when_done()
        return True
