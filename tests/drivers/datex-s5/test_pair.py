"""The driver against the simulated monitor, hour by hour without waiting: time is a number here."""

import struct
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.datex_s5 import DatexS5
from drivers.datex_s5.driver import WaveName
from drivers.datex_s5.ecg12 import LEADS, read_ecg12
from gateway.model import Absent, Phase, Priority, Reading, Result
from simulators.datex_s5 import S5Monitor
from simulators.datex_s5_codec import GroupValues, frame, numerics, record
from simulators.script import Script, read_step
from simulators.waveforms import bed_vitals

STEP_S = 0.05


class Pair:
    """A Session and a monitor with a cable between them."""

    def __init__(self, driver: DatexS5, *steps: str, level: int = 10) -> None:
        self.session = driver.open()
        self.monitor = S5Monitor(level=level, script=Script(tuple(read_step(step) for step in steps)))
        self.readings: list[tuple[float, Reading]] = []
        self.said = b""
        self.now = 0.0

    def run(self, seconds: float) -> "Pair":
        end = self.now + seconds
        while self.now < end:
            self.now += STEP_S
            if (due := self.session.deadline) is not None and due <= self.now:
                self.session.tick(self.now)
            said = self.session.take_output()
            self.said += said
            self.monitor.receive(said, self.now)
            self.monitor.tick(self.now)
            for piece in self.monitor.take_output():
                self.session.receive(piece, self.now)
            self.readings += [(self.now, reading) for reading in self.session.take_readings()]
        return self

    @property
    def results(self) -> list[tuple[float, Result]]:
        return [(at, result) for at, reading in self.readings for result in reading.results]

    @property
    def faults(self) -> list[str]:
        return [reading.fault for _, reading in self.readings if reading.fault]

    def numerics(self, since: float = 0.0) -> list[Result]:
        return [result for at, result in self.results if at > since and any_key(result, "x_datex_hr_source")]

    def waves(self, since: float = 0.0) -> list[Result]:
        return [result for at, result in self.results if at > since and result.waves]


def any_key(result: Result, key: str) -> bool:
    return any(item.key == key for item in result.observations)


def value(result: Result, key: str, sub: str | None = None) -> object:
    return next(
        item.absent if item.absent else item.value
        for item in result.observations
        if item.key == key and sub in (None, item.sub)
    )


def test_values_waves_and_alarms_of_a_minute() -> None:
    pair = Pair(DatexS5(interval_s=5, waves=("ecg1", "invp1", "pleth")), "alarm@20+15").run(60)

    assert pair.faults == []
    assert len(pair.numerics()) == 12
    assert 55 <= sum(len(result.waves[0].samples) for result in pair.waves()) / 300 <= 60
    assert [wave.key for wave in pair.waves()[-1].waves] == ["ecg_wave_ii", "art_wave", "pleth_wave"]
    assert [result.waves[0].gap for result in pair.waves()] == [True] + [False] * (len(pair.waves()) - 1)
    told = [(item.code, item.phase) for _, result in pair.results for item in result.conditions if item.priority]
    assert told == [("HR HIGH", Phase.START), ("HR HIGH", Phase.END)]
    first = pair.numerics()[0]
    played = bed_vitals()
    next(played)  # what it showed before it was asked
    assert value(first, "heart_rate") == round(next(played).heart_rate)
    assert first.device_clock is not None
    assert first.device_time == f"{first.device_clock:%Y-%m-%d %H:%M:%S}"


def test_a_monitor_that_was_restarted_is_read_again_without_a_person() -> None:
    pair = Pair(DatexS5(interval_s=5, waves=("ecg1",), trends="10s"), "restart@60+20").run(150)

    silent_until = min(at for at, result in pair.results if at > 61)
    assert silent_until < 80 + 11 + 1
    assert len(pair.numerics(since=100)) >= 9
    assert len(pair.waves(since=100)) >= 45
    assert any(item.code == "TREND 10 S" for at, result in pair.results if at > 100 for item in result.conditions)
    assert sum(any_key(result, "x_datex_alarm_sound") for at, result in pair.results if at > 80) == 1


@pytest.mark.parametrize(("fault", "told"), [("noise", "no frame"), ("cut", ""), ("checksum", "wrong checksum")])
def test_damage_costs_the_frame_it_hits(fault: str, told: str) -> None:
    pair = Pair(DatexS5(interval_s=5, alarms=False), f"{fault}@12").run(40)

    assert len(pair.numerics()) in (7, 8)
    assert len(pair.faults) <= 1
    assert fault != "checksum" or told in pair.faults[0]


