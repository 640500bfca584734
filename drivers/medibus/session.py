"""One MEDIBUS conversation (Protocol Definition 4.03, p. 5, 10, 24, 34 to 38).

    calling --ICC answered, or ICC from the Device--> meeting --identification, 200 ms--> active
    active  --3 s without a slow byte, no answer three times, STOP--> calling
    active  --ICC from the Device--> meeting
    any --the Stream is closed: STOP--> listening
    listening: transmit is off; whatever is heard is read and nothing is said

One command is outstanding at a time; every command of the Device is answered at once, also one that stands inside its
own response. Curve bytes are no sign of life. What is read from the answers is `hearing.py`'s matter.
"""

from dataclasses import dataclass
from enum import Enum, auto

from drivers.medibus.agenda import NEVER, Agenda
from drivers.medibus.codes import Code
from drivers.medibus.frames import Broken, Command, Control, Event, Response, encode_command, encode_response
from drivers.medibus.hearing import Hearing
from drivers.medibus.realtime import encode_enable
from gateway.driver import Reading

SILENCE_S = 3.0  # p. 5: more than 3 s without a slow byte ends communication
NOP_S = 2.0  # p. 5
ANSWER_S = 10.0  # p. 5, 10
ICC_SILENT_S, ICC_HEARD_S = 3.0, 10.0  # p. 24
SETTLING_S = 0.2  # p. 35: between the identification and the first command with an argument
TRIES_MAX = 3
ENABLE_AGAIN_S = 5.0  # p. 26: sync commands are not acknowledged
CURVES_MISSED_S = 10.0
IDENTIFICATION = b"0161'GATEWAY'01.00:04.00"  # p. 35: with 0161 no Device asks us for data
OUTPUT_BYTES_MAX = 4096

_ESSENTIAL = {Code.DATA_1, Code.NOP}
_HIGH_BYTES = bytes(range(0x80, 0x100))


class _State(Enum):
    CALLING = auto()
    MEETING = auto()
    ACTIVE = auto()
    LISTENING = auto()


@dataclass(frozen=True, slots=True)
class _Asked:
    """The command that waits for its answer."""

    code: int
    frame: bytes
    at: float
    tries: int = 1


