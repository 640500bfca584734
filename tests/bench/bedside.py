"""Group `bedside`: a ward of simulated monitors on ptys, one agent, mosquitto; all on this machine's cores.

Of ten monitors six are IntelliVue with two waves each, two are S/5, one is a ventilator with curves, one an oximeter.
The simulators, processes of their own, write every piece they sent with its time and its bytes. Afterwards a fresh
Session of each driver reads those bytes: what it reads must lie in the store, delivered, each Reading once. Latency is
from before the write of the piece that completed a Reading to the agent's note of the PUBACK for all it became.
"""

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
import tomllib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from measuring import Figure, figure, tell
from world import agent, cpu_s, folder, free_port, process, simulator, stop, wait_for_port

from gateway.driver import Session
from gateway.registry import create_driver
from simulators.journal import read_journal

SECONDS = float(os.environ.get("BEDSIDE_SECONDS", "300"))
LIMIT_SECONDS = float(os.environ.get("BEDSIDE_LIMIT_SECONDS", "15"))
MONITORS = int(os.environ.get("BEDSIDE_MONITORS", "100"))
MONITORS_MAX = 1600
P99_MS_MAX = 100.0
GREETING_S = 8.0  # until everybody is met: associations, identifications, first curves
AFTER_S = 10.0  # what was sent by then has arrived, or never will
STEP = 50  # of the search
TAIL_BYTES = 6
RECENT_MAX = 200  # pieces that are looked through for the end of a row


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of monitor: its share of ten, its driver, options of the stanza and of the simulator."""

    share: int
    driver: str
    simulator: str
    options: str = ""
    arguments: tuple[str, ...] = ()
    one_each: bool = False  # the simulator plays one monitor a process


KINDS = (
    Kind(6, "philips-intellivue", "philips_intellivue", 'waves = ["ecg-ii", "pleth"]'),
    Kind(2, "datex-s5", "datex_s5"),
    Kind(1, "medibus", "medibus", arguments=("--model", "v500")),
    Kind(1, "nonin", "nonin", one_each=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """One monitor of the ward: its Source, its port, and the kind it is of."""

    source: str
    port: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Ward:
    """What came of one run. Latencies in ms; `cores` is the agent's share of processors."""

    monitors: int
    readings: int
    lost: int
    p50: float
    p99: float
    worst: float
    heard_p99: float
    cores: float
    memory_mb: float

    @property
    def stands(self) -> bool:
        """Tell whether nothing was lost and all was in time."""
        return self.lost == 0 and self.p99 <= P99_MS_MAX


def hundred() -> list[Figure]:
    """Play the ward for five minutes."""
    tell(f"{MONITORS} monitors for {SECONDS:g} s")
    found = play(MONITORS, SECONDS)
    told = (
        f"{found.monitors} monitors, {found.readings} results in {SECONDS:g} s; agent: {found.cores:.2f} cores,"
        f" {found.memory_mb:.0f} MB; p50 {found.p50:.1f} ms, worst {found.worst:.1f} ms,"
        f" p99 until read {found.heard_p99:.1f} ms"
    )
    return [
        figure("bedside-100-p99", "ms", [found.p99], note=told),
        figure("bedside-100-lost", "results", [float(found.lost)], note="sent by a monitor, not delivered once"),
    ]


def limit() -> list[Figure]:
    """Search in short runs how many monitors are served before something is lost or late."""
    good, bad = 0, MONITORS_MAX + STEP
    last: Ward | None = None
    wanted = MONITORS
    while bad - good > STEP and wanted <= MONITORS_MAX:
        found = play(wanted, LIMIT_SECONDS)
        tell(f"{wanted} monitors: {found}")
        if found.stands:
            good, last = wanted, found
        else:
            bad = wanted
        wanted = good * 2 if bad > MONITORS_MAX else (good + bad) // 2 // 10 * 10
    cores = f"{last.cores:.2f} cores of the agent, p99 {last.p99:.0f} ms" if last is not None else ""
    note = f"{cores}; simulators and broker on the same {os.cpu_count()} cores; runs of {LIMIT_SECONDS:g} s"
    return [figure("bedside-limit", "monitors", [float(good)], note=note)]


