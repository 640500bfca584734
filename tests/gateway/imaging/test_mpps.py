"""What a Modality reports of its work: every status of PS3.4 F.7, and what is on the disk behind a Success."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from gateway.dataset import Attributes, Element, text_at
from gateway.errors import StoreError
from gateway.formats.identifiers import from_json
from gateway.imaging.mpps import MPPS_SOP_CLASS, N_CREATE_RQ, N_SET_RQ, ProcedureSteps
from gateway.imaging.service import Outcome
from gateway.intake import Intake
from gateway.model import Incoming, Kind
from gateway.orders import ScheduledStep, StepState
from gateway.routing import Router
from gateway.store.reading import MessageFilter, read_message, read_messages
from gateway.store.steps import find_step, read_steps, remove_steps, steps_of_study
from gateway.store.store import Store
from tests.gateway.imaging.exchanges import EXPLICIT, NoExchange, encoded, request
from tests.gateway.store.stores import open_store

STEP = "1.2.3.4"
STUDY = "1.2.3.7"


def created(**changes: object) -> Dataset:
    """Make the data set of an N-CREATE as a CT sends it; a keyword given as None is left out."""
    return changed_by(
        {
            "PatientName": "ZZTEST^Åsa",
            "PatientID": "ZZ1",
            "SpecificCharacterSet": "ISO_IR 100",
            "ScheduledStepAttributesSequence": [scheduled("A1", "S1")],
            "PerformedProcedureStepID": "P1",
            "PerformedStationAETitle": "CT1",
            "PerformedProcedureStepStartDate": "20260101",
            "PerformedProcedureStepStartTime": "0800",
            "PerformedProcedureStepStatus": "IN PROGRESS",
            "Modality": "CT",
            "PerformedSeriesSequence": [],
        }
        | changes
    )


def completed(**changes: object) -> Dataset:
    return changed_by(
        {
            "PerformedProcedureStepStatus": "COMPLETED",
            "PerformedProcedureStepEndDate": "20260101",
            "PerformedProcedureStepEndTime": "0815",
            "PerformedSeriesSequence": [series()],
        }
        | changes
    )


def scheduled(accession: str, step: str, study: str = STUDY) -> Dataset:
    return changed_by({"StudyInstanceUID": study, "AccessionNumber": accession, "ScheduledProcedureStepID": step})


def series(**changes: object) -> Dataset:
    image = changed_by({"ReferencedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "ReferencedSOPInstanceUID": "1.2.3.9"})
    said = {"SeriesInstanceUID": "1.2.3.8", "ProtocolName": "THORAX", "ReferencedImageSequence": [image]}
    return changed_by(said | changes)


def changed_by(values: dict[str, object]) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


class Peer:
    """The service over a real store, and a Modality that asks it."""

    def __init__(self, store: Store, worklist: dict[str, Attributes]) -> None:
        self.store = store
        self.refusal: str | None = None
        intake = Intake(store, Router((), (), ()), lambda: self.refusal, lambda owed: None)
        self.service = ProcedureSteps(
            _Blocking(intake),
            lambda uid: find_step(store.readers.connection, uid),
            lambda step: worklist.get(step.accession_number),
            lambda source: ("PerformedProcedureStepID", "StationName"),
        )

    def create(self, dataset: Dataset | bytes, uid: str = STEP) -> Outcome:
        return asyncio.run(self.service(request(N_CREATE_RQ, MPPS_SOP_CLASS, uid, dataset), NoExchange()))

    def set(self, dataset: Dataset, uid: str = STEP) -> Outcome:
        return asyncio.run(self.service(request(N_SET_RQ, MPPS_SOP_CLASS, uid, dataset), NoExchange()))

    def state(self, uid: str = STEP) -> StepState | None:
        step = find_step(self.store.readers.connection, uid)
        return None if step is None else step.state

    def messages(self) -> list[dict[str, str]]:
        found = read_messages(self.store.readers.connection, MessageFilter(kind=Kind.MPPS))
        return [message.headers for message in reversed(found)]


class _Blocking:
    """Accepts in the test's own loop, whichever runs: the store settles in its writer's thread."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def accept(self, incoming: Incoming) -> object:
        return await asyncio.to_thread(self._intake.accept_blocking, incoming)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    item = {0x00402016: Element("LO", ("PLACER7",)), 0x00100010: Element("PN", ("ZZTEST^ASA",))}
    store = open_store(tmp_path)
    yield Peer(store, {"A1": item})
    store.close()


