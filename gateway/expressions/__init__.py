"""The small language of `when`: safe to write, checked when it is read, bounded when it runs.

`docs/configuration.md` says it to the person who writes it. There is no `eval`: an expression becomes a tree of
frozen nodes, nested at most 64 deep, and is walked. Patterns are globs and no regular expressions, because Python's
take exponential time on some texts.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gateway.expressions.evaluation import Subject, Value, holds
from gateway.expressions.parser import parse
from gateway.expressions.tree import ExpressionError, Header, Node, paths_of
from gateway.model import Kind

__all__ = ["Expression", "ExpressionError", "Subject", "Value", "compile_expression", "needed_keywords"]


@dataclass(frozen=True, slots=True)
class Expression:
    """A `when` that was read and checked."""

    text: str
    root: Node

    def matches(self, subject: Subject) -> bool:
        """Tell whether the expression holds of a Message; what the subject raises passes through."""
        return holds(self.root, subject)


def compile_expression(text: str, kinds: Collection[Kind] = ()) -> Expression:
    """Read and check an expression about Messages of these kinds; no kinds stand for all.

    Raises ExpressionError with the position of the fault and, where one is near, the word that was meant.
    """
    return Expression(text, parse(text, frozenset(kinds)))


def needed_keywords(expressions: Iterable[Expression]) -> frozenset[str]:
    """Return the DICOM keywords that these expressions ask for, so that nothing else need be read."""
    paths = (path for expression in expressions for path in paths_of(expression.root))
    return frozenset(path.keyword for path in paths if isinstance(path, Header))
