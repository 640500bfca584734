from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from timeit import timeit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ContentError
from gateway.formats.results import decode_result, encode_result
from gateway.model import (
    Absent,
    Condition,
    Containment,
    DeviceIdentity,
    Episode,
    Method,
    Observation,
    Phase,
    Priority,
    Result,
    Turn,
    Wave,
)

NUMBERS = st.decimals(allow_nan=False)
INSTANTS = st.datetimes(timezones=st.just(UTC))
OPTIONAL_TEXT = st.none() | st.text(max_size=12)
OPTIONAL_CODE = st.none() | st.integers(0, 2**32)

REST = st.fixed_dictionaries(
    {
        "key": st.text(min_size=1, max_size=12),
        "sub": st.text(max_size=9),
        "code": OPTIONAL_CODE,
        "refid": OPTIONAL_TEXT,
        "loinc": OPTIONAL_TEXT,
        "unit": OPTIONAL_TEXT,
        "unit_code": OPTIONAL_CODE,
        "unit_refid": OPTIONAL_TEXT,
        "flags": st.lists(st.text(max_size=5), max_size=3).map(tuple),
        "method": st.sampled_from(Method),
        "episodic": st.booleans(),
        "observed_at": st.none() | INSTANTS,
        "low": st.none() | NUMBERS,
        "high": st.none() | NUMBERS,
    }
)
CONTENT = (NUMBERS | st.text(max_size=20)).map(lambda value: {"value": value}) | st.sampled_from(Absent).map(
    lambda absent: {"absent": absent}
)
OBSERVATIONS = st.tuples(REST, CONTENT).map(lambda parts: Observation(**parts[0], **parts[1]))
CONDITIONS = st.builds(
    Condition,
    code=st.text(max_size=9),
    text=st.text(max_size=9),
    technical=st.booleans(),
    priority=st.none() | st.sampled_from(Priority),
    phase=st.none() | st.sampled_from(Phase),
    sub=OPTIONAL_TEXT,
    mdc=OPTIONAL_CODE,
    low=st.none() | NUMBERS,
    high=st.none() | NUMBERS,
    silenced=st.booleans(),
    episode=st.none()
    | st.builds(Episode, instance=st.text(max_size=9), update=st.integers(1, 2**40), turn=st.sampled_from(Turn)),
)
WAVES = st.builds(
    Wave,
    key=st.text(max_size=9),
    sub=st.text(max_size=9),
    samples=st.lists(st.none() | st.integers(-(2**31), 2**31), max_size=9).map(tuple),
    period_s=NUMBERS,
    factor=NUMBERS,
    offset=NUMBERS,
    code=OPTIONAL_CODE,
    refid=OPTIONAL_TEXT,
    unit=OPTIONAL_TEXT,
    unit_code=OPTIONAL_CODE,
    unit_refid=OPTIONAL_TEXT,
    gap=st.booleans(),
    started_at=st.none() | INSTANTS,
)
RESULTS = st.builds(
    Result,
    observations=st.lists(OBSERVATIONS, max_size=3).map(tuple),
    device=st.builds(DeviceIdentity, manufacturer=OPTIONAL_TEXT, model=OPTIONAL_TEXT, serial=OPTIONAL_TEXT),
    containment=st.lists(
        st.builds(Containment, sub=st.text(max_size=7), code=st.integers(0, 2**32), refid=st.text(max_size=9)),
        max_size=2,
    ).map(tuple),
    conditions=st.lists(CONDITIONS, max_size=2).map(tuple),
    waves=st.lists(WAVES, max_size=2).map(tuple),
    device_clock=st.none() | st.datetimes(),
    observed_at=st.none() | INSTANTS,
    device_time=OPTIONAL_TEXT,
    patient_id=OPTIONAL_TEXT,
)

