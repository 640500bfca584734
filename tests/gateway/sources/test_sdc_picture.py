import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from gateway.formats.events import Envelope, session_of
from gateway.formats.pcd import render_pcd01
from gateway.formats.result_documents import result_documents
from gateway.formats.results import decode_result, encode_result
from gateway.formats.sdc_facts import (
    Activation,
    Category,
    ClockState,
    Coded,
    ComponentState,
    ConditionState,
    Descriptor,
    Host,
    LocationState,
    Mdib,
    MetricState,
    Mode,
    Part,
    PatientState,
    Presence,
    SignalState,
    State,
    Validity,
    WaveState,
)
from gateway.model import Phase, Result
from gateway.sources.sdc_picture import Picture, places_differ
from tests.gateway.formats.results_of import ORIGIN, RECEIVED_AT, message_of, parcel_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
AT = NOW.timestamp()
ENVELOPE = Envelope(gateway="ward-3a", session=session_of(RECEIVED_AT), seq=5, sent_at=RECEIVED_AT)
VALIDATOR = Draft202012Validator(
    json.loads(files("gateway.formats").joinpath("mqtt.schema.json").read_text()), format_checker=FormatChecker()
)


def leaf(handle: str, part: Part, code: str, **more: object) -> Descriptor:
    return Descriptor(handle=handle, parent="channel", part=part, coded=Coded(code=code), **more)  # type: ignore[arg-type]


DESCRIPTORS = (
    Descriptor(handle="mds", parent=None, part=Part.MDS, coded=Coded(code="69965")),
    Descriptor(handle="vmd", parent="mds", part=Part.VMD, coded=Coded(code="69798")),
    Descriptor(handle="channel", parent="vmd", part=Part.CHANNEL),
    leaf("hr", Part.NUMERIC, "147842", unit=Coded(code="264864")),
    leaf("nibp", Part.NUMERIC, "150021", intermittent=True),
    leaf("mode", Part.STRING, "184352", category=Category.SETTING),
    leaf("pleth", Part.WAVE, "150452", period_s=Decimal("0.01"), unit=Coded(code="262656")),
    Descriptor(handle="alerts", parent="mds", part=Part.OTHER),
    Descriptor(handle="low", parent="alerts", part=Part.CONDITION, sources=("hr",), priority="Hi"),
    Descriptor(handle="aud", parent="alerts", part=Part.SIGNAL, signals="low", audible=True),
    Descriptor(handle="patient", parent="mds", part=Part.OTHER),
    Descriptor(handle="clock", parent="mds", part=Part.OTHER),
)
SYNCHRONISED = ClockState(handle="clock", shown_at=AT, synchronised=True)


def mdib(*states: State, descriptors: tuple[Descriptor, ...] = DESCRIPTORS) -> Mdib:
    return Mdib(host=Host(epr="urn:uuid:1"), descriptors=descriptors, states=states)


def value(handle: str, number: int, at: float = AT, version: int = 1) -> MetricState:
    return MetricState(handle=handle, version=version, value=Decimal(number), validity=Validity.VALID, determined_at=at)


def piece(version: int, at: float, count: int = 10) -> WaveState:
    return WaveState(
        handle="pleth", version=version, samples=(Decimal(1),) * count, validity=Validity.VALID, determined_at=at
    )


def test_only_a_clock_that_is_set_by_a_server_and_close_to_ours_is_believed() -> None:
    believed, unset, far = Picture(), Picture(), Picture()
    believed.behold(mdib(SYNCHRONISED), NOW)
    unset.behold(mdib(replace(SYNCHRONISED, synchronised=False)), NOW)
    far.behold(mdib(SYNCHRONISED), NOW)

    assert believed.follow((value("hr", 60, AT - 1),), NOW)[0].observed_at == NOW - timedelta(seconds=1)
    assert unset.follow((value("hr", 60, AT - 1),), NOW)[0].observed_at is None
    [late] = far.follow((value("hr", 60, AT - 3600),), NOW)
    assert (late.observed_at, late.device_time) == (None, "2026-03-01T11:00:00.000+00:00")
    assert late.device_clock is not None


