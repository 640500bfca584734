"""What a DIMSE service is: a function of one request and of the exchange in which it is answered.

The association layer reads and writes PDUs, knows contexts and takes cancels; a service knows what a request means. It
sees the data set as bytes in the negotiated transfer syntax, and answers the same way. C-STORE has a data path of its
own (`storage.py`), because its data set never is in memory.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WARNING = 0xFF01  # some optional keys were not matched
CANCELLED = 0xFE00
REFUSED_OUT_OF_RESOURCES = 0xA700
IDENTIFIER_MISMATCH = 0xA900
UNABLE_TO_PROCESS = 0xC000
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
NO_SUCH_INSTANCE = 0x0112
INVALID_ATTRIBUTE_VALUE = 0x0106
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: the AE titles of the association without padding, the peer's host, and our Source's name."""

    calling_ae_title: str
    called_ae_title: str
    host: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One DIMSE request that is not C-STORE or C-ECHO; UIDs and AE titles are cleaned of padding, else as they came.

    `field` is the command field (0000,0100), `data` the whole data set in `transfer_syntax`, b"" where there is none.
    `sop_class_uid` and `sop_instance_uid` are the Affected or Requested ones, whichever the command carries.
    `sop_class_extended` is the extended negotiation accepted for this SOP Class (relational queries and the like).
    """

    caller: Caller
    field: int
    message_id: int
    sop_class_uid: str
    transfer_syntax: str
    received_at: datetime
    data: bytes = b""
    sop_instance_uid: str = ""
    action_type: int | None = None
    event_type: int | None = None
    move_destination: str = ""
    sop_class_extended: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suboperations:
    """Counts of C-GET and C-MOVE responses (PS3.7, 9.3.3.2, 9.3.4.2); `remaining` is left out of final ones."""

    remaining: int | None = None
    completed: int = 0
    failed: int = 0
    warning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The final response. `comment` is the Error Comment: at most 64 characters go out, none of them patient data.

    `data` is the response's data set (failed UIDs of a C-MOVE, the attributes of an N-CREATE). `offending` are the
    tags that the status is about (0000,0901), `error_id` its detail (0000,0903). `sop_instance_uid` is sent where the
    request left it open (N-CREATE).
    """

    status: int
    comment: str = ""
    data: bytes = b""
    sop_instance_uid: str | None = None
    offending: tuple[int, ...] = ()
    error_id: int | None = None
    suboperations: Suboperations | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One Instance as it lies in the Spool: a Part 10 file whose data set begins at `dataset_offset`."""

    path: Path
    dataset_offset: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str


class Exchange(Protocol):
    """The association in which one request is being answered."""

    @property
    def cancelled(self) -> bool:
        """Return whether the peer sent C-CANCEL for this request, or has gone."""
        ...

    async def pending(
        self, data: bytes = b"", *, status: int = PENDING, suboperations: Suboperations | None = None
    ) -> None:
        """Send one pending response; waits while the peer does not read. Raises LinkError when the peer has gone."""
        ...

    def takes(self, sop_class_uid: str) -> tuple[str, ...]:
        """Return the transfer syntaxes in which the peer, as SCP by role selection, takes a SOP Class (C-GET)."""
        ...

    async def store(self, held: Held) -> int:
        """Send a C-STORE on this association (C-GET) and return its status. Raises LinkError."""
        ...


Service = Callable[[Request, Exchange], Awaitable[Outcome]]
"""Answers one request. Never raises for content; a StoreError that it raises is answered with 0xA700, and anything
else with 0x0110."""


class OpenAssociation(Protocol):
    """An association that a peer opened and that still stands: where a commitment report may go."""

    caller: Caller

    @property
    def stands(self) -> bool:
        """Return whether it is still established."""
        ...

    async def report(self, sop_class_uid: str, sop_instance_uid: str, event_type: int, data: bytes) -> int:
        """Send N-EVENT-REPORT (data set in Implicit VR Little Endian or as negotiated) and return its status.

        Raises LinkError when the association ends first, or has no context for the SOP Class.
        """
        ...
