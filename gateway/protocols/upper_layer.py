"""The DICOM upper layer and its messages, both roles, without wires (PS3.8, 9.2; PS3.7, annex E).

    acceptor   AWAIT_REQUEST --A-ASSOCIATE-RQ--> DECIDE --accept--> ESTABLISHED      (Sta2, Sta3, Sta6)
                                                        --reject--> ENDING           (Sta13)
    requestor  AWAIT_ANSWER --A-ASSOCIATE-AC--> ESTABLISHED                          (Sta5, Sta6)
                            --A-ASSOCIATE-RJ--> CLOSED                               (Sta1)
    both       ESTABLISHED --A-RELEASE-RQ comes--> RELEASE_ASKED --answered--> ENDING          (Sta8, Sta13)
               ESTABLISHED --release--> RELEASE_SENT --A-RELEASE-RP--> CLOSED                  (Sta7, Sta1)
               RELEASE_SENT --A-RELEASE-RQ comes--> RELEASE_CROSSED --A-RELEASE-RP--> CLOSED   (Sta9 to Sta12)
               any --A-ABORT comes, the connection ends--> CLOSED
               any --a rule broken, a time out, abort--> A-ABORT goes out, ENDING

Bytes and time go in; bytes (`take_output`) and events (`take_events`) come out. The timers of the standard (ARTIM) are
`deadline` and `tick`: for the first PDU, for the rest of a PDU that has begun, and for the peer's close at the end.
Fragments become messages here, because where the payload goes depends on the command: `choose` is asked for a Sink.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from gateway.errors import FrameError
from gateway.protocols.dimse import COMMAND_BYTES_MAX, Command, decode_command, encode_command
from gateway.protocols.negotiation import (
    ACCEPTED,
    Acceptance,
    Proposal,
    Rejection,
    decode_accept,
    decode_rejection,
    decode_request,
    encode_accept,
    encode_rejection,
    encode_request,
)
from gateway.protocols.pdu import (
    COMMAND,
    LAST,
    STAGE_BYTES,
    BytesSink,
    Kind,
    PduError,
    PduReader,
    Reason,
    Sink,
    encode_abort,
    encode_fragments,
    encode_release_rp,
    encode_release_rq,
    fragment_bytes,
)

PDU_MAX = 128 << 10  # what we send in one PDU at most, where the peer takes it
PDU_SLACK = 64 << 10  # some senders disregard the size agreed on; this much of it does no harm
PDU_LIMIT_MIN = 1 << 20
FIRST_PDU_S = 5.0
STALL_S = 30.0  # a peer's time for the rest of a PDU
CLOSE_S = 2.0  # a peer's time to close after the last word
WASTE_BYTES_MAX = 1 << 20  # of what a peer still sends after it; more and we close

_USER, _PROVIDER = 0, 2


class State(Enum):
    """Where an association stands; the comment names the standard's state."""

    AWAIT_REQUEST = "Sta2"
    DECIDE = "Sta3"
    AWAIT_ANSWER = "Sta5"
    ESTABLISHED = "Sta6"
    RELEASE_SENT = "Sta7"
    RELEASE_ASKED = "Sta8"
    RELEASE_CROSSED = "Sta10, Sta11"  # both asked; the requestor of the association answers first
    ENDING = "Sta13"
    CLOSED = "Sta1"


@dataclass(frozen=True, slots=True)
class Requested:
    """A peer asks for an association: `accept`, `reject` or `abort`."""

    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer accepted ours."""

    acceptance: Acceptance


@dataclass(frozen=True, slots=True)
class Rejected:
    """The peer rejected ours; the connection may be closed."""

    rejection: Rejection


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message; `sink` holds its data set, None where it has none."""

    context_id: int
    command: Command
    sink: Sink | None


@dataclass(frozen=True, slots=True)
class ReleaseAsked:
    """The peer wants to release: `answer_release` when everything has been said."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The association is over: released, aborted (by whom), or cut. `words` says why, without a peer's data."""

    words: str
    released: bool = False
    aborted_by_peer: bool = False


