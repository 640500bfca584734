"""A DICOM data set as text: what is matched, kept and changed of orders, procedure steps and query identifiers.

Nothing here is encoded: `gateway.formats.identifiers` makes these from bytes and makes bytes of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Element:
    """One attribute: its value representation and its values as text, or its items where it is a sequence.

    Text has no padding. Numbers stand as decimal text, binary values as base64. No value and no item: present and
    empty (zero length).
    """

    vr: str
    values: tuple[str, ...] = ()
    items: tuple["Attributes", ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether there is no value, or only empty ones, and no item."""
        return not self.items and not any(self.values)


Attributes = Mapping[int, Element]
"""Tag, 0xGGGGEEEE, to Element."""

EMPTY: Attributes = {}


def text_at(attributes: Attributes, *path: int) -> str:
    """Return the first value at a path of tags through the first items of sequences, "" where there is none."""
    for tag in path[:-1]:
        attributes = item_at(attributes, tag)
    element = attributes.get(path[-1])
    return element.values[0] if element is not None and element.values else ""


def values_at(attributes: Attributes, *path: int) -> tuple[str, ...]:
    """Return all values that are not empty at a path of tags through the first items of sequences."""
    for tag in path[:-1]:
        attributes = item_at(attributes, tag)
    element = attributes.get(path[-1])
    return tuple(value for value in element.values if value) if element is not None else ()


def item_at(attributes: Attributes, tag: int) -> Attributes:
    """Return the first item of a sequence, an empty data set where there is none."""
    element = attributes.get(tag)
    return element.items[0] if element is not None and element.items else EMPTY


def overlaid(below: Attributes, above: Attributes) -> dict[int, Element]:
    """Return a data set with what another one says laid over it.

    What the upper one does not name stays; what it names empty becomes empty. A sequence with one item in both is laid
    over item by item; any other sequence is replaced.
    """
    result = dict(below)
    for tag, element in above.items():
        standing = below.get(tag)
        if standing is not None and len(standing.items) == 1 and len(element.items) == 1:
            result[tag] = Element(element.vr, items=(overlaid(standing.items[0], element.items[0]),))
        else:
            result[tag] = element
    return result
