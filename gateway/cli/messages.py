"""`gateway messages`, `message`, `deliveries`: the store read directly, whether an agent runs or not."""

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.cli.output import add_json, cell, clean, instant, print_json, print_table
from gateway.cli.settings import read_config
from gateway.clock import SystemClock
from gateway.config import Config
from gateway.errors import GatewayError
from gateway.formats.results import encode_result
from gateway.model import Delivery, DeliveryState, Kind, Message
from gateway.store.checking import unreadable_is_told
from gateway.store.reading import (
    Attempt,
    MessageFilter,
    read_attempts,
    read_deliveries,
    read_message,
    read_messages,
)
from gateway.store.recovery import FILE_NAME
from gateway.store.store import Readers

LIMIT = 50
LIMIT_MAX = 100_000
STATES = {state.name.lower(): state for state in DeliveryState}
DELIVERIES_MAX = 1000  # of one message

_AGO = re.compile(r"(\d{1,9})([smhdw])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def since(text: str) -> datetime:
    """Read how far back to look: `10m`, `2h`, `3d`, or an ISO 8601 instant (UTC where it names no zone)."""
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return SystemClock().now() - timedelta(seconds=int(ago[1]) * _UNIT_S[ago[2]])
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"expected 10m, 2h, 3d or an instant such as 2026-01-31T08:15:00Z, got {text!r}"
        ) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def limit(text: str) -> int:
    """Read how many lines at most."""
    if not text.isdecimal() or not 1 <= int(text) <= LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {LIMIT_MAX}, got {text!r}")
    return int(text)


def add_messages_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `messages` takes."""
    parser.add_argument("--source", metavar="S", help="only of this source")
    parser.add_argument("--kind", choices=[kind.value for kind in Kind], help="only of this kind")
    parser.add_argument("--state", choices=STATES, help="only those with a delivery in this state")
    parser.add_argument("--quarantined", action="store_true", help="only those that could not be read")
    parser.add_argument("--since", type=since, metavar="T", help="received since: 10m, 2h, 3d or an ISO instant")
    parser.add_argument("--search", metavar="TEXT", help="MSH-10, accession number, patient id, SOP or study UID")
    parser.add_argument("--limit", type=limit, default=LIMIT, metavar="N", help=f"at most N (default {LIMIT})")
    add_json(parser)


def add_message_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `message` takes."""
    parser.add_argument("id", type=int, metavar="ID", help="the number that `gateway messages` shows")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--raw", action="store_true", help="write the bytes as received, and nothing else")
    add_json(shape)


