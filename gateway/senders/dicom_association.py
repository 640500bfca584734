"""One association as requestor, for a batch of C-STOREs or a C-ECHO; everything here blocks.

The library starts a reactor thread beside every association it requests, and that thread sometimes takes the response
that the caller waits for (it then logs an unexpected message and the caller times out). Here that thread is never
started: the caller's own thread sends and receives, so there is nobody to take anything. What the library would queue
without limit (a whole file where the peer is slow) is held back until the writer has sent it.
"""

import queue
import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydicom.uid import UID
from pynetdicom._globals import MODE_REQUESTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from gateway.clock import Clock
from gateway.config import DicomDestination
from gateway.errors import LinkError, TemporaryError
from gateway.formats.dicom import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION
from gateway.net.upper_layer import PDU_SLACK, GuardedSocket, configure_library, harden

PDU_MAX = 128 << 10  # sent and received
PDU_MIN = 128  # a peer that asks for less gets this much
QUEUED_MAX = 8  # PDUs waiting to be written
STALL_S = 30.0  # a peer's time to take one PDU, or to send the rest of one
ABORT_S = 2.0
POLL_S = 0.002

_REJECTED_TRANSIENT = 2


@dataclass(frozen=True, slots=True)
class Syntax:
    """What a presentation context is asked for: SOP Class and transfer syntax."""

    sop_class_uid: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status and Error Comment (the peer's words: for the record, never for a log)."""

    status: int
    comment: str = ""


class RequestedAssociation:
    """An association that stands, from `open` to `release` or `abort`. One thread at a time, except for `cut`."""

    def __init__(self, settings: DicomDestination, clock: Clock, tls: ssl.SSLContext | None) -> None:
        configure_library()
        self._settings = settings
        self._clock = clock
        self._tls = tls
        self._assoc: Association | None = None
        self._socket: GuardedSocket | None = None
        self._contexts: dict[Syntax, int] = {}
        self._message_id = 0
        self._idle = threading.Event()  # never set: a wait that ends by itself

    @property
    def _peer(self) -> str:
        return f"{self._settings.ae_title} at {self._settings.host}:{self._settings.port}"

    def open(self, syntaxes: Iterable[Syntax]) -> None:
        """Connect and associate, asking for each syntax in a context of its own, at most 128.

        Raises TemporaryError when the peer rejects for now, LinkError for anything else.
        """
        try:
            assoc = self._assoc = self._build(list(syntaxes))
        except OSError as error:
            raise LinkError(f"{self._settings.host}: {error.strerror or error}") from error
        try:
            assoc.request()
        except OSError as error:
            raise LinkError(f"{self._peer}: {error.strerror or error}") from error
        assoc._is_paused = True  # there is no reactor to wait for
        if not assoc.is_established:
            self._fail(assoc)
        for context in assoc.accepted_contexts:
            syntax = Syntax(str(context.abstract_syntax), str(context.transfer_syntax[0]))
            if context.context_id is not None:
                self._contexts.setdefault(syntax, context.context_id)

    def accepts(self, syntax: Syntax) -> bool:
        """Tell whether the peer accepted a syntax."""
        return syntax in self._contexts

    def store(self, path: Path, dataset_offset: int, syntax: Syntax, sop_instance_uid: str) -> Answer:
        """Send one data set, byte for byte as it lies in the file.

        One of odd length gets the NUL behind it that a Deflated one must have (PS3.5, A.5). Raises LinkError, after
        which all is over; PeerAbortError is the kind where the peer ended it by A-ABORT.
        """
        request = C_STORE()
        request.MessageID = self._next_message_id()
        request.Priority = 2
        request.AffectedSOPClassUID = UID(syntax.sop_class_uid)
        request.AffectedSOPInstanceUID = UID(sop_instance_uid)
        request._dataset_path = (path, dataset_offset)
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        return self._ask(message, self._contexts[syntax])

    def echo(self, syntax: Syntax) -> Answer:
        """Say C-ECHO. Raises LinkError."""
        request = C_ECHO()
        request.MessageID = self._next_message_id()
        request.AffectedSOPClassUID = UID(syntax.sop_class_uid)
        message = C_ECHO_RQ()
        message.primitive_to_message(request)
        return self._ask(message, self._contexts[syntax])

    def release(self) -> None:
        """Release, so that the peer knows all has come; never raises for a peer that has gone."""
        if self._assoc is not None and self._assoc.is_established:
            self._assoc.release()
        self.abort()

    def abort(self) -> None:
        """Abort if it still stands, and see its thread end."""
        assoc = self._assoc
        if assoc is None:
            return
        if assoc.is_established:
            assoc.abort(block=False)
            assoc.dul.join(ABORT_S)
        self.cut()
        if assoc.dul.is_alive():
            assoc.dul.kill_dul()
            assoc.dul.join(ABORT_S)

    def cut(self) -> None:
        """End the connection at once, from any thread."""
        if self._socket is not None:
            self._socket.cut()

    def _build(self, syntaxes: list[Syntax]) -> Association:
        settings = self._settings
        ae = ApplicationEntity(settings.calling_ae_title)
        ae.acse_timeout = settings.connect_timeout_s
        ae.connection_timeout = settings.connect_timeout_s
        ae.dimse_timeout = settings.response_timeout_s
        assoc = Association(ae, MODE_REQUESTOR)
        remote = AddressInformation.from_addr_port(settings.host, settings.port)
        local = AddressInformation.from_tuple(("", 0) if remote.is_ipv4 else ("::", 0))
        sock = self._socket = GuardedSocket(assoc, self._clock, stall_s=STALL_S, address=local)
        sock.pdu_max = PDU_MAX + PDU_SLACK
        if self._tls is not None:
            sock.tls_args = (self._tls, (settings.tls and settings.tls.server_name) or settings.host)
        assoc.set_socket(sock)
        harden(assoc)
        assoc.acceptor.ae_title = settings.ae_title
        assoc.acceptor.address_info = remote
        assoc.requestor.address_info = local
        assoc.requestor.ae_title = settings.calling_ae_title
        assoc.requestor.maximum_length = PDU_MAX
        assoc.requestor.implementation_class_uid = UID(IMPLEMENTATION_UID)
        assoc.requestor.implementation_version_name = IMPLEMENTATION_VERSION.decode()
        assoc.requestor.requested_contexts = [_context(number, syntax) for number, syntax in enumerate(syntaxes)]
        return assoc

    def _fail(self, assoc: Association) -> None:
        """Say why there is no association."""
        answer = assoc.acceptor.primitive
        fault = self._socket.fault if self._socket else None
        self.abort()
        if assoc.is_rejected and answer is not None:
            words = f"{self._peer} rejected the association: {answer.reason_str}"
            raise TemporaryError(words) if answer.result == _REJECTED_TRANSIENT else LinkError(words)
        if answer is not None and answer.result == 0:
            raise NoContextError(f"{self._peer} accepted none of the presentation contexts")
        raise LinkError(f"{self._peer}: {fault or 'no association: aborted, or no answer in time'}")

    def _ask(self, message: DIMSEMessage, context_id: int) -> Answer:
        assoc = self._assoc
        assert assoc is not None
        asked = self._message_id
        pdu_max = assoc.acceptor.maximum_length or PDU_MAX  # 0 means no limit (PS3.8, D.1.1)
        try:
            for fragment in message.encode_msg(context_id, min(max(pdu_max, PDU_MIN), PDU_MAX) & ~1):
                self._wait_for_room(assoc)
                assoc.dul.send_pdu(_even(fragment))
            self._wait_for_room(assoc, 0)
            _, response = assoc.dimse.msg_queue.get(timeout=self._settings.response_timeout_s)
        except queue.Empty:
            self.abort()
            raise LinkError(f"{self._peer}: no response within {self._settings.response_timeout_s:g} s") from None
        except OSError:
            self.abort()
            raise
        if response is None or response.MessageIDBeingRespondedTo != asked or response.Status is None:
            self._give_up(assoc, "association ended, or a response to something else")
        return Answer(int(response.Status), str(getattr(response, "ErrorComment", None) or ""))

    def _wait_for_room(self, assoc: Association, queued_max: int = QUEUED_MAX) -> None:
        """Wait until the writer has caught up; its writes have a time limit, so this ends."""
        while assoc.dul.to_provider_queue.qsize() > queued_max:
            if not assoc.dul.is_alive() or assoc.acse.is_aborted():
                self._give_up(assoc, "association ended while sending")
            self._idle.wait(POLL_S)

    def _give_up(self, assoc: Association, words: str) -> NoReturn:
        """End it, and tell an abort by the peer from a connection that broke."""
        aborted = assoc.acse.is_aborted("a-abort")
        fault = self._socket.fault if self._socket else None
        self.abort()
        if aborted:
            raise PeerAbortError(f"{self._peer} aborted the association")
        raise LinkError(f"{self._peer}: {fault or words}")

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id


class NoContextError(LinkError):
    """The peer took the association and none of its contexts: the content is refused, the link is sound."""


class PeerAbortError(LinkError):
    """The peer aborted on purpose: it may be the content that it could not take."""


def _even(fragment: P_DATA) -> P_DATA:
    """Pad a fragment to even length: peers abort otherwise. Only a data set's last one can be odd (its head is one)."""
    ((context_id, data),) = fragment.presentation_data_value_list
    if len(data) % 2 == 0:
        fragment.presentation_data_value_list[0] = (context_id, data + b"\0")
    return fragment


def _context(number: int, syntax: Syntax) -> PresentationContext:
    context = PresentationContext()
    context.context_id = 2 * number + 1
    context.abstract_syntax = UID(syntax.sop_class_uid)
    context.transfer_syntax = [UID(syntax.transfer_syntax)]
    return context
