"""The golden frames of the protocol sheet, byte for byte in both directions.

What a client says is made by the driver. What a monitor says is made by the simulator: from values, and where a capture
is rich (waves, MDS, announcements) from the captured attributes, so that its envelope and lists are what is compared.
"""

import struct
from decimal import Decimal
from functools import cache
from pathlib import Path

import pytest

from drivers.philips_intellivue import PhilipsIntellivue, read_announcement, requests
from drivers.philips_intellivue.framing import Deframer, framed
from drivers.philips_intellivue.requests import Extension
from gateway.model import Absent, Phase, Priority, Result
from simulators import philips_intellivue_codec as codec
from simulators.philips_intellivue_codec import Reply, Thing, attribute, listing, number, observed, text

GOLDEN = Path(__file__).parents[3] / "../shared/protocols/captures/philips/golden-frames.txt"
TEN_MINUTES, FIFTEEN_SECONDS = 4_800_000, 120_000
SAID = {
    "association-request": requests.association_request(Extension.NUMERICS_1_S | Extension.WAVES, 700),
    "mds-create-result-for-the-event-above": requests.mds_created(1, 0x001DC200),
    "mds-create-result-mx700": requests.mds_created(1, 0x00484700),
    "single-poll-numerics-all-groups": requests.poll(0, 1, 0x06, 0),
    "single-poll-numerics-values-only": requests.poll(7, 1, 0x06, 0x0803),
    "ext-poll-waves": requests.poll_extended(3, 3, 0x09, 0x0803, FIFTEEN_SECONDS),
    "ext-poll-numerics": requests.poll_extended(4, 3, 0x06, 0x0803, FIFTEEN_SECONDS),
    "ext-poll-numerics-10min-all-groups": requests.poll_extended(3, 2, 0x06, 0, TEN_MINUTES),
    "ext-poll-waves-10min-all-groups": requests.poll_extended(4, 3, 0x09, 0, TEN_MINUTES),
    "ext-poll-alerts-10min": requests.poll_extended(5, 4, 0x36, 0x0801, TEN_MINUTES),
    "get-wave-priority-list": requests.get_wave_list(0),
    "set-wave-priority-list": requests.set_wave_list(2, (0x0102, 0x4BB4)),
    "keep-alive-poll": requests.poll(8, 7, 0x36, 0x0811),
    "patient-demographics-poll": requests.poll(6, 5, 0x2A, 0x0807),
    "alert-poll": requests.poll(9, 6, 0x36, 0x0801),
    "release-request": requests.RELEASE_REQUEST_DATA,
    "association-abort": requests.ABORT_DATA,
}


@cache
def golden() -> dict[str, tuple[str, bytes]]:
    rows = GOLDEN.read_text("utf-8").splitlines()
    parts = [[part.strip() for part in row.split(" | ")] for row in rows if row and not row.startswith("#")]
    return {name: (direction, bytes.fromhex(digits)) for name, direction, _, digits in parts}


def content(name: str) -> bytes:
    (piece,) = Deframer().feed(golden()[name][1])
    assert piece.content is not None
    return piece.content


def told(name: str) -> Result:
    session = PhilipsIntellivue(transmit=False).open()
    session.receive(golden()[name][1], 0.0)
    (reading,) = session.take_readings()
    assert reading.fault is None
    return reading.results[0]


def test_every_golden_frame_is_sound() -> None:
    frames = {name: data for name, (_, data) in golden().items() if not name.startswith("connect-indication")}

    assert len(golden()) == 43
    assert all(framed(content(name)) == data == codec.frame(content(name)) for name, data in frames.items())


def test_every_frame_of_a_client_is_among_those_that_are_made() -> None:
    assert {name for name, (way, _) in golden().items() if way != "monitor>client" and "indication" not in name} == set(
        SAID
    )


@pytest.mark.parametrize("name", SAID)
def test_what_a_client_says_is_made_byte_for_byte(name: str) -> None:
    assert framed(SAID[name]) == golden()[name][1]


