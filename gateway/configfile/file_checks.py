"""Files and secrets that the configuration names: read where that is allowed, never opened for longer.

A file that is not there, or that holds the wrong thing, is a fault. What another user or the service manager may well
be able to read is a warning: the check can run as a person, the gateway as a service.
"""

import os
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.configfile.checks import Finding, Stanza, Tables, stanzas
from gateway.typed import Fault, KeyPath
from gateway.values import read_secret


def file_findings(tables: Tables) -> Iterator[Finding]:
    """Report certificates, keys and secrets that cannot be used."""
    for key in ("source", "destination"):
        for stanza in stanzas(tables, key):
            tls = stanza.table.get("tls")
            if isinstance(tls, dict):
                yield from _tls_findings(tls, (*stanza.path, "tls"))
    for key, name in (("destination", "password"), ("destination", "secret"), ("route", "secret")):
        for stanza in stanzas(tables, key):
            if name in stanza.table:
                yield from _secret_findings(stanza, name)


def _tls_findings(tls: dict[str, Any], path: KeyPath) -> Iterator[Finding]:
    if tls.get("verify_client") is True and "ca" not in tls:
        yield Finding(Fault((*path, "verify_client"), "verify_client needs ca: who may sign the clients' certificates"))
    for one, other in (("cert", "key"), ("key", "cert")):
        if one in tls and other not in tls:
            yield Finding(Fault((*path, one), f"{one} needs {other} beside it"))
    found = [_readable(tls.get(key), (*path, key)) for key in ("cert", "key", "ca") if key in tls]
    problems = [finding for finding in found if finding is not None]
    yield from problems
    if not problems:
        yield from _content_findings(tls, path)


def _content_findings(tls: dict[str, Any], path: KeyPath) -> Iterator[Finding]:
    """Load what is readable as TLS would; OpenSSL's own word is the reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if isinstance(tls.get("ca"), str):
        try:
            context.load_verify_locations(tls["ca"])
        except (ssl.SSLError, OSError) as error:
            yield Finding(Fault((*path, "ca"), f"holds no certificate that can be trusted ({_reason(error)})"))
    if isinstance(tls.get("cert"), str) and isinstance(tls.get("key"), str):
        try:
            context.load_cert_chain(tls["cert"], tls["key"], password=lambda: b"")  # else it asks at the terminal
        except (ssl.SSLError, OSError) as error:
            yield Finding(Fault((*path, "cert"), f"certificate and key cannot be used together ({_reason(error)})"))


def _secret_findings(stanza: Stanza, name: str) -> Iterator[Finding]:
    path = (*stanza.path, name)
    try:
        secret = read_secret(stanza.table[name])
    except ValueError:
        return
    if secret.file is not None:
        finding = _readable(str(secret.file), (*path, "file"))
        if finding is not None:
            yield finding
    elif secret.env is not None and secret.env not in os.environ:
        yield Finding(Fault((*path, "env"), f"{secret.env} is not set here"), certain=False)
    elif secret.credential is not None:
        yield from _credential_findings(secret.credential, (*path, "credential"))
    scheme = _open_scheme(stanza.text("url") or "")
    if scheme is not None:
        yield stanza.fault("url", f"the {name} goes over the network in the clear; use {scheme}s://", certain=False)


def _credential_findings(name: str, path: KeyPath) -> Iterator[Finding]:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        text = f"credential {name!r} can be seen only where systemd starts the gateway"
        yield Finding(Fault(path, text), certain=False)
    elif not (Path(folder) / name).exists():
        yield Finding(Fault(path, f"systemd gave no credential {name!r}"))


def _readable(value: object, path: KeyPath) -> Finding | None:
    if not isinstance(value, str) or not value or "\0" in value:
        return None  # told already
    try:
        with Path(value).open("rb") as stream:
            stream.read(1)
    except PermissionError:
        return Finding(Fault(path, f"{value} cannot be read by this user"), certain=False)
    except OSError as error:
        return Finding(Fault(path, f"{value} cannot be read: {error.strerror}"))
    return None


def _open_scheme(url: str) -> str | None:
    """Return the scheme of a URL that leads over the network without encryption, None for any other."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None
    if parts.scheme not in ("mqtt", "http"):
        return None
    try:
        is_here = ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    return None if is_here else parts.scheme


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