def play(monitors: int, seconds: float, *, more: str = "", beside: AbstractContextManager[Any] | None = None) -> Ward:
    """Run the whole ward once, with `more` stanzas, and `beside` it something else while it is judged."""
    with folder() as place, ExitStack() as stack:
        broker = stack.enter_context(_broker(place))
        ended = ExitStack()
        stack.enter_context(ended)
        beds = [bed for kind in KINDS for bed in _beds(kind, monitors, place, ended)]
        child = stack.enter_context(agent(place, _stanzas(beds, broker) + more))
        time.sleep(GREETING_S + monitors / 50)
        with beside or nullcontext():
            since, used = time.time(), cpu_s(child.pid)
            time.sleep(seconds)
            until, cores = time.time(), (cpu_s(child.pid) - used) / seconds
        time.sleep(AFTER_S)
        memory = _most_memory_mb(child.pid)
        stop(child)  # before the monitors: an agent that has lost its Devices has other things to do
        ended.close()
        return _judged(place, beds, since, until, cores=cores, memory_mb=memory)


@contextmanager
def _broker(place: Path) -> Iterator[int]:
    port = free_port()
    file = place / "mosquitto.conf"
    file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest none\n")
    with process("mosquitto", "-c", str(file)):
        wait_for_port(port)
        with process("sh", "-c", f"exec mosquitto_sub -p {port} -V 5 -q 0 -t '#' > /dev/null"):  # somebody listens
            yield port


def _beds(kind: Kind, monitors: int, place: Path, stack: ExitStack) -> list[Bed]:
    count = monitors * kind.share // 10
    journal = ("--journal", str(place / f"{kind.simulator}.jsonl"), "--journal-bytes")
    if not kind.one_each:
        more = (*kind.arguments, "--monitors", str(count), *journal)
        _, told = stack.enter_context(simulator(kind.simulator, *more))
        ports = told["ports"]
    else:
        ports = [_alone(kind, number, place, stack) for number in range(count)]
    return [Bed(source=f"{kind.driver}-{number}", port=port, kind=kind) for number, port in enumerate(ports)]


def _alone(kind: Kind, number: int, place: Path, stack: ExitStack) -> str:
    link = place / f"{kind.simulator}-{number}"
    journal = place / f"{kind.simulator}.{number}.jsonl"
    command = ("-m", f"simulators.{kind.simulator}", *kind.arguments, "--start", str(37 * number))
    child: subprocess.Popen[str] = stack.enter_context(
        process(sys.executable, *command, "--pty", str(link), "--journal", str(journal), "--journal-bytes")
    )
    assert child.stdout is not None
    child.stdout.readline()
    return str(link)


def _stanzas(beds: list[Bed], broker: int) -> str:
    sources = [
        f'[[source]]\nname = "{bed.source}"\ntype = "device"\ndriver = "{bed.kind.driver}"\nport = "{bed.port}"\n'
        f'bed = "ICU^^{number}"\noptions = {{ {bed.kind.options} }}\n'
        for number, bed in enumerate(beds)
    ]
    destination = f'[[destination]]\nname = "broker"\ntype = "mqtt"\nurl = "mqtt://127.0.0.1:{broker}"\n'
    route = f'[[route]]\nfrom = {json.dumps([bed.source for bed in beds])}\nto = ["broker"]\n'
    return "".join(sources) + destination + route


def _most_memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmHWM")


@dataclass(frozen=True, slots=True)
class _Kept:
    tail: bytes  # the last bytes of the Reading
    received_at: float
    delivered_at: float | None


def _judged(place: Path, beds: list[Bed], since: float, until: float, *, cores: float, memory_mb: float) -> Ward:
    kept, sent = _kept(place / "data"), _sent(place, beds)
    times, heard, lost = [], [], 0
    for bed in beds:
        expected = _expected(bed, sent[bed.port])
        found = _matched(expected, kept[bed.source])
        missing = 0
        for (_, sent_at), one in zip(expected, found, strict=True):
            if not since <= sent_at <= until:
                continue  # before its port was opened, and after the agent was told to stop, it speaks to nobody
            if one is None or one.delivered_at is None:
                missing += 1
                continue
            sent_at = max(sent_at, _completed_at(one, sent[bed.port], sent_at))
            times.append((one.delivered_at - sent_at) * 1e3)
            heard.append((one.received_at - sent_at) * 1e3)
        lost += missing
        if missing:
            tell(f"{bed.source}: {missing} lost")
    times.sort()
    return Ward(
        monitors=len(beds),
        readings=len(times),
        lost=lost,
        p50=statistics.median(times),
        p99=times[int(len(times) * 0.99)],
        worst=times[-1],
        heard_p99=sorted(heard)[int(len(heard) * 0.99)],
        cores=cores,
        memory_mb=memory_mb,
    )


