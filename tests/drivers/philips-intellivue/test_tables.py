"""The tables of codes against the sheet, and against what the product knows."""

import csv
from pathlib import Path

import pytest

from drivers.philips_intellivue import codes
from gateway.formats.terms import device_code, term

SHEET = Path(__file__).parents[3] / "../shared/protocols/philips-intellivue-codes.csv"
PACKAGE = Path(codes.__file__).parent


def test_the_vendors_nomenclature_is_the_sheets() -> None:
    assert (PACKAGE / "codes.csv").read_bytes() == SHEET.read_bytes()


def test_every_key_and_place_is_known() -> None:
    with (PACKAGE / "keys.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    assert [term(row["key"]).key for row in rows] == [row["key"] for row in rows]
    for row in csv.DictReader((PACKAGE / "places.csv").read_text("utf-8").splitlines()):
        assert device_code(row["refid"])


def test_an_mdc_code_is_the_physio_id_in_its_partition() -> None:
    with SHEET.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] in ("physio", "unit") and row["mdc_code"]]

    partitions = {"physio": codes.METRICS, "unit": codes.UNITS}
    assert len(rows) == 495
    assert all(int(row["mdc_code"]) == partitions[row["kind"]] + int(row["hex"], 16) for row in rows)


@pytest.mark.parametrize(
    ("physio", "unit", "key", "ucum"),
    [
        (0x4182, 0x0AA0, "heart_rate", "/min"),
        (0x4A15, 0x0F20, "abp_sys", "mm[Hg]"),
        (0x4A15, 0x0F03, "abp_sys", "kPa"),
        (0x4822, 0x0AA0, "pulse_rate_spo2", "/min"),
        (0xF0E5, 0x0AA0, "pulse_rate_nibp", "/min"),
        (0xE004, 0x17A0, "temp_rectal", "Cel"),
        (0x0302, 0x0512, "st_ii", "mm"),
        (0xF0A5, 0x0F20, "x_philips_press_gen_1_sys", "mm[Hg]"),
        (0xF2AB, 0x9999, "x_philips_f2ab", None),
    ],
)
def test_what_a_physio_id_means(physio: int, unit: int, key: str, ucum: str | None) -> None:
    means = codes.meaning(physio, unit)

    assert (means.key, means.unit.ucum if means.unit else None) == (key, ucum)


def test_an_unknown_code_keeps_the_vendors_number() -> None:
    means = codes.meaning(0xF2AB, 0x9999)

    assert (means.code, means.refid) == ((2 << 16) + 0xF2AB, "NOM_F2AB")
    assert means.unit is not None
    assert (means.unit.code, means.unit.refid) == ((4 << 16) + 0x9999, "NOM_DIM_9999")
