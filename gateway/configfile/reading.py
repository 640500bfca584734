"""gateway.toml and `conf.d/*.toml` beside it as one table, with the place of every key.

The files of `conf.d` follow the main file in the order of their names. Tables are joined, arrays of tables are
appended; a key that is written twice is a fault that names both places.
"""

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.configfile.places import Mark, Place, read_marks
from gateway.typed import Fault, KeyPath

FILE_BYTES_MAX = 4 << 20
FILES_MAX = 1000
FOLDER = "conf.d"

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_WORDS = {
    "Cannot overwrite a value": "this key stands twice in its table",
    "Invalid value": 'Invalid value (text stands in straight quotes, "like this")',
}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_DECLARED_TWICE = re.compile(r"Cannot declare \((.*)\) twice")
_QUOTED = re.compile(r"'([^']*)'")


@dataclass(frozen=True)
class PlacedFault:
    """A fault and where in the files it stands: `gateway.toml:12:1: source[1].prot: unknown key 'prot'`."""

    place: Place
    fault: Fault

    def __str__(self) -> str:
        return f"{self.place}: {self.fault}"


@dataclass
class Merged:
    """All files as one table, the mark of each path in it, and the faults of reading and joining."""

    main: Path
    files: list[Path] = field(default_factory=list)
    tables: dict[str, Any] = field(default_factory=dict)
    marks: dict[KeyPath, Mark] = field(default_factory=dict)
    faults: list[PlacedFault] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Tell whether every file could be read, so that what is missing here stands nowhere."""
        return all(placed.fault.path for placed in self.faults)

    def mark(self, path: KeyPath) -> Mark:
        """Return the mark of a path, or of the nearest table around it that stands in a file."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.marks:
                return self.marks[path[:end]]
        return Mark(Place(self.main, 1, 1))


def read_files(main: Path) -> Merged:
    """Read the main file and its `conf.d`; what cannot be read is a fault, and the other files are still read."""
    merged = Merged(main)
    try:
        found = sorted(file for file in (main.parent / FOLDER).glob("*.toml") if not file.name.startswith("."))
    except OSError as error:
        merged.faults.append(_fault(main.parent / FOLDER, f"cannot be read: {error.strerror}"))
        found = []
    if len(found) > FILES_MAX:
        merged.faults.append(_fault(main.parent / FOLDER, f"more than {FILES_MAX} files"))
    for file in (main, *found[:FILES_MAX]):
        merged.files.append(file)
        _read_file(file, merged)
    return merged


def _read_file(file: Path, merged: Merged) -> None:
    try:
        with file.open("rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        merged.faults.append(_fault(file, f"cannot be read: {error.strerror}"))
        return
    if len(raw) > FILE_BYTES_MAX:
        merged.faults.append(_fault(file, f"larger than {FILE_BYTES_MAX} bytes"))
        return
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode()
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        what = "is UTF-16: save it as UTF-8" if raw.startswith(_UTF16_MARKS) else "is not UTF-8"
        merged.faults.append(_fault(file, what, line, column))
        return
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        merged.faults.append(_fault(file, "nested too deep"))
    except ValueError as error:  # TOMLDecodeError, and whole numbers of thousands of digits
        merged.faults.append(_syntax_fault(file, text, str(error)))
    else:
        _join(merged, tables, read_marks(text, file))


def _syntax_fault(file: Path, text: str, message: str) -> PlacedFault:
    at = _AT.search(message)
    if at is None:
        return _fault(file, message)
    what = _in_words(message[: at.start()])
    if at[1] is None:
        last = text.count("\n") + 1, len(text) - text.rfind("\n")
        return _fault(file, f"{what} at the end of the file", *last)
    return _fault(file, what, int(at[1]), int(at[2]))


def _in_words(message: str) -> str:
    """Return what tomllib says, for whoever writes the file and does not know tomllib."""
    if twice := _DECLARED_TWICE.fullmatch(message):
        return f"the table [{'.'.join(_QUOTED.findall(twice[1]))}] stands twice"
    return _WORDS.get(message, message)


def _fault(file: Path, text: str, line: int = 1, column: int = 1) -> PlacedFault:
    return PlacedFault(Place(file, line, column), Fault((), text))


def _join(merged: Merged, tables: dict[str, Any], marks: dict[KeyPath, Mark]) -> None:
    shifts: dict[KeyPath, int] = {}
    twice: list[KeyPath] = []
    _join_tables(merged.tables, tables, (), shifts, twice)
    for path in twice:
        text = f"{path[-1]!r} is written twice, first at {merged.mark(path).place}"
        merged.faults.append(PlacedFault(marks[path].place, Fault(path, text)))
    for path, mark in marks.items():
        merged.marks.setdefault(_shifted(path, shifts), mark)


def _join_tables(
    into: dict[str, Any], new: dict[str, Any], path: KeyPath, shifts: dict[KeyPath, int], twice: list[KeyPath]
) -> None:
    for key, value in new.items():
        here = (*path, key)
        old = into.setdefault(key, value)
        if old is value:
            continue
        if isinstance(old, dict) and isinstance(value, dict):
            _join_tables(old, value, here, shifts, twice)
        elif _is_array_of_tables(old) and _is_array_of_tables(value):
            shifts[here] = len(old)
            old.extend(value)
        else:
            twice.append(here)


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _shifted(path: KeyPath, shifts: dict[KeyPath, int]) -> KeyPath:
    if not shifts:
        return path
    shifted: KeyPath = ()
    for part in path:
        shifted = (*shifted, part + shifts.get(shifted, 0) if isinstance(part, int) else part)
    return shifted
