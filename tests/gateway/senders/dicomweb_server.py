"""A DICOMweb archive that answers as told: a plain HTTP server that takes STOW-RS apart by its boundary."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pydicom


@dataclass
class Archive:
    """What comes, and what is answered: statuses in turn (the last one stays), Failure Reasons by UID."""

    statuses: list[int] = field(default_factory=lambda: [200])
    failed: dict[str, int] = field(default_factory=dict)
    warned: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    says_nothing: bool = False
    forgets: set[str] = field(default_factory=set)
    cut_after: int | None = None
    chokes: set[str] = field(default_factory=set)  # ends with the connection at these
    requests: list[list[str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    port: int = 0


@contextmanager
def serving(archive: Archive) -> Iterator[Archive]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(archive.statuses[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            if archive.cut_after is not None:
                self.rfile.read(archive.cut_after)
                self.connection.close()
                return
            archive.authorizations.append(self.headers["Authorization"])
            body = self.rfile.read(int(self.headers["Content-Length"]))
            uids = [self._note(part) for part in self._parts(body)]
            archive.requests.append(uids)
            if archive.chokes & set(uids):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status = archive.statuses.pop(0) if len(archive.statuses) > 1 else archive.statuses[0]
            said = b"" if archive.says_nothing or status not in (200, 202, 409) else json.dumps(_answer(uids)).encode()
            self.send_response(status)
            for name, value in archive.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def _parts(self, body: bytes) -> list[bytes]:
            boundary = self.headers.get_param("boundary")
            assert isinstance(boundary, str)
            first, *parts, last = body.split(f"--{boundary}".encode())
            assert (first, last) == (b"", b"--\r\n")
            return parts

        def _note(self, part: bytes) -> str:
            head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            headers = BytesHeaderParser().parsebytes(head + b"\r\n\r\n")
            assert headers.get_content_type() == "application/dicom"
            archive.bodies.append(content.removesuffix(b"\r\n"))
            return str(pydicom.dcmread(BytesIO(content)).SOPInstanceUID)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    def _answer(uids: list[str]) -> dict[str, object]:
        said: dict[str, object] = {}
        stored = [
            _item(uid, "00081196", archive.warned.get(uid))
            for uid in uids
            if uid not in archive.failed and uid not in archive.forgets
        ]
        failed = [_item(uid, "00081197", archive.failed[uid]) for uid in uids if uid in archive.failed]
        if stored or archive.forgets:
            said["00081199"] = {"vr": "SQ", "Value": stored}
        if failed:
            said["00081198"] = {"vr": "SQ", "Value": failed}
        return said

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    archive.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _item(uid: str, tag: str, reason: int | None) -> dict[str, object]:
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if reason is not None:
        item[tag] = {"vr": "US", "Value": [reason]}
    return item
