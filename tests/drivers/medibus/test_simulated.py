"""The Session against the simulated Device, in virtual time."""

import itertools
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.medibus import Medibus
from drivers.medibus.codes import Code
from drivers.medibus.frames import encode_command, encode_response
from drivers.medibus.realtime import encode_enable
from drivers.medibus.session import IDENTIFICATION
from gateway.driver import Absent, Method, Parting, Phase, Priority
from simulators.medibus_codec import ESC, SOH, frame
from simulators.medibus_models import MODELS
from tests.drivers.medibus.virtual import Wire


@pytest.mark.parametrize("model", MODELS)
def test_a_minute_of_each_model_is_read_without_a_fault(model: str) -> None:
    wire = Wire(model).run(60)

    rates, waves = wire.seen("resp_rate"), wire.waves("paw_wave")
    assert wire.faults == []
    assert 28 <= len(rates) <= 31 and len({item.value for item in rates}) > 5
    assert not any(wave.gap or None in wave.samples for wave in waves)
    seconds = sum(len(wave.samples) * wave.period_s for wave in waves)
    assert Decimal(58) < seconds < Decimal(60)
    assert len(wire.seen("x_medibus_inspiration_start")) >= 8
    assert {result.device.model for result in wire.results} == {MODELS[model].identification.split("'")[1]}


def test_limits_stand_beside_their_values_and_settings_say_that_they_are_set() -> None:
    wire = Wire("v500", waves=()).run(5)

    volume, peak = wire.seen("minute_volume")[0], wire.seen("paw_insp_peak")[0]
    assert (volume.low, volume.high) == (Decimal("3.5"), Decimal("14.0"))
    assert (peak.low, peak.high, peak.unit) == (None, Decimal(40), "mbar")
    assert wire.seen("set_peep")[0].method is Method.SETTING_MANUAL
    assert wire.seen("vent_mode")[0].value == "PC BIPAP"
    assert wire.waves("paw_wave") == []


def test_the_devices_clock_comes_with_its_values_and_its_jump_is_seen() -> None:
    wire = Wire("primus", "clock@4+3600", waves=()).run(8)

    clocks = [result.device_clock for result in wire.results if result.device_clock is not None]
    assert str(clocks[0]) == "2026-07-05 10:15:00" and str(clocks[-1]).startswith("2026-07-05 11:15:0")
    assert next(result.device_time for result in wire.results if result.device_time) == "10:15:00 05-JUL-26"


def test_a_device_without_a_clock_is_not_asked_for_one() -> None:
    wire = Wire("evita4", waves=()).run(5)

    assert encode_command(0x28) not in b"".join(wire.said)
    assert all(result.device_time is None for result in wire.results)


def test_values_of_sensors_that_are_off_are_absent_and_come_back() -> None:
    wire = Wire("v500", "sensor-off@10+10", waves=()).run(30)

    spo2 = wire.seen("spo2")
    off = [item for item in spo2 if item.absent is not None]
    assert 4 <= len(off) <= 6 and {item.absent for item in off} == {Absent.NAV}
    assert spo2[0].value is not None and spo2[-1].value is not None
    assert all(item.value is not None for item in wire.seen("paw_insp_peak"))


def test_an_alarm_begins_is_present_and_ends() -> None:
    wire = Wire("v500", "alarm@5+10", waves=()).run(25)

    alarms = [item for result in wire.results for item in result.conditions if item.code == "1/10"]
    assert (alarms[0].phase, alarms[-1].phase) == (Phase.START, Phase.END)
    assert {item.phase for item in alarms[1:-1]} == {Phase.PRESENT} and len(alarms) > 4
    assert (alarms[0].priority, alarms[0].technical, alarms[0].mdc) == (Priority.HIGH, False, 196650)
    assert alarms[0].text == "Airway press. high limit (PAW HIGH), priority 30 of 31"
    assert (alarms[0].sub, alarms[0].high) == ("1.1.1.126", Decimal(40))


@pytest.mark.parametrize(("fault", "every_s"), [("checksum", 0.7), ("cut", 8.0), ("noise", 0.7)])
def test_what_was_spoiled_is_asked_again_and_never_gives_a_wrong_value(fault: str, every_s: float) -> None:
    wire = Wire("evita4", *(f"{fault}@{1 + every_s * number:.1f}" for number in range(int(30 / every_s)))).run(60)

    peaks = wire.seen("paw_insp_peak")
    assert {item.value for item in peaks if item.value is not None} == {Decimal(24)}
    assert len(peaks) >= 20
    assert wire.faults and len(wire.faults) < 20


def test_a_silent_device_is_called_until_it_answers() -> None:
    wire = Wire("v500", "silence@5.1+10").run(30)

    late = [
        at for at, reading in wire.readings if any(o.key == "spo2" for r in reading.results for o in r.observations)
    ]
    assert not [at for at in late if 5.2 < at < 15] and [at for at in late if 15 < at < 19]
    assert b"".join(wire.said).count(encode_command(0x51)) >= 3
    assert wire.waves("paw_wave")[-1].samples


