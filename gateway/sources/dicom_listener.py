"""The listener of a DICOM Source: pynetdicom's server, with an own way in.

    accepted --TLS handshake--> silent --first byte--> negotiating --A-ASSOCIATE--> associated
       lobby: at most so long, so many a host; the oldest makes room    |            associations_max

A connection that says nothing costs one thread for five seconds and no association. The handshake runs in the
connection's own thread, so that a silent TLS client stops nobody.
"""

import select
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, RequestHandler, ThreadedAssociationServer

from gateway.clock import Clock
from gateway.net.upper_layer import GuardedSocket, harden, shut

FIRST_PDU_S = 5.0
LOBBY_HOST_MAX = 16
LOBBY_MAX = 128
POLL_S = 0.2
JOIN_S = 4.0

Handlers = list[Any]  # pynetdicom's (event, function) pairs


class ServedAssociation(Association):
    """An association as acceptor; `on_end` runs in its thread whichever way it ends."""

    on_end: Callable[["ServedAssociation"], None] | None = None

    def run_reactor(self) -> None:
        """Serve until released, aborted or cut."""
        try:
            super().run_reactor()
        finally:
            if isinstance(self.dul.socket, GuardedSocket):
                self.dul.socket.cut()
            if self.on_end is not None:
                self.on_end(self)


class Lobby:
    """Connections that have not yet asked for an association, oldest first.

    When a host, or all together, hold more than they may, the oldest is cut: who floods pushes out his own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[socket.socket, str] = {}

    def enter(self, sock: socket.socket, host: str) -> None:
        """Let a connection in."""
        with self._lock:
            same = [other for other, its_host in self._waiting.items() if its_host == host]
            if len(same) >= LOBBY_HOST_MAX:
                self._cut(same[0])
            elif len(self._waiting) >= LOBBY_MAX:
                self._cut(next(iter(self._waiting)))
            self._waiting[sock] = host

    def replace(self, sock: socket.socket, wrapped: socket.socket) -> None:
        """Note that a connection is TLS now; the plain socket has been taken over."""
        with self._lock:
            host = self._waiting.pop(sock, None)
            if host is not None:
                self._waiting[wrapped] = host

    def leave(self, sock: socket.socket) -> None:
        """Let a connection go on, or end."""
        with self._lock:
            self._waiting.pop(sock, None)

    def close(self) -> None:
        """Cut all."""
        with self._lock:
            for sock in list(self._waiting):
                self._cut(sock)

    def __len__(self) -> int:
        return len(self._waiting)

    def _cut(self, sock: socket.socket) -> None:
        del self._waiting[sock]
        shut(sock)


class Listener(ThreadedAssociationServer):
    """Accepts connections and makes each that speaks a ServedAssociation.

    `admits(host)` says whether a host may connect at all; `prepare` fits an association before it runs.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        contexts: list[PresentationContext],
        *,
        clock: Clock,
        tls: ssl.SSLContext | None,
        handlers: Handlers,
        admits: Callable[[str], bool],
        prepare: Callable[[ServedAssociation], None],
    ) -> None:
        self.clock = clock
        self.admits = admits
        self.prepare = prepare
        self.tls = tls
        self.lobby = Lobby()
        self._associations: set[ServedAssociation] = set()
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="dicom-listener", daemon=True)
        self.ended: Callable[[], None] | None = None
        super().__init__(ae, address, ae.ae_title, contexts, None, handlers, _Handler)

    def start(self, ended: Callable[[], None]) -> None:
        """Begin to accept; `ended` is called from the listener's thread when it stops."""
        self.ended = ended
        self.ae._servers.append(self)
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting, abort what runs, and wait a few seconds until its threads have ended."""
        self.shutdown()
        self._thread.join(JOIN_S)
        self.lobby.close()
        running = self.running()
        for assoc in running:
            assoc.abort(block=False)
        for assoc in running:
            assoc.join(JOIN_S / max(1, len(running)))
        for assoc in self.running():
            if isinstance(assoc.dul.socket, GuardedSocket):
                assoc.dul.socket.cut()
            assoc.join(JOIN_S / max(1, len(running)))

    def running(self) -> list[ServedAssociation]:
        """Return the associations that have begun, negotiating ones too."""
        with self._guard:
            return list(self._associations)

    def established(self) -> int:
        """Return how many associations stand."""
        return sum(assoc.is_established for assoc in self.running())

    def begin(self, assoc: ServedAssociation) -> None:
        """Count an association in until it ends."""
        with self._guard:
            self._associations.add(assoc)

    def end(self, assoc: ServedAssociation) -> None:
        """Count an association out."""
        with self._guard:
            self._associations.discard(assoc)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, without a handshake."""
        assert self.socket is not None
        sock, address = self.socket.accept()
        sock.settimeout(FIRST_PDU_S)
        return sock, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse hosts that are not allowed; let the others into the lobby."""
        host = str(client_address[0])
        if not self.admits(host):
            return False
        self.lobby.enter(request, host)
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands, wait for the first byte, and hand over to an association; else close."""
        sock: socket.socket = request
        try:
            sock = self._shake_hands(sock)
            if _speaks(sock):
                self.finish_request(sock, client_address)
                return
        except OSError:
            pass  # gone, too slow, or not TLS: nothing was promised
        self.lobby.leave(sock)
        self.shutdown_request(sock)

    def service_actions(self) -> None:
        """Collect no garbage by hand, as the library does: it stops all threads for nothing."""

    def _shake_hands(self, sock: socket.socket) -> socket.socket:
        if self.tls is None:
            return sock
        wrapped = self.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.lobby.replace(sock, wrapped)
        wrapped.settimeout(FIRST_PDU_S)
        wrapped.do_handshake()
        return wrapped

    def _serve(self) -> None:
        try:
            self.serve_forever(POLL_S)
        finally:
            if self.ended is not None:
                self.ended()


