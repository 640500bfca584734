"""Group `mllp`: intake, end to end, a long backlog, memory."""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from measuring import Figure, figure, in_turn, tell
from world import agent, finish, folder, free_port, peer, rss_mb, run_simulator, simulator

RUNS = 5
FRAMES = {1: 6_000, 8: 30_000, 64: 40_000}
PEER_FRAMES = 600
END_TO_END = 20_000
LATENCY_MESSAGES = 1_500
BACKLOG = 1_000_000
BACKLOG_FRAMES = 20_000
BACKLOG_RUNS = 3

_SOURCE = '[[source]]\nname = "in"\ntype = "mllp"\nlisten = "127.0.0.1:{port}"\n'
_DESTINATION = '[[destination]]\nname = "out"\ntype = "mllp"\nhost = "127.0.0.1"\nport = {port}\nenabled = {enabled}\n'


def intake(connections: int) -> Figure:
    """Durable intake against python-hl7's server and the bare limit; nothing is delivered meanwhile."""
    tell(f"intake with {connections} connections")
    frames = FRAMES[connections]
    ours, theirs, limits = in_turn(
        RUNS,
        lambda: _our_intake(connections, frames),
        lambda: _peer_intake("python_hl7_server.py", connections, PEER_FRAMES),
        lambda: _limit_intake(connections, frames),
    )
    return figure(f"mllp-intake-{connections}", "msg/s", ours, peer="python-hl7 server", peers=theirs, limits=limits)


def end_to_end() -> Figure:
    """MLLP in, durable, MLLP out, one lane: from the first frame sent to the last one received."""
    tell("end to end")

    def once() -> float:
        with (
            folder() as place,
            simulator("mllp_receiver", "--stop-after", str(END_TO_END)) as (sink, told),
            _gateway(place, sink=int(told["port"])) as (_, port),
        ):
            started = time.perf_counter()
            _send(port, 8, END_TO_END)
            finish(sink)
            return END_TO_END / (time.perf_counter() - started)

    (ours,) = in_turn(RUNS, once)
    return figure("mllp-end-to-end", "msg/s", ours, note="8 connections in, 1 lane out, 4.6 KB")


def end_to_end_latency() -> Figure:
    """Time from the last byte of a frame to its arrival at the receiver, one message at a time."""
    tell("end to end latency")

    def once() -> float:
        with folder() as place:
            sink = free_port()
            with _gateway(place, sink=sink) as (_, port):
                return statistics.median(asyncio.run(_latencies(port, sink, LATENCY_MESSAGES))) * 1e3

    (ours,) = in_turn(3, once)
    return figure("mllp-end-to-end-p50", "ms", ours)


def backlog() -> list[Figure]:
    """Intake and drain with a million messages waiting, over the same with none."""
    intakes, drains, waiting_intakes, waiting_drains, grown = [], [], [], [], []
    for run in range(BACKLOG_RUNS):
        tell(f"backlog, run {run + 1} of {BACKLOG_RUNS}")
        with folder() as place:
            intakes.append(_paused_intake(place))
            drains.append(_drain(place, BACKLOG_FRAMES)[0])
        with folder() as place:
            _fill(place, BACKLOG)
            waiting_intakes.append(_paused_intake(place))
            rate, memory = _drain(place, BACKLOG_FRAMES)
            waiting_drains.append(rate)
            grown.append(memory)
    return [
        figure(
            "backlog-intake",
            "ratio",
            [full / none for full, none in zip(waiting_intakes, intakes, strict=True)],
            note=f"{statistics.median(waiting_intakes):.0f} msg/s with {BACKLOG} waiting,"
            f" {statistics.median(intakes):.0f} with none",
        ),
        figure(
            "backlog-drain",
            "ratio",
            [full / none for full, none in zip(waiting_drains, drains, strict=True)],
            note=f"{statistics.median(waiting_drains):.0f} msg/s with {BACKLOG} waiting,"
            f" {statistics.median(drains):.0f} with none",
        ),
        figure("memory-backlog", "MB", grown, note="growth of the resident memory over idle, while draining"),
    ]


def memory_idle() -> Figure:
    """Resident memory of an agent with an MLLP, a DICOM and a device source and three destinations, doing nothing."""
    tell("memory, idle")
    with folder() as place, _gateway(place, more=_everything()) as (child, _):
        time.sleep(3)  # what starts lazily has started
        return figure("memory-idle", "MB", [rss_mb(child.pid)], note="all kinds of sources and destinations")


