"""The driver against the simulated monitor, hour by hour without waiting: time is a number here."""

from collections import Counter
from decimal import Decimal
from itertools import pairwise

import pytest

from drivers.philips_intellivue import PhilipsIntellivue
from drivers.philips_intellivue.framing import framed
from drivers.philips_intellivue.requests import RELEASE_REQUEST_DATA
from drivers.philips_intellivue.session import IntellivueSession
from gateway.model import Absent, Phase, Reading, Result
from simulators.philips_intellivue import IntellivueMachine
from simulators.philips_intellivue_monitor import Settings
from simulators.philips_intellivue_patient import rows
from simulators.script import Script, read_step

STEP_S = 0.064
PATIENT = {"patient_id": "ZZ-0007", "family_name": "ZZTEST", "given_name": "DEMO"}


class Pair:
    """A Session and a monitor with a cable, or a network, between them."""

    def __init__(self, driver: PhilipsIntellivue, *steps: str, lan: bool = False, **settings: object) -> None:
        self.session = driver.open()
        assert isinstance(self.session, IntellivueSession)
        script = Script(tuple(read_step(step) for step in steps))
        values = {"mtu": 996, **PATIENT, **settings}
        self.machine = IntellivueMachine(Settings(**values), script=script, port=24105 if lan else None)  # type: ignore[arg-type]
        self.readings: list[tuple[float, Reading]] = []
        self.said: list[bytes] = []
        self.now = 0.0
        self.drop = lambda piece: False

    def run(self, seconds: float) -> "Pair":
        end = self.now + seconds
        while self.now < end:
            self.now += STEP_S
            if (due := self.session.deadline) is not None and due <= self.now:
                self.session.tick(self.now)
            while said := self.session.take_output():
                self.said.append(said)
                self.machine.receive(said, self.now)
            self.machine.tick(self.now)
            for piece in self.machine.take_output():
                if not self.drop(piece):
                    self.session.receive(piece, self.now)
            self.readings += [(self.now, reading) for reading in self.session.take_readings()]
        return self

    @property
    def results(self) -> list[tuple[float, Result]]:
        return [(at, result) for at, reading in self.readings for result in reading.results]

    @property
    def faults(self) -> list[str]:
        return [reading.fault for _, reading in self.readings if reading.fault]

    def having(self, key: str, since: float = 0.0) -> list[Result]:
        return [
            result for at, result in self.results if at > since and any(item.key == key for item in result.observations)
        ]

    def waves(self, since: float = 0.0) -> list[Result]:
        return [result for at, result in self.results if at > since and result.waves]


def value(result: Result, key: str) -> object:
    return next(item.absent if item.absent else item.value for item in result.observations if item.key == key)


BOTH = pytest.mark.parametrize("lan", [False, True], ids=["serial", "lan"])
TWO_WAVES = ("ecg-ii", "pleth")


@BOTH
@pytest.mark.parametrize("transport", ["auto", "known"])
def test_values_waves_and_identity_of_a_minute(lan: bool, transport: str) -> None:
    how = "auto" if transport == "auto" else "lan" if lan else "serial"
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES, transport=how), lan=lan).run(60)  # type: ignore[arg-type]

    assert pair.faults == []
    assert 56 <= len(pair.having("heart_rate")) <= 60
    first, last = pair.having("heart_rate")[0], pair.having("heart_rate")[-1]
    assert value(first, "heart_rate") == Decimal(str(round(rows()[0]["hr"])))
    assert (last.device.model, last.device.serial, last.device.software) == ("866062", "DE00000001", "L.01.18")
    assert last.patient_id == "ZZ-0007"
    assert last.device_clock is not None
    assert {wave.key for wave in pair.waves()[-1].waves} == {"ecg_wave_ii", "pleth_wave"}
    assert 220 <= len(pair.waves()) <= 235
    assert not any(wave.gap for result in pair.waves() for wave in result.waves)
    assert pair.having("ecg_rhythm")
    assert not any(item.code.startswith("NO WAVE") for item in last.conditions)


def test_relative_time_wraps_without_a_gap() -> None:
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES), start_ticks=0x1_0000_0000 - 10 * 8000).run(30)

    clocks = [result.device_clock for result in pair.having("heart_rate")[1:]]
    assert all(0.9 < (later - former).total_seconds() < 1.2 for former, later in pairwise(clocks) if former and later)
    assert not any(wave.gap for result in pair.waves() for wave in result.waves)


