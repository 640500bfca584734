import pickle
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hl7apy import load_message_profile, load_reference
from hl7apy.parser import parse_message
from hypothesis import given, settings

from gateway.errors import ContentError
from gateway.formats.pcd import escape, render_pcd01
from gateway.model import Absent, Condition, DeviceIdentity, Observation, Phase, Priority, Result, Wave
from tests.gateway.formats.results_of import ORIGIN, OXIMETER, message_of, parcel_of, results

GOLDEN = Path(__file__).with_name("pcd-01.hl7").read_bytes()
MUST = {"MSH": {3, 7, 9, 10, 11, 12, 15, 16, 21}, "OBR": {1, 3, 4, 7}, "OBX": {1, 3, 4, 11}}
MAY = {"PID": {3}}  # an unknown patient has no identifier (DEC profile); the base standard demands one


def rendered(result: Result) -> bytes:
    return render_pcd01(parcel_of(message_of(result)), ORIGIN)


def rows_of(message: bytes) -> list[list[str]]:
    lines = message.decode().split("\r")
    assert lines.pop() == ""
    return [[*line.split("|"), *[""] * 20][:20] for line in lines if line.startswith("OBX|")]


def unescaped(text: str) -> str:
    plain = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}

    def one(found: re.Match[str]) -> str:
        return plain.get(found[1]) or chr(int(found[1][1:], 16))

    return re.sub(r"\\([^\\]+)\\", one, text)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The PCD-01 profile derived from hl7apy's own tables: some fields become required, PID-3 does not stay so."""

    def segment(name: str) -> tuple[object, ...]:
        kind, fields, *_ = load_reference(name, "Segment", "2.6")
        return kind, tuple(tightened(name, field) for field in fields)

    def tightened(name: str, field: tuple[str, object, tuple[int, int], object]) -> tuple[object, ...]:
        ref, body, (low, high), cls = field
        number = int(ref.rsplit("_", 1)[1])
        low = 1 if number in MUST.get(name, ()) else 0 if number in MAY.get(name, ()) else low
        return ref, body, (low, high), cls

    def structure(ref: tuple[object, ...]) -> tuple[object, ...]:
        kind, children, *_ = ref
        make = {"SEG": lambda name, body: segment(name), "GRP": lambda name, body: structure(body)}
        return kind, tuple((name, make[cls](name, body), many, cls) for name, body, many, cls in children)  # type: ignore[attr-defined]

    path: Path = tmp_path_factory.mktemp("profile") / "pcd.profile"
    path.write_bytes(pickle.dumps({"ORU_R01": structure(load_reference("ORU_R01", "Message", "2.6"))}, protocol=2))
    return load_message_profile(str(path))


def test_a_result_becomes_the_message_of_the_profile() -> None:
    assert rendered(OXIMETER) == GOLDEN.replace(b"\n", b"\r")


def test_hl7apy_finds_the_message_valid(profile: object) -> None:
    message = parse_message(rendered(OXIMETER).decode(), message_profile=profile, find_groups=True)

    assert message.validate()


def test_hl7apy_would_find_a_message_without_containment_paths_invalid(profile: object) -> None:
    text = rendered(OXIMETER).decode().replace("|1.3.1.1|", "||")

    with pytest.raises(Exception, match="OBX_4"):
        parse_message(text, message_profile=profile, find_groups=True).validate()


def test_a_device_without_a_driver_named_system_gets_a_generic_row_with_its_identity() -> None:
    rows = rows_of(rendered(Result(observations=(Observation(key="spo2", sub="1.0.0.7", value=Decimal(97)),))))

    assert rows[0][3:5] == ["69633^MDC_DEV_MDS^MDC", "1.0.0.0"]
    assert rows[0][18] == "^^0201F3FFFE00A417^EUI-64"


def test_a_device_with_an_eui64_of_its_own_carries_both() -> None:
    rows = rows_of(rendered(replace(OXIMETER, device=DeviceIdentity(serial="1", eui64="0009FBFFFF059322"))))

    assert rows[0][18] == "1^^0201F3FFFE00A417^EUI-64~^^0009FBFFFF059322^EUI-64"


def test_demo_data_say_so_in_the_processing_id() -> None:
    seen = Observation(key="spo2", sub="1.0.0.7", value=Decimal(97), flags=("DEMO",))

    assert rendered(Result(observations=(seen,))).split(b"|")[10] == b"D"