def test_sensors_that_are_off_give_reasons_and_no_values() -> None:
    pair = Pair(DatexS5(interval_s=5, waves=("ecg1", "pleth")), "sensor-off@10+20").run(60)

    off = pair.numerics(since=15)[0]
    assert value(off, "spo2") is Absent.OFF
    assert value(off, "heart_rate") is Absent.INV
    assert {item.code for item in off.conditions} >= {"ECG_CH1_OFF", "ECG_CH2_OFF", "ECG_CH3_OFF"}
    alarms = {(item.code, item.priority) for _, result in pair.results for item in result.conditions if item.priority}
    assert ("SpO2 PROBE OFF", Priority.MEDIUM) in alarms
    block = next(result for at, result in pair.results if at > 15 and result.waves)
    assert set(block.waves[1].samples) == {None}
    assert any(item.code == "ECG1 LEAD OFF" for item in block.conditions)
    assert isinstance(value(pair.numerics(since=50)[-1], "spo2"), Decimal)


def test_a_clock_that_jumps_is_told_and_changes_nothing_else() -> None:
    pair = Pair(DatexS5(interval_s=5), "clock@20-3600").run(40)

    clocks = [result.device_clock for result in pair.numerics() if result.device_clock is not None]
    jumps = [(later - former).total_seconds() for former, later in pairwise(clocks)]
    assert len(clocks) == 8
    assert sum(jump < -3000 for jump in jumps) == 1


def test_a_silence_is_asked_about_and_waves_come_back_after_it() -> None:
    pair = Pair(DatexS5(interval_s=5, waves=("pleth",)), "silence@20+30").run(90)

    assert len(pair.numerics(since=51)) >= 6
    first_after = next(result for at, result in pair.results if at > 50 and result.waves)
    assert first_after.waves[0].gap


@pytest.mark.parametrize("level", range(2, 12))
def test_every_interface_level_is_asked_for_what_it_knows(level: int) -> None:
    pair = Pair(DatexS5(interval_s=5), level=level).run(30)

    assert pair.faults == []
    assert len(pair.numerics()) in (6, 7)
    alarms = [result for _, result in pair.results if any_key(result, "x_datex_alarm_sound")]
    assert len(alarms) == (1 if level >= 10 else 0)
    assert any_key(pair.numerics()[-1], "pvc_rate") == (level >= 3)
    assert str(pair.numerics()[0].device.software).startswith(f"DRI level {level} ")


@pytest.mark.parametrize(
    ("level", "label", "keys"),
    [
        (10, 0x0A, {"resp_rate_co2", "co2_insp_conc"}),
        (7, 0x0A, {"resp_rate_impedance", "co2_insp_conc"}),
        (7, 0x11, {"resp_rate_co2", "x_datex_co2_fi"}),
    ],
)
def test_the_co2_groups_label_says_where_its_numbers_come_from(level: int, label: int, keys: set[str]) -> None:
    shown = {"co2": GroupValues(3, label, {"et": 500, "fi": 10, "rr": 14, "amb_press": 7600})}
    session = DatexS5(transmit=False).open()

    body = numerics(0, 1, shown, time=0, level=level)
    session.receive(frame(record(0, [(1, body)], number=0, level=level, time=0)), 0.0)

    (result,) = session.take_readings()[0].results
    assert {item.key for item in result.observations if item.sub in ("1.6.1.2", "1.6.1.3")} == keys


def test_eight_waves_fill_the_record_and_leave_no_room_for_an_end_mark() -> None:
    names: tuple[WaveName, ...] = ("invp1", "invp2", "invp3", "invp4", "pleth", "co2", "awp", "flow")
    pair = Pair(DatexS5(interval_s=5, waves=names)).run(20)

    blocks = pair.waves()
    assert pair.faults == []
    assert {len(block.waves) for block in blocks} == {8}
    assert {wave.samples[0] for block in blocks for wave in block.waves if wave.key == "co2_conc"} == {None}
    assert [wave.key for wave in blocks[-1].waves[:2]] == ["art_wave", "pap_wave"]
    assert 18 * 100 <= sum(len(block.waves[0].samples) for block in blocks) <= 20 * 100


def test_an_unknown_subrecord_costs_none_of_the_known_ones() -> None:
    known = numerics(0, 1, {"spo2": GroupValues(3, 0, {"SpO2": 9700})}, time=0, level=10)
    session = DatexS5(transmit=False).open()

    session.receive(frame(record(0, [(1, known), (9, b"abcd")], number=0, level=10, time=0)), 0.0)

    (reading,) = session.take_readings()
    assert value(reading.results[0], "spo2") == Decimal(97)
    assert [item.code for item in reading.results[0].conditions] == ["SUBRECORD 9"]


def test_nothing_is_ever_said_where_nothing_may_be_sent() -> None:
    pair = Pair(DatexS5(transmit=False)).run(120)

    assert pair.said == b""
    assert pair.readings == []


