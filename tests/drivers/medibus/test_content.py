from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.medibus.content import (
    Identity,
    number_of,
    read_alarms,
    read_clock,
    read_curve_choice,
    read_curve_scales,
    read_identity,
    read_texts,
    read_values,
    takes_arguments,
)
from gateway.errors import ContentError
from simulators.medibus_codec import alarm, text_message

PARSERS: list[Callable[[bytes], Any]] = [
    lambda data: read_values(data, 4),
    lambda data: read_values(data, 5),
    read_alarms,
    read_texts,
    read_identity,
    read_clock,
    read_curve_scales,
    read_curve_choice,
]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 12 ", Decimal(12)),
        ("- 5 ", Decimal(-5)),
        (" 7.2", Decimal("7.2")),
        ("    ", None),
        ("-   ", None),
        ("12:3", "12:3"),
        ("NaN ", "NaN"),
        ("1E+9", "1E+9"),
    ],
)
def test_numbers_keep_their_decimals_and_blanks_are_absent(text: str, value: object) -> None:
    assert number_of(text) == value


@pytest.mark.parametrize(
    ("printed", "shown", "clock"),
    [
        ("11:11:1911-NOV-93", "11:11:19 11-NOV-93", datetime(1993, 11, 11, 11, 11, 19)),
        ("  8:06:05  4-MAR  2", "8:06:05 4-MAR 2", datetime(2002, 3, 4, 8, 6, 5)),
        (" 9:33 7-OCT-14", "9:33 7-OCT-14", datetime(2014, 10, 7, 9, 33)),
        ("23:59:5931-DEZ-26", "23:59:59 31-DEZ-26", datetime(2026, 12, 31, 23, 59, 59)),
        ("00:00:0001-MAI-26", "00:00:00 01-MAI-26", datetime(2026, 5, 1)),
        ("00:00:0031-FEB-26", "00:00:00 31-FEB-26", None),
        ("00:00:0031-XYZ-26", "00:00:00 31-XYZ-26", None),
        ("no clock", "no clock", None),
    ],
)
def test_clocks_of_both_languages_are_read(printed: str, shown: str, clock: datetime | None) -> None:
    assert read_clock(printed.encode("ascii")) == (shown, clock)


def test_a_device_without_a_clock_answers_nothing() -> None:
    assert read_clock(b"") is None and read_clock(b"   ") is None


def test_alarms_have_priority_code_and_phrase() -> None:
    (high, low) = read_alarms(alarm("10", 30, "PAW HIGH") + alarm("AC", 5, "MV ALRM OFF"))

    assert (high.priority, high.code, high.phrase) == (30, "10", "PAW HIGH")
    assert (low.priority, low.code, low.phrase) == (5, "AC", "MV ALRM OFF")
    with pytest.raises(ContentError):
        read_alarms(b"0" + b"10PAW HIGH    ")


def test_texts_end_where_their_length_says() -> None:
    both = text_message("0E", "Mode BIPAP") + text_message("2C", "x" * 32)

    assert read_texts(both) == [("0E", "Mode BIPAP"), ("2C", "x" * 32)]
    for cut in range(1, len(both)):
        if cut != len(text_message("0E", "Mode BIPAP")):
            with pytest.raises(ContentError):
                read_texts(both[:cut])


def test_commands_with_arguments_need_revision_three() -> None:
    assert takes_arguments(None)
    assert takes_arguments(Identity("8210", "Evita", "01.00", "03.00"))
    assert not takes_arguments(Identity("9000", "Cicero", "01.00", "02.10"))


def test_a_scale_without_steps_is_refused() -> None:
    with pytest.raises(ContentError):
        read_curve_scales(b"00   16000-  10  100000")
    with pytest.raises(ContentError):
        read_curve_scales(b"00       0-  10  100370")
    assert read_curve_scales(b"00   16000-  10  100370")[0].bins == 880


@pytest.mark.parametrize("parser", PARSERS)
@given(data=st.one_of(st.binary(max_size=80), st.text("0123456789ABCDEF -.:'\x03", max_size=80).map(str.encode)))
@settings(max_examples=30, deadline=None)
def test_whatever_comes_is_read_or_refused_by_name(parser: Callable[[bytes], Any], data: bytes) -> None:
    try:
        parser(data)
    except ContentError as error:
        assert str(error)
