"""`gateway status`: what the running agent tells of itself; without an agent, what the store counts."""

import argparse
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from gateway.cli.client import AgentNotRunning, call
from gateway.cli.output import add_json, clean, duration, print_json, print_table, size
from gateway.cli.settings import read_config, read_data_dir
from gateway.clock import SystemClock

SHORT_S = 60.0  # a clock's offset below it is told with tenths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_json(parser)


def status(arguments: argparse.Namespace) -> int:
    """Print the report; 0 when an agent runs, else 1."""
    try:
        document = call(read_data_dir(arguments), "status")
    except AgentNotRunning:
        from gateway.cli.stopped import stopped_document  # the store's rooms are imported only where no agent runs

        document = stopped_document(read_config(arguments))
    if arguments.json:
        print_json(document)
    else:
        _print(document)
    return 0 if document["running"] else 1


def _print(document: dict[str, Any]) -> None:
    now = SystemClock().now()
    store = document["store"]
    if document["running"]:
        print(f"{document['name']}: up {duration(document['uptime_s'])}, version {document['version']}")
    else:
        print(f"{document['name']}: no agent runs (why: journalctl -u gateway); what the store counts:")
    print()
    print_table(
        ("SOURCE", "TYPE", "STATE", "RECEIVED", "REPEATED", "QUARANTINED", "LAST RECEIVED", "ERRORS", "LAST ERROR"),
        [
            (
                each["name"],
                each["type"],
                each["state"],
                each["received"],
                each["repeated"],
                each["quarantined"],
                each["last_received_at"],
                each["errors"],
                _last_error(each, now),
            )
            for each in document["sources"]
        ],
    )
    _print_devices(document["sources"])
    print()
    print_table(
        ("DESTINATION", "TYPE", "STATE", "PENDING", "OLDEST", "DELIVERED", "PARKED", "DISCARDED", "LAST ERROR"),
        [
            (
                each["name"],
                each["type"],
                each["state"],
                each["pending"],
                duration(each["oldest_pending_s"]) if each["pending"] else None,
                each["delivered"],
                each["parked"],
                each["discarded"],
                _last_error(each, now),
            )
            for each in document["destinations"]
        ],
    )
    for each in document["destinations"]:
        if each.get("uncommitted"):
            print(f"  {each['name']}: has not committed to {each['uncommitted']} instances that it took")
    print(
        f"\nstore {store['path']}: {size(store['size_bytes'])}, log {size(store['log_bytes'])},"
        f" {size(store['free_bytes'])} free (intake stops below {size(store['stop_intake_below'])}),"
        f" intake {store['intake']}"
    )
    for alarm in document["alarms"]:
        print(f"ALARM {alarm['key']} since {alarm['since']}: {clean(alarm['text'])}")


def _last_error(end: dict[str, Any], now: datetime) -> str | None:
    """Return the last error of a Source or Destination and how old it is: one that is up may show last week's."""
    if end["last_error"] is None or end["last_error_at"] is None:
        return None
    age_s = (now - datetime.fromisoformat(end["last_error_at"])).total_seconds()
    return f"{duration(max(0.0, age_s))} ago: {end['last_error']}"


def _print_devices(sources: list[dict[str, Any]]) -> None:
    """Print a line for each Device that has something to tell beside the table."""
    for each in sources:
        told = list(_told(each))
        if told:
            print(f"  {each['name']}: {'; '.join(map(clean, told))}")


def _told(source: dict[str, Any]) -> Iterator[str]:
    if source.get("notice"):
        yield f"NOT PUBLISHED: {source['notice']}"
    if source.get("port"):
        yield f"on {source['port']}"
    if (offset_s := source.get("device_clock_offset_s")) is not None:
        yield f"device clock {_offset(offset_s)}"
    if (line := source.get("line")) is not None:
        yield f"lines {' '.join(line['lines']) or 'none'} up"
        counted = {name: line[name] for name in ("framing_errors", "parity_errors", "overruns", "breaks")}
        yield from (f"{name.replace('_', ' ')} {count}" for name, count in counted.items() if count)


def _offset(offset_s: float) -> str:
    """Return how far a clock is off in words: `0.4 s behind`, `1 h 0 min ahead`."""
    size_s = abs(offset_s)
    told = f"{size_s:.1f} s" if size_s < SHORT_S else duration(size_s)
    return f"{told} {'ahead' if offset_s >= 0 else 'behind'}"
