"""Group `storm`: the bedside while images come in as fast as they can.

A ward as in group `bedside`, smaller; beside it DCMTK's storescu on four associations, each object with a new SOP
Instance UID. What is told is the latency of the ward; that nothing of it is lost is judged too.
"""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bedside import play
from dicom import NODELAY, PDU, make_objects
from measuring import Figure, figure, tell
from world import folder, free_port, stop, wait_for_port

SECONDS = float(os.environ.get("STORM_SECONDS", "20"))
MONITORS = int(os.environ.get("STORM_MONITORS", "20"))
ASSOCIATIONS = 4
OBJECTS = (25, 512)  # a sender's round: objects, and KB of each


def storm() -> list[Figure]:
    """Play a ward without and with images."""
    tell(f"{MONITORS} monitors, {ASSOCIATIONS} associations that store, {SECONDS:g} s")
    quiet = play(MONITORS, SECONDS)
    tell(f"without images: {quiet}")
    port, sent = free_port(), [0]
    source = f'[[source]]\nname = "ct"\ntype = "dicom"\nlisten = "127.0.0.1:{port}"\n'
    with folder() as place:
        files = make_objects(place / "objects", *OBJECTS)
        found = play(MONITORS, SECONDS, more=source, beside=_storing(files, port, sent))
    told = (
        f"{found.monitors} monitors, {found.readings} results, {found.lost} lost, p50 {found.p50:.1f} ms, worst"
        f" {found.worst:.1f} ms, until read {found.heard_p99:.1f} ms; {sent[0] / SECONDS:.0f} objects of 512 KB a"
        f" second beside it; without images p99 {quiet.p99:.1f} ms"
    )
    return [figure("dicom-storm-bedside-p99", "ms", [found.p99], note=told)]


@contextmanager
def _storing(files: list[Path], port: int, sent: list[int]) -> Iterator[None]:
    """Store over and over until the block ends; `sent` counts the objects."""
    wait_for_port(port)
    over = threading.Event()
    command = ("storescu", "+II", "-pdu", str(PDU), "-aec", "GATEWAY", "127.0.0.1", str(port), *map(str, files))

    def work() -> None:
        while not over.is_set():
            sender = subprocess.Popen(command, env={**os.environ, **NODELAY}, stdout=subprocess.DEVNULL)
            while sender.poll() is None and not over.wait(0.01):
                pass
            if sender.poll() is None:
                stop(sender)
                return
            assert sender.returncode == 0, "a sender failed"
            sent[0] += len(files)

    workers = [threading.Thread(target=work) for _ in range(ASSOCIATIONS)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        over.set()
        for worker in workers:
            worker.join()


MEASURES = {"dicom-storm-bedside-p99": storm}
