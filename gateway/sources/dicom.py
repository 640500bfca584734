"""A DICOM Source: an AE for Verification and Storage (PS3.4, A and B).

pynetdicom negotiates and speaks DIMSE in threads of its own; what an Instance means and when it is safe is
`gateway.imaging.storage`. Who may associate is decided here, before anything of the request is trusted:

    A-ASSOCIATE-RQ --> called AE, calling AE and host, room --> accept
                       1/1/7      1/1/3               2/3/2, disk all but full 2/3/1      (result/source/reason)

Object data that fits on no disk is answered 0xA700, not cut off. Nothing of a peer's data is logged.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.pdu_primitives import A_ASSOCIATE

from gateway.clock import Clock
from gateway.config import DicomPeer
from gateway.config import DicomSource as DicomSettings
from gateway.errors import LinkError
from gateway.formats.dicom import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION, clean_uid
from gateway.imaging.negotiation import Negotiation, clean_request
from gateway.imaging.receiving import ReceivingDimse
from gateway.imaging.storage import CANNOT_UNDERSTAND, Arrival, Intake, Keeper, Status, refusal, store
from gateway.net.tls import server_context
from gateway.net.upper_layer import PDU_SLACK, GuardedSocket, configure_library
from gateway.sources.dicom_listener import FIRST_PDU_S, Listener, ServedAssociation
from gateway.spool import Spool
from gateway.status import LinkState, SourceStatus

STALL_S = 30.0  # a peer's time for the rest of a PDU
PDU_LIMIT_MIN = 1 << 20  # some senders disregard the size negotiated; this much of it does no harm

_PERMANENT, _TRANSIENT = 1, 2
_SERVICE_USER, _PRESENTATION = 1, 3
_CALLING_UNKNOWN, _CALLED_UNKNOWN = 3, 7
_LIMIT_EXCEEDED = 2

_log = logging.getLogger("gateway.sources")


class DicomSource:
    """Runs one DICOM Source.

    `keywords` are the DICOM keywords that Routes ask for. A low disk is `intake.refusing` and answered 0xA700, so
    that the Modality keeps its copy and tries again.
    """

    def __init__(
        self,
        settings: DicomSettings,
        intake: Intake,
        spool: Spool,
        clock: Clock,
        status: SourceStatus,
        *,
        keywords: Iterable[str] = (),
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._spool = spool
        self._clock = clock
        self._status = status
        self._keeper = Keeper(settings.name, spool, intake, clock, tuple(keywords))
        self._listener: Listener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        configure_library()

    @property
    def port(self) -> int:
        """Return the port listened on, which is another than configured where that is 0."""
        assert self._listener is not None, "not listening"
        return int(self._listener.server_address[1])

    async def run(self) -> None:
        """Listen until cancelled. Raises LinkError when it cannot, or when the listener ends by itself."""
        self._loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        listener = self._listener = self._open()
        listener.start(lambda: self._tell(ended.set))
        self._status.state = LinkState.UP
        _log.info("dicom.listening source=%s port=%d", self._settings.name, self.port)
        try:
            await ended.wait()
            raise LinkError("the DICOM listener ended by itself")
        finally:
            self._status.state = LinkState.DOWN
            await asyncio.shield(asyncio.to_thread(listener.stop))
            self._status.connections = 0

    def _open(self) -> Listener:
        listen = self._settings.listen
        ae = ApplicationEntity(self._settings.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION.decode()
        ae.maximum_pdu_size = self._settings.pdu_max
        ae.maximum_associations = 1 << 20  # the library counts negotiating ones; we count ours
        ae.acse_timeout = FIRST_PDU_S
        ae.dimse_timeout = STALL_S
        ae.network_timeout = self._settings.idle_timeout_s
        try:
            return Listener(
                ae,
                (listen.host, listen.port),
                [],
                clock=self._clock,
                tls=None if self._settings.tls is None else server_context(self._settings.tls),
                handlers=[(evt.EVT_REQUESTED, self._on_requested), (evt.EVT_C_STORE, self._on_store)],
                admits=self._admits,
                prepare=self._prepare,
            )
        except OSError as error:
            raise LinkError(f"{listen.host}:{listen.port}: {error.strerror or error}") from error

    def _prepare(self, assoc: ServedAssociation) -> None:
        assoc.dimse = ReceivingDimse(assoc, self._spool, self._intake)
        assoc.acse = Negotiation(assoc, self._settings.services)
        assoc.on_end = self._on_end

    def _admits(self, host: str) -> bool:
        allow = self._settings.allow
        if not allow or any(_plain(host) in network for network in allow):
            return True
        _log.warning("connection.refused source=%s host=%s reason=not-allowed", self._settings.name, host)
        self._tell(self._status.saw_error, f"connection from {host} not allowed", self._clock.now())
        return False

    def _on_requested(self, event: Any) -> None:
        """Decide on an association; in its thread, before the library answers."""
        assoc: ServedAssociation = event.assoc
        sock = assoc.dul.socket
        assert isinstance(sock, GuardedSocket) and self._listener is not None
        if sock.socket is not None:
            self._listener.lobby.leave(sock.socket)
        request = assoc.requestor.primitive
        assert request is not None
        clean_request(request)
        verdict = self._judge(request, assoc)
        if verdict is None:
            sock.pdu_max = max(self._settings.pdu_max + PDU_SLACK, PDU_LIMIT_MIN)
            sock.stall_s = STALL_S
            self._tell(self._count)
            return
        result, source, reason, words = verdict
        host = assoc.requestor.address
        _log.warning("association.rejected source=%s host=%s reason=%s", self._settings.name, host, words)
        self._tell(self._status.saw_error, f"association from {host} rejected: {words}", self._clock.now())
        assoc.acse.send_reject(result, source, reason)
        assoc.is_rejected = True
        assoc.kill()

    def _judge(self, request: A_ASSOCIATE, assoc: ServedAssociation) -> tuple[int, int, int, str] | None:
        assert self._listener is not None
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        if self._settings.require_called_ae_title and called != self._settings.ae_title.strip():
            return _PERMANENT, _SERVICE_USER, _CALLED_UNKNOWN, "called AE title is not ours"
        if self._settings.peers and not _is_peer(calling, str(assoc.requestor.address), self._settings.peers):
            return _PERMANENT, _SERVICE_USER, _CALLING_UNKNOWN, "calling AE title or its host unknown"
        if self._listener.established() >= self._settings.associations_max:
            return _TRANSIENT, _PRESENTATION, _LIMIT_EXCEEDED, "associations_max reached"
        return None

    def _on_store(self, event: Any) -> Dataset:
        """Answer a C-STORE; in the association's thread. Never raises: the library would say 0xC211 to anything."""
        try:
            status = self._store(event)
        except Exception as error:  # noqa: BLE001  # border: a bug here must not make the sender drop its copy
            _log.error("instance.failed source=%s error=%s", self._settings.name, type(error).__name__)
            status = refusal("internal fault")
        if status.accepted is None:
            self._tell(self._status.saw_error, status.comment, self._clock.now())
        else:
            self._tell(self._status.saw_input, self._clock.now())
        return _response(status)

    def _store(self, event: Any) -> Status:
        assoc: ServedAssociation = event.assoc
        assert isinstance(assoc.dimse, ReceivingDimse)
        file = assoc.dimse.take(event.request.DataSet)
        if file is None:
            return Status(code=CANNOT_UNDERSTAND, comment="no data set came with the command")
        try:
            if file.refused is not None or file.path is None:
                return refusal(file.refused or "no file")
            arrival = Arrival(
                file=file.path,
                dataset_offset=file.dataset_offset,
                sop_class_uid=clean_uid(str(event.request.AffectedSOPClassUID)),
                sop_instance_uid=clean_uid(str(event.request.AffectedSOPInstanceUID)),
                transfer_syntax=str(event.context.transfer_syntax),
                peer=f"{assoc.requestor.ae_title.strip()}@{assoc.requestor.address}",
                received_at=self._clock.now(),
            )
            return store(arrival, self._keeper)
        finally:
            file.discard()

    def _on_end(self, assoc: ServedAssociation) -> None:
        if isinstance(assoc.dimse, ReceivingDimse):
            assoc.dimse.drop()
        if self._listener is not None:
            if isinstance(assoc.dul.socket, GuardedSocket) and assoc.dul.socket.socket is not None:
                self._listener.lobby.leave(assoc.dul.socket.socket)
            self._listener.end(assoc)
        self._tell(self._count)

    def _count(self) -> None:
        self._status.connections = len(self._listener.running()) if self._listener else 0

    def _tell(self, do: Callable[..., None], *arguments: Any) -> None:
        """Run on the loop, where the status is written."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(do, *arguments)
        except RuntimeError:
            return  # the loop has closed: nobody reads the status any more


def _is_peer(calling: str, host: str, peers: Iterable[DicomPeer]) -> bool:
    return any(
        peer.ae_title.strip() == calling and (peer.host is None or host in _addresses(peer.host)) for peer in peers
    )


def _addresses(host: str) -> set[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return {host}


def _plain(host: str) -> Any:
    address = ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _response(status: Status) -> Dataset:
    response = Dataset()
    response.Status = status.code
    if status.comment:
        response.ErrorComment = status.comment.encode("ascii", "replace").decode()
    return response
