"""Whether an expression holds of a Message.

A path has no value, one or several. `==`, `<` and their like, `in` and the methods hold when they hold of any of its
values, so of a path without value they do not. `a != b` is `not (a == b)` and `not in` is `not (… in …)`: both hold
of a path without value, and of several values when none is equal.

A value is a number where it is written as one without quotes, or where it is an Observation's. Equality of a number
and a text reads the text as a number; two texts are equal when they are the same. Order compares two numbers, or texts
that both read as numbers, as numbers; two other texts by their characters; and anything else does not hold.
"""

import operator
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache
from typing import Any, Protocol, assert_never

from gateway.expressions.tree import (
    And,
    Call,
    Comparison,
    Constant,
    Exists,
    Fact,
    Header,
    Hl7Value,
    Literal,
    Measured,
    Membership,
    Method,
    Node,
    Not,
    Operand,
    Or,
    Relation,
)
from gateway.formats.hl7_path import Hl7Path

Value = str | Decimal

PAIR_VALUES_MAX = 256  # of each side when two paths are compared: bounds the work a hostile message can ask for

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,64}(?:\.[0-9]{0,64})?|\.[0-9]{1,64})(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_ORDERS: dict[Relation, Callable[[Any, Any], bool]] = {
    Relation.LESS: operator.lt,
    Relation.LESS_OR_EQUAL: operator.le,
    Relation.MORE: operator.gt,
    Relation.MORE_OR_EQUAL: operator.ge,
}


class Subject(Protocol):
    """What an expression asks of a Message; each answer is looked up when it is asked for."""

    def hl7(self, path: Hl7Path) -> Sequence[str]:
        """Return the values at an HL7 path, none for other kinds."""
        ...

    def header(self, keyword: str) -> str | None:
        """Return a DICOM element as text, its values parted by backslashes; None for other kinds."""
        ...

    def measured(self, key: str, attribute: str) -> Sequence[Value]:
        """Return an attribute of each Observation that has this key, none for other kinds."""
        ...

    def fact(self, name: str) -> str | None:
        """Return `source`, `kind`, `peer`, `bed`, `patient_id`, `device.model` and their like."""
        ...


def holds(node: Node, subject: Subject) -> bool:
    """Tell whether an expression is true of a Message; what the subject raises passes through."""
    match node:
        case Constant(value):
            return value
        case And(parts):
            return all(holds(part, subject) for part in parts)
        case Or(parts):
            return any(holds(part, subject) for part in parts)
        case Not(part):
            return not holds(part, subject)
        case Exists(path):
            return any(True for _ in values(path, subject))
        case Membership(path, literals, negated):
            found = any(_equal(value, literal.value) for value in values(path, subject) for literal in literals)
            return found is not negated
        case Call(path, method, argument):
            return any(_answer(method, _text(value), argument) for value in values(path, subject))
        case Comparison(left, relation, right):
            return _compare(left, relation, right, subject)
        case _:
            assert_never(node)


def values(operand: Operand, subject: Subject) -> Iterator[Value]:
    """Yield the values of an operand; an empty one counts as none."""
    match operand:
        case Literal(value):
            yield value
        case Hl7Value(path):
            yield from filter(None, subject.hl7(path))
        case Header(keyword, several):
            text = subject.header(keyword) or ""
            parts = text.split("\\") if several else [text]
            yield from filter(None, (part.strip(" \0") for part in parts))
        case Measured(key, attribute):
            yield from (value for value in subject.measured(key, attribute) if value != "")
        case Fact(name):
            text = subject.fact(name) or ""
            yield from filter(None, [text])
        case _:
            assert_never(operand)


def _compare(left: Operand, relation: Relation, right: Operand, subject: Subject) -> bool:
    pairs = _pairs(left, right, subject)
    if relation is Relation.EQUAL:
        return any(_equal(a, b) for a, b in pairs)
    if relation is Relation.UNEQUAL:
        return not any(_equal(a, b) for a, b in pairs)
    return any(_ordered(_ORDERS[relation], a, b) for a, b in pairs)


def _pairs(left: Operand, right: Operand, subject: Subject) -> Iterator[tuple[Value, Value]]:
    if isinstance(right, Literal):
        return ((value, right.value) for value in values(left, subject))
    if isinstance(left, Literal):
        return ((left.value, value) for value in values(right, subject))
    others = list(values(right, subject))[:PAIR_VALUES_MAX]
    firsts = list(values(left, subject))[:PAIR_VALUES_MAX]
    return ((a, b) for a in firsts for b in others)


def _equal(a: Value, b: Value) -> bool:
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    first, second = _number(a), _number(b)
    return first is not None and first == second


def _ordered(order: Callable[[Any, Any], bool], a: Value, b: Value) -> bool:
    first, second = _number(a), _number(b)
    if first is not None and second is not None:
        return order(first, second)
    return isinstance(a, str) and isinstance(b, str) and order(a, b)


def _number(value: Value) -> Decimal | None:
    if isinstance(value, Decimal):
        return value if value.is_finite() else None
    text = value.strip(" ")
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:f}"


def _answer(method: Method, text: str, argument: str) -> bool:
    match method:
        case Method.CONTAINS:
            return argument in text
        case Method.STARTSWITH:
            return text.startswith(argument)
        case Method.ENDSWITH:
            return text.endswith(argument)
        case Method.MATCHES:
            return _glob(argument).match(text) is not None
        case _:
            assert_never(method)


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
