"""MEDIBUS framing (Protocol Definition 4.03, p. 5 to 11, 16, 37): slow frames, control bytes, curve bytes.

    command : ESC code [argument] checksum CR          response: SOH echo [data] checksum CR

    outside --ESC--> command --CR--> outside           response --ESC--> command inside --CR--> response
    outside --SOH--> response --CR--> outside          anywhere --SOH--> response (what was open is lost)

Bytes of 80h and above are curves and may stand anywhere; they leave the slow frames untouched. A whole command may
stand inside a response and has its own checksum. DC1, DC3 and CAN act at once. What frames mean is left to others.
"""

import re
from dataclasses import dataclass
from enum import Enum

from gateway.errors import FrameError

ESC, SOH, CR = 0x1B, 0x01, 0x0D
NAK = 0x15
COMMAND_BYTES_MAX = 256
RESPONSE_BYTES_MAX = 3845  # Protocol Definition 4.03, p. 10
ARGUMENT_BYTES_MAX = 251

_BODY_BYTES_MIN = 4  # start, code, two digits of the checksum
_PIECES = re.compile(
    rb"(?P<curve>[\x80-\xff]+)|(?P<plain>[\x00\x02-\x0c\x0e-\x10\x12\x14-\x17\x19\x1a\x1c-\x7f]+)|(?P<mark>.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Command:
    """A sound command: its code, and the argument behind it. `raw` is the whole frame."""

    code: int
    argument: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """A sound response: the code that it echoes, and its data. `raw` is the frame without what was embedded."""

    code: int
    data: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class Curve:
    """Bytes of the real-time protocol, in the order in which they came."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """A frame that ended and is not sound, or grew too long; `is_command` tells that it is to be answered by NAK."""

    reason: str
    raw: bytes
    is_command: bool


@dataclass(frozen=True, slots=True)
class Stray:
    """Slow bytes outside of any frame."""

    data: bytes


class Control(Enum):
    """Single bytes that act at once (p. 6); here DC1 holds the peer back and DC3 lets it go on."""

    SUSPEND = 0x11
    RESUME = 0x13
    ABORT = 0x18


Event = Command | Response | Curve | Broken | Stray | Control


def checksum(body: bytes | bytearray) -> bytes:
    """Return the low byte of the plain sum as two upper-case hex digits (p. 7, 28)."""
    return b"%02X" % (sum(body) & 0xFF)


def encode_command(code: int, argument: bytes = b"") -> bytes:
    """Return a command frame. Raises FrameError when the argument is longer than 251 bytes."""
    if len(argument) > ARGUMENT_BYTES_MAX:
        raise FrameError(f"argument of {len(argument)} bytes, at most {ARGUMENT_BYTES_MAX} fit into a command")
    body = bytes((ESC, code)) + argument
    return body + checksum(body) + b"\r"


def encode_response(code: int, data: bytes = b"") -> bytes:
    """Return a response frame. Raises FrameError when it would be longer than 3845 bytes."""
    body = bytes((SOH, code)) + data
    if len(body) + 3 > RESPONSE_BYTES_MAX:
        raise FrameError(f"response of {len(body) + 3} bytes, at most {RESPONSE_BYTES_MAX} are allowed")
    return body + checksum(body) + b"\r"


class Decoder:
    """Bytes in any cutting become Events in order; never raises, holds at most one response and one command."""

    def __init__(self) -> None:
        self._response: bytearray | None = None
        self._command: bytearray | None = None

    @property
    def buffered(self) -> int:
        """Return how many bytes of unfinished frames are held."""
        return sum(len(held) for held in (self._response, self._command) if held is not None)

    @property
    def response_bytes(self) -> int:
        """Return how much of a response has come, 0 when none is open."""
        return 0 if self._response is None else len(self._response)

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes that came and return what they complete."""
        events: list[Event] = []
        for piece in _PIECES.finditer(data):
            match piece.lastgroup:
                case "curve":
                    events.append(Curve(piece[0]))
                case "plain":
                    self._keep(piece[0], events)
                case _:
                    self._mark(piece[0][0], events)
        return events

    def drop(self) -> bytes:
        """Forget unfinished frames, as after a silence; return their bytes."""
        lost = bytes(self._response or b"") + bytes(self._command or b"")
        self._response = self._command = None
        return lost

    def _mark(self, byte: int, events: list[Event]) -> None:
        match byte:
            case 0x0D:
                self._close(events)
            case 0x01:
                self._lose(events)
                self._response = bytearray((SOH,))
            case 0x1B:
                if self._command is not None:
                    events.append(Broken("a command without an end", bytes(self._command), is_command=False))
                self._command = bytearray((ESC,))
            case _:
                if byte == Control.ABORT.value:
                    self._lose(events)
                events.append(Control(byte))

    def _lose(self, events: list[Event]) -> None:
        if lost := self.drop():
            events.append(Broken("a frame without an end", lost, is_command=False))

    def _keep(self, part: bytes, events: list[Event]) -> None:
        while part:
            held, limit = self._top()
            if held is None:
                events.append(Stray(part))
                return
            room = limit - len(held)
            held += part[:room]
            part = part[room:]
            if part:
                self._pop()
                events.append(Broken(f"a frame of more than {limit} bytes", bytes(held), is_command=False))

    def _top(self) -> tuple[bytearray | None, int]:
        if self._command is not None:
            return self._command, COMMAND_BYTES_MAX - 1
        return self._response, RESPONSE_BYTES_MAX - 1

    def _pop(self) -> bytearray | None:
        if self._command is not None:
            command, self._command = self._command, None
            return command
        response, self._response = self._response, None
        return response

    def _close(self, events: list[Event]) -> None:
        held = self._pop()
        if held is None:
            events.append(Stray(b"\r"))
        else:
            events.append(_event_of(held))


def _event_of(held: bytearray) -> Event:
    body, given = bytes(held[:-2]), bytes(held[-2:])
    raw = bytes(held) + b"\r"
    is_command = held[0] == ESC
    if len(held) < _BODY_BYTES_MIN:
        return Broken("a frame that is too short", raw, is_command=is_command)
    if given != (wanted := checksum(body)):
        reason = f"checksum {given.decode('ascii')!r}, expected {wanted.decode('ascii')!r}"
        return Broken(reason, raw, is_command=is_command)
    return Command(body[1], body[2:], raw) if is_command else Response(body[1], body[2:], raw)
