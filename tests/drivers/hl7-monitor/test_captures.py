"""Published messages of real monitors, read where they lie: they have no licence that lets us carry them."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.hl7_monitor import Hl7Monitor
from gateway.driver import Absent, Reading

CAPTURES = Path(__file__).parents[3] / ".." / "shared" / "protocols" / "captures"
NIHON_KOHDEN_HEAD = b"MSH|^~\\&|NIHON KOHDEN|||||||ORU^R01^ORU_R01|1|P|2.4|||NE|AL\r"  # the capture begins at OBR


def read(data: bytes) -> list[Reading]:
    session = Hl7Monitor().open()
    session.receive(data, 0.0)
    session.tick(2.0)
    return session.take_readings()


def values(readings: list[Reading]) -> dict[str, Any]:
    assert all(reading.fault is None for reading in readings)
    return {
        seen.key: seen.value if seen.absent is None else seen.absent
        for reading in readings
        for result in reading.results
        for seen in result.observations
    }


def framed(name: str, head: bytes = b"") -> bytes:
    return b"\x0b" + head + (CAPTURES / name).read_bytes() + b"\x1c\r"


def test_noise_behind_a_frame_whose_end_was_cut_is_told_padding_is_not() -> None:
    frame = b"\x0b" + NIHON_KOHDEN_HEAD + b"\x1c"
    session = Hl7Monitor().open()

    for piece in (frame, b"\r\0", b"x", b"\n", frame + b"\r", b"\0\n", frame + b"\r"):
        session.receive(piece, 0.0)
    session.tick(2.0)

    assert [reading.raw for reading in session.take_readings() if reading.fault] == [b"\0x"]


def test_the_mindray_stream_is_read_whole() -> None:
    readings = read((CAPTURES / "hl7_mindray_t8_pds.bin").read_bytes())

    seen = values(readings)
    assert len(readings) == 10  # ten pairs of values and flags; echo and empty alarm lists give nothing
    assert len(seen) == 43
    assert sum(value is Absent.INV for value in seen.values()) == 14  # every -100.00 carries flag 2
    assert (seen["heart_rate"], seen["spo2"], seen["art_sys"], seen["etco2"]) == (60, 98, 120, 38)


@pytest.mark.parametrize(
    ("name", "rows", "some"),
    [
        ("hl7_ge_b1x5_pcd01.hl7", 7, {"art_sys": 120, "heart_rate": 80, "temp": Decimal("37.0"), "spo2": 97}),
        (
            "hl7_draeger_infinity_gateway_v23.hl7",
            19,
            {"heart_rate": 119, "art_mean": 87, "x_draeger_ta": Decimal("22.8"), "nibp_sys": Absent.NAV},
        ),
        ("hl7_philips_mdil_v23.hl7", 7, {"temp_core": Decimal("37.0"), "abp_sys": 120, "x_philips_resp": 20}),
    ],
)
def test_each_published_message_is_read_whole(name: str, rows: int, some: dict[str, Any]) -> None:
    seen = values(read(framed(name)))

    assert len(seen) == rows
    assert {key: seen[key] for key in some} == some


def test_nihon_kohden_rows_are_read_whole() -> None:
    seen = values(read(framed("hl7_nihon_kohden_live_obx.hl7", NIHON_KOHDEN_HEAD)))

    assert len(seen) == 22
    assert (seen["heart_rate"], seen["nibp_mean"], seen["x_nihon_kohden_qt"]) == (75, 138, Absent.NAV)
