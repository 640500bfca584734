"""`gateway retry`, `discard`, `resend`, `acknowledge`, `reload`: what a person does to the house.

Through the running agent; while none runs, acts on Deliveries open the store themselves, under the data folder's lock.
"""

import argparse
import os
from typing import Any

from gateway.cli.client import AgentNotRunning, call, who
from gateway.cli.output import add_json, print_json
from gateway.cli.settings import read_config, read_data_dir


def delivery_id(text: str) -> int:
    """Read the number of a Delivery or Message."""
    if not text.isdecimal() or not 0 < int(text) < 1 << 63:
        raise argparse.ArgumentTypeError(f"expected a number such as 17, got {text!r}")
    return int(text)


def add_retry_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `retry` takes."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", nargs="*", default=[], type=delivery_id, metavar="ID", help="numbers of deliveries")
    which.add_argument("--all", action="store_true", help="all parked deliveries")
    parser.add_argument("--destination", metavar="D", help="with --all: only to this destination")
    add_json(parser)


def add_discard_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `discard` takes."""
    parser.add_argument("ids", nargs="+", type=delivery_id, metavar="ID", help="numbers of deliveries")
    parser.add_argument("--why", required=True, metavar="TEXT", help="the reason, for the audit trail")
    add_json(parser)


def add_resend_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `resend` takes."""
    parser.add_argument("message", type=delivery_id, metavar="MESSAGE", help="the number of a message")
    parser.add_argument("--to", required=True, metavar="D", help="the destination")
    add_json(parser)


def add_acknowledge_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `acknowledge` takes."""
    parser.add_argument("alarm", metavar="ALARM", help="the alarm's key in `gateway status`, such as clock-stepped")
    add_json(parser)


def add_reload_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `reload` takes."""
    add_json(parser)


def retry(arguments: argparse.Namespace) -> int:
    """Make parked Deliveries pending, and pending ones due."""
    body: dict[str, Any] = {"ids": arguments.ids}
    if arguments.all:
        body = {"all": True}
        if arguments.destination is not None:
            body["destination"] = arguments.destination
    elif arguments.destination is not None:
        arguments.misused("--destination goes with --all")
    done = _act(arguments, "retry", body)
    what = "parked deliveries" if arguments.all else "deliveries"
    _tell(arguments, done, f"{done.get('changed')} {what} to be sent again")
    return 0


def discard(arguments: argparse.Namespace) -> int:
    """Give Deliveries up."""
    done = _act(arguments, "discard", {"ids": arguments.ids, "why": arguments.why})
    _tell(arguments, done, f"{done.get('changed')} discarded")
    return 0


def resend(arguments: argparse.Namespace) -> int:
    """Owe a Message once more."""
    done = _act(arguments, "resend", {"message": arguments.message, "to": arguments.to})
    _tell(arguments, done, f"delivery {done.get('delivery')} to {arguments.to}")
    return 0


def acknowledge(arguments: argparse.Namespace) -> int:
    """End an alarm of the running agent."""
    done = call(read_data_dir(arguments), "acknowledge", {"alarm": arguments.alarm})
    _tell(arguments, done, f"{arguments.alarm} acknowledged")
    return 0


def reload(arguments: argparse.Namespace) -> int:
    """Have the running agent read its configuration again. Raises ConfigError with what it found at fault."""
    done = call(read_data_dir(arguments), "reload", {})
    _tell(arguments, done, "\n".join(map(str, done.get("changes", []))) or "nothing has changed")
    return 0


def _act(arguments: argparse.Namespace, name: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return call(read_data_dir(arguments), name, body)
    except AgentNotRunning:
        from gateway.cli.direct import act_on_store  # the store's rooms are imported only where no agent runs

        return act_on_store(read_config(arguments), name, {"who": f"{who()} (uid {os.getuid()})", **body})


def _tell(arguments: argparse.Namespace, done: dict[str, Any], text: str) -> None:
    if arguments.json:
        print_json(done)
    else:
        print(text)