TYPICAL = Result(
    observations=tuple(
        Observation(
            key="spo2",
            sub=f"1.1.1.{number}",
            value=Decimal("98.0"),
            code=150456,
            refid="MDC_PULS_OXIM_SAT_O2",
            loinc="59408-5",
            unit="%",
            unit_code=262688,
            unit_refid="MDC_DIM_PERCENT",
        )
        for number in range(1, 6)
    ),
    device=DeviceIdentity(manufacturer="Acme", model="G1", serial="1"),
    observed_at=datetime(2026, 1, 1, 12, tzinfo=UTC),
)


@settings(max_examples=150, deadline=None)
@given(result=RESULTS)
def test_a_result_comes_back_as_it_was(result: Result) -> None:
    assert decode_result(encode_result(result)) == result


@pytest.mark.parametrize("digits", ["98", "98.0", "98.00", "0.10", "-0", "1E+3", "12345678901234567890.123456789"])
def test_no_digit_of_a_number_is_lost(digits: str) -> None:
    result = replace(TYPICAL, observations=(replace(TYPICAL.observations[0], value=Decimal(digits)),))

    assert str(decode_result(encode_result(result)).observations[0].value) == digits


def test_a_text_that_looks_like_a_number_stays_a_text() -> None:
    result = replace(TYPICAL, observations=(replace(TYPICAL.observations[0], value="98"),))

    assert decode_result(encode_result(result)).observations[0].value == "98"


def test_what_stands_at_its_default_is_not_written() -> None:
    result = Result(observations=(Observation(key="spo2", sub="1.1.1.1", value=Decimal(98)),))

    assert encode_result(result) == '{"observations":[{"key":"spo2","sub":"1.1.1.1","value":"98"}]}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{}",
        '{"observations":7}',
        '{"observations":[{"key":"a","sub":"b"}]}',
        '{"observations":[{"key":"a","sub":"b","value":"x"}]}',
        '{"observations":[],"device":{"colour":"red"}}',
        '{"observations":[],"waves":[{"key":"a","sub":"b","samples":7,"period_s":"1"}]}',
        '{"observations":[],"waves":[{"key":"a","sub":"b","samples":[],"period_s":"x"}]}',
        '{"observations":[],"conditions":[{"code":"a","text":"b","episode":[1]}]}',
        '{"observations":[],"conditions":[{"code":"a","text":"b","phase":"later"}]}',
        "[" * 100_000,
    ],
)
def test_another_document_is_a_content_error(text: str) -> None:
    with pytest.raises(ContentError):
        decode_result(text)


def test_a_wave_says_which_samples_are_none_and_what_a_step_is_worth() -> None:
    wave = Wave(
        key="ecg_wave_ii", sub="1.1.2.1", samples=(4, None, -70), period_s=Decimal("0.004"), factor=Decimal("2.440")
    )

    text = encode_result(Result(observations=(), waves=(wave,)))

    assert '"samples":[4,null,-70],"period_s":"0.004","factor":"2.440"' in text
    assert decode_result(text).waves == (wave,)


def test_two_waves_of_a_quarter_second_take_little_time_both_ways() -> None:
    wave = Wave(key="ecg_wave_ii", sub="1.1.2.1", samples=tuple(range(-60, 65)), period_s=Decimal("0.002"), code=131330)
    result = Result(observations=(), waves=(wave, wave))
    text = encode_result(result)

    both_s = min(timeit(lambda: decode_result(encode_result(result)), number=50) for _ in range(5)) / 50

    assert decode_result(text) == result
    assert both_s < 300e-6  # 60 monitors, 4 a second: 7 % of a core at the very most


def test_five_observations_take_little_time_both_ways() -> None:
    text = encode_result(TYPICAL)

    encode_s = min(timeit(lambda: encode_result(TYPICAL), number=200) for _ in range(5)) / 200
    decode_s = min(timeit(lambda: decode_result(text), number=200) for _ in range(5)) / 200

    assert encode_s < 200e-6  # aims at 50 us; the test leaves room for a busy machine
    assert decode_s < 200e-6
