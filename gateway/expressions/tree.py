"""The parts of a `when` expression: what the parser builds and the evaluation walks.

All nodes are frozen and compare by value. `ExpressionError` says where in the text the fault stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from gateway.errors import GatewayError
from gateway.formats.hl7_path import Hl7Path


class ExpressionError(GatewayError):
    """A `when` expression is at fault; `position` counts its characters from 0."""

    def __init__(self, position: int, text: str, hint: str = "") -> None:
        super().__init__(f"{text} ({hint})" if hint else text)
        self.position = position
        self.text = text
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Hl7Value:
    """A path into an HL7 message: `PID-3(2).1`."""

    path: Hl7Path


@dataclass(frozen=True, slots=True)
class Header:
    """An element of a DICOM data set by its keyword; `several` tells that a backslash parts its values."""

    keyword: str
    several: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """An attribute of the Observations with this key: `spo2`, `spo2.unit`."""

    key: str
    attribute: str


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of the Message beside its content: `source`, `kind`, `peer`, `bed`, `device.model`."""

    name: str


Path = Hl7Value | Header | Measured | Fact


@dataclass(frozen=True, slots=True)
class Literal:
    """A value written in the expression: text, a number, or true and false as text."""

    value: str | Decimal


Operand = Path | Literal


class Relation(Enum):
    """How two operands are compared."""

    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    MORE = ">"
    MORE_OR_EQUAL = ">="


class Method(Enum):
    """What a value may be asked; MATCHES takes a glob."""

    CONTAINS = "contains"
    STARTSWITH = "startswith"
    ENDSWITH = "endswith"
    MATCHES = "matches"


@dataclass(frozen=True, slots=True)
class Constant:
    """`true` or `false` as a whole condition."""

    value: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left == right`; at least one of them is a path."""

    left: Operand
    relation: Relation
    right: Operand


@dataclass(frozen=True, slots=True)
class Membership:
    """`path in (a, b)`, or `not in`."""

    path: Path
    literals: tuple[Literal, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Call:
    """`path.contains("x")`."""

    path: Path
    method: Method
    argument: str


@dataclass(frozen=True, slots=True)
class Exists:
    """`exists(path)`."""

    path: Path


@dataclass(frozen=True, slots=True)
class Not:
    """`not part`."""

    part: "Node"


@dataclass(frozen=True, slots=True)
class And:
    """Two or more parts, all of which must hold."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Two or more parts, one of which must hold."""

    parts: tuple["Node", ...]


Node = Constant | Comparison | Membership | Call | Exists | Not | And | Or


def paths_of(node: Node) -> Iterator[Path]:
    """Yield every path that a node asks for."""
    match node:
        case And(parts) | Or(parts):
            for part in parts:
                yield from paths_of(part)
        case Not(part):
            yield from paths_of(part)
        case Comparison(left, _, right):
            yield from (side for side in (left, right) if not isinstance(side, Literal))
        case Membership(path=path) | Call(path=path) | Exists(path=path):
            yield path
        case Constant():
            return
