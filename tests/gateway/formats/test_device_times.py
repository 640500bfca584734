from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.device_times import read_clock
from gateway.registry import create_driver

SHAPES = ("%d-%b-%y %H:%M:%S", "%m/%d/%y %H:%M:%S")


@pytest.mark.parametrize("text", ["05-Jul-26 10:15:02", "05-jul-26  10:15:02", "07/05/26 10:15:02"])
def test_a_time_is_read_in_any_of_its_shapes(text: str) -> None:
    assert read_clock(text, *SHAPES) == datetime(2026, 7, 5, 10, 15, 2)


@pytest.mark.parametrize("text", ["", "--/--/-- --:--:--", "31-Feb-26 10:15:02", "07/05/26 24:15:02"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert read_clock(text, *SHAPES) is None


@given(st.text(max_size=30))
def test_no_text_raises(text: str) -> None:
    read_clock(text, *SHAPES)


@pytest.mark.parametrize(
    ("driver", "line"),
    [
        ("nellcor", b"05-Jul-26 10:15:02    88*     130*       45      PH  SL\r\n"),
        ("masimo", b"07/05/26 10:15:02 SN=0000056661 SPO2=098% BPM=097 PI=03.60% ALARM=0000 EXC=000800\r\n"),
    ],
)
def test_an_oximeter_shows_its_clock(driver: str, line: bytes) -> None:
    made, _ = create_driver(driver, {})
    assert made is not None
    session = made.open()
    session.receive(b"\r\n" + line, 0.0)

    ((result,),) = (reading.results for reading in session.take_readings())

    assert result.device_clock == datetime(2026, 7, 5, 10, 15, 2)
