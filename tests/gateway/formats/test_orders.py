"""HL7 orders, appointments and demographics become changes of the worklist."""

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataset import text_at, values_at
from gateway.formats import orders
from gateway.formats.hl7 import read_header
from gateway.formats.identifiers import tag_of
from gateway.formats.orders import mapped_attributes, read_changes
from gateway.orders import Action, OrderChange, OrderRules, PatientChange, Station, StepStatus
from tests.gateway.orders_hl7 import adt, omi, orm, siu

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC)
SEQUENCE = tag_of("ScheduledProcedureStepSequence")


def read(raw: bytes, rules: OrderRules | None = None) -> tuple[orders.Change, ...]:
    return read_changes(raw, read_header(raw), "utf-8", rules or OrderRules(), source="emr", at=NOW)


def one(raw: bytes, rules: OrderRules | None = None) -> OrderChange:
    (change,) = read(raw, rules)
    assert isinstance(change, OrderChange)
    return change


def at(change: OrderChange | PatientChange, *names: str) -> str:
    return text_at(change.attributes, *map(tag_of, names))


def step(change: OrderChange, name: str) -> str:
    return at(change, "ScheduledProcedureStepSequence", name)


def test_an_order_becomes_a_step_with_everything_that_the_map_says() -> None:
    change = one(orm())

    assert (change.action, change.status, change.lacking, change.notes) == (
        Action.CREATE,
        StepStatus.SCHEDULED,
        (),
        (),
    )
    assert (change.accession, change.step_id, change.placer, change.filler) == (
        "A260115001",
        "SPS260115001",
        "P55210^OP",
        "F88100^OF",
    )
    said = {
        "PatientName": "Testcase^Anna^M",
        "PatientID": "MRN4471",
        "IssuerOfPatientID": "GENHOSP",
        "PatientBirthDate": "19620714",
        "PatientSex": "F",
        "PatientComments": "hard of hearing",
        "AdmissionID": "V880142",
        "CurrentPatientLocation": "ICU2 R7 B14",
        "RequestingPhysician": "Doc^Dora",
        "InstitutionName": "GENHOSP",
        "RequestedProcedureID": "RP260115001",
        "StudyInstanceUID": "1.2.3.4.5.6.7.20260115.1",
        "RequestedProcedureDescription": "CT thorax (left)",
        "RequestedProcedurePriority": "ROUTINE",
        "ReasonForTheRequestedProcedure": "Nodule",
        "PatientTransportArrangements": "WALK",
    }
    assert {name: at(change, name) for name in said} == said
    assert at(change, "OtherPatientIDsSequence", "PatientID") == "X99"
    assert at(change, "RequestedProcedureCodeSequence", "CodeValue") == "CTTHOR"
    in_step = {
        "Modality": "CT",
        "ScheduledProcedureStepStartDate": "20260115",
        "ScheduledProcedureStepStartTime": "140000",
        "ScheduledPerformingPhysicianName": "Reader^Rita",
        "ScheduledProcedureStepDescription": "CT thorax protocol (left)",
    }
    assert {name: step(change, name) for name in in_step} == in_step
    assert at(change, "ScheduledProcedureStepSequence", "ScheduledProtocolCodeSequence", "CodeValue") == "CTTHOR_P"


def test_each_ipc_is_a_step_of_its_own() -> None:
    changes = read(omi())

    assert [change.step_id for change in changes if isinstance(change, OrderChange)] == ["SPS1", "SPS2"]
    first = changes[0]
    assert values_at(first.attributes, SEQUENCE, tag_of("ScheduledStationAETitle")) == ("US3_AE", "US4_AE")
    assert at(first, "TimezoneOffsetFromUTC") == "+0000"
    assert at(first, "RequestedProcedurePriority") == "ROUTINE"


