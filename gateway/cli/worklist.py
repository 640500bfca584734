"""`gateway worklist`: what is scheduled, what a Modality would be shown and why not, what Modalities have asked.

The store is read directly, whether an agent runs or not. `--as` and `--query` ask the same functions that answer a
Modality, so "why is my patient missing" has one answer.
"""

import argparse
from typing import Any

from gateway.cli.messages import LIMIT, limit, reading
from gateway.cli.output import add_json, print_json, print_table
from gateway.cli.settings import read_config
from gateway.clock import SystemClock
from gateway.config import Config
from gateway.dataset import Attributes, Element, text_at, values_at
from gateway.errors import GatewayError
from gateway.formats.worklist_tags import (
    MODALITY,
    PATIENT_ID,
    PATIENT_NAME,
    SEQUENCE,
    START_DATE,
    START_TIME,
    STATION,
)
from gateway.orders import WorklistItem
from gateway.store.worklist_reading import KeptQuery, read_items, read_problems, read_queries

_STEP_GROUP = 0x0040


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `worklist` takes."""
    parser.add_argument(
        "--as", dest="title", metavar="AE", help="as this modality sees it; with --queries: its queries"
    )
    parser.add_argument(
        "--query",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        help="what a query finds, and which key leaves which step out",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--queries", action="store_true", help="what modalities asked, newest first")
    kind.add_argument("--problems", action="store_true", help="orders that became no item, and why")
    kind.add_argument("--all", action="store_true", help="also steps that are done, canceled or held")
    parser.add_argument("--item", metavar="TEXT", help="only steps with this accession number, patient id or step id")
    parser.add_argument("--limit", type=limit, default=LIMIT, metavar="N", help=f"at most N (default {LIMIT})")
    add_json(parser)


def worklist(arguments: argparse.Namespace) -> int:
    """Print steps, a query's result, kept queries or problems."""
    config = read_config(arguments)
    if arguments.queries:
        return _queries(arguments, config)
    if arguments.problems:
        return _problems(arguments, config)
    with reading(config) as readers:
        found = read_items(readers.connection, everything=arguments.all)
    found = [item for item in found if _is_meant(item, arguments.item)]
    if arguments.title is not None or arguments.query is not None:
        return _examined(arguments, config, found)
    found = found[: arguments.limit]
    if arguments.json:
        print_json({"steps": [_document(item) for item in found]})
    else:
        _print_items(found)
    return 0


def _examined(arguments: argparse.Namespace, config: Config, found: list[WorklistItem]) -> int:
    """Ask as a Modality does. Raises GatewayError for keys that are none."""
    from gateway.imaging.worklist_view import examine, read_worklist_query, today  # needs pydicom

    title = arguments.title or "ANY"
    query = read_worklist_query(_identifier(arguments.query or []))
    result = examine(found, query, config.worklist, title, today(SystemClock().now(), config.worklist))
    shown = [item for item in found if _key(item) not in result.excluded][: arguments.limit]
    left = [(item, result.excluded[_key(item)]) for item in found if _key(item) in result.excluded]
    if arguments.json:
        excluded = [{**_document(item), "excluded_by": list(why)} for item, why in left]
        print_json({"as": arguments.title, "steps": [_document(item) for item in shown], "excluded": excluded})
        return 0
    _print_items(shown)
    if left:
        print("\nleft out:")
        print_table(
            ("ACCESSION", "STEP", "PATIENT ID", "BY"),
            [
                (item.accession, item.step_id, text_at(item.attributes, PATIENT_ID), ", ".join(why))
                for item, why in left[: arguments.limit]
            ],
        )
    return 0


def _queries(arguments: argparse.Namespace, config: Config) -> int:
    with reading(config) as readers:
        found = read_queries(readers.connection, arguments.limit, arguments.title)
    if arguments.json:
        print_json({"queries": [_query_document(query, arguments.item) for query in found]})
        return 0
    print_table(
        ("ASKED", "AS", "HOST", "KEYS", "SEEN", "ANSWERED", "STATUS", "LEFT OUT BY"),
        [
            (
                query.at,
                query.calling,
                query.host,
                " ".join(_keys(query.keys)),
                query.looked_at,
                query.answered,
                f"0x{query.status:04X}",
                _reasons(query, arguments.item),
            )
            for query in found
        ],
    )
    return 0


