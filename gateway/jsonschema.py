"""The JSON Schema of gateway.toml, generated from the dataclasses, for editors (draft 7, which Taplo reads).

    python -m gateway.jsonschema > config/gateway.schema.json

It says what `typed.py` checks within a table; what crosses tables is left to `gateway check`.
"""

import dataclasses
import inspect
import json
import sys
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gateway.config import Config
from gateway.typed import Address, Secret, Size, schema_key

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"

_SIZE_TEXT = r"^\s*[0-9]{1,19}(\.[0-9]{1,9})?\s*([KkMmGgTt][Ii]?)?[Bb]?\s*$"
_SCALARS: dict[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Path: {"type": "string", "minLength": 1},
    Any: {},
}
_ADDRESS: Schema = {"type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}$"}
_NETWORK: Schema = {"type": "string", "pattern": r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"}
_SECRET: Schema = {
    "type": "object",
    "properties": {name: {"type": "string", "minLength": 1} for name in ("credential", "env", "file")},
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}


def schema_of(cls: type[Any]) -> Schema:
    """Return the JSON Schema of the table that `typed.build` makes into this dataclass."""
    definitions: dict[str, Schema] = {}
    schema = _table(cls, definitions)
    return {"$schema": DIALECT, **schema, "definitions": definitions}


def main() -> int:
    """Print the schema of the whole file."""
    sys.stdout.write(text())
    return 0


def text() -> str:
    """Return the schema of the whole file as it stands in `config/gateway.schema.json`."""
    return json.dumps(schema_of(Config), indent=2, ensure_ascii=False) + "\n"


def _table(cls: Any, definitions: dict[str, Schema]) -> Schema:
    hints = get_type_hints(cls)
    known = [field for field in dataclasses.fields(cls) if field.init]
    properties = {schema_key(field): _property(field, hints[field.name], definitions) for field in known}
    needed = [schema_key(field) for field in known if _is_required(field)]
    required: Schema = {"required": needed} if needed else {}
    return {
        "type": "object",
        "description": _summary(cls),
        "properties": properties,
        **required,
        "additionalProperties": False,
    }


def _property(field: "dataclasses.Field[Any]", annotation: Any, definitions: dict[str, Schema]) -> Schema:
    schema = _narrowed(_schema(annotation, definitions), annotation, field.metadata)
    default = _plain(field.default)
    return schema if default is None or "const" in schema else {**schema, "default": default}


def _schema(annotation: Any, definitions: dict[str, Schema]) -> Schema:
    for known, schema in ((Size, _size({})), (Address, _ADDRESS), (Secret, _SECRET)):
        if annotation is known:
            return dict(schema)
    if annotation in _SCALARS:
        return dict(_SCALARS[annotation])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions) or True}
    if origin in (UnionType, Union):
        return _union(arguments, definitions)
    definitions.setdefault(annotation.__name__, {})  # its place, before the tables within it
    definitions[annotation.__name__] = _table(annotation, definitions)
    return {"$ref": f"#/definitions/{annotation.__name__}"}


def _union(arguments: tuple[Any, ...], definitions: dict[str, Schema]) -> Schema:
    choices = [choice for choice in arguments if choice is not NoneType]
    if {IPv4Network, IPv6Network} == set(choices):
        return dict(_NETWORK)
    if len(choices) == 1:
        return _schema(choices[0], definitions)
    return {"oneOf" if _are_tagged(choices) else "anyOf": [_schema(choice, definitions) for choice in choices]}


def _are_tagged(choices: list[Any]) -> bool:
    return all(dataclasses.is_dataclass(choice) for choice in choices)


def _narrowed(schema: Schema, annotation: Any, limits: Mapping[str, Any]) -> Schema:
    """Return the schema with what the field's metadata says; of a list it is said of the items."""
    if "$ref" in schema:
        return {"allOf": [schema]}  # draft 7 ignores what stands beside $ref
    if schema.get("type") == "array":
        items = _limited(schema["items"], annotation, limits)
        least = {"minItems": limits["items_min"]} if "items_min" in limits else {}
        return {**schema, "items": items, **least}
    return _limited(schema, annotation, limits)


def _limited(schema: Schema, annotation: Any, limits: Mapping[str, Any]) -> Schema:
    if annotation is Size:
        return _size(limits)
    words = {"min": "minimum", "max": "maximum", "above": "exclusiveMinimum"}
    narrowed = {words[limit]: value for limit, value in limits.items() if limit in words}
    if "pattern" in limits:
        narrowed |= {"pattern": f"^(?:{limits['pattern']})$", "description": limits["expects"]}
    return {**schema, **narrowed}


def _size(limits: Mapping[str, Any]) -> Schema:
    """Return a number of bytes, or text whose limits JSON Schema cannot say."""
    number = {"type": "integer", "minimum": limits.get("min", 0)}
    if "max" in limits:
        number["maximum"] = limits["max"]
    return {"anyOf": [number, {"type": "string", "pattern": _SIZE_TEXT}]}


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    """Tell whether a key must stand there; `type` must, because it tells the tables apart."""
    no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return no_default or schema_key(field) == "type"


def _plain(default: Any) -> Any:
    """Return a default as the file would write it, None where there is none to show."""
    if default is dataclasses.MISSING or default is None or default == ():
        return None
    if isinstance(default, Address | Path):
        return str(default)
    return list(default) if isinstance(default, tuple) else default


def _summary(cls: Any) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
