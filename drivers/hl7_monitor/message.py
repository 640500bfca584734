"""One HL7 message as a monitor sends it: segments, fields, components, without the care of a general parser.

Values that a field holds are text; `""` (delete) counts as nothing. Segment ends may be CR, LF or CR LF.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from gateway.driver import read_clock
from gateway.formats.hl7 import Header, read_header, segments_of, unescaped

SEGMENTS_MAX = 5000
NO_PATIENT = frozenset({"", "UNKNOWN", "NONE"})

_TIME = re.compile(r"(\d{8}|\d{10}|\d{12}|\d{14})(\.\d{1,6})?([+-]\d{4})?")
_FORMATS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment; fields and components count from 1."""

    name: str
    fields: Sequence[str]
    header: Header
    codec: str

    def text(self, field: int) -> str:
        """Return a field's first repetition as written, without escapes; "" where there is none."""
        raw = self.fields[field] if field < len(self.fields) else ""
        first = raw.split(self.header.separators.repetition.decode("latin-1"))[0].strip()
        return "" if first == '""' else unescaped(first, self.header, self.codec)

    def component(self, field: int, number: int) -> str:
        """Return a component of a field's first repetition, without escapes."""
        raw = self.fields[field] if field < len(self.fields) else ""
        first = raw.split(self.header.separators.repetition.decode("latin-1"))[0]
        parts = first.split(self.header.separators.component.decode("latin-1"))
        return unescaped(parts[number - 1].strip(), self.header, self.codec) if number <= len(parts) else ""

    def components(self, field: int) -> list[str]:
        """Return all components of a field's first repetition."""
        raw = self.fields[field] if field < len(self.fields) else ""
        separator = self.header.separators.component.decode("latin-1")
        return [unescaped(part.strip(), self.header, self.codec) for part in raw.split(separator)]

    def repetitions(self, field: int) -> list[str]:
        """Return the first component of each repetition of a field."""
        raw = self.fields[field] if field < len(self.fields) else ""
        separators = self.header.separators
        parts = raw.split(separators.repetition.decode("latin-1"))
        return [part.split(separators.component.decode("latin-1"))[0].strip() for part in parts]


@dataclass(frozen=True, slots=True)
class MonitorMessage:
    """A whole message: its header and segments."""

    header: Header
    segments: tuple[Segment, ...]

    @property
    def control_id(self) -> str:
        """Return MSH-10."""
        return self.header.control_id.decode("latin-1").strip()

    def named(self, name: str) -> Iterator[Segment]:
        """Yield the segments of a name, in order."""
        return (segment for segment in self.segments if segment.name == name)

    def patient_id(self) -> str | None:
        """Return PID-3.1 as the monitor shows it; placeholders are nobody."""
        for pid in self.named("PID"):
            text = pid.component(3, 1)
            return None if text.upper() in NO_PATIENT or not text.strip("0") else text
        return None

    def bed(self) -> str:
        """Return point of care, room and bed of PV1-3 as the monitor names them, "" where it names none."""
        place = next((pv1.components(3)[:3] for pv1 in self.named("PV1")), [])
        return "^".join(place).strip("^")

    def device_time(self) -> str | None:
        """Return the time of the values as written: the first OBR-7, else MSH-7."""
        return next((text for obr in self.named("OBR") if (text := obr.text(7))), None) or self.msh(7) or None

    def clock(self, utc_offset: str) -> datetime | None:
        """Return what the sender's clock showed when it spoke (MSH-7): with its zone where that is known.

        None where it shows no seconds.
        """
        match = _TIME.fullmatch(self.msh(7))
        if match is None or len(match[1]) < len("YYYYMMDDHHMMSS"):
            return None
        return instant_of(self.msh(7), utc_offset) or read_clock(match[1], _FORMATS[14])

    def msh(self, number: int) -> str:
        """Return an MSH field as text."""
        return self.header.field(number).decode("latin-1").strip()


def read_message(raw: bytes, encoding: str) -> MonitorMessage:
    """Split a message. Raises ContentError where it does not begin with MSH."""
    header = read_header(raw)
    codec = header.codec(encoding)
    if codec in ("utf-8", "ascii") and not _decodes(raw, codec):
        codec = "latin-1"
    found = segments_of(raw, header, codec)[:SEGMENTS_MAX]
    return MonitorMessage(header, tuple(Segment(fields[0], fields, header, codec) for fields in found))


def _decodes(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def instant_of(text: str, utc_offset: str) -> datetime | None:
    """Return an HL7 time that names its offset, or has the sender's as configured; None for any other."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    offset = match[3] or utc_offset
    if not offset:
        return None
    try:
        local = datetime.strptime(match[1], _FORMATS[len(match[1])])
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        zone = timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
        fraction = timedelta(microseconds=int((match[2] or ".0")[1:].ljust(6, "0")))
        return (local + fraction).replace(tzinfo=zone)
    except ValueError:
        return None