def test_an_association_lasts_and_polls_are_renewed_in_time() -> None:
    pair = Pair(PhilipsIntellivue(), waves=()).run(700)

    times = [at for at, result in pair.results if any(item.key == "heart_rate" for item in result.observations)]
    assert pair.faults == []
    assert max(later - former for former, later in pairwise(times)) < 2.5
    assert sum(b"\x31\x80\xa0\x80" in said for said in pair.said) == 1  # one Association Request


@BOTH
def test_a_monitor_that_was_restarted_is_read_again_without_a_person(lan: bool) -> None:
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES), "restart@20+10", lan=lan).run(60)

    back = min(at for at, result in pair.results if at > 25 and result.observations)
    assert back < 30 + 5
    assert pair.waves(since=40)


def test_a_silence_ends_the_association_and_it_is_made_again() -> None:
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES), "silence@20+15").run(60)

    assert pair.having("heart_rate", since=45)
    assert pair.waves(since=45)


def test_a_fresh_session_takes_over_what_an_earlier_one_left() -> None:
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES)).run(10)

    pair.session = PhilipsIntellivue(waves=TWO_WAVES).open()
    pair.run(15)

    assert pair.having("heart_rate", since=12)
    assert pair.waves(since=15)


@pytest.mark.parametrize(
    ("fault", "told"), [("noise", "bytes between frames"), ("cut", "without its end"), ("checksum", "FCS is wrong")]
)
def test_damage_costs_the_frame_it_hits_and_is_told(fault: str, told: str) -> None:
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES), f"{fault}@12").run(40)

    assert len(pair.having("heart_rate")) >= 36
    assert len(pair.faults) <= 1
    assert fault == "noise" or told in pair.faults[0]
    assert sum(wave.gap for result in pair.waves() for wave in result.waves) in (0, 2)


def test_sensors_that_are_off_give_reasons_and_no_values() -> None:
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES), "sensor-off@10+20").run(40)

    off = pair.having("spo2", since=15)[0]
    assert value(off, "spo2") is Absent.OFF
    assert value(off, "heart_rate") is Absent.INV
    assert [item.code for item in off.conditions] == ["EVT_SENSOR_DISCONN PULS_OXIM_SAT_O2"]
    block = next(result for at, result in pair.results if at > 15 and result.waves)
    assert {sample for wave in block.waves for sample in wave.samples} == {None}
    assert isinstance(value(pair.having("spo2")[-1], "spo2"), Decimal)


def test_an_alarm_begins_stands_and_ends() -> None:
    pair = Pair(PhilipsIntellivue(), "alarm@10+10").run(30)

    told = Counter(item.phase for _, result in pair.results for item in result.conditions)
    assert told[Phase.START] == told[Phase.END] == 1
    assert 8 <= told[Phase.PRESENT] <= 11
    assert all(
        "ALACT" in item.flags
        for at, result in pair.results
        if 12 < at < 19
        for item in result.observations
        if item.key == "heart_rate"
    )


@BOTH
@pytest.mark.parametrize("pause_s", [0.5, 8.0])
def test_another_monitor_on_the_line_inherits_neither_patient_nor_alarms_nor_identity(
    lan: bool, pause_s: float
) -> None:
    pair = Pair(PhilipsIntellivue(), "alarm@5+100", lan=lan).run(20)
    pair.drop = lambda piece: True
    pair.run(pause_s)
    pair.drop = lambda piece: False
    plugged = pair.now

    pair.machine = Pair(PhilipsIntellivue(), lan=lan, patient_id="ZZ-0008").machine
    pair.run(30)

    heard = [result for at, result in pair.results if at > plugged]
    told = [item.phase for result in heard for item in result.conditions if item.priority]
    assert {result.patient_id for result in heard} == {None, "ZZ-0008"}
    assert told == [Phase.END]
    assert heard[0].device.serial is None


@BOTH
def test_demo_mode_publishes_nothing_and_says_so(lan: bool) -> None:
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES), lan=lan, demo=True).run(30)

    assert pair.readings == []
    assert pair.session.notice == "demo mode"


def test_demo_mode_in_the_middle_is_noticed_and_ends() -> None:
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES), "demo@10+10", "alarm@12+5").run(15)
    told = pair.session.notice
    during = [result for at, result in pair.results if at > 11.1]

    pair.run(25)

    assert (told, during) == ("demo mode", [])
    assert pair.session.notice is None
    assert pair.having("heart_rate", since=25)
    assert pair.waves(since=25)


def test_a_clock_that_jumps_is_read_again() -> None:
    pair = Pair(PhilipsIntellivue(), "clock@20+3600").run(200)

    clocks = [result.device_clock for result in pair.having("heart_rate") if result.device_clock]
    assert (clocks[-1] - clocks[0]).total_seconds() > 3600


