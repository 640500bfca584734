"""A stored data set on its way out: the file as it lies, cut into P-DATA fragments, in buffers ready for the socket.

The buffers hold PDU heads and pieces of one chunk of memory in turn, so that nothing is copied but from the file into
that chunk, and memory does not grow with the object. One of odd length gets the NUL behind it that it must have
(PS3.5, 7.1.1, A.5).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import LinkError
from gateway.protocols.pdu import LAST, p_data_head

CHUNK_BYTES = 640 << 10  # of a file, in memory at a time: a CT image whole
PARTS_MAX = 512  # buffers in one call; Linux takes 1024

_HEAD_BYTES = len(p_data_head(0, 0, 0))


@dataclass(frozen=True, slots=True)
class FileOut:
    """A data set to send: `size` bytes of a file from `offset` on, in fragments of so many bytes."""

    path: Path
    offset: int
    size: int
    context_id: int
    fragment: int

    @property
    def sent_bytes(self) -> int:
        """Return how long it is on the wire, heads and pad byte included."""
        padded = self.size + self.size % 2
        return padded + _HEAD_BYTES * max(1, -(-padded // self.fragment))


class BegunFile:
    """A file that is open, its first buffers read. Blocks.

    `first`, and then each of `more`, is a list of buffers that is to be sent before the next one is asked for;
    `complete` tells that there is nothing behind `first`.
    """

    def __init__(self, file: FileOut, chunk: bytearray) -> None:
        """Open and read; `chunk` has CHUNK_BYTES and one. Raises OSError where that fails, LinkError as `more`."""
        self._number = _open_at(file.path, file.offset)
        try:
            self.more = _buffers(self._number, file, chunk)
            self.first = next(self.more)
            self.complete = sum(map(len, self.first)) == file.sent_bytes
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._number)


def room_for_file() -> bytearray:
    """Return memory for the chunks of one file at a time."""
    return bytearray(CHUNK_BYTES + 1)


def views(parts: list[bytes]) -> list[memoryview]:
    """Return buffers for bytes."""
    return [memoryview(part) for part in parts]


def behind(parts: list[memoryview], sent: int) -> list[memoryview]:
    """Return what is left of buffers behind `sent` bytes."""
    for index, part in enumerate(parts):
        if sent < len(part):
            return [part[sent:], *parts[index + 1 :]]
        sent -= len(part)
    return []


def _buffers(number: int, file: FileOut, chunk: bytearray) -> Iterator[list[memoryview]]:
    """Yield lists of buffers, at least one. Raises LinkError when the file cannot be read to its end."""
    view = memoryview(chunk)
    parts: list[memoryview] = []
    size = file.size
    padded = size + size % 2
    in_pdu = 0  # bytes still to come in the PDU that has begun
    done = 0
    if size == 0:
        yield [memoryview(p_data_head(file.context_id, LAST, 0))]
    while done < padded:
        count = _read(number, view[: min(CHUNK_BYTES, size - done)])
        if done + count == size and size % 2:
            view[count] = 0
            count += 1
        at = 0
        while at < count:
            if in_pdu == 0:
                in_pdu = min(file.fragment, padded - done)
                last = LAST if done + in_pdu == padded else 0
                parts.append(memoryview(p_data_head(file.context_id, last, in_pdu)))
            part = min(in_pdu, count - at)
            parts.append(view[at : at + part])
            at, done, in_pdu = at + part, done + part, in_pdu - part
            if len(parts) >= PARTS_MAX:
                yield parts
                parts = []
        if parts:
            yield parts
            parts = []


def _open_at(path: Path, offset: int) -> int:
    number = os.open(path, os.O_RDONLY)
    try:
        os.lseek(number, offset, os.SEEK_SET)
    except OSError:
        os.close(number)
        raise
    return number


def _read(number: int, into: memoryview) -> int:
    """Read something. Raises LinkError, because a message may be half sent by now."""
    try:
        count = os.readv(number, [into])
    except OSError as error:
        raise LinkError(f"reading the file: {error.strerror or error}") from error
    if count == 0:
        raise LinkError(f"the file ends {len(into)} bytes early, or more")
    return count
