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
from hl7apy.mllp import MLLPServer
from pydicom.dataset import Dataset

from simulators.journal import read_journal
from simulators.scheduled import ScheduledModality
from tests.system.agents import Agent, free_port
from tests.system.test_peers import HEAD, _Keeper, eventually, instances, orthanc, program, running

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


def test_what_a_modality_does_reaches_ris_and_pacs_and_is_committed(tmp_path: Path) -> None:
    port, back = free_port(), free_port()
    with (
        simulator("mllp_receiver", "--journal", tmp_path / "ris") as heard,
        simulator("pacs", "--journal", tmp_path / "pacs") as archive,
    ):
        peers = f'peers = [{{ ae_title = "CT1", host = "127.0.0.1", port = {back} }}]'
        stanzas = imaging(port, more=peers) + ris(heard["port"]) + pacs(archive["port"], more="mpps = true")
        with running(tmp_path, stanzas + route("ris", "pacs")):
            with modality(tmp_path, port, report="new", listen=("127.0.0.1", back)) as ct:
                uid = ct.start(item())
                images = ct.store(item(), uid)
                ct.finish(item(), uid, images)
                ct.commit(images)
            eventually(lambda: len(read_journal(tmp_path / "ris")) == 2, "two order statuses")
            eventually(lambda: len(acts(tmp_path / "pacs", "mpps")) == 2, "MPPS at the PACS")
            config = tmp_path / "gateway.toml"
            eventually(lambda: causes(config) == ["mpps"], "the study is complete")

    (commitment,) = acts(tmp_path / "modality", "commitment")
    assert (commitment["event"], commitment["committed"], commitment["association"]) == (1, 3, "new")
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
        destination = pacs(
            archive["port"], more="commitment = true\ncommitment_delay_s = 0.1\ncommitment_timeout_s = 3"
        )
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


# --- with the worklist: order in, everything out ---

ORDER = (
    "MSH|^~\\&|OP|GENHOSP|WARDGW|GENHOSP|20260115100000+0000||ORM^O01^ORM_O01|OP-7001|P|2.5.1\r"
    "PID|||ZZ4471^^^GENHOSP^MR||Zztest^Anna^M||19620714|F\r"
    "PV1||I|ICU2^R7^B14^GENHOSP\r"
    "ORC|NW|P55210^OP|F88100^OF||SC||^^^20260115140000^^R\r"
    "OBR|1|P55210^OP|F88100^OF|CTTHOR^CT thorax^99LOCAL||||||||||||||A260115001|RP260115001|SPS260115001|CT1|||CT"
    "|||^^^20260115140000^^R\r"
    "ZDS|1.2.3.4.5.6.7.20260115.1^GENHOSP^Application^DICOM\r"
)
STUDY = "1.2.3.4.5.6.7.20260115.1"


def orders(port: int) -> str:
    return f'[[source]]\nname = "orders"\ntype = "mllp"\nlisten = "127.0.0.1:{port}"\n'


@contextmanager
def ris_server() -> Iterator[tuple[int, list[str]]]:
    """hl7apy's MLLP server as the RIS."""
    kept: list[str] = []
    server = MLLPServer("127.0.0.1", 0, {"ORM^O01^ORM_O01": (_Keeper, kept)}, timeout=10)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield server.server_address[1], kept
    finally:
        server.shutdown()
        server.server_close()
        serving.join(10)