def test_a_cuff_pressure_is_told_once_over_lost_connections() -> None:
    picture = Picture()
    [first] = picture.behold(mdib(SYNCHRONISED, value("nibp", 120, AT - 600)), NOW)
    again = picture.behold(mdib(SYNCHRONISED, value("nibp", 120, AT - 600)), NOW)
    [new] = picture.behold(mdib(SYNCHRONISED, value("nibp", 125, AT)), NOW)

    assert [seen.observed_at for seen in first.observations] == [NOW - timedelta(seconds=600)]
    assert again == ()
    assert [seen.value for seen in new.observations] == [125]


def test_an_old_value_of_a_clock_that_is_not_believed_is_questionable() -> None:
    [result] = Picture().behold(mdib(value("nibp", 120, AT - 600)), NOW)

    assert result.observations[0].flags == ("QUES",)


def test_a_gap_in_a_wave_is_marked_and_only_a_gap() -> None:
    picture = Picture(("pleth_wave",))
    picture.behold(mdib(SYNCHRONISED), NOW)
    pieces = [piece(1, AT), piece(2, AT + 0.1), piece(4, AT + 0.3), piece(5, AT + 0.9), piece(6, AT + 1.0)]
    gaps = [picture.follow((each,), NOW)[0].waves[0].gap for each in pieces]

    assert gaps == [False, False, True, True, False]


def test_a_wave_that_nobody_asked_for_is_not_told() -> None:
    picture = Picture(("ecg_wave",))
    picture.behold(mdib(), NOW)

    assert picture.follow((piece(1, AT),), NOW) == ()


def phases(results: tuple[Result, ...]) -> list[Phase | None]:
    return [condition.phase for result in results for condition in result.conditions]


def test_every_alarm_that_was_told_has_an_end() -> None:
    picture = Picture()
    present, gone = ConditionState(handle="low", present=True), ConditionState(handle="low")
    without = tuple(one for one in DESCRIPTORS if one.handle != "low")

    assert phases(picture.behold(mdib(present), NOW)) == [Phase.START]
    assert phases(picture.restate(NOW, 1000.0)) == [Phase.PRESENT]
    assert phases(picture.restate(NOW, 1029.0)) == []
    assert phases(picture.behold(mdib(present), NOW)) == [Phase.PRESENT]
    assert phases(picture.behold(mdib(gone), NOW)) == [Phase.END]
    assert phases(picture.follow((present,), NOW)) == [Phase.START]
    assert phases(picture.behold(mdib(descriptors=without), NOW)) == [Phase.END]
    assert phases(picture.restate(NOW, 2000.0)) == []


def test_an_acknowledged_alarm_is_silenced() -> None:
    picture = Picture()
    picture.behold(mdib(ConditionState(handle="low", present=True), SignalState(handle="aud")), NOW)
    [result] = picture.follow((SignalState(handle="aud", presence=Presence.ACKNOWLEDGED),), NOW)

    assert [condition.silenced for condition in result.conditions] == [True]


@pytest.mark.parametrize(("mode", "notice"), [("Dmo", "demo mode"), ("Srv", "service mode"), ("Nml", None)])
def test_a_device_that_is_not_at_a_patient_publishes_nothing(mode: str, notice: str | None) -> None:
    picture = Picture()
    results = picture.behold(mdib(ComponentState(handle="mds", operating=mode), value("hr", 60)), NOW)

    assert (bool(results), picture.notice) == (notice is None, notice)


def test_each_mds_is_a_device_of_its_own() -> None:
    second = tuple(
        replace(one, handle=f"{one.handle}2", parent=None if one.parent is None else f"{one.parent}2")
        for one in DESCRIPTORS[:4]
    )
    picture = Picture()
    patient = PatientState(handle="p", descriptor="patient", associated=True, identifier="ZZTEST-1")
    shown = mdib(patient, value("hr", 60), value("hr2", 80), descriptors=(*DESCRIPTORS, *second))
    first, other = picture.behold(shown, NOW)

    assert [(seen.sub, seen.value) for seen in first.observations] == [("1.1.1.1", 60)]
    assert [(seen.sub, seen.value) for seen in other.observations] == [("2.1.1.1", 80)]
    assert (first.patient_id, other.patient_id) == ("ZZTEST-1", None)


