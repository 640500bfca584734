"""Whom an association is requested from, what is asked on it and what comes back: the values of `requestor.py`."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import LinkError
from gateway.protocols.dimse import Command
from gateway.protocols.pdu import BytesSink, Sink
from gateway.protocols.upper_layer import STALL_S, Context


class NoContextError(LinkError):
    """The peer took the association and none of its contexts: the content is refused, the link is sound."""


class PeerAbortError(LinkError):
    """The peer aborted on purpose: it may be the content that it could not take."""


class NoAnswerError(LinkError):
    """The peer did not answer an operation in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Whom to call, and how long to wait; `server_name` is what its certificate must say, by default the host.

    `pace` is told of each piece of a file that was sent, in bytes, and says how many seconds to wait; any thread.
    """

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    connect_timeout_s: float = 10.0
    response_timeout_s: float = 60.0
    stall_s: float = STALL_S
    pace: Callable[[int], float] | None = None

    @property
    def words(self) -> str:
        """Return whom we mean, for messages."""
        return f"{self.ae_title} at {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One presentation context to ask for: the peer picks one of the transfer syntaxes."""

    sop_class_uid: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A file whose data set, `size` bytes from `dataset_offset` on, goes out as it lies."""

    path: Path
    dataset_offset: int
    size: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response: status, Error Comment (the peer's words: for the record, never for a log), the whole command, and
    the data set in `transfer_syntax`."""

    status: int
    comment: str = ""
    command: Command
    data: bytes = b""
    transfer_syntax: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request of the peer on our association; `sink` holds its data set, None where it has none."""

    command: Command
    context: Context
    sink: Sink | None

    @property
    def data(self) -> bytes:
        """Return the data set where it was collected in memory."""
        return self.sink.data if isinstance(self.sink, BytesSink) else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Our answer to what the peer asked."""

    status: int
    comment: str = ""
    data: bytes = b""