def test_a_device_that_was_switched_off_is_read_again_without_a_person() -> None:
    wire = Wire("v500", "restart@10+8").run(40)

    told = [at for at, reading in wire.readings for result in reading.results if result.observations]
    assert not [at for at in told if 11.1 < at < 18] and [at for at in told if 18 < at < 23]
    assert wire.waves("paw_wave")[-1].samples
    assert not wire.faults


def test_a_device_that_lost_us_and_calls_is_answered_and_told() -> None:
    wire = Wire("v500").run(10)
    wire.device._forget()
    wire.device._icc_due = wire.now

    wire.run(10)

    codes = [item.code for result in wire.results for item in result.conditions]
    assert codes == ["ICC"]
    assert encode_response(0x51) in wire.said[-1] or any(encode_response(0x51) in said for said in wire.said)
    assert wire.waves("paw_wave")[-1].samples


def test_in_simulation_nothing_is_published_and_the_notice_says_so() -> None:
    wire = Wire("primus", simulation=True).run(20)

    assert wire.readings == []
    assert wire.session.notice == "simulation mode: nothing is published"


def test_curve_bytes_that_are_lost_are_gaps_not_wrong_samples() -> None:
    clean, wire, count = Wire("evita4").run(30), Wire("evita4"), itertools.count(1)

    def lose(data: bytes) -> bytes:  # two losses in neighbouring records cannot be told from none: nothing is checked
        return bytes(byte for byte in data if byte < 0x80 or next(count) % 97)

    wire.spoil = lose
    wire.run(30)

    gaps = [wave.gap for wave in wire.waves("paw_wave")]
    assert gaps.count(True) > 5
    sent = {sample for wave in clean.waves("paw_wave") for sample in wave.samples}
    assert {sample for wave in wire.waves("paw_wave") for sample in wave.samples if sample is not None} <= sent
    assert len(wire.seen("paw_insp_peak")) == len(clean.seen("paw_insp_peak"))


def test_only_one_command_is_outstanding_and_every_command_of_the_device_is_answered() -> None:
    wire = Wire("v500").run(20)

    said, heard = b"".join(wire.said), b"".join(bytes(b for b in piece if b < 0x80) for piece in wire.heard)
    assert said.count(frame(SOH, 0x30)) == heard.count(frame(ESC, 0x30)) > 0
    assert said.count(frame(SOH, 0x52, IDENTIFICATION)) == 1
    for piece in wire.said:
        assert sum(1 for byte in piece if byte == ESC) <= 1


def test_a_tap_says_nothing_and_reads_what_another_recorder_asked_for() -> None:
    recorder = Wire("v500").run(20)
    tap = Wire("v500", transmit=False)

    for piece in recorder.heard:
        tap.session.receive(piece, 1.0)
        assert tap.session.take_output() == b""
    readings = tap.session.take_readings()

    told = {item.key for reading in readings for result in reading.results for item in result.observations}
    assert {"paw_insp_peak", "set_peep", "vent_mode", "tidal_volume_insp"} <= told
    assert not any(result.waves for reading in readings for result in reading.results)


@pytest.mark.parametrize("silent", [0x2B, 0x2E, 0x53])
def test_a_command_that_is_never_answered_is_left_out_and_the_others_go_on(silent: int) -> None:
    wire = Wire("v500")
    wire.unheard = encode_command(silent)

    wire.run(90)

    tries = b"".join(wire.said).count(encode_command(silent))
    assert tries == 3
    assert [at for at, reading in wire.readings if reading.results and at > 60]


def test_values_that_are_never_answered_make_us_call_anew() -> None:
    wire = Wire("v500", waves=())
    wire.unheard = encode_command(0x24)

    wire.run(45)

    assert b"".join(wire.said).count(encode_command(0x51)) == 2


def test_a_device_that_asks_us_to_wait_is_obeyed_for_three_seconds() -> None:
    session = Medibus().open()
    session.tick(0.0)
    assert session.take_output() == encode_command(0x51)
    session.receive(encode_response(0x51) + b"\x11", 0.5)

    for tenth in range(6, 35):
        session.tick(tenth / 10)
        assert session.take_output() == b""
    session.tick(3.5)

    assert session.take_output().endswith(encode_command(0x51))


def test_waiting_ends_when_the_device_lets_us_go_on() -> None:
    wire = Wire("v500").run(3)
    wire.session.receive(b"\x11", wire.now)
    wire.run(0.5)
    said = len(wire.said)
    wire.session.receive(b"\x13", wire.now)

    wire.run(2)

    assert len(wire.said) > said and encode_command(0x51) not in b"".join(wire.said[said:])


def test_curves_that_stopped_are_asked_for_anew_after_ten_seconds() -> None:
    wire = Wire("v500").run(5)
    wire.spoil = lambda data: bytes(byte for byte in data if byte < 0x80)
    wire.run(13)
    wire.spoil = lambda data: data
    before = len(wire.waves("paw_wave"))

    wire.run(5)

    assert b"".join(wire.said).count(encode_command(0x53)) == 2
    assert len(wire.waves("paw_wave")) > before


