"""The journal every simulator writes: JSON lines, appended, one line per item, the same shape everywhere.

A line has at least `ordinal` (1, 2, 3, ... in this process), `id` (MSH-10, SOP Instance UID, MQTT id), `sha256`
(of the body as it stood on the wire), `at` (seconds since 1970) and `monotonic_s`. `flush` hands the lines to the
operating system, so they outlive a killed process; they are not synced against a power cut.
"""

import json
import os
import threading
import time
from pathlib import Path

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Journal:
    """Appends entries to a file; without a path it costs nothing. Safe to use from several threads."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._descriptor = None if path is None else _open(path)

    @property
    def kept(self) -> bool:
        """Return whether anybody reads what is noted, so that hashing is worth its time."""
        return self._descriptor is not None

    def note(self, *, ordinal: int, id: str, sha256: str, **more: object) -> None:
        """Add an entry; it is in the file after the next `flush`."""
        if self._descriptor is None:
            return
        entry = {"ordinal": ordinal, "id": id, "sha256": sha256, **more}
        entry["at"], entry["monotonic_s"] = time.time(), time.monotonic()
        line = _encode(entry) + "\n"
        with self._lock:
            self._lines.append(line)

    def flush(self) -> None:
        """Write what was noted with one call to the operating system."""
        if self._descriptor is None or not self._lines:
            return
        with self._lock:
            waiting, self._lines = memoryview("".join(self._lines).encode()), []
            while waiting:
                waiting = waiting[os.write(self._descriptor, waiting) :]

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_journal(path: Path) -> list[dict[str, object]]:
    """Return the complete entries of a journal, also of one that is being written."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if line]


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    length = os.fstat(descriptor).st_size
    if length and os.pread(descriptor, 1, length - 1) != b"\n":
        os.write(descriptor, b"\n")  # a line torn by a crash must not swallow the next
    return descriptor
