"""Tables become dataclasses, and every fault is told with its path.

The annotations of a frozen dataclass are its schema: `str`, `int`, `float`, `bool`, `Path`, `Literal`,
`tuple[X, ...]`, `X | None`, nested dataclasses, unions of dataclasses told apart by a Literal `type`, `dict[str, X]`,
and the values of `values.py`. A field's metadata narrows it:

    key                    the name in the file, where it is not the field's
    min, max, above        limits of a number, of a Size or of an Address's port; `above` excludes its own value
    pattern, expects       a regular expression that the whole text must match, and what to say when it does not
    hidden                 true where a wrong value may be a secret, so that no fault shows it
    items_min              how many items a list has at least

Nothing here stops at the first fault: a person mends a file once.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gateway.values import (
    Address,
    Network,
    Secret,
    Size,
    read_address,
    read_network,
    read_secret,
    read_size,
    shown,
)

__all__ = ["Address", "Fault", "KeyPath", "Network", "Secret", "Size", "build", "did_you_mean", "printed", "schema_key"]

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

_READERS: dict[Any, Any] = {Size: read_size, Address: read_address, Network: read_network, Secret: read_secret}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path as text"}
_FAILED = object()  # what a reader returns after it has noted a fault


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a table: where, and what."""

    path: KeyPath
    text: str

    def __str__(self) -> str:
        return f"{printed(self.path)}: {self.text}" if self.path else self.text


def build(cls: type[T], table: object, path: KeyPath = ()) -> tuple[T | None, tuple[Fault, ...]]:
    """Build a dataclass from a table as tomllib gives it; the value is None when there is any fault.

    `path` is where the table stands in the file; the path of each fault begins with it. A ValueError of the
    dataclass's own `__post_init__` becomes a fault. Raises TypeError when the dataclass has an annotation that is no
    schema, which is a bug of its author.
    """
    builder = _Builder()
    value = builder.read(cls, table, path)
    faults = tuple(builder.faults)
    return (None if faults else value), faults


def printed(path: KeyPath) -> str:
    """Return a path as text: `source[0].listen`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else repr(part)
            text += f".{key}" if text else key
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'port'?)` where a known word is close, else an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def schema_key(field: "dataclasses.Field[Any]") -> str:
    """Return the name that a field has in the file."""
    return str(field.metadata.get("key", field.name))


@lru_cache(maxsize=256)
def _schema(cls: type[Any]) -> tuple[tuple["dataclasses.Field[Any]", Any], ...]:
    hints = get_type_hints(cls)
    return tuple((field, hints[field.name]) for field in dataclasses.fields(cls) if field.init)


class _Builder:
    """Reads values by their annotations and notes the faults."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def read(self, annotation: Any, raw: object, path: KeyPath, limits: Mapping[str, Any] | None = None) -> Any:
        """Return the value, or _FAILED after a fault was noted."""
        origin = get_origin(annotation)
        if annotation in _READERS or annotation in _WORDS or annotation is Any:
            return self._scalar(annotation, raw, path, limits or {})
        if origin is Literal:
            return self._literal(get_args(annotation), raw, path)
        if origin in (UnionType, Union):
            return self._union(annotation, raw, path, limits or {})
        if origin is tuple:
            return self._items(annotation, raw, path, limits or {})
        if origin is dict:
            return self._mapping(get_args(annotation)[1], raw, path)
        if dataclasses.is_dataclass(annotation):
            return self._table(annotation, raw, path)
        raise TypeError(f"{annotation!r} is no schema")

    def _fail(self, path: KeyPath, text: str) -> object:
        self.faults.append(Fault(path, text))
        return _FAILED

    def _table(self, cls: Any, raw: object, path: KeyPath) -> Any:
        if not isinstance(raw, Mapping):
            return self._fail(path, f"expected a table, got {shown(raw)}")
        before = len(self.faults)
        known = {schema_key(field): (field, annotation) for field, annotation in _schema(cls)}
        for key in raw:
            if key not in known:
                self._fail((*path, key), f"unknown key {key!r}{did_you_mean(key, known.keys() - raw.keys())}")
        values = {
            field.name: self.read(annotation, raw[key], (*path, key), field.metadata)
            for key, (field, annotation) in known.items()
            if self._present(key, field, raw, path)
        }
        if len(self.faults) > before:
            return _FAILED
        try:
            return cls(**values)
        except ValueError as error:
            return self._fail(path, str(error))

    def _present(self, key: str, field: "dataclasses.Field[Any]", raw: Mapping[str, Any], path: KeyPath) -> bool:
        if key in raw:
            return True
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            self._fail((*path, key), f"missing required key {key!r}")
        return False

    def _scalar(self, annotation: Any, raw: object, path: KeyPath, limits: Mapping[str, Any]) -> Any:
        try:
            value = _read_scalar(annotation, raw)
            _check_limits(value, limits)
        except ValueError as error:
            return self._fail(path, str(error))
        return value

    def _literal(self, choices: tuple[Any, ...], raw: object, path: KeyPath) -> Any:
        for choice in choices:
            if type(choice) is type(raw) and choice == raw:
                return choice
        words = [choice for choice in choices if isinstance(choice, str)]
        hint = did_you_mean(raw, words) if isinstance(raw, str) else ""
        return self._fail(path, f"expected {_listed(choices)}, got {shown(raw)}{hint}")

    def _union(self, annotation: Any, raw: object, path: KeyPath, limits: Mapping[str, Any]) -> Any:
        if annotation == Network:
            return self._scalar(annotation, raw, path, limits)
        choices = tuple(choice for choice in get_args(annotation) if choice is not NoneType)
        if set(get_args(Network)) <= set(choices):
            choices = (Network, *(choice for choice in choices if choice not in get_args(Network)))
        if len(choices) == 1:
            return self.read(choices[0], raw, path, limits)
        tagged = {tag: choice for choice in choices for tag in _tags(choice)}
        if tagged:
            return self._tagged(tagged, raw, path)
        for choice in choices:
            trial = _Builder()
            value = trial.read(choice, raw, path, limits)
            if not trial.faults:
                return value
        return self._fail(path, f"expected {' or '.join(_word(choice) for choice in choices)}, got {shown(raw)}")

    def _tagged(self, tagged: Mapping[str, Any], raw: object, path: KeyPath) -> Any:
        if not isinstance(raw, Mapping):
            return self._fail(path, f"expected a table, got {shown(raw)}")
        if "type" not in raw:
            return self._fail((*path, "type"), f"missing required key 'type': {_listed(tuple(tagged))}")
        tag = raw["type"]
        if not isinstance(tag, str) or tag not in tagged:
            return self._literal(tuple(tagged), tag, (*path, "type"))
        return self.read(tagged[tag], raw, path)

    def _items(self, annotation: Any, raw: object, path: KeyPath, limits: Mapping[str, Any]) -> Any:
        item = get_args(annotation)[0]
        if isinstance(raw, Mapping) and path:
            hint = f"; each one begins with [[{path[-1]}]]" if len(path) == 1 else ""
            return self._fail(path, f"expected a list, got a table{hint}")
        if not isinstance(raw, list | tuple):
            return self._fail(path, f"expected a list, got {shown(raw)}")
        if len(raw) < limits.get("items_min", 0):
            return self._fail(path, f"expected at least {limits['items_min']} in the list, got {len(raw)}")
        before = len(self.faults)
        values = tuple(self.read(item, each, (*path, index), limits) for index, each in enumerate(raw))
        return values if len(self.faults) == before else _FAILED

    def _mapping(self, item: Any, raw: object, path: KeyPath) -> Any:
        if not isinstance(raw, Mapping):
            return self._fail(path, f"expected a table, got {shown(raw)}")
        before = len(self.faults)
        values = {key: self.read(item, each, (*path, key)) for key, each in raw.items()}
        return values if len(self.faults) == before else _FAILED


