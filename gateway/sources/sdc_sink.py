"""Where an SDC provider sends its reports: the HTTP(S) server of one connection (IEEE 11073-20702, WS-Eventing).

The library's own would shake hands with TLS peers one after the other, take bodies of any size, print what breaks to
standard error and listen on any port; here handshakes have threads and a timeout, all is bounded, nothing is
printed and the port may be fixed for a firewall. What a request means stays with the library's handler.
"""

import logging
import socket
import socketserver
import ssl
import threading
from typing import Any, cast

from sdc11073.dispatch import PathElementRegistry
from sdc11073.httpserver.compression import CompressionHandler
from sdc11073.httpserver.httpreader import HTTPReader
from sdc11073.httpserver.httprequesthandler import DispatchingRequestHandler
from sdc11073.loghelper import LoggerAdapter

REQUEST_BYTES_MAX = 16 * 1024 * 1024
CONNECTIONS_MAX = 32
HANDSHAKE_TIMEOUT_S = 5.0
STOP_POLL_S = 0.1


class _Bounded:
    """The body of one request: reading more than the bound ends the connection."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = REQUEST_BYTES_MAX

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= self._left:
            raise ConnectionAbortedError("request too large")
        self._left -= count
        data: bytes = self._stream.read(count)
        return data


class _Handler(DispatchingRequestHandler):
    def _read_request(self) -> Any:
        stream = self.rfile
        self.rfile = cast(Any, _Bounded(stream))
        try:
            return HTTPReader.read_request_body(self)
        finally:
            self.rfile = stream

    def log_message(self, *_: Any) -> None:
        """Say nothing: what is wrong is told by who handles the report."""


class Sink(socketserver.ThreadingTCPServer):
    """Listens as soon as it is made; raises OSError when the address is taken."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self.dispatcher = PathElementRegistry()
        self.chunk_size = 0
        self.supported_encodings = CompressionHandler.available_encodings[:]
        self.logger = LoggerAdapter(logging.getLogger("sdc.sink"))
        self._context = context
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)
        scheme = "http" if context is None else "https"
        self.base_url = f"{scheme}://{host}:{self.server_address[1]}/"
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": STOP_POLL_S}, name="sdc-sink", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection."""
        self.shutdown()
        self.server_close()
        with self._lock:
            connections = tuple(self._open)
        for connection in connections:
            _shut(connection)

    def verify_request(self, _request: Any, _client: Any) -> bool:
        """Refuse more connections than a provider has use for."""
        return len(self._open) < CONNECTIONS_MAX

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, on a thread of its own."""
        request.settimeout(HANDSHAKE_TIMEOUT_S)
        if self._context is not None:
            request = self._context.wrap_socket(request, server_side=True)
        request.settimeout(None)  # between two reports may lie any time; a provider that died ends with the connection
        with self._lock:
            self._open.add(request)
        try:
            _Handler(request, client_address, self)
        finally:
            with self._lock:
                self._open.discard(request)
            _shut(request)

    def handle_error(self, _request: Any, _client: Any) -> None:
        """Keep quiet: a connection that broke or never proved who it is costs nobody anything."""


def own_address(host: str, port: int) -> str:
    """Return our address on the way to a host; nothing is sent. Raises OSError where there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the other end was first
    finally:
        connection.close()
