"""`gateway drivers`: what is installed, and what one driver says of itself."""

import argparse
import dataclasses
from typing import Any

from gateway.cli.output import add_json, print_json, print_table
from gateway.driver import Driver
from gateway.errors import GatewayError
from gateway.registry import driver_names, installed_drivers
from gateway.typed import did_you_mean, schema_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="tell everything of this driver")
    add_json(parser)


def drivers(arguments: argparse.Namespace) -> int:
    """Print the list, or one driver. Raises GatewayError for a name that is not installed."""
    installed = installed_drivers()
    if arguments.name is None:
        _print_all(installed, as_json=arguments.json)
        return 0
    driver = installed.get(arguments.name)
    if driver is None:
        broken = " (it is installed but cannot be imported)" if arguments.name in driver_names() else ""
        hint = broken or did_you_mean(arguments.name, installed)
        raise GatewayError(f"there is no driver {arguments.name!r}{hint}")
    document = _document(driver)
    if arguments.json:
        print_json(document)
    else:
        _print_one(document)
    return 0


def _print_all(installed: dict[str, type[Driver]], *, as_json: bool) -> None:
    if as_json:
        print_json({"drivers": [_document(driver) for driver in installed.values()]})
        return
    rows = [(name, driver.about.summary, ", ".join(driver.about.models)) for name, driver in installed.items()]
    print_table(("DRIVER", "WHAT", "MODELS"), rows)


def _print_one(document: dict[str, Any]) -> None:
    print(f"{document['name']}: {document['summary']}\n")
    print(f"models      {', '.join(document['models'])}")
    print(f"source      {document['source']}")
    for number, line in enumerate((document["line"], *document["other_lines"])):
        print(
            f"{('line', 'or')[number > 0]:<12}{line['baud']} baud, {line['data_bits']} data bits,"
            f" parity {line['parity']}, {line['stop_bits']} stop bits, flow {line['flow']}"
        )
    print(f"talks       {_talks(document)}")
    print(f"repeats     {'what is not acknowledged' if document['acknowledges'] else 'nothing: loss window 250 ms'}")
    for number, text in enumerate(document["unverified"]):
        print(f"{'unverified' if number == 0 else '':<12}{text}")
    print()
    print_table(
        ("SETTING", "TYPE", "DEFAULT"),
        [(setting["name"], setting["type"], setting["default"]) for setting in document["settings"]],
    )


def _talks(document: dict[str, Any]) -> str:
    if document["talks"]:
        return "by itself: `gateway probe` recognises it by listening"
    if document["harmless_polls"]:
        return "when asked; the first questions are called harmless: `gateway probe --active` asks them"
    return "when asked; `gateway probe` does not ask, because that may not be harmless"


def _document(driver: type[Driver]) -> dict[str, Any]:
    return dataclasses.asdict(driver.about) | {"settings": [_setting(field) for field in _settings(driver)]}


def _settings(driver: Any) -> tuple["dataclasses.Field[Any]", ...]:
    return tuple(field for field in dataclasses.fields(driver) if field.init)


def _setting(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", None)
    return {
        "name": schema_key(field),
        "type": kind if kind not in (None, "Literal", "Optional") else str(field.type).replace("typing.", ""),
        "default": "required" if default is dataclasses.MISSING else repr(default),
    }
