"""The captured lines and the golden frames of the protocol sheet, read whole."""

import struct
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from drivers.datex_s5 import DatexS5
from drivers.datex_s5.framing import FrameSplitter, Piece, decode, encode
from drivers.datex_s5.numerics import SPECIAL
from drivers.datex_s5.record import PHYSIOLOGICAL, WAVES, parse
from drivers.datex_s5.requests import (
    ALARMS_ENTER,
    ALARMS_LEAVE,
    ALARMS_ONCE,
    AUXILIARY,
    DISPLAYED,
    ONCE,
    STOP,
    TREND_10S,
    TREND_60S,
    alarm_request,
    numerics_request,
    wave_request,
    wave_stop,
)
from drivers.datex_s5.tables import groups
from gateway.model import Absent, Observation, Reading

CAPTURES = Path(__file__).parents[3] / "../shared/protocols/captures/ge-s5"
ALL = (0, 1, 2, 3)
ASKED = {
    "displayed-values-10s": numerics_request(DISPLAYED, 10, ALL),
    "displayed-values-stop": numerics_request(DISPLAYED, STOP, (0,)),
    "displayed-values-single-basic": numerics_request(DISPLAYED, ONCE, (0,)),
    "displayed-values-5s-all-classes": numerics_request(DISPLAYED, 5, ALL),
    "displayed-values-10s-ext1-only": numerics_request(DISPLAYED, 10, (1,)),
    "trend-10s-start": numerics_request(TREND_10S, 10, ALL),
    "trend-60s-start": numerics_request(TREND_60S, 60, ALL),
    "trend-60s-stop": numerics_request(TREND_60S, STOP, (0,)),
    "aux-info-single": numerics_request(AUXILIARY, ONCE, ()),
    "wave-ecg1-start": wave_request((1,)),
    "wave-ecg1-invp1-pleth-co2-resp-start": wave_request((1, 4, 8, 9, 15)),
    "wave-eight-types-start": wave_request((4, 5, 6, 7, 8, 9, 13, 14)),
    "wave-stop": wave_stop(),
    "alarm-status-once": alarm_request(ALARMS_ONCE),
    "alarm-enter-differential": alarm_request(ALARMS_ENTER),
    "alarm-exit-differential": alarm_request(ALARMS_LEAVE),
}


def golden() -> dict[str, bytes]:
    rows = (CAPTURES / "golden-frames.txt").read_text("utf-8").splitlines()
    parts = [row.split("|") for row in rows if row and not row.startswith("#")]
    return {name.strip(): bytes.fromhex(digits) for name, _, _, digits in parts}


def captured(name: str) -> bytes:
    return (CAPTURES / name).read_bytes()


def pieces(name: str) -> list[Piece]:
    return FrameSplitter().feed(captured(name))


@cache
def readings(name: str) -> list[Reading]:
    session, data, found = DatexS5(transmit=False).open(), captured(name), []
    for start in range(0, len(data), 1700):  # a second of a line with 19200 baud
        session.receive(data[start : start + 1700], start / 1700)
        found += session.take_readings()
    return found


def test_every_golden_request_is_said_byte_for_byte() -> None:
    from_host = {name: frame for name, frame in golden().items() if name in ASKED}

    assert from_host == ASKED
    assert len(golden()) == len(ASKED) + 3


def test_golden_frames_are_taken_apart_and_put_together_again() -> None:
    for frame in golden().values():
        (piece,) = FrameSplitter().feed(frame)
        assert piece.record is not None
        assert encode(piece.record) == frame
        assert decode(frame[1:-1]) == piece.record


@pytest.mark.parametrize(
    ("name", "numerics", "waves"), [("pycollect-db00.raw", 1760, 1760), ("pycollect-notebook-raw.raw", 11, 10)]
)
def test_clean_captures_are_all_good(name: str, numerics: int, waves: int) -> None:
    found = [parse(piece.record) for piece in pieces(name) if piece.record is not None]

    assert Counter(record.main_type for record in found) == {PHYSIOLOGICAL: numerics, WAVES: waves}
    assert {record.level for record in found} == {10}
    assert [piece.fault for piece in pieces(name) if piece.record is None] == []
    read = readings(name)
    assert len(read) == numerics + waves
    assert not any(reading.fault for reading in read)


def test_the_damaged_capture_gives_its_good_frames_and_none_of_the_bad() -> None:
    found = pieces("pycollect-db01-with-errors.raw")
    good = [parse(piece.record) for piece in found if piece.record is not None]
    bad = Counter(piece.fault for piece in found if piece.record is None)

    assert Counter(record.main_type for record in good) == {PHYSIOLOGICAL: 1151, WAVES: 975}
    assert {record.level for record in good} == {10}
    assert bad == {
        "wrong checksum": 164,
        "an escape without a byte": 8,
        "a fragment shorter than a record header": 136,
        "the record's length does not agree with its frame": 12,
    }
    read = readings("pycollect-db01-with-errors.raw")
    repeated = 36  # stretches of the capture stand in it twice
    assert sum(reading.fault is None for reading in read) == 1151 + 975 - repeated
    assert {encode(decode(reading.raw[1:-1])) for reading in read if reading.fault is None} <= {
        piece.raw for piece in found if piece.record is not None
    }


def test_every_number_of_a_capture_is_read_with_its_special_state() -> None:
    told: Counter[str] = Counter()
    for reading in readings("pycollect-db00.raw"):
        record = parse(decode(reading.raw[1:-1]))
        if record.main_type != PHYSIOLOGICAL:
            continue
        seen = {item.sub: item for item in reading.results[0].observations}
        for part in record.parts:
            for group in groups()[part.data[277] & 0xF]:
                status = struct.unpack_from("<I", part.data, 4 + 2 * group.place)[0]
                for field in group.fields:
                    if field.wide != 16 or field.key == "@ptc" or group.name == "nibp" or field.until < record.level:
                        continue
                    raw = struct.unpack_from("<h", part.data, 4 + field.offset)[0]
                    item = seen.get(f"1.{group.vmd}.{group.channel}.{field.metric}")
                    told[check(status, raw, item, float(field.scale))] += 1

    assert set(told) == {"not there", "off", "special", "value"}
    assert told["value"] > 1760 * 8


def check(status: int, raw: int, item: Observation | None, scale: float) -> str:
    if not status & 1:
        assert item is None
        return "not there"
    assert item is not None
    if not status & 2:
        assert item.absent is Absent.OFF
        return "off"
    if raw <= -32001:
        assert (item.absent, item.flags) == SPECIAL[raw]
        return "special"
    assert float(item.value or 0) == pytest.approx(raw * scale)
    return "value"


def test_samples_are_read_as_many_as_came() -> None:
    waves = [reading.results[0].waves for reading in readings("pycollect-db00.raw") if reading.results[0].waves]

    counts = Counter(len(wave.samples) for pair in waves for wave in pair)

    assert set(counts) == {99, 100, 101}
    assert sum(len(pair[0].samples) != 100 for pair in waves) == 27
    assert {pair[0].key for pair in waves} == {"pleth_wave"}
    assert {pair[1].key for pair in waves} == {"x_datex_entropy_wave"}
    assert [pair[0].gap for pair in waves] == [True] + [False] * 1759


def test_a_cuff_pressure_of_a_capture_is_published_once_for_each_measurement() -> None:
    published = [
        (item.value, item.episodic)
        for reading in readings("pycollect-db00.raw")
        for item in reading.results[0].observations
        if item.key == "cuff_sys"
    ]

    assert 1 < len(published) < 20
    assert all(episodic for _, episodic in published)
