"""Specific Character Set (0008,0005): letters to bytes and back (PS3.3, C.12.1.1.2; PS3.5, 6.1.2.5).

One term is one codec. Several terms are code extensions: the first holds at the start of every value, component and
line, an escape sequence brings another one in. Reading is generous: unknown terms count as ISO_IR 6, and a data set
that declares ISO_IR 6 or nothing but holds more than ASCII is read as Latin-1, so that no letter is lost by it.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

UTF_8 = "ISO_IR 192"

_ESCAPE = "\x1b"
_TO_ASCII = b"\x1b(B"
_TO_ROMAN = b"\x1b(J"  # JIS X 0201, where that is the first character set
_FRAGMENT = re.compile(rb"\x1b[^\x1b]*|^[^\x1b]+")
_DELIMITER = re.compile(rb"[\t\n\f\r\\^=]")


@dataclass(frozen=True, slots=True)
class _Set:
    """A defined term; `escape` is what designates it, `width` the bytes of a letter, 0 where that varies."""

    codec: str
    escape: bytes
    width: int


def _read() -> dict[str, _Set]:
    text = (resources.files("gateway.formats") / "character_sets.csv").read_text("utf-8")
    return {
        row["term"]: _Set(
            row["codec"], f"{_ESCAPE}{row['escape']}".encode("ascii") if row["escape"] else b"", int(row["bytes"])
        )
        for row in csv.DictReader(text.splitlines())
    }


_SETS = _read()
_ASCII = _SETS["ISO_IR 6"]
_BY_ESCAPE = {each.escape: each for each in _SETS.values() if each.escape}
_ESCAPES = sorted(_BY_ESCAPE, key=len, reverse=True)


def is_character_set(term: str) -> bool:
    """Return whether a defined term can be read and written here; the empty one is ISO_IR 6."""
    return term == "" or term in _SETS


def decode_text(value: bytes, terms: Sequence[str]) -> str:
    """Return the letters of a value; what is wrong in its character set reads as U+FFFD."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    first, *others = _sets(tuple(terms))
    if b"\x1b" not in value or not others:
        return value.decode(_generous(first), "replace")
    return "".join(_fragment(found[0], first) for found in _FRAGMENT.finditer(value))


def encode_text(text: str, terms: Sequence[str]) -> bytes:
    """Return a value, component or line in the character sets; it ends in the first of them.

    Raises UnicodeError where none of them has a letter.
    """
    if text.isascii():
        return text.encode("ascii")
    first, *others = _sets(tuple(terms))
    if not others:
        return _whole(text, first)
    try:
        return _whole(text, first)
    except UnicodeError:
        return _extended(text, first, others)


def _fragment(piece: bytes, first: _Set) -> str:
    """Return what stands between two escape sequences."""
    if not piece.startswith(b"\x1b"):
        return piece.decode(_generous(first), "replace")
    escape = next((each for each in _ESCAPES if piece.startswith(each)), None)
    if escape is None:  # ESC ( B, ESC ( J, or one that nobody defines
        return piece[3:].decode("shift_jis" if piece.startswith(_TO_ROMAN) else _generous(first), "replace")
    found = _BY_ESCAPE[escape]
    if found.codec.startswith("iso2022"):  # these codecs read the escape sequence themselves
        return piece.decode(found.codec, "replace")
    rest = piece[len(escape) :]
    end = _DELIMITER.search(rest)  # behind a delimiter the first character set holds again
    at = len(rest) if end is None else end.start()
    codec = _generous(first) if found.codec == "ascii" else found.codec
    return rest[:at].decode(codec, "replace") + rest[at:].decode(_generous(first), "replace")


def _whole(text: str, found: _Set) -> bytes:
    """Encode in one character set. Raises UnicodeError."""
    value = text.encode(found.codec)
    if found.width == 1 and len(value) != len(text):  # Shift JIS stands for its one-byte half
        raise UnicodeError("a letter of two bytes in a character set of one")
    return value


def _extended(text: str, first: _Set, others: Sequence[_Set]) -> bytes:
    """Encode with code extensions: runs of letters, each in the first character set that has it."""
    back = _TO_ROMAN if first.codec == "shift_jis" else _TO_ASCII
    value, start = b"", 0
    while start < len(text):
        found = next((each for each in (first, *others) if _has(each, text[start])), None)
        if found is None:
            raise UnicodeError("no character set has a letter")
        end = start + 1
        while end < len(text) and _has(found, text[end]) and (found is first or not text[end].isascii()):
            end += 1
        run = text[start:end]
        start = end
        if found is first:
            value += _whole(run, first)
        elif found.codec.startswith("iso2022"):
            value += _replaced_end(run.encode(found.codec), back)
        else:
            value += found.escape + run.encode(found.codec)
    return value


def _replaced_end(value: bytes, back: bytes) -> bytes:
    return value.removesuffix(_TO_ASCII) + back if value.endswith(_TO_ASCII) else value


def _has(found: _Set, letter: str) -> bool:
    if letter.isascii():
        return not found.codec.startswith("iso2022")
    try:
        value = letter.encode(found.codec)
    except UnicodeError:
        return False
    return found.width in (0, len(value)) or (found.codec.startswith("iso2022") and value.startswith(found.escape))


def _generous(found: _Set) -> str:
    return "latin-1" if found.codec == "ascii" else found.codec


@lru_cache(maxsize=64)
def _sets(terms: tuple[str, ...]) -> tuple[_Set, ...]:
    return tuple(_SETS.get(term, _ASCII) for term in terms) or (_ASCII,)