Event = Requested | Accepted | Rejected | Message | ReleaseAsked | Ended


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


Choose = Callable[[int, Command], Sink]

_MAY_COME: dict[int, tuple[State, ...]] = {
    Kind.ASSOCIATE_RQ: (State.AWAIT_REQUEST,),
    Kind.ASSOCIATE_AC: (State.AWAIT_ANSWER,),
    Kind.ASSOCIATE_RJ: (State.AWAIT_ANSWER,),
    Kind.P_DATA: (State.ESTABLISHED, State.RELEASE_SENT),
    Kind.RELEASE_RQ: (State.ESTABLISHED, State.RELEASE_SENT),
    Kind.RELEASE_RP: (State.RELEASE_SENT, State.RELEASE_CROSSED),
    Kind.ABORT: tuple(State),
}


class UpperLayer:
    """One association. `pdu_max` is the variable field of a P-DATA PDU that we offer to take, in bytes."""

    def __init__(
        self,
        *,
        requestor: bool,
        pdu_max: int,
        choose: Choose,
        now: float,
        first_pdu_s: float = FIRST_PDU_S,
        stall_s: float = STALL_S,
    ) -> None:
        self.state = State.AWAIT_ANSWER if requestor else State.AWAIT_REQUEST
        self.contexts: dict[int, Context] = {}
        self.peer_pdu_max = 0
        self._requestor = requestor
        self._choose = choose
        self.stall_s = stall_s
        self._reader = PduReader(self, max(pdu_max + PDU_SLACK, PDU_LIMIT_MIN))
        self._proposal: Proposal | None = None
        self._output: list[bytes] = []
        self._events: list[Event] = []
        self._artim: float | None = None if requestor else now + first_pdu_s
        self._pdu_since: float | None = None
        self._message = _Assembly()
        self._waste = memoryview(bytearray(STAGE_BYTES))  # what comes after the end
        self._waste_bytes = 0

    # --- bytes and time in ---

    def buffers(self) -> list[memoryview]:
        """Return where the next bytes go; the first buffer is enough. Never empty, never raises."""
        if self.state is not State.ENDING and self.state is not State.CLOSED:
            try:
                return self._reader.buffers()
            except FrameError as error:  # a Sink has no room: its message is over
                self._break(error)
        return [self._waste]

    def received(self, count: int, now: float) -> None:
        """Take notice of `count` bytes in the buffers."""
        if self.state is State.ENDING or self.state is State.CLOSED:
            self._waste_bytes += count  # what still comes is not listened to (AA-6, AA-7)
            if self._waste_bytes > WASTE_BYTES_MAX:
                self.state = State.CLOSED
            return
        try:
            self._reader.received(count)
        except FrameError as error:
            self._break(error)
        self._time_pdu(now)

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that were not read into the buffers."""
        if self.state in (State.ENDING, State.CLOSED):
            return
        try:
            self._reader.receive(data)
        except FrameError as error:
            self._break(error)
        self._time_pdu(now)

    def closed(self, words: str = "the peer closed the connection") -> None:
        """Take notice that the connection has ended (AA-4, AR-5)."""
        if self.state is not State.CLOSED:
            was_ending = self.state is State.ENDING
            self.state = State.CLOSED
            if not was_ending:
                self._events.append(Ended(words))

    @property
    def deadline(self) -> float | None:
        """Return when to `tick`, None for never."""
        times = [at for at in (self._artim, self._pdu_deadline) if at is not None]
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Take notice that the deadline came."""
        if self._artim is not None and now >= self._artim:
            self._artim = None
            if self.state is State.AWAIT_REQUEST:
                self._end("no A-ASSOCIATE-RQ in time", now)
            self.state = State.CLOSED
        elif self._pdu_deadline is not None and now >= self._pdu_deadline:
            self._abort(_PROVIDER, Reason.NOT_SPECIFIED, f"a PDU not complete within {self.stall_s:g} s", now)

    # --- what the user of the association asks for ---

    def request(self, proposal: Proposal) -> None:
        """Ask for an association, as requestor, once connected."""
        assert self._requestor
        self._proposal = proposal
        self._output.append(encode_request(proposal))

    def accept(self, acceptance: Acceptance) -> None:
        """Accept what was Requested."""
        assert self.state is State.DECIDE
        assert self._proposal is not None
        self._agree(self._proposal, acceptance, self._proposal.pdu_max)
        self._output.append(encode_accept(acceptance))

    def reject(self, rejection: Rejection, now: float) -> None:
        """Reject what was Requested; the peer closes."""
        assert self.state is State.DECIDE
        self._output.append(encode_rejection(rejection))
        self._end("rejected", now)

    def send(self, context_id: int, command: Command, data: bytes = b"") -> None:
        """Send a message whose data set, if it has one, is in memory."""
        size = fragment_bytes(self.peer_pdu_max, PDU_MAX)
        self._output += encode_fragments(context_id, encode_command(command), COMMAND, size)
        if command.has_data:
            self._output += encode_fragments(context_id, data, 0, size)

    def release(self) -> None:
        """Ask for release."""
        assert self.state is State.ESTABLISHED
        self.state = State.RELEASE_SENT
        self._output.append(encode_release_rq())

    def answer_release(self, now: float) -> None:
        """Answer the peer's A-RELEASE-RQ, unless it aborted right behind it."""
        if self.state is not State.RELEASE_ASKED:
            return
        self._output.append(encode_release_rp())
        self._end("released", now, released=True)

    def abort(self, now: float, words: str = "aborted by us") -> None:
        """Abort, as the service user."""
        self._abort(_USER, 0, words, now)

    @property
    def inside(self) -> bool:
        """Return whether a PDU, or a message of several, has begun and not ended."""
        return self._reader.inside or self._message.begun

    @property
    def has_news(self) -> bool:
        """Return whether there is something to write, or something happened."""
        return bool(self._events or self._output)

    def take_output(self) -> list[bytes]:
        """Return what to write, in order."""
        output, self._output = self._output, []
        return output

    def take_events(self) -> list[Event]:
        """Return what happened, in order."""
        events, self._events = self._events, []
        return events

    # --- the reader's Taker ---

    def pdu_begins(self, kind: int, length: int) -> None:
        """Judge whether a PDU may come now (PS3.8, table 9-10)."""
        if kind not in _MAY_COME:
            raise PduError(f"PDU type {kind:02X} is unknown", Reason.UNRECOGNISED_PDU)
        if self.state not in _MAY_COME[kind]:
            raise PduError(f"PDU type {kind:02X} in state {self.state.value}", Reason.UNEXPECTED_PDU)

    def pdu_came(self, kind: int, body: bytes) -> None:
        """Act on a PDU that is not P-DATA."""
        match kind:
            case Kind.ASSOCIATE_RQ:
                self._proposal = decode_request(body)
                self._artim = None
                self.state = State.DECIDE
                self._events.append(Requested(self._proposal))
            case Kind.ASSOCIATE_AC:
                acceptance = decode_accept(body)
                assert self._proposal is not None
                self._agree(self._proposal, acceptance, acceptance.pdu_max)
                self._events.append(Accepted(acceptance))
            case Kind.ASSOCIATE_RJ:
                self.state = State.CLOSED
                self._events.append(Rejected(decode_rejection(body)))
            case Kind.RELEASE_RQ:
                self._release_asked()
            case Kind.RELEASE_RP:
                self._release_answered()
            case Kind.ABORT:
                self.state = State.CLOSED
                source, reason = (body[2], body[3]) if len(body) >= 4 else (0, 0)
                self._events.append(Ended(f"the peer aborted (source {source}, reason {reason})", aborted_by_peer=True))

    def pdv_begins(self, context_id: int, control: int, size: int) -> Sink:
        """Return where a fragment goes."""
        if context_id not in self.contexts:
            raise PduError(f"a fragment in presentation context {context_id}, which was not accepted")
        return self._message.begin(context_id, control)

    def pdv_came(self) -> None:
        """Take a whole fragment."""
        message = self._message.end(self._choose)
        if message is not None:
            self._message = _Assembly()
            self._events.append(message)

    # --- inside ---

    @property
    def _pdu_deadline(self) -> float | None:
        return None if self._pdu_since is None else self._pdu_since + self.stall_s

    def _time_pdu(self, now: float) -> None:
        """Measure from the first byte of a PDU; the next one starts anew."""
        reader = self._reader
        if self.state is State.ENDING or self.state is State.CLOSED or not reader.inside:
            self._pdu_since = None
        elif self._pdu_since is None or reader.began:
            self._pdu_since = now
        reader.began = False
        if self.state is State.ENDING and self._artim is None:
            self._artim = now + CLOSE_S

    def _agree(self, proposal: Proposal, acceptance: Acceptance, peer_pdu_max: int) -> None:
        proposed = {context.context_id: context for context in proposal.contexts}
        self.contexts = {
            answer.context_id: Context(proposed[answer.context_id].abstract_syntax, answer.transfer_syntax)
            for answer in acceptance.contexts
            if answer.result == ACCEPTED and answer.context_id in proposed
        }
        self.peer_pdu_max = peer_pdu_max
        self.state = State.ESTABLISHED

    def _release_asked(self) -> None:
        if self.state is State.ESTABLISHED:
            self.state = State.RELEASE_ASKED
            self._events.append(ReleaseAsked())
            return
        self.state = State.RELEASE_CROSSED
        if self._requestor:  # answers first (AR-8, AR-9)
            self._output.append(encode_release_rp())

    def _release_answered(self) -> None:
        if self.state is State.RELEASE_CROSSED and not self._requestor:
            self._output.append(encode_release_rp())
        self.state = State.CLOSED
        self._events.append(Ended("released", released=True))

    def _break(self, error: FrameError) -> None:
        reason = error.reason if isinstance(error, PduError) else Reason.INVALID_PARAMETER
        self._abort(_PROVIDER, reason, str(error), None)

    def _abort(self, source: int, reason: int, words: str, now: float | None) -> None:
        if self.state in (State.ENDING, State.CLOSED):
            return
        self._output.append(encode_abort(source, reason))
        self._end(words, now)

    def _end(self, words: str, now: float | None, *, released: bool = False) -> None:
        self.state = State.ENDING
        self._pdu_since = None
        self._artim = None if now is None else now + CLOSE_S
        self._events.append(Ended(words, released=released))


