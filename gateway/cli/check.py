"""`gateway check`: every fault of the configuration in one run; with `--connect` every endpoint is tried too."""

import argparse
from typing import Any

from gateway.cli.output import add_json, clean, print_json
from gateway.cli.settings import config_path
from gateway.configfile import Loaded, PlacedFault, load
from gateway.errors import ConfigError
from gateway.typed import printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "--connect", action="store_true", help="also try each endpoint: C-ECHO, MLLP and MQTT connect, serial open"
    )
    add_json(parser)


def check(arguments: argparse.Namespace) -> int:
    """Report; 0 when all is well, 1 when an endpoint does not answer. Raises ConfigError with every fault."""
    path = config_path(arguments)
    loaded = load(path)
    endpoints: list[dict[str, Any]] = []
    if loaded.config is not None and arguments.connect:
        import uvloop  # on the agent's loop, whose words for what is wrong are the agent's

        from gateway.cli.connect import try_endpoints  # needs the whole house

        endpoints = uvloop.run(try_endpoints(loaded.config))
    if arguments.json:
        print_json(_document(loaded, endpoints))
        return 78 if loaded.config is None else _status(endpoints)
    if loaded.config is None:
        raise ConfigError(*map(str, loaded.faults), *map(_warned, loaded.warnings))
    for warning in loaded.warnings:
        print(_warned(warning))
    print(f"{path}: {len(loaded.config.sources)} sources, {len(loaded.config.destinations)} destinations, no faults")
    for endpoint in endpoints:
        print(f"{'ok    ' if endpoint['ok'] else 'FAILED'}  {endpoint['name']}: {clean(endpoint['text'])}")
    return _status(endpoints)


def _status(endpoints: list[dict[str, Any]]) -> int:
    return 0 if all(endpoint["ok"] for endpoint in endpoints) else 1


def _warned(warning: PlacedFault) -> str:
    return f"{warning} (warning)"


def _document(loaded: Loaded, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "ok": loaded.config is not None and all(endpoint["ok"] for endpoint in endpoints),
        "files": loaded.files,
        "faults": [_fault(fault) for fault in loaded.faults],
        "warnings": [_fault(fault) for fault in loaded.warnings],
        "endpoints": endpoints,
    }


def _fault(placed: PlacedFault) -> dict[str, Any]:
    return {
        "file": placed.place.file,
        "line": placed.place.line,
        "column": placed.place.column,
        "key": printed(placed.fault.path),
        "text": placed.fault.text,
    }
