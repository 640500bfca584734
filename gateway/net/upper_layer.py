"""pynetdicom's transport, made fit for a network that is not friendly (PS3.8).

What the library (3.0.4) lacks is added here and used by both ends: a PDU's length is checked before memory is taken
for it; no read or write waits without a limit; TCP_NODELAY and TCP_QUICKACK end the 40 ms pauses of peers that write
header and payload apart (Nagle's algorithm meets the delayed acknowledgement); AE titles that the library would
refuse are made printable; its loggers, which print identifiers and data sets, are silent.

The only module that touches the library's process-wide settings.
"""

import logging
import select
import socket
import ssl
import threading
from typing import Any

from pydicom import config as pydicom_config
from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.fsm import InvalidEventError, StateMachine
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from gateway.clock import Clock

POLL_S = 0.001  # how long the reactor waits for bytes before it looks for something to send
PDU_SLACK = 64 << 10
ASSOCIATE_BYTES_MAX = 1 << 20  # 128 contexts with 40 transfer syntaxes each are 150 kB
QUICKACK = getattr(socket, "TCP_QUICKACK", None)

_ASSOCIATE_RQ = 0x01
_TITLES = ((4, 20), (20, 36))  # called, calling: places behind the PDU's six-byte head (PS3.8, 9.3.2)
_PRINTABLE = bytes(byte if 0x20 <= byte < 0x7F and byte != 0x5C else 0x3F for byte in range(256))
BLANK_TITLE = b"?"

_log = logging.getLogger("gateway.net")


