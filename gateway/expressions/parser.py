"""Tokens become a tree, by recursive descent; every fault has its position.

expression  = all { "or" all }
all         = one { "and" one }
one         = "not" one | "(" expression ")" | "exists" "(" path ")" | "true" | "false" | test
test        = operand relation operand
            | path [ "not" ] "in" "(" literal { "," literal } ")"
            | path "." method "(" text ")"
"""

import re
from collections.abc import Collection
from decimal import Decimal

from gateway.expressions.lexer import Sort, Token, read_tokens
from gateway.expressions.names import KINDS, hl7_value, named_value
from gateway.expressions.tree import (
    And,
    Call,
    Comparison,
    Constant,
    Exists,
    ExpressionError,
    Fact,
    Literal,
    Membership,
    Method,
    Node,
    Not,
    Operand,
    Or,
    Path,
    Relation,
)
from gateway.model import Kind
from gateway.typed import did_you_mean

DEPTH_MAX = 64
GLOB_CHARS_MAX = 256

_WORDS = {"and", "or", "not", "in", "true", "false", "exists"}
_METHODS = {method.value: method for method in Method}
_RELATIONS = {relation.value: relation for relation in Relation}
_ORDERS = {Relation.LESS, Relation.LESS_OR_EQUAL, Relation.MORE, Relation.MORE_OR_EQUAL}


def parse(text: str, kinds: Collection[Kind]) -> Node:
    """Return the tree of an expression about Messages of these kinds, of any kind if empty; raises ExpressionError."""
    parser = _Parser(read_tokens(text), kinds)
    node = parser.expression(0)
    parser.expect_end()
    return node


