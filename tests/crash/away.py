"""The campaign `away`: the PACS was away for a day, Instances are owed, and now it is back.

The backlog is written as intake would have left it after a day: Instances received over the last 24 hours from two
modalities at a time, each tried again and again. The agent starts while the PACS is still away, then the PACS comes
back. First without any kill: everything must arrive once, study by study. Then the same with the agent killed while it
forwards: everything must arrive, and what is repeated is no more than what was on its way.
"""

import hashlib
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset

from gateway.clock import SystemClock
from gateway.delivery import UNSETTLED_MAX
from gateway.formats.dicom import part10_prefix
from gateway.model import Accepted, DeliveryState, Incoming, Kind, Receipt, Verdict
from gateway.spool import Spool, content_hash
from gateway.store.connection import open_reader
from gateway.store.store import Store
from simulators.journal import read_journal
from tests.crash import judging
from tests.crash.world import Simulator, wait_until
from tests.system.agents import HEAD, Agent, free_port

INSTANCES = 20_000
STUDY = 40  # Instances in one
REFERENCE = 2_000  # that DCMTK sends, to know what the line takes
PIXELS = bytes(8192)
AWAY_S = 3.0  # of the agent's life, before the PACS is back
DRAIN_TIMEOUT_S = 1800.0
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"

CONFIG = (
    HEAD
    + """
[[source]]
name = "imaging"
type = "dicom"
listen = "127.0.0.1:{dicom}"
[[destination]]
name = "pacs"
type = "dicom"
host = "127.0.0.1"
port = {pacs}
ae_title = "PACS"
parallel = {parallel}
"""
)


def run_away(
    folder: Path, kills: int, seed: int, module: str, *, instances: int = INSTANCES, parallel: int = 1
) -> judging.Verdict:
    """Let the PACS come back after a day, and kill the agent while it forwards; return what became of all."""
    began_s = time.monotonic()
    verdict = judging.Verdict(name="away", kills=kills, acknowledged=instances)
    if instances >= REFERENCE:
        verdict.line_a_second = _line_rate(folder / "line")
    calm = _bring_back(folder / "calm", 0, module, instances, parallel, verdict)
    if calm != instances:
        verdict.unexpected += 1
        verdict.note(f"{calm - instances} arrived twice though nothing was killed")
    if kills:
        stormy = _bring_back(folder / "killed", kills, module, instances, parallel, verdict)
        verdict.repeated = stormy - instances
        if verdict.repeated > kills * UNSETTLED_MAX * parallel:
            verdict.unexpected += 1
            verdict.note(f"{verdict.repeated} repeats of {kills} kills")
    verdict.seconds = round(time.monotonic() - began_s, 1)
    return verdict


def _line_rate(folder: Path) -> float:
    """Return how many such Instances a second DCMTK's storescu brings to such a PACS on one association."""
    files, journal = folder / "files", folder / "pacs.jsonl"
    files.mkdir(parents=True)
    for uid, _, body in _objects(REFERENCE):
        prefix = part10_prefix(sop_class_uid=CT, sop_instance_uid=uid, transfer_syntax=EXPLICIT)
        (files / uid).write_bytes(prefix + body)
    pacs = Simulator("dicom_receiver", "--journal", journal)
    command = ["storescu", "+sd", "127.0.0.1", str(pacs.port), str(files)]
    try:
        subprocess.run(command, env={**os.environ, "TCP_NODELAY": "1"}, timeout=DRAIN_TIMEOUT_S, check=True)
    finally:
        pacs.stop()
    rate, _ = _rate(read_journal(journal))
    print(f"  storescu brings {rate:.0f} a second", file=sys.stderr)
    return round(rate)


def _rate(lines: Sequence[dict[str, object]]) -> tuple[float, float]:
    """Return how many arrived a second, and in which time in seconds."""
    took_s = float(str(lines[-1]["monotonic_s"])) - float(str(lines[0]["monotonic_s"]))
    return len(lines) / max(took_s, 0.001), took_s


def _bring_back(folder: Path, kills: int, module: str, instances: int, parallel: int, verdict: judging.Verdict) -> int:
    """Run one house from backlog to drained; return how many C-STOREs the PACS answered."""
    folder.mkdir(parents=True)
    data, journal, pacs_port = folder / "data", folder / "pacs.jsonl", free_port()
    config = folder / "gateway.toml"
    text = CONFIG.format(data=data, console=free_port(), dicom=free_port(), pacs=pacs_port, parallel=parallel)
    config.write_text(text, "utf-8")
    uids = fill(data, instances)
    agent = Agent(config, folder / "agent.log", module=module)
    time.sleep(AWAY_S)
    pacs = Simulator("dicom_receiver", "--listen", f"127.0.0.1:{pacs_port}", "--journal", journal)
    try:
        for number in range(1, kills + 1):
            goal = instances * number // (kills + 1)
            wait_until(lambda goal=goal: _stored(journal) >= goal, DRAIN_TIMEOUT_S)  # type: ignore[misc]
            agent.kill()
            agent = Agent(config, folder / "agent.log", module=module)
        wait_until(lambda: pending(data) == 0, DRAIN_TIMEOUT_S)
    finally:
        agent.stop()
        pacs.stop()
    return _judge(uids, data, journal, verdict, parallel)


