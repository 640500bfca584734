"""The scheduled modality against a worklist, the PACS's promises against a modality, orders against a receiver."""

import json
import threading
from argparse import Namespace

import hl7
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
)

from simulators.faults import load_plan
from simulators.journal import Journal, read_journal
from simulators.orders import Order
from simulators.pacs import COMMITMENT_FAULTS, Archive


def item(number, start="20260101"):
    step = Dataset()
    step.Modality, step.ScheduledProcedureStepID = "CT", f"S{number}"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = start, "0800"
    found = Dataset()
    found.PatientName, found.PatientID, found.AccessionNumber = "ZZTEST^DEMO", f"ZZ{number}", f"A{number}"
    found.StudyInstanceUID, found.RequestedProcedureID = f"1.2.{number}", f"RP{number}"
    found.ScheduledProcedureStepSequence = [step]
    return found


@pytest.fixture
def department(tmp_path):
    """Give a function that starts a worklist with a PACS behind it, by pynetdicom; `answers` are C-FIND's, in turn."""
    running = []

    def start(answers, commitment=None, report_to=None):
        plan = load_plan(commitment, COMMITMENT_FAULTS, 1)
        archive = Archive(
            plan, Journal(tmp_path / "pacs"), threading.Event(), Namespace(ae_title="P", report_to=report_to)
        )
        left = list(answers)

        def find(event):
            for each in left.pop(0) if len(left) > 1 else left[0]:
                yield 0xFF00, each

        def store(event):
            archive.saw(event, 0)
            return 0

        entity = AE("P")
        for sop_class in (
            CTImageStorage,
            ModalityPerformedProcedureStep,
            ModalityWorklistInformationFind,
            StorageCommitmentPushModel,
        ):
            entity.add_supported_context(sop_class)
        handlers = [
            (evt.EVT_C_FIND, find),
            (evt.EVT_C_STORE, store),
            (evt.EVT_N_CREATE, archive.created),
            (evt.EVT_N_SET, archive.changed),
            (evt.EVT_N_ACTION, archive.asked),
        ]
        server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        running.append((server, archive))
        return server.socket.getsockname()[1], archive

    yield start
    for server, archive in running:
        archive.finish()
        server.shutdown()


def scheduled(start, tmp_path, port, *more):
    options = ("--scheduled", "--to", f"127.0.0.1:{port}", "--called", "P", "--calling", "CT1", "--poll", "0.05")
    return start("modality", *options, "--images", "2", "--size", "16KB", "--journal", tmp_path / "m", *more)


def acts(path):
    return [entry["act"] for entry in read_journal(path) if "act" in entry]


def test_a_modality_works_through_its_worklist(start, tmp_path, department):
    port, archive = department([[item(1), item(2)]])
    result = scheduled(start, tmp_path, port, "--count", "2", "--discontinue-every", "2").result()

    one = ["queried", "started", "stored", "stored"]
    assert acts(tmp_path / "m") == [*one, "completed", "commitment", *one, "discontinued", "commitment"]
    assert (result["performed"], result["committed"], result["errors"]) == (2, 4, 0)
    assert sorted(archive.steps.values()) == ["COMPLETED", "DISCONTINUED"]
    (first, *_) = [entry for entry in read_journal(tmp_path / "m") if entry["act"] == "commitment"]
    assert (first["event"], first["association"], first["whole"]) == (1, "same", True)


def test_what_was_moved_or_cancelled_meanwhile_is_not_done(start, tmp_path, department):
    port, archive = department([[item(1), item(2)], [item(1, "20260102")], [], [item(3)]])
    result = scheduled(start, tmp_path, port, "--count", "1", "--no-commitment").result()

    assert acts(tmp_path / "m")[:5] == ["queried", "moved", "queried", "cancelled", "queried"]
    assert (result["moved"], result["cancelled"], result["performed"]) == (1, 1, 1)
    assert list(archive.steps.values()) == ["COMPLETED"]


