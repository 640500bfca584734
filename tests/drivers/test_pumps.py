"""Infusion pumps are read only: what their sources forbid is never said, whatever the pump says; and they are read."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import simulators.alaris
import simulators.as50
import simulators.bbraun
import simulators.fresenius
from drivers.alaris import Alaris
from drivers.alaris import frame as alaris_frame
from drivers.as50 import As50
from drivers.as50 import frame as as50_frame
from drivers.bbraun import BBraun
from drivers.bbraun.driver import Rack
from drivers.bbraun.frames import read_frame, stuff, unstuff, write_frame
from drivers.bbraun.reading import Pumps
from drivers.fresenius import FORBIDDEN, NAK, Fresenius, _Pumps
from drivers.fresenius import frame as fresenius_frame
from gateway.driver import Driver, Priority
from gateway.protocols.asking import AskingSession, ForbiddenWordsError
from gateway.status import LinkState
from simulators.answering import Device, State
from tests.drivers.transcripts import all_transcripts
from tests.gateway.sources.test_link import device_link, running, simulated, until

PUMPS: dict[str, Driver] = {
    "alaris": Alaris(),
    "as50": As50(),
    "bbraun": BBraun(),
    "fresenius": Fresenius(),
    "fresenius-rack": Fresenius(rack=True),
}
# What the sheet says must never be sent, as it would stand on the wire.
DENIED = {
    "alaris": rb"REMOTE_CTRL|REMQUERY|INF_START|INF_STOP|INF_RATE|INF_BOLUS|INF_VTBI\^|REMOTE_CFG",
    "as50": rb"\[[A-Z0-9]+=|\[(?!DEV\?|STATUS\?|PRIRATE\?)",
    "bbraun": rb">(?!ADMIN:ALIVE|ADMIN:VERSION|MEM:GET)",
    "fresenius": rb"\x02\d?(MO|RZ|OF|SI|EP|AP|EN|PR|PO|PB|PF|PV|RV|PP|PS)",
}
WORDS = [
    piece
    for found in all_transcripts()
    if found.driver in ("alaris", "as50", "bbraun", "fresenius")
    for piece in found.pieces
]


def said_by(name: str, pieces: list[bytes]) -> bytes:
    session, said = PUMPS[name].open(), b""
    for number, piece in enumerate(pieces):
        now = number * 0.7
        if session.deadline is not None and session.deadline <= now:
            session.tick(now)
        said += session.take_output()
        session.receive(piece, now)
        session.take_readings()
        said += session.take_output()
    return said


@pytest.mark.parametrize("name", PUMPS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=40)), max_size=25))
def test_whatever_a_pump_says_no_word_of_ours_can_change_an_infusion(name: str, pieces: list[bytes]) -> None:
    said = said_by(name, pieces)

    plain = unstuff(said) if name == "bbraun" else said
    assert re.search(DENIED[name.partition("-")[0]], plain) is None


def test_the_gate_holds_back_every_command_that_controls() -> None:
    rack, pump = Rack(BBraun()), _Pumps(rack=False)

    denied = [write_frame("1", words, stuffing=True) for words in ("MEM:SET", "ADMIN:RESET", "MEM:GET#11;X")]
    assert all(rack.forbids(words) for words in denied)
    assert all(pump.forbids(fresenius_frame(f"{origin}{name}")) for name in FORBIDDEN for origin in ("", "1"))
    assert all(pump.forbids(b"\x06" + fresenius_frame(name)) for name in FORBIDDEN)
    for driver, frames in (
        (Alaris(), [alaris_frame(text) for text in ("REMOTE_CTRL^ENABLED^3CC1", "INF_STOP", "INF_VTBI^DEACT")]),
        (As50(), [as50_frame(text) for text in ("PRIRATE=10", "EXIT", "STOP")]),
    ):
        session = driver.open()
        assert isinstance(session, AskingSession)
        for words in frames:
            with pytest.raises(ForbiddenWordsError):
                session._say(words)
        assert session.take_output() == b""


@pytest.mark.parametrize("name", PUMPS)
def test_beside_another_host_nothing_is_said(name: str) -> None:
    driver = type(PUMPS[name])(transmit=False)  # type: ignore[call-arg]
    session = driver.open()

    for number, piece in enumerate(WORDS * 2):
        session.receive(piece, float(number))
        if session.deadline is not None:
            session.tick(float(number))

    assert session.take_output() == b""


def test_a_fresenius_session_is_closed_before_the_line_is() -> None:
    session = Fresenius(rack=True).open()
    assert isinstance(session, AskingSession)
    session.tick(0.0)
    for body in ("0C;", "0C;i02;b05"):
        session.receive(fresenius_frame(body), 0.0)
    session.take_output()

    session.part()

    assert session.take_output() == b"".join(fresenius_frame(f"{module}FC") for module in "130")
    assert session.deadline is None


@pytest.mark.parametrize("pieces", [[NAK, b"4"], [NAK + b"4"]], ids=len)
def test_the_digit_of_a_refusal_belongs_to_it_however_late_it_comes(pieces: list[bytes]) -> None:
    session = Fresenius().open()

    for piece in pieces:
        session.receive(piece, 0.0)
    session.tick(100.0)

    assert session.take_readings() == []


def test_the_published_frames_are_made() -> None:
    assert alaris_frame("INF") == b"!INF|4961\r"
    assert alaris_frame("INST_SERIALNO") == b"!INST_SERIALNO|457D\r"
    assert as50_frame("STATUS?") == bytes.fromhex("5B5354415455533F5DC34B")
    assert as50_frame("PRIRATE?") == bytes.fromhex("5B505249524154453F5D3444")
    assert fresenius_frame("1LE;d") == bytes.fromhex("02314C453B64394503")
    assert fresenius_frame("0DC") == bytes.fromhex("02304443343803")
    assert write_frame("ComSystem", "MEM:GET", stuffing=False) == b"\x0100035\x02ComSystem/1/1>MEM:GET\x0300153\x04"


@given(message=st.binary(max_size=200))
def test_stuffing_is_undone_pair_by_pair(message: bytes) -> None:
    assert unstuff(stuff(message)) == message
    assert b"D" not in stuff(message)
    assert b"d" not in stuff(message)


@given(bed=st.from_regex(r"[A-Za-z0-9/]{1,15}", fullmatch=True), text=st.text(max_size=80), stuffing=st.booleans())
def test_a_bcc_frame_is_read_as_it_was_written(bed: str, text: str, stuffing: bool) -> None:
    block = read_frame(write_frame(bed, text, stuffing=stuffing), stuffing=stuffing)

    assert block is not None
    assert (block.bed, block.information) == (bed, text)


RATES = {"alaris": "infusion_rate", "as50": "infusion_rate", "bbraun": "infusion_rate", "fresenius": "infusion_rate"}
CASES = [
    ("alaris", [], {"cycle_s": 0.5}),
    ("alaris", ["--fault", "noise", "--fault", "cut"], {"cycle_s": 0.5}),
    ("as50", ["--fault", "bad-checksum"], {"cycle_s": 0.5}),
    ("fresenius", ["--rack"], {"cycle_s": 1.0, "rack": True}),
    ("fresenius", ["--fault", "bad-checksum"], {"cycle_s": 1.0}),
    ("bbraun", ["--fault", "bad-checksum"], {"cycle_s": 0.5}),
    ("bbraun", ["--no-stuffing", "--fault", "alarm"], {"cycle_s": 0.5, "stuffing": False}),
]


@pytest.mark.parametrize(("name", "words", "options"), CASES, ids=str)
async def test_what_a_simulated_pump_told_is_what_arrived(
    name: str, words: list[str], options: dict[str, Any], tmp_path: Path
) -> None:
    journal = tmp_path / "sent.jsonl"
    words = [f"simulators.{name}", *words, "--rate", "20", "--journal", str(journal)]
    async with simulated(*words) as port:
        link, intake, status = device_link(name, port, options)
        async with running(link):
            await until(lambda: sum(kept.result is not None for kept in intake.kept) >= 3)
            await until(lambda: status.state is LinkState.UP)

    told = {float(entry["values"]["rate"]) for entry in map(json.loads, journal.read_text().splitlines())}
    if name == "fresenius":
        told = {tenths / 10 for tenths in told}
    read = [
        float(seen.value)
        for kept in intake.kept
        if kept.result is not None
        for seen in kept.result.observations
        if seen.key == RATES[name] and seen.value is not None
    ]
    assert len(read) >= 3
    assert set(read) <= told


SIMULATED: dict[str, Device] = {
    "alaris": simulators.alaris.Alaris(),
    "as50": simulators.as50.As50(),
    "bbraun": simulators.bbraun.SpaceStation(stuffing=True),
    "fresenius": simulators.fresenius.Fresenius(rack=False),
    "fresenius-rack": simulators.fresenius.Fresenius(rack=True),
}


@pytest.mark.parametrize("name", PUMPS)
def test_a_pump_that_was_switched_off_is_read_again_without_a_person(name: str) -> None:
    session, pump = PUMPS[name].open(), SIMULATED[name]
    read_at: list[float] = []
    for tenth in range(900):
        now = tenth / 10
        if tenth == 400:
            pump.start()  # it has forgotten the conversation
        if session.deadline is not None and session.deadline <= now:
            session.tick(now)
        is_off = 200 <= tenth < 400
        if (said := session.take_output()) and not is_off:
            for answer in pump.hear(said, State(rate=5.5, volume=1.0, alarm=False, off=False)):
                session.receive(answer.data, now)
        read_at += [now for reading in session.take_readings() if reading.results]

    assert any(at < 20 for at in read_at)
    assert any(at >= 40 for at in read_at)
    assert sum(at > 60 for at in read_at) >= sum(at < 20 for at in read_at)


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        ("1024", ["ALARM1_10"]),
        ("-2147482624", ["ALARM1_10", "ALARM1_31"]),
        ("2147484672", ["ALARM1_10", "ALARM1_31"]),
        ("0x400", ["ALARM1_UNREAD"]),
        ("0", []),
        ("_NV", []),
    ],
)
def test_an_alarm_field_of_a_rack_is_read_with_its_sign_or_told_as_unread(value: str, codes: list[str]) -> None:
    pumps = Pumps()
    pumps.read(f"1,50111,INRT,5.0\x1e1,50111,ALARM1,{value}")

    (result,) = pumps.take_results()

    assert [item.code for item in result.conditions] == codes
    assert all(item.priority is Priority.HIGH for item in result.conditions)