def test_a_lost_datagram_leaves_a_gap_and_a_repeated_or_late_one_adds_nothing() -> None:
    pair = Pair(PhilipsIntellivue(waves=TWO_WAVES), lan=True).run(10)
    waves_seen = [0]

    def lose_one(piece: bytes) -> bool:
        waves_seen[0] += b"\x09\x6e" in piece
        return b"\x09\x6e" in piece and waves_seen[0] == 1

    pair.drop = lose_one
    pair.run(5)
    last = pair.readings[-1][1].raw
    before = len(pair.waves())
    pair.session.receive(last, pair.now)

    assert pair.session.take_readings() == []
    assert sum(wave.gap for result in pair.waves() for wave in result.waves) == 2
    assert before == len(pair.waves())


def test_results_that_are_larger_than_the_mtu_are_one_reading() -> None:
    pair = Pair(PhilipsIntellivue(waves=("ecg-ii", "i", "v", "pleth", "abp")), mtu=500).run(20)

    assert pair.faults == []
    assert len(pair.waves()[-1].waves) == 5
    assert not any(item.code == "INCOMPLETE" for _, result in pair.results for item in result.conditions)


@pytest.mark.parametrize("link", [1, 3], ids=["first", "last"])
def test_a_lost_part_of_a_linked_result_is_told(link: int) -> None:
    pair = Pair(PhilipsIntellivue(), mtu=200, lan=True).run(10)  # smaller than any real one
    pair.drop = lambda piece: piece[:6] == b"\xe1\0\0\2\0\5" and piece[8] == link
    pair.run(5)

    key = "heart_rate" if link == 3 else "resp_rate"
    codes = [item.code for result in pair.having(key, since=11) for item in result.conditions]
    assert codes
    assert set(codes) == {"INCOMPLETE"}


def test_a_wave_that_does_not_come_is_named() -> None:
    pair = Pair(PhilipsIntellivue(waves=("ecg-ii", "co2"))).run(30)

    assert [item.code for item in pair.having("heart_rate")[-1].conditions] == ["NO WAVE AWAY_CO2"]


def test_nothing_is_ever_said_where_nothing_may_be_sent() -> None:
    pair = Pair(PhilipsIntellivue(transmit=False)).run(120)

    assert pair.said == []
    assert pair.session.deadline is None


def test_without_waves_the_monitors_list_is_left_alone() -> None:
    pair = Pair(PhilipsIntellivue()).run(20)

    assert not any(b"\xf2\x3a" in said for said in pair.said)
    assert pair.waves() == []


def test_requests_are_paced() -> None:
    session = PhilipsIntellivue(waves=TWO_WAVES, transport="serial").open()
    machine = IntellivueMachine(Settings())
    times: list[float] = []
    for step in range(400):
        now = step * 0.01
        session.tick(now)
        said = session.take_output()
        times += [now] * said.count(b"\xc1")
        machine.receive(said, now)
        machine.tick(now)
        for piece in machine.take_output():
            session.receive(piece, now)

    assert len(times) > 10
    assert all(times[at + 4] - times[at] >= 0.25 for at in range(len(times) - 4))


def test_settings_that_a_monitor_would_drop_in_silence_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown wave 'ecg-zz'"):
        PhilipsIntellivue(waves=("ecg-zz",))
    with pytest.raises(ValueError, match="3 single ECG"):
        PhilipsIntellivue(waves=("ecg-i", "ecg-ii", "ecg-iii", "ecg-v1"))
    with pytest.raises(ValueError, match="3 single ECG"):
        PhilipsIntellivue(waves=("ecg", "ecg-ii"))
    with pytest.raises(ValueError, match="8 waves"):
        PhilipsIntellivue(waves=("pleth", "abp", "art", "pap", "cvp", "icp", "resp", "co2", "rap"))
    assert PhilipsIntellivue(waves=("II", "NOM_PLETH", "0x4A14", "ecg_wave_v1")).open()


@pytest.mark.parametrize("lan", [False, True], ids=["serial", "lan"])
def test_a_client_that_goes_releases_the_association(lan: bool) -> None:
    pair = Pair(PhilipsIntellivue(), lan=lan).run(5.0)

    pair.session.part()  # type: ignore[attr-defined]
    word = pair.session.take_output()

    assert word in (RELEASE_REQUEST_DATA, framed(RELEASE_REQUEST_DATA))
    assert pair.session.take_output() == b""
    pair.session.tick(pair.now + 60.0)
    assert pair.session.take_output() == b""


def test_a_client_without_association_says_nothing_when_it_goes() -> None:
    session = PhilipsIntellivue().open()

    session.part()  # type: ignore[attr-defined]

    assert session.take_output() == b""