def test_several_orders_of_one_message_are_several_changes() -> None:
    second = "ORC|NW|P2^OP|F2^OF||SC\rOBR|2|P2^OP|F2^OF|CTABD^CT abdomen^L||||||||||||||A2|RP2|S2||||CT|||^^^20260115\r"
    raw = orm() + second.encode() + b"OBR|3|P3^OP|F3^OF|X^X ray^L||||||||||||||A3|RP3|S3||||DX|||^^^20260116\r"

    changes = [change for change in read(raw) if isinstance(change, OrderChange)]

    assert [(change.accession, change.step_id, change.filler) for change in changes] == [
        ("A260115001", "SPS260115001", "F88100^OF"),
        ("A2", "S2", "F2^OF"),
        ("A3", "S3", "F2^OF"),  # a further OBR has the ORC above it
    ]
    assert step(changes[1], "ScheduledProcedureStepStartTime") == "000000"


@pytest.mark.parametrize(
    ("control", "status", "action", "expected"),
    [
        ("NW", "IP", Action.CREATE, StepStatus.SCHEDULED),
        ("XO", "SC", Action.UPDATE, StepStatus.SCHEDULED),
        ("XO", "CM", Action.STATUS, StepStatus.COMPLETED),
        ("CA", "CA", Action.STATUS, StepStatus.CANCELED),
        ("CA", "", Action.STATUS, StepStatus.CANCELED),
        ("OC", "", Action.STATUS, StepStatus.CANCELED),
        ("DC", "CA", Action.STATUS, StepStatus.DISCONTINUED),
        ("SC", "CM", Action.STATUS, StepStatus.COMPLETED),
        ("SC", "A", Action.STATUS, StepStatus.COMPLETED),
        ("HD", "", Action.STATUS, StepStatus.HELD),
        ("", "", Action.UPDATE, None),
        ("??", "CA", Action.STATUS, StepStatus.CANCELED),
    ],
)
def test_what_an_order_does_is_told_by_control_and_status(
    control: str, status: str, action: Action, expected: StepStatus | None
) -> None:
    change = one(orm(control, status))

    assert (change.action, change.status) == (action, expected)


def test_an_appointment_moves_its_order() -> None:
    change = one(siu("S13"))

    assert (change.action, change.filler, change.exact) == (Action.UPDATE, "F88100^OF", False)
    assert step(change, "ScheduledProcedureStepStartDate") == "20260116"
    assert step(change, "ScheduledProcedureStepLocation") == "RAD"
    assert one(siu("S15")).status is StepStatus.CANCELED
    assert read(siu("S16")) == ()


def test_demographics_and_merges_are_changes_of_the_patient() -> None:
    (update,) = read(adt("A08"))
    (merge,) = read(adt("A40", "MRN9", more="MRG|MRN4471^^^GENHOSP^MR\r"))

    assert isinstance(update, PatientChange) and isinstance(merge, PatientChange)
    assert (update.patient_id, update.issuer, update.former_id) == ("MRN4471", "GENHOSP", "")
    assert at(update, "PatientName") == "Testcase-New^Anna"
    assert (merge.patient_id, merge.former_id) == ("MRN9", "MRN4471")
    assert read(adt("A01")) == ()


def test_several_merges_of_one_message_are_several_changes() -> None:
    more = "MRG|MRN1^^^GENHOSP^MR\rPID|||MRN8^^^GENHOSP^MR||Other^Olga\rMRG|MRN2^^^GENHOSP^MR\r"

    changes = [change for change in read(adt("A40", "MRN9", more=more)) if isinstance(change, PatientChange)]

    assert [(change.patient_id, change.former_id) for change in changes] == [("MRN9", "MRN1"), ("MRN8", "MRN2")]


@pytest.mark.parametrize(
    ("old", "new", "accession"),
    [
        ("A260115001", "", "F88100"),  # then OBR-3
        ("A260115001|RP260115001|SPS260115001", "||", "F88100"),
    ],
)
def test_without_an_accession_number_the_order_number_serves(old: str, new: str, accession: str) -> None:
    assert one(orm().replace(old.encode(), new.encode())).accession == accession


def test_what_is_lacking_is_named_and_the_message_stays_sound() -> None:
    change = one(
        orm().replace(b"||||CT|||", b"|||||||").replace(b"MRN4471^^^GENHOSP&1.2.3.4.5.6&ISO^MR~X99^^^OTHER^PI", b"")
    )

    assert change.lacking == ("PatientID", "Modality")


