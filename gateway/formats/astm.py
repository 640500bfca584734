"""ASTM E1394 records (CLSI LIS02-A2): text to fields and back.

The first record of a message declares its delimiters: `H|\\^&` is field `|`, repeat `\\`, component `^`, escape `&`.
Fields are counted from 1, the record's type being field 1, as the standard counts them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RECORDS_MAX = 10_000

_CODEPOINT = re.compile(r"X((?:[0-9A-Fa-f]{2})+)")


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The four delimiters of a message."""

    field: str = "|"
    repeat: str = "\\"
    component: str = "^"
    escape: str = "&"

    def __str__(self) -> str:
        return f"{self.field}{self.repeat}{self.component}{self.escape}"

    @classmethod
    def of(cls, header: str) -> "Delimiters":
        """Read them from a header record; the standard's where the header is cut or says a thing twice.

        Programs that write the backslash doubled, `H|\\\\^&`, are read as they mean it.
        """
        told = header[1:6]
        if told[1:3] == "\\\\":
            told = told[:1] + told[2:]
        told = told[:4]
        usual = cls()
        if len(told) < 4 or len(set(told)) < 4 or any(mark.isalnum() for mark in told):
            return cls(field=told[0]) if told and not told[0].isalnum() else usual
        return cls(*told)


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its fields as written, the type first."""

    fields: tuple[str, ...]
    delimiters: Delimiters

    @property
    def type(self) -> str:
        """Return the record's letter, upper case; longer words of vendors as they stand."""
        return self.fields[0].strip().upper()

    def text(self, position: int) -> str:
        """Return a field unescaped; "" for one that is not there."""
        return unescape(self._field(position), self.delimiters).strip()

    def components(self, position: int) -> tuple[str, ...]:
        """Return the components of a field's first repeat, unescaped."""
        first = self._field(position).split(self.delimiters.repeat)[0]
        return tuple(unescape(part, self.delimiters).strip() for part in first.split(self.delimiters.component))

    def component(self, position: int, number: int) -> str:
        """Return one component, counted from 1; "" for one that is not there."""
        parts = self.components(position)
        return parts[number - 1] if number <= len(parts) else ""

    def repeats(self, position: int) -> tuple[tuple[str, ...], ...]:
        """Return the components of each repeat of a field."""
        return tuple(
            tuple(unescape(part, self.delimiters).strip() for part in repeat.split(self.delimiters.component))
            for repeat in self._field(position).split(self.delimiters.repeat)
        )

    def _field(self, position: int) -> str:
        if position == 2 and self.type == "H":
            return ""  # the delimiters themselves
        return self.fields[position - 1] if position <= len(self.fields) else ""


def read_records(text: str) -> Iterator[Record]:
    """Yield the records of a message, at most RECORDS_MAX; empty lines are none."""
    delimiters = Delimiters()
    found = 0
    for line in re.split(r"[\r\n]+", text):
        if not line.strip("\0 "):
            continue
        if line[:1] == "H":
            delimiters = Delimiters.of(line)
        yield Record(tuple(line.split(delimiters.field)), delimiters)
        found += 1
        if found == RECORDS_MAX:
            return


def unescape(text: str, delimiters: Delimiters) -> str:
    """Return text with the sequences of LIS02-A2, 5.4.6 replaced; what is none of them stays."""
    mark = delimiters.escape
    if mark not in text:
        return text
    parts = text.split(mark)
    out, index = parts[0], 1
    while index < len(parts):
        meant = _meant(parts[index], delimiters) if index + 1 < len(parts) else None
        if meant is None:
            out += mark + parts[index]
            index += 1
        else:
            out += meant + parts[index + 1]
            index += 2
    return out


def escape(text: str, delimiters: Delimiters) -> str:
    """Return text in which no delimiter and no control character is left."""
    names = {delimiters.escape: "E", delimiters.field: "F", delimiters.component: "S", delimiters.repeat: "R"}
    mark = delimiters.escape
    out = ""
    for character in text:
        if character in names:
            out += f"{mark}{names[character]}{mark}"
        elif ord(character) < 32:
            out += f"{mark}X{ord(character):02X}{mark}"
        else:
            out += character
    return out


def write_record(delimiters: Delimiters, *fields: str | Sequence[str]) -> str:
    """Return a record; a field is text, or the components of one. Trailing empty fields are left out."""
    written = [
        escape(item, delimiters)
        if isinstance(item, str)
        else delimiters.component.join(escape(part, delimiters) for part in item)
        for item in fields
    ]
    while written and not written[-1]:
        written.pop()
    return delimiters.field.join(written)


def _meant(name: str, delimiters: Delimiters) -> str | None:
    plain = {"F": delimiters.field, "S": delimiters.component, "R": delimiters.repeat, "E": delimiters.escape}
    if name in plain:
        return plain[name]
    code = _CODEPOINT.fullmatch(name)
    return bytes.fromhex(code[1]).decode("latin-1") if code else None
