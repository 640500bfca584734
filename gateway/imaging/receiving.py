"""The data path of C-STORE: fragments go from the socket into a block of memory, and the block into the file.

Nothing is decoded on the way. A block that is full is given to the disk and hashed while the rest still comes, so that
the sync at the end has little left to do. Everything happens in the association's thread: handing blocks to other
threads was measured and costs more than it saves. A full disk is answered with 0xA700 instead of a broken association:
what still comes is drained. Memory is a block for each association that stores, whatever the size of an object.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gateway.errors import ContentError, StoreError
from gateway.formats.dicom import Header, read_header
from gateway.spool import Draft, Spool, content_hash

BLOCK_BYTES = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One object that came whole: its file and what was learned of it while it came.

    `digest` is `content_hash` of the data set, which begins at `dataset_offset`. The file is written, not yet synced.
    """

    draft: Draft
    dataset_offset: int
    size: int
    digest: bytes
    header: Header | None
    fault: str | None


class ObjectSink:
    """Where the data set of one C-STORE goes; `refused` says why the object is not being kept.

    `block` is memory of BLOCK_BYTES, the same for all objects of an association.
    """

    def __init__(
        self, block: memoryview, spool: Spool, prefix: bytes, keywords: Iterable[str], refused: str | None
    ) -> None:
        self._block = block
        self._spool = spool
        self._keywords = keywords
        self._hash = content_hash()
        self._fill = len(prefix)
        self._unhashed = len(prefix)  # where the data set begins in this block
        self._size = 0
        self._draft: Draft | None = None
        self._header: Header | None = None
        self.dataset_offset = len(prefix)
        self.refused = refused
        if refused is None:
            try:
                self._draft = spool.begin()
            except StoreError as error:
                self.refused = str(error)
        block[: len(prefix)] = prefix

    def buffer(self, size: int) -> memoryview:
        """Return room in the block."""
        return self._block[self._fill : self._fill + size]

    def wrote(self, count: int) -> None:
        """Take notice of payload; a full block goes to the disk. Never raises: what fails is in `refused`."""
        self._fill += count
        if self._fill == BLOCK_BYTES:
            if self._size == 0:
                self._header = self._early_header()
            self._write(last=False)

    def finish(self) -> Received | None:
        """Take what came as whole. None when it is refused."""
        header, fault = self._header, None
        if self._draft is not None and self._size == 0:
            header, fault = self._read_header(io.BytesIO(self._block[: self._fill]))
        self._write(last=True)
        draft = self._draft
        if draft is None:
            return None
        if header is None and fault is None:
            header, fault = self._read_header(draft.path)
        self._draft = None
        return Received(
            draft=draft,
            dataset_offset=self.dataset_offset,
            size=self._size,
            digest=self._hash.digest(),
            header=header,
            fault=fault,
        )

    def discard(self) -> None:
        """Remove what came; never raises."""
        draft, self._draft = self._draft, None
        if draft is not None:
            self._spool.discard(draft)

    def _write(self, *, last: bool) -> None:
        """Write and hash what is in the block, and begin it anew."""
        part = self._block[: self._fill]
        if self._draft is not None:
            try:
                self._draft.write(part, last=last)
            except OSError as error:
                self.refused = f"writing: {error.strerror}"
                self.discard()
            else:
                self._hash.update(part[self._unhashed :])
        self._size += self._fill
        self._fill = self._unhashed = 0

    def _early_header(self) -> Header | None:
        """Read the header from the first block; None when that does not surely hold all of it."""
        head = io.BytesIO(self._block)
        try:
            header = read_header(head, self._keywords)
        except ContentError:
            return None
        return header if head.tell() < BLOCK_BYTES else None

    def _read_header(self, source: Path | BinaryIO) -> tuple[Header | None, str | None]:
        try:
            return read_header(source, self._keywords), None
        except ContentError as error:
            return None, f"data set unreadable: {error}"
        except OSError as error:  # the disk's fault, not the content's: the sync will say so
            return None, f"data set not read: {error.strerror}"
