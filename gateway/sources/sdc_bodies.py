"""How large the HTTP bodies of an SDC provider may be, as sent and unpacked; the library bounds neither.

The bound is that of what an Inbox holds, so a larger one could not be taken anyway. Of compressions only gzip is taken.
"""

import http.client
import zlib
from typing import Any

from sdc11073.httpserver.compression import AbstractDataCompressor, CompressionHandler, GzipCompressionHandler
from sdc11073.pysoap.soapclient import SoapClient

from gateway.errors import LinkError
from gateway.sources.sdc_inbox import BYTES_MAX

_TOO_LARGE = f"a body of more than {BYTES_MAX // 1024**2} MiB"


class Bounded:
    """The body of one request on its way in. Raises LinkError when it is too large or ends too early."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = BYTES_MAX

    def read(self, count: int = -1) -> bytes:
        """Read that many bytes."""
        if not 0 <= count <= self._left:
            raise LinkError(_TOO_LARGE)
        self._left -= count
        data: bytes = self._stream.read(count)
        if len(data) < count:  # the library would ask on for ever
            raise LinkError("a body that ended too early")
        return data


class BoundedClient(SoapClient):
    """Asks a provider and raises LinkError when its answer is too large."""

    def _mk_http_connection(self) -> Any:
        connection: Any = super()._mk_http_connection()
        connection.response_class = _Response
        return connection


class _Response(http.client.HTTPResponse):
    _taken = 0

    def read(self, amt: int | None = None) -> bytes:
        data = super().read(BYTES_MAX + 1 if amt is None else min(amt, BYTES_MAX + 1))
        self._taken += len(data)
        if self._taken > BYTES_MAX:
            self.close()
            raise LinkError(_TOO_LARGE)
        return data


class _BoundedGzip(AbstractDataCompressor):
    @staticmethod
    def compress_payload(payload: bytes) -> bytes:
        packed: bytes = GzipCompressionHandler.compress_payload(payload)
        return packed

    @staticmethod
    def decompress_payload(payload: bytes) -> bytes:
        unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)  # with the head of a gzip file
        try:
            plain = unpacking.decompress(payload, BYTES_MAX + 1)
        except zlib.error as error:
            raise LinkError("a body that cannot be unpacked") from error
        if len(plain) > BYTES_MAX:
            raise LinkError(_TOO_LARGE)
        if not unpacking.eof:
            raise LinkError("a body that ended too early")
        return plain


CompressionHandler.available_encodings[:] = ["gzip"]
CompressionHandler.handlers.clear()
CompressionHandler.handlers["gzip"] = _BoundedGzip