def numerics_reply() -> bytes:
    pressure = listing(
        observed(0x4A15, 0, 0x0F20, 118.5, 1), observed(0x4A16, 0, 0x0F20, 70), observed(0x4A17, 2, 0x0F20, 88)
    )
    things = [
        Thing(1, 0x82CF, (attribute(0x0950, observed(0x4182, 0, 0x0AA0, 72)),)),
        Thing(1, 0x8352, (attribute(0x094B, pressure),)),
        Thing(1, 0x841C, (attribute(0x0950, observed(0x4BB8, 0x8000, 0x0220, None)),)),
        Thing(1, 0x82D6),
    ]
    return one(Reply(7, 1, None, 0x001DE000, 0x06, 0x0803), things, 1)


def demographics_reply() -> bytes:
    told = (
        attribute(0x0957, b"\0\2"),
        attribute(0x0962, b"\0\1"),
        attribute(0x0961, b"\0\2"),
        attribute(0x095A, text("12345")),
        attribute(0x095D, text("Ann")),
        attribute(0x095C, text("Test")),
        attribute(0x0958, bytes.fromhex("1980051700000000")),
        attribute(0x09DC, number(170.0, 1) + b"\x05\x11"),
        attribute(0x09DF, number(65.5, 1) + b"\x06\xc3"),
        attribute(0x0A1E, b"\0\0"),
    )
    return one(Reply(6, 5, None, 0x001DF000, 0x2A, 0x0807), [Thing(0, 1, told)], 0)


def alert_reply() -> bytes:
    heart = codec.alarm(0x4182, 40, 0x0200, 8, 0x82CF, "**HR    125>120", instance=1, identity=4, flags=0x6000)
    sensor = codec.alarm(0x4BB8, 308, 1, 8, 0x841C, "SpO2 NO SENSOR", instance=2, identity=8, flags=0x4000)
    lists = (
        attribute(0x0916, struct.pack(">HHHHH", 0, 17, 0x0200, 1, 0x0200)),
        attribute(0x0902, listing(heart)),
        attribute(0x0904, listing(sensor)),
    )
    return one(Reply(9, 6, None, 0x001DF000, 0x36, 0x0801), [Thing(1, 5, lists)], 1)


def keep_alive_reply() -> bytes:
    thing = Thing(1, 5, (attribute(0x0921, b"\0\5"), attribute(0x092F, b"\0\1\0\x36")))
    return one(Reply(8, 7, None, 0x001DF000, 0x36, 0x0811), [thing], 1)


def one(reply: Reply, things: list[Thing], context: int) -> bytes:
    (message,) = reply.messages(things, 1364, (context,))
    return message


def waves_again(name: str) -> bytes:
    """Make a captured wave result again, object by object, from its captured attributes."""
    body = content(name)
    invoke, number_, sequence = struct.unpack_from(">H14xH2xH", body, 8)[0], 3, struct.unpack_from(">H", body, 26)[0]
    things, at = [], 0x3E
    while at < len(body):
        handle, _, size = struct.unpack_from(">HHH", body, at)
        things.append(Thing(1, handle, attributes_of(body[at + 6 : at + 6 + size])))
        at += 6 + size
    group, ticks = struct.unpack_from(">H", body, 0x2C)[0], struct.unpack_from(">I", body, 0x1C)[0]
    (message,) = Reply(invoke, number_, sequence, ticks, 0x09, group).messages(things, 1364)
    return message


def attributes_of(data: bytes) -> tuple[bytes, ...]:
    found, at = [], 0
    while at < len(data):
        size = struct.unpack_from(">H", data, at + 2)[0]
        found.append(attribute(struct.unpack_from(">H", data, at)[0], data[at + 4 : at + 4 + size]))
        at += 4 + size
    return tuple(found)