def test_a_step_is_created_and_completed_and_each_is_a_message(peer: Peer) -> None:
    assert peer.create(created()).status == 0x0000
    assert peer.state() is StepState.IN_PROGRESS
    assert peer.set(completed()).status == 0x0000
    assert peer.state() is StepState.COMPLETED

    first, second = peer.messages()
    assert (first["operation"], second["operation"]) == ("N-CREATE", "N-SET")
    assert (first["AccessionNumber"], second["AccessionNumber"]) == ("A1", "A1")
    assert second["StudyInstanceUID"] == STUDY
    assert (first["PerformedProcedureStepStatus"], second["PerformedProcedureStepStatus"]) == (
        "IN PROGRESS",
        "COMPLETED",
    )
    assert second["PerformedProcedureStepID"] == "P1"


def test_the_bytes_of_the_data_set_are_kept_as_they_came(peer: Peer) -> None:
    peer.create(created())

    (message,) = read_messages(peer.store.readers.connection, MessageFilter(kind=Kind.MPPS))
    whole = read_message(peer.store.readers.connection, message.id)
    assert whole is not None
    assert whole.raw == encoded(created())
    assert (whole.identifier, whole.peer, whole.headers["TransferSyntaxUID"]) == (STEP, "CT1@10.0.0.7", EXPLICIT)


def test_a_message_says_all_that_an_order_status_needs(peer: Peer) -> None:
    peer.create(created())
    peer.set(completed())

    for headers in peer.messages():
        (order,) = [from_json(json.dumps(each)) for each in json.loads(headers["orders"])]
        assert (text_at(order, 0x00402016), text_at(order, 0x00080050)) == ("PLACER7", "A1")
        assert text_at(order, 0x00100010) == "ZZTEST^ASA"
    step = from_json(peer.messages()[1]["step"])
    assert (text_at(step, 0x00400251), text_at(step, 0x00100010)) == ("0815", "ZZTEST^Åsa")
    assert 0x00400340 not in step


def test_a_step_without_an_order_is_a_step_like_any_other(peer: Peer) -> None:
    unscheduled = changed_by({"StudyInstanceUID": STUDY})
    outcome = peer.create(created(ScheduledStepAttributesSequence=[unscheduled]))

    assert outcome.status == 0x0000
    assert "AccessionNumber" not in peer.messages()[0]
    assert read_steps(peer.store.readers.connection, 9)[0].scheduled == (ScheduledStep(study_instance_uid=STUDY),)


def test_one_performed_step_may_answer_to_several_scheduled_ones(peer: Peer) -> None:
    several = [scheduled("A1", "S1"), scheduled("A2", "S2", "1.2.3.70"), scheduled("A1", "S1")]
    peer.create(created(ScheduledStepAttributesSequence=several))

    (kept,) = read_steps(peer.store.readers.connection, 9)
    assert [(each.accession_number, each.step_id) for each in kept.scheduled] == [("A1", "S1"), ("A2", "S2")]
    assert len(json.loads(peer.messages()[0]["orders"])) == 2
    assert len(steps_of_study(peer.store.readers.connection, "1.2.3.70")) == 1


def test_a_uid_is_given_where_the_modality_left_it_to_us(peer: Peer) -> None:
    outcome = peer.create(created(), uid="")

    assert outcome.sop_instance_uid is not None
    assert outcome.sop_instance_uid.startswith("2.25.")
    assert peer.state(outcome.sop_instance_uid) is StepState.IN_PROGRESS


