"""A recording as a Stream: `replay:FILE`.

A recording with times is text: the line `# gateway recording 1`, then lines `<seconds since the start> <hex bytes>` of
what the Device said, and `<seconds> > <hex bytes>` of what was said to it, which is passed over; `<` may stand for the
Device. A line that begins with `#` is a remark. Each line is one read: one datagram where it was UDP. Any other file is
bytes as they came, given as fast as they are taken. After its end a recording stays quiet.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from gateway.errors import LinkError
from gateway.tap import Direction

HEADER = b"# gateway recording 1"
CHUNK_BYTES = 4096
LINE_BYTES_MAX = 1024 * 1024


async def open_replay(path: Path) -> "ReplayStream":
    """Open a recording. Raises LinkError."""
    file, timed = await asyncio.to_thread(_open, path)
    return ReplayStream(path, file, timed)


def read_recording(path: Path) -> Iterator[tuple[float, bytes]]:
    """Yield the pieces of a recording, each with its seconds since the start, without waiting. Raises LinkError."""
    file, timed = _open(path)
    with file:
        yield from _pieces(path, file, timed)


class ReplayStream:
    """A recording that is being played."""

    def __init__(self, path: Path, file: BinaryIO, timed: bool) -> None:
        self.peer = f"replay:{path}"
        self._file = file
        self._pieces = _pieces(path, file, timed)
        self._started_at = asyncio.get_running_loop().time()
        self._next: tuple[float, bytes] | None = None

    async def read(self) -> bytes:
        """Return the next bytes when their time has come; waits for ever after the last. Raises LinkError."""
        if self._next is None:
            self._next = next(self._pieces, None)
        if self._next is None:
            await asyncio.get_running_loop().create_future()
            return b""
        due_s, data = self._next
        await asyncio.sleep(max(0.0, self._started_at + due_s - asyncio.get_running_loop().time()))
        self._next = None
        return data

    async def write(self, data: bytes) -> None:
        """Say nothing: nobody listens."""

    async def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(path: Path) -> tuple[BinaryIO, bool]:
    """Open a recording, and tell whether it has times."""
    try:
        file = path.open("rb")
        timed = file.readline(CHUNK_BYTES).rstrip() == HEADER
        if not timed:
            file.seek(0)
    except OSError as error:
        raise LinkError(f"{path}: {error.strerror}") from error
    return file, timed


def _pieces(path: Path, file: BinaryIO, timed: bool) -> Iterator[tuple[float, bytes]]:
    if not timed:
        while data := file.read(CHUNK_BYTES):
            yield 0.0, data
        return
    while line := file.readline(LINE_BYTES_MAX):
        if line.strip() and not line.startswith(b"#"):
            due_s, data = _read_timed(path, line)
            if data:
                yield due_s, data


def recorded(at_s: float, direction: Direction, data: bytes) -> str:
    """Return the line of a recording that holds some bytes, with its line end."""
    return f"{at_s:.6f} {direction.value} {data.hex()}\n"


def _read_timed(path: Path, line: bytes) -> tuple[float, bytes]:
    """Return when, and the Device's bytes; none where we spoke."""
    try:
        due_s, rest = line.decode("ascii").split(maxsplit=1)
        if rest.startswith(Direction.SAID.value):
            return float(due_s), b""
        return float(due_s), bytes.fromhex(rest.removeprefix(Direction.HEARD.value))
    except ValueError as error:
        raise LinkError(f"{path}: not a line of a recording") from error
