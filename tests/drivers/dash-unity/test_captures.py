"""The capture of a Dash 4000 and the golden messages of the sheet, read whole, and made again byte for byte."""

import struct
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from drivers.dash_unity import DashUnity
from drivers.dash_unity.messages import NUMERICS_ID, NUMERICS_STREAM, WAVE_STREAM, WAVES_ID, read_bed, request
from gateway.model import Absent, Phase, Reading, Result
from simulators.dash_unity_codec import EntryImage, alarm_broadcast, bed_message, discovery, wave_packet

CAPTURES = Path(__file__).parents[3] / "../shared/protocols/captures/ge-unity"
MONITOR = bytes((192, 168, 0, 195))


def golden() -> dict[str, bytes]:
    rows = (CAPTURES / "golden-messages.txt").read_text("utf-8").splitlines()
    parts = [row.split("|") for row in rows if row and not row.startswith("#")]
    return {each[0].strip(): bytes.fromhex(each[-1]) for each in parts}


def captured() -> Iterator[tuple[float, bool, bytes]]:
    """Every datagram: its time, whether the monitor sent it, its content."""
    data = (CAPTURES / "gedash-dash4000-udp-10s.pcap").read_bytes()
    at = 24
    while at < len(data):
        seconds, micros, size, _ = struct.unpack_from("<IIII", data, at)
        packet = data[at + 16 + 14 : at + 16 + size]
        words = (packet[0] & 0xF) * 4
        length = struct.unpack_from(">H", packet, words + 4)[0]
        yield seconds + micros / 1e6, packet[12:16] == MONITOR, packet[words + 8 : words + length]
        at += 16 + size


def played() -> list[Reading]:
    session, readings, now = DashUnity(waves=True, transmit=False).open(), [], 0.0
    for now, from_monitor, datagram in captured():
        if from_monitor:
            session.receive(datagram, now)
            readings += session.take_readings()
    session.tick(now + 60)
    return readings + session.take_readings()


def image(entry: bytes) -> EntryImage:
    """An entry of a captured message as the simulator is told of it."""
    limits = struct.unpack_from(">6h", entry, 30)
    return EntryImage(
        code=entry[1],
        kind=entry[64],
        values=struct.unpack_from(">3h", entry, 4),
        limits=(limits[0], limits[1], limits[2], limits[3], limits[4], limits[5]),
        status=struct.unpack_from(">H", entry, 2)[0],
        extended=struct.unpack_from(">BB6h", entry, 10),
        flags=struct.unpack_from(">2H", entry, 26),
        extra_limit=struct.unpack_from(">h", entry, 42)[0],
        messages=entry[44:54],
        more=entry[54:64],
        position=entry[66],
        port=entry[67],
    )


def test_the_capture_is_read_whole() -> None:
    sent = [datagram for _, from_monitor, datagram in captured() if from_monitor]
    readings = played()

    assert Counter(map(len, sent)) == {699: 40, 616: 5, 84: 5, 88: 1}
    assert [reading.fault for reading in readings if reading.fault] == []
    assert len(readings) == 40 + 5 + 5 + 1 + 1  # and the end of the alarm
    assert [len(result.waves) for reading in readings for result in reading.results if result.waves] == [5] * 40


def test_every_value_of_the_capture_has_its_special_state() -> None:
    beds = [reading.results[0] for reading in played() if len(reading.raw) == 616]

    first = {item.key: item.absent or item.value for item in beds[0].observations}
    assert first["spo2"] == Decimal(97)
    assert first["pulse_rate_spo2"] == Decimal(64)
    assert first["x_dash_2d_value2"] is Absent.NAV
    assert first["heart_rate"] is Absent.INV
    assert {first[key] for key in ("cuff_sys", "cuff_dia", "cuff_mean", "x_dash_59_value2")} == {Absent.INV}
    assert all(66 >= (pulse_of(bed) or 0) >= 64 for bed in beds)
    limits = {item.key: (item.low, item.high) for item in beds[0].observations}
    assert limits["heart_rate"] == (35, 110)
    assert limits["spo2"] == (94, 101)
    assert (limits["cuff_mean"], limits["cuff_sys"], limits["cuff_dia"]) == ((40, 140), (80, 160), (20, 120))