def test_a_cuff_pressure_comes_once_for_each_measurement() -> None:
    pair = Pair(DatexS5(interval_s=5, auxiliary=True)).run(300)

    cuffs = [result for result in pair.numerics() if any_key(result, "cuff_sys")]
    times = [result for _, result in pair.results if any_key(result, "x_datex_nibp_time")]
    assert 1 < len(cuffs) < len(pair.numerics()) / 3
    assert len(times) >= len(cuffs)


def refused(make: Callable[[], DatexS5]) -> str:
    with pytest.raises(ValueError) as caught:
        make()
    return str(caught.value)


def test_settings_that_the_monitor_would_drop_in_silence_are_refused() -> None:
    assert "700 samples" in refused(lambda: DatexS5(waves=("ecg1", "ecg2", "invp1")))
    assert "different" in refused(lambda: DatexS5(waves=("co2", "co2")))
    assert "interval_s" in refused(lambda: DatexS5(interval_s=0))
    assert "at least one" in refused(lambda: DatexS5(classes=()))
    assert "zone" in refused(lambda: DatexS5(zone="CET"))
    assert DatexS5(waves=("ecg1", "ecg2", "invp1"), samples_per_s_max=2000).open()


def ecg12_block(first: int, differences: list[int]) -> bytes:
    words = [0] * 28
    for lead in range(8):
        words[3 * lead] = first
        sizes = [abs(each) for each in differences]
        words[3 * lead + 1] = sizes[0] << 8 | sizes[1]
        words[3 * lead + 2] = sizes[2] << 8 | sizes[3]
        for number, each in enumerate(differences):
            if each < 0:
                words[24 + number // 2] |= 1 << (15 - 2 * lead - number % 2)
    return struct.pack("<28H", *(word & 0xFFFF for word in words))


@settings(max_examples=30, deadline=None)
@given(
    first=st.integers(-9000, 9000),
    differences=st.lists(st.integers(-255, 255), min_size=4, max_size=4),
    shift=st.sampled_from([0, 1, 2, 3]),
)
def test_ecg12_differences_are_added_up(first: int, differences: list[int], shift: int) -> None:
    head = struct.pack("<7H", 14, 0x8000, 0x8000, 0, 0, shift << 12, 0)

    waves = read_ecg12(head + ecg12_block(first, differences), "1.12.1.81", 0x1FF, gap=False)

    factor = {0: 1, 1: 4, 2: 8, 3: 16}[shift]
    wanted = [first + factor * sum(differences[:count]) for count in range(5)]
    assert [wave.key for wave in waves] == [f"ecg_wave_{name}" for name in LEADS]
    assert all(list(wave.samples) == wanted for wave in waves)


def test_ecg12_samples_that_are_invalid_are_none() -> None:
    head = struct.pack("<7H", 14, 0, 0, 0, 0, 0, 0)
    data = head + ecg12_block(-32767, [0, 0, 0, 0]) + ecg12_block(5, [0, 0, 0, 0])
    block = struct.pack("<hHH", 10, 0, 0x1) + data

    session = DatexS5(transmit=False).open()
    session.receive(frame(record(1, [(22, block)], number=0, level=10, time=0)), 0.0)
    (reading,) = session.take_readings()

    (wave,) = reading.results[0].waves
    assert wave.samples == (None,) * 5 + (5,) * 5
    assert (wave.period_s, wave.factor, wave.unit) == (Decimal("0.002"), Decimal("0.001"), "mV")


@settings(max_examples=50, deadline=None)
@given(payload=st.binary(max_size=1200), main_type=st.sampled_from([0, 1, 4]), kind=st.integers(0, 40))
def test_sound_frames_with_any_content_raise_nothing(payload: bytes, main_type: int, kind: int) -> None:
    session = DatexS5(transmit=False).open()

    session.receive(frame(record(main_type, [(kind, payload)], number=0, level=10, time=0)), 0.0)
    session.tick(2.0)

    for reading in session.take_readings():
        assert reading.fault is None or "driver failed" not in reading.fault


@settings(max_examples=50, deadline=None)
@given(body=st.binary(min_size=278, max_size=278), number=st.integers(0, 3), level=st.integers(2, 11))
def test_numerics_of_any_bits_are_read(body: bytes, number: int, level: int) -> None:
    session = DatexS5(transmit=False).open()
    data = body[:276] + struct.pack("<H", number << 8)

    session.receive(frame(record(0, [(1, data)], number=0, level=level, time=0)), 0.0)

    (reading,) = session.take_readings()
    assert reading.fault is None


@settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 10_000), change=st.integers(1, 255))
def test_a_wrong_checksum_never_yields_a_value(place: int, change: int) -> None:
    body = record(0, [(1, bytes(276) + b"\x00\x00")], number=3, level=10, time=77)
    sent = bytearray(frame(body))
    sent[place % len(sent)] ^= change

    session = DatexS5(transmit=False).open()
    session.receive(bytes(sent), 0.0)

    assert [reading.raw for reading in session.take_readings() if reading.fault is None] in ([], [frame(body)])
