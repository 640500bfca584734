"""The agent as a process of its own: started with a configuration, waited for, killed or stopped."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.05
HEAD = """
[gateway]
name = "ward"
data_dir = "{data}"
[retention]
reserve = "1 MiB"
stop_intake_below = "1 MiB"
[console]
listen = "127.0.0.1:{console}"
"""


class NotReadyError(Exception):
    """The agent ended, or was not ready in time."""


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Tell whether somebody listens on a TCP port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds. Raises TimeoutError."""
    for _ in range(int(READY_TIMEOUT_S / POLL_S)):
        if holds():
            return
        threading.Event().wait(POLL_S)
    raise TimeoutError


class Agent:
    """One start of the agent; `prefix` is a command that runs it (strace)."""

    def __init__(
        self,
        config: Path,
        log: Path,
        *,
        module: str = "gateway.cli.main",
        prefix: Sequence[str] = (),
        timeout_s: float = READY_TIMEOUT_S,
        until_ready: bool = True,
    ) -> None:
        """Start it and return once it says READY=1 (sd_notify), or at once. Raises NotReadyError."""
        self.log = log
        with tempfile.TemporaryDirectory(prefix="notify-") as folder:
            manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            manager.bind(f"{folder}/s")
            with log.open("ab") as output:
                self.process = subprocess.Popen(
                    [*prefix, sys.executable, "-m", module, "run", "-c", str(config)],
                    stdout=output,
                    stderr=output,
                    cwd=ROOT,
                    env=os.environ | {"NOTIFY_SOCKET": f"{folder}/s"},
                )
            with manager:
                if until_ready:
                    self._wait_ready(manager, timeout_s)

    def _wait_ready(self, manager: socket.socket, timeout_s: float) -> None:
        manager.settimeout(0.2)
        for _ in range(int(timeout_s / 0.2)):
            try:
                if b"READY=1" in manager.recv(4096):
                    return
            except TimeoutError:
                if self.process.poll() is not None:
                    break
        self.kill()
        tail = self.log.read_text("utf-8", "replace")[-2000:]
        raise NotReadyError(f"the agent was not ready: status {self.process.returncode}\n{tail}")

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)

    def stop(self) -> int:
        """Ask it to stop; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