def test_a_pacs_promises_as_scripted(start, tmp_path, department):
    script = [
        {"fault": fault, "at": [number], "delay_s": 0.3} for number, fault in enumerate(("deny", "partial", "late"), 1)
    ]
    port, _ = department([[item(1), item(2), item(3)]], json.dumps(script))
    scheduled(start, tmp_path, port, "--count", "3").result()

    entries = [each for each in read_journal(tmp_path / "m") if each["act"] == "commitment"]
    assert [(each["event"], each["committed"]) for each in entries] == [(2, 0), (2, 1), (1, 2)]
    assert [[one.split()[1] for one in each["failed"]] for each in entries] == [["0213", "0213"], ["0112"], []]


def test_a_report_comes_on_a_new_association_to_a_modality_that_has_left(start, tmp_path, department):
    port, archive = department([[item(1)]])
    modality = scheduled(start, tmp_path, port, "--count", "1", "--report", "new", "--poll", "0.5")
    archive._report_to = ("127.0.0.1", modality.port)
    modality.result()

    (entry,) = [each for each in read_journal(tmp_path / "m") if each["act"] == "commitment"]
    assert (entry["association"], entry["committed"]) == ("new", 2)


def test_a_refused_request_and_a_silent_pacs_are_told(start, tmp_path, department):
    port, _ = department([[item(1), item(2)]], '[{"fault": "refuse", "at": [1]}, {"fault": "silent", "at": [2]}]')
    result = scheduled(start, tmp_path, port, "--count", "2", "--report-timeout", "0.3").result()

    texts = [entry["text"] for entry in read_journal(tmp_path / "m") if entry["act"] == "error"]
    assert texts == ["N-ACTION answered 0110", "no commitment report within 0.3 s"]
    assert result["errors"] == 2


def test_the_pacs_program_stores_with_a_warning_and_refuses_a_mismatch(start, tmp_path):
    faults = '[{"fault": "warning", "at": [1]}, {"fault": "mismatch", "at": [2]}]'
    pacs = start("pacs", "--journal", tmp_path / "p", "--faults", faults)
    sender = start(
        "modality",
        "--to",
        f"127.0.0.1:{pacs.port}",
        "--called",
        "PACS",
        "--count",
        "2",
        "--series",
        "CT",
        "--size",
        "8KB",
    )

    result = sender.result()
    assert (result["acknowledged"], result["refused"]) == (1, 1)
    assert [entry["answer"] for entry in read_journal(tmp_path / "p")] == ["B000", "A900"]
    assert pacs.stop()["stored"] == 1


@pytest.mark.parametrize("form", ["orm", "omi"])
def test_orders_are_sent_and_changed(start, tmp_path, form):
    receiver = start("mllp_receiver", "--journal", tmp_path / "r")
    sender = start(
        "orders", "--to", f"127.0.0.1:{receiver.port}", "--count", "4", "--form", form, "--xo-every", "3",
        "--ca-every", "2", "--change-after", "0", "--journal", tmp_path / "s",
    )  # fmt: skip

    assert sender.result() == {"done": True, "sent": 7, "acknowledged": 7, "refused": 0}
    sent = read_journal(tmp_path / "s")
    assert [entry["control"] for entry in sent] == ["NW", "NW", "CA", "NW", "XO", "NW", "CA"]
    assert sent[2]["order"] == sent[1]["order"]
    assert [entry["id"] for entry in sent] == [entry["id"] for entry in read_journal(tmp_path / "r")]


@pytest.mark.parametrize(
    ("form", "accession", "step"), [("orm", ("OBR", 18), ("OBR", 20)), ("omi", ("IPC", 1), ("IPC", 4))]
)
def test_an_order_says_what_a_worklist_needs(form, accession, step):
    from datetime import datetime

    order = Order(number=3, run=1_234_567_890, modality="CT", station="CT1", start=datetime(2026, 1, 1, 8))
    message = hl7.parse(order.message("NW", form, "ID1"))

    assert str(message[accession[0]][0][accession[1]]).startswith(order.accession)
    assert len(order.accession) <= 16
    assert str(message[step[0]][0][step[1]]).startswith("S")
    assert str(message["ORC"][0][1]) == "NW"