class _Assembly:
    """The message that is coming: command fragments, then those of the data set, all in one context."""

    def __init__(self) -> None:
        self._context_id = 0
        self._command_bytes: BytesSink | None = None
        self._command: Command | None = None
        self._sink: Sink | None = None
        self._control = 0

    @property
    def begun(self) -> bool:
        return self._command_bytes is not None

    def begin(self, context_id: int, control: int) -> Sink:
        if self._command_bytes is None:
            if not control & COMMAND:
                raise PduError("a data set without a command", Reason.UNEXPECTED_PARAMETER)
            self._context_id = context_id
            self._command_bytes = BytesSink(COMMAND_BYTES_MAX)
        elif context_id != self._context_id:
            raise PduError("a message in two presentation contexts")
        self._control = control
        if control & COMMAND:
            if self._command is not None:
                raise PduError("a command where its data set was to follow", Reason.UNEXPECTED_PARAMETER)
            return self._command_bytes
        if self._sink is None:
            raise PduError("a data set before its command was complete", Reason.UNEXPECTED_PARAMETER)
        return self._sink

    def end(self, choose: Choose) -> Message | None:
        assert self._command_bytes is not None
        if not self._control & LAST:
            return None
        if self._control & COMMAND:
            self._command = decode_command(self._command_bytes.data)
            if self._command.has_data:
                self._sink = choose(self._context_id, self._command)
                return None
        assert self._command is not None
        return Message(self._context_id, self._command, self._sink)