class MedibusSession:
    """The conversation with one Device; `values_s` lies between two rounds of questions."""

    def __init__(self, hearing: Hearing, *, values_s: float, transmit: bool) -> None:
        self._hearing = hearing
        self._agenda = Agenda(values_s)
        self._state = _State.CALLING if transmit else _State.LISTENING
        self._output = bytearray()
        self._asked: _Asked | None = None
        self._unanswered: set[int] = set()
        self._heard_at: float | None = None  # a slow byte
        self._said_at = 0.0
        self._called_at: float | None = None  # the last ICC
        self._active_at = NEVER  # when settling ends
        self._enable_at = NEVER
        self._curves_from = NEVER  # since when curves should flow
        self._suspended_until: float | None = None

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait to be understood."""
        return self._hearing.buffered_bytes

    @property
    def notice(self) -> str | None:
        """Return that the Device simulates a patient, None when it does not."""
        return "simulation mode: nothing is published" if self._hearing.picture.simulated else None

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        if data.translate(None, _HIGH_BYTES):
            self._heard_at = now
        for event in self._hearing.receive(data, now):
            if self._state is not _State.LISTENING:
                self._react(event, now)
        self._go_on(now)

    def tick(self, now: float) -> None:
        """Ask, ask again, or call anew, where it is time; hand out what was gathered."""
        lost = self._hearing.tick(now)
        silent_at = self._silent_at()
        if silent_at is not None and now >= silent_at:
            self._heard_at = None
            self._hearing.notice_silence(now)
            if self._state in (_State.MEETING, _State.ACTIVE):
                self._call(None)
        if self._suspended_until is not None and now >= self._suspended_until:
            self._call(None)
        asked = self._asked
        if asked is not None and asked.code != Code.ICC and (lost or now >= asked.at + ANSWER_S):
            self._ask_again(asked, now)
        self._go_on(now)

    def part(self) -> None:
        """Say STOP, after the curves were switched off: a Device that only lost us would alarm (p. 24, 38)."""
        is_known = self._state in (_State.MEETING, _State.ACTIVE)
        self._state = _State.LISTENING
        self._suspended_until = None
        self._output.clear()
        if is_known:
            self._output += encode_enable(0) if self._hearing.waves.streams else b""
            self._output += encode_command(Code.STOP)

    def settle(self, stored: bool, now: float) -> None:
        """Nothing waits for the disk: a Device keeps no values for repeating."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        return self._hearing.take_readings()

    def take_output(self) -> bytes:
        """Hand over what to say; nothing while the Device asked us to wait."""
        if self._suspended_until is not None:
            return b""
        taken = bytes(self._output)
        self._output.clear()
        return taken

    @property
    def deadline(self) -> float | None:
        """Return when to tick."""
        waits = [self._hearing.deadline, self._silent_at()]
        if self._suspended_until is not None:
            waits.append(self._suspended_until)
        elif self._state is not _State.LISTENING:
            waits.append(self._next_word_at())
        return min((due for due in waits if due is not None and due < NEVER), default=None)

    # --- what comes ---

    def _react(self, event: Event, now: float) -> None:
        match event:
            case Command():
                self._answer(event, now)
            case Response():
                self._take_answer(event, now)
            case Broken(is_command=True):
                self._say(encode_response(Code.NAK), now)
            case Broken() if self._asked is not None:
                self._ask_again(self._asked, now)
            case Control.SUSPEND:
                self._suspended_until = now + SILENCE_S
            case Control.RESUME:
                self._suspended_until = None

    def _answer(self, command: Command, now: float) -> None:
        own = IDENTIFICATION if command.code == Code.IDENTIFY else b""
        self._say(encode_response(command.code, own), now)
        match command.code:
            case Code.ICC:
                self._meet()
            case Code.STOP:
                self._call(now)
            case Code.TIME_CHANGED:
                self._agenda.bring_forward(Code.CLOCK, now)
            case Code.CURVES_CHANGED:
                self._forget_curves()
                self._agenda.bring_forward(Code.CURVES, now)

    def _take_answer(self, answer: Response, now: float) -> None:
        asked = self._asked
        if answer.code == Code.NAK:
            if asked is not None:
                self._ask_again(asked, now)
            return
        if asked is not None and asked.code == answer.code:
            self._asked = None
        match answer.code:
            case Code.ICC:
                self._meet()
            case Code.IDENTIFY if self._state is _State.MEETING and self._active_at == NEVER:
                self._active_at = now + SETTLING_S
            case Code.CURVES if self._hearing.waves.streams and self._state is _State.ACTIVE:
                self._ask(Code.CONFIGURE_CURVES, now, self._hearing.waves.argument)
            case Code.CONFIGURE_CURVES if self._hearing.waves.streams and self._state is _State.ACTIVE:
                self._enable_at = self._curves_from = now

    # --- what is said ---

    def _go_on(self, now: float) -> None:
        """Say the next word that is due, when nothing waits for an answer."""
        if self._suspended_until is not None:
            return
        match self._state:
            case _State.CALLING if now >= self._next_call_at():
                self._called_at = now
                self._ask(Code.ICC, now)
            case _State.MEETING:
                self._go_on_meeting(now)
        if self._state is _State.ACTIVE:
            self._go_on_asking(now)

    def _go_on_meeting(self, now: float) -> None:
        if now >= self._active_at:
            self._state = _State.ACTIVE
            self._active_at = NEVER
            self._agenda.begin(now, self._left_out())
        elif self._asked is None and self._active_at == NEVER:
            if Code.IDENTIFY in self._unanswered:
                self._active_at = now + SETTLING_S
            else:
                self._ask(Code.IDENTIFY, now)

    def _left_out(self) -> frozenset[int]:
        """Return what is not asked: what this model or this very Device does not answer, and curves nobody wants."""
        model = self._hearing.picture.model
        left_out = self._unanswered | (model.not_asked if model is not None else {Code.ALARMS_3})
        return frozenset(left_out if self._hearing.waves.are_wanted else left_out | {Code.CURVES})

    def _go_on_asking(self, now: float) -> None:
        if now >= self._enable_at:
            self._say(self._hearing.waves.enabling, now)
            self._enable_at = now + ENABLE_AGAIN_S
        if now >= self._curves_missed_at():
            self._curves_from = now
            self._agenda.bring_forward(Code.CURVES, now)
        if self._asked is None:
            if (code := self._agenda.next(now)) is not None:
                self._ask(code, now)
            elif now >= self._said_at + NOP_S:
                self._ask(Code.NOP, now)

    def _meet(self) -> None:
        self._state = _State.MEETING
        self._active_at = NEVER
        self._asked = None
        self._suspended_until = None
        self._forget_curves()

    def _call(self, called_at: float | None) -> None:
        """Begin anew: at once, or some time after `called_at`."""
        if self._state is _State.LISTENING:
            return
        self._state = _State.CALLING
        self._asked = None
        self._suspended_until = None
        self._called_at = called_at
        self._forget_curves()

    def _forget_curves(self) -> None:
        self._enable_at = self._curves_from = NEVER

    def _ask(self, code: int, now: float, argument: bytes = b"") -> None:
        frame = encode_command(code, argument)
        self._asked = _Asked(code, frame, now)
        self._say(frame, now)

    def _ask_again(self, asked: _Asked, now: float) -> None:
        if asked.tries < TRIES_MAX:
            self._asked = _Asked(asked.code, asked.frame, now, asked.tries + 1)
            self._say(asked.frame, now)
            return
        self._asked = None
        if asked.code in _ESSENTIAL:
            self._call(None)
        else:  # do without what this Device will not tell
            self._unanswered.add(asked.code)
            self._agenda.leave_out(asked.code)

    def _say(self, frame: bytes, now: float) -> None:
        if len(self._output) + len(frame) <= OUTPUT_BYTES_MAX:
            self._output += frame
            self._said_at = now

    # --- when ---

    def _silent_at(self) -> float | None:
        return None if self._heard_at is None else self._heard_at + SILENCE_S

    def _next_call_at(self) -> float:
        if self._called_at is None:
            return 0.0
        heard = self._heard_at is not None and self._heard_at > self._called_at
        return self._called_at + (ICC_HEARD_S if heard else ICC_SILENT_S)

    def _curves_missed_at(self) -> float:
        came = self._hearing.curve_at
        since = self._curves_from if came is None else max(self._curves_from, came)
        return since + CURVES_MISSED_S if self._hearing.waves.streams else NEVER

    def _next_word_at(self) -> float:
        waiting = NEVER if self._asked is None else self._asked.at + ANSWER_S
        match self._state:
            case _State.CALLING:
                return self._next_call_at()
            case _State.MEETING:
                free = 0.0 if self._asked is None and self._active_at == NEVER else self._active_at
                return min(waiting, free)
            case _:
                free = min(self._agenda.due, self._said_at + NOP_S) if self._asked is None else NEVER
                return min(waiting, free, self._enable_at, self._curves_missed_at())