def _read_scalar(annotation: Any, raw: object) -> Any:
    if annotation is Any:
        return raw
    if annotation in _READERS:
        return _READERS[annotation](raw)
    if annotation is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return _finite(raw)
    if annotation is Path and isinstance(raw, str):
        return _path(raw)
    if type(raw) is not annotation:
        raise ValueError(f"expected {_WORDS[annotation]}, got {shown(raw)}")
    return raw


def _finite(raw: int | float) -> float:
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {shown(raw)}")
    return number


def _path(raw: str) -> Path:
    if not raw or "\0" in raw:
        raise ValueError(f"expected a path, got {shown(raw)}")
    return Path(raw)


def _check_limits(value: Any, limits: Mapping[str, Any]) -> None:
    if isinstance(value, str) and "pattern" in limits:
        if not re.fullmatch(limits["pattern"], value):
            got = "" if limits.get("hidden") else f", got {shown(value)}"
            raise ValueError(f"expected {limits['expects']}{got}")
        return
    number = value.port if isinstance(value, Address) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        return
    if "min" in limits and number < limits["min"]:
        raise ValueError(f"must be at least {limits['min']}, got {number}")
    if "above" in limits and number <= limits["above"]:
        raise ValueError(f"must be more than {limits['above']}, got {number}")
    if "max" in limits and number > limits["max"]:
        raise ValueError(f"must be at most {limits['max']}, got {number}")


def _tags(choice: Any) -> tuple[Any, ...]:
    if not dataclasses.is_dataclass(choice):
        return ()
    annotation = next((kind for field, kind in _schema(choice) if schema_key(field) == "type"), None)  # type: ignore[arg-type]
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _word(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return _listed(get_args(annotation))
    if get_origin(annotation) is tuple:
        return "a list"
    return str(_WORDS.get(annotation) or getattr(annotation, "__name__", annotation))


def _listed(choices: tuple[Any, ...]) -> str:
    names = [f"'{choice}'" if isinstance(choice, str) else str(choice).lower() for choice in choices]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
