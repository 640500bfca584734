"""Fill a store with messages that wait for destination `out`, through the store itself: fill.py FOLDER COUNT."""

import sys
import threading
from pathlib import Path

from gateway.clock import SystemClock
from gateway.formats.hl7_digest import digest_of
from gateway.model import Accepted, Incoming, Kind
from gateway.store.store import Store

WINDOW = 2_000
BODY = (
    "MSH|^~\\&|FILL|WARD|GATEWAY|WARD|20260101000000||ADT^A08^ADT_A01|FILL{0}|P|2.5\rEVN||20260101000000\r"
    "PID|||{1}^^^WARD^MR||ZZTEST^FILL^{1}||19700101|F\rPV1||I|ICU^1^{1}^WARD\r" + "NTE|1||" + "x" * 500 + "\r"
)


def main(folder: Path, count: int) -> None:
    """Keep so many synthetic messages."""
    folder.mkdir(parents=True)
    clock = SystemClock()
    store = Store(folder, clock, failed=lambda error: sys.exit(str(error)))
    room = threading.Semaphore(WINDOW)

    def settled(outcome: Accepted | Exception) -> None:
        assert isinstance(outcome, Accepted), outcome
        room.release()

    for number in range(count):
        raw = BODY.format(number, number % 500).encode()
        room.acquire()
        store.keep(
            Incoming(
                source="in",
                kind=Kind.HL7,
                received_at=clock.now(),
                size=len(raw),
                digest=digest_of(raw),
                peer="127.0.0.1",
                identifier=f"FILL{number}",
                raw=raw,
                terms=(str(number % 500),),
            ),
            ("out",),
            settled,
        )
    for _ in range(WINDOW):
        room.acquire()
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
