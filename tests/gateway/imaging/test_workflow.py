"""The workflow's parts put together: which services a Source gets, and what its archives have promised."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.alarms import Alarms
from gateway.clock import ManualClock
from gateway.config import Config, DicomDestination, DicomSource, Route
from gateway.dataset import Element, text_at
from gateway.formats.hl7 import read_header
from gateway.formats.orders import read_changes
from gateway.imaging.commitment import COMMITMENT_SOP_CLASS
from gateway.imaging.mpps import MPPS_SOP_CLASS
from gateway.imaging.negotiation import Offer
from gateway.imaging.retrieving import Moving
from gateway.imaging.workflow import Workflow
from gateway.intake import Intake
from gateway.model import DeliveryState, Incoming, Kind
from gateway.orders import (
    Action,
    OrderChange,
    OrderRules,
    ProcedureStep,
    ScheduledStep,
    StepChange,
    StepState,
    StepStatus,
)
from gateway.routing import Router
from gateway.spool import Spool
from gateway.store.commitments import HeldInstance, archive_states
from gateway.store.store import Store
from gateway.store.worklist_reading import read_items
from gateway.typed import Address, Secret
from tests.gateway.orders_hl7 import adt, orm
from tests.gateway.store.stores import START, incoming, keep, open_store, settle

SOURCE = DicomSource(
    name="imaging",
    listen=Address("127.0.0.1", 0),
    services=("storage", "mpps", "commitment"),
    commitment="archive",
    commitment_timeout_hours=2.0,
)
PACS = DicomDestination(name="pacs", host="h", port=104, ae_title="P", commitment=True)
OTHER = DicomDestination(name="other", host="h", port=104, ae_title="O")
CONFIG = Config(sources=(SOURCE,), destinations=(PACS, OTHER), routes=(Route(sources=("imaging",), to=("pacs",)),))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(tmp_path)
    yield made
    made.close()


def workflow(store: Store, tmp_path: Path, config: Config = CONFIG) -> Workflow:
    clock = ManualClock(START)
    router = Router(config.routes, config.sources, config.destinations)
    intake = Intake(store, router, lambda: None, lambda owed: None)
    spool = Spool(tmp_path / "spool")
    return Workflow(
        store,
        spool,
        intake,
        clock,
        Alarms(clock),
        config=lambda: config,
        owed=lambda names: None,
        owed_again=lambda name: None,
    )


def held(message: int) -> HeldInstance:
    return HeldInstance(
        message_id=message, source="imaging", sop_class_uid="1", study_instance_uid="2", object_name="a", size=1
    )


def test_a_source_offers_what_it_is_configured_for(store: Store, tmp_path: Path) -> None:
    made = workflow(store, tmp_path)
    plain = DicomSource(name="plain", listen=Address("127.0.0.1", 0))

    assert set(made.offer(SOURCE).services) == {
        (0x0140, MPPS_SOP_CLASS),
        (0x0120, MPPS_SOP_CLASS),
        (0x0130, COMMITMENT_SOP_CLASS),
        (0x0100, COMMITMENT_SOP_CLASS),
    }
    assert set(made.offer(SOURCE).associated) == {COMMITMENT_SOP_CLASS}
    assert set(made.offer(plain).services) == {(0x0100, COMMITMENT_SOP_CLASS)}
    assert workflow(store, tmp_path, replace(CONFIG, destinations=(OTHER,))).offer(plain) == Offer()
    assert {"studies", "commitment"} <= set(made.tasks)


def test_the_policy_is_the_configurations(store: Store, tmp_path: Path) -> None:
    made = workflow(store, tmp_path)
    policy = made._policy("imaging")

    assert policy is not None
    assert (policy.archive, policy.archives, policy.timeout_s) == (True, ("pacs",), 7200.0)
    assert made._policy("gone") is None
    assert (made._stable_s("imaging"), made._stable_s("gone")) == (60.0, 60.0)


def test_an_archive_has_promised_when_it_has_committed_and_not_when_it_has_taken(store: Store, tmp_path: Path) -> None:
    made = workflow(store, tmp_path)
    keep(
        store,
        Incoming(source="imaging", kind=Kind.DICOM, received_at=START, size=1, digest=b"", object_name="a"),
        "pacs",
    )
    assert made._archived(held(1), ("pacs",)) is False

    settle(store, "pacs", 1)
    assert archive_states(store.readers.connection, 1, ("pacs",)) == [(DeliveryState.DELIVERED, False)]
    assert made._archived(held(1), ("pacs",)) is False

    store.call(
        lambda c: c.execute(
            "INSERT OR REPLACE INTO archival (delivery, message, destination, sop_class, sop_instance, state, due_at)"
            " SELECT id, message, destination, '1', '2', 2, 0 FROM delivery"
        )
    ).result(10)
    assert made._archived(held(1), ("pacs",)) is True


def test_what_is_owed_to_no_archive_has_none(store: Store, tmp_path: Path) -> None:
    made = workflow(store, tmp_path)
    keep(
        store,
        Incoming(source="imaging", kind=Kind.DICOM, received_at=START, size=1, digest=b"", object_name="a"),
        "other",
    )

    assert made._archived(held(1), ("pacs",)) is None


async def test_the_tasks_run_until_they_are_cancelled(store: Store, tmp_path: Path) -> None:
    made = workflow(store, tmp_path)
    tasks = [asyncio.ensure_future(run()) for run in made.tasks.values()]
    done, _ = await asyncio.wait(tasks, timeout=0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert done == set()


def test_a_peer_that_gets_de_identified_objects_cannot_be_named_in_a_move(store: Store, tmp_path: Path) -> None:
    source = replace(SOURCE, services=("query",))
    clean = Route(sources=("imaging",), to=("other",), deidentify="basic", secret=Secret(env="HOME"))
    config = replace(CONFIG, sources=(source,), routes=(*CONFIG.routes, clean))

    moving = workflow(store, tmp_path, config).offer(source).services[0x0021, "1.2.840.10008.5.1.4.1.2.2.2"]

    assert isinstance(moving, Moving)
    assert moving._dial("P", [], None) is not None  # type: ignore[arg-type]
    assert moving._dial("O", [], None) is None  # type: ignore[arg-type]


def test_what_the_worklist_says_of_a_patient_names_former_ids(store: Store, tmp_path: Path) -> None:
    for raw in (orm(), adt("A40", "MRN9", more="MRG|MRN4471^^^GENHOSP^MR\r")):
        changes = read_changes(raw, read_header(raw), "utf-8", OrderRules(), source="emr", at=START)
        keep(store, incoming(raw, raw[:20].hex(), changes=changes))

    found = workflow(store, tmp_path).demographics({"AccessionNumber": "A260115001"})

    assert found is not None
    assert (found["PatientID"], found["OtherPatientIDs"]) == ("MRN9", "X99\\MRN4471")


def test_who_is_named_in_a_move_is_looked_for_where_the_configuration_says_now(store: Store, tmp_path: Path) -> None:
    source = replace(SOURCE, services=("query",))
    config = replace(CONFIG, sources=(source,))
    made = workflow(store, tmp_path, config)
    moving = made.offer(source).services[0x0021, "1.2.840.10008.5.1.4.1.2.2.2"]
    clean = Route(sources=("imaging",), to=("pacs",), deidentify="basic", secret=Secret(env="HOME"))
    made._config = lambda: replace(config, destinations=(PACS, replace(OTHER, ae_title="NEW")), routes=(clean,))

    assert isinstance(moving, Moving)
    known = {title: moving._dial(title, [], None) is not None for title in ("P", "O", "NEW")}  # type: ignore[arg-type]
    assert known == {"P": False, "O": False, "NEW": True}


def test_what_a_step_was_scheduled_as_is_found_with_its_order_numbers(store: Store, tmp_path: Path) -> None:
    step = Element("SQ", items=({0x00400009: Element("SH", ("S1",))},))
    attributes = {
        0x00080050: Element("SH", ("A1",)),
        0x00100020: Element("LO", ("ZZ1",)),
        0x0020000D: Element("UI", ("1.2.7",)),
        0x00400100: step,
    }
    order = OrderChange(
        source="orders",
        action=Action.CREATE,
        at=START,
        accession="A1",
        step_id="S1",
        exact=True,
        placer="P7^OP",
        filler="F7",
        attributes=attributes,
    )
    keep(store, Incoming(source="orders", kind=Kind.HL7, received_at=START, size=1, digest=b"", changes=(order,)))
    made = workflow(store, tmp_path)
    scheduled = ScheduledStep(study_instance_uid="1.2.7", accession_number="A1", step_id="S1")
    found = made._find_item(scheduled)

    assert found is not None
    assert (text_at(found, 0x00402016), text_at(found, 0x00400026, 0x00400031)) == ("P7", "OP")
    assert text_at(found, 0x00402017) == "F7"
    assert made._find_item(ScheduledStep(study_instance_uid="1.2.9")) is None

    performed = ProcedureStep(sop_instance_uid="1.2.3", state=StepState.COMPLETED, attributes={})
    change = StepChange(step=performed, scheduled=(scheduled,), at=START)
    keep(store, Incoming(source="imaging", kind=Kind.MPPS, received_at=START, size=1, digest=b"m", changes=(change,)))
    (item,) = read_items(store.readers.connection, everything=True)
    assert (item.status, item.performed) == (StepStatus.COMPLETED, True)


def test_the_priority_of_an_order_is_known_to_its_images(store: Store, tmp_path: Path) -> None:
    raw = orm().replace(b"^^R|", b"^^S|")
    changes = read_changes(raw, read_header(raw), "utf-8", OrderRules(), source="emr", at=START)
    keep(store, incoming(raw, "1", changes=changes))

    priority = workflow(store, tmp_path).order_priority

    assert priority({"StudyInstanceUID": "1.2.3.4.5.6.7.20260115.1"}) == "STAT"
    assert priority({"AccessionNumber": "A260115001"}) == "STAT"
    assert priority({"AccessionNumber": "another"}) == ""
