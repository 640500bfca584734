"""Sessions of Devices that answer questions: one question at a time, a round of them every so often.

    resting --cycle_s--> asking --answer--> asking ... --last answer--> resting
                         asking --no answer in reply_timeout_s--> asked again, at most `tries` times, then silent
    silent  --cycle_s--> resting                                     a silent Device is greeted anew

What is said passes one gate: words that a Dialogue forbids are never said, whatever asked for them. Listening beside
another host (`transmit` False) nothing is said, and every answer heard is a round of its own.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import ContentError
from gateway.model import Reading, Result
from gateway.protocols.faults import FaultBin

NOISE_BYTES_MAX = 4096
ROUND_BYTES_MAX = 256 * 1024
BUFFER_BYTES_MAX = 64 * 1024


class ForbiddenWordsError(RuntimeError):
    """A Session was about to say what its protocol's source forbids to a listener: a bug, and nothing was said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One piece of what the Device says.

    `content` is a sound frame's, None for noise with its `fault`. `reply` is what the link layer answers at once.
    `ends` tells that the question is answered; a spontaneous frame does not end one.
    """

    raw: bytes
    content: bytes | None = None
    fault: str | None = None
    reply: bytes = b""
    ends: bool = True


class Dialogue(Protocol):
    """What is particular of one protocol, without timers."""

    def cut(self, buffer: bytearray) -> Iterator[Heard]:
        """Take whole frames and noise off the buffer's start, and leave what is not whole."""
        ...

    def greeting(self) -> Sequence[bytes]:
        """Return the questions of a first round, when the line was opened or the Device was silent."""
        ...

    def questions(self) -> Sequence[bytes]:
        """Return the questions of the next round."""
        ...

    def read(self, content: bytes) -> None:
        """Take an answer. Raises ContentError for one that cannot be read."""
        ...

    def more(self) -> Sequence[bytes]:
        """Return questions that follow from the last answer, to be asked in this round."""
        ...

    def results(self) -> tuple[Result, ...]:
        """Return what the round gave, and forget it."""
        ...

    def forbids(self, words: bytes) -> bool:
        """Tell whether words may never be said."""
        ...

    def farewells(self) -> Sequence[bytes]:
        """Return the last words to a Device that would alarm when it only lost us; none for any other."""
        ...


class AskingSession:
    """Asks in rounds; a `Session`."""

    def __init__(
        self, dialogue: Dialogue, *, cycle_s: float, reply_timeout_s: float, tries: int = 3, transmit: bool = True
    ) -> None:
        """Take the dialogue, seconds between rounds, and the patience with an answer."""
        self._dialogue = dialogue
        self._cycle_s = cycle_s
        self._reply_timeout_s = reply_timeout_s
        self._tries = tries
        self._transmit = transmit
        self._buffer = bytearray()
        self._output = b""
        self._readings: list[Reading] = []
        self._round = b""
        self._questions: deque[bytes] = deque()
        self._asked = 0
        self._reply_at: float | None = None
        self._next_at: float | None = float("-inf") if transmit else None
        self._greeted = False
        self._faulty: str | None = None
        self._noise = FaultBin(delay_s=1.0, raw_bytes_max=NOISE_BYTES_MAX)

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait for the end of their frame."""
        return len(self._buffer)

    @property
    def notice(self) -> str | None:
        """Return None: nothing is held back."""
        return None

    @property
    def deadline(self) -> float | None:
        """Return when to ask, to ask again, or to hand out gathered faults."""
        timers = (self._reply_at, self._next_at, self._noise.deadline)
        return min((due for due in timers if due is not None), default=None)

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        self._buffer += data
        for heard in self._dialogue.cut(self._buffer):
            self._take(heard, now)
        if len(self._buffer) > BUFFER_BYTES_MAX:
            self._noise.add_run("no frame in 64 KiB", bytes(self._buffer), now)
            self._buffer.clear()
        self._emit(now)

    def tick(self, now: float) -> None:
        """Ask what is due, or again."""
        if self._reply_at is not None and now >= self._reply_at:
            self._miss(now)
        elif self._next_at is not None and now >= self._next_at:
            self._begin_round(now)
        self._emit(now)

    def part(self) -> None:
        """Take leave, and say nothing after it."""
        self._questions.clear()
        self._reply_at = self._next_at = None
        for words in self._dialogue.farewells():
            self._say(words)

    def settle(self, stored: bool, now: float) -> None:
        """Nothing that is kept is acknowledged on such a link."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Hand over what to say."""
        said, self._output = self._output, b""
        return said

    def _begin_round(self, now: float) -> None:
        self._next_at = None
        words = self._dialogue.questions() if self._greeted else self._dialogue.greeting()
        self._greeted = True
        self._questions = deque(words)
        self._ask(now)

    def _ask(self, now: float) -> None:
        if not self._questions:
            self._end_round(now)
            return
        self._asked += 1
        self._say(self._questions[0])
        self._reply_at = now + self._reply_timeout_s

    def _take(self, heard: Heard, now: float) -> None:
        if heard.reply:
            self._say(heard.reply)
        if heard.fault is not None:
            self._noise.add_run(heard.fault, heard.raw, now)
            return
        if heard.content is not None:
            self._noise.heal()
            self._read(heard)
        if not self._transmit:
            self._end_round(now)
        elif heard.ends and self._reply_at is not None:
            self._reply_at, self._asked = None, 0
            self._questions.popleft()
            self._questions.extendleft(reversed(self._dialogue.more()))
            self._ask(now)

    def _read(self, heard: Heard) -> None:
        assert heard.content is not None
        if len(self._round) < ROUND_BYTES_MAX:
            self._round += heard.raw
        try:
            self._dialogue.read(heard.content)
        except ContentError as error:
            self._faulty = str(error)
        except Exception as error:  # noqa: BLE001 - the border: a bug in a mapping must never cost the data
            self._faulty = f"driver failed: {type(error).__name__}"

    def _end_round(self, now: float) -> None:
        results, raw, fault = self._dialogue.results(), self._round, self._faulty
        self._round, self._faulty = b"", None
        if results and raw:
            self._readings.append(Reading(raw=raw, results=results))
        if fault is not None:
            self._readings.append(Reading(raw=raw, fault=fault))
        if self._transmit:
            self._next_at = now + self._cycle_s

    def _miss(self, now: float) -> None:
        """Ask again, or give the round up: the Device is greeted anew next time."""
        self._reply_at = None
        if self._asked < self._tries:
            self._ask(now)
            return
        self._asked, self._greeted = 0, False
        self._questions.clear()
        self._end_round(now)

    def _say(self, words: bytes) -> None:
        if not self._transmit:
            return
        if self._dialogue.forbids(words):
            raise ForbiddenWordsError("a command that would change an infusion was held back")
        self._output += words

    def _emit(self, now: float) -> None:
        if (reading := self._noise.take(now)) is not None:
            self._readings.append(reading)
