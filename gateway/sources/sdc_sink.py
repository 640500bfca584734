"""Where an SDC provider sends its reports: the HTTP(S) server of one connection (IEEE 11073-20702, WS-Eventing).

The library's own would shake hands with TLS peers one after the other, take bodies of any size, print what breaks to
standard error and listen on any port; here handshakes have threads and a timeout, all is bounded, nothing is
printed and the port may be fixed for a firewall. What a request means stays with the library's handler, which has one
at a time: a document that is read takes 35 times its size.
"""

import logging
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from typing import Any, cast

from sdc11073.dispatch import PathElementRegistry
from sdc11073.httpserver.compression import CompressionHandler
from sdc11073.httpserver.httpreader import DechunkError, DecompressError, HTTPReader
from sdc11073.httpserver.httprequesthandler import DispatchingRequestHandler
from sdc11073.loghelper import LoggerAdapter

from gateway.errors import LinkError
from gateway.sources.sdc_bodies import Bounded

CONNECTIONS_MAX = 32
HANDSHAKE_TIMEOUT_S = 5.0
STOP_POLL_S = 0.1


class _Handler(DispatchingRequestHandler):
    def _read_request(self) -> Any:
        stream = self.rfile
        self.rfile = cast(Any, Bounded(stream))
        try:
            return HTTPReader.read_request_body(self) or b""
        except LinkError as error:
            self._refuse(str(error))
            raise
        except (DechunkError, DecompressError):
            self._refuse("a body in an encoding that we do not know")
            raise
        finally:
            self.rfile = stream

    def _refuse(self, reason: str) -> None:
        """Tell of a report that was not taken; who does not know where reports go sent none."""
        sink = cast(Sink, self.server)
        if sink.dispatcher.knows(self.path.strip("/").partition("/")[0]):
            sink.refused(f"a report was not taken: {reason}")

    def log_message(self, *_: Any) -> None:
        """Say nothing: what is wrong is told by who handles the report."""


class _InTurn:
    """A part of the library that is given one request at a time."""

    def __init__(self, part: Any, turn: threading.Lock) -> None:
        self._part = part
        self._turn = turn

    def do_post(self, *given: Any) -> Any:
        with self._turn:
            return self._part.do_post(*given)

    def do_get(self, *given: Any) -> Any:
        return self._part.do_get(*given)


class _Registry(PathElementRegistry):
    def __init__(self) -> None:
        self._instances: dict[str | None, Any] = {}
        self._turn = threading.Lock()

    def register_instance(self, path_element: str | None, instance: Any) -> None:
        super().register_instance(path_element, _InTurn(instance, self._turn))

    def knows(self, path_element: str | None) -> bool:
        return path_element in self._instances


class Sink(socketserver.ThreadingTCPServer):
    """Listens as soon as it is made; raises OSError when the address is taken.

    `refused` is told on any thread why a report was not taken.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None, refused: Callable[[str], None]) -> None:
        self.dispatcher = _Registry()
        self.refused = refused
        self.chunk_size = 0
        self.supported_encodings = CompressionHandler.available_encodings[:]
        self.logger = LoggerAdapter(logging.getLogger("sdc.sink"))
        self._context = context
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._handshakes = threading.BoundedSemaphore(CONNECTIONS_MAX)
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
        """Refuse more connections than a provider has use for, be they open or still shaking hands."""
        return len(self._open) < CONNECTIONS_MAX and self._handshakes.acquire(blocking=False)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, on a thread of its own."""
        try:
            request.settimeout(HANDSHAKE_TIMEOUT_S)
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)
            request.settimeout(None)  # between two reports may lie any time; who died ends with the connection
            with self._lock:
                self._open.add(request)
        finally:
            self._handshakes.release()
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
