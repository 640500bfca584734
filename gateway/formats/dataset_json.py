"""DICOM data sets as JSON for the store: one line each, without pydicom, which a short command need not load."""

import json
from typing import Any

from gateway.dataset import Attributes, Element


def to_json(attributes: Attributes) -> str:
    """Return a data set as one line of JSON: `{"00100010": ["PN", ["Doe^Jane"]]}`; items stand in a third place."""
    return json.dumps(_plain(attributes), ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> dict[int, Element]:
    """Return the data set of `to_json`."""
    return _from_plain(json.loads(text))


def _plain(attributes: Attributes) -> dict[str, list[Any]]:
    return {
        f"{tag:08X}": [element.vr, list(element.values), [_plain(item) for item in element.items]]
        if element.items
        else [element.vr, list(element.values)]
        for tag, element in attributes.items()
    }


def _from_plain(plain: dict[str, list[Any]]) -> dict[int, Element]:
    return {
        int(tag, 16): Element(
            parts[0], tuple(parts[1]), tuple(_from_plain(item) for item in parts[2]) if len(parts) > 2 else ()
        )
        for tag, parts in plain.items()
    }
