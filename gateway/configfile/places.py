"""Where each key of a TOML file stands: tomllib says what a file means, tree-sitter where.

Lines and columns count from 1, columns in characters. Marks are made of a text that tomllib has read without fault.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

from gateway.typed import KeyPath


@dataclass(frozen=True, order=True)
class Place:
    """A position in a file."""

    file: Path
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Mark:
    """Where a key or list item stands; for text, also where its quotes open and how it is written."""

    place: Place
    value_place: Place | None = None
    written: str = ""

    def inside(self, offset: int) -> Place:
        """Return the place of a character of the text, counted from 0 in what the text means."""
        if self.value_place is None:
            return self.place
        before = self.written[: written_offset(self.written, offset)]
        line = self.value_place.line + before.count("\n")
        column = len(before) - before.rfind("\n") if "\n" in before else self.value_place.column + len(before)
        return Place(self.place.file, line, column)


def read_marks(text: str, file: Path) -> dict[KeyPath, Mark]:
    """Return the mark of every table, key and list item by its path."""
    source = text.encode()
    tree = Parser(_language()).parse(source)
    return _Walk(source, file).document(tree.root_node)


def written_offset(written: str, offset: int) -> int:
    """Return where in a TOML string, quotes included, the character `offset` of its meaning is written."""
    opening = 3 if written[:3] in ('"""', "'''") else 1
    at = opening + (opening == 3 and written[3:4] == "\n")  # TOML 1.0: a newline right after the quotes is trimmed
    end = len(written) - opening
    basic = written[:1] == '"'
    at = _past_joint(written, at) if basic else at
    for _ in range(offset):
        if at >= end:
            break
        at += _written_chars(written, at) if basic else 1
        at = _past_joint(written, at) if basic else at
    return min(at, end)


def _written_chars(written: str, at: int) -> int:
    if written[at] != "\\":
        return 1
    return {"u": 6, "U": 10}.get(written[at + 1], 2)


def _past_joint(written: str, at: int) -> int:
    """Return where the text goes on when a backslash at a line's end joins it with what follows."""
    while written[at] == "\\" and written[at + 1] in " \t\n":
        at += 1
        while written[at] in " \t\n":
            at += 1
    return at


@cache
def _language() -> Language:
    return Language(tree_sitter_toml.language())


class _Walk:
    """Goes through a syntax tree once and notes the paths."""

    def __init__(self, source: bytes, file: Path) -> None:
        self._lines = source.split(b"\n")
        self._file = file
        self._marks: dict[KeyPath, Mark] = {}
        self._counts: dict[KeyPath, int] = {}  # of the tables in each array of tables so far

    def document(self, root: Node) -> dict[KeyPath, Mark]:
        for node in root.named_children:
            if node.type == "pair":
                self._pair(node, ())
            elif node.type in ("table", "table_array_element"):
                self._table(node)
        return self._marks

    def _table(self, node: Node) -> None:
        keys = tuple(_keys(node.named_children[0]))
        path = self._current(keys[:-1])
        path = (*path, keys[-1])
        place = self._place(node)
        for end in range(1, len(path) + 1):
            self._marks.setdefault(path[:end], Mark(place))
        if node.type == "table_array_element":
            count = self._counts.get(path, 0)
            self._counts[path] = count + 1
            path = (*path, count)
            self._marks[path] = Mark(place)
        for child in node.named_children[1:]:
            if child.type == "pair":
                self._pair(child, path)

    def _current(self, keys: tuple[str, ...]) -> KeyPath:
        """Return the path of a header, where the name of an array of tables means its last table."""
        path: KeyPath = ()
        for key in keys:
            path = (*path, key)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    def _pair(self, node: Node, table: KeyPath) -> None:
        named = [child for child in node.named_children if child.type != "comment"]
        key, value = named[0], named[-1]
        place = self._place(key)
        path = table
        for part in _keys(key):
            path = (*path, part)
            self._marks.setdefault(path, Mark(place))
        self._value(value, path, place)

    def _value(self, node: Node, path: KeyPath, place: Place) -> None:
        if node.type == "string":
            self._marks[path] = Mark(place, self._place(node), cast(bytes, node.text).decode())
            return
        self._marks[path] = Mark(place)
        if node.type == "inline_table":
            for pair in node.named_children:
                if pair.type == "pair":
                    self._pair(pair, path)
        elif node.type == "array":
            items = [item for item in node.named_children if item.type != "comment"]
            for index, item in enumerate(items):
                self._value(item, (*path, index), self._place(item))

    def _place(self, node: Node) -> Place:
        row, column = node.start_point
        return Place(self._file, row + 1, len(self._lines[row][:column].decode(errors="replace")) + 1)


def _keys(node: Node) -> Iterator[str]:
    if node.type == "dotted_key":
        for child in node.named_children:
            yield from _keys(child)
        return
    written = cast(bytes, node.text).decode()
    yield next(iter(tomllib.loads(f"{written} = 0"))) if node.type == "quoted_key" else written