def _problems(arguments: argparse.Namespace, config: Config) -> int:
    with reading(config) as readers:
        found = read_problems(readers.connection, arguments.limit)
    if arguments.json:
        print_json({"problems": found})
        return 0
    print_table(
        ("AT", "SOURCE", "MESSAGE", "ACCESSION", "STEP", "ITEM", "REASON"),
        [
            (
                one.at,
                one.source,
                one.message_id,
                one.accession,
                one.step_id,
                "yes" if one.became_item else "no",
                one.reason,
            )
            for one in found
        ],
    )
    return 0


def _identifier(words: list[str]) -> Attributes:
    """Return the identifier of `KEY=VALUE …`; attributes of the scheduled step go into its sequence by themselves."""
    from gateway.formats.identifiers import tag_of, vr_of  # needs pydicom

    found: dict[int, Element] = {}
    step: dict[int, Element] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise GatewayError(f"expected KEY=VALUE, got {word!r}")
        sequence, dot, last = name.rpartition(".")
        tag = tag_of(last)
        is_step = bool(dot) or tag == MODALITY or (tag >> 16 == _STEP_GROUP and tag & 0xFFFF < 0x0500)
        if dot and tag_of(sequence) != SEQUENCE:
            raise GatewayError(f"{sequence!r} cannot be asked for here")
        (step if is_step else found)[tag] = Element(vr_of(tag), tuple(value.split("\\")) if value else ())
    if step:
        found[SEQUENCE] = Element("SQ", items=(step,))
    return found


def _is_meant(item: WorklistItem, text: str | None) -> bool:
    return text is None or text in (item.accession, item.step_id, text_at(item.attributes, PATIENT_ID))


def _start(attributes: Attributes) -> str:
    return f"{text_at(attributes, SEQUENCE, START_DATE)} {text_at(attributes, SEQUENCE, START_TIME)[:4]}".strip()


def _key(item: WorklistItem) -> str:
    return f"{item.accession}/{item.step_id}"


def _keys(attributes: Attributes) -> list[str]:
    """Return the keys of a query that ask for something, as `KEY=VALUE`."""
    from gateway.formats.identifiers import name_of  # needs pydicom

    found: list[str] = []
    for tag, element in attributes.items():
        if any(element.values):
            value = "\\".join(element.values)
            found.append(f"{name_of(tag)}={value}")
        for item in element.items:
            found += _keys(item)
    return found


def _reasons(query: KeptQuery, item: str | None) -> str:
    """Return what left steps out: how many each key, or of one step the keys."""
    if item is not None:
        return ", ".join(reason for key, why in query.excluded.items() if item in key.split("/") for reason in why)
    counts: dict[str, int] = {}
    for why in query.excluded.values():
        for reason in why:
            name = reason.rpartition(".")[2]
            counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))


def _query_document(query: KeptQuery, item: str | None) -> dict[str, Any]:
    excluded = {key: list(why) for key, why in query.excluded.items() if item is None or item in key.split("/")}
    return {
        "id": query.id,
        "at": query.at,
        "source": query.source,
        "calling_ae_title": query.calling,
        "called_ae_title": query.called,
        "host": query.host,
        "keys": _keys(query.keys),
        "looked_at": query.looked_at,
        "answered": query.answered,
        "status": query.status,
        "excluded": excluded,
    }


def _document(item: WorklistItem) -> dict[str, Any]:
    step = item.attributes
    return {
        "id": item.id,
        "accession": item.accession,
        "step_id": item.step_id,
        "patient_id": text_at(step, PATIENT_ID),
        "patient_name": text_at(step, PATIENT_NAME),
        "modality": text_at(step, SEQUENCE, MODALITY),
        "stations": list(values_at(step, SEQUENCE, STATION)),
        "date": text_at(step, SEQUENCE, START_DATE),
        "time": text_at(step, SEQUENCE, START_TIME),
        "status": item.status.value,
        "source": item.source,
        "message": item.message_id,
        "changed_at": item.changed_at,
    }


def _print_items(found: list[WorklistItem]) -> None:
    print_table(
        ("START", "ACCESSION", "STEP", "PATIENT ID", "NAME", "MODALITY", "STATION", "STATUS", "SOURCE"),
        [
            (
                _start(item.attributes),
                item.accession,
                item.step_id,
                text_at(item.attributes, PATIENT_ID),
                text_at(item.attributes, PATIENT_NAME),
                text_at(item.attributes, SEQUENCE, MODALITY),
                " ".join(values_at(item.attributes, SEQUENCE, STATION)),
                item.status.value,
                item.source,
            )
            for item in found
        ],
    )