def test_an_id_that_is_too_long_is_refused_and_never_cut() -> None:
    change = one(orm().replace(b"A260115001", b"A" * 17))

    assert change.lacking == ("AccessionNumber",)
    assert change.notes == ("AccessionNumber: OBR-18.1 has 17 characters, 16 without backslash fit",)


def test_null_empties_an_attribute_and_nothing_leaves_it() -> None:
    change = one(orm("XO").replace(b"|WALK|", b'|""|').replace(b"|19620714|", b"||"))

    assert change.attributes[tag_of("PatientTransportArrangements")].values == ()
    assert tag_of("PatientBirthDate") not in change.attributes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Doe^Jane^Q^Jr^Dr^MD^L", "Doe^Jane^Q^Dr^Jr MD"),
        ("Van&der&Doe^Jane", "Van^Jane"),
        ("Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("山田^太郎^^^^^L^I", "=山田^太郎"),
        (r"O\T\Neil^Pat", "O&Neil^Pat"),
        (r"A\S\B^C", "A B^C"),
    ],
)
def test_names_are_put_in_the_order_of_dicom(name: str, expected: str) -> None:
    assert at(one(orm().replace(b"Testcase^Anna^M^^^^L", name.encode())), "PatientName") == expected


def test_a_source_may_have_its_own_fields_words_and_stations() -> None:
    rules = OrderRules(
        fields={"AccessionNumber": ("OBR-19",)},
        modalities={"CT": "MR"},
        stations=(Station(ae_title="CT9", modality="CT"), Station(ae_title="MR1", modality="MR", location="ICU")),
        authority="OTHER",
    )

    change = one(orm(), rules)

    assert (change.accession, step(change, "Modality"), step(change, "ScheduledStationAETitle")) == (
        "RP260115001",
        "MR",
        "MR1",
    )
    assert at(change, "PatientID") == "X99"


def test_times_with_an_offset_come_to_the_hospitals_zone() -> None:
    raw = orm(start="20260115233000+0000").replace(b"^^^20260115140000^^R|||8812", b"|||8812")

    change = one(raw, OrderRules(timezone="Europe/Berlin"))

    assert (step(change, "ScheduledProcedureStepStartDate"), step(change, "ScheduledProcedureStepStartTime")) == (
        "20260116",
        "003000",
    )
    assert at(change, "TimezoneOffsetFromUTC") == "+0100"


def test_an_order_that_is_not_planned_begins_with_its_message() -> None:
    raw = orm(start="").replace(b"^^^20260115140000^^R|||8812", b"|||8812")

    assert step(one(raw), "ScheduledProcedureStepStartTime") == "100000"


def test_every_row_of_the_map_is_usable() -> None:
    folder = Path(orders.__file__).parent
    for row in csv.DictReader((folder / "order_map.csv").read_text().splitlines()):
        assert row["kind"] in orders.READERS, row
        assert all(tag_of(name) for name in row["attribute"].split("."))
    assert {"AccessionNumber", "Modality"} <= mapped_attributes()


@given(st.binary(max_size=200), st.sampled_from([orm(), omi(), adt("A40"), siu("S12")]), st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
def test_any_bytes_behind_a_header_are_read_or_passed_over(noise: bytes, message: bytes, place: int) -> None:
    start = message.index(b"\r") + 1
    cut = min(start + place, len(message))
    raw = message[:cut] + noise + message[cut:]

    for change in read(raw):
        assert change.source == "emr"


def test_the_documented_map_is_the_map() -> None:
    root = Path(__file__).parents[3]
    rows = csv.DictReader((Path(orders.__file__).parent / "order_map.csv").read_text().splitlines())
    page = (root / "docs" / "worklist.md").read_text()

    for row in rows:
        name = row["attribute"].replace("ScheduledProcedureStepSequence.", ". ")
        assert f"| {name} | {row['fields'].replace(' ', ', ')} |" in page
