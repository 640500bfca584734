"""The worklist's rows: create, change, cancel, merge, perform, expire; in the Message's own transaction."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataset import Element, text_at, values_at
from gateway.formats.hl7 import read_header
from gateway.formats.identifiers import tag_of
from gateway.formats.orders import read_changes
from gateway.orders import (
    OrderRules,
    ProcedureStep,
    ScheduledStep,
    StepChange,
    StepState,
    StepStatus,
    WorklistItem,
)
from gateway.store.store import Store
from gateway.store.worklist import drop_unseen, find_item, keep_query, put_upstream, remove_old
from gateway.store.worklist_reading import read_items, read_problems, read_queries
from tests.gateway.orders_hl7 import adt, omi, orm, siu
from tests.gateway.store.stores import Outcomes, incoming, open_store

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC)
SEQUENCE = tag_of("ScheduledProcedureStepSequence")


class Ward:
    """A store with an EMR that sends."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sent = 0

    def receive(self, raw: bytes, at: datetime = NOW) -> None:
        changes = read_changes(raw, read_header(raw), "utf-8", OrderRules(), source="emr", at=at)
        self.change(*changes, raw=raw)

    def change(self, *changes: object, raw: bytes = b"-") -> None:
        self.sent += 1
        told = Outcomes()
        self.store.keep(incoming(raw, str(self.sent), changes=changes), (), told)
        (outcome,) = told.wait(1)
        assert not isinstance(outcome, Exception), outcome

    def items(self, *, everything: bool = True) -> list[WorklistItem]:
        return read_items(self.store.readers.connection, everything=everything)

    def only(self) -> WorklistItem:
        (item,) = self.items()
        return item

    def reasons(self) -> list[str]:
        return [problem.reason for problem in read_problems(self.store.readers.connection, 10)]

    def perform(self, state: StepState, *, reason: str = "", **scheduled: str) -> None:
        values = {"study_instance_uid": "1.2.3.4.5.6.7.20260115.1", "accession_number": "A260115001"} | scheduled
        code = {0x00080100: Element("SH", (reason,)), 0x00080102: Element("SH", ("DCM",))}
        said = {0x00400252: Element("CS", (state.value,)), 0x00400281: Element("SQ", items=(code,))}
        step = ProcedureStep(sop_instance_uid=f"1.2.{self.sent}", state=state, attributes=said)
        self.change(StepChange(step=step, scheduled=(ScheduledStep(**values),), at=NOW))


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    store = open_store(tmp_path)
    yield Ward(store)
    store.close()


def start(item: WorklistItem) -> str:
    day = text_at(item.attributes, SEQUENCE, tag_of("ScheduledProcedureStepStartDate"))
    return day + text_at(item.attributes, SEQUENCE, tag_of("ScheduledProcedureStepStartTime"))


def test_an_order_is_an_item_of_its_message(ward: Ward) -> None:
    ward.receive(orm())

    item = ward.only()
    assert (item.accession, item.step_id, item.status, item.message_id) == (
        "A260115001",
        "SPS260115001",
        StepStatus.SCHEDULED,
        1,
    )
    assert item.source == "emr" and not item.performed


def test_an_order_sent_twice_is_one_item(ward: Ward) -> None:
    ward.receive(orm())
    ward.receive(orm())
    ward.receive(omi())

    assert [item.step_id for item in ward.items()] == ["SPS260115001", "SPS1", "SPS2"]


def test_a_change_is_laid_over_and_keeps_what_it_does_not_name(ward: Ward) -> None:
    ward.receive(orm())
    ward.receive(
        orm("XO", start="20260117080000").replace(b"^^^20260115140000^^R|||8812", b"|||8812").replace(b"|WALK|", b"||")
    )

    item = ward.only()
    assert start(item) == "20260117080000"
    assert text_at(item.attributes, tag_of("PatientTransportArrangements")) == "WALK"


def test_a_change_of_an_unknown_order_creates_it_where_it_says_enough(ward: Ward) -> None:
    ward.receive(orm("XO"))

    assert ward.only().status is StepStatus.SCHEDULED