def test_a_second_n_create_is_a_duplicate(peer: Peer) -> None:
    peer.create(created())

    assert peer.create(created()).status == 0x0111
    assert len(peer.messages()) == 1


def test_an_n_set_of_an_unknown_step_or_before_its_n_create_is_refused(peer: Peer) -> None:
    assert peer.set(completed()).status == 0x0112
    assert peer.set(completed(), uid="../x").status == 0x0112
    assert peer.create(created()).status == 0x0000


@pytest.mark.parametrize("end", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_is_over_is_changed_no_more(peer: Peer, end: str) -> None:
    peer.create(created())
    assert peer.set(completed(PerformedProcedureStepStatus=end)).status == 0x0000

    outcome = peer.set(completed(PerformedProcedureStepStatus="IN PROGRESS"))
    assert (outcome.status, outcome.error_id) == (0x0110, 0xA710)
    assert peer.state() is StepState(end)


@pytest.mark.parametrize(
    ("changes", "status", "tag"),
    [
        ({"Modality": None}, 0x0120, 0x00080060),
        ({"ScheduledStepAttributesSequence": None}, 0x0120, 0x00400270),
        ({"ScheduledStepAttributesSequence": []}, 0x0121, 0x00400270),
        ({"ScheduledStepAttributesSequence": [changed_by({"AccessionNumber": "A"})]}, 0x0120, 0x0020000D),
        ({"PerformedProcedureStepID": ""}, 0x0121, 0x00400253),
        ({"PerformedProcedureStepStatus": None}, 0x0120, 0x00400252),
        ({"PerformedProcedureStepStatus": "COMPLETED"}, 0x0106, 0x00400252),
        ({"PerformedProcedureStepStatus": "STARTED"}, 0x0106, 0x00400252),
        ({"ScheduledStepAttributesSequence": [scheduled(str(n), "S") for n in range(65)]}, 0x0106, 0x00400270),
        ({"PerformedSeriesSequence": [series(ProtocolName=None)]}, 0x0120, 0x00181030),
    ],
)
def test_a_faulty_n_create_is_refused_with_the_tag(
    peer: Peer, changes: dict[str, object], status: int, tag: int
) -> None:
    outcome = peer.create(created(**changes))

    assert (outcome.status, outcome.offending) == (status, (tag,))
    assert peer.messages() == []


@pytest.mark.parametrize(
    ("changes", "status", "tag"),
    [
        ({"PerformedProcedureStepEndTime": None}, 0x0120, 0x00400251),
        ({"PerformedProcedureStepEndDate": ""}, 0x0121, 0x00400250),
        ({"PerformedSeriesSequence": None}, 0x0121, 0x00400340),
        ({"PerformedSeriesSequence": [series(SeriesInstanceUID="")]}, 0x0121, 0x0020000E),
        ({"PerformedProcedureStepStatus": "DONE"}, 0x0106, 0x00400252),
        ({"PerformedProcedureStepStatus": ""}, 0x0121, 0x00400252),
    ],
)
def test_a_faulty_end_is_refused_and_can_be_told_again(
    peer: Peer, changes: dict[str, object], status: int, tag: int
) -> None:
    peer.create(created())

    outcome = peer.set(completed(**changes))
    assert (outcome.status, outcome.offending) == (status, (tag,))
    assert peer.state() is StepState.IN_PROGRESS
    assert peer.set(completed()).status == 0x0000


def test_what_an_earlier_n_set_brought_counts_at_the_end(peer: Peer) -> None:
    peer.create(created())
    peer.set(changed_by({"PerformedSeriesSequence": [series()]}))

    end = changed_by({"PerformedProcedureStepStatus": "COMPLETED", "PerformedProcedureStepEndDate": "20260101"})
    end.PerformedProcedureStepEndTime = "0815"
    assert peer.set(end).status == 0x0000


def test_a_step_given_up_without_series_is_over(peer: Peer) -> None:
    peer.create(created())

    end = completed(PerformedProcedureStepStatus="DISCONTINUED", PerformedSeriesSequence=None)
    assert peer.set(end).status == 0x0000
    assert peer.state() is StepState.DISCONTINUED


def test_an_n_set_does_not_move_a_step_to_another_patient(peer: Peer) -> None:
    peer.create(created())
    assert peer.set(completed(PatientID="OTHER", SpecificCharacterSet="ISO_IR 192")).status == 0x0000

    step = find_step(peer.store.readers.connection, STEP)
    assert step is not None
    assert text_at(step.attributes, 0x00100020) == "ZZ1"
    assert text_at(step.attributes, 0x00100010) == "ZZTEST^Åsa"


def test_the_same_n_set_is_kept_again_when_another_came_between(peer: Peer) -> None:
    peer.create(created())
    for description in ("one", "two", "one"):
        assert peer.set(changed_by({"PerformedProcedureStepDescription": description})).status == 0x0000

    step = find_step(peer.store.readers.connection, STEP)
    assert step is not None
    assert text_at(step.attributes, 0x00400254) == "one"
    assert len(peer.messages()) == 4


def test_a_disk_that_takes_nothing_is_said_so_and_nothing_changes(peer: Peer) -> None:
    peer.refusal = "too little room on the disk"
    assert peer.create(created()).status == 0x0213

    peer.refusal = None
    assert peer.create(created()).status == 0x0000
    peer.refusal = "too little room on the disk"
    assert peer.set(completed()).status == 0x0213
    assert peer.state() is StepState.IN_PROGRESS


def test_a_store_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    def broken(uid: str) -> None:
        raise StoreError("closed")

    store = open_store(tmp_path)
    intake = Intake(store, Router((), (), ()), lambda: None, lambda owed: None)
    service = ProcedureSteps(_Blocking(intake), broken, lambda step: None, lambda source: ())  # type: ignore[arg-type]
    outcome = asyncio.run(service(request(N_CREATE_RQ, MPPS_SOP_CLASS, STEP, created()), NoExchange()))
    store.close()

    assert outcome.status == 0x0213


def test_other_operations_and_odd_uids_are_refused(peer: Peer) -> None:
    wrong = request(0x0110, MPPS_SOP_CLASS, STEP, created())
    assert asyncio.run(peer.service(wrong, NoExchange())).status == 0x0211
    assert peer.create(created(), uid="1.2.x").status == 0x0117


def test_two_at_once_end_a_step_once(peer: Peer) -> None:
    peer.create(created())

    async def both() -> list[Outcome]:
        ends = [completed(), completed(PerformedProcedureStepStatus="DISCONTINUED")]
        asked = [request(N_SET_RQ, MPPS_SOP_CLASS, STEP, end) for end in ends]
        return list(await asyncio.gather(*(peer.service(each, NoExchange()) for each in asked)))

    assert [outcome.status for outcome in asyncio.run(both())] == [0x0000, 0x0110]
    assert peer.state() is StepState.COMPLETED


def test_old_steps_go_and_young_ones_stay(peer: Peer) -> None:
    peer.create(created())
    call = peer.store.call
    assert call(lambda connection: remove_steps(connection, 1)).result(10) == 0
    assert call(lambda connection: remove_steps(connection, 1 << 60)).result(10) == 1
    assert peer.state() is None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=300), st.integers(0, 400)))
def test_any_bytes_get_an_answer_and_only_sound_ones_are_kept(peer: Peer, data: bytes | int) -> None:
    whole = encoded(created())
    before = len(peer.messages())
    outcome = peer.create(data if isinstance(data, bytes) else whole[:data], uid="1.2.99")

    refusals = (0x0110, 0x0111, 0x0120, 0x0121, 0x0106)
    assert outcome.status in refusals if isinstance(data, bytes) else outcome.status in (0, *refusals)
    assert len(peer.messages()) - before == (outcome.status == 0)
