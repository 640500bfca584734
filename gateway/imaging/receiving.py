"""The data path of C-STORE: fragments go to a file of the Spool as they come, undecoded.

This is the seam that a faster data path replaces. Unlike the library's own chunked mode, a full disk is answered with
0xA700 instead of a broken association (what still comes is drained), files of associations that end midway are
removed, and nothing process-wide (the folder for temporary files) is touched. A command or a data set that is not for
storage has a small limit.
"""

import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA

from gateway.errors import StoreError
from gateway.formats.dicom import clean_uid, part10_prefix
from gateway.imaging.storage import Intake
from gateway.spool import Spool

COMMAND_BYTES_MAX = 64 << 10
IDENTIFIER_BYTES_MAX = 64 << 10
WAITING_MAX = 4  # complete objects not yet answered; the window is one (PS3.7, D.3.3.3)

_INVALID_PDU = "Evt19"  # the state machine's word for: abort


class ObjectFile(BytesIO):
    """Where the data set of one message goes; looks like the library's buffer, is a file in `incoming/`.

    `refused` says why the object is not being kept: its bytes are then counted and forgotten. The library writes
    from one thread; `path` is read by the handler afterwards.
    """

    def __init__(self, begin: Callable[[], tuple[BinaryIO, bytes]], refusing: Callable[[], str | None]) -> None:
        super().__init__()
        self._begin = begin
        self._refusing = refusing
        self._file: BinaryIO | None = None
        self._started = False
        self.path: Path | None = None
        self.dataset_offset = 0
        self.refused: str | None = None

    def write(self, data: Any, /) -> int:
        """Take a fragment; never raises."""
        if not self._started:
            self._start()
        if self._file is not None:
            try:
                self._file.write(data)
            except OSError as error:
                self._refuse(f"writing to incoming: {error.strerror}")
        return len(data)

    @property
    def started(self) -> bool:
        """Tell whether a data set came at all."""
        return self._started

    def finish(self) -> None:
        """Close the file; what is then in `path` is whole. Never raises: a failure is in `refused`."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._refuse(f"writing to incoming: {error.strerror}")
            self._file = None

    def discard(self) -> None:
        """Close and remove the file, if it is still there; never raises."""
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError:
            self.refused = self.refused or "not written"
        if self.path is not None:
            _unlink(self.path)

    def _start(self) -> None:
        self._started = True
        self.refused = self._refusing()
        if self.refused is not None:
            return
        try:
            self._file, prefix = self._begin()
            self.path = Path(self._file.name)
            self.dataset_offset = self._file.write(prefix)
        except StoreError as error:
            self._refuse(str(error))
        except OSError as error:
            self._refuse(f"writing to incoming: {error.strerror}")

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.discard()


class ReceivingDimse(DIMSEServiceProvider):
    """The library's DIMSE provider for one association, with our data path.

    Runs in the association's reader thread. `drop` removes the files of all objects that nobody will answer any more.
    """

    def __init__(self, assoc: Association, spool: Spool, intake: Intake) -> None:
        super().__init__(assoc)
        self._spool = spool
        self._intake = intake
        self._lock = threading.Lock()
        self._open: set[ObjectFile] = set()

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take fragments; a message that breaks the rules aborts the association."""
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.data_set = self._object_file(self.message)
        message = self.message
        try:
            super().receive_primitive(primitive)
        except Exception:  # noqa: BLE001  # border: the library meets a peer's bytes and raises what it likes
            self.dul.event_queue.put(_INVALID_PDU)
            return
        if self._is_too_much(message):
            self.dul.event_queue.put(_INVALID_PDU)

    def take(self, data_set: object) -> ObjectFile | None:
        """Hand an object over to the service that answers it; None when the command came without a data set."""
        if not isinstance(data_set, ObjectFile):
            return None
        with self._lock:
            self._open.discard(data_set)
        data_set.finish()
        return data_set if data_set.started else None

    def drop(self) -> None:
        """Remove what was received and not handed over."""
        with self._lock:
            left, self._open = self._open, set()
        for file in left:
            file.discard()

    def _object_file(self, message: DIMSEMessage) -> BytesIO:
        def begin() -> tuple[BinaryIO, bytes]:
            prefix = self._prefix(message)  # first: it may raise
            with self._lock:
                self._open.add(file)
            return self._spool.new_incoming(), prefix

        file = _DataSet(message, begin, self._intake)
        return file

    def _prefix(self, message: DIMSEMessage) -> bytes:
        command = message.command_set
        context = self.assoc._accepted_cx[message.context_id or 0]
        return part10_prefix(
            sop_class_uid=clean_uid(str(command.get("AffectedSOPClassUID", ""))),
            sop_instance_uid=clean_uid(str(command.get("AffectedSOPInstanceUID", ""))),
            transfer_syntax=context.transfer_syntax[0],
            source_ae=self.assoc.requestor.ae_title,
        )

    def _is_too_much(self, message: DIMSEMessage) -> bool:
        if message.encoded_command_set.tell() > COMMAND_BYTES_MAX or self.msg_queue.qsize() > WAITING_MAX:
            return True
        data_set = message.data_set
        return isinstance(data_set, _DataSet) and data_set.getbuffer().nbytes > IDENTIFIER_BYTES_MAX


class _DataSet(ObjectFile):
    """An ObjectFile for C-STORE, a plain buffer for anything else; which of them, the command says first."""

    def __init__(self, message: DIMSEMessage, begin: Callable[[], tuple[BinaryIO, bytes]], intake: Intake) -> None:
        super().__init__(begin, lambda: intake.refusing)
        self._message = message

    def write(self, data: Any, /) -> int:
        if isinstance(self._message, C_STORE_RQ):
            return super().write(data)
        return BytesIO.write(self, data)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # `incoming/` is emptied at the next start