def _matched(expected: list[tuple[str, float]], kept: dict[str, list[_Kept]]) -> list[_Kept | None]:
    """Return for each that is expected the row that it became, each row once; None where there is none.

    Rows are given out from the end, and to all that was sent, also after the time that is judged: what is missing at
    the beginning, and what came late in the run, must not shift a Device that repeats itself.
    """
    left = {digest: list(rows) for digest, rows in kept.items()}
    found: list[_Kept | None] = []
    for digest, sent_at in reversed(expected):
        rows = left.get(digest)
        found.append(rows.pop() if rows and rows[-1].received_at >= sent_at else None)
    return found[::-1]


def _completed_at(row: _Kept, entries: list[dict[str, Any]], otherwise: float) -> float:
    """Return when the piece that ends like a row was sent, the last one before the row came.

    A Device says the same again and again, and a Session may tell of it one round later than another does.
    """
    end = bisect_right(entries, row.received_at, key=lambda entry: float(entry["began_at"]))
    tail = row.tail.hex()
    return next(
        (
            float(entry["began_at"])
            for entry in reversed(entries[max(0, end - RECENT_MAX) : end])
            if tail in entry["data"]
        ),
        otherwise,
    )


def _kept(data: Path) -> dict[str, dict[str, list[_Kept]]]:
    """Return by Source and digest of the raw bytes what lies in the store, in the order in which it came."""
    (file,) = data.glob("*.db")
    rows = sqlite3.connect(f"file:{file}?mode=ro", uri=True).execute(
        "SELECT s.name, m.digest, m.raw, m.received_at,"
        " (SELECT min(a.at) FROM delivery d JOIN attempt a ON a.delivery = d.id"
        " WHERE d.message = m.id AND d.state = 1 AND a.verdict = 'delivered')"
        " FROM message m JOIN endpoint s ON s.id = m.source WHERE m.quarantined IS NULL AND m.raw IS NOT NULL"
        " ORDER BY m.id"
    )
    kept: dict[str, dict[str, list[_Kept]]] = defaultdict(lambda: defaultdict(list))
    for source, digest, raw, received_at, delivered_at in rows:
        delivered = None if delivered_at is None else delivered_at / 1e6
        kept[source][digest.hex()].append(_Kept(raw[-TAIL_BYTES:], received_at / 1e6, delivered))
    return kept


def _sent(place: Path, beds: list[Bed]) -> dict[str, list[dict[str, Any]]]:
    """Return by port what the simulators say they have sent."""
    sent: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in {bed.kind.simulator for bed in beds}:
        for entry in read_journal(place / f"{name}.jsonl"):
            sent[str(entry["id"])].append(entry)
        for journal in place.glob(f"{name}.*.jsonl"):
            number = journal.name.split(".")[1]
            sent[str(place / f"{name}-{number}")] = list(read_journal(journal))
    return sent


def _expected(bed: Bed, entries: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Return what a fresh Session reads of what was sent: for each Result the digest of its bytes, and when."""
    driver, faults = create_driver(bed.kind.driver, _options(bed.kind))
    assert driver is not None, faults
    session, expected, before = driver.open(), [], 0.0
    for entry in entries:
        at = float(entry["began_at"])
        _pass_time(session, at)
        expected += _read(session, before)  # gathered of earlier bytes, told by the clock
        session.receive(bytes.fromhex(entry["data"]), at)
        expected += _read(session, at)
        before = at
    return expected


def _read(session: Session, at: float) -> list[tuple[str, float]]:
    return [(sha256(reading.raw).hexdigest(), at) for reading in session.take_readings() for _ in reading.results]


def _options(kind: Kind) -> dict[str, Any]:
    return tomllib.loads(kind.options)


def _pass_time(session: Session, now: float) -> float:
    """Tell the Session the time; return when it was due to be told."""
    session.take_output()
    due = session.deadline
    if due is None or due > now:
        return now
    session.tick(now)
    session.take_output()
    return due


MEASURES = {"bedside-100": hundred, "bedside-limit": limit}
