"""What a benchmark runs against: agents, simulators and peers as processes of their own on loopback."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"
START_TIMEOUT_S = 60.0
RUN_TIMEOUT_S = 900.0


def free_port() -> int:
    """Return a port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def folder() -> Iterator[Path]:
    """Give a folder on the disk that is measured (BENCH_DIR, else the working directory: never a memory disk)."""
    place = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIR", ".")))
    try:
        yield place.resolve()
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def process(*command: str, environment: dict[str, str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    """Run a program until the end of the block; SIGTERM, then SIGKILL."""
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **(environment or {})}
    )
    try:
        yield child
    finally:
        stop(child)


def stop(child: "subprocess.Popen[str]", timeout_s: float = 20.0) -> None:
    """End a child in order, or by force."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child.stdout is not None:
        child.stdout.close()


@contextmanager
def simulator(name: str, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, Any]]]:
    """Run a simulator and give it with its first line."""
    with process(sys.executable, "-m", f"simulators.{name}", *arguments) as child:
        assert child.stdout is not None
        yield child, json.loads(child.stdout.readline())


@contextmanager
def peer(script: str, *arguments: str) -> Iterator[int]:
    """Run one of the peers' scripts, which prints its port first; give the port."""
    with process(sys.executable, str(PEERS / script), *arguments) as child:
        assert child.stdout is not None
        yield int(child.stdout.readline())


def finish(child: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait for a simulator that ends by itself; return its last line."""
    assert child.stdout is not None
    lines = child.stdout.read().strip().splitlines()
    child.wait(RUN_TIMEOUT_S)
    summary: dict[str, Any] = json.loads(lines[-1])
    return summary


def run_simulator(name: str, *arguments: str) -> dict[str, Any]:
    """Run a simulator to its end; return its last line."""
    with simulator(name, *arguments) as (child, _):
        return finish(child)


@contextmanager
def agent(place: Path, stanzas: str, *, wait_for: Sequence[int] = ()) -> Iterator["subprocess.Popen[str]"]:
    """Run `gateway run` with a configuration in `place`; give it once the named ports take connections."""
    config = place / "gateway.toml"
    config.write_text(
        f'[gateway]\nname = "bench"\ndata_dir = "{place}/data"\nlog_level = "error"\n'
        f'[retention]\nreserve = "1 MiB"\nstop_intake_below = "64 MiB"\n'
        f'[console]\nlisten = "127.0.0.1:{free_port()}"\n{stanzas}'
    )
    with process(sys.executable, "-m", "gateway.cli.main", "run", "-c", str(config)) as child:
        for port in wait_for:
            wait_for_port(port)
        yield child


def wait_for_port(port: int) -> None:
    """Wait until somebody listens on a port of this machine."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on port {port}")


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmRSS")


def cpu_s(pid: int) -> float:
    """Return the processor seconds a process has used, with its ended children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