def configure_library() -> None:
    """Set what is process-wide in pynetdicom and pydicom; harmless when done again.

    Storage of private and unknown SOP Classes needs UNRESTRICTED_STORAGE_SERVICE, whose side doors
    `gateway.imaging.negotiation` closes. AE titles and UIDs of modalities are often not by the book: we accept them.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.VALIDATORS = {"AE": _accept_any, "UI": _accept_any}
    _config.CODECS = ("ascii", "latin-1")
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE  # its warnings quote values
    for name in ("pynetdicom", "pydicom"):
        library = logging.getLogger(name)
        library.setLevel(logging.CRITICAL + 1)
        library.propagate = False


class GuardedSocket(AssociationSocket):
    """One association's connection, with limits of size and time.

    `pdu_max` is the longest PDU in bytes, `stall_s` how long a peer may take for the rest of a PDU or to take one of
    ours; both are changed when the association stands. `fault` says in words why the connection failed.
    """

    def __init__(
        self,
        assoc: Association,
        clock: Clock,
        *,
        stall_s: float,
        client_socket: socket.socket | None = None,
        address: AddressInformation | None = None,
    ) -> None:
        super().__init__(assoc, client_socket=client_socket, address=address)
        self.pdu_max = ASSOCIATE_BYTES_MAX
        self.stall_s = stall_s
        self.fault: str | None = None
        self._clock = clock
        self._pdu_type = 0
        self._idle = threading.Event()  # never set: a wait that ends by itself
        if client_socket is not None:
            prepare(client_socket)

    @property
    def ready(self) -> bool:
        """Tell whether bytes can be read, waiting a millisecond for them; works for any number of open files."""
        sock = self.socket
        if sock is None or not self._is_connected:
            self._idle.wait(POLL_S)
            return False
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        try:
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(POLL_S * 1000))
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly so many bytes, fewer when the peer closes. Raises OSError for too many or too slow."""
        if nr_bytes > self.pdu_max:
            self.fault = f"a PDU of {nr_bytes} bytes where {self.pdu_max} are the limit"
            raise ConnectionAbortedError(self.fault)
        data = self._receive(nr_bytes)
        if self._pdu_type == 0 and nr_bytes == 6 == len(data):
            self._pdu_type = data[0]
        else:
            if self._pdu_type == _ASSOCIATE_RQ:
                _make_titles_printable(data)
            self._pdu_type = 0
        return data

    def send(self, bytestream: bytes) -> None:
        """Write all bytes within the stall limit; a failure is told to the state machine, as the library does."""
        try:
            if self.socket is None:
                raise ConnectionAbortedError("connection closed")
            self.socket.settimeout(self.stall_s)
            self.socket.sendall(bytestream)
            acknowledge_quickly(self.socket)
        except OSError as error:
            self.fault = self.fault or f"sending: {_words(error)}"
            self.event_queue.put("Evt17")

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect, and shake hands where it is TLS, within the connection timeout; `fault` says why it failed."""
        try:
            self._connect(primitive)
            primitive.result = "Evt2"
        except OSError as error:
            self.fault = _words(error)
            if self.socket:
                self.socket.close()
                self.socket = None
            primitive.result = "Evt17"
        self.provider_queue.put(primitive)
        self._ready.set()

    def cut(self) -> None:
        """End the connection from another thread: whoever reads or writes it sees it closed."""
        shut(self.socket)

    def _connect(self, primitive: T_CONNECT) -> None:
        assert self.socket is not None
        timeout_s = self.assoc.connection_timeout
        self.socket.settimeout(timeout_s)
        self.socket.connect(primitive.address_info.as_tuple)
        prepare(self.socket)
        if self.tls_args:
            context, name = self.tls_args
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
        self.socket.settimeout(self.stall_s)
        self.assoc.requestor.address_info = AddressInformation.from_tuple(self.socket.getsockname())
        self._is_connected = True
        evt.trigger(self.assoc, evt.EVT_CONN_OPEN, {"address": primitive.address_info.as_tuple})

    def _receive(self, count: int) -> bytearray:
        if self.socket is None:
            raise ConnectionAbortedError("connection closed")
        data = bytearray(count)
        view = memoryview(data)
        got = 0
        deadline = self._clock.monotonic() + self.stall_s
        while got < count:
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                self.fault = f"a PDU not complete within {self.stall_s:g} s"
                raise TimeoutError(self.fault)
            self.socket.settimeout(left_s)
            acknowledge_quickly(self.socket)
            if not (read := self.socket.recv_into(view[got:])):
                break
            got += read
        acknowledge_quickly(self.socket)
        view.release()
        del data[got:]
        return data


class _SturdyMachine(StateMachine):
    """The library's state machine, but an event that has no place in its state ends the connection, not the thread.

    Two ends that abort at once bring one (Evt15 in Sta13): the library raises it in the reactor's thread.
    """

    def do_action(self, event: str) -> None:
        """Act on an event; one out of place cuts the connection."""
        try:
            super().do_action(event)
        except InvalidEventError:
            _log.debug("association.event_out_of_place event=%s state=%s", event, self.current_state)
            if isinstance(self.dul.socket, GuardedSocket):
                self.dul.socket.cut()


def harden(assoc: Association) -> None:
    """Let the reactor wait for bytes in `ready` rather than sleep beside them, and outlive events out of place.

    Before the association's threads start.
    """
    assoc.dul._run_loop_delay = 0.0
    machine = _SturdyMachine(assoc.dul)
    machine.current_state = assoc.dul.state_machine.current_state
    assoc.dul.state_machine = machine


def prepare(sock: socket.socket) -> None:
    """Set the options of a connection: no Nagle, keep-alive."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    acknowledge_quickly(sock)


def acknowledge_quickly(sock: socket.socket) -> None:
    """Ask for immediate acknowledgements; the kernel forgets it, so this is done around every read."""
    if QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)


def shut(sock: socket.socket | None) -> None:
    """Shut a connection down in both directions, if it is still there."""
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # closed by the peer or by its own thread: what was wanted


def _make_titles_printable(body: bytearray) -> None:
    for start, end in _TITLES:
        title = bytes(body[start:end]).replace(b"\0", b" ").translate(_PRINTABLE)
        if len(title) == end - start:
            body[start:end] = title if title.strip() else BLANK_TITLE.ljust(end - start)


def _accept_any(_value: Any) -> tuple[bool, str]:
    return True, ""


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return error.strerror or str(error) or type(error).__name__