@pytest.mark.parametrize(
    ("control", "status", "expected"),
    [("CA", "CA", StepStatus.CANCELED), ("DC", "CA", StepStatus.DISCONTINUED), ("HD", "", StepStatus.HELD)],
)
def test_a_canceled_order_is_shown_no_more(ward: Ward, control: str, status: str, expected: StepStatus) -> None:
    ward.receive(orm())
    ward.receive(orm(control, status))

    assert ward.only().status is expected
    assert ward.items(everything=False) == []


def test_a_cancellation_with_nothing_but_the_order_number_finds_its_steps(ward: Ward) -> None:
    ward.receive(orm())
    ward.receive(omi())
    head = omi().split(b"\r")[0]
    ward.receive(head + b"\rORC|CA||F88101^OF||CA\r")

    assert {item.step_id: item.status.value for item in ward.items()} == {
        "SPS260115001": "SCHEDULED",
        "SPS1": "CANCELED",
        "SPS2": "CANCELED",
    }


def test_order_numbers_count_only_with_their_namespace(ward: Ward) -> None:
    ward.receive(orm())
    ward.receive(orm().split(b"\r")[0] + b"\rORC|CA||F88100^ELSE||CA\r")

    assert ward.only().status is StepStatus.SCHEDULED
    assert ward.reasons() == ["the order is not known: nothing to cancel or complete"]


def test_a_canceled_order_that_is_ordered_again_is_back(ward: Ward) -> None:
    ward.receive(orm())
    ward.receive(orm("CA", "CA"))
    ward.receive(orm())

    assert ward.only().status is StepStatus.SCHEDULED


def test_an_appointment_moves_the_step(ward: Ward) -> None:
    ward.receive(orm())
    ward.receive(siu("S13", "20260120101500"))

    item = ward.only()
    assert (item.accession, item.step_id, start(item)) == ("A260115001", "SPS260115001", "20260120101500")

    ward.receive(siu("S15"))
    assert ward.only().status is StepStatus.CANCELED


def test_an_order_that_cannot_become_an_item_is_listed_with_the_reason(ward: Ward) -> None:
    ward.receive(orm().replace(b"||||CT|||", b"|||||||"))

    assert ward.items() == []
    assert ward.reasons() == ["no item: Modality is missing"]


def test_an_order_without_a_study_gets_one_for_its_accession_number(ward: Ward) -> None:
    raw = omi().replace(b"|1.2.3.4.5.6.7.20260115.2|", b"||")
    ward.receive(raw)
    ward.receive(raw)

    studies = {text_at(item.attributes, tag_of("StudyInstanceUID")) for item in ward.items()}
    assert len(studies) == 1 and next(iter(studies)).startswith("2.25.") and len(ward.items()) == 2


def test_new_demographics_reach_every_step_of_the_patient(ward: Ward) -> None:
    ward.receive(orm())
    ward.receive(omi())
    ward.receive(adt("A08"))

    assert {text_at(item.attributes, tag_of("PatientName")) for item in ward.items()} == {"Testcase-New^Anna"}
    assert {text_at(item.attributes, tag_of("PatientBirthDate")) for item in ward.items()} == {"19620715"}


def test_demographics_of_another_authority_or_patient_change_nothing(ward: Ward) -> None:
    ward.receive(orm())
    before = ward.only()
    ward.receive(adt("A08").replace(b"^^^GENHOSP^MR", b"^^^ELSEWHERE^MR"))
    ward.receive(adt("A08", "MRN1"))

    assert ward.only() == before


def test_a_merge_moves_the_steps_and_remembers_the_former_id(ward: Ward) -> None:
    ward.receive(orm())
    ward.receive(adt("A40", "MRN9", more="MRG|MRN4471^^^GENHOSP^MR\r"))

    attributes = ward.only().attributes
    assert text_at(attributes, tag_of("PatientID")) == "MRN9"
    others = attributes[tag_of("OtherPatientIDsSequence")].items
    assert [text_at(item, tag_of("PatientID")) for item in others] == ["X99", "MRN4471"]
    ward.receive(adt("A08", "MRN9", "After^Merge"))
    assert text_at(ward.only().attributes, tag_of("PatientName")) == "After^Merge"