def pulse_of(bed: Result) -> int | None:
    return next((int(item.value) for item in bed.observations if item.key == "pulse_rate_spo2" and item.value), None)


def test_leads_that_are_off_have_no_samples_and_the_alarm_ends() -> None:
    results = [result for reading in played() for result in reading.results]
    waves = [wave for result in results for wave in result.waves]

    assert {wave.key for wave in waves if set(wave.samples) == {None}} == {
        f"x_dash_ecg_{lead}_wave" for lead in ("i", "ii", "iii", "v")
    }
    pleth = [sample for wave in waves if wave.key == "x_dash_pleth_wave" for sample in wave.samples]
    assert len(pleth) == 600
    assert all(sample is not None and 520 <= sample <= 1504 and sample % 8 == 0 for sample in pleth)
    assert [wave.gap for wave in waves] == [True] * 5 + [False] * 195
    phases = [item.phase for result in results for item in result.conditions if item.code == "ABLTG AUSFALL"]
    assert phases == [Phase.START, *[Phase.PRESENT] * 4, Phase.END]


def test_what_the_broadcasts_say_of_place_and_clock_is_read_and_no_name() -> None:
    (presence,) = [reading.results[0] for reading in played() if len(reading.raw) == 88]

    assert [item.value for item in presence.observations] == ["HOME|B-01"]
    assert presence.device_time == "2019-05-05 09:55:48"
    assert presence.patient_id is None
    assert "TEST" not in str(presence)


@pytest.mark.parametrize(
    ("name", "sub", "requester"),
    [("udp-request-numerics", NUMERICS_STREAM, NUMERICS_ID), ("udp-request-waves", WAVE_STREAM, WAVES_ID)],
)
def test_golden_requests_are_said_byte_for_byte(name: str, sub: int, requester: int) -> None:
    frame = golden()[name]

    assert request(sub, requester, "HOME|B-02", addresses=frame[:12]) == frame
    assert {datagram for _, from_monitor, datagram in captured() if not from_monitor} >= {frame}


def test_the_simulator_makes_the_golden_messages_byte_for_byte() -> None:
    told = golden()
    bed = told["udp-bed-message"]
    body = bed[120:]
    entries = [image(body[6 + 70 * number : 76 + 70 * number]) for number in range(body[4])]

    assert bed_message(MONITOR, 0x51, entries, state=0, level=3, audio=3, admitted=1) == bed
    alarm = alarm_broadcast(
        MONITOR, bytes((192, 168, 0, 255)), "HOME|B-01", level=3, code=0x3A, text="ABLTG AUSFALL", counter=0xB6
    )
    assert alarm == told["udp-alarm-broadcast"]
    assert discovery(MONITOR, 0x5CCEB324, "HOME|B-01", "TESTPATIENT,J") == told["udp-discovery"]
    wave = told["udp-wave-packet"]
    pleth = [int.from_bytes(wave[at : at + 2], "big") for at in range(46, 4 + 15 * 44, 44)]
    assert wave_packet(0x48F, {7: None, 8: None, 9: None, 10: None, 0x27: pleth}) == wave


def test_every_captured_bed_message_is_made_again() -> None:
    for _, _, datagram in captured():
        if len(datagram) != 616:
            continue
        entries = [image(datagram[126 + 70 * number : 196 + 70 * number]) for number in range(7)]
        head = datagram[120:126]
        made = bed_message(
            MONITOR, read_bed(datagram).number, entries, state=head[0], level=head[1], audio=head[2], admitted=head[3]
        )
        assert made == datagram
