"""Rows that say with their value that it is none, or that it is in another unit than ours."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from drivers.hl7_monitor import Hl7Monitor
from gateway.driver import Absent, Observation
from simulators.mllp_frames import frame

PCD = ("MSH|^~\\&|ZZTEST^0012345FFFE00001^EUI-64|H|||20260705101500+0200||ORU^R01^ORU_R01|1|P|2.6", "MDC")
MDIL = ("MSH|^~\\&|||||||ORU^R01|HP1|P|2.3||||||8859/1", "MDIL")
NIHON = ("MSH|^~\\&|NIHON KOHDEN||||20260705101500||ORU^R01|2|P|2.4", "")
SPO2 = {"MDC": "150456^MDC_PULS_OXIM_SAT_O2^MDC", "MDIL": "0002-4bb8^SpO2^MDIL", "": "007000^VITAL SpO2"}
TEMP = {"MDC": "150344^MDC_TEMP^MDC", "MDIL": "0002-4b48^Temp^MDIL", "": "011000^Tskin"}


def read(dialect: tuple[str, str], code: str, value: str, unit: str, flag: str = "", status: str = "R") -> Observation:
    head, _ = dialect
    row = f"OBX|1|NM|{code}|1.2.1.1|{value}|{unit}||{flag}|||{status}"
    session = Hl7Monitor().open()
    session.receive(frame("\r".join((head, "PV1||I|ICU^^1", "OBR|1", row, "")).encode("latin-1")), 0.0)
    ((result,),) = [reading.results for reading in session.take_readings()]
    (seen,) = result.observations
    return seen


@pytest.mark.parametrize("dialect", [PCD, MDIL, NIHON], ids=["pcd", "mdil", "nihon-kohden"])
@pytest.mark.parametrize(
    ("flag", "status", "why"),
    [
        ("INV", "R", Absent.INV),
        ("H~OFF", "R", Absent.OFF),
        ("", "X", Absent.NAV),
        ("", "D", Absent.NAV),
        ("", "W", Absent.NAV),
    ],
)
def test_a_number_beside_a_reason_why_there_is_none_is_no_value(
    dialect: tuple[str, str], flag: str, status: str, why: Absent
) -> None:
    seen = read(dialect, SPO2[dialect[1]], "97", "%", flag, status)

    assert (seen.key, seen.value, seen.absent) == ("spo2", None, why)


@pytest.mark.parametrize(
    ("dialect", "unit", "key", "ucum"),
    [
        (PCD, "[degF]^[degF]^UCUM", "x_mdc_150344", "[degF]"),
        (PCD, "266560^MDC_DIM_FAHR^MDC", "x_mdc_150344", "[degF]"),
        (PCD, "°F", "x_mdc_150344", "[degF]"),
        (PCD, "Cel^Cel^UCUM", "temp", "Cel"),
        (PCD, "warm", "x_mdc_150344", "warm"),
        (MDIL, "^°F", "x_philips_temp", "[degF]"),
        (MDIL, "^warm", "x_philips_temp", "warm"),
        (NIHON, "F", "x_temp_skin_degf", "[degF]"),
        (NIHON, "warm", "x_temp_skin_warm", None),
        (NIHON, "C", "temp_skin", "Cel"),
        (NIHON, "", "temp_skin", "Cel"),
    ],
)
def test_a_value_in_another_unit_than_ours_never_stands_under_our_key(
    dialect: tuple[str, str], unit: str, key: str, ucum: str | None
) -> None:
    seen = read(dialect, TEMP[dialect[1]], "36.6", unit)

    assert (seen.key, seen.value, seen.unit) == (key, Decimal("36.6"), ucum)


def test_an_annotation_is_no_other_unit() -> None:
    seen = read(PCD, "147842^MDC_ECG_HEART_RATE^MDC", "72", "{beats}/min^{beats}/min^UCUM")

    assert (seen.key, seen.unit, seen.unit_code) == ("heart_rate", "/min", 264864)


def test_a_number_that_no_feed_could_write_is_text() -> None:
    assert read(PCD, TEMP["MDC"], "9" * 60, "Cel^Cel^UCUM").value == "9" * 60


@pytest.mark.parametrize(
    ("shown", "options", "clock"),
    [
        ("20261025033000+0200", {}, datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
        ("20261025033000", {"utc_offset": "+0200"}, datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
        ("20261025033000", {}, datetime(2026, 10, 25, 3, 30)),
        ("202610250330", {"utc_offset": "+0200"}, None),
        ("20261399000000", {}, None),
        ("", {}, None),
    ],
)
def test_the_senders_clock_is_shown_so_that_a_wrong_zone_is_noticed(
    shown: str, options: dict[str, str], clock: datetime | None
) -> None:
    session = Hl7Monitor(**options).open()  # type: ignore[arg-type]
    head = f"MSH|^~\\&|ZZTEST||||{shown}||ORU^R01|1|P|2.6"
    row = "OBX|1|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC|1.2.1.1|97|262688^MDC_DIM_PERCENT^MDC|||||R"
    session.receive(frame("\r".join((head, "OBR|1", row, "")).encode()), 0.0)

    ((result,),) = [reading.results for reading in session.take_readings()]
    assert result.device_clock == clock