def fill(data: Path, instances: int) -> list[tuple[str, str, str]]:
    """Write a day's backlog; return SOP Instance UID, study and SHA-256 of each, in the order of receipt."""
    data.mkdir(parents=True)
    spool = Spool(data / "spool")
    spool.open()
    began_at = datetime.now(UTC) - timedelta(days=1)
    store = Store(data, SystemClock(), failed=lambda error: None)
    done = threading.Semaphore(0)
    expected = []
    for number, (uid, study, body) in enumerate(_objects(instances)):
        name = secrets.token_hex(32)
        prefix = part10_prefix(sop_class_uid=CT, sop_instance_uid=uid, transfer_syntax=EXPLICIT)
        (spool.objects / name).write_bytes(prefix + body)
        incoming = Incoming(
            source="imaging",
            kind=Kind.DICOM,
            received_at=began_at + timedelta(seconds=86_400 * number / instances),
            size=len(body),
            digest=content_hash(body).digest(),
            identifier=uid,
            object_name=name,
            headers={"StudyInstanceUID": study, "SOPClassUID": CT},
            lane_key=study,
        )
        store.keep(incoming, ("pacs",), lambda outcome: done.release() if isinstance(outcome, Accepted) else None)
        expected.append((uid, study, hashlib.sha256(body).hexdigest()))
        if number % 500 == 499:
            _wait(done, 500)
    _wait(done, instances % 500)
    _try_in_vain(store)
    store.close()
    return expected


def pending(data: Path) -> int:
    """Return how many deliveries wait."""
    connection = open_reader(data / "gateway.db")
    try:
        return int(str(connection.execute("SELECT count(*) FROM delivery WHERE state = 0").get))
    finally:
        connection.close()


def _objects(instances: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield UID, study and data set; two studies come at a time, turn by turn."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.StudyInstanceUID = CT, "1.2.000000", "1.3.000000"
    dataset.PixelData = PIXELS
    dataset["PixelData"].VR = "OW"
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True)
    template = buffer.getvalue()
    for number in range(instances):
        study = 2 * (number // (2 * STUDY)) + number % 2
        uid, study_uid = f"1.2.{number + 100_000:06d}", f"1.3.{study + 100_000:06d}"
        yield uid, study_uid, template.replace(b"1.2.000000", uid.encode()).replace(b"1.3.000000", study_uid.encode())


def _wait(done: threading.Semaphore, count: int) -> None:
    for _ in range(count):
        if not done.acquire(timeout=60):
            raise TimeoutError("the store did not keep the backlog")


def _try_in_vain(store: Store) -> None:
    """Leave the mark of a day of tries on the oldest Delivery."""
    settled = threading.Event()
    now = datetime.now(UTC)
    store.settle(
        "pacs",
        Receipt(delivery_id=1, verdict=Verdict.RETRY, reason="refused"),
        attempt=300,
        state=DeliveryState.PENDING,
        at=now,
        next_try_at=now - timedelta(seconds=1),
        settled=lambda error: settled.set(),
    )
    if not settled.wait(60):
        raise TimeoutError("the store did not settle")


def _stored(journal: Path) -> int:
    return sum(1 for _ in journal.open("rb")) if journal.exists() else 0


def _judge(
    expected: list[tuple[str, str, str]], data: Path, journal: Path, verdict: judging.Verdict, parallel: int
) -> int:
    """Hold what arrived against what was owed; return how much arrived, repeats included."""
    lines = [line for line in read_journal(journal) if line["answer"] == "0000"]
    arrived: dict[str, str] = {}
    for line in lines:
        arrived.setdefault(str(line["id"]), str(line["sha256"]))
    verdict.stored += len(arrived)
    verdict.delivered += len(arrived)
    for uid, _, sha256 in expected:
        if uid not in arrived:
            verdict.lost += 1
        elif arrived[uid] != sha256:
            verdict.changed += 1
    verdict.repeated_new_id += len(arrived.keys() - {uid for uid, _, _ in expected})
    study_of = {uid: study for uid, study, _ in expected}
    places: dict[str, list[str]] = {}
    for uid in arrived:
        places.setdefault(study_of.get(uid, ""), []).append(uid)
    verdict.out_of_order += sum(1 for uids in places.values() if uids != sorted(uids))
    if parallel == 1 and list(places) != sorted(places):
        verdict.out_of_order += 1
        verdict.note("studies arrived in another order than they came")
    rate, took_s = _rate(lines)
    verdict.arrived_a_second = verdict.arrived_a_second or round(rate)  # of the calm return
    print(f"  {len(lines)} arrived in {took_s:.1f} s, {rate:.0f} a second", file=sys.stderr)
    return len(lines)
