"""The manual's frames, byte for byte, in both directions; the Device's also of the simulator."""

from decimal import Decimal
from pathlib import Path

import pytest

from drivers.medibus.content import read_clock, read_curve_choice, read_curve_scales, read_identity, read_values
from drivers.medibus.frames import Command, Curve, Decoder, Response, encode_command, encode_response
from drivers.medibus.realtime import CurveDecoder, encode_enable
from simulators.medibus_codec import ESC, NAK, SOH, curve_record, curve_scale, frame

GOLDEN = Path(__file__).parents[3] / ".." / "shared" / "protocols" / "captures" / "medibus_manual_frames.txt"
FRAMES: dict[str, bytes] = {}
if GOLDEN.exists():
    for line in GOLDEN.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            raw, _, meaning = line.partition("|")
            FRAMES[f"{raw[0]} {meaning.strip()}"] = bytes.fromhex(raw[1:])

pytestmark = pytest.mark.skipif(not FRAMES, reason="the manual's frames lie beside the tree, in CI")

OURS = {
    "P ICC response": encode_response(0x51),
    "P device ID request": encode_command(0x52),
    "P PC identification 0161 'My PC' 01.00:03.00": encode_response(0x52, b"0161'My PC'01.00:03.00"),
    "P empty identification": encode_response(0x52),
    "P request measured data": encode_command(0x24),
    "P only EB": encode_command(0x4A, b"\x24EB"),
    "P request date/time": encode_command(0x28),
    "P ack": encode_response(0x49),
    "P request RT configuration": encode_command(0x53),
    "P Paw every 2nd, CO2 every 3rd sample": encode_command(0x54, b"00020603"),
    "P enable streams 1 and 2": encode_enable(2),
    "P STOP": encode_command(0x55),
}
SIMULATED = {
    "D ICC command": frame(ESC, 0x51),
    "D NOP": frame(ESC, 0x30),
    "D no data": frame(SOH, 0x24),
    "D SpO2 98, pulse 70": frame(SOH, 0x24, b"EB 98 E1 70 "),
    "D SpO2 98": frame(SOH, 0x24, b"EB 98 "),
    "D 11:11:19 11-NOV-93": frame(SOH, 0x28, b"11:11:1911-NOV-93"),
    "D time changed": frame(ESC, 0x49),
    "D Paw and CO2, 16 ms": frame(
        SOH, 0x53, curve_scale("00", 16000, -10, 100, 0x370) + curve_scale("06", 16000, -20, 100, 0x460)
    ),
    "D t=0 both": curve_record({0: 81, 1: 205}),
    "D t=32 ms Paw": curve_record({0: 84}),
    "D t=48 ms CO2": curve_record({1: 206}),
    "D inspiration start, both": curve_record({0: 80, 1: 202}, True),
    "D NAK": frame(SOH, NAK),
}


@pytest.mark.parametrize("name", OURS)
def test_what_the_host_says_is_what_the_manual_prints(name: str) -> None:
    assert OURS[name] == FRAMES[name]


@pytest.mark.parametrize("name", SIMULATED)
def test_what_the_simulator_says_is_what_the_manual_prints(name: str) -> None:
    assert SIMULATED[name] == FRAMES[name]


def test_every_frame_is_sound_and_none_is_left_out() -> None:
    assert len(FRAMES) == 26 and set(FRAMES) - set(OURS | SIMULATED) == {"D ack"}
    for raw in FRAMES.values():
        (event,) = Decoder().receive(raw)
        assert isinstance(event, Command | Response | Curve)


def test_the_values_in_them_are_read() -> None:
    def data(name: str) -> bytes:
        (event,) = Decoder().receive(FRAMES[name])
        assert isinstance(event, Response)
        return event.data

    clock = read_clock(data("D 11:11:19 11-NOV-93"))
    scales = read_curve_scales(data("D Paw and CO2, 16 ms"))
    identity = read_identity(data("P PC identification 0161 'My PC' 01.00:03.00"))

    assert read_values(data("D SpO2 98, pulse 70"), 4) == [("EB", " 98 "), ("E1", " 70 ")]
    assert clock is not None and clock[0] == "11:11:19 11-NOV-93" and str(clock[1]) == "1993-11-11 11:11:19"
    assert identity is not None and (identity.id, identity.name, identity.medibus_revision) == (
        "0161",
        "My PC",
        "03.00",
    )
    assert [(scale.code, scale.interval_us, scale.low, scale.high, scale.bins) for scale in scales] == [
        ("00", 16000, Decimal(-10), Decimal(100), 0x370),
        ("06", 16000, Decimal(-20), Decimal(100), 0x460),
    ]


def test_the_records_in_them_are_decoded_with_the_streams_asked_for() -> None:
    (asked,) = Decoder().receive(FRAMES["P Paw every 2nd, CO2 every 3rd sample"])
    assert isinstance(asked, Command)
    choice = read_curve_choice(asked.argument)
    decoder = CurveDecoder([every * 16000 for _, every in choice])
    names = ("D t=0 both", "D t=32 ms Paw", "D t=48 ms CO2", "D inspiration start, both")

    decoder.receive(b"".join(FRAMES[name] for name in names))
    piece = decoder.flush()

    assert choice == [("00", 2), ("06", 3)]
    # both are due together again after 96 ms; the pressure of 64 ms is not printed in the manual
    assert piece is not None and piece.samples == ((81, 84, None, 80), (205, 206, 202))
    assert [on for _, on in piece.breaths] == [True] and not piece.gap
