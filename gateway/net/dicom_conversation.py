"""The conversation on an association that we requested: its life, its one outstanding operation, what the peer asks.

    connected --A-ASSOCIATE-AC--> open --one operation at a time--> open --release--> closed
                                  open --A-ABORT, silence, a response nobody asked for--> closed, LinkError

One operation is outstanding (the window is one), and a response belongs to the operation whose message id it names, so
none can be taken by another. What the peer asks for on the same association (N-EVENT-REPORT, the C-STOREs of a C-GET)
is answered by `serve`. Every wait has a limit: connecting and negotiating `connect_timeout_s`, a response
`response_timeout_s`, a write without progress `stall_s`, a release RELEASE_S.
"""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from gateway.clock import Clock
from gateway.errors import GatewayError, LinkError, TemporaryError
from gateway.formats.dicom import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION
from gateway.net.dicom_file import FileOut
from gateway.net.dicom_peer import Answer, Asked, NoAnswerError, NoContextError, Peer, PeerAbortError, Reply, Wanted
from gateway.net.dicom_wire import Wire
from gateway.protocols.dimse import Command, Field, encode_command, response_to
from gateway.protocols.negotiation import CONTEXTS_MAX, Acceptance, Proposal, ProposedContext, Role
from gateway.protocols.pdu import COMMAND, BytesSink, Sink, encode_fragments, fragment_bytes
from gateway.protocols.upper_layer import (
    PDU_MAX,
    Accepted,
    Context,
    Ended,
    Event,
    Message,
    Rejected,
    ReleaseAsked,
    Requested,
    State,
    UpperLayer,
)

RELEASE_S = 5.0
LAST_WORD_S = 0.5  # for an A-ABORT that is still on its way when a write has failed
RESPONSES_MAX = 64  # responses not yet looked at; more and nothing is read
DATA_SET_BYTES_MAX = 16 << 20  # of a response, or of what a peer asks; objects have a Sink of their own
PENDING = (0xFF00, 0xFF01)

Serve = Callable[[Asked], Awaitable[Reply]]
ChooseSink = Callable[[Context, Command], Sink]


