"""How every simulator starts and ends: one JSON line when ready, one when done, a clean stop on SIGTERM."""

import asyncio
import json
import signal
import sys
import threading


def announce(**facts: object) -> None:
    """Print the first line: `{"ready": true, ...}` with where it listens or what it talks to."""
    _print({"ready": True, **facts})


def summarise(**facts: object) -> None:
    """Print the last line: `{"done": true, ...}` with what was counted."""
    _print({"done": True, **facts})


def stop_event() -> asyncio.Event:
    """Return an event of the running loop that SIGTERM and SIGINT set."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


def stop_flag() -> threading.Event:
    """Return a flag for programs without a loop that SIGTERM and SIGINT set; call it from the main thread."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def _print(facts: dict[str, object]) -> None:
    try:
        print(json.dumps(facts), flush=True)
    except BrokenPipeError:  # who started us no longer reads; that is no reason to fail
        sys.stdout = sys.stderr
