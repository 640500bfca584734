"""From the `port` of a Device's stanza to its Stream."""

import re
from pathlib import Path

from gateway.driver import LineSettings
from gateway.errors import LinkError
from gateway.net.replay import open_replay
from gateway.net.serial import open_serial
from gateway.net.stream import Stream
from gateway.net.tcp import connect_tcp, listen_tcp
from gateway.net.threaded import open_url
from gateway.net.udp import open_udp, open_udp_host

_URL = re.compile(
    r"(?P<scheme>tcp|listen|udp|udp-host)://(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:/\[\]]+)):(?P<port>\d{1,5})/?"
    r"(?:\?from=(?P<sender>[^?&]+))?"
)


async def open_stream(port: str, line: LineSettings) -> Stream:
    """Open what `port` names: a serial device's path, tcp://, listen://, udp://, udp-host://, socket://, rfc2217://
    or replay:FILE.

    `line` is for serial lines alone. Raises LinkError.
    """
    if port.startswith("replay:"):
        return await open_replay(Path(port.removeprefix("replay:")))
    if port.startswith(("socket://", "rfc2217://")):
        return await open_url(port, line)
    if "://" not in port:
        return await open_serial(port, line)
    url = _URL.fullmatch(port)
    if url is None or int(url["port"]) > 65535 or (url["sender"] and url["scheme"] != "udp"):
        raise LinkError(
            f"{port}: expected tcp://HOST:PORT, listen://ADDRESS:PORT, udp://HOST:PORT, udp://HOST:PORT?from=HOST, "
            "or a device's path"
        )
    host, number = url["six"] or url["host"], int(url["port"])
    match url["scheme"]:
        case "tcp":
            return await connect_tcp(host, number)
        case "listen":
            return await listen_tcp(host, number)
        case "udp-host":
            return await open_udp_host(host, number)
        case _:
            return await open_udp(host, number, url["sender"])