MADE = {
    "association-accept": lambda: codec.accept(
        period_ticks=4000, mtu_receive=996, mtu_transmit=996, extensions=0x8E000000
    ),
    "association-refuse": lambda: codec.REFUSE,
    "association-abort": lambda: codec.ABORT,
    "release-response": lambda: codec.RELEASED,
    "single-poll-reply-numerics": numerics_reply,
    "patient-demographics-reply": demographics_reply,
    "alert-poll-reply": alert_reply,
    "keep-alive-reply": keep_alive_reply,
    "get-wave-priority-list-result-empty": lambda: codec.priority_list(0, 3, ()),
    "set-wave-priority-list-result": lambda: codec.priority_list(2, 5, (0x20102, 0x24BB4)),
    "set-wave-priority-list-result-six-entries": lambda: codec.priority_list(
        0, 5, (0x20100, 0x24BB4, 0x24A14, 0x24A10, 0x24A44, 0x250AC)
    ),
    "remote-error-invalid-argument": lambda: codec.refused_action(7, 0x0C16),
    "linked-result-terminator": lambda: Reply(1, 1, 0, 0x001DD400, 0x06, 0).messages((), 1364, ())[0],
    "ext-poll-waves-acceptance-seq0": lambda: Reply(3, 3, 0, 0xFF4BA700, 0x09, 0x0803).messages((), 1364)[0],
    "ext-poll-waves-result-seq1": lambda: waves_again("ext-poll-waves-result-seq1"),
    "ext-poll-waves-compound-ecg-result": lambda: waves_again("ext-poll-waves-compound-ecg-result"),
    "ext-poll-waves-context-result": lambda: waves_again("ext-poll-waves-context-result"),
    "mds-create-event": lambda: codec.mds_create(1, 0x001DC200, attributes_of(content("mds-create-event")[0x26:])),
    "mds-create-event-mx700": lambda: codec.mds_create(
        1, 0xFF4B7D00, attributes_of(content("mds-create-event-mx700")[0x26:])
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_what_a_monitor_says_is_made_byte_for_byte_by_the_simulator(name: str) -> None:
    assert codec.frame(MADE[name]()).hex() == golden()[name][1].hex()


@pytest.mark.parametrize("name", ["connect-indication-mx450", "connect-indication-mp70"])
def test_announcements_are_made_byte_for_byte_by_the_simulator(name: str) -> None:
    data = golden()[name][1]
    listed = struct.unpack_from(">H", data, 0x1E)[0]
    ticks = struct.unpack_from(">I", data, 0x14)[0]

    assert codec.connect_indication(ticks, attributes_of(data[0x20 : 0x20 + listed])).hex() == data.hex()
    assert read_announcement(data).ticks == ticks


def test_the_numerics_reply_is_read() -> None:
    seen = {item.key: item for item in told("single-poll-reply-numerics").observations}

    assert {key: item.value for key, item in seen.items()} == {
        "heart_rate": Decimal(72),
        "abp_sys": Decimal("118.5"),
        "abp_dia": Decimal(70),
        "abp_mean": Decimal(88),
        "spo2": None,
    }
    assert seen["spo2"].absent is Absent.INV
    assert seen["abp_mean"].flags == ("ALACT",)


def test_the_alert_reply_is_read() -> None:
    high, sensor = told("alert-poll-reply").conditions

    assert (high.code, high.text, high.technical) == ("EVT_HI ECG_CARD_BEAT_RATE", "**HR    125>120", False)
    assert (high.priority, high.phase, high.high, high.low) == (Priority.MEDIUM, Phase.START, Decimal(120), None)
    assert high.mdc == 196648
    assert (sensor.text, sensor.technical, sensor.priority) == ("SpO2 NO SENSOR", True, Priority.LOW)


def test_the_demographics_reply_is_evidence_and_names_are_not_published() -> None:
    result = told("patient-demographics-reply")

    seen = {item.key: item.value for item in result.observations}
    assert result.patient_id == "12345"
    assert (seen["height"], seen["weight"]) == (Decimal("170.0"), Decimal("65.5"))
    assert not {"Ann", "Test"} & {str(value) for value in seen.values()}


def test_an_accept_and_an_event_are_read() -> None:
    accepted = requests.association_accepted(content("association-accept"))

    assert (accepted.poll_period_s, accepted.mtu_receive, accepted.mtu_transmit) == (0.5, 996, 996)
    assert accepted.extensions == 0x8E000000
    assert accepted.timeout_s == 10.0


def test_linked_results_are_one_reading() -> None:
    session = PhilipsIntellivue(transmit=False).open()
    parts = [f"linked-result-{part}" for part in ("first", "middle", "last", "terminator")]
    for name in ("mds-create-event", *parts):
        session.receive(golden()[name][1], 0.0)

    assert session.take_readings() == []  # the first result of that poll had context and no values
    assert session.buffered_bytes == 0


@pytest.mark.parametrize("name", ["remote-error-invalid-argument", "remote-error-get-list"])
def test_an_error_is_told(name: str) -> None:
    session = PhilipsIntellivue(transmit=False).open()

    session.receive(golden()[name][1], 0.0)

    (reading,) = session.take_readings()
    assert "the monitor refused a request: error" in (reading.fault or "")