def test_a_part_that_fails_is_told() -> None:
    [result] = Picture().behold(mdib(ComponentState(handle="vmd", activation=Activation.FAILURE)), NOW)

    assert [(each.text, each.sub) for each in result.conditions] == [("vmd 69798: Fail", "1.1.0.0")]


def test_states_that_never_came_are_counted() -> None:
    picture = Picture()
    picture.behold(mdib(value("hr", 60, version=3)), NOW)
    picture.follow((value("hr", 61, version=6),), NOW)

    assert picture.missed == 2


@pytest.mark.parametrize(
    ("bed", "place", "differ"),
    [
        ("ICU^^14", "ICU^^14^GENERAL", False),
        ("ICU^^14", "ICU^^15", True),
        ("", "ICU^^15", False),
        ("ICU^^14", "", False),
    ],
)
def test_the_configured_bed_holds_and_a_difference_is_seen(bed: str, place: str, differ: bool) -> None:
    assert places_differ(bed, place) is differ


HANDLES = st.sampled_from([one.handle for one in DESCRIPTORS] + ["nobody"])
NUMBERS = st.one_of(st.none(), st.decimals(allow_nan=True, allow_infinity=True))
TIMES = st.one_of(st.none(), st.floats(AT - 10_000, AT + 10_000), st.floats())
ACTIVATIONS, VALIDITIES, MODES = (st.sampled_from(list(kind)) for kind in (Activation, Validity, Mode))
TEXTS = st.text(max_size=20)
STATES = st.one_of(
    st.builds(
        MetricState,
        handle=HANDLES,
        version=st.integers(0, 50),
        activation=ACTIVATIONS,
        value=st.one_of(NUMBERS, TEXTS),
        validity=VALIDITIES,
        mode=MODES,
        determined_at=TIMES,
    ),
    st.builds(
        WaveState,
        handle=HANDLES,
        version=st.integers(0, 50),
        samples=st.lists(st.decimals(allow_nan=True), max_size=5).map(tuple),
        validity=VALIDITIES,
        determined_at=TIMES,
    ),
    st.builds(ConditionState, handle=HANDLES, present=st.booleans(), low=NUMBERS, high=NUMBERS, active=st.booleans()),
    st.builds(SignalState, handle=HANDLES, presence=st.sampled_from(list(Presence)), active=st.booleans()),
    st.builds(ComponentState, handle=HANDLES, activation=ACTIVATIONS),
    st.builds(ClockState, handle=HANDLES, shown_at=TIMES, synchronised=st.booleans()),
    st.builds(PatientState, handle=TEXTS, descriptor=HANDLES, associated=st.booleans(), identifier=TEXTS),
    st.builds(LocationState, handle=TEXTS, descriptor=HANDLES, associated=st.booleans(), place=TEXTS),
)
REPORTS = st.lists(st.lists(STATES, max_size=6).map(tuple), max_size=4)


@settings(max_examples=50, deadline=None)
@given(REPORTS, st.sets(st.integers(0, len(DESCRIPTORS) - 1), max_size=4))
def test_whatever_a_device_says_can_be_kept_and_delivered(reports: list[tuple[State, ...]], gone: set[int]) -> None:
    picture = Picture(("all",))
    kept = tuple(one for number, one in enumerate(DESCRIPTORS) if number not in gone)
    results = [*picture.behold(mdib(), NOW)]
    for states in reports:
        results += picture.follow(states, NOW)
        results += picture.behold(mdib(*states, descriptors=kept), NOW)
    for result in results:
        assert decode_result(encode_result(result)) == result
        for document in result_documents(ENVELOPE, message_of(result), ORIGIN, historical=False):
            VALIDATOR.validate(json.loads(document.body))
        render_pcd01(parcel_of(message_of(result)), ORIGIN, waves=True)
