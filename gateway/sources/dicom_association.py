"""One association that a peer opened, in a thread of its own (PS3.8; PS3.7).

The thread (`dicom_thread.py`) owns the connection and the state machine; it answers C-ECHO and C-STORE and asks the
loop's services for everything else. Services and whoever reports on the association hand it jobs. One request of the
peer is answered at a time (the window is one), our own requests besides it.

Why a thread: the data path blocks on the disk, and a blocking read or write leaves the interpreter to others.
"""

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from gateway.clock import Clock
from gateway.config import DicomSource as Settings
from gateway.errors import LinkError, place_of
from gateway.formats.dicom import IMPLICIT_LITTLE, clean_uid, part10_prefix, unpadded
from gateway.formats.identifiers import decode, encode
from gateway.imaging.negotiation import Offer, answer
from gateway.imaging.receiving import BLOCK_BYTES, ObjectSink
from gateway.imaging.service import (
    PROCESSING_FAILURE,
    SUCCESS,
    Caller,
    Held,
    Outcome,
    Request,
)
from gateway.imaging.storage import CANNOT_UNDERSTAND, Arrival, Keeper, Status, refusal, store
from gateway.net.dicom_file import BegunFile, FileOut, room_for_file, views
from gateway.protocols.dimse import Command, Field, encode_command
from gateway.protocols.negotiation import Proposal, Rejection, Role
from gateway.protocols.pdu import COMMAND, BytesSink, PduError, Reason, Sink, encode_fragments, fragment_bytes
from gateway.protocols.upper_layer import (
    FIRST_PDU_S,
    PDU_MAX,
    STALL_S,
    Ended,
    Event,
    Message,
    ReleaseAsked,
    Requested,
    State,
    UpperLayer,
)
from gateway.sources.dicom_exchange import ServiceExchange, outcome_of, response_of
from gateway.sources.dicom_thread import AssociationThread

IDENTIFIER_BYTES_MAX = 1 << 20  # a commitment request for 5,000 Instances has 600 kB
RESPONSE_S = 60.0  # a peer's time to answer what we ask on its association
REQUESTS_MAX = 4  # waiting behind the one being answered
SOP_CLASS_NOT_SUPPORTED, NO_SUCH_OPERATION, RESOURCE_LIMITATION = 0x0122, 0x0211, 0x0213

NOT_OFFERED = "not offered"

_FIELDS = frozenset(Field)
_log = logging.getLogger("gateway.sources")
_T = TypeVar("_T")


class Hall(Protocol):
    """What the Source gives its associations."""

    settings: Settings
    clock: Clock
    keeper: Keeper
    offer: Offer
    loop: asyncio.AbstractEventLoop

    def judge(self, proposal: Proposal, host: str) -> tuple[Rejection, str] | None:
        """Return why an association is rejected, None when it may stand."""
        ...

    def opened(self, association: "AcceptedAssociation") -> None:
        """Hear that an association stands."""
        ...

    def stored(self, status: Status) -> None:
        """Hear what became of an Instance."""
        ...

    def ended(self, association: "AcceptedAssociation") -> None:
        """Hear that the connection has ended."""
        ...


