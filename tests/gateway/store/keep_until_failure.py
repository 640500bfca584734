"""Keeps one input after the other until the store fails, and says so; run by test_disk_failure."""

import json
import sys
import threading
from pathlib import Path

from gateway.clock import SystemClock
from gateway.errors import StoreError
from gateway.store.store import Store
from tests.gateway.store.stores import incoming, keep

INPUTS_MAX = 100


def main() -> int:
    broken = threading.Event()
    store = Store(Path(sys.argv[1]), SystemClock(), failed=lambda error: broken.set())
    say("opened", 0)
    for number in range(INPUTS_MAX):
        try:
            keep(store, incoming(b"%d" % number * 500), "ris")
            say("accepted", number)
        except StoreError:
            say("refused", number)
        if number % 20 == 19 and broken.is_set():
            break
    if not broken.wait(0):
        return 0
    say("failed", 0)
    return 1


def say(event: str, number: int) -> None:
    print(json.dumps({"event": event, "number": number}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