class _Parser:
    def __init__(self, tokens: tuple[Token, ...], kinds: Collection[Kind]) -> None:
        self._tokens = tokens
        self._kinds = kinds
        self._at = 0

    def expression(self, depth: int) -> Node:
        parts = [self._all(depth)]
        while self._take_word("or"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def expect_end(self) -> None:
        token = self._token
        if token.sort is Sort.END:
            return
        hint = "a comparison stands between 'and' and 'or'"
        if token.text.lower() in _WORDS:
            hint = f"write {token.text.lower()} in lower case" if token.text not in _WORDS else hint
        raise ExpressionError(token.position, f"unexpected {_shown(token)}", hint)

    @property
    def _token(self) -> Token:
        return self._tokens[self._at]

    def _all(self, depth: int) -> Node:
        parts = [self._one(depth)]
        while self._take_word("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self, depth: int) -> Node:
        start = self._token
        if depth >= DEPTH_MAX:
            raise ExpressionError(start.position, f"nested more than {DEPTH_MAX} deep")
        if self._take_word("not"):
            return Not(self._one(depth + 1))
        if self._take_sign("("):
            node = self.expression(depth + 1)
            self._expect_sign(")")
            return node
        if self._is_word("exists"):
            return self._exists()
        if start.sort is Sort.NAME and start.text in ("true", "false") and not self._before_relation():
            self._at += 1
            return Constant(start.text == "true")
        return self._test()

    def _exists(self) -> Node:
        self._at += 1
        self._expect_sign("(")
        path = self._path()
        self._expect_sign(")")
        return Exists(path)

    def _before_relation(self) -> bool:
        return self._tokens[self._at + 1].text in _RELATIONS and self._tokens[self._at + 1].sort is Sort.SIGN

    def _test(self) -> Node:
        start = self._token
        left = self._operand()
        if not isinstance(left, Literal):
            if self._take_sign("."):
                return self._call(left)
            if self._is_word("in") or self._is_word("not"):
                return self._membership(left)
        relation = _RELATIONS.get(self._token.text) if self._token.sort is Sort.SIGN else None
        if relation is None:
            hint = "whether it is there at all is asked by exists(…)" if not isinstance(left, Literal) else ""
            raise ExpressionError(self._token.position, f"expected a comparison, got {_shown(self._token)}", hint)
        sign = self._token
        self._at += 1
        return self._comparison(left, relation, self._operand(), start, sign)

    def _comparison(self, left: Operand, relation: Relation, right: Operand, start: Token, sign: Token) -> Node:
        if isinstance(left, Literal) and isinstance(right, Literal):
            raise ExpressionError(start.position, "neither side is a path", "text stands in quotes, paths do not")
        position = self._tokens[self._at - 1].position if isinstance(right, Literal) else start.position
        for side, other in ((left, right), (right, left)):
            if isinstance(side, Literal):
                _check_literal(side, other, position)
                if relation in _ORDERS and self._is_boolean(side, left is side, start):
                    raise ExpressionError(sign.position, "true and false have no order")
        return Comparison(left, relation, right)

    def _is_boolean(self, literal: Literal, first: bool, start: Token) -> bool:
        token = start if first else self._tokens[self._at - 1]
        return token.sort is Sort.NAME and literal.value in ("true", "false")

    def _membership(self, path: Path) -> Node:
        negated = self._take_word("not")
        if not self._take_word("in"):
            raise ExpressionError(self._token.position, f"expected 'in', got {_shown(self._token)}")
        self._expect_sign("(")
        literals = [self._member(path)]
        while self._take_sign(","):
            literals.append(self._member(path))
        self._expect_sign(")")
        return Membership(path, tuple(literals), negated)

    def _member(self, path: Path) -> Literal:
        token = self._token
        literal = self._literal()
        if literal is None:
            raise ExpressionError(token.position, f"expected text or a number, got {_shown(token)}")
        _check_literal(literal, path, token.position)
        return literal

    def _call(self, path: Path) -> Node:
        name = self._token
        method = _METHODS.get(name.text) if name.sort is Sort.NAME else None
        if method is None:
            near = did_you_mean(name.text, _METHODS)
            raise ExpressionError(name.position, f"there is no method {_shown(name)}{near}", ", ".join(_METHODS))
        self._at += 1
        self._expect_sign("(")
        argument = self._token
        if argument.sort is not Sort.TEXT:
            raise ExpressionError(argument.position, f"expected text in quotes, got {_shown(argument)}")
        self._at += 1
        self._expect_sign(")")
        if not argument.text:
            raise ExpressionError(argument.position, f"{method.value} needs at least one character")
        if method is Method.MATCHES and len(argument.text) > GLOB_CHARS_MAX:
            raise ExpressionError(argument.position, f"a pattern has at most {GLOB_CHARS_MAX} characters")
        return Call(path, method, argument.text)

    def _operand(self) -> Operand:
        return self._literal() or self._path()

    def _literal(self) -> Literal | None:
        token = self._token
        if token.sort is Sort.TEXT or (token.sort is Sort.NAME and token.text in ("true", "false")):
            literal = Literal(token.text)
        elif token.sort is Sort.NUMBER:
            literal = Literal(Decimal(token.text))
        else:
            return None
        self._at += 1
        return literal

    def _path(self) -> Path:
        token = self._token
        if token.sort is Sort.HL7:
            self._at += 1
            return hl7_value(token.text, token.position, self._kinds)
        if token.sort is not Sort.NAME or token.text in _WORDS:
            raise ExpressionError(token.position, f"expected a path or a value, got {_shown(token)}")
        parts = [token.text]
        self._at += 1
        while self._before_part():
            parts.append(self._tokens[self._at + 1].text)
            self._at += 2
        return named_value(tuple(parts), token.position, self._kinds)

    def _before_part(self) -> bool:
        """Tell whether `.name` comes that is no method's call."""
        if self._token.sort is not Sort.SIGN or self._token.text != ".":
            return False
        part = self._tokens[self._at + 1]
        if part.sort is Sort.NUMBER:
            return bool(re.fullmatch(r"[0-9.]+", part.text))
        return part.sort is Sort.NAME and self._tokens[self._at + 2].text != "("

    def _is_word(self, word: str) -> bool:
        return self._token.sort is Sort.NAME and self._token.text == word

    def _take_word(self, word: str) -> bool:
        return self._take(Sort.NAME, word)

    def _take_sign(self, sign: str) -> bool:
        return self._take(Sort.SIGN, sign)

    def _take(self, sort: Sort, text: str) -> bool:
        if self._token.sort is not sort or self._token.text != text:
            return False
        self._at += 1
        return True

    def _expect_sign(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise ExpressionError(self._token.position, f"expected '{sign}', got {_shown(self._token)}")


def _check_literal(literal: Literal, other: Operand, position: int) -> None:
    """Refuse literals that could never be met; they are mistakes that would stop data in silence."""
    if literal.value == "":
        raise ExpressionError(position, "nothing equals an empty text", "write exists(…) or not exists(…)")
    if other == Fact("kind") and literal.value not in KINDS:
        near = did_you_mean(str(literal.value), KINDS)
        raise ExpressionError(position, f"there is no kind {str(literal.value)!r}{near}", ", ".join(KINDS))


def _shown(token: Token) -> str:
    if token.sort is Sort.END:
        return "the end"
    return repr(token.text) if token.sort is not Sort.TEXT else "a text"
