"""Values as JSON documents: dataclasses become objects, instants ISO 8601 in UTC, bytes text, paths text."""

import dataclasses
import json
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any


def to_json(value: object, *, indent: int | None = None) -> str:
    """Return the JSON text of a value built of dataclasses, dicts, lists and scalars."""
    return json.dumps(value, default=_plain, ensure_ascii=False, indent=indent)


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    match value:
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case Enum():
            return value.value
        case Path():
            return str(value)
        case bytes():
            return value.decode("utf-8", "backslashreplace")
    raise TypeError(f"{type(value).__name__} has no JSON form")
