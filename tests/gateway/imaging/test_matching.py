"""C-FIND matching, by the kinds of PS3.4, C.2.2.2."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataset import Attributes, Element
from gateway.errors import ContentError
from gateway.formats.identifiers import tag_of, vr_of
from gateway.imaging.matching import read_query
from gateway.imaging.values import fits, glob, is_universal

SPS = tag_of("ScheduledProcedureStepSequence")
PERIOD = (tag_of("ScheduledProcedureStepStartDate"), tag_of("ScheduledProcedureStepStartTime"))


def keys(**values: str | dict[str, str] | None) -> dict[int, Element]:
    found = {}
    for name, value in values.items():
        tag = tag_of(name)
        if isinstance(value, dict):
            found[tag] = Element("SQ", items=(keys(**value),))
        else:
            found[tag] = Element(vr_of(tag), tuple((value or "").split("\\")) if value else ())
    return found


def step(**values: str) -> Attributes:
    base = {
        "Modality": "CT",
        "ScheduledStationAETitle": "CT1",
        "ScheduledProcedureStepStartDate": "20260115",
        "ScheduledProcedureStepStartTime": "140000",
    }
    return keys(PatientName="Doe^Jane", PatientID="MRN1", ScheduledProcedureStepSequence=base | values)


@pytest.mark.parametrize(
    ("vr", "key", "value", "expected"),
    [
        ("LO", "MRN1", "MRN1", True),
        ("LO", "mrn1", "MRN1", False),
        ("LO", "MR*", "MRN1", True),
        ("LO", "?RN?", "MRN1", True),
        ("LO", "?RN", "MRN1", False),
        ("CS", "C*", "CT", True),
        ("SH", "*1", "A1", True),
        ("UI", "1.2\\1.3", "1.3", True),
        ("UI", "1.2\\1.3", "1.30", False),
        ("UI", "1.*", "1.3", False),
        ("IS", "7", "007", True),
        ("DS", "1.50", "1.5", True),
        ("AS", "040Y", "040Y", True),
        ("PN", "doe^jane", "Doe^Jane", True),
        ("PN", "DOE*", "Doe^Jane", True),
        ("PN", "Doe", "Doe^Jane", False),
        ("PN", "Doe^Jane^^^", "Doe^Jane", True),
        ("PN", "Doe^J*^*", "Doe^Jane", True),
        ("PN", "山田*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PN", "=山田^太郎", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PN", "=山田^花子", "Yamada^Tarou=山田^太郎=やまだ^たろう", False),
        ("PN", "*=*=やまだ*", "Yamada^Tarou=山田^太郎=やまだ^たろう", True),
        ("PN", "Yamada*=田中*", "Yamada^Tarou=山田^太郎", False),
        ("PN", "ﾔﾏﾀﾞ*", "ヤマダ^タロウ", True),
        ("PN", "MÜLLER", "Müller", True),
        ("DA", "20260115", "20260115", True),
        ("DA", "20260115", "2026.01.15", True),
        ("DA", "20260101-20260131", "20260131", True),
        ("DA", "20260101-20260131", "20260201", False),
        ("DA", "-20260115", "20260115", True),
        ("DA", "20260116-", "20260115", False),
        ("DA", "20260131-20260101", "20260115", False),
        ("TM", "14", "143000", True),
        ("TM", "1430", "14:30:59.9", True),
        ("TM", "143000", "143001", False),
        ("TM", "0800-1200", "120030", True),
        ("TM", "080000-120000", "120001", False),
        ("TM", "0000-2400", "235959.999999", True),
        ("TM", "-0759", "080000", False),
        ("DT", "20260115120000+0100", "20260115110000+0000", True),
        ("DT", "20260115-20260116", "20260116235959", True),
        ("DT", "20260115-", "2026011423", False),
        ("DT", "-20260115120000-0500", "20260115165959", True),
    ],
)
def test_a_value_fits_a_key_by_the_rules_of_its_representation(vr: str, key: str, value: str, expected: bool) -> None:
    assert fits(vr, key.split("\\"), (value,)) is expected


def test_an_entity_without_a_value_fits_only_keys_that_ask_for_nothing() -> None:
    assert is_universal("PN", ("*",)) and is_universal("DA", ()) and not is_universal("UI", ("*",))
    assert not read_query(keys(PatientName="*", AccessionNumber=None)).misses({})
    assert read_query(keys(PatientName="D*")).misses({}) == ("PatientName",)


def test_of_several_values_one_that_fits_is_enough() -> None:
    assert fits("AE", ("CT2",), ("CT1", "CT2"))
    assert fits("CS", ("MR", "CT"), ("CT",))


@pytest.mark.parametrize(
    ("dates", "times", "expected"),
    [
        ("20260114-20260116", "1500-1000", True),  # one period, from the 14th at 15:00 to the 16th at 10:00
        ("20260114-20260115", "1500-1000", False),
        ("20260115-", "1500-", False),
        ("20260115-", "1400-", True),
        ("-20260115", "-1300", False),
        ("20260114-20260116", "1500", False),  # no two ranges: each by itself
        ("20260114-20260116", "14", True),
        ("20260115", "1300-1500", True),
        ("20260114-20260116", "1500-", False),  # not of one form: each by itself
    ],
)
def test_a_date_and_a_time_range_are_one_period(dates: str, times: str, expected: bool) -> None:
    wanted = {"ScheduledProcedureStepStartDate": dates, "ScheduledProcedureStepStartTime": times}
    query = read_query(keys(ScheduledProcedureStepSequence=wanted), periods=[PERIOD])

    assert (not query.misses(step())) is expected


def test_without_a_period_the_time_range_holds_on_every_day() -> None:
    wanted = {"ScheduledProcedureStepStartDate": "20260114-20260116", "ScheduledProcedureStepStartTime": "1500-1600"}

    assert read_query(keys(ScheduledProcedureStepSequence=wanted)).misses(step()) == (
        "ScheduledProcedureStepSequence.ScheduledProcedureStepStartTime",
    )


def test_every_key_that_leaves_an_entity_out_is_named() -> None:
    query = read_query(keys(PatientName="Roe*", ScheduledProcedureStepSequence={"Modality": "MR"}))

    assert query.misses(step()) == ("PatientName", "ScheduledProcedureStepSequence.Modality")


def test_an_answer_holds_what_was_asked_for_and_empty_what_is_not_there() -> None:
    query = read_query(keys(PatientName=None, AccessionNumber=None, ScheduledProcedureStepSequence={"Modality": None}))

    assert query.answer(step()) == keys(
        PatientName="Doe^Jane", AccessionNumber=None, ScheduledProcedureStepSequence={"Modality": "CT"}
    )


def test_an_empty_sequence_or_item_asks_for_the_whole_sequence() -> None:
    whole = step()[SPS]

    assert read_query({SPS: Element("SQ")}).answer(step()) == {SPS: whole}
    assert read_query({SPS: Element("SQ", items=({},))}).answer(step()) == {SPS: whole}


def test_only_items_that_fit_are_in_an_answer() -> None:
    codes = tag_of("RequestedProcedureCodeSequence")
    entity = {codes: Element("SQ", items=(keys(CodeValue="A"), keys(CodeValue="B")))}
    query = read_query({codes: Element("SQ", items=(keys(CodeValue="B", CodeMeaning=None),))})

    assert query.misses(entity) == ()
    assert query.answer(entity)[codes].items == (keys(CodeValue="B", CodeMeaning=None),)


def test_a_key_nobody_knows_is_not_matched_and_not_answered() -> None:
    query = read_query(keys(PatientName=None, PatientMotherBirthName="X"), known=lambda path: path[-1] == 0x00100010)

    assert query.unsupported == {(tag_of("PatientMotherBirthName"),)}
    assert query.misses(step()) == ()
    assert query.answer(step()) == keys(PatientName="Doe^Jane")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("StudyDate", "yesterday"),
        ("StudyDate", "202601"),
        ("StudyDate", "-"),
        ("StudyTime", "25"),
        ("StudyDate", "1-2-3"),
        ("AcquisitionDateTime", "20269"),
    ],
)
def test_a_date_or_time_key_that_is_none_is_told_without_its_value(name: str, value: str) -> None:
    with pytest.raises(ContentError) as caught:
        read_query(keys(**{name: value}))

    assert name in str(caught.value) and value not in str(caught.value).replace(name, "").partition(":")[0]


@given(st.text("ab?*", max_size=8), st.text("ab", max_size=8))
@settings(max_examples=200, deadline=None)
def test_wildcards_mean_what_the_slow_definition_says(pattern: str, text: str) -> None:
    def slow(wanted: str, rest: str) -> bool:
        if not wanted:
            return not rest
        if wanted[0] == "*":
            return slow(wanted[1:], rest) or (bool(rest) and slow(wanted, rest[1:]))
        return bool(rest) and wanted[0] in ("?", rest[0]) and slow(wanted[1:], rest[1:])

    assert glob(pattern, text) is slow(pattern, text)


@given(st.sampled_from(["DA", "TM", "DT", "PN", "LO", "UI", "IS"]), st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_any_text_is_matched_or_refused_by_name(vr: str, key: str, value: str) -> None:
    try:
        fits(vr, (key,), (value,))
    except ContentError:
        assert vr in ("DA", "TM", "DT")
