"""ASTM E1381 link layer (CLSI LIS01-A2), the host's side.

    neutral --ENQ/ACK--> receiving --frame/ACK|NAK--> receiving --EOT--> neutral
    neutral --ENQ--> enquiring --ACK--> sending --frame--> sending --last ACK, EOT--> neutral
                     enquiring --NAK, ENQ, nothing--> neutral, again later

The acknowledgement of the frame that holds the L record is withheld until the Reading is on disk, because an analyser
deletes what we acknowledge; was it not stored, the frame is NAKed and the analyser repeats it. What the records mean,
and what is answered to a query, is left to the driver. Timers: LIS01-A2, 6.5.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from gateway.laboratory import LabOrder, LabQuery
from gateway.model import Reading
from gateway.protocols.astm_frames import ACK, CR, ENQ, EOT, NAK, Frame, FrameCutter, Noise, Signal, frames
from gateway.protocols.border import Reader, reading_of
from gateway.protocols.faults import FaultBin

RECEIVE_TIMEOUT_S = 30.0  # nothing from the sender
REPLY_TIMEOUT_S = 15.0  # nothing from the receiver
REFUSED_PAUSE_S = 10.0  # after NAK to ENQ
CONTENTION_PAUSE_S = 20.0  # the analyser has priority
ANSWER_S = 5.0  # nobody knows an order within this time: the analyser is told so
LINE_END_S = 0.1  # a frame that ends with its check characters
TRIES_MAX = 6
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
NOISE_BYTES_MAX = 4096
ANSWERS_MAX = 16


class _State(Enum):
    NEUTRAL = "neutral"
    RECEIVING = "receiving"
    ENQUIRING = "enquiring"
    SENDING = "sending"


@dataclass(frozen=True, slots=True)
class _Message:
    """What came of one message: the frames as received, the text in them, and the number of the last frame."""

    raw: bytes = b""
    text: bytes = b""
    number: int | None = None

    @property
    def expected(self) -> int:
        return 1 if self.number is None else (self.number + 1) % 8

    @property
    def ended(self) -> bool:
        last = self.text.rstrip(b"\r\n").rpartition(CR)[2].lstrip(b"\n")
        return last[:1] == b"L"

    def with_frame(self, frame: Frame) -> "_Message":
        whole = not frame.continued or frame.text.endswith(CR)
        end = CR if whole and not frame.text.endswith((CR, CR + b"\n")) else b""
        return _Message(self.raw + frame.raw, self.text + frame.text + end, frame.number)

    def next(self) -> "_Message":
        return _Message(number=self.number)


class AstmSession:
    """Receives messages of an analyser and sends it answers.

    `read` gets the records of one message, each ended by CR, and returns the Results in them. `identify` returns the
    analyser's own mark of a message, by which a repeat is known, or None. `transmit` False listens beside another
    host: nothing is said. `checked` and `begins_with_enq` are off only for analysers that need it. `query_of` returns
    what a message asks for, None where it asks nothing; `render` the records (without CR) that answer it.
    """

    def __init__(
        self,
        read: Reader,
        *,
        identify: Callable[[bytes], str | None] = lambda _: None,
        transmit: bool = True,
        checked: bool = True,
        begins_with_enq: bool = False,
        query_of: Callable[[bytes], LabQuery | None] = lambda _: None,
        render: Callable[[LabQuery, Sequence[LabOrder]], Sequence[bytes]] = lambda _, __: (),
    ) -> None:
        self._read = read
        self._identify = identify
        self._query_of = query_of
        self._render = render
        self._transmit = transmit
        self._begins_with_enq = begins_with_enq
        self._cutter = FrameCutter(checked=checked)
        self._state = _State.NEUTRAL
        self._message = _Message()
        self._before: _Message | None = None  # while the last frame's acknowledgement is withheld
        self._withheld: deque[bool] = deque()  # for each Reading taken: does an acknowledgement wait for it?
        self._readings: list[Reading] = []
        self._output = b""
        self._line_end_at: float | None = None
        self._silent_at: float | None = None
        self._noise = FaultBin(delay_s=1.0, raw_bytes_max=NOISE_BYTES_MAX)
        self._queries: list[LabQuery] = []
        self._question: LabQuery | None = None  # of the message that came last
        self._open: deque[tuple[LabQuery, float]] = deque()  # not answered yet, and until when
        self._answers: deque[list[bytes]] = deque()
        self._sent = 0
        self._tries = 0
        self._reply_at: float | None = None
        self._not_before = float("-inf")

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait for the end of their frame."""
        return len(self._cutter)

    @property
    def notice(self) -> str | None:
        """Return None: nothing is held back."""
        return None

    @property
    def deadline(self) -> float | None:
        """Return the nearest of the timers that run."""
        again = self._not_before if self._answers and self._state is _State.NEUTRAL else None
        unanswered = self._open[0][1] if self._open else None
        timers = (self._line_end_at, self._silent_at, self._reply_at, again, unanswered, self._noise.deadline)
        return min((due for due in timers if due is not None), default=None)

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        for found in self._cutter.feed(data):
            self._take(found, now)
        self._line_end_at = now + LINE_END_S if self._cutter.waits_for_line_end() else None
        self._enquire(now)
        self._emit(now)

    def tick(self, now: float) -> None:
        """Take notice that a timer ran out."""
        if self._line_end_at is not None and now >= self._line_end_at:
            self._line_end_at = None
            for found in self._cutter.flush():
                self._take(found, now)
        if self._silent_at is not None and now >= self._silent_at:
            self._give_up_receiving(now)
        if self._reply_at is not None and now >= self._reply_at:
            self._end_sending(now, pause_s=REFUSED_PAUSE_S)
        while self._open and now >= self._open[0][1]:
            self.answer(self._open[0][0], (), now)
        self._enquire(now)
        self._emit(now)

    def settle(self, stored: bool, now: float) -> None:
        """Acknowledge the frame that was withheld for the oldest Reading taken, or have it repeated."""
        if not self._withheld or not self._withheld.popleft() or self._before is None:
            return
        if stored:
            self._message = self._message.next()
            self._say(ACK)
        else:
            self._message = self._before
            self._forget(self._question)  # it comes again with the message
            self._say(NAK)
        self._before = None
        self._silent_at = now + RECEIVE_TIMEOUT_S

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Hand over what to say."""
        said, self._output = self._output, b""
        return said

    def take_queries(self) -> list[LabQuery]:
        """Hand over what the analyser asked since the last call; `answer` wants each back."""
        taken, self._queries = self._queries, []
        return taken

    def answer(self, query: LabQuery, orders: Sequence[LabOrder], now: float) -> None:
        """Send what is known as one message, as soon as the line is free.

        Nothing where nobody waits any more: the answer is late, or the question was in a message that was refused.
        """
        if all(item[0] is not query for item in self._open):
            return
        self._forget(query)
        records = self._render(query, orders)
        if self._transmit and records and len(self._answers) < ANSWERS_MAX:
            self._answers.append(frames(records))
            self._enquire(now)

    def _forget(self, question: LabQuery | None) -> None:
        self._open = deque(item for item in self._open if item[0] is not question)
        self._queries = [query for query in self._queries if query is not question]

    def _say(self, words: bytes) -> None:
        if self._transmit:
            self._output += words

    def _take(self, found: Frame | Signal | Noise, now: float) -> None:
        match found:
            case Noise():
                self._noise.add_run(found.reason, found.raw, now)
            case Frame():
                self._take_frame(found, now)
            case Signal(character=character) if character == ENQ:
                self._hear_enquiry(now)
            case Signal(character=character) if character == EOT:
                self._hear_end(now)
            case Signal(character=character):
                self._hear_reply(character == ACK, now)

    def _hear_enquiry(self, now: float) -> None:
        if self._state is _State.ENQUIRING:  # both want to speak: the analyser goes first (LIS01-A2, 6.2.7)
            self._end_sending(now, pause_s=CONTENTION_PAUSE_S, say_end=False)
            return
        if self._state is _State.SENDING or self._before is not None or self._message.text:
            self._say(NAK)
            return
        self._begin(now)
        self._say(ACK)

    def _begin(self, now: float) -> None:
        self._state = _State.RECEIVING
        self._message = _Message()
        self._silent_at = now + RECEIVE_TIMEOUT_S

    def _take_frame(self, frame: Frame, now: float) -> None:
        if self._state is _State.NEUTRAL and not self._begins_with_enq and _opens(frame):
            self._begin(now)
        if self._state is not _State.RECEIVING:
            self._noise.add_run("a frame outside of a transmission", frame.raw, now)
            return
        self._silent_at = now + RECEIVE_TIMEOUT_S
        if not frame.sound:
            self._noise.add("check characters do not match", frame.raw, now)
            self._say(NAK)
        elif frame.number is not None and frame.number == self._message.number:
            if self._before is None:  # else the answer comes when the Reading is settled
                self._say(ACK)
        elif frame.number != self._message.expected or self._before is not None:
            self._say(NAK)
        elif len(self._message.raw) + len(frame.raw) > MESSAGE_BYTES_MAX:
            self._noise.add(f"a message longer than {MESSAGE_BYTES_MAX} bytes", frame.raw, now)
            self._say(NAK)
        else:
            self._accept(frame, now)

    def _accept(self, frame: Frame, now: float) -> None:
        before, self._message = self._message, self._message.with_frame(frame)
        if not self._message.ended:
            self._say(ACK)
            return
        self._yield_message(now, withheld=self._transmit)
        if self._transmit:
            self._before = before
        else:
            self._message = self._message.next()

    def _yield_message(self, now: float, *, withheld: bool) -> None:
        message = self._message
        query = self._question = self._query_of(message.text)
        if query is not None and len(self._open) < ANSWERS_MAX:
            self._queries.append(query)
            self._open.append((query, now + ANSWER_S))
        reading = reading_of(message.raw, message.text, self._read)
        if reading.results or reading.fault is not None or withheld:
            self._readings.append(replace(reading, identifier=self._identify(message.text)))
            self._withheld.append(withheld)
        self._noise.heal()

    def _hear_end(self, now: float) -> None:
        if self._state is _State.SENDING:  # the analyser has had enough; counts as ACK (LIS01-A2, 6.3.5)
            self._end_sending(now)
        elif self._state is _State.RECEIVING:
            if self._message.text and self._before is None:
                self._yield_message(now, withheld=False)
            self._idle(now)

    def _give_up_receiving(self, now: float) -> None:
        if self._message.text and self._before is None:
            self._noise.add("a transmission broke off", self._message.raw, now)
        self._idle(now)

    def _idle(self, now: float) -> None:
        self._state, self._silent_at = _State.NEUTRAL, None
        self._before, self._message = None, _Message()
        self._not_before = max(self._not_before, now)

    def _enquire(self, now: float) -> None:
        if self._state is _State.NEUTRAL and self._answers and now >= self._not_before and not self._before:
            self._state, self._sent = _State.ENQUIRING, 0
            self._reply_at = now + REPLY_TIMEOUT_S
            self._say(ENQ)

    def _hear_reply(self, accepted: bool, now: float) -> None:
        if self._state is _State.ENQUIRING and accepted:
            self._state, self._tries = _State.SENDING, 0
            self._send_frame(now)
        elif self._state is _State.ENQUIRING:
            self._end_sending(now, pause_s=REFUSED_PAUSE_S, say_end=False)
        elif self._state is _State.SENDING and accepted:
            self._sent, self._tries = self._sent + 1, 0
            if self._sent == len(self._answers[0]):
                self._end_sending(now)
            else:
                self._send_frame(now)
        elif self._state is _State.SENDING:
            self._tries += 1
            if self._tries >= TRIES_MAX:
                self._end_sending(now)
            else:
                self._send_frame(now)

    def _send_frame(self, now: float) -> None:
        self._say(self._answers[0][self._sent])
        self._reply_at = now + REPLY_TIMEOUT_S

    def _end_sending(self, now: float, *, pause_s: float | None = None, say_end: bool = True) -> None:
        """Let go of the line; with a pause the answer is tried again, at most so often, without it is done with."""
        if say_end:
            self._say(EOT)
        enquiring = self._state is _State.ENQUIRING
        self._state, self._reply_at = _State.NEUTRAL, None
        self._tries = self._tries + 1 if enquiring else 0
        if pause_s is None or not enquiring or self._tries >= TRIES_MAX:
            self._answers.popleft()
            self._tries = 0
        self._not_before = now + (pause_s or 0.0)

    def _emit(self, now: float) -> None:
        if (reading := self._noise.take(now)) is not None:
            self._readings.append(reading)
            self._withheld.append(False)


def _opens(frame: Frame) -> bool:
    """Tell whether a frame begins a message of an analyser that leaves out the ENQ."""
    return frame.sound and frame.number == 1 and frame.text[:1] == b"H"