def add_deliveries_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `deliveries` takes."""
    parser.add_argument("--destination", metavar="D", help="only to this destination")
    parser.add_argument("--state", choices=STATES, help="only those in this state")
    parser.add_argument("--limit", type=limit, default=LIMIT, metavar="N", help=f"at most N (default {LIMIT})")
    add_json(parser)


def messages(arguments: argparse.Namespace) -> int:
    """Print Messages, newest first."""
    wanted = MessageFilter(
        source=arguments.source,
        kind=Kind(arguments.kind) if arguments.kind else None,
        state=STATES.get(arguments.state),
        quarantined=arguments.quarantined,
        since=arguments.since,
        search=arguments.search,
        limit=arguments.limit,
    )
    with reading(read_config(arguments)) as readers:
        found = read_messages(readers.connection, wanted)
    if arguments.json:
        print_json({"messages": [message_document(message) for message in found]})
        return 0
    print_table(
        ("ID", "RECEIVED", "SOURCE", "KIND", "SIZE", "IDENTIFIER", "FAULT"),
        [
            (one.id, one.received_at, one.source, one.kind.value, one.size, one.identifier, one.quarantined)
            for one in found
        ],
    )
    return 0


def message(arguments: argparse.Namespace) -> int:
    """Print one Message with its Deliveries and their Attempts, or write its bytes."""
    config = read_config(arguments)
    with reading(config) as readers:
        found = read_message(readers.connection, arguments.id)
        if found is None:
            raise GatewayError(f"there is no message {arguments.id}")
        if arguments.raw:
            _write_raw(found, config.gateway.data_dir)
            return 0
        owed = read_deliveries(readers.connection, readers.epoch, message=found.id, limit=DELIVERIES_MAX)
        tried = [(each, read_attempts(readers.connection, each.id)) for each in reversed(owed)]
    if arguments.json:
        deliveries = [delivery_document(each) | {"attempt_list": attempts} for each, attempts in tried]
        print_json({"message": message_document(found), "deliveries": deliveries})
    else:
        _print_message(found, tried)
    return 0


def deliveries(arguments: argparse.Namespace) -> int:
    """Print Deliveries, newest first."""
    with reading(read_config(arguments)) as readers:
        found = read_deliveries(
            readers.connection,
            readers.epoch,
            destination=arguments.destination,
            state=STATES.get(arguments.state),
            limit=arguments.limit,
        )
    if arguments.json:
        print_json({"deliveries": [delivery_document(each) for each in found]})
        return 0
    print_table(
        ("ID", "MESSAGE", "DESTINATION", "STATE", "ATTEMPTS", "NEXT TRY", "SETTLED", "LAST ERROR"),
        [
            (
                each.id,
                each.message_id,
                each.destination,
                each.state.name.lower(),
                each.attempts,
                each.next_try_at,
                each.settled_at,
                each.last_error,
            )
            for each in found
        ],
    )
    return 0


@contextmanager
def reading(config: Config) -> Iterator[Readers]:
    """Hold the store open for reading. Raises StoreError when there is none or it cannot be read."""
    readers = Readers(config.gateway.data_dir / FILE_NAME)
    try:
        with unreadable_is_told():
            yield readers
    finally:
        readers.close()


def message_document(found: Message) -> dict[str, Any]:
    """Return a Message for `--json`, without its bytes."""
    return {
        "id": found.id,
        "source": found.source,
        "kind": found.kind,
        "received_at": found.received_at,
        "observed_at": found.observed_at,
        "size": found.size,
        "peer": found.peer,
        "identifier": found.identifier,
        "digest": found.digest.hex(),
        "object": found.object_name,
        "headers": found.headers,
        "quarantined": found.quarantined,
    }


def delivery_document(found: Delivery) -> dict[str, Any]:
    """Return a Delivery for `--json`."""
    return {
        "id": found.id,
        "message": found.message_id,
        "destination": found.destination,
        "state": found.state.name.lower(),
        "ordinal": found.ordinal,
        "control_id": found.control_id,
        "attempts": found.attempts,
        "next_try_at": found.next_try_at,
        "settled_at": found.settled_at,
        "last_error": found.last_error,
        "acknowledgement": found.acknowledgement,
    }


def _write_raw(found: Message, data_dir: Path) -> None:
    if found.raw is not None:
        sys.stdout.buffer.write(found.raw)
        return
    from gateway.spool import Spool  # needs pydicom, which HL7 does not

    path = Spool(data_dir / "spool").path_of(found.object_name or "")
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                sys.stdout.buffer.write(piece)
    except FileNotFoundError:
        raise GatewayError(f"the object of message {found.id} is not in the spool: run `gateway verify`") from None


def _print_message(found: Message, tried: list[tuple[Delivery, list[Attempt]]]) -> None:
    for title, value in (
        ("message", found.id),
        ("source", found.source),
        ("kind", found.kind.value),
        ("received", found.received_at),
        ("observed", found.observed_at),
        ("peer", found.peer),
        ("identifier", found.identifier),
        ("size", found.size),
        ("object", found.object_name),
        ("fault", found.quarantined),
    ):
        if value is not None:
            print(f"{title:<12}{cell(value)}")
    if found.result is not None:
        print(f"{'result':<12}{clean(encode_result(found.result))}")
    for delivery, attempts in tried:
        print(f"\ndelivery {delivery.id} to {clean(delivery.destination)}: {delivery.state.name.lower()}")
        for attempt in attempts:
            _print_attempt(attempt)


def _print_attempt(attempt: Attempt) -> None:
    reason = f": {clean(attempt.reason)}" if attempt.reason else ""
    print(f"  {attempt.number:>3}  {instant(attempt.at)}  {attempt.verdict}{reason}")
    if attempt.acknowledgement:
        text = attempt.acknowledgement.decode("utf-8", "backslashreplace")
        for line in re.split(r"[\r\n]+", text.strip()):
            print(f"       | {clean(line)}")
