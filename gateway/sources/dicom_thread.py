"""The thread of one accepted association: it owns the connection and the state machine, and does jobs for others.

    shake hands --> jobs, read, tell what happened, write ... --> closed

Whoever else wants something of the association posts a job; the thread does it between two reads, and a job finds the
association established or fails. Reading comes first, writing waits for the peer at most the stall limit.
"""

import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.clock import Clock
from gateway.errors import LinkError
from gateway.net.dicom_file import behind
from gateway.net.dicom_wire import QUICKLY
from gateway.protocols.upper_layer import Event, State, UpperLayer

HANDSHAKE_S = 5.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Job:
    """Something to do in the association's thread."""

    work: Callable[[], Any]
    done: Future[Any]


class AssociationThread:
    """`serve`, `flush`, `write` and `close` are the thread's; `post`, `cut` and `over` may be used from any.

    `happened` is told each event; `busy` says whether silence is to be expected; `broken` hears that a message was
    begun and could not be ended, before the job that did so fails.
    """

    def __init__(
        self,
        sock: socket.socket,
        tls: ssl.SSLContext | None,
        layer: UpperLayer,
        clock: Clock,
        *,
        idle_timeout_s: float,
        happened: Callable[[Event], None],
        busy: Callable[[], bool],
        broken: Callable[[], None],
    ) -> None:
        self._socket = sock
        self._tls = tls
        self._layer = layer
        self._clock = clock
        self._idle_timeout_s = idle_timeout_s
        self._happened = happened
        self._busy = busy
        self._broken = broken
        self._jobs: deque[_Job] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._heard_at = clock.monotonic()
        self.over = False
        self.sending = False  # a message has been begun and not ended: after a failure nothing more can follow

    def post(self, work: Callable[[], _T]) -> Future[_T]:
        """Have something done in the thread; the future fails with LinkError when the association has ended."""
        job = _Job(work, Future())
        self._jobs.append(job)
        if self.over:
            self._fail_jobs()
        else:
            with suppress(OSError):
                os.eventfd_write(self._bell, 1)
        return job.done

    def cut(self) -> None:
        """End the connection at once."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        """Shake hands, then serve until the association is closed. Raises OSError, LinkError."""
        if self._tls is not None:
            self._socket.settimeout(HANDSHAKE_S)
            self._socket = self._tls.wrap_socket(self._socket, server_side=True)
        self._socket.setblocking(False)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        layer, monotonic = self._layer, self._clock.monotonic
        while layer.state is not State.CLOSED:
            if self._jobs:
                self._do_jobs()
            count = self._read()
            now = monotonic()
            if count is None:
                self._wait(poll, now)
            elif count == 0:
                layer.closed()
            else:
                self._heard_at = now
                layer.received(count, now)
            if layer.has_news:
                for event in layer.take_events():
                    self._happened(event)
                self.flush()
        with suppress(OSError, LinkError):
            self.flush()

    def flush(self) -> None:
        """Write what the state machine has to say. Raises OSError, LinkError."""
        output = self._layer.take_output()
        if output:
            self.write([memoryview(b"".join(output))])

    def write(self, parts: list[memoryview]) -> None:
        """Write everything within the stall limit. Raises OSError, LinkError."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        self.sending = True
        while parts:
            try:
                sent = self._socket.sendmsg(parts) if self._tls is None else self._socket.send(parts[0])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                if not poll.poll(self._layer.stall_s * 1000):
                    raise LinkError(f"the peer took nothing for {self._layer.stall_s:g} s") from None
                continue
            parts = behind(parts, sent)
        self.sending = False

    def end(self) -> None:
        """Take no more jobs, and fail those that wait."""
        self.over = True
        self._fail_jobs()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        os.close(self._bell)

    def _read(self) -> int | None:
        """Read what is there; None when nothing is, 0 at the end."""
        sock = self._socket
        try:
            sock.setsockopt(*QUICKLY)
            if self._tls is None:
                return sock.recvmsg_into(self._layer.buffers())[0]
            return sock.recv_into(self._layer.buffers()[0])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLEOFError:
            return 0

    def _wait(self, poll: select.poll, now: float) -> None:
        """Wait for bytes, a job or a deadline."""
        idle_at = self._heard_at + self._idle_timeout_s
        busy = self._busy()
        deadlines = [at for at in (self._layer.deadline, None if busy else idle_at) if at is not None]
        left_s = min(deadlines, default=now + 3600.0) - now
        if left_s > 0:
            ready = poll.poll(left_s * 1000 + 1)
            if any(number == self._bell for number, _ in ready):
                os.eventfd_read(self._bell)
            return
        self._layer.tick(now)
        if not busy and now >= idle_at:
            self._layer.abort(now, "idle for too long")

    def _do_jobs(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            if not job.done.set_running_or_notify_cancel():
                continue
            if self._layer.state is not State.ESTABLISHED:
                job.done.set_exception(LinkError("the association has ended"))
                continue
            try:
                result = job.work()
                self.flush()
            except (LinkError, OSError) as error:
                if self.sending:
                    self._broken()
                job.done.set_exception(error if isinstance(error, LinkError) else LinkError(str(error.strerror)))
                if self.sending:
                    raise
            else:
                job.done.set_result(result)

    def _fail_jobs(self) -> None:
        while self._jobs:
            with suppress(IndexError):
                job = self._jobs.popleft()
                if job.done.set_running_or_notify_cancel():
                    job.done.set_exception(LinkError("the association has ended"))
