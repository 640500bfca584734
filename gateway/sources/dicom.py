"""A DICOM Source: an AE for Verification, Storage and whatever services it was given (PS3.4).

Each association has a thread (`dicom_association.py`); what an Instance means and when it is safe is
`gateway.imaging.storage`. Who may associate is decided here, before anything of the request is trusted:

    A-ASSOCIATE-RQ --> called AE, calling AE and host, room --> accept
                       1/1/7      1/1/3               2/3/2      (result/source/reason)

Object data that fits on no disk is answered 0xA700, not cut off. Nothing of a peer's data is logged.
"""

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from gateway.clock import Clock
from gateway.config import DicomPeer
from gateway.config import DicomSource as DicomSettings
from gateway.errors import LinkError
from gateway.imaging.negotiation import Offer
from gateway.imaging.storage import Intake, Keeper, Status
from gateway.net.tls import server_context
from gateway.protocols.negotiation import Proposal, Rejection
from gateway.sources.dicom_association import AcceptedAssociation
from gateway.sources.dicom_listener import Listener
from gateway.spool import Spool
from gateway.status import LinkState, SourceStatus

STOP_S = 4.0  # for associations to abort in order; then they are cut
CUT_S = 2.0

CALLED_UNKNOWN = Rejection(1, 1, 7)
CALLING_UNKNOWN = Rejection(1, 1, 3)
LIMIT_EXCEEDED = Rejection(2, 3, 2)

_log = logging.getLogger("gateway.sources")


class DicomSource:
    """Runs one DICOM Source.

    `keywords` are the DICOM keywords that Routes ask for, `offer` the services beside Verification and Storage,
    `order_priority` says how urgent the order of a header is. A low disk is `intake.refusing` and answered 0xA700, so
    that the Modality keeps its copy and tries again.
    """

    loop: asyncio.AbstractEventLoop  # from `run` on

    def __init__(
        self,
        settings: DicomSettings,
        intake: Intake,
        spool: Spool,
        clock: Clock,
        status: SourceStatus,
        *,
        keywords: Iterable[str] = (),
        offer: Offer | None = None,
        order_priority: Callable[[Mapping[str, str]], str] = lambda header: "",
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.offer = offer or Offer()
        self.keeper = Keeper(settings.name, spool, intake, clock, tuple(keywords), order_priority)
        self._spool = spool
        self._status = status
        self._listener: Listener | None = None
        self._tls: ssl.SSLContext | None = None
        self._guard = threading.Lock()
        self._associations: dict[AcceptedAssociation, threading.Thread] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Return the port listened on, which is another than configured where that is 0."""
        assert self._listener is not None, "not listening"
        return self._listener.port

    @property
    def associations(self) -> tuple[AcceptedAssociation, ...]:
        """Return the associations that stand."""
        return tuple(association for association in self._running() if association.stands)

    async def run(self) -> None:
        """Listen until cancelled. Raises LinkError when it cannot, or when the listener ends by itself."""
        self.loop = asyncio.get_running_loop()
        listener = self._listener = self._open()
        self._spool.prepare()
        self._status.state = LinkState.UP
        _log.info("dicom.listening source=%s port=%d", self.settings.name, self.port)
        try:
            await listener.run()
        except OSError as error:
            raise LinkError(f"the DICOM listener ended: {error.strerror or error}") from error
        finally:
            self._status.state = LinkState.DOWN
            listener.close()
            await asyncio.shield(asyncio.to_thread(self._stop))
            self._status.connections = 0

    def _open(self) -> Listener:
        listen = self.settings.listen
        if self.settings.tls is not None:
            self._tls = server_context(self.settings.tls)
        try:
            return Listener((listen.host, listen.port), self.clock, admits=self._admits, serve=self._serve)
        except OSError as error:
            raise LinkError(f"{listen.host}:{listen.port}: {error.strerror or error}") from error

    def _stop(self) -> None:
        threads = list(self._associations.values())
        for end, patience_s in ((AcceptedAssociation.stop, STOP_S), (AcceptedAssociation.cut, CUT_S)):
            for association in self._running():
                end(association)
            for thread in threads:
                thread.join(patience_s / max(1, len(threads)))

    def _running(self) -> list[AcceptedAssociation]:
        with self._guard:
            return list(self._associations)

    def _admits(self, host: str) -> bool:
        allow = self.settings.allow
        if not allow or any(_plain(host) in network for network in allow):
            return True
        _log.warning("connection.refused source=%s host=%s reason=not-allowed", self.settings.name, host)
        with self._guard:
            self._status.saw_error(f"connection from {host} not allowed", self.clock.now())
        return False

    def _serve(self, sock: socket.socket, host: str) -> None:
        """Serve one connection; in its thread."""
        association = AcceptedAssociation(sock, host, self._tls, self)
        with self._guard:
            self._associations[association] = threading.current_thread()
        try:
            association.run()
        finally:
            self._leave_lobby(sock)

    def _leave_lobby(self, sock: socket.socket) -> None:
        if self._listener is not None:
            self._listener.lobby.leave(sock)

    # --- what associations ask and tell, in their threads ---

    def judge(self, proposal: Proposal, host: str) -> tuple[Rejection, str] | None:
        """Return why an association is rejected, None when it may stand."""
        verdict = self._judge(proposal, host)
        if verdict is not None:
            text = f"association from {host} rejected: {verdict[1]}"
            with self._guard:
                self._status.saw_error(text, self.clock.now())
        return verdict

    def _judge(self, proposal: Proposal, host: str) -> tuple[Rejection, str] | None:
        settings = self.settings
        if settings.require_called_ae_title and proposal.called_ae_title != settings.ae_title.strip():
            return CALLED_UNKNOWN, "called AE title is not ours"
        if settings.peers and not _is_peer(proposal.calling_ae_title, host, settings.peers):
            return CALLING_UNKNOWN, "calling AE title or its host unknown"
        if len(self.associations) >= settings.associations_max:
            return LIMIT_EXCEEDED, "associations_max reached"
        return None

    def opened(self, association: AcceptedAssociation) -> None:
        """Hear that an association stands."""
        self._leave_lobby(association.connection)
        self._tell(self._count)
        for uid, told in self.offer.associated.items():
            if uid in association.sop_classes:
                self._tell(self._introduce, told, association)

    def stored(self, status: Status) -> None:
        """Hear what became of an Instance."""
        now = self.clock.now()
        with self._guard:  # not by way of the loop: an image storm would wake it for each object
            if status.accepted is None:
                self._status.saw_error(status.comment, now)
            else:
                self._status.saw_input(now)

    def ended(self, association: AcceptedAssociation) -> None:
        """Hear that the connection has ended."""
        with self._guard:
            self._associations.pop(association, None)
        self._tell(self._count)

    def _introduce(self, told: Callable[[AcceptedAssociation], Any], association: AcceptedAssociation) -> None:
        task = self.loop.create_task(_quietly(told, association))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _count(self) -> None:
        self._status.connections = len(self.associations)

    def _tell(self, do: Callable[..., None], *arguments: Any) -> None:
        """Run on the loop, where the status is written."""
        try:
            self.loop.call_soon_threadsafe(do, *arguments)
        except RuntimeError:
            return  # the loop has closed: nobody reads the status any more


async def _quietly(told: Callable[[AcceptedAssociation], Any], association: AcceptedAssociation) -> None:
    try:
        await told(association)
    except Exception as error:  # noqa: BLE001  # border: who only listens must not end the Source
        _log.error("association.unheard error=%s", type(error).__name__)


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
