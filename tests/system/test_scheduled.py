"""The scheduled workflow through the running agent: what a Modality reports, stores and has committed to."""

import json
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hl7
import pytest
from pydicom.dataset import Dataset

from simulators.journal import read_journal
from simulators.scheduled import ScheduledModality
from tests.system.agents import Agent, free_port
from tests.system.test_peers import HEAD, eventually, program, running

SERVICES = '["echo", "storage", "worklist", "mpps", "commitment"]'


def imaging(port: int, *, more: str = "") -> str:
    return f'[[source]]\nname = "imaging"\ntype = "dicom"\nlisten = "127.0.0.1:{port}"\nservices = {SERVICES}\n{more}\n'


def ris(port: int) -> str:
    return (
        f'[[destination]]\nname = "ris"\ntype = "mllp"\nhost = "127.0.0.1"\nport = {port}\norder_status = "orm-o01"\n'
    )


def pacs(port: int, title: str = "PACS", *, more: str = "") -> str:
    return (
        f'[[destination]]\nname = "pacs"\ntype = "dicom"\nhost = "127.0.0.1"\nport = {port}\nae_title = "{title}"\n'
        f"{more}\n"
    )


def route(*to: str) -> str:
    return f'[[route]]\nfrom = ["imaging"]\nto = {json.dumps(to)}\n'


@contextmanager
def simulator(name: str, *options: object) -> Iterator[dict[str, Any]]:
    """Run a simulator and give what it said when it was ready."""
    with program(sys.executable, "-m", f"simulators.{name}", *map(str, options)) as child:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())


@contextmanager
def modality(place: Path, port: int, **more: Any) -> Iterator[ScheduledModality]:
    """Give a simulated Modality that is told what to do."""
    options = {
        "journal": place / "modality",
        "seed": 1,
        "report": "same",
        "listen": ("127.0.0.1", 0),
        "calling": "CT1",
        "called": "GATEWAY",
        "to": ("127.0.0.1", port),
        "modality": "CT",
        "images": 3,
        "size": 16384,
        "report_timeout": 20.0,
        "own_station": True,
    }
    made = ScheduledModality(Namespace(**(options | more)), place)
    try:
        yield made
    finally:
        made.close()


def item(study: str = "1.2.7", accession: str = "A1") -> Dataset:
    """Make what a worklist would say."""
    step, found = Dataset(), Dataset()
    step.ScheduledProcedureStepID = "S1"
    found.StudyInstanceUID, found.AccessionNumber, found.PatientID = study, accession, "ZZ1"
    found.PatientName, found.PatientBirthDate, found.PatientSex = "ZZTEST^DEMO", "", ""
    found.ScheduledProcedureStepSequence = [step]
    return found


def asked(config: Path, *words: str) -> Any:
    """Return what a command answers with --json."""
    command = [sys.executable, "-m", "gateway.cli.main", *words, "-c", str(config), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout)


def acts(path: Path, act: str) -> list[dict[str, Any]]:
    return [entry for entry in read_journal(path) if entry.get("act") == act]


@pytest.mark.parametrize("report", ["same", "new"])
def test_what_a_modality_does_reaches_ris_and_pacs_and_is_committed(tmp_path: Path, report: str) -> None:
    port, back = free_port(), free_port()
    with (
        simulator("mllp_receiver", "--journal", tmp_path / "ris") as heard,
        simulator("pacs", "--journal", tmp_path / "pacs") as archive,
    ):
        peers = f'peers = [{{ ae_title = "CT1", host = "127.0.0.1", port = {back} }}]'
        stanzas = imaging(port, more=peers) + ris(heard["port"]) + pacs(archive["port"], more="mpps = true")
        with running(tmp_path, stanzas + route("ris", "pacs")):
            with modality(tmp_path, port, report=report, listen=("127.0.0.1", back)) as ct:
                uid = ct.start(item())
                images = ct.store(item(), uid)
                ct.finish(item(), uid, images)
                ct.commit(images)
            eventually(lambda: len(read_journal(tmp_path / "ris")) == 2, "two order statuses")
            eventually(lambda: len(acts(tmp_path / "pacs", "mpps")) == 2, "MPPS at the PACS")
            config = tmp_path / "gateway.toml"
            eventually(lambda: causes(config) == ["mpps"], "the study is complete")

    (commitment,) = acts(tmp_path / "modality", "commitment")
    assert (commitment["event"], commitment["committed"], commitment["association"]) == (1, 3, report)
    assert [entry["operation"] for entry in acts(tmp_path / "pacs", "mpps")] == ["N-CREATE", "N-SET"]
    sent = {entry["id"]: entry["sha256"] for entry in acts(tmp_path / "modality", "stored")}
    assert sent == {entry["id"]: entry["sha256"] for entry in read_journal(tmp_path / "pacs") if "act" not in entry}


def test_a_commitment_of_the_archive_is_passed_on_after_a_crash(tmp_path: Path) -> None:
    port, back = free_port(), free_port()
    late = json.dumps([{"fault": "late", "delay_s": 1.0}])
    options = ("--commitment", late, "--report-to", f"127.0.0.1:{port}")
    with simulator("pacs", "--journal", tmp_path / "pacs", *options) as archive:
        known = f'{{ ae_title = "CT1", host = "127.0.0.1", port = {back} }}, {{ ae_title = "PACS" }}'
        peers = f'peers = [{known}]\ncommitment = "archive"'
        destination = pacs(archive["port"], more="commitment = true\ncommitment_delay_s = 0.1")
        config = tmp_path / "gateway.toml"
        config.write_text(
            HEAD.format(data=tmp_path / "data", console=free_port())
            + imaging(port, more=peers)
            + destination
            + route("pacs")
        )
        agent = Agent(config, tmp_path / "agent.log")
        with modality(tmp_path, port, report="new", listen=("127.0.0.1", back)) as ct:
            images = ct.store(item(), "1.2.3")
            committing = threading.Thread(target=ct.commit, args=(images,))
            committing.start()
            eventually(lambda: bool(requests(config)), "the request is kept")
            agent.kill()
            again = Agent(config, tmp_path / "agent.log")
            committing.join(40)
        assert again.stop() == 0

    (commitment,) = acts(tmp_path / "modality", "commitment")
    assert (commitment["event"], commitment["committed"], commitment["whole"]) == (1, 3, True)


def causes(config: Path) -> list[str | None]:
    return [study["cause"] for study in asked(config, "studies")["studies"]]


def requests(config: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asked(config, "steps", "--commitments")["commitments"]
    return found


def order_status(messages: Callable[[], list[str]]) -> list[tuple[str, str, str]]:
    """Return ORC-1, ORC-5 and the accession number of every order status."""
    parsed = [hl7.parse(text) for text in messages()]
    return [(str(one["ORC"][0][1]), str(one["ORC"][0][5]), str(one["OBR"][0][18])) for one in parsed]
