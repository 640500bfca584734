from decimal import Decimal
from pathlib import Path

import pytest

from gateway.driver import observe
from gateway.formats.device_rows import oximeter
from gateway.formats.terms import all_terms, device_code, term, unit_of
from gateway.model import Absent

HOUSE = Path(__file__).parents[3]
SHARED = HOUSE.parent / "shared" / "terminology"

if SHARED.is_dir():

    @pytest.mark.parametrize("name", ["vitals.csv", "units.csv", "devices.csv"])
    def test_the_tables_are_those_of_the_terminology_sheet(name: str) -> None:
        assert (HOUSE / "gateway" / "formats" / name).read_bytes() == (SHARED / name).read_bytes()


def test_spo2_has_its_codes() -> None:
    found = term("spo2")

    assert (found.code, found.refid) == (150456, "MDC_PULS_OXIM_SAT_O2")
    assert (found.unit_code, found.unit_refid, found.ucum) == (262688, "MDC_DIM_PERCENT", "%")
    assert (found.loinc, found.low, found.high, found.kind) == ("59408-5", Decimal(0), Decimal(100), "numeric")


def test_a_quantity_without_a_code_has_none() -> None:
    assert (term("spco").code, term("spco").refid, term("spco").ucum) == (None, None, "%")


def test_an_unknown_key_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        term("no_such_quantity")


def test_every_key_is_unique_and_every_code_fits_32_bits() -> None:
    terms = all_terms()

    assert len(terms) == 645
    assert len({found.key for found in terms}) == len(terms)
    assert all(found.code is None or 0 < found.code < 2**32 for found in terms)


def test_every_kind_is_one_of_five() -> None:
    assert {found.kind for found in all_terms()} == {"numeric", "enum", "wave", "event", "setting"}


def test_a_unit_is_found_by_its_ucum_text() -> None:
    assert unit_of("mL/dL").code == 268562


def test_a_device_term_is_found_by_its_reference_id() -> None:
    assert device_code("MDC_DEV_ANALY_SAT_O2_VMD") == 69642


def test_the_rows_of_an_oximeter_stand_in_tree_order() -> None:
    assert [(row.sub, row.code) for row in oximeter()] == [("1.0.0.0", 69641), ("1.1.0.0", 69642), ("1.1.1.0", 69643)]


def test_a_driver_states_a_key_and_the_codes_come_with_it() -> None:
    seen = observe("spo2", Decimal(98), sub="1.1.1.1")

    assert (seen.code, seen.unit, seen.unit_code, seen.loinc) == (150456, "%", 262688, "59408-5")
    assert (seen.value, seen.absent, seen.flags) == (Decimal(98), None, ())


@pytest.mark.parametrize("value", ["101", "-1", "NaN", "Infinity"])
def test_an_implausible_value_is_marked_and_not_altered(value: str) -> None:
    seen = observe("spo2", Decimal(value), sub="1.1.1.1", flags=("L",))

    assert str(seen.value) == value
    assert seen.flags == ("L", "QUES")


def test_a_missing_value_is_not_available_unless_the_driver_knows_why() -> None:
    assert observe("spo2", None, sub="1.1.1.1").absent is Absent.NAV
    assert observe("spo2", None, sub="1.1.1.1", absent=Absent.OFF).absent is Absent.OFF


def test_a_value_that_is_also_absent_is_refused() -> None:
    with pytest.raises(ValueError, match="spo2"):
        observe("spo2", Decimal(98), sub="1.1.1.1", absent=Absent.OFF)


def test_a_vendor_quantity_has_a_unit_and_no_code() -> None:
    seen = observe("x_acme_thing", Decimal(5), sub="1.1.1.9", unit="mL/dL")

    assert (seen.code, seen.unit, seen.unit_code) == (None, "mL/dL", 268562)
