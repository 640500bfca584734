"""What commands print: aligned plain text for people, one JSON document for scripts.

Text that came from Devices and peers may hold escape sequences of a terminal: control characters are never printed.
"""

import argparse
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime

from gateway.console.document import to_json

ABSENT = "-"
CELL_CHARS_MAX = 80
LINE_CHARS_MAX = 400


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def print_json(document: object) -> None:
    """Print a document."""
    print(to_json(document, indent=2))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print aligned columns; numbers to the right. The last column, where reasons stand, is as long as it is."""
    listed = [list(row) for row in rows]
    cells = [list(titles), *([*map(cell, row[:-1]), cell(row[-1], LINE_CHARS_MAX)] for row in listed)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    right = [
        bool(listed) and all(isinstance(row[column], int | float) for row in listed) for column in range(len(titles))
    ]
    for line in cells:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip())


def cell(value: object, chars_max: int = CELL_CHARS_MAX) -> str:
    """Return a value as the text of one cell."""
    match value:
        case None | "":
            return ABSENT
        case datetime():
            return instant(value)
        case float():
            return f"{value:g}"
    text = clean(str(value))
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def instant(at: datetime) -> str:
    """Return an instant in UTC to the millisecond: `2026-01-31T08:15:00.250Z`."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean(text: str) -> str:
    """Return text without anything that a terminal would act on (control, format and private characters)."""
    return "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)


def size(count: float) -> str:
    """Return bytes in words: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a time in words: `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
