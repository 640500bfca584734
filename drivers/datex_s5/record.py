"""Datex-Ohmeda records: the header of 40 bytes and the subrecords behind it (GE 8005313, pages 4 to 6).

Numbers are little endian, structures are packed. A record carries up to eight subrecords; each is named by an offset
into the data and a type.
"""

import struct
from dataclasses import dataclass

from drivers.datex_s5.framing import HEADER_BYTES
from gateway.errors import ContentError

LEVEL_MIN, LEVEL_MAX = 2, 11  # '95 to '15
LEVEL_NAMES = {2: "'95", 3: "'97", 4: "'98", 5: "'99", 6: "'01", 7: "'02", 8: "'03", 9: "'05", 10: "'09", 11: "'15"}

PHYSIOLOGICAL, WAVES, ALARMS = 0, 1, 4  # r_maintype; 5 and 8 travel on the network only
REQUEST = 0  # the subrecord type of every request

_HEADER = struct.Struct("<hBBHIBBHh")
_DESCRIPTOR = struct.Struct("<hB")
_DESCRIPTORS_MAX = 8
_END = 0xFF


@dataclass(frozen=True, slots=True)
class Subrecord:
    """One subrecord: its type within the record's main type, and its bytes."""

    kind: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `level` is the monitor's interface level, `time` Unix seconds of its clock."""

    number: int
    level: int
    time: int
    main_type: int
    parts: tuple[Subrecord, ...]

    @property
    def is_request(self) -> bool:
        """Tell whether it is what a host says: a tapped line may carry both directions."""
        return all(part.kind == REQUEST for part in self.parts)


def parse(record: bytes) -> Record:
    """Read a record whose frame is sound.

    Raises ContentError when level, main type or offsets cannot be a monitor's: the frame was damaged in a way that
    its checksum hides.
    """
    _, number, level, _, time, _, _, _, main_type = _HEADER.unpack_from(record)
    parts = tuple(_subrecords(record))
    found = Record(number, level, time, main_type, parts)
    if not LEVEL_MIN <= level <= LEVEL_MAX and not (found.is_request and level == 0):
        raise ContentError(f"interface level {level} is none")
    if not parts:
        raise ContentError("a record without subrecords")
    return found


def _subrecords(record: bytes) -> list[Subrecord]:
    found: list[tuple[int, int]] = []
    for number in range(_DESCRIPTORS_MAX):
        offset, kind = _DESCRIPTOR.unpack_from(record, 16 + 3 * number)
        if kind == _END:
            break
        found.append((offset, kind))
    if not found:
        return []
    size = len(record) - HEADER_BYTES
    starts = [offset for offset, _ in found]
    if any(not 0 <= start < size for start in starts) or sorted(set(starts)) != starts:
        raise ContentError("subrecord offsets outside of the record or out of order")
    ends = [*starts[1:], size]
    return [
        Subrecord(kind, record[HEADER_BYTES + start : HEADER_BYTES + end])
        for (start, kind), end in zip(found, ends, strict=True)
    ]
