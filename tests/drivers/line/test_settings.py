from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.line import Line
from drivers.line.settings import Check
from gateway.driver import Absent
from gateway.protocols.checksums import KINDS, Kind, check_of, width_of
from gateway.typed import build

FIELD = {"key": "etco2"}
RECORD = {"pattern": "(?P<a>.*)", "fields": {"a": FIELD}}


@pytest.mark.parametrize(
    ("options", "place", "text"),
    [
        ({"record": [{**RECORD, "pattern": "("}]}, "record[0]", "pattern"),
        ({"record": [{**RECORD, "pattern": "(?P<b>.*)"}]}, "record[0]", "no group (?P<a>"),
        ({"record": [{**RECORD, "pattern": "(?P<a>.)(?P<b>.)"}]}, "record[0]", "'b' of the pattern"),
        ({"record": [{"pattern": "x"}]}, "record[0]", "at least one field"),
        ({"record": [{**RECORD, "fields": {"a": {"key": "etco"}}}]}, "record[0].fields.a", "stands in no table"),
        ({"record": [{**RECORD, "fields": {"a": {"key": "etco2", "unit": "%"}}}]}, "record[0].fields.a", "mm[Hg]"),
        ({"record": [{**RECORD, "fields": {"a": {"key": "x_a", "unit": "bananas"}}}]}, "record[0].fields.a", "bananas"),
        ({"ignore": ["["]}, "", "ignore"),
        ({"encoding": "klingon"}, "", "klingon"),
        ({"terminator": ""}, "terminator", "1 to 8 characters"),
        ({"check": {"kind": "crc32"}}, "check.kind", "crc16-arc"),
    ],
)
def test_a_wrong_description_is_a_fault_with_its_place(options: dict[str, Any], place: str, text: str) -> None:
    driver, faults = build(Line, options)

    assert driver is None
    assert any(str(fault).startswith(place) and text in str(fault) for fault in faults), faults


def read(options: dict[str, Any], *lines: bytes) -> list[Any]:
    driver, faults = build(Line, options)
    assert driver is not None, faults
    session = driver.open()
    session.receive(b"\n" + b"".join(line + b"\n" for line in lines), 0.0)
    return session.take_readings()


def test_factor_and_offset_keep_the_digits() -> None:
    field = {"key": "x_temp", "unit": "Cel", "factor": 0.1, "offset": -273.15}

    (reading,) = read({"record": [{"pattern": r"T=(?P<a>\d+)", "fields": {"a": field}}]}, b"T=3101")

    assert reading.results[0].observations[0].value == Decimal("36.95")


def test_words_are_published_as_text() -> None:
    field = {"key": "x_mode", "values": {"1": "standby", "2": "running"}}

    readings = read({"record": [{"pattern": r"M=(?P<a>\d)", "fields": {"a": field}}]}, b"M=2", b"M=9")

    assert [reading.results[0].observations[0].value for reading in readings] == ["running", "9"]


def test_what_is_no_number_is_kept_unread() -> None:
    (reading,) = read({"record": [RECORD]}, b"abc")

    assert reading.fault == "etco2: not a number"
    assert b"abc" in reading.raw


def test_a_missing_value_has_its_reason() -> None:
    (reading,) = read({"record": [{**RECORD, "fields": {"a": {**FIELD, "absent": {"off": "OFF"}}}}]}, b"off")

    assert reading.results[0].observations[0].absent is Absent.OFF


def test_other_character_sets_are_read_where_they_are_named() -> None:
    record = {"pattern": "(?P<a>[0-9.]+) °C", "fields": {"a": {"key": "x_temp", "unit": "Cel"}}}

    (reading,) = read({"encoding": "latin-1", "record": [record]}, "36.9 °C".encode("latin-1"))

    assert reading.results[0].observations[0].value == Decimal("36.9")


def test_a_device_that_wants_to_be_asked_is_asked_at_once_and_then_in_turn() -> None:
    driver, _ = build(Line, {"poll": "?\r", "poll_s": 2})
    assert driver is not None
    session = driver.open()

    said = []
    for now in (0.0, 1.0, 2.0):
        if session.deadline is not None and now >= session.deadline:
            session.tick(now)
        said.append(session.take_output())

    assert said == [b"?\r", b"", b"?\r"]


def test_a_tapped_line_is_never_spoken_to() -> None:
    driver, _ = build(Line, {"poll": "?\r", "transmit": False})
    assert driver is not None

    assert driver.open().deadline is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("digits", ["hex", "decimal"])
@pytest.mark.parametrize("separator", ["", "*"])
@given(body=st.text("ABC 0123,=", min_size=1, max_size=40), change=st.integers(1, 255))
def test_only_the_right_check_characters_pass(kind: Kind, digits: Any, separator: str, body: str, change: int) -> None:
    check = Check(kind=kind, digits=digits, separator=separator)
    value, width = check_of(kind, body.encode()), width_of(kind)
    shown = (
        (lambda number: f"{number:0{2 * width}x}") if digits == "hex" else lambda number: f"{number:0{2 * width + 1}}"
    )

    assert check.content_of(body + separator + shown(value)) == body
    with pytest.raises(ValueError, match="check characters"):
        check.content_of(body + separator + shown(value ^ change))
