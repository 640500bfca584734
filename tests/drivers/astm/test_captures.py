"""Published messages of real analysers, read where they lie: they have no licence that lets us carry them."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.astm import Astm
from gateway.driver import Absent, Method, Observation, Reading, Session

CAPTURES = Path(__file__).parents[3] / ".." / "shared" / "protocols" / "captures"


def read(session: Session, data: bytes) -> list[Reading]:
    """Feed what the analyser says frame by frame, as it would wait for our word; settle what is asked for."""
    readings = []
    for byte in data:
        session.receive(bytes((byte,)), 0.0)
        for reading in session.take_readings():
            readings.append(reading)
            session.settle(stored=True, now=0.0)
    for now in (1.0, 2.0, 5.0):
        session.tick(now)
        for reading in session.take_readings():
            readings.append(reading)
            session.settle(stored=True, now=now)
    return readings


def values(reading: Reading) -> dict[str, Any]:
    assert reading.fault is None
    (result,) = reading.results
    return {seen.key: seen.value if seen.absent is None else seen.absent for seen in result.observations}


def test_the_abl80_session_is_read_whole() -> None:
    session = Astm().open()

    (reading,) = read(session, (CAPTURES / "astm_abl80_basic_e1381.bin").read_bytes())

    seen = values(reading)
    assert len(seen) == 34  # the sample and 33 results, of which all but four were not measured
    assert seen["x_specimen_id"] == "259"
    assert {key: value for key, value in seen.items() if isinstance(value, Decimal)} == {
        "x_astm_na": Decimal(132),
        "x_astm_k": Decimal("3.60"),
        "x_astm_ca": Decimal("1.17"),
        "x_astm_cl": Decimal(89),
    }
    assert sum(value is Absent.NAV for value in seen.values()) == 29
    (result,) = reading.results
    assert (result.patient_id, result.device_time) == ("30000702", "20231212111700")
    assert (result.device.model, result.device.serial) == ("ABL80 BASIC", "319053")
    assert session.take_output() == b"\x06" * 38  # ENQ and 37 frames


@pytest.mark.parametrize(
    ("name", "frames", "expected"),
    [
        ("abbott_afinion2", 1, {"x_specimen_id": "5", "hba1c": Decimal("5.9")}),
        ("cobas_c111", 7, {"x_specimen_id": "T20 10134GA D28", "x_astm_413": Decimal("40.13")}),
        (
            "dca_vantage",
            1,
            {
                "x_specimen_id": "660",
                "x_astm_alb": Decimal("63.7"),
                "x_astm_crt": Decimal("230.8"),
                "x_astm_ratio": Decimal("27.6"),
            },
        ),
        ("mini_vidas_mock", 5, {"x_specimen_id": "Z1G021SCR", "x_astm_hbct": Decimal("0.05")}),
        (
            "spotchem_el_mock",
            6,
            {
                "x_specimen_id": "1DC042FP",
                "x_astm_na": Decimal("131.0"),
                "x_astm_k": Decimal("9.7"),
                "x_astm_cl": Decimal("96.0"),
            },
        ),
    ],
)
def test_each_published_message_is_read(name: str, frames: int, expected: dict[str, Any]) -> None:
    session = Astm().open()

    (reading,) = read(session, (CAPTURES / f"astm_senaite_{name}.bin").read_bytes())

    assert values(reading) == expected
    assert session.take_output() == b"\x06" * frames


def test_a_mini_vidas_is_read() -> None:
    (reading,) = read(Astm(format="mini-vidas").open(), (CAPTURES / "astm_senaite_mini_vidas.bin").read_bytes())

    assert values(reading) == {
        "x_specimen_id": "Z1G021SCR",
        "x_astm_hbct_quantitative": Decimal("0.05"),
        "x_astm_hbct_qualitative": "Positif",
    }


def test_a_spotchem_el_is_read() -> None:
    (reading,) = read(Astm(format="spotchem-el").open(), (CAPTURES / "astm_senaite_spotchem_el.bin").read_bytes())

    assert values(reading) == {
        "x_specimen_id": "1DC042FP",
        "x_astm_na": Decimal(131),
        "x_astm_k": Decimal("9.7"),
        "x_astm_cl": Decimal(96),
    }


def framed(records: bytes) -> bytes:
    out = b"\x05"
    for number, record in enumerate(records.rstrip(b"\r\n").split(b"\r"), 1):
        content = b"%d%s\r\x03" % (number % 8, record.strip(b"\n"))
        out += b"\x02" + content + b"%02X\r\n" % (sum(content) & 0xFF)
    return out + b"\x04"


def test_the_records_of_the_abl735_are_read_with_their_doubts() -> None:
    records = (CAPTURES / "astm_abl735_records.txt").read_bytes()

    (reading,) = read(Astm().open(), framed(records))

    (result,) = reading.results
    seen: dict[str, Observation] = {item.key: item for item in result.observations}
    assert seen["x_astm_ph"].value == Decimal("7.412")
    assert seen["x_astm_ph"].flags == ("QUES",)
    assert seen["x_astm_ph_t"].method is Method.CALCULATED
    assert (seen["x_astm_pco2"].value, seen["x_astm_pco2"].unit) == (Decimal("5.53"), "kPa")
    assert seen["x_astm_fio2"].method is Method.MANUAL
    assert "377" in {condition.code for condition in result.conditions}
    assert "STATUS_C" in {condition.code for condition in result.conditions}
