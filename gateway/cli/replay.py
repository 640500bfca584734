"""`gateway replay`: a recording run through a driver, and what it reads, without a Device and without keeping anything.

Raw bytes, or a recording with times (see `gateway/net/replay.py`): the Session is told those times, so silences count
as they did. As on a line that has just been opened, a driver may leave out what comes before the first whole record.
"""

import argparse
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.cli.output import add_json, clean, print_json
from gateway.driver import Session
from gateway.errors import GatewayError
from gateway.formats.results import encode_result
from gateway.model import Condition, Observation, Reading, Result, Wave
from gateway.net.replay import read_recording
from gateway.registry import create_driver

QUIET_S = 600.0  # after the end: what a Session still owes comes by then

Timed = tuple[float, Reading]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("file", metavar="FILE", type=Path, help="raw bytes of a Device, or a recording with times")
    parser.add_argument("--driver", required=True, metavar="NAME", help="see `gateway drivers`")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the driver, as in its stanza"
    )
    add_json(parser)


def replay(arguments: argparse.Namespace) -> int:
    """Print every Reading; 1 when nothing could be read. Raises GatewayError for a file or driver that is not there."""
    driver, faults = create_driver(arguments.driver, dict(map(_option, arguments.option)))
    if driver is None:
        raise GatewayError("; ".join(str(fault) for fault in faults))
    readings = _readings(driver.open(), arguments.file)
    if arguments.json:
        listed = [_document(at_s, reading) for at_s, reading in readings]
        print_json({"readings": listed})
        return 0 if any(entry["results"] for entry in listed) else 1
    read = 0
    for at_s, reading in readings:
        read += len(reading.results)
        for line in _lines(reading):
            print(f"{at_s:10.3f}  {line}")
    print(f"{read} results")
    return 0 if read else 1


def _option(text: str) -> tuple[str, Any]:
    """Read KEY=VALUE, the value as TOML where it is TOML, else as text. Raises GatewayError."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise GatewayError(f"--option {text!r}: expected KEY=VALUE")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def _readings(session: Session, path: Path) -> Iterator[Timed]:
    at_s = 0.0
    for due_s, data in read_recording(path):
        yield from _pass_time(session, at_s, due_s)
        at_s = max(at_s, due_s)
        session.receive(data, at_s)
        yield from _taken(session, at_s)
    yield from _pass_time(session, at_s, at_s + QUIET_S)


def _pass_time(session: Session, since_s: float, until_s: float) -> Iterator[Timed]:
    while (deadline := session.deadline) is not None and since_s < deadline <= until_s:
        since_s = deadline
        session.tick(deadline)
        yield from _taken(session, deadline)


def _taken(session: Session, at_s: float) -> Iterator[Timed]:
    session.take_output()  # nobody listens
    for reading in session.take_readings():
        session.settle(stored=True, now=at_s)
        yield at_s, reading


def _document(at_s: float, reading: Reading) -> dict[str, Any]:
    results = [json.loads(encode_result(result)) for result in reading.results]
    return {"at_s": at_s, "bytes": len(reading.raw), "fault": reading.fault, "results": results}


def _lines(reading: Reading) -> Iterator[str]:
    if reading.fault is not None:
        yield clean(f"not read ({len(reading.raw)} bytes): {reading.fault}")
    for result in reading.results:
        yield clean(_words(result))


def _words(result: Result) -> str:
    parts = [result.device_time or "", *(_value(one) for one in result.observations)]
    parts += [_wave(wave) for wave in result.waves]
    parts += [_condition(condition) for condition in result.conditions]
    return "  ".join(part for part in parts if part)


def _wave(one: Wave) -> str:
    gap = " after a gap" if one.gap else ""
    return f"{one.key}: {len(one.samples)} samples of {one.period_s} s{gap}"


def _condition(one: Condition) -> str:
    words = [one.priority.value if one.priority else "", one.phase.value if one.phase else ""]
    alarm = " ".join(word for word in words if word)
    return f"({one.code}: {one.text}{f'; {alarm}' if alarm else ''})"


def _value(one: Observation) -> str:
    if one.absent is not None:
        return f"{one.key}={one.absent.value}"
    unit = f" {one.unit}" if one.unit and one.unit != "1" else ""
    flags = f" [{' '.join(one.flags)}]" if one.flags else ""
    return f"{one.key}={one.value}{unit}{flags}"
