"""The captured lines of the protocol sheet, read whole."""

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest

from drivers.philips_intellivue import PhilipsIntellivue, read_announcement
from drivers.philips_intellivue.framing import Deframer, Piece, framed
from gateway.model import Absent, Observation, Reading, Result, Wave
from simulators.philips_intellivue_codec import Receiver, frame

CAPTURES = Path(__file__).parents[3] / "../shared/protocols/captures/philips"
M8000 = "jvscapture-m8000-rs232-monitor-to-pc.raw"
MX700 = "msick2-mx700-session1-monitor-to-pc.bin"
FRAMES = {
    M8000: 2887,
    MX700: 500,
    "msick2-mx700-session1-pc-to-monitor.bin": 100,
    "msick2-mx700-session3-pc-to-monitor.bin": 100,
    "msick2-mx700-session5-pc-to-monitor.bin": 1000,
}
CHUNK = 600


@cache
def pieces(name: str) -> tuple[Piece, ...]:
    return tuple(Deframer().feed((CAPTURES / name).read_bytes()))


def read(data: bytes) -> tuple[list[Reading], str | None]:
    session = PhilipsIntellivue(transmit=False).open()
    readings: list[Reading] = []
    for at in range(0, len(data), CHUNK):
        session.receive(data[at : at + CHUNK], at / 11520)
        readings += session.take_readings()
    session.tick(len(data) / 11520 + 5.0)
    return readings + session.take_readings(), session.notice


@cache
def m8000() -> tuple[Result, ...]:
    readings, notice = read((CAPTURES / M8000).read_bytes())
    assert notice is None
    assert [reading.fault for reading in readings if reading.fault] == []
    return tuple(result for reading in readings for result in reading.results)


def numerics() -> Iterator[dict[str, Observation]]:
    for result in m8000():
        if result.observations:
            yield {seen.key: seen for seen in result.observations}


@pytest.mark.parametrize(("name", "count"), FRAMES.items())
def test_every_frame_of_a_capture_is_sound_and_is_made_again_byte_for_byte(name: str, count: int) -> None:
    found = pieces(name)

    assert len(found) == count
    assert [piece for piece in found if piece.content is None] == []
    assert all(framed(piece.content or b"") == piece.raw for piece in found)


@pytest.mark.parametrize("name", list(FRAMES)[1:])
def test_the_simulators_own_codec_agrees_with_every_captured_frame(name: str) -> None:
    data = (CAPTURES / name).read_bytes()

    contents = Receiver().feed(data)

    assert contents == [piece.content for piece in pieces(name)]
    assert b"".join(frame(content) for content in contents) == data


def test_the_m8000_capture_gives_every_set_of_numerics_and_waves() -> None:
    kinds = Counter("waves" if result.waves else "numerics" for result in m8000())

    assert kinds == {"numerics": 361, "waves": 1435}
    conditions = [item.code for result in m8000() for item in result.conditions]
    assert conditions == ["INCOMPLETE"]  # the recording ends before the last linked result does
    assert m8000()[-1].device.model == "M8000"
    assert m8000()[0].device.eui64 == "0009FBFFFE029E18"


def test_every_value_of_the_m8000_capture_has_its_special_state() -> None:
    absent: Counter[tuple[str, Absent | None]] = Counter()
    for seen in numerics():
        absent.update((key, item.absent) for key, item in seen.items())

    off = {"spo2", "pulse_rate_spo2", "spo2_relative_perfusion"}
    cuff = {"nibp_sys", "nibp_dia", "nibp_mean"}
    assert all(absent[key, Absent.INV] == 361 for key in off)
    assert all(absent[key, Absent.NAV] == 361 for key in cuff)
    assert absent["heart_rate", None] == 361
    assert len(next(numerics())) == 16
    assert not any(key.endswith("_taken_at") for seen in numerics() for key in seen)  # its stamps are stale


