"""The data path of C-STORE: fragments go from the socket into blocks of memory, and blocks into the file.

    socket --received--> block --full--> written past the page cache by the association's second thread
                                   `---> hashed by the association's first one, while that runs

Nothing is decoded on the way. A full disk is answered with 0xA700 instead of a broken association: what still comes is
drained. Memory is a ring of blocks for each association that stores, whatever the size of an object.
"""

import hashlib
import io
import mmap
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from gateway.errors import ContentError, StoreError
from gateway.formats.dicom import Header, read_header
from gateway.spool import Draft, Spool

BLOCK_BYTES = 128 << 10
BLOCKS = 4
DISK_TIMEOUT_S = 60.0  # for one block to be written


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One object that came whole: its file and what was learned of it while it came.

    `digest` is the SHA-256 of the data set, which begins at `dataset_offset`. `synced` ends when the file is on the
    disk; it raises OSError when that failed.
    """

    draft: Draft
    dataset_offset: int
    size: int
    digest: bytes
    synced: Future[None]
    header: Header | None
    fault: str | None


class Ring:
    """The blocks of one association, and the thread that writes them."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, BLOCKS * BLOCK_BYTES)  # begins on a page, as direct writes need
        whole = memoryview(self._memory)
        self.blocks = [whole[start : start + BLOCK_BYTES] for start in range(0, len(whole), BLOCK_BYTES)]
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="dicom-file")

    def close(self) -> None:
        """End the thread."""
        self.executor.shutdown(wait=True, cancel_futures=True)


class ObjectSink:
    """Where the data set of one C-STORE goes; `refused` says why the object is not being kept."""

    def __init__(self, ring: Ring, spool: Spool, prefix: bytes, keywords: Iterable[str], refused: str | None) -> None:
        self._ring = ring
        self._spool = spool
        self._keywords = keywords
        self._hash = hashlib.sha256()
        self._index = 0
        self._fill = len(prefix)
        self._unhashed = len(prefix)  # where the data set begins in this block
        self._size = 0
        self._writing: deque[Future[None]] = deque()
        self._draft: Draft | None = None
        self._header: Future[Header | None] | None = None
        self.dataset_offset = len(prefix)
        self.refused = refused
        if refused is None:
            try:
                self._draft = spool.begin()
            except StoreError as error:
                self.refused = str(error)
        ring.blocks[0][: len(prefix)] = prefix

    def buffer(self, size: int) -> memoryview:
        """Return room in the block."""
        return self._ring.blocks[self._index][self._fill : self._fill + size]

    def wrote(self, count: int) -> None:
        """Take notice of payload; a full block goes to the disk. Never raises: what fails is in `refused`."""
        self._fill += count
        if self._fill == BLOCK_BYTES:
            self._turn()

    def finish(self) -> Received | None:
        """Take what came as whole; its sync begins. None when it is refused."""
        last = self._ring.blocks[self._index][: self._fill]
        draft = self._draft
        if draft is None or self.refused is not None:
            self.discard()
            return None
        synced = self._ring.executor.submit(_write_and_sync, draft, last, tuple(self._writing))
        self._hash.update(last[self._unhashed :])
        header, fault = self._read_header(last, synced)
        return Received(
            draft=draft,
            dataset_offset=self.dataset_offset,
            size=self._size + self._fill,
            digest=self._hash.digest(),
            synced=synced,
            header=header,
            fault=fault,
        )

    def discard(self) -> None:
        """Remove what came; never raises."""
        draft, self._draft = self._draft, None
        if draft is not None:
            while self._writing:
                self._writing.popleft().exception(DISK_TIMEOUT_S)
            self._spool.discard(draft)

    def _turn(self) -> None:
        """Hand a full block on and go to the next, once that one has been written."""
        block = self._ring.blocks[self._index]
        if self._draft is not None:
            self._writing.append(self._ring.executor.submit(self._draft.write, block))
            if self._size == 0:
                self._header = self._ring.executor.submit(self._early_header, block)
            self._hash.update(block[self._unhashed :])
            if len(self._writing) == BLOCKS:
                self._check(self._writing.popleft())
        self._size += BLOCK_BYTES
        self._index = (self._index + 1) % BLOCKS
        self._fill = self._unhashed = 0

    def _check(self, written: Future[None]) -> None:
        try:
            written.result(DISK_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            self.refused = f"writing: {getattr(error, 'strerror', None) or 'the disk does not answer'}"
            self.discard()

    def _early_header(self, block: memoryview) -> Header | None:
        """Read the header while the rest still comes; None when the first block does not hold all of it."""
        head = io.BytesIO(block)
        try:
            header = read_header(head, self._keywords)
        except ContentError:
            return None
        return header if head.tell() < BLOCK_BYTES else None

    def _read_header(self, last: memoryview, synced: Future[None]) -> tuple[Header | None, str | None]:
        if self._header is not None and (header := self._header.result(DISK_TIMEOUT_S)) is not None:
            return header, None
        assert self._draft is not None
        try:
            if self._size == 0:
                return read_header(io.BytesIO(last), self._keywords), None
            synced.result(DISK_TIMEOUT_S)
            return read_header(self._draft.path, self._keywords), None
        except ContentError as error:
            return None, f"data set unreadable: {error}"
        except (OSError, TimeoutError) as error:  # the disk's fault, not the content's: the sync will say so
            return None, f"data set not read: {getattr(error, 'strerror', None)}"


def _write_and_sync(draft: Draft, last: memoryview, before: tuple[Future[None], ...]) -> None:
    for written in before:
        written.result(0)  # the thread is one, so they have ended
    draft.write(last)
    draft.sync()