def test_attributes_of_the_device_take_numbers_that_no_metric_has() -> None:
    seen = Observation(key="spo2", sub="1.0.0.7", value=Decimal(97))
    result = Result(observations=(seen,), conditions=(Condition(code="A", text="a", technical=False),))
    rows = rows_of(rendered(result))

    assert [row[4] for row in rows] == ["1.0.0.0", "1.0.0.7", "1.0.0.8"]
    assert rows[2][5] == "A^a^L"
    assert rows[2][8] == "SP"


@pytest.mark.parametrize(
    ("low", "high", "written"), [("90", None, ">90"), (None, "100", "<100"), ("-5", "5.0", "-5-5.0")]
)
def test_limits_are_written_as_ranges(low: str | None, high: str | None, written: str) -> None:
    limits = {"low": low and Decimal(low), "high": high and Decimal(high)}
    seen = Observation(key="spo2", sub="1.0.0.7", value=Decimal(97), **limits)  # type: ignore[arg-type]

    assert rows_of(rendered(Result(observations=(seen,))))[1][7] == written


def test_validated_values_are_final() -> None:
    seen = Observation(key="spo2", sub="1.0.0.7", value=Decimal(97), flags=("VAL",))

    assert rows_of(rendered(Result(observations=(seen,))))[1][11] == "F"


def test_a_source_without_a_bed_names_no_place() -> None:
    message = render_pcd01(parcel_of(message_of(OXIMETER)), replace(ORIGIN, bed=""))

    assert b"\rPV1||U\r" in message


@pytest.mark.parametrize("sub", ["1", "1.2.3.x", "", "1.2.3.4.5.6.7", "1.2.3.1234567", "1.2.3.²"])
def test_a_path_that_is_none_is_refused(sub: str) -> None:
    with pytest.raises(ContentError):
        rendered(Result(observations=(Observation(key="spo2", sub=sub, value="x"),)))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1E+999999", "1E-999999"])
def test_a_number_that_is_none_is_refused(number: str) -> None:
    with pytest.raises(ContentError):
        rendered(Result(observations=(Observation(key="spo2", sub="1.0.0.7", value=Decimal(number)),)))


def test_a_message_without_a_result_is_refused() -> None:
    with pytest.raises(ContentError):
        render_pcd01(parcel_of(message_of(None)), ORIGIN)


def test_delimiters_and_controls_are_escaped() -> None:
    assert escape("|^&~\\\r\x0b") == "\\F\\\\S\\\\T\\\\R\\\\E\\\\X0D\\\\X0B\\"


@settings(max_examples=60)
@given(results())
def test_every_result_can_be_read_back(result: Result) -> None:
    message = rendered(result)
    rows = rows_of(message)
    metrics = {row[4]: row for row in rows if row[17]}
    places = [tuple(map(int, row[4].split("."))) for row in rows]

    assert rendered(result) == message
    assert [int(row[1]) for row in rows] == list(range(1, len(rows) + 1))
    assert places == sorted(places)
    assert all(row[11] == "X" and not row[5] for row in rows if not row[2])
    assert not re.search(rb"[\x00-\x0c\x0e-\x1f\x7f]", message)
    for seen in result.observations:
        row = metrics[seen.sub]
        if isinstance(seen.value, Decimal):
            assert (row[2], row[5]) == ("NM", f"{seen.value:f}")
            assert row[6]
        else:
            assert unescaped(row[5]) == (seen.value or "")
        reason = [seen.absent.value] if seen.absent else []
        assert [flag for flag in row[8].split("~") if flag] == reason + list(dict.fromkeys(seen.flags))
        assert (row[11] == "X") == (seen.absent is not None)
        assert bool(row[14]) == (seen.observed_at is not None)
        assert unescaped(row[6]).endswith(f"{seen.unit}^UCUM") or seen.unit is None


def test_the_reasons_of_absence_are_those_of_the_profile() -> None:
    assert {reason.value for reason in Absent} == {"NI", "NAV", "OFF", "INV", "BUSY"}