def test_values_flags_and_times_of_the_m8000_capture() -> None:
    first = next(numerics())
    heart_rates = {seen["heart_rate"].value for seen in numerics()}

    assert heart_rates == {Decimal(60)}
    assert first["st_ii"].value == Decimal("-1.5")
    assert first["st_ii"].unit == "mm"
    assert first["st_ii"].flags == ("ALACT",)
    assert first["pulse_rate_spo2"].flags == ("ALINH",)
    assert m8000()[0].device_time == "2021-04-22 11:47:27.600"
    assert m8000()[0].device_clock is not None


def test_the_waves_of_the_m8000_capture_are_whole_and_scaled() -> None:
    waves: dict[str, list[Wave]] = {}
    for result in m8000():
        for wave in result.waves:
            waves.setdefault(wave.key, []).append(wave)

    assert {key: len(found) for key, found in waves.items()} == dict.fromkeys(
        ("ecg_wave_ii", "x_philips_ecg_elec_potl_v", "ecg_wave_avr", "pleth_wave"), 1435
    )
    assert not any(wave.gap for found in waves.values() for wave in found)
    ecg = waves["ecg_wave_ii"][0]
    assert (ecg.period_s, ecg.factor, ecg.offset, ecg.unit) == (
        Decimal("0.004"),
        Decimal("0.005"),
        Decimal("-40.96"),
        "mV",
    )
    pleth = waves["pleth_wave"][0]
    assert (pleth.period_s, pleth.factor, pleth.samples) == (Decimal("0.008"), 1, (2048,) * 32)
    assert all(sample is not None and sample < 1 << 14 for wave in waves["ecg_wave_ii"] for sample in wave.samples)


def test_a_block_that_was_lost_leaves_a_gap() -> None:
    found = list(pieces(M8000))
    at = [number for number, piece in enumerate(found) if b"\xf1\x3b" in piece.raw and b"\x09\x67" in piece.raw][50]
    del found[at]

    readings, _ = read(b"".join(piece.raw for piece in found))

    gaps = [wave.gap for reading in readings for result in reading.results for wave in result.waves]
    assert sum(gaps) == 4  # one in each of the four waves


def test_nothing_of_the_mx700_in_demo_mode_is_published() -> None:
    assert read((CAPTURES / MX700).read_bytes()) == ([], "demo mode")


def test_demo_data_are_not_published_even_if_the_monitors_mode_was_never_heard() -> None:
    results = [piece.raw for piece in pieces(MX700)[2:]]

    assert read(b"".join(results)) == ([], "demo mode")


@pytest.mark.parametrize("name", list(FRAMES)[2:])
def test_what_a_client_says_on_a_tapped_line_is_passed_over(name: str) -> None:
    assert read((CAPTURES / name).read_bytes()) == ([], None)


def test_both_directions_of_a_tapped_line_are_no_trouble() -> None:
    mixed = zip(pieces("msick2-mx700-session1-pc-to-monitor.bin"), pieces(MX700), strict=False)

    readings, notice = read(b"".join(asked.raw + told.raw for asked, told in mixed))

    assert (readings, notice) == ([], "demo mode")


@pytest.mark.parametrize(
    ("name", "model", "software", "address", "bed"),
    [
        ("koshsky-mx450", "866062", "L.01.18", "192.168.247.101", None),
        ("einstein-mp70", "M8007A", "G.01.78", "10.13.37.2", "ECC MON RM15"),
    ],
)
def test_monitors_announce_themselves(name: str, model: str, software: str, address: str, bed: str | None) -> None:
    datagram = (CAPTURES / f"{name}-connect-indication-udp-payload.bin").read_bytes()

    found = read_announcement(datagram)

    assert (found.device.model, found.device.software) == (model, software)
    assert (found.address, found.port, found.bed_label) == (address, 24105, bed)


def test_the_announcement_inside_its_ethernet_frame_is_the_payload() -> None:
    ethernet = (CAPTURES / "koshsky-mx450-connect-indication-ethernet.bin").read_bytes()

    assert ethernet[42:] == (CAPTURES / "koshsky-mx450-connect-indication-udp-payload.bin").read_bytes()
