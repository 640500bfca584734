"""What a monitor says: data messages and the poll results in them (sheet sections 7, 8, 10.2).

Every data message is E1 00, 00 02, its type and the length of the rest. A poll result is a list of contexts, each a
list of objects, each a handle with attributes; objects are never split between messages.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct, error

from drivers.philips_intellivue.values import attributes
from gateway.errors import ContentError

DATA = b"\xe1\x00\x00\x02"
ASSOCIATION_ACCEPT, ASSOCIATION_REFUSE = 0x0E, 0x0C
RELEASE_REQUEST, RELEASE_RESPONSE, ABORT = 0x09, 0x0A, 0x19
ASSOCIATION_REQUEST = 0x0D
CONNECT_INDICATION = b"\x00\x00\x01\x00"

POLL, POLL_EXTENDED = 0x0C16, 0xF13B
MDS_CREATED, CONNECTION_ANNOUNCED = 0x0D06, 0x0D17

_HEAD = Struct(">4sHH")
_BODY = Struct(">HHH")  # invoke id, command (error value), length
_LINK = Struct(">BB")
_OBJECT_AND_ACTION = Struct(">HHHHH")
_EVENT = Struct(">HHHIHH")
_POLL_REPLY = Struct(">I8sHHH")
_CONTEXT = Struct(">HHH")


class Kind(IntEnum):
    """What a data message is (ro_type)."""

    INVOKE = 1
    RESULT = 2
    ERROR = 3
    LINKED = 5


class Command(IntEnum):
    """What was asked (command_type)."""

    EVENT = 0
    CONFIRMED_EVENT = 1
    GET = 3
    SET = 4
    CONFIRMED_SET = 5
    ACTION = 7


@dataclass(frozen=True, slots=True)
class DataMessage:
    """One data message: `body` is its command data. `link` and `count` are set in parts of a linked result.

    In an ERROR `command` is the error value.
    """

    kind: int
    invoke: int
    command: int
    body: bytes
    link: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """An event report: MDS created, or a monitor that announces itself. `ticks` is its relative time."""

    ticks: int
    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class PollResult:
    """The reply to a poll, or one part of it: objects of one class and one attribute group (0 for all groups).

    `sequence` is None in the reply to a single poll. `body` holds the contexts.
    """

    number: int
    sequence: int | None
    ticks: int
    polled: int
    group: int
    body: bytes


@dataclass(frozen=True, slots=True)
class PolledObject:
    """One object of a poll result: its values by attribute id."""

    context: int
    handle: int
    values: dict[int, bytes]


def data_message(content: bytes) -> DataMessage:
    """Read a data message. Raises ContentError when it is cut short or its lengths disagree."""
    try:
        start, kind, size = _HEAD.unpack_from(content)
        if start != DATA or size != len(content) - _HEAD.size:
            raise ContentError("a data message whose length is wrong")
        at, link, count = _HEAD.size, 0, 0
        if kind == Kind.LINKED:
            link, count = _LINK.unpack_from(content, at)
            at += _LINK.size
        invoke, command, size = _BODY.unpack_from(content, at)
    except error as reason:
        raise ContentError("a data message that is cut short") from reason
    at += _BODY.size
    if size != len(content) - at:
        raise ContentError("a data message whose length is wrong")
    return DataMessage(kind, invoke, command, content[at:], link, count)


def event(body: bytes) -> Event:
    """Read an event report. Raises ContentError when it is cut short."""
    try:
        _, _, _, ticks, kind, size = _EVENT.unpack_from(body)
    except error as reason:
        raise ContentError("an event that is cut short") from reason
    if size > len(body) - _EVENT.size:
        raise ContentError("an event that is cut short")
    return Event(ticks, kind, body[_EVENT.size : _EVENT.size + size])


def poll_result(body: bytes) -> PollResult | None:
    """Read the result of a poll, None of another action. Raises ContentError when it is cut short."""
    try:
        _, _, _, action, size = _OBJECT_AND_ACTION.unpack_from(body)
        if action not in (POLL, POLL_EXTENDED):
            return None
        at = _OBJECT_AND_ACTION.size
        if size != len(body) - at:
            raise ContentError("a poll result whose length is wrong")
        number, sequence = int.from_bytes(body[at : at + 2], "big"), None
        at += 2
        if action == POLL_EXTENDED:
            sequence = int.from_bytes(body[at : at + 2], "big")
            at += 2
        ticks, _, _, polled, group = _POLL_REPLY.unpack_from(body, at)
    except error as reason:
        raise ContentError("a poll result that is cut short") from reason
    return PollResult(number, sequence, ticks, polled, group, body[at + _POLL_REPLY.size :])


def polled_objects(result: PollResult) -> Iterator[PolledObject]:
    """Yield the objects of a poll result. Raises ContentError when one is cut short."""
    body = result.body
    end = _list_end(body, 0, len(body))
    at = 4
    while at < end:
        context = int.from_bytes(body[at : at + 2], "big")
        objects_end = _list_end(body, at + 2, end)
        at += 6
        while at < objects_end:
            handle = int.from_bytes(body[at : at + 2], "big")
            values_end = _list_end(body, at + 2, objects_end)
            yield PolledObject(context, handle, dict(attributes(body[at + 6 : values_end])))
            at = values_end


def _list_end(body: bytes, at: int, limit: int) -> int:
    """Return where a list (count, length, elements) ends."""
    if at + 4 > limit:
        raise ContentError("a list that is cut short")
    end = at + 4 + int.from_bytes(body[at + 2 : at + 4], "big")
    if end > limit:
        raise ContentError("a list that is cut short")
    return end