def test_a_changed_clock_is_asked_for_at_once_and_a_change_of_curves_ends_them() -> None:
    wire = Wire("v500").run(3)

    wire.session.receive(frame(ESC, 0x49) + frame(ESC, 0x56), wire.now)

    assert wire.session.take_output().startswith(encode_response(0x49) + encode_response(0x56))
    wire.run(2)
    assert encode_command(0x53) in b"".join(wire.said[-20:])


def test_a_device_that_ends_communication_is_called_after_three_seconds() -> None:
    wire = Wire("v500").run(3)
    wire.session.receive(frame(ESC, 0x55), wire.now)
    said = len(wire.said)

    wire.run(2.5)
    assert encode_command(0x51) not in b"".join(wire.said[said:])
    wire.run(8)
    assert encode_command(0x51) in b"".join(wire.said[said:])


@pytest.mark.parametrize(
    "options", [{"waves": ("paw", "blood")}, {"interval_s": 0.1}, {"interval_s": 100.0}, {"wave_period_s": 2.0}]
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Medibus(**options)


@given(data=st.binary(max_size=600), cuts=st.lists(st.integers(0, 600), max_size=6), pause_s=st.floats(0, 12))
@settings(max_examples=40, deadline=None)
def test_nothing_raises_and_every_deadline_lies_ahead(data: bytes, cuts: list[int], pause_s: float) -> None:
    session, now = Medibus().open(), 100.0
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    for start, end in zip([0, *ends], ends, strict=False):
        session.receive(data[start:end], now)
        session.take_output()
        now += pause_s
        session.tick(now)
        assert session.deadline is not None and session.deadline > now


def test_enabling_bytes_that_were_lost_are_said_again() -> None:
    wire = Wire("v500")
    wire.unheard = encode_enable(3)
    wire.run(4)
    assert wire.waves("paw_wave") == []
    wire.unheard = None

    wire.run(4)

    assert wire.waves("paw_wave")


def test_alarms_end_where_a_simulation_begins_and_begin_anew_after_it() -> None:
    wire = Wire("primus", "alarm@0+30", waves=()).run(4)
    wire.device._simulation = True
    wire.run(6)
    before = len(wire.readings)
    wire.run(4)
    assert len(wire.readings) == before
    wire.device._simulation = False
    wire.run(4)

    phases = [item.phase for result in wire.results for item in result.conditions if item.code == "1/10"]
    assert [phase for phase in phases if phase is not Phase.PRESENT] == [Phase.START, Phase.END, Phase.START]


def test_the_computer_of_a_tapped_line_is_not_taken_for_the_device() -> None:
    session = Medibus(transmit=False).open()

    for identity in (b"5000'Evita V500'02.51:06.00", b"0161'My PC'01.00:03.00"):
        session.receive(encode_response(0x52, identity), 1.0)
    session.receive(encode_response(0x24, b"06 7.2"), 2.0)

    ((result,),) = [reading.results for reading in session.take_readings()]
    assert (result.device.model, result.observations[0].key) == ("Evita V500", "vent_minute_volume_insp")


def test_another_device_on_the_same_line_begins_with_nothing_known() -> None:
    session = Medibus(transmit=False).open()
    session.receive(encode_response(0x52, b"5000'Evita V500'02.51:06.00") + encode_response(0x24, b"78  8 "), 1.0)
    session.receive(encode_response(0x27, b"N10PAW HIGH    "), 1.0)
    session.receive(encode_response(0x52, b"5510'Primus'04.53:06.00") + encode_response(0x24, b"7D 20 "), 2.0)

    results = [result for reading in session.take_readings() for result in reading.results]
    assert [item.phase for item in results[2].conditions] == [Phase.END]
    assert [item.key for item in results[3].observations] == ["paw_insp_peak"] and results[3].conditions == ()


def test_a_device_of_the_same_kind_plugged_in_instead_inherits_neither_alarms_nor_limits() -> None:
    wire = Wire("primus", "alarm@0+100", waves=()).run(10)
    wire.unheard = encode_command(Code.LOW_1)
    before = len(wire.results)

    wire.device = Wire("primus").device
    wire.run(60)

    heard = wire.results[before:]
    told = [item.phase for result in heard for item in result.conditions if item.priority]
    assert told == [Phase.END]
    assert all(item.low is None for result in heard for item in result.observations)


def test_before_the_line_is_closed_curves_are_switched_off_and_communication_is_stopped() -> None:
    wire = Wire("v500").run(5)
    assert isinstance(wire.session, Parting)

    wire.session.part()

    assert wire.session.take_output() == bytes.fromhex("D0C1C0C0C0") + b"\x1bU70\r"
    wire.session.receive(frame(ESC, 0x30), wire.now)
    assert wire.session.take_output() == b""


def test_who_never_met_the_device_or_only_listens_takes_no_leave() -> None:
    for session in (Medibus().open(), Medibus(transmit=False).open()):
        session.tick(1.0)
        assert isinstance(session, Parting)
        session.part()
        assert session.take_output() == b""
