"""`gateway demo`: the whole house on loopback in a temporary folder, and a live view of what arrives.

    receivers, Devices, agent start --> inputs run --> inputs stop --> the agent drains --> the counts are compared

Needs the extra `demo` (the embedded broker), no server, no root, no network beyond loopback.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from gateway.cli.client import call
from gateway.cli.demo_house import RECEIVERS, SCHEDULED, DemoError, House
from gateway.cli.demo_view import JournalTail, LastValues, Snapshot, WorkflowTail, render, render_line, take_snapshot
from gateway.cli.output import add_json, print_json
from gateway.errors import GatewayError

AGENT_TIMEOUT_S = 20.0
DRAIN_TIMEOUT_S = 15.0
VIEW_INTERVAL_S = 1.0
POLL_INTERVAL_S = 0.2
WIDTH_MAX = 160

Show = Callable[[Snapshot], None]


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 when everything accepted was delivered and every receiver got something, else 1."""
    if find_spec("amqtt") is None:
        raise DemoError(
            "the demo's broker is not installed: pip install 'medical-edge-gateway[demo]', or '.[demo]' here"
        )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    folder = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
    passed = False
    try:
        last = _live(folder, arguments.for_s, _view(arguments.json))
        passed = all(one.settled and one.received for one in last.receivers)
        _report(last, as_json=arguments.json)
    finally:
        if passed:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"journals, logs and data stay in {folder}", file=sys.stderr)
    return 0 if passed else 1


def _live(folder: Path, for_s: float | None, show: Show) -> Snapshot:
    """Run the house until its time is over or Ctrl-C, and return what stood at the end, after draining."""
    values = LastValues()
    house = House(folder, values.take)
    tails = tuple(JournalTail(receiver, house.journal(receiver.name)) for receiver in RECEIVERS)
    workflow = WorkflowTail(house.journal(SCHEDULED))
    began_s = time.monotonic()

    def look() -> Snapshot:
        return take_snapshot(time.monotonic() - began_s, call(house.data_dir, "status"), tails, values, workflow)

    try:
        house.open()
        _wait_for_agent(house)
        house.start_inputs()
        began_s = time.monotonic()
        _watch(house, look, show, for_s)
        lived = look()
        house.stop_inputs()
        return _with_states_of(lived, _drain(look, show))
    finally:
        house.close()


def _wait_for_agent(house: House) -> None:
    until_s = time.monotonic() + AGENT_TIMEOUT_S
    while True:
        house.check()
        try:
            if _listens(call(house.data_dir, "status")):
                return
        except (OSError, GatewayError):
            pass  # not there yet
        if time.monotonic() > until_s:
            raise DemoError(f"the agent did not listen within {AGENT_TIMEOUT_S:.0f} s")
        time.sleep(POLL_INTERVAL_S)


def _listens(status: dict[str, Any]) -> bool:
    sources = status.get("sources", ())
    return bool(sources) and all(source["state"] == "up" for source in sources)


def _watch(house: House, look: Callable[[], Snapshot], show: Show, for_s: float | None) -> None:
    """Show the house until the time is over; Ctrl-C and SIGTERM end it earlier, in order."""
    until_s = None if for_s is None else time.monotonic() + for_s
    try:
        while until_s is None or time.monotonic() < until_s:
            house.check()
            show(look())
            left_s = VIEW_INTERVAL_S if until_s is None else until_s - time.monotonic()
            time.sleep(max(0.0, min(VIEW_INTERVAL_S, left_s)))
    except KeyboardInterrupt:
        return


def _drain(look: Callable[[], Snapshot], show: Show) -> Snapshot:
    """Wait until all that was accepted has arrived, or the time for that is over."""
    until_s = time.monotonic() + DRAIN_TIMEOUT_S
    while True:
        last = look()
        show(last)
        if all(one.settled for one in last.receivers) or time.monotonic() > until_s:
            return last
        time.sleep(POLL_INTERVAL_S)


def _with_states_of(lived: Snapshot, last: Snapshot) -> Snapshot:
    """Tell how the Devices were while they ran: at the end all are down, because the demo has stopped them."""
    devices = (replace(now, state=then.state) for then, now in zip(lived.devices, last.devices, strict=True))
    return replace(last, devices=tuple(devices))


def _view(as_json: bool) -> Show:
    if as_json:
        return lambda snapshot: None
    if not sys.stdout.isatty():
        return lambda snapshot: print(render_line(snapshot), flush=True)
    return _redraw


def _redraw(snapshot: Snapshot) -> None:
    width = min(shutil.get_terminal_size().columns, WIDTH_MAX)
    lines = (line[:width] + "\x1b[K" for line in render(snapshot))
    print("\x1b[H" + "\n".join(lines) + "\x1b[J", end="", flush=True)


def _report(last: Snapshot, *, as_json: bool) -> None:
    if as_json:
        document = {
            "receivers": [one.document() for one in last.receivers],
            "devices": [device.document() for device in last.devices],
            "workflow": last.workflow,
            "seconds": round(last.seconds, 1),
        }
        print_json(document)
        return
    print()
    for one in last.receivers:
        verdict = "all arrived" if one.settled and one.received else "NOT ALL ARRIVED"
        print(f"{one.name}: accepted {one.accepted}, delivered {one.delivered}, received {one.received}: {verdict}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gateway demo`."""
    add_json(parser)
    parser.add_argument(
        "--for", dest="for_s", type=float, metavar="SECONDS", help="end by itself, and say whether all arrived"
    )
