"""An HL7 order message in groups: what belongs to one order, and values in it by path.

ORM^O01, OMI^O23 and OMG^O19 repeat ORC, TQ1, OBR with what follows; SIU repeats AIS with its resources. A group sees
its own segments first, then those of the patient and visit that stand before all groups. A second OBR below one ORC
is an order of its own; a ZDS at the end serves the orders that have none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gateway.formats.hl7 import Header, segments_of, unescaped
from gateway.formats.hl7_path import Hl7Path, parse_path

GROUPS_MAX = 64  # orders of one message
DELETED = '""'  # HL7's null: the value is to be removed (2.5.3)

Fields = list[str]


@dataclass(slots=True)
class Group:
    """Segments of one order, by name; `shared` are those of the patient; `notes` the NTE after a segment."""

    text: "OrderText"
    shared: dict[str, list[Fields]]
    own: dict[str, list[Fields]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def segments(self, name: str) -> list[Fields]:
        """Return the segments of a name."""
        return self.own.get(name) or self.shared.get(name, [])

    def raw(self, path: str) -> list[str]:
        """Return the repetitions of a field as they stand (`PID-3`, `IPC-9`), or those parts of it (`PID-3.1`)."""
        wanted = parse_path(path)
        for fields in self.segments(wanted.segment)[:1]:
            if wanted.field < len(fields):
                return [self.text.part(one, wanted) for one in self.text.repetitions(fields[wanted.field])]
        return []

    def value(self, path: str) -> str:
        """Return the first repetition at a path, unescaped; of a whole field its first component, DELETED as it is."""
        wanted = parse_path(path)
        for one in self.raw(path):
            first = one if wanted.component is not None else self.text.component(one, 1)
            if wanted.subcomponent is None:
                first = self.text.subcomponent(first, 1)
            if first.strip():
                return self.text.plain(first)
        return ""


class OrderText:
    """A message, decoded and split once."""

    def __init__(self, raw: bytes, header: Header, codec: str) -> None:
        self._header = header
        self._codec = codec
        separators = header.separators
        self._component = separators.component.decode("latin-1")
        self._repetition = separators.repetition.decode("latin-1")
        self._subcomponent = separators.subcomponent.decode("latin-1")
        self._segments = segments_of(raw, header, codec)

    def orders(self) -> list[Group]:
        """Return the orders of ORM, OMI or OMG."""
        return self._grouped(("ORC", "OBR"))

    def appointments(self) -> list[Group]:
        """Return the services of an SIU; one group where it names none."""
        return self._grouped(("AIS",)) or [self._alone()]

    def patients(self) -> list[Group]:
        """Return the patients of an ADT: each PID with its MRG."""
        return self._grouped(("PID",))

    def repetitions(self, field_text: str) -> list[str]:
        """Return the repetitions of a field."""
        return field_text.split(self._repetition)

    def component(self, text: str, number: int) -> str:
        """Return one component, "" where it is missing."""
        parts = text.split(self._component, number)
        return parts[number - 1] if number <= len(parts) else ""

    def subcomponent(self, text: str, number: int) -> str:
        """Return one subcomponent, "" where it is missing."""
        parts = text.split(self._subcomponent, number)
        return parts[number - 1] if number <= len(parts) else ""

    def components(self, text: str) -> list[str]:
        """Return all components, each its first subcomponent, unescaped."""
        return [self.plain(self.subcomponent(part, 1)) for part in text.split(self._component)]

    def subcomponents(self, text: str) -> list[str]:
        """Return all subcomponents, unescaped."""
        return [self.plain(part) for part in text.split(self._subcomponent)]

    def part(self, text: str, path: Hl7Path) -> str:
        """Return what a path asks of one repetition, with escapes."""
        if path.component is not None:
            text = self.component(text, path.component)
        return self.subcomponent(text, path.subcomponent) if path.subcomponent is not None else text

    def plain(self, text: str) -> str:
        """Return a part without escapes and spaces around it."""
        return unescaped(text, self._header, self._codec).strip()

    def _alone(self) -> Group:
        return Group(self, self._by_name(self._segments))

    def _by_name(self, segments: Sequence[Fields]) -> dict[str, list[Fields]]:
        found: dict[str, list[Fields]] = {}
        for fields in segments:
            found.setdefault(fields[0], []).append(fields)
        return found

    def _grouped(self, opening: tuple[str, ...]) -> list[Group]:
        start = next((at for at, fields in enumerate(self._segments) if fields[0] in opening), None)
        if start is None:
            return []
        head = self._segments[:start]
        shared = self._by_name(head)
        patient_notes = list(_notes(head, "PID", self))
        groups: list[Group] = []
        last = ""
        for fields in self._segments[start:]:
            name = fields[0]
            if _begins(name, groups[-1] if groups else None, opening):
                if len(groups) == GROUPS_MAX:
                    break
                groups.append(self._opened(groups[-1] if groups and name == "OBR" else None, shared))
            group = groups[-1]
            if name == "NTE":
                group.notes.setdefault(last, []).append(self._note(fields))
            else:
                group.own.setdefault(name, []).append(fields)
                last = name
        for group in groups:
            group.notes.setdefault("PID", patient_notes)
        return _with_study(groups)

    def _opened(self, above: Group | None, shared: dict[str, list[Fields]]) -> Group:
        """Return a new group; a further OBR has the ORC and times of the one above it."""
        own: dict[str, list[Fields]] = (
            {} if above is None else {name: above.own[name] for name in ("ORC", "TQ1") if name in above.own}
        )
        return Group(self, shared, own)

    def _note(self, fields: Fields) -> str:
        text = fields[3] if len(fields) > 3 else ""
        return "\n".join(self.plain(one) for one in self.repetitions(text))


def _begins(name: str, group: Group | None, opening: tuple[str, ...]) -> bool:
    if name not in opening:
        return False
    return group is None or name != "OBR" or "OBR" in group.own


def _notes(segments: Sequence[Fields], after: str, text: OrderText) -> Iterator[str]:
    last = ""
    for fields in segments:
        if fields[0] == "NTE":
            if last == after and len(fields) > 3:
                yield text.plain(fields[3])
        else:
            last = fields[0]


def _with_study(groups: list[Group]) -> list[Group]:
    """Give the last ZDS to the orders before it that have none: many senders write it once, at the end."""
    last = groups[-1].own.get("ZDS") if groups else None
    for group in groups:
        if last is not None:
            group.own.setdefault("ZDS", last)
    return groups