def _our_intake(connections: int, frames: int) -> float:
    with folder() as place, _gateway(place) as (_, port):
        return _send(port, connections, frames)


def _peer_intake(script: str, connections: int, frames: int) -> float:
    with peer(script) as port:
        return _send(port, connections, frames)


def _limit_intake(connections: int, frames: int) -> float:
    with folder() as place, peer("bare_limit.py", str(place / "bare.db")) as port:
        return _send(port, connections, frames)


def _paused_intake(place: Path) -> float:
    with _gateway(place) as (_, port):
        return _send(port, 8, BACKLOG_FRAMES)


def _drain(place: Path, count: int) -> tuple[float, float]:
    """Deliver so many of what waits; return the rate, and by how many MB the agent grew over its start."""
    with (
        simulator("mllp_receiver", "--stop-after", str(count)) as (sink, told),
        _gateway(place, sink=int(told["port"])) as (child, _),
    ):
        idle = rss_mb(child.pid)
        summary = finish(sink)
        return count / float(summary["seconds"]), rss_mb(child.pid) - idle


def _send(port: int, connections: int, frames: int) -> float:
    summary = run_simulator(
        "emr", "--to", f"127.0.0.1:{port}", "--kind", "oru25", "--count", str(frames), "--connections", str(connections)
    )
    assert summary["acknowledged"] == frames, summary
    return float(summary["rate"])


@contextmanager
def _gateway(place: Path, *, sink: int | None = None, more: str = "") -> Iterator[tuple["subprocess.Popen[str]", int]]:
    port = free_port()
    enabled = "true" if sink else "false"
    stanzas = _SOURCE.format(port=port) + _DESTINATION.format(port=sink or 1, enabled=enabled) + more
    with agent(place, stanzas, wait_for=[port]) as child:
        yield child, port


def _fill(place: Path, count: int) -> None:
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("fill.py")), str(place / "data"), str(count)], check=True
    )


def _everything() -> str:
    return (
        f'[[source]]\nname = "images"\ntype = "dicom"\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[[source]]\nname = "bed"\ntype = "device"\ndriver = "nellcor"\nport = "listen://127.0.0.1:{free_port()}"\n'
        f'[[destination]]\nname = "pacs"\ntype = "dicom"\nhost = "127.0.0.1"\nport = 1\nae_title = "PACS"\n'
        f'[[destination]]\nname = "broker"\ntype = "mqtt"\nurl = "mqtt://127.0.0.1:{free_port()}"\n'
        '[[route]]\nfrom = ["*"]\nto = ["out", "pacs", "broker"]\n'
    )


async def _latencies(port: int, sink: int, count: int) -> list[float]:
    """Send one message after the other; each is timed until the receiver, in this process, has it whole."""
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while frame := await reader.readuntil(b"\x1c\r"):
            await arrived.put(time.perf_counter())
            control_id = frame.split(b"|", 10)[9]
            writer.write(b"\x0bMSH|^~\\&|S|S|G|G|20260101||ACK|1|P|2.6\rMSA|AA|%s\r\x1c\r" % control_id)

    async def ignore_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError):
            await receive(reader, writer)
        writer.close()

    server = await asyncio.start_server(ignore_end, "127.0.0.1", sink, limit=1 << 20)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b"OBX|1|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC|1.1.1.1|97\r" * 80
    times = []
    for number in range(count):
        sent = time.perf_counter()
        writer.write(b"\x0bMSH|^~\\&|B|B|G|G|20260101||ORU^R01|L%d|P|2.6\r%s\x1c\r" % (number, body))
        await reader.readuntil(b"\x1c\r")
        times.append(await arrived.get() - sent)
    writer.close()
    server.close()
    return times[count // 10 :]


MEASURES = {
    "mllp-intake-1": lambda: [intake(1)],
    "mllp-intake-8": lambda: [intake(8)],
    "mllp-intake-64": lambda: [intake(64)],
    "mllp-end-to-end": lambda: [end_to_end()],
    "mllp-end-to-end-p50": lambda: [end_to_end_latency()],
    "memory-idle": lambda: [memory_idle()],
    "backlog": backlog,
}
