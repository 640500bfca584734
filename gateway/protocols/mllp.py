r"""MLLP framing: VT, content, FS CR (HL7 Transport Specification: MLLP, Release 2, 1.2).

    outside --VT--> content --FS CR--> outside
                    content --more than frame_bytes_max--> skipping --FS CR--> outside
                    content, skipping --silence of frame_timeout_s--> outside

The reader forgives: bytes before VT are counted and skipped; a CR that follows its FS late is awaited, one that never
comes is done without when the next byte is VT or after `end_without_cr_s`; an FS inside the content that is followed
by neither belongs to the content. The writer is strict. What the content means is left to `formats/hl7.py`.
"""

import re
from dataclasses import dataclass

from gateway.errors import FrameError

START = b"\x0b"
END = b"\x1c"
END_BLOCK = b"\x1c\r"
HEAD_BYTES_MAX = 64 * 1024  # of an oversize frame: what is kept for a person

_CR = 0x0D
_VT = 0x0B
_END = re.compile(rb"\x1c[\r\x0b]")
_RESTART = b"\x0bMSH"
_COMMIT_BLOCKS = {b"\x06": True, b"\x15": False}


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame; `content` is the bytes between VT and FS, as received."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Oversize:
    """A frame grew beyond `frame_bytes_max`; `head` is how it begins. The rest is skipped up to its end block."""

    head: bytes


@dataclass(frozen=True, slots=True)
class Junk:
    """Bytes that stood before the VT of the next frame."""

    count: int


@dataclass(frozen=True, slots=True)
class Partial:
    """A frame that began and never ended: the sender fell silent, left, or began anew. Its bytes are dropped."""

    count: int


@dataclass(frozen=True, slots=True)
class CommitBlock:
    """The one-byte answer of MLLP release 2 (1.2.3): the peer has stored the frame, or could not."""

    accepted: bool


Event = Frame | Oversize | Junk | Partial | CommitBlock


def encode_frame(content: bytes) -> bytes:
    """Return the content as one frame, to be written at once.

    Raises FrameError when the content holds an end block: the receiver would cut it there.
    """
    if END_BLOCK in content:
        raise FrameError("content holds an MLLP end block")
    return b"%b%b%b" % (START, content, END_BLOCK)


class Decoder:
    """Bytes in any cutting become Events in order; `now` is monotonic seconds.

    Sizes are bytes of content. A timeout of None never comes. Memory is bounded by `frame_bytes_max` and one read.
    """

    def __init__(
        self, *, frame_bytes_max: int, frame_timeout_s: float | None = None, end_without_cr_s: float | None = None
    ) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._frame_timeout_s = frame_timeout_s
        self._end_without_cr_s = end_without_cr_s
        self._inside = False
        self._skipping = False
        self._end_held = False  # FS was the last byte seen; what follows decides
        self._cr_may_follow = False  # the last frame was ended without its CR
        self._buffer = bytearray()
        self._skipped = 0
        self._junk = 0
        self._heard_at = 0.0

    @property
    def buffered(self) -> int:
        """Return how many bytes of an unfinished frame are held."""
        return len(self._buffer)

    @property
    def inside(self) -> bool:
        """Return whether a frame has begun and not ended."""
        return self._inside

    @property
    def deadline(self) -> float | None:
        """Return when to `tick`, None for never."""
        if not self._inside:
            return None
        waits = [self._frame_timeout_s, self._end_without_cr_s if self._end_held else None]
        return min((self._heard_at + wait for wait in waits if wait is not None), default=None)

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes that came and return what they complete; never raises."""
        if not self._inside and not self._junk and self._is_one_frame(data):  # the usual case
            self._cr_may_follow = False
            return _events_of(data[1:-2])
        events: list[Event] = []
        self._heard_at = now
        at = 0
        while at < len(data):
            at = self._collect(data, at, events) if self._inside else self._seek(data, at, events)
        return events

    def tick(self, now: float) -> list[Event]:
        """Take notice that the deadline came: an end without CR is believed, or an unfinished frame is dropped."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return []
        wait = self._end_without_cr_s
        if self._end_held and wait is not None and now >= self._heard_at + wait:
            return self._end_without_cr()
        return self._drop()

    def finish(self) -> list[Event]:
        """Take notice that the peer will send no more: an end without CR is believed."""
        if self._end_held:
            return self._end_without_cr()
        return self._drop() if self._inside else []

    def _is_one_frame(self, data: bytes) -> bool:
        size = len(data) - 3
        return (
            0 <= size <= self._frame_bytes_max
            and data.startswith(START)
            and data.endswith(END_BLOCK)
            and data.find(END) == size + 1
        )

    def _seek(self, data: bytes, at: int, events: list[Event]) -> int:
        """Skip to the next VT; return where to go on."""
        if self._cr_may_follow:
            self._cr_may_follow = False
            if data[at] == _CR:
                return at + 1
        start = data.find(START, at)
        if start < 0:
            self._junk += len(data) - at
            return len(data)
        self._junk += start - at
        if self._junk:
            events.append(Junk(self._junk))
            self._junk = 0
        self._inside = True
        return start + 1

    def _collect(self, data: bytes, at: int, events: list[Event]) -> int:
        """Take content up to the end block or the end of the data; return where to go on."""
        if self._end_held:
            self._end_held = False
            if data[at] in (_CR, _VT):
                events += self._end()
                return at + 1 if data[at] == _CR else at
            self._keep(END, events)
        end = _END.search(data, at)
        if end is not None:
            self._keep(data[at : end.start()], events)
            events += self._end()
            return end.end() if data[end.end() - 1] == _CR else end.end() - 1
        self._end_held = data.endswith(END)
        self._keep(data[at : len(data) - self._end_held], events)
        return len(data)

    def _keep(self, part: bytes, events: list[Event]) -> None:
        if self._skipping:
            self._skipped += len(part)
            return
        self._buffer += part
        if len(self._buffer) > self._frame_bytes_max:
            events.append(Oversize(bytes(self._buffer[: min(HEAD_BYTES_MAX, self._frame_bytes_max)])))
            self._skipping = True
            self._skipped = len(self._buffer)
            self._buffer = bytearray()

    def _end(self) -> list[Event]:
        content, skipping = bytes(self._buffer), self._skipping
        self._reset()
        return [] if skipping else _events_of(content)

    def _end_without_cr(self) -> list[Event]:
        events = self._end()
        self._cr_may_follow = True
        return events

    def _drop(self) -> list[Event]:
        count = len(self._buffer) + self._skipped + self._end_held
        self._reset()
        return [Partial(count)]

    def _reset(self) -> None:
        self._inside = self._skipping = self._end_held = self._cr_may_follow = False
        self._skipped = 0
        if self._buffer:
            self._buffer = bytearray()


def _events_of(content: bytes) -> list[Event]:
    """Return what a finished frame is: a frame, a commit block, or a frame behind one that was given up.

    A sender that repeats on the same connection after half a frame leaves VT and the new message in the content.
    """
    if len(content) == 1 and content in _COMMIT_BLOCKS:
        return [CommitBlock(_COMMIT_BLOCKS[content])]
    if START in content and (restart := content.rfind(_RESTART)) >= 0:
        return [Partial(restart), Frame(content[restart + 1 :])]
    return [Frame(content)]