def findscu(port: int) -> str:
    """Ask the worklist for CT as findscu does; return what it prints."""
    keys = ["-k", "0008,0050", "-k", "0020,000d", "-k", "(0040,0100)[0].0008,0060=CT", "-k", "(0040,0100)[0].0040,0009"]
    command = ["findscu", "-v", "-W", "-aet", "CT1", "-aec", "GATEWAY", *keys, "127.0.0.1", str(port)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return ended.stdout + ended.stderr


def test_an_order_goes_all_the_way_with_dcmtk_and_hl7_tools(tmp_path: Path) -> None:
    port, hl7_port = free_port(), free_port()
    with orthanc(tmp_path / "orthanc") as (archive_port, archive), ris_server() as (ris_port, statuses):
        stanzas = (
            orders(hl7_port) + imaging(port) + ris(ris_port) + pacs(archive_port, "ORTHANC") + route("ris", "pacs")
        )
        with running(tmp_path, stanzas + route("ris", "pacs")), modality(tmp_path, port) as ct:
            (tmp_path / "order.hl7").write_bytes(b"\x0b" + ORDER.encode() + b"\x1c\r")
            sender = [
                str(Path(sys.executable).with_name("mllp_send")),
                "-p",
                str(hl7_port),
                "-f",
                "order.hl7",
                "127.0.0.1",
            ]
            told = subprocess.run(sender, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True).stdout
            assert "MSA|AA|OP-7001" in told
            listed = findscu(port)
            assert "A260115001" in listed and STUDY in listed

            (item_,) = ct.query()
            uid = ct.start(item_)  # DCMTK has no SCU for MPPS and commitment: pynetdicom says these
            images = [ct._image(item_, uid, number) for number in range(1, 4)]
            for number, image in enumerate(images):
                image.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
            files = [str(tmp_path / f"{number}.dcm") for number in range(3)]
            subprocess.run(
                ["storescu", "-aet", "CT1", "-aec", "GATEWAY", "127.0.0.1", str(port), *files], check=True, timeout=30
            )
            ct.finish(item_, uid, images)
            ct.commit(images)

            wanted = {str(image.SOPInstanceUID) for image in images}
            eventually(lambda: set(instances(archive)) >= wanted, "the images are in Orthanc")
            eventually(lambda: len(statuses) == 2, "two order statuses at the RIS")
            assert "A260115001" not in findscu(port)

    assert order_status(lambda: statuses) == [("SC", "IP", "A260115001"), ("SC", "CM", "A260115001")]
    assert all("P55210^OP|F88100^OF" in text for text in statuses)
    (commitment,) = acts(tmp_path / "modality", "commitment")
    assert (commitment["event"], commitment["committed"], commitment["association"]) == (1, 3, "same")


def test_a_day_of_orders_by_the_simulators(tmp_path: Path) -> None:
    port, hl7_port = free_port(), free_port()
    with (
        simulator("mllp_receiver", "--journal", tmp_path / "ris") as heard,
        simulator("pacs", "--journal", tmp_path / "pacs") as archive,
    ):
        stanzas = orders(hl7_port) + imaging(port) + ris(heard["port"]) + pacs(archive["port"]) + route("ris", "pacs")
        with running(tmp_path, stanzas):
            said = ("--to", f"127.0.0.1:{hl7_port}", "--count", 4, "--ca-every", 4, "--change-after", 0)
            with simulator("orders", *said, "--journal", tmp_path / "orders"):
                eventually(lambda: len(read_journal(tmp_path / "orders")) == 5, "four orders and a cancellation")
            day = ("--scheduled", "--to", f"127.0.0.1:{port}", "--own-station", "--calling", "CT1", "--count", 3)
            with simulator("modality", *day, "--poll", 0.2, "--size", "16KB", "--journal", tmp_path / "modality"):
                eventually(lambda: len(acts(tmp_path / "modality", "commitment")) == 3, "three items are done")
            eventually(lambda: len(read_journal(tmp_path / "ris")) == 6, "an order status for each start and end")
            eventually(lambda: len(read_journal(tmp_path / "pacs")) == 9, "nine images")

    cancelled = {entry["order"] for entry in read_journal(tmp_path / "orders") if entry["control"] == "CA"}
    assert not cancelled & {entry["accession"] for entry in acts(tmp_path / "modality", "completed")}
    assert acts(tmp_path / "modality", "error") == []