class AcceptedAssociation:
    """`run` is the thread; everything else may be called from any. See `OpenAssociation`."""

    def __init__(self, sock: socket.socket, host: str, tls: ssl.SSLContext | None, hall: Hall) -> None:
        self.host = host
        self.caller = Caller(calling_ae_title="", called_ae_title="", host=host, source=hall.settings.name)
        self.connection = sock  # as it was accepted
        self._hall = hall
        self._clock = hall.clock
        self._layer = UpperLayer(
            requestor=False,
            pdu_max=hall.settings.pdu_max,
            choose=self._choose,
            now=self._clock.monotonic(),
            first_pdu_s=FIRST_PDU_S,
            stall_s=STALL_S,
        )
        self._proposal: Proposal | None = None
        self._extended: Mapping[str, bytes] = {}
        self._roles: Mapping[str, Role] = {}
        self._block: memoryview | None = None
        self._sinks: set[ObjectSink] = set()
        self._requests: deque[Message] = deque()
        self._exchange: ServiceExchange | None = None
        self._asked: dict[int, Future[Command]] = {}
        self._message_id = 0
        self._chunk: bytearray | None = None
        self._thread = AssociationThread(
            sock,
            tls,
            self._layer,
            self._clock,
            idle_timeout_s=hall.settings.idle_timeout_s,
            happened=self._happen,
            busy=lambda: self._exchange is not None or bool(self._asked),
            broken=self._end_exchange,
        )

    # --- from other threads ---

    @property
    def stands(self) -> bool:
        """Return whether the association is established."""
        return not self._thread.over and self._layer.state is State.ESTABLISHED

    @property
    def sop_classes(self) -> frozenset[str]:
        """Return the SOP Classes that have an accepted context."""
        return frozenset(context.abstract_syntax for context in self._layer.contexts.values())

    def taken_by_peer(self, sop_class_uid: str) -> tuple[str, ...]:
        """Return the transfer syntaxes in which the peer, as SCP by role selection, takes a SOP Class."""
        role = self._roles.get(sop_class_uid)
        if role is None or not role.scp:
            return ()
        contexts = self._layer.contexts.values()
        return tuple(context.transfer_syntax for context in contexts if context.abstract_syntax == sop_class_uid)

    def stop(self) -> None:
        """Abort, as soon as the thread looks up."""
        self._thread.post(lambda: self._layer.abort(self._clock.monotonic(), "the listener stops"))

    def cut(self) -> None:
        """End the connection at once."""
        self._thread.cut()

    async def report(self, sop_class_uid: str, sop_instance_uid: str, event_type: int, data: bytes) -> int:
        """Send N-EVENT-REPORT with a data set in Implicit VR Little Endian and return its status. Raises LinkError.

        Where the peer takes the SOP Class in another transfer syntax only, the data set is written anew in that.
        """
        syntaxes = [
            context.transfer_syntax
            for context in self._layer.contexts.values()
            if context.abstract_syntax == sop_class_uid
        ]
        syntax = IMPLICIT_LITTLE
        if syntaxes and IMPLICIT_LITTLE not in syntaxes:
            syntax = syntaxes[0]
            data = encode(decode(data, IMPLICIT_LITTLE), syntax)
        command = Command(
            field=Field.N_EVENT_REPORT,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            event_type=event_type,
            has_data=True,
        )
        return (await self.ask(sop_class_uid, syntax, command, data)).status or 0

    async def ask(self, sop_class_uid: str, transfer_syntax: str, command: Command, data: bytes | Held) -> Command:
        """Ask the peer something and return its response. Raises LinkError."""
        response: Future[Command] = Future()

        def work() -> None:
            context_id = self._context_id(sop_class_uid, transfer_syntax)
            self._message_id = self._message_id % 0xFFFF + 1
            numbered = replace(command, message_id=self._message_id)
            if isinstance(data, Held):
                self._send_file(context_id, numbered, data)
            else:
                self._layer.send(context_id, numbered, data)
            self._asked[self._message_id] = response  # not before: what could not be sent is not awaited

        await self.perform(work)
        try:
            async with asyncio.timeout(RESPONSE_S):
                return await asyncio.wrap_future(response)
        except TimeoutError:
            self.stop()
            raise LinkError(f"no answer from {self.host} within {RESPONSE_S:g} s") from None

    async def perform(self, work: Callable[[], _T]) -> _T:
        """Do something in the thread and return its result. Raises LinkError when the association has ended."""
        return await asyncio.wrap_future(self._thread.post(work))

    # --- the thread ---

    def run(self) -> None:
        """Serve until released, aborted or cut; never raises."""
        try:
            self._thread.serve()
        except OSError as error:
            self._layer.closed(f"the connection failed: {error.strerror or type(error).__name__}")
        except LinkError as error:
            self._layer.closed(str(error))
        except Exception as error:  # noqa: BLE001  # border: a bug here ends one association, not the listener
            _log.error(
                "association.crashed source=%s error=%s place=%s",
                self._hall.settings.name,
                type(error).__name__,
                place_of(error),
            )
        finally:
            self._end()

    def _end(self) -> None:
        self._thread.end()
        for response in self._asked.values():
            if not response.done():
                response.set_exception(LinkError("the association has ended"))
        self._end_exchange()
        for sink in self._sinks:
            sink.discard()
        self._hall.ended(self)
        self._thread.close()

    def _end_exchange(self) -> None:
        if self._exchange is not None:
            self._exchange.end()

    # --- what happens ---

    def _happen(self, event: Event) -> None:
        match event:
            case Requested(proposal) if self._layer.state is State.DECIDE:  # an A-ABORT may have come right behind it
                self._requested(proposal)
            case Message():
                self._message_came(event)
            case ReleaseAsked():
                self._layer.answer_release(self._clock.monotonic())
            case Ended():
                self._end_exchange()
                _log.debug("association.ended source=%s reason=%s", self._hall.settings.name, event.words)

    def _requested(self, proposal: Proposal) -> None:
        verdict = self._hall.judge(proposal, self.host)
        if verdict is not None:
            rejection, words = verdict
            _log.warning("association.rejected source=%s host=%s reason=%s", self._hall.settings.name, self.host, words)
            self._layer.reject(rejection, self._clock.monotonic())
            return
        settings = self._hall.settings
        acceptance = answer(proposal, settings.services, self._hall.offer, settings.pdu_max)
        self._proposal = proposal
        self._extended = acceptance.extended
        self._roles = acceptance.roles
        self.caller = replace(
            self.caller, calling_ae_title=proposal.calling_ae_title, called_ae_title=proposal.called_ae_title
        )
        self._layer.accept(acceptance)
        self._hall.opened(self)

    def _choose(self, context_id: int, command: Command) -> Sink:
        """Say where a data set goes."""
        if not command.is_response and command.field not in _FIELDS:
            raise PduError(f"command field {command.field:04X} is unknown", Reason.UNRECOGNISED_PARAMETER)
        if command.field != Field.C_STORE:
            return BytesSink(IDENTIFIER_BYTES_MAX)
        if self._block is None:
            self._block = memoryview(bytearray(BLOCK_BYTES))
        prefix = part10_prefix(
            sop_class_uid=clean_uid(command.sop_class_uid),
            sop_instance_uid=clean_uid(command.sop_instance_uid),
            transfer_syntax=self._layer.contexts[context_id].transfer_syntax,
            source_ae=self.caller.calling_ae_title,
        )
        keeper = self._hall.keeper
        refused = keeper.intake.refusing if self._stores else NOT_OFFERED
        sink = ObjectSink(self._block, keeper.spool, prefix, keeper.keywords, refused)
        self._sinks.add(sink)
        return sink

    def _message_came(self, message: Message) -> None:
        command = message.command
        if command.is_response:
            asked = self._asked.pop(command.responded_to or 0, None)
            if asked is None:
                self._layer.abort(self._clock.monotonic(), "a response to nothing that was asked")
            elif not asked.done():
                asked.set_result(command)
        elif command.field == Field.C_CANCEL:
            if self._exchange is not None and self._exchange.message_id == command.responded_to:
                self._exchange.cancel()
        elif command.field == Field.C_STORE:
            self._store(message)
        elif command.field == Field.C_ECHO:
            self.respond(message, Outcome(status=SUCCESS))
        elif self._exchange is None:
            self._begin_service(message)
        elif len(self._requests) < REQUESTS_MAX:
            self._requests.append(message)
        else:
            self.respond(message, Outcome(status=RESOURCE_LIMITATION, comment="one request at a time"))

    # --- C-STORE ---

    @property
    def _stores(self) -> bool:
        return "storage" in self._hall.settings.services

    def _store(self, message: Message) -> None:
        """Answer a C-STORE. Whatever goes wrong here, the sender keeps its copy."""
        try:
            status = self._keep(message)
        except Exception as error:  # noqa: BLE001  # border: a bug must not make the sender drop its copy
            _log.error(
                "instance.failed source=%s error=%s place=%s",
                self._hall.settings.name,
                type(error).__name__,
                place_of(error),
            )
            status = refusal("internal fault")
        self.respond(message, Outcome(status=status.code, comment=status.comment))
        self._thread.flush()
        self._hall.stored(status)

    def _keep(self, message: Message) -> Status:
        sink, command = message.sink, message.command
        if not isinstance(sink, ObjectSink):
            return Status(code=CANNOT_UNDERSTAND, comment="no data set came with the command")
        received_at = self._clock.now()
        received = sink.finish()
        self._sinks.discard(sink)
        if not self._stores:  # its contexts are there for C-GET alone
            return Status(code=SOP_CLASS_NOT_SUPPORTED, comment=NOT_OFFERED)
        if received is None:
            return refusal(sink.refused or "no file")
        return store(
            Arrival(
                received=received,
                sop_class_uid=clean_uid(command.sop_class_uid),
                sop_instance_uid=unpadded(command.sop_instance_uid),
                transfer_syntax=self._layer.contexts[message.context_id].transfer_syntax,
                peer=f"{self.caller.calling_ae_title}@{self.host}",
                received_at=received_at,
            ),
            self._hall.keeper,
        )

    # --- services on the loop ---

    def _begin_service(self, message: Message) -> None:
        command = message.command
        context = self._layer.contexts[message.context_id]
        sop_class = clean_uid(command.sop_class_uid) or context.abstract_syntax
        service = self._hall.offer.services.get((command.field, sop_class))
        if service is None:
            known = sop_class in self._hall.offer.sop_classes
            status = NO_SUCH_OPERATION if known else SOP_CLASS_NOT_SUPPORTED
            self.respond(message, Outcome(status=status, comment=NOT_OFFERED))
            return
        request = Request(
            caller=self.caller,
            field=command.field,
            message_id=command.message_id or 0,
            sop_class_uid=sop_class,
            transfer_syntax=context.transfer_syntax,
            received_at=self._clock.now(),
            data=message.sink.data if isinstance(message.sink, BytesSink) else b"",
            sop_instance_uid=clean_uid(command.sop_instance_uid),
            action_type=command.action_type,
            event_type=command.event_type,
            move_destination=command.move_destination,
            sop_class_extended=self._extended.get(sop_class, b""),
        )
        exchange = self._exchange = ServiceExchange(self, message)
        running = asyncio.run_coroutine_threadsafe(outcome_of(service, request, exchange), self._hall.loop)
        running.add_done_callback(lambda done: self._thread.post(partial(self._finish_service, message, done)))

    def _finish_service(self, message: Message, done: Future[Outcome]) -> None:
        self._exchange = None
        try:
            outcome = done.result()
        except CancelledError:
            outcome = Outcome(status=PROCESSING_FAILURE, comment="the service stops")
        self.respond(message, outcome)
        if self._requests:
            self._begin_service(self._requests.popleft())

    def respond(self, message: Message, outcome: Outcome) -> None:
        """Send a response; in the thread."""
        self._layer.send(message.context_id, response_of(message.command, outcome), outcome.data)

    def _context_id(self, sop_class_uid: str, transfer_syntax: str) -> int:
        for context_id, context in self._layer.contexts.items():
            if (context.abstract_syntax, context.transfer_syntax) == (sop_class_uid, transfer_syntax):
                return context_id
        raise LinkError(f"{self.host} takes no SOP Class {sop_class_uid} in {transfer_syntax}")

    def _send_file(self, context_id: int, command: Command, held: Held) -> None:
        """Send a C-STORE-RQ whose data set is a file. Raises LinkError, after which all is over, OSError before."""
        fragment = fragment_bytes(self._layer.peer_pdu_max, PDU_MAX)
        size = held.path.stat().st_size - held.dataset_offset
        self._chunk = self._chunk or room_for_file()
        begun = BegunFile(FileOut(held.path, held.dataset_offset, size, context_id, fragment), self._chunk)
        try:
            self._thread.flush()
            head = list(encode_fragments(context_id, encode_command(command), COMMAND, fragment))
            self._thread.write([*views(head), *begun.first])
            self._thread.sending = True
            for parts in begun.more:
                self._thread.write(parts)
                self._thread.sending = True
            self._thread.sending = False
        finally:
            begun.close()
