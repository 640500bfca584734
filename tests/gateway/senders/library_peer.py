"""A peer made of pynetdicom's own server, which opens and closes quickly."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pynetdicom import AE
from pynetdicom.transport import ThreadedAssociationServer

POLL_S = 0.01


@contextmanager
def serving(ae: AE, port: int, handlers: list[Any]) -> Iterator[int]:
    """Serve on a port of loopback (0: a free one) and give it; end when no association stands any more."""
    server = ae.make_server(("127.0.0.1", port), evt_handlers=handlers, server_class=ThreadedAssociationServer)
    ae._servers.append(server)  # as its start_server does, which polls only twice a second
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": POLL_S})
    thread.start()
    assert server.socket is not None
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        for _ in range(int(5 / POLL_S)):  # the library's own threads trip over a shutdown while they close
            if not ae.active_associations:
                break
            threading.Event().wait(POLL_S)
        server.shutdown()
        thread.join(10)
