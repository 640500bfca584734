"""Telling systemd how we are (sd_notify(3)): one datagram to the socket it names; silence where there is none."""

import os
import socket

SEND_TIMEOUT_S = 1.0


def notify(*states: str) -> None:
    """Send states such as `READY=1`, `WATCHDOG=1`, `STATUS=...`; a socket that is gone is no fault of ours."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(SEND_TIMEOUT_S)
        try:
            channel.sendto("\n".join(states).encode(), address)
        except OSError:
            return


def watchdog_interval_s() -> float | None:
    """Return how often systemd wants `WATCHDOG=1` (half its limit), None where no watchdog is set."""
    limit = os.environ.get("WATCHDOG_USEC")
    return int(limit) / 2e6 if limit and limit.isdigit() else None