def test_a_modality_moves_the_step_on_and_an_order_does_not_take_it_back(ward: Ward) -> None:
    ward.receive(orm())
    ward.perform(StepState.IN_PROGRESS, step_id="SPS260115001")
    assert (ward.only().status, ward.only().performed) == (StepStatus.STARTED, True)
    ward.receive(orm("XO"))
    assert ward.only().status is StepStatus.STARTED
    ward.perform(StepState.COMPLETED, step_id="SPS260115001")
    ward.receive(orm("CA", "CA"))

    assert ward.only().status is StepStatus.COMPLETED


def test_a_step_that_was_picked_by_mistake_is_back_in_the_worklist(ward: Ward) -> None:
    ward.receive(orm())
    for state, reason in ((StepState.IN_PROGRESS, ""), (StepState.DISCONTINUED, "110514")):
        ward.perform(state, reason=reason, step_id="SPS260115001")
    assert [(item.status, item.performed) for item in ward.items(everything=False)] == [(StepStatus.SCHEDULED, False)]

    ward.perform(StepState.IN_PROGRESS, step_id="SPS260115001")
    ward.perform(StepState.DISCONTINUED, reason="110513", step_id="SPS260115001")
    assert ward.only().status is StepStatus.DISCONTINUED


def test_an_order_that_was_canceled_meanwhile_is_not_brought_back_by_a_mistake(ward: Ward) -> None:
    ward.receive(orm())
    ward.perform(StepState.IN_PROGRESS, step_id="SPS260115001")
    ward.receive(orm("CA", "CA"))
    ward.perform(StepState.DISCONTINUED, reason="110514", step_id="SPS260115001")

    assert ward.only().status is StepStatus.CANCELED


@pytest.mark.parametrize(
    "scheduled",
    [
        {"step_id": "SPS260115001"},
        {"step_id": ""},
        {"step_id": "", "accession_number": ""},
        {"study_instance_uid": ""},
    ],
)
def test_an_item_is_found_by_what_a_modality_tells(ward: Ward, scheduled: dict[str, str]) -> None:
    ward.receive(orm())
    values = {"study_instance_uid": "1.2.3.4.5.6.7.20260115.1", "accession_number": "A260115001"} | scheduled

    found = find_item(ward.store.readers.connection, ScheduledStep(**values))

    assert found is not None and found.step_id == "SPS260115001"


def test_one_of_several_steps_is_not_guessed(ward: Ward) -> None:
    ward.receive(omi())

    step = ScheduledStep(study_instance_uid="1.2.3.4.5.6.7.20260115.2", accession_number="A260115002")
    assert find_item(ward.store.readers.connection, step) is None


def upstream(accession: str, **more: str) -> dict[int, Element]:
    step = {tag_of("ScheduledProcedureStepID"): Element("SH", (f"S{accession}",))}
    found = {tag_of("AccessionNumber"): Element("SH", (accession,)), SEQUENCE: Element("SQ", items=(step,))}
    return found | {tag_of(name): Element("LO", (value,)) for name, value in more.items()}


def test_an_upstream_worklist_is_kept_and_what_is_gone_there_goes(ward: Ward) -> None:
    def poll(at: datetime, *items: dict[int, Element]) -> None:
        ward.store.call(lambda connection: put_upstream(connection, "ris", items, at)).result(10)

    poll(NOW, upstream("U1"), upstream("U2"))
    later = NOW + timedelta(minutes=5)
    poll(later, upstream("U2", PatientID="P2"))
    assert {item.accession for item in ward.items()} == {"U1", "U2"}

    gone = ward.store.call(lambda connection: drop_unseen(connection, "ris", later)).result(10)

    assert gone == 1
    assert text_at(ward.only().attributes, tag_of("PatientID")) == "P2"


