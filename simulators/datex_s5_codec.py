"""The bytes of the S/5 computer interface, as a monitor makes them: frames, numerics, waves, alarms."""

import csv
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

INVALID = -32767
HEADER = 40
CLASS_BYTES = 270
SUBRECORD_BYTES = CLASS_BYTES + 8
ALARM_LINES, ALARM_BYTES = 5, 510
_LAYOUT = Path(__file__).parent / "data" / "datex_s5.csv"


@dataclass(slots=True)
class GroupValues:
    """What one group shows; fields that are not named are invalid, of groups that are not there too."""

    status: int = 0
    label: int = 0
    values: dict[str, int] = field(default_factory=dict)
    fill: int = INVALID


@dataclass(frozen=True, slots=True)
class _Place:
    number: int
    offset: int
    name: str
    has_header: bool
    fields: tuple[tuple[str, str], ...]


def frame(record: bytes, *, checksum_error: int = 0) -> bytes:
    """Put a record into a frame; `checksum_error` is added to the right sum."""
    out = bytearray(b"\x7e")
    for byte in record + bytes(((sum(record) + checksum_error) % 256,)):
        if byte in (0x7D, 0x7E):
            out += bytes((0x7D, byte & 0xDF))
        else:
            out.append(byte)
    out.append(0x7E)
    return bytes(out)


class Receiver:
    """Takes requests apart: a flag ends what came before it; what is not sound is passed over."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the sound records in the bytes so far."""
        records = []
        for byte in data:
            if byte == 0x7E:
                if len(self._bytes) > HEADER and sum(self._bytes[:-1]) % 256 == self._bytes[-1]:
                    record = bytes(self._bytes[:-1])
                    if struct.unpack_from("<h", record)[0] == len(record):
                        records.append(record)
                self._bytes.clear()
                self._escaped = False
            elif byte == 0x7D:
                self._escaped = True
            elif len(self._bytes) < 2000:
                self._bytes.append(byte | 0x20 if self._escaped else byte)
                self._escaped = False
        return records


def record(
    main_type: int, parts: Sequence[tuple[int, bytes]], *, number: int, level: int, time: int, plug: int = 0
) -> bytes:
    """Build a record of subrecords (type, data)."""
    data = b"".join(body for _, body in parts)
    head = struct.pack("<hBBHIBBHh", HEADER + len(data), number, level, plug, time, 0, 0, 0, main_type)
    offset = 0
    for kind, body in parts:
        head += struct.pack("<hB", offset, kind)
        offset += len(body)
    if len(parts) < 8:
        head += struct.pack("<hB", 0, 0xFF)
    return head.ljust(HEADER, b"\0") + data


def numerics(
    number: int, kind: int, groups: Mapping[str, GroupValues], *, time: int, level: int, marker: int = 0
) -> bytes:
    """Build one class (0 basic to 3 ext3) of displayed values (kind 1) or a trend (2, 3)."""
    body = bytearray(CLASS_BYTES)
    for place in _places():
        if place.number == number:
            _put(body, place, groups.get(place.name, GroupValues()))
    return struct.pack("<I", time) + bytes(body) + struct.pack("<BBH", marker, 0, number << 8 | level << 4 | kind)


def _put(body: bytearray, place: _Place, shown: GroupValues) -> None:
    at = place.offset
    if place.has_header:
        struct.pack_into("<IH", body, at, shown.status, shown.label)
        at += 6
    for name, kind in place.fields:
        fill = shown.fill if kind == "h" else 0
        struct.pack_into(f"<{kind}", body, at, shown.values.get(name, fill))
        at += struct.calcsize(kind)


@cache
def _places() -> tuple[_Place, ...]:
    with _LAYOUT.open(encoding="utf-8", newline="") as file:
        return tuple(
            _Place(
                int(row["class"]),
                int(row["offset"]),
                row["group"],
                row["header"] == "1",
                tuple((name.partition(":")[0], name.partition(":")[2] or "h") for name in row["fields"].split()),
            )
            for row in csv.DictReader(file)
        )


def wave_block(samples: Sequence[int], *, gap: bool, counter: int, label: int = 0, lead_off: bool = False) -> bytes:
    """Build one wave: bits 1 and 10 and a counter of 0 to 59 stand in the status word, as monitors send them."""
    status = 0x0402 | (counter % 60) << 4 | (0x1 if gap else 0) | (0x8 if lead_off else 0)
    return struct.pack(f"<hHH{len(samples)}h", len(samples), status, label, *samples)


@dataclass(frozen=True, slots=True)
class AlarmLine:
    """One alarm on the screen: colour 1 white, 2 yellow, 3 red; whether it is new."""

    text: str
    colour: int
    changed: bool = False


def alarm_status(lines: Sequence[AlarmLine], *, sound: int = 1, silence: int = 0) -> bytes:
    """Build an alarm status, with enumerations of 16 bits."""
    body = struct.pack("<hHhhH", 0, sound, 0, 0, silence)
    for line in lines[:ALARM_LINES]:
        body += struct.pack("<80sHHH12x", line.text.encode("latin-1"), line.changed, line.colour, line.changed)
    return body.ljust(ALARM_BYTES, b"\0")


def auxiliary(nibp: int, output: int, wedge: int, area: int) -> bytes:
    """Build auxiliary information: times of single measurements in Unix seconds, body surface in 0.01 m2."""
    return struct.pack("<IhIIh98x", nibp, 0, output, wedge, area)
