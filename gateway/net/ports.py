"""Names of serial ports: what a link resolves to, which stable name a device has, and who holds it (Linux)."""

import os
from collections.abc import Iterator
from pathlib import Path

BY_ID = Path("/dev/serial/by-id")  # links that udev names after maker, product and serial number of an adapter
PROC = Path("/proc")
PROCESSES_MAX = 20_000


def device_of(port: str) -> str:
    """Return the device behind a port's name: `/dev/serial/by-id/usb-...` is `/dev/ttyUSB0`."""
    return os.path.realpath(port)


def stable_name(port: str, folder: Path = BY_ID) -> str:
    """Return the name of a port that stays the same when it is plugged elsewhere; the name itself where it has none."""
    if Path(port).parent == folder or not folder.is_dir():
        return port
    device = device_of(port)
    named = (str(link) for link in sorted(folder.iterdir()) if device_of(str(link)) == device)
    return next(named, port)


def holder_of(port: str, proc: Path = PROC) -> str | None:
    """Tell which process has a port open: `process 1234 (minicom)`; None where it cannot be seen.

    Another user's processes are seen by root alone. Blocks while it looks through /proc.
    """
    device, ours = device_of(port), os.getpid()
    for number in _processes(proc):
        if number != ours and _has_open(proc / str(number), device):
            return f"process {number} ({_name(proc / str(number))})"
    return None


def _processes(proc: Path) -> Iterator[int]:
    numbers = (int(entry) for entry in os.listdir(proc) if entry.isdecimal())  # noqa: PTH208 - a thousand names
    for count, number in enumerate(numbers):
        if count >= PROCESSES_MAX:
            return
        yield number


def _has_open(process: Path, device: str) -> bool:
    try:
        with os.scandir(process / "fd") as entries:
            return any(_link(entry.path) == device for entry in entries)
    except OSError:  # it has ended, or is not ours to see
        return False


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text("utf-8", "replace").strip() or "?"
    except OSError:
        return "?"
