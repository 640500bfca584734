"""A Report in the text format that Prometheus scrapes (exposition format 0.0.4).

Labels are names of Sources and Destinations, states and versions; nothing of a message ever becomes one.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.console.build import versions
from gateway.console.report import OPEN, Report
from gateway.status import LinkState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]


def render_metrics(report: Report) -> str:
    """Return the whole page."""
    families = [*_house(report), *_sources(report), *_destinations(report), *_store(report), *_process()]
    return "".join(families)


def _house(report: Report) -> Iterable[str]:
    built = {name: versions()[name] for name in ("python", "sqlite")} | {"version": report.version}
    yield _family("gateway_build_info", "gauge", "What is running.", [(built, 1)])
    yield _plain("gateway_uptime_seconds", "gauge", "How long the agent has run.", report.uptime_s)
    yield _plain("gateway_alarms", "gauge", "Alarms that stand.", len(report.alarms))
    standing = [_split(alarm.key) for alarm in report.alarms]
    yield _family(
        "gateway_alarm",
        "gauge",
        "1 for each alarm that stands.",
        [({"alarm": what, "endpoint": whom}, 1) for what, whom in standing],
    )


def _sources(report: Report) -> Iterable[str]:
    rows = [({"source": each.name}, each) for each in report.sources]
    for name, kind, what, field in (
        ("received_total", "counter", "Messages kept.", "received"),
        ("received_bytes_total", "counter", "Bytes kept.", "bytes"),
        ("repeated_total", "counter", "Inputs that were there already.", "repeated"),
        ("quarantined_total", "counter", "Messages that could not be read.", "quarantined"),
        ("errors_total", "counter", "Faults of peers or links since the start.", "errors"),
        ("connections", "gauge", "Peers connected.", "connections"),
    ):
        yield _family(f"gateway_source_{name}", kind, what, [(labels, getattr(each, field)) for labels, each in rows])
    heard = [(labels, each.last_received_at.timestamp()) for labels, each in rows if each.last_received_at]
    yield _family("gateway_source_last_received_timestamp_seconds", "gauge", "When the last input came.", heard)
    yield _states("gateway_source_state", [(labels, each.state) for labels, each in rows])
    offsets = [(labels, each.device_clock_offset_s) for labels, each in rows if each.device_clock_offset_s is not None]
    yield _family(
        "gateway_source_device_clock_offset_seconds", "gauge", "The Device's clock less the gateway's.", offsets
    )
    noticed = [(labels, each.notice is not None) for labels, each in rows]
    yield _family("gateway_source_held_back", "gauge", "1 while a Device talks and is not published.", noticed)
    for name, field in (("framing", "framing_errors"), ("parity", "parity_errors"), ("overrun", "overruns")):
        counted = [(labels, getattr(each.line, field)) for labels, each in rows if each.line is not None]
        known = [(labels, count) for labels, count in counted if count is not None]
        what = f"Serial {name} errors that the port has counted."
        yield _family(f"gateway_source_line_{name}_errors_total", "counter", what, known)


def _destinations(report: Report) -> Iterable[str]:
    rows = [({"destination": each.name}, each) for each in report.destinations]
    for name, kind, what, field in (
        ("accepted_total", "counter", "Deliveries ever owed.", "accepted"),
        ("delivered_total", "counter", "Deliveries the peer has taken.", "delivered"),
        ("discarded_total", "counter", "Deliveries given up by a person.", "discarded"),
        ("pending", "gauge", "Deliveries owed.", "pending"),
        ("parked", "gauge", "Deliveries that wait for a person.", "parked"),
        ("oldest_pending_seconds", "gauge", "Age of the oldest Message owed.", "oldest_pending_s"),
    ):
        samples = [(labels, getattr(each, field)) for labels, each in rows]
        yield _family(f"gateway_destination_{name}", kind, what, samples)
    asked = [(labels, each.uncommitted) for labels, each in rows if each.uncommitted is not None]
    yield _family("gateway_destination_uncommitted", "gauge", "Instances that an archive has yet to commit to.", asked)
    taken = [(labels, each.last_delivered_at.timestamp()) for labels, each in rows if each.last_delivered_at]
    yield _family(
        "gateway_destination_last_delivered_timestamp_seconds", "gauge", "When the peer last took one.", taken
    )
    yield _states("gateway_destination_state", [(labels, each.state) for labels, each in rows])


def _store(report: Report) -> Iterable[str]:
    store = report.store
    yield _plain("gateway_store_size_bytes", "gauge", "Size of the database file.", store.size_bytes)
    yield _plain("gateway_store_log_bytes", "gauge", "Size of the write-ahead log.", store.log_bytes)
    yield _plain("gateway_store_free_bytes", "gauge", "Room left on the disk.", store.free_bytes)
    yield _plain("gateway_store_commits_total", "counter", "Transactions synced since the start.", store.commits)
    yield _plain("gateway_store_queue", "gauge", "Units that wait for the writer.", store.queue)
    yield _plain("gateway_store_reserve_held", "gauge", "1 while the reserve file lies ready.", store.reserve_held)
    yield _plain("gateway_intake_open", "gauge", "0 while new input is refused.", store.intake == OPEN)


def _process() -> Iterable[str]:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted only, no paths wanted
    yield _plain("process_resident_memory_bytes", "gauge", "Resident memory.", pages * os.sysconf("SC_PAGE_SIZE"))
    yield _plain("process_open_fds", "gauge", "Open file descriptors.", descriptors)


def _states(name: str, rows: list[tuple[Mapping[str, str], str]]) -> str:
    samples = [({**labels, "state": state.value}, state.value == now) for labels, now in rows for state in LinkState]
    return _family(name, "gauge", "1 at the state that holds.", samples)


def _plain(name: str, kind: str, what: str, value: float) -> str:
    return _family(name, kind, what, [({}, value)])


def _family(name: str, kind: str, what: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _split(key: str) -> tuple[str, str]:
    what, _, whom = key.partition(":")
    return what, whom