@dataclass(slots=True)
class Operation:
    """What is outstanding, and what came in answer; `last` when that was all."""

    context_id: int
    message_id: int
    last: bool = False
    came: deque[Message] = field(default_factory=deque)
    waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let whoever waits look."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Conversation:
    """One association; `peer` is whom it is with. One task at a time has an operation, others wait."""

    def __init__(self, peer: Peer, clock: Clock, serve: Serve | None, choose: ChooseSink | None) -> None:
        self.peer = peer
        self._clock = clock
        self._serve = serve
        self._choose = choose
        self._layer = UpperLayer(requestor=True, pdu_max=PDU_MAX, choose=self._sink, now=clock.monotonic())
        self._wire = Wire(
            lambda: self._layer.buffers()[0], self._received, self._lost, stall_s=peer.stall_s, name="dicom-out"
        )
        self._wire.pace = peer.pace
        self._opened: asyncio.Future[Acceptance] = asyncio.get_running_loop().create_future()
        self._ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._one = asyncio.Lock()
        self._operation: Operation | None = None
        self._message_id = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.ids: dict[tuple[str, str], int] = {}  # of the contexts, by SOP Class and transfer syntax
        self.acceptance: Acceptance | None = None

    @property
    def is_open(self) -> bool:
        """Return whether operations may still be asked for."""
        return self._layer.state is State.ESTABLISHED

    async def open(self, contexts: Sequence[Wanted], roles: Mapping[str, Role], extended: Mapping[str, bytes]) -> None:
        """Connect and associate. Raises TemporaryError, NoContextError, LinkError."""
        assert 0 < len(contexts) <= CONTEXTS_MAX, "1 to 128 contexts"
        peer = self.peer
        proposal = Proposal(
            called_ae_title=peer.ae_title,
            calling_ae_title=peer.calling_ae_title,
            contexts=tuple(
                ProposedContext(2 * number + 1, wanted.sop_class_uid, wanted.transfer_syntaxes)
                for number, wanted in enumerate(contexts)
            ),
            pdu_max=PDU_MAX,
            implementation_uid=IMPLEMENTATION_UID,
            implementation_version=IMPLEMENTATION_VERSION.decode(),
            roles=roles,
            extended=extended,
        )
        try:
            async with asyncio.timeout(peer.connect_timeout_s):
                await self._wire.connect(peer.host, peer.port, peer.tls, peer.server_name)
                self._layer.request(proposal)
                await self._flush()
                self.acceptance = await self._opened
        except TimeoutError:
            raise LinkError(f"{peer.words}: no association within {peer.connect_timeout_s:g} s") from None
        except OSError as error:
            raise LinkError(f"{peer.words}: {_reason(error)}") from error
        for context_id, context in self._layer.contexts.items():
            self.ids.setdefault((context.abstract_syntax, context.transfer_syntax), context_id)
        if not self.ids:
            raise NoContextError(f"{peer.words} accepted none of the presentation contexts")

    def context_id(self, sop_class_uid: str, transfer_syntax: str | None = None) -> int:
        """Return the first context of a SOP Class, or that in one transfer syntax. Raises NoContextError."""
        for (uid, syntax), context_id in self.ids.items():
            if uid == sop_class_uid and transfer_syntax in (None, syntax):
                return context_id
        raise NoContextError(
            f"{self.peer.words} takes no SOP Class {sop_class_uid}"
            + (f" in {transfer_syntax}" if transfer_syntax else "")
        )

    @property
    def fragment(self) -> int:
        """Return how many bytes of a data set go into one PDU."""
        return fragment_bytes(self._layer.peer_pdu_max, PDU_MAX)

    @asynccontextmanager
    async def ask(
        self, context_id: int, command: Command, data: bytes = b"", *, file: FileOut | None = None
    ) -> AsyncIterator[Operation]:
        """Ask for an operation, with a data set or a file as that; its message id is given to it here.

        Raises LinkError, after which all is over, and OSErrors of the file before anything was sent.
        """
        async with self._one:
            operation = await self._begin(context_id, command, data, file)
            try:
                yield operation
            finally:
                self._operation = None

    def look_ahead(self, file: FileOut) -> None:
        """Read the beginning of what is likely to be asked for next, while the response is awaited."""
        self._wire.look_ahead(file)

    async def response(self, operation: Operation) -> Answer:
        """Wait for the next response of an operation. Raises LinkError."""
        if not operation.came and not self._ended.done():
            operation.waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self.peer.response_timeout_s):
                    await operation.waiter
            except TimeoutError:
                await self._give_up("no response in time")
                words = f"{self.peer.words}: no response within {self.peer.response_timeout_s:g} s"
                raise NoAnswerError(words) from None
            except asyncio.CancelledError:
                await self._give_up("an operation was cancelled")
                raise
        if operation.came:
            if len(operation.came) == RESPONSES_MAX // 2:
                self._wire.pause(False)
            return self._answer(operation.came.popleft())
        raise self._end_error()

    async def cancel(self, operation: Operation) -> None:
        """Say C-CANCEL and read up to the final response."""
        command = Command(field=Field.C_CANCEL, responded_to=operation.message_id)
        self._layer.send(operation.context_id, command)
        with suppress(LinkError):
            await self._flush()
            while (await self.response(operation)).status in PENDING:
                pass

    async def release(self) -> None:
        """Release, so that the peer knows all has come; never raises for a peer that has gone.

        Who is cancelled meanwhile leaves no connection behind: a peer that serves one at a time would wait for ever.
        """
        try:
            if self.is_open:
                self._layer.release()
                with suppress(GatewayError, TimeoutError):
                    async with asyncio.timeout(RELEASE_S):
                        await self._flush()
                        await asyncio.shield(self._ended)
        finally:
            await self.abort()

    async def abort(self) -> None:
        """Abort if it still stands, and close."""
        try:
            if self._layer.state not in (State.ENDING, State.CLOSED):
                self._layer.abort(self._clock.monotonic())
                self._happened()
                with suppress(GatewayError, TimeoutError):
                    async with asyncio.timeout(RELEASE_S):
                        await self._flush()
        finally:
            for task in self._serving:
                task.cancel()
            if self._timer is not None:
                self._timer.cancel()
            await self._wire.close()

    # --- inside ---

    async def _begin(self, context_id: int, command: Command, data: bytes, file: FileOut | None) -> Operation:
        if not self.is_open:
            raise self._end_error()
        self._message_id = self._message_id % 0xFFFF + 1
        operation = self._operation = Operation(context_id, self._message_id)
        command = replace(command, message_id=self._message_id)
        try:
            if file is None:
                self._layer.send(context_id, command, data)
                await self._flush()
            else:
                head = list(encode_fragments(context_id, encode_command(command), COMMAND, file.fragment))
                await self._wire.write_file(head, file)
        except OSError:  # the file: nothing was sent
            self._operation = None
            raise
        except LinkError as error:
            self._operation = None
            await asyncio.wait({self._ended}, timeout=LAST_WORD_S)  # an A-ABORT may explain it
            await self._give_up(str(error))
            raise self._end_error() from error
        except BaseException:  # cancelled with a message half sent: nothing more can follow on this association
            self._operation = None
            await self._give_up("an operation was cancelled")
            raise
        return operation

    async def _give_up(self, words: str) -> None:
        if self._layer.state not in (State.ENDING, State.CLOSED):
            self._layer.abort(self._clock.monotonic(), words)
            self._happened()
            with suppress(GatewayError):
                await self._flush()
        self._wire.cut()

    async def _flush(self) -> None:
        output = self._layer.take_output()
        if output:
            await self._wire.write(output)

    def _answer(self, message: Message) -> Answer:
        command = message.command
        return Answer(
            status=0 if command.status is None else command.status,
            comment=command.comment,
            command=command,
            data=message.sink.data if isinstance(message.sink, BytesSink) else b"",
            transfer_syntax=self._layer.contexts[message.context_id].transfer_syntax,
        )

    def _sink(self, context_id: int, command: Command) -> Sink:
        if command.is_response or self._choose is None:
            return BytesSink(DATA_SET_BYTES_MAX)
        return self._choose(self._layer.contexts[context_id], command)

    # --- what comes, on the loop ---

    def _received(self, count: int) -> bool:
        """Take bytes; return whether more is awaited before something is written."""
        self._layer.received(count, self._clock.monotonic())
        self._happened()
        self._write_soon()
        return self._operation is None or not self._operation.last

    def _lost(self, words: str) -> None:
        self._layer.closed(words)
        self._happened()

    def _happened(self) -> None:
        for event in self._layer.take_events():
            self._happen(event)
        self._set_timer()

    def _happen(self, event: Event) -> None:
        match event:
            case Accepted(acceptance):
                if not self._opened.done():
                    self._opened.set_result(acceptance)
            case Rejected(rejection):
                words = f"{self.peer.words} rejected the association: {rejection.words}"
                self._fail_opening(TemporaryError(words) if rejection.is_transient else LinkError(words))
            case Message():
                self._message_came(event)
            case ReleaseAsked():
                self._layer.answer_release(self._clock.monotonic())
                self._happened()
            case Ended():
                if not self._ended.done():
                    self._ended.set_result(event)
                if self._operation is not None:
                    self._operation.wake()
                self._fail_opening(self._end_error())
            case Requested():
                raise AssertionError("a requestor is not requested")

    def _message_came(self, message: Message) -> None:
        command = message.command
        if not command.is_response:
            self._begin_serving(message)
        elif self._operation is not None and command.responded_to == self._operation.message_id:
            self._operation.came.append(message)
            self._operation.last = command.status not in PENDING
            self._operation.wake()
            if len(self._operation.came) == RESPONSES_MAX:
                self._wire.pause(True)
        else:
            self._layer.abort(self._clock.monotonic(), "a response to nothing that was asked")
            self._happened()

    def _begin_serving(self, message: Message) -> None:
        if message.command.field == Field.C_CANCEL:
            return
        if len(self._serving) > 1:
            self._layer.abort(self._clock.monotonic(), "more requests than the window allows")
            self._happened()
            return
        task = asyncio.get_running_loop().create_task(self._answer_request(message))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _answer_request(self, message: Message) -> None:
        command = message.command
        asked = Asked(command=command, context=self._layer.contexts[message.context_id], sink=message.sink)
        reply = Reply(status=0x0211, comment="not offered on this association")
        if command.field == Field.C_ECHO:
            reply = Reply(status=0)
        elif self._serve is not None:
            reply = await self._serve(asked)
        response = Command(
            field=response_to(command.field),
            responded_to=command.message_id,
            sop_class_uid=command.sop_class_uid,
            sop_instance_uid=command.sop_instance_uid,
            event_type=command.event_type,
            action_type=command.action_type,
            status=reply.status,
            comment=reply.comment,
            has_data=bool(reply.data),
        )
        if self._layer.state is State.ESTABLISHED:
            self._layer.send(message.context_id, response, reply.data)
            with suppress(LinkError):  # whoever waits for the association hears of its end
                await self._flush()

    def _write_soon(self) -> None:
        """Write what the layer itself had to say: a release's answer, an abort."""
        output = self._layer.take_output()
        if output:
            task = asyncio.get_running_loop().create_task(self._write_quietly(output))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _write_quietly(self, output: list[bytes]) -> None:
        with suppress(LinkError):
            await self._wire.write(output)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._layer.deadline
        if deadline is not None:
            delay = max(0.0, deadline - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._layer.tick(self._clock.monotonic())
        if self._layer.state is State.CLOSED:
            self._wire.cut()
        self._happened()
        self._write_soon()

    def _fail_opening(self, error: GatewayError) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()  # seen, should nobody wait any more

    def _end_error(self) -> LinkError:
        if not self._ended.done():
            return LinkError(f"{self.peer.words}: the association is being released")
        ended = self._ended.result()
        kind = PeerAbortError if ended.aborted_by_peer else LinkError
        return kind(f"{self.peer.words}: {ended.words}")


def _reason(error: OSError) -> str:
    """Return why, in the system's words: those of asyncio and OpenSSL name addresses and lines of source."""
    if reason := getattr(error, "reason", None):
        return str(reason)
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error) or type(error).__name__
