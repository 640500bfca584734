"""Dead peers are noticed: TCP options that every long-lived connection carries."""

import socket
from typing import Protocol

DEAD_PEER_S = 30  # a peer that acknowledges nothing for so long is gone
_PROBE_AFTER_S = 20
_PROBE_EVERY_S = 5
_PROBES_MAX = 3
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # Linux


class SocketOptions(Protocol):
    """A socket, or what an event loop shows of one."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        """Set one option."""
        ...


def keep_alive(connection: SocketOptions) -> None:
    """Probe an idle peer, give up on one that acknowledges nothing for DEAD_PEER_S, and send small writes at once."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES_MAX)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_S * 1000)


def acknowledge_at_once(connection: SocketOptions) -> None:
    """Acknowledge what was read without delay; the kernel forgets it, so it is said again after each read.

    A peer with Nagle's algorithm (mosquitto has it by default) holds its second small packet back until the first is
    acknowledged, which a kernel that has nothing to say puts off by 40 ms.
    """
    if _QUICKACK is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
