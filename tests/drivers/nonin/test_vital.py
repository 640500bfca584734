"""Format 8 has no checksum: what it cannot say is all that tells it from noise."""

import pytest

from drivers.nonin import Nonin


@pytest.mark.parametrize(
    "unit",
    ["80000000", "80006100", "80486500", "8048 7e00"],
    ids=["a line at four times its speed", "a pulse of 0", "an SpO2 of 101", "an SpO2 of 126"],
)
@pytest.mark.parametrize("form", ["8", "auto"])
def test_units_that_no_device_sends_give_no_value(form: str, unit: str) -> None:
    session = Nonin(format=form).open()  # type: ignore[arg-type]

    session.receive(bytes.fromhex(unit) * 200, 0.0)
    session.tick(5.0)

    readings = session.take_readings()
    assert [reading.results for reading in readings if reading.results] == []
    assert [reading for reading in readings if reading.fault]


def test_reserved_bits_prove_no_format() -> None:
    session = Nonin().open()

    session.receive(bytes.fromhex("80486150") * 8, 0.0)

    assert session.take_readings() == []


@pytest.mark.parametrize(
    ("unit", "values"), [("80486120", [97, 72]), ("80486400", [100, 72]), ("837f7f08", [None] * 2)]
)
def test_units_that_devices_send_are_read(unit: str, values: list[int | None]) -> None:
    session = Nonin().open()

    session.receive(bytes.fromhex(unit) * 5, 0.0)

    results = [result for reading in session.take_readings() for result in reading.results]
    assert [[seen.value for seen in result.observations] for result in results][-1] == values
