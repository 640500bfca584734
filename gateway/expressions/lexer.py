"""A `when` expression as tokens."""

import re
from dataclasses import dataclass
from enum import Enum

from gateway.expressions.tree import ExpressionError

TEXT_CHARS_MAX = 4096

_BLANK = re.compile(r"[ \t\r\n]*")
_TOKEN = re.compile(
    r"""
      (?P<hl7>[A-Z][A-Z0-9]{2}(?:\[[^\]\s]{0,8}\])?-[0-9]+(?:\([^)\s]{0,8}\))?(?:[.-][0-9]+)*)
    | (?P<number>[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?![A-Za-z0-9_]))
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<sign>==|!=|<=|>=|[<>(),.])
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_HINTS = {
    "=": "compare with ==",
    "&": "write and",
    "|": "write or",
    "!": "write not",
    "[": "a list stands in parentheses; an HL7 segment is counted as OBX[2]-5",
    "-": "an HL7 path is written PID-3.1, its segment in upper case",
}


class Sort(Enum):
    """What a token is; the values are the groups of the pattern."""

    HL7 = "hl7"
    NUMBER = "number"
    NAME = "name"
    TEXT = "text"
    SIGN = "sign"
    END = "end"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the expression; `text` is what stands there, of a quoted text its content."""

    sort: Sort
    text: str
    position: int


def read_tokens(text: str) -> tuple[Token, ...]:
    """Cut an expression into tokens, the last of which is END; raises ExpressionError."""
    if len(text) > TEXT_CHARS_MAX:
        raise ExpressionError(TEXT_CHARS_MAX, f"longer than {TEXT_CHARS_MAX} characters")
    tokens = []
    position = _after_blank(text, 0)
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unreadable(text, position)
        sort = Sort(match.lastgroup)
        content = _content(match[0], position) if sort is Sort.TEXT else match[0]
        tokens.append(Token(sort, content, position))
        position = _after_blank(text, match.end())
    return (*tokens, Token(Sort.END, "", position))


def _after_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    assert match is not None  # the pattern matches nothing, too
    return match.end()


def _content(quoted: str, position: int) -> str:
    """Return what a quoted text says; a backslash stands before a quote or another backslash only."""

    def plain(match: re.Match[str]) -> str:
        if match[1] not in "\\\"'":
            raise ExpressionError(
                position + 1 + match.start(),
                f"'{match[0]}' is no escape",
                "a backslash itself is written twice",
            )
        return match[1]

    return _ESCAPE.sub(plain, quoted[1:-1])


def _unreadable(text: str, position: int) -> ExpressionError:
    sign = text[position]
    if sign in "\"'":
        return ExpressionError(position, "this text has no closing quote")
    if sign.isdigit() or (sign in "+-" and text[position + 1 : position + 2].isdigit()):
        return ExpressionError(position, "this is no number", "text stands in quotes")
    return ExpressionError(position, f"unexpected {sign!r}", _HINTS.get(sign, ""))
