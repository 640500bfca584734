"""TLS contexts from settings: version 1.2 or newer, certificates read from files."""

import ssl

from gateway.config import ClientTls, ServerTls
from gateway.errors import LinkError

HANDSHAKE_TIMEOUT_S = 10.0  # a peer that connects and says nothing


def server_context(settings: ServerTls) -> ssl.SSLContext:
    """Return the context of a listener; with `verify_client` every client must show a certificate of `ca`.

    Raises LinkError when a file cannot be read or holds no certificate or key, and when `verify_client` has no `ca`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.cert, settings.key)
        if settings.ca is not None:
            context.load_verify_locations(settings.ca)
    except OSError as error:
        raise LinkError(f"tls: {settings.cert}, {settings.key}, {settings.ca}: {_reason(error)}") from error
    if settings.verify_client:
        if settings.ca is None:
            raise LinkError("tls: verify_client needs ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: ClientTls) -> ssl.SSLContext:
    """Return the context towards a Destination: its certificate and name are always verified.

    Connect with `server_hostname = settings.server_name or host`. Raises LinkError when a file cannot be read or
    holds no certificate or key.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=settings.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert is not None:
            context.load_cert_chain(settings.cert, settings.key)
    except OSError as error:
        raise LinkError(f"tls: {settings.ca}, {settings.cert}, {settings.key}: {_reason(error)}") from error
    return context


def _reason(error: OSError) -> str:
    """Return why, in a word: an SSLError's own text names a line of OpenSSL's source."""
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
