"""A recording as a Stream: `replay:FILE`.

A recording with times is text: the line `# gateway recording 1`, then lines `<seconds since the start> <hex bytes>`.
Any other file is bytes as they came, given as fast as they are taken. After its end a recording stays quiet.
"""

import asyncio
from pathlib import Path
from typing import BinaryIO

from gateway.errors import LinkError

HEADER = b"# gateway recording 1"
CHUNK_BYTES = 4096
LINE_BYTES_MAX = 1024 * 1024


async def open_replay(path: Path) -> "ReplayStream":
    """Open a recording. Raises LinkError."""
    try:
        file = await asyncio.to_thread(path.open, "rb")
        timed = (await asyncio.to_thread(file.readline, CHUNK_BYTES)).rstrip() == HEADER
        if not timed:
            file.seek(0)
    except OSError as error:
        raise LinkError(f"{path}: {error.strerror}") from error
    return ReplayStream(path, file, timed)


class ReplayStream:
    """A recording that is being played."""

    def __init__(self, path: Path, file: BinaryIO, timed: bool) -> None:
        self.peer = f"replay:{path}"
        self._file = file
        self._timed = timed
        self._started_at = asyncio.get_running_loop().time()
        self._next: tuple[float, bytes] | None = None

    async def read(self) -> bytes:
        """Return the next bytes when their time has come; waits for ever after the last. Raises LinkError."""
        if self._next is None:
            self._next = self._read_next()
        due_s, data = self._next
        if not data:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(max(0.0, self._started_at + due_s - asyncio.get_running_loop().time()))
        self._next = None
        return data

    async def write(self, data: bytes) -> None:
        """Say nothing: nobody listens."""

    async def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_next(self) -> tuple[float, bytes]:
        if not self._timed:
            return 0.0, self._file.read(CHUNK_BYTES)
        while line := self._file.readline(LINE_BYTES_MAX):
            if line.strip() and not line.startswith(b"#"):
                return self._read_timed(line)
        return 0.0, b""

    def _read_timed(self, line: bytes) -> tuple[float, bytes]:
        try:
            due_s, hexadecimal = line.decode("ascii").split(maxsplit=1)
            return float(due_s), bytes.fromhex(hexadecimal)
        except ValueError as error:
            raise LinkError(f"{self.peer}: not a line of a recording") from error
