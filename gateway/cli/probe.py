"""`gateway probe`: which device stands at a port, at which line settings, and the stanza to paste.

Nothing is said to the device without `--active`, and then only what the protocol's source calls harmless.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import uvloop

from gateway.cli.output import add_json, clean, print_json
from gateway.clock import SystemClock
from gateway.driver import Driver, LineSettings
from gateway.errors import GatewayError
from gateway.net.ports import device_of
from gateway.probing import Finding, Report, probe, stanza_of
from gateway.probing.plan import has_line
from gateway.registry import installed_drivers
from gateway.typed import did_you_mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Find out which device stands at a port, and print the stanza for it. Listens at each line setting in turn,"
        " for 20 seconds at most; a running gateway must not hold the port. Exit status 1 when nothing is recognised."
    )
    parser.add_argument("port", metavar="PORT", help="/dev/ttyUSB0, tcp://HOST:PORT, udp://HOST:PORT, ...")
    parser.add_argument(
        "--active", action="store_true", help="also ask, with what the makers' documents call harmless, and no more"
    )
    parser.add_argument("--driver", metavar="NAME", help="try this driver alone; with --active it asks in any case")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; 0 when a device was recognised, else 1. Raises GatewayError for a missing port."""
    drivers = _drivers(arguments.driver)
    if not arguments.json:
        print(f"listening at {arguments.port}{_real_name(arguments.port)} ...", flush=True)
    insisted = arguments.driver is not None
    report = uvloop.run(
        probe(arguments.port, drivers.values(), SystemClock(), active=arguments.active, insisted=insisted)
    )
    found = report.finding
    stanza = stanza_of(found, report.port, drivers[found.driver]) if found is not None else None
    if arguments.json:
        print_json(_document(report, stanza))
    else:
        print(*_lines(report, stanza), sep="\n")
    return 0 if found is not None else 1


def _drivers(name: str | None) -> dict[str, type[Driver]]:
    installed = installed_drivers()
    if name is None:
        return installed
    if name not in installed:
        raise GatewayError(f"there is no driver {name!r}{did_you_mean(name, installed)}")
    return {name: installed[name]}


def _real_name(port: str) -> str:
    if "://" in port or port.startswith("replay:"):
        return ""
    real = device_of(port)
    return f" ({real})" if real != port else ""


def _lines(report: Report, stanza: str | None) -> Iterator[str]:
    if report.finding is None:
        yield f"nothing recognised after {report.seconds:.0f} s"
        for heard in report.heard:
            if has_line(report.port):
                yield f"  {words(heard.line)}: {heard.size} bytes in {heard.seconds:.1f} s"
        yield from (f"- {clean(hint)}" for hint in report.hints)
        return
    yield from map(clean, _found(report.finding, report.port))
    for other in report.others:
        yield f"also read by {other.driver}: {other.readings} results, {other.share:.0%} of the bytes"
    yield ""
    yield "paste into gateway.toml:"
    yield ""
    yield (stanza or "").rstrip("\n")


def _found(found: Finding, port: str) -> Iterator[str]:
    yield f"recognised: {found.driver} ({found.summary})"
    device = found.device
    told = {"maker": device.manufacturer, "model": device.model, "serial": device.serial, "software": device.software}
    yield from (f"  {name:<9}{value}" for name, value in told.items() if value)
    if has_line(port):
        yield f"  line     {words(found.line)}"
    how = "by listening alone" if found.passive else "by asking"
    if found.readings:
        yield f"  read     {found.readings} results {how}, {found.share:.0%} of the bytes: {', '.join(found.keys)}"
    else:
        yield f"  read     no values yet, {how}: it sends what it sends while nobody answers it"
    if found.notice:
        yield f"  NOTE     it would not be published: {found.notice}"


def words(line: LineSettings) -> str:
    """Return line settings in words."""
    flow = "" if line.flow == "none" else f", flow {line.flow}"
    return f"{line.baud} baud, {line.data_bits} data bits, parity {line.parity}, {line.stop_bits} stop bits{flow}"


def _document(report: Report, stanza: str | None) -> dict[str, Any]:
    return {
        "port": report.port,
        "recognised": report.finding is not None,
        "finding": report.finding,
        "others": report.others,
        "stanza": stanza,
        "heard": [{"line": one.line, "bytes": one.size, "seconds": one.seconds} for one in report.heard],
        "hints": report.hints,
        "seconds": report.seconds,
    }
