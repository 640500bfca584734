"""DIMSE commands: the command set, which is always Implicit VR Little Endian in group 0000 (PS3.7, 6.3.1, annex E).

A command is a few short elements, so it is read and written here directly: a few microseconds, where a general data
set takes half a millisecond. Unknown elements are passed over; padding is taken off texts. What a command means is
left to services.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from gateway.errors import FrameError

COMMAND_BYTES_MAX = 64 << 10
COMMENT_MAX = 64  # (0000,0902) is LO
OFFENDING_MAX = 1000  # tags of (0000,0901) that are read

_NO_DATA_SET = 0x0101  # (0000,0800); anything else tells that a data set follows
_DATA_SET = 0x0001
_RESPONSE = 0x8000
_ELEMENT = struct.Struct("<HHL")
_SHORT = struct.Struct("<H")


class Field(IntEnum):
    """Command Field (0000,0100) of requests; a response has the highest bit set (PS3.7, E.1)."""

    C_STORE = 0x0001
    C_GET = 0x0010
    C_FIND = 0x0020
    C_MOVE = 0x0021
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150
    C_CANCEL = 0x0FFF


_REQUESTED = (Field.N_GET, Field.N_SET, Field.N_ACTION, Field.N_DELETE)  # name (0000,0003) and (0000,1001)

# element: (name in Command, kind); Requested and Affected UIDs share a name
_ELEMENTS: dict[int, tuple[str, str]] = {
    0x0002: ("sop_class_uid", "text"),
    0x0003: ("sop_class_uid", "text"),
    0x0100: ("field", "short"),
    0x0110: ("message_id", "short"),
    0x0120: ("responded_to", "short"),
    0x0600: ("move_destination", "text"),
    0x0700: ("priority", "short"),
    0x0800: ("data_set_type", "short"),
    0x0900: ("status", "short"),
    0x0901: ("offending", "tags"),
    0x0902: ("comment", "text"),
    0x0903: ("error_id", "short"),
    0x1000: ("sop_instance_uid", "text"),
    0x1001: ("sop_instance_uid", "text"),
    0x1002: ("event_type", "short"),
    0x1005: ("attributes", "tags"),
    0x1008: ("action_type", "short"),
    0x1020: ("remaining", "short"),
    0x1021: ("completed", "short"),
    0x1022: ("failed", "short"),
    0x1023: ("warning", "short"),
    0x1030: ("move_originator_ae_title", "text"),
    0x1031: ("move_originator_message_id", "short"),
}
_WRITTEN = tuple(
    (element, name, kind)
    for element, (name, kind) in sorted(_ELEMENTS.items())
    if element not in (0x0002, 0x0003, 0x0100, 0x0800, 0x1000, 0x1001)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command set. What an element absent on the wire means is None, or "" for texts.

    `sop_class_uid` and `sop_instance_uid` are the Affected or the Requested ones, whichever this command has.
    `has_data` tells that a data set follows. `offending` and `attributes` are tags as 32-bit numbers.
    """

    field: int
    message_id: int | None = None
    responded_to: int | None = None
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    has_data: bool = False
    priority: int | None = None
    status: int | None = None
    comment: str = ""
    error_id: int | None = None
    offending: tuple[int, ...] = ()
    attributes: tuple[int, ...] = ()
    event_type: int | None = None
    action_type: int | None = None
    move_destination: str = ""
    move_originator_ae_title: str = ""
    move_originator_message_id: int | None = None
    remaining: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None

    @property
    def is_response(self) -> bool:
        """Return whether this answers a request."""
        return bool(self.field & _RESPONSE)


def response_to(field: int) -> int:
    """Return the Command Field of the response to a request."""
    return field | _RESPONSE


def decode_command(data: bytes) -> Command:
    """Read a whole command set.

    Raises FrameError when elements do not fit their lengths, or when there is no Command Field.
    """
    values: dict[str, object] = {}
    at, end = 0, len(data)
    while at < end:
        if end - at < 8:
            raise FrameError(f"command set cut short at byte {at}")
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += 8
        if length > end - at:
            raise FrameError(f"({group:04X},{element:04X}) of a command has {length} bytes, {end - at} are left")
        known = _ELEMENTS.get(element) if group == 0 and length else None
        if known is not None:
            name, kind = known
            values[name] = _value(kind, data[at : at + length])
        at += length
    if "field" not in values:
        raise FrameError("command set without a Command Field")
    values["has_data"] = values.pop("data_set_type", _NO_DATA_SET) != _NO_DATA_SET
    return Command(**values)  # type: ignore[arg-type]  # each kind makes its field's type: see _value


def encode_command(command: Command) -> bytes:
    """Write a command set, group length first, elements in ascending order."""
    requested = command.field in _REQUESTED
    parts = []
    if command.sop_class_uid:
        parts.append((0x0003 if requested else 0x0002, _padded(command.sop_class_uid, b"\0")))
    parts.append((0x0100, _SHORT.pack(command.field)))
    parts.append((0x0800, _SHORT.pack(_DATA_SET if command.has_data else _NO_DATA_SET)))
    if command.sop_instance_uid:
        parts.append((0x1001 if requested else 0x1000, _padded(command.sop_instance_uid, b"\0")))
    for element, name, kind in _WRITTEN:
        value = getattr(command, name)
        if value is not None and value != "" and value != ():
            parts.append((element, _bytes(kind, value)))
    parts.sort()
    body = b"".join([_ELEMENT.pack(0, element, len(value)) + value for element, value in parts])
    return _ELEMENT.pack(0, 0, 4) + len(body).to_bytes(4, "little") + body


def _value(kind: str, raw: bytes) -> object:
    if kind == "text":
        return raw.decode("latin-1").strip(" \0")
    if kind == "short":
        if len(raw) < 2:
            raise FrameError("a number of a command is cut short")
        return raw[0] | raw[1] << 8
    count = min(len(raw) // 4, OFFENDING_MAX)
    pairs = struct.unpack_from(f"<{2 * count}H", raw)
    return tuple(group << 16 | element for group, element in zip(pairs[::2], pairs[1::2], strict=True))


def _bytes(kind: str, value: object) -> bytes:
    if isinstance(value, str):
        return _padded(value[:COMMENT_MAX], b" ")
    if isinstance(value, int):
        return _SHORT.pack(value & 0xFFFF)
    assert isinstance(value, tuple), kind
    return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)


def _padded(text: str, filler: bytes) -> bytes:
    raw = text.encode("latin-1", "replace")
    return raw + filler * (len(raw) % 2)
