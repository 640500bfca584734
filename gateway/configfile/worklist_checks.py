"""What is wrong in `[worklist]` and in the `orders` of Sources beyond the types: fields, zones, character sets."""

from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

from gateway.configfile.checks import Finding, Tables, stanzas
from gateway.formats.character_sets import is_character_set
from gateway.formats.hl7_path import PathError, parse_path
from gateway.typed import Fault, KeyPath


def worklist_findings(tables: Tables) -> Iterator[Finding]:
    """Report time zones and character sets that nobody knows, and HL7 fields and attributes that are none."""
    worklist = tables.get("worklist")
    if isinstance(worklist, dict):
        yield from _zone(worklist, ("worklist",))
        for index, view in enumerate(_tables(worklist.get("view"))):
            for key in ("character_sets", "assumed_character_sets"):
                yield from _sets(view, ("worklist", "view", index), key)
    for stanza in stanzas(tables, "source"):
        yield from _sets(stanza.table, stanza.path, "assumed_character_sets")
        orders = stanza.table.get("orders")
        if isinstance(orders, dict):
            yield from _zone(orders, (*stanza.path, "orders"))
            yield from _fields(orders.get("fields"), (*stanza.path, "orders", "fields"))


def _zone(table: Tables, path: KeyPath) -> Iterator[Finding]:
    name = table.get("timezone")
    if not isinstance(name, str):
        return
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        yield Finding(Fault((*path, "timezone"), f"unknown time zone {name!r}; for example Europe/Berlin"))


def _sets(table: Tables, path: KeyPath, key: str) -> Iterator[Finding]:
    terms = table.get(key)
    for index, term in enumerate(terms if isinstance(terms, list) else []):
        if isinstance(term, str) and not all(map(is_character_set, term.split("\\"))):
            text = f"unknown character set {term!r}; for example ISO_IR 100 or \\ISO 2022 IR 87"
            yield Finding(Fault((*path, key, index), text))


def _fields(fields: object, path: KeyPath) -> Iterator[Finding]:
    if not isinstance(fields, dict) or not fields:
        return
    from gateway.formats.orders import mapped_attributes  # needs pydicom

    known = mapped_attributes()
    for attribute, paths in fields.items():
        if attribute not in known:
            yield Finding(Fault((*path, attribute), f"{attribute!r} is no attribute of a worklist item"))
        for index, field in enumerate(paths if isinstance(paths, list) else []):
            try:
                parse_path(field)
            except (PathError, TypeError) as error:
                yield Finding(Fault((*path, attribute, index), f"not an HL7 field: {error}"))


def _tables(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