def test_a_step_that_a_modality_has_begun_outlives_its_place_in_an_upstream_worklist(ward: Ward) -> None:
    def poll(at: datetime, *items: dict[int, Element]) -> None:
        ward.store.call(lambda connection: put_upstream(connection, "ris", items, at)).result(10)
        ward.store.call(lambda connection: drop_unseen(connection, "ris", at)).result(10)

    poll(NOW, upstream("U1"))
    ward.perform(StepState.IN_PROGRESS, accession_number="U1", step_id="SU1")
    poll(NOW + timedelta(minutes=5))
    assert (ward.items(everything=False), ward.only().status) == ([], StepStatus.STARTED)

    poll(NOW + timedelta(minutes=6), upstream("U1"))
    assert len(ward.items(everything=False)) == 1

    poll(NOW + timedelta(minutes=9))
    ward.perform(StepState.COMPLETED, accession_number="U1", step_id="SU1")
    assert ward.only().status is StepStatus.COMPLETED

    ward.store.call(lambda connection: remove_old(connection, NOW + timedelta(days=7))).result(10)
    assert ward.items() == []


def test_an_upstream_worklist_leaves_the_orders_of_others_alone(ward: Ward) -> None:
    ward.receive(orm())
    step = {tag_of("ScheduledProcedureStepID"): Element("SH", ("SPS260115001",))}
    same = {tag_of("AccessionNumber"): Element("SH", ("A260115001",)), SEQUENCE: Element("SQ", items=(step,))}
    ward.store.call(lambda connection: put_upstream(connection, "ris", [same], NOW)).result(10)
    ward.store.call(lambda connection: drop_unseen(connection, "ris", NOW + timedelta(days=1))).result(10)

    assert ward.only().source == "emr" and values_at(ward.only().attributes, tag_of("PatientID"))


def test_old_steps_go_and_those_to_come_stay(ward: Ward) -> None:
    ward.receive(orm())
    ward.receive(
        orm(start="20260301")
        .replace(b"A260115001", b"A2")
        .replace(b"F88100", b"F2")
        .replace(b"P55210", b"P2")
        .replace(b"^^^20260115140000^^R|||8812", b"|||8812")
    )

    removed = ward.store.call(lambda connection: remove_old(connection, NOW + timedelta(days=7))).result(10)

    assert removed == 1 and ward.only().accession == "A2"


def test_queries_are_kept_with_what_left_steps_out_the_newest_ones(ward: Ward) -> None:
    def ask(number: int) -> None:
        ward.store.call(
            lambda connection: keep_query(
                connection,
                at=NOW,
                source="imaging",
                calling=f"CT{number % 2}",
                called="GATEWAY",
                host="10.0.0.1",
                keys={tag_of("PatientID"): Element("LO", ("P",))},
                looked_at=2,
                answered=1,
                status=0,
                excluded={"A/S": ("PatientID",)},
            )
        )

    for number in range(1010):
        ask(number)
    ward.store.call(lambda connection: None).result(10)

    everything = read_queries(ward.store.readers.connection, 5000)
    assert len(everything) == 1000 and everything[0].calling == "CT1"
    assert everything[0].excluded == {"A/S": ("PatientID",)}
    assert len(read_queries(ward.store.readers.connection, 5000, "CT0")) == 500


@given(st.lists(st.sampled_from(["NW", "XO", "CA", "DC", "OMI", "A08", "A40", "S13", "S15", "MPPS"]), max_size=8))
@settings(max_examples=12, deadline=None)
def test_whatever_comes_in_whatever_order_a_step_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, acts: list[str]
) -> None:
    store = open_store(tmp_path_factory.mktemp("w"))
    try:
        ward = Ward(store)
        for act in acts:
            if act == "OMI":
                ward.receive(omi())
            elif act == "MPPS":
                ward.perform(StepState.COMPLETED)
            elif act.startswith("A"):
                ward.receive(adt(act, more="MRG|MRN4471^^^GENHOSP^MR\r" if act == "A40" else ""))
            elif act.startswith("S"):
                ward.receive(siu(act))
            else:
                ward.receive(orm(act))
        keys = [(item.accession, item.step_id) for item in ward.items()]
        assert len(keys) == len(set(keys)) <= 3
        if acts and acts[-1] == "CA":
            assert not [item for item in ward.items(everything=False) if item.accession == "A260115001"]
    finally:
        store.close()
