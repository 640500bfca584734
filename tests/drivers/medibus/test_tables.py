"""The tables of codes against the protocol sheet and the terminology."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from drivers.medibus.content import number_of
from drivers.medibus.quantities import naming_of, observation, scaled
from drivers.medibus.tables import SETTING_BASE, Quantity, curves, models, tables, units
from gateway.formats.terms import term, unit_of

SHEET = Path(__file__).parents[3] / ".." / "shared" / "protocols" / "medibus.md"
in_ci = pytest.mark.skipif(not SHEET.exists(), reason="the protocol sheet lies beside the tree, in CI")


def sheet_rows(section: str) -> Iterator[list[str]]:
    """Rows of a section of the sheet whose first cell is a code."""
    inside = False
    for line in SHEET.read_text("utf-8").splitlines():
        if line.startswith("#"):
            inside = line.lstrip("# ").startswith(section)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if inside and re.fullmatch("[0-9A-F]{2}", cells[0]):
            yield cells


def mdc_of(cell: str) -> int | None:
    found = re.match(r"\d+", cell)
    return int(found[0]) if found else None


@in_ci
@pytest.mark.parametrize(("page", "section", "count"), [(1, "10.1 ", 186), (2, "10.2 ", 78)])
def test_the_x_profile_holds_every_measured_code_of_the_sheet(page: int, section: str, count: int) -> None:
    rows = list(sheet_rows(section))
    ours = {code: found for (on, code), found in tables("x").data.items() if on == page}

    assert [row[0] for row in rows] == list(ours) and len(rows) == count
    assert {row[0]: mdc_of(row[4]) for row in rows} == {code: found.mdc for code, found in ours.items()}


@in_ci
def test_settings_alarms_and_texts_hold_every_code_of_the_sheet() -> None:
    x, classic = tables("x"), tables("classic")
    bases = {row[0]: mdc_of(row[4]) for row in sheet_rows("10.3 ")}

    assert {code: None if base is None else base + SETTING_BASE for code, base in bases.items()} == {
        code: found.mdc for code, found in x.settings.items()
    }
    assert {row[0] for row in sheet_rows("9.1 ")} == set(classic.settings)
    for page, section in ((1, "10.4 "), (2, "10.5 ")):
        events = {row[0]: mdc_of(row[3]) for row in sheet_rows(section)}
        assert events == {code: found.mdc for (on, code), found in x.alarms.items() if on == page}
    assert {row[0] for row in sheet_rows("9.2 ")} == {code for _, code in classic.alarms}
    assert {row[0] for row in sheet_rows("10.6 ")} == set(x.texts)


@in_ci
def test_the_classic_profile_holds_every_code_of_the_sheet_and_of_savina() -> None:
    manual = {row[0] for row in sheet_rows("9. ")}

    assert {code for _, code in tables("classic").data} == manual | {"69", "6F", "76", "C6", "C7", "E7", "E8"}


@in_ci
def test_every_identification_of_the_sheet_is_known() -> None:
    text = SHEET.read_text("utf-8").partition("## 8.")[2].partition("## 9.")[0]
    named = set(re.findall(r"\| (\d{4}) \|", text)) | set(re.findall(r"(\d{4}) '", text))

    assert named == set(models())


@pytest.mark.parametrize("profile", ["classic", "x", "common"])
def test_every_quantity_has_a_name_and_a_unit_that_can_be_published(profile: str) -> None:
    found = tables(profile)  # type: ignore[arg-type]

    for quantity in (*found.data.values(), *found.settings.values()):
        name = naming_of(quantity)
        assert quantity.key.startswith("x_medibus_") or term(quantity.key).key == quantity.key
        assert name.unit in (None, name.term.ucum if name.term else None) or name.unit in units() or unit_of(name.unit)
        assert observation(quantity, None, "1.1.1.1").absent is not None


def test_units_of_the_terminology_are_not_repeated_with_other_codes() -> None:
    for ucum, unit in units().items():
        try:
            known = unit_of(ucum)
        except KeyError:
            continue
        assert unit.code == known.code and unit.refid == known.refid


def test_while_the_device_is_unknown_what_the_generations_disagree_upon_is_not_named() -> None:
    assert {(1, "06"), (1, "0B"), (1, "8B")}.isdisjoint(tables("common").data)
    assert tables("common").data[1, "7D"].key == "paw_insp_peak"


@pytest.mark.parametrize(
    ("profile", "code", "text", "value", "key"),
    [
        ("classic", "82", "1.25", Decimal(1250), "tidal_volume_exp"),
        ("classic", "88", " 820", Decimal(820), "tidal_volume_exp"),
        ("classic", "06", "45.5", Decimal("45.5"), "compliance_thoracic"),
        ("x", "06", " 7.2", Decimal("7.2"), "vent_minute_volume_insp"),
        ("x", "F2", "3250", Decimal("3.25"), "weight"),
        ("x", "64", "  24", Decimal(240), "vo2"),
        ("x", "F3", "0507", "0507", "x_medibus_weight_date"),
        ("x", "A2", "12:3", "12:3", "x_medibus_dur_pt"),
    ],
)
def test_one_quantity_at_two_magnitudes_has_one_key_and_unit(
    profile: str, code: str, text: str, value: object, key: str
) -> None:
    quantity = tables(profile).data[1, code]  # type: ignore[arg-type]

    assert (quantity.key, scaled(quantity, text)) == (key, value)


def test_pressures_stay_in_the_unit_of_the_device_and_are_judged_in_ours() -> None:
    peep = tables("x").data[1, "78"]

    seen, odd = observation(peep, Decimal(8), "1.1.1.121"), observation(peep, Decimal(75), "1.1.1.121")

    assert (seen.value, seen.unit, seen.unit_code, seen.unit_refid) == (Decimal(8), "mbar", 266098, "MDC_DIM_MILLI_BAR")
    assert (seen.code, seen.refid, seen.flags) == (151976, "MDC_VENT_PRESS_AWAY_END_EXP_POS", ())
    assert (odd.value, odd.flags) == (Decimal(75), ("QUES",))


def test_a_value_in_kilopascal_is_not_judged_as_millimetres() -> None:
    assert observation(tables("x").data[1, "E3"], Decimal("25.0"), "1.1.1.228").flags == ("QUES",)
    assert observation(tables("x").data[1, "E3"], Decimal("5.1"), "1.1.1.228").flags == ()
    assert observation(tables("x").data[1, "54"], Decimal("95"), "1.1.1.85").flags == ()


def test_curves_have_names_and_units() -> None:
    for code, curve in curves().items():
        name = naming_of(Quantity(curve.key, curve.unit, None, None, None, curve.text))
        assert re.fullmatch("[0-9A-F]{2}", code) and curve.name and name.unit == curve.unit


def test_no_number_is_made_of_text() -> None:
    assert number_of("0x12") == "0x12"