@pytest.mark.parametrize(
    ("alarm", "flags"),
    [
        (Condition(code="E", text="t"), "ST"),
        (Condition(code="E", text="t", priority=Priority.HIGH, technical=False, phase=Phase.START), "SP~PH~ALACT"),
        (Condition(code="E", text="t", priority=Priority.MEDIUM), "ST~PM~ALACT"),
        (Condition(code="E", text="t", priority=Priority.LOW, silenced=True), "ST~PL~ALACT~ALINH"),
        (Condition(code="E", text="t", priority=Priority.ADVISORY), "SA~PN~ALACT"),
        (Condition(code="E", text="t", priority=Priority.HIGH, phase=Phase.END), "ST~PN"),
    ],
)
def test_an_alarm_says_its_priority_and_whether_it_stands(alarm: Condition, flags: str) -> None:
    (row,) = [row for row in rows_of(rendered(Result(observations=(), conditions=(alarm,)))) if "EVT_COND" in row[3]]

    assert row[8] == flags


def test_an_alarm_brings_the_mdc_code_of_its_event() -> None:
    alarm = Condition(code="SPO2 LOW", text="low", priority=Priority.HIGH, mdc=196670)
    (row,) = [row for row in rows_of(rendered(Result(observations=(), conditions=(alarm,)))) if "EVT_COND" in row[3]]

    assert row[5] == "SPO2 LOW^low^L^196670^MDC_EVT_LO^MDC"


ECG = Wave(
    key="ecg_wave_ii",
    sub="1.1.2.1",
    samples=(4, None, -70),
    period_s=Decimal("0.004"),
    factor=Decimal("2.44"),
    offset=Decimal("0.5"),
    code=131330,
    refid="MDC_ECG_ELEC_POTL_II",
    unit="uV",
    unit_code=266419,
    unit_refid="MDC_DIM_MICRO_VOLT",
)


def test_waves_go_along_where_they_are_asked_for(profile: object) -> None:
    parcel = parcel_of(message_of(replace(OXIMETER, waves=(ECG,))))
    text = render_pcd01(parcel, ORIGIN, waves=True).decode()
    group = text.split("OBR|2|")[1].split("\r")[:-1]

    assert parse_message(text, message_profile=profile, find_groups=True).validate()
    assert group[0].split("|")[2:] == [
        "69121^MDC_OBS_WAVE_CTS^MDC",
        "",
        "",
        "20260115093031.250+0000",
        "20260115093031.262+0000",
    ]
    assert group[1:] == [
        "OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|1.0.0.0|||||||X",
        "OBX|2|NA|131330^MDC_ECG_ELEC_POTL_II^MDC|1.1.2.1|4^-32768^-70|266419^MDC_DIM_MICRO_VOLT^MDC^uV^uV^UCUM|||||R"
        "|||20260115093031.250+0000",
        "OBX|3|NM|68320^MDC_ATTR_SAMPLE_RATE^MDC|1.1.2.1.1|250|264640^MDC_DIM_HZ^MDC|||||R",
        "OBX|4|NM|67945^MDC_ATTR_SA_MSMT_RES^MDC|1.1.2.1.2|2.44|266419^MDC_DIM_MICRO_VOLT^MDC^uV^uV^UCUM|||||R",
        "OBX|5|NM|0^MDCX_ATTR_SA_OFFSET^MDC|1.1.2.1.3|0.5|266419^MDC_DIM_MICRO_VOLT^MDC^uV^uV^UCUM|||||R",
        "OBX|6|NM|197378^MDC_EVT_DATA_MISSING^MDC|1.1.2.1.4|-32768||||||R",
    ]
    assert rendered(replace(OXIMETER, waves=(ECG,))) == rendered(OXIMETER)


def test_the_mark_of_a_missing_sample_is_no_sample() -> None:
    deep = replace(ECG, samples=(-32768, None, -40000))
    text = render_pcd01(parcel_of(message_of(Result(observations=(), waves=(deep,)))), ORIGIN, waves=True).decode()

    assert "|-32768^-40001^-40000|" in text
    assert "|1.1.2.1.4|-40001|" in text


def test_waves_alone_are_refused_where_none_are_wanted() -> None:
    with pytest.raises(ContentError, match="waves alone"):
        rendered(Result(observations=(), waves=(ECG,)))


@settings(max_examples=30, deadline=None)
@given(results())
def test_every_wave_can_be_written(result: Result) -> None:
    text = render_pcd01(parcel_of(message_of(result)), ORIGIN, waves=True).decode()

    assert text.count("MDC_OBS_WAVE_CTS") == len([wave for wave in result.waves if wave.samples])