class _Handler(RequestHandler):
    """Makes an association of a connection."""

    server: Listener

    def handle(self) -> None:
        """Start the association."""
        assoc = self._create_association()
        self.server.begin(assoc)
        assoc.start()

    def _create_association(self) -> ServedAssociation:
        server = self.server
        assoc = ServedAssociation(server.ae, MODE_ACCEPTOR)
        assoc._server = server
        assoc.name = f"AcceptorThread@{self.client_address[0]}"
        assoc.set_socket(GuardedSocket(assoc, server.clock, stall_s=FIRST_PDU_S, client_socket=self.request))
        harden(assoc)
        assoc.acceptor.maximum_length = server.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = server.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = server.ae.implementation_version_name
        assoc.acceptor.supported_contexts = []
        assoc.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        for event, handlers in server._handlers.items():
            _bind(assoc, event, handlers)
        assoc.bind(evt.EVT_CONN_CLOSE, _end_waiting)
        server.prepare(assoc)
        return assoc


def _end_waiting(event: Any) -> None:
    """Wake an association whose peer went before it asked for anything; it would wait for the whole timeout."""
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(None)


def _bind(assoc: Association, event: Any, handlers: Any) -> None:
    if event.is_intervention:
        if handlers:
            assoc.bind(event, *handlers)
    elif isinstance(event, evt.NotificationEvent):
        for function, arguments in handlers:
            assoc.bind(event, function, arguments)


def _speaks(sock: socket.socket) -> bool:
    """Tell whether a first byte comes in time, and not just the end (a health probe, an eviction)."""
    if isinstance(sock, ssl.SSLSocket):  # cannot peek
        if sock.pending():
            return True
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(FIRST_PDU_S * 1000))
    sock.settimeout(FIRST_PDU_S)
    return sock.recv(1, socket.MSG_PEEK) != b""
