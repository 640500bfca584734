"""JSON with the digits of the Device: a number that is a Decimal is written as it stands (RFC 8259).

The standard writer knows floats only, which turn 98.60 into 98.6. This one is on the path of every value of every bed:
it asks for exact types first. What is written twice (once for its digest, once in its document) is written once, as
`Written`.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from json import JSONEncoder
from json.encoder import encode_basestring
from typing import Any, TypeAlias

from gateway.formats.digits import plain_digits

_SAMPLES = frozenset({int, type(None)})
_encoder = JSONEncoder(separators=(",", ":"))

Json: TypeAlias = "bool | int | str | Decimal | Sequence[Json] | Mapping[str, Json] | None"


class Written(str):
    """A value that is JSON text already; it goes into a document as it stands."""

    __slots__ = ()


def write_json(value: Json) -> bytes:
    """Return one JSON document in UTF-8 without white space; members keep their order.

    Raises ContentError for numbers that JSON cannot hold (NaN, infinity).
    """
    return _text(value).encode("utf-8", "replace")


def written(value: Json) -> Written:
    """Return a value as JSON text, to be put into documents. Raises ContentError as `write_json` does."""
    return Written(_text(value))


def _text(value: Json) -> str:
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    match value:  # a subclass, or a mapping of another sort
        case bool() | int():
            return _encoder.encode(value)
        case str():
            return encode_basestring(str(value))
        case Decimal():
            return plain_digits(value)
        case Mapping():
            return _members(value)
        case _:
            return _items(value)  # type: ignore[arg-type]


def _members(value: Mapping[str, Json]) -> str:
    return "{" + ",".join([f"{encode_basestring(key)}:{_text(item)}" for key, item in value.items()]) + "}"


def _items(value: Sequence[Json]) -> str:
    if _SAMPLES.issuperset(map(type, value)):  # waves: many a second, and the C encoder is ten times faster
        return _encoder.encode(value)
    return "[" + ",".join([_text(item) for item in value]) + "]"


_WRITERS: dict[type, Callable[[Any], str]] = {
    type(None): lambda value: "null",
    bool: lambda value: "true" if value else "false",
    int: str,
    str: encode_basestring,
    Written: str,
    Decimal: plain_digits,
    dict: _members,
    list: _items,
    tuple: _items,
}
