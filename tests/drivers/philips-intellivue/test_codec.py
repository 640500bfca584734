"""Pieces of the codec: numbers, times, frames, and everything that may come instead."""

from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.philips_intellivue import PhilipsIntellivue, read_announcement
from drivers.philips_intellivue.framing import FRAME_BYTES_MAX, Deframer, fcs, framed
from drivers.philips_intellivue.values import MonitorClock, Special, absolute_time, apart, float_of, text_of
from gateway.errors import ContentError
from gateway.model import Absent
from simulators import philips_intellivue_codec as codec
from simulators.philips_intellivue_codec import Reply, Thing, attribute, observed

moderate = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize(
    ("digits", "value"),
    [
        ("FD007D00", "32.000"),
        ("FF000140", "32.0"),
        ("01000140", "3200"),
        ("02000020", "3200"),
        ("0000003C", "60"),
        ("FF0003B6", "95.0"),
        ("FFFFFFF1", "-1.5"),
        ("FEFFFFF0", "-0.16"),
    ],
)
def test_a_float_keeps_the_precision_shown(digits: str, value: str) -> None:
    found = float_of(int(digits, 16))

    assert isinstance(found, Decimal)
    assert str(found) == value


@pytest.mark.parametrize(
    ("digits", "special"),
    [
        ("007FFFFF", Special.NAN),
        ("FF7FFFFF", Special.NAN),
        ("00800000", Special.NRES),
        ("007FFFFE", Special.PLUS_INFINITY),
        ("00800002", Special.MINUS_INFINITY),
    ],
)
def test_special_floats_are_told_by_the_mantissa_alone(digits: str, special: Special) -> None:
    assert float_of(int(digits, 16)) is special


@moderate
@given(mantissa=st.integers(-0x7FFFFD, 0x7FFFFD), decimals=st.integers(0, 6))
def test_floats_that_the_simulator_writes_are_read(mantissa: int, decimals: int) -> None:
    value = Decimal(mantissa).scaleb(-decimals)

    assert float_of(int.from_bytes(codec.number(float(value), decimals), "big")) == value


@given(word=st.integers(0, 0xFFFFFFFF))
def test_every_float_is_a_number_or_special(word: int) -> None:
    assert isinstance(float_of(word), Decimal | Special)


def test_the_fcs_is_crc_16_x25() -> None:
    assert fcs(b"123456789") == 0x906E == codec.checksum(b"123456789")
    assert fcs(bytes.fromhex("3a71")).to_bytes(2, "little").hex() == "9b26"
    assert fcs(bytes.fromhex("3a91")).to_bytes(2, "little").hex() == "95c1"


@moderate
@given(content=st.binary(min_size=1, max_size=1400))
def test_two_codecs_that_share_nothing_make_the_same_frame(content: bytes) -> None:
    frame = framed(content)

    assert frame == codec.frame(content)
    assert codec.Receiver().feed(frame) == [content]
    assert [piece.content for piece in Deframer().feed(frame)] == [content]


@moderate
@given(noise=st.binary(max_size=300), content=st.binary(min_size=1, max_size=60), at=st.integers(0, 400))
def test_after_any_noise_the_next_whole_frame_is_read(noise: bytes, content: bytes, at: int) -> None:
    deframer = Deframer()
    data = noise + framed(content)

    found = [*deframer.feed(data[:at]), *deframer.feed(data[at:])]

    assert found[-1].content == content
    assert b"".join(piece.raw for piece in found) == data


@moderate
@given(content=st.binary(min_size=1, max_size=60), place=st.integers(0, 1000), change=st.integers(1, 255))
def test_a_wrong_fcs_never_yields_a_frame(content: bytes, place: int, change: int) -> None:
    sent = bytearray(framed(content))
    sent[place % len(sent)] ^= change

    assert [piece.content for piece in Deframer().feed(bytes(sent)) if piece.content is not None] == []


def test_an_aborted_frame_is_forgotten_and_one_without_end_is_told() -> None:
    whole = framed(b"abc")

    aborted, sound = Deframer().feed(b"\xc0\x11\x01\x7d\xc1" + whole)
    endless, again = Deframer().feed(b"\xc0\x11\x01" + whole)

    assert (aborted.content, aborted.fault, aborted.noise) == (None, "", False)
    assert sound.content == again.content == b"abc"
    assert endless.fault == "a frame without its end"


def test_a_frame_that_never_ends_is_bounded() -> None:
    deframer = Deframer()
    found = list(deframer.feed(b"\xc0" + bytes(3 * FRAME_BYTES_MAX)))

    assert len(found[0].raw) == FRAME_BYTES_MAX
    assert deframer.buffered_bytes == 0


def test_relative_time_wraps_and_absolute_time_may_be_unknown() -> None:
    clock = MonitorClock()
    at = absolute_time(bytes.fromhex("2021042211472600"))
    clock.set(at, 0xFFFFFF00)

    assert at == datetime(2021, 4, 22, 11, 47, 26)
    assert clock.at(0x1F40 - 0x100) == datetime(2021, 4, 22, 11, 47, 27)
    assert apart(0xFFFFFFFF, 1) == 2
    assert apart(1, 0xFFFFFFFF) == -2
    assert absolute_time(b"\xff" * 8) is None
    assert absolute_time(bytes.fromhex("2021134211472600")) is None


def test_strings_spell_private_characters_out() -> None:
    assert text_of(codec.text("cm\ue401O \ue40d")) == "cmH2O *"
    with pytest.raises(ContentError):
        text_of(b"\0\x20\0A")


def message(state: int, word: bytes, unit: int = 0x0220) -> bytes:
    value = codec.struct.pack(">HHH", 0x4BB8, state, unit) + word
    (made,) = Reply(1, 1, 1, 8000, 0x06, 0x0803).messages([Thing(1, 5, (attribute(0x0950, value),))], 1364)
    return codec.frame(made)


@pytest.mark.parametrize(
    ("state", "word", "absent", "flags"),
    [
        (0x0000, "0000005f", None, ()),
        (0x4000, "0000005f", None, ("QUES",)),
        (0x0082, "0000005f", None, ("VAL", "ALACT")),
        (0x0061, "0000005f", None, ("EARLY", "BUSY", "ALINH")),
        (0x8000, "0000005f", Absent.INV, ()),
        (0x2000, "007fffff", Absent.NAV, ()),
        (0x2020, "007fffff", Absent.BUSY, ("BUSY",)),
        (0x1000, "0000005f", Absent.NAV, ("CAL",)),
        (0x0800, "0000005f", Absent.INV, ("TEST",)),
        (0x0000, "007fffff", Absent.NAV, ()),
        (0x0000, "00800000", Absent.INV, ()),
        (0x0000, "007ffffe", Absent.INV, (">",)),
        (0x0000, "00800002", Absent.INV, ("<",)),
        (0x0000, "000000c8", None, ("QUES",)),
    ],
)
def test_measurement_states_and_special_values(state: int, word: str, absent: Absent | None, flags: object) -> None:
    session = PhilipsIntellivue(transmit=False).open()
    session.receive(message(state, bytes.fromhex(word)), 0.0)

    (seen,) = session.take_readings()[0].results[0].observations
    assert (seen.absent, seen.flags) == (absent, flags)


def test_a_unit_that_is_not_the_tables_own_is_kept() -> None:
    value = codec.observed(0x4A15, 0, 0x0F03, 15.8, 1)
    (made,) = Reply(1, 1, 1, 8000, 0x06, 0x0803).messages([Thing(1, 5, (attribute(0x0950, value),))], 1364)
    session = PhilipsIntellivue(transmit=False).open()
    session.receive(codec.frame(made), 0.0)

    (seen,) = session.take_readings()[0].results[0].observations
    assert (seen.key, seen.value, seen.unit, seen.flags) == ("abp_sys", Decimal("15.8"), "kPa", ())


def test_two_values_of_one_kind_stand_in_channels_of_their_own() -> None:
    things = [Thing(1, at, (attribute(0x0950, observed(0x4B48, 0, 0x17A0, 36.5, 1)),)) for at in (5, 6)]
    (made,) = Reply(1, 1, 1, 8000, 0x06, 0x0803).messages(things, 1364)
    session = PhilipsIntellivue(transmit=False).open()
    session.receive(codec.frame(made), 0.0)

    seen = session.take_readings()[0].results[0].observations
    assert [item.sub for item in seen] == ["1.9.1.19272", "1.9.2.19272"]


def test_enumerations_with_and_without_a_number_are_read() -> None:
    plain = codec.struct.pack(">HHHHH", 0xD007, 0, 1, 2, 0xD012)
    numbered = codec.struct.pack(">HHHHH", 0xD006, 0, 4, 8, 0xD012) + codec.number(3) + b"\x02\x00"
    things = [Thing(1, 5, (attribute(0x099E, plain),)), Thing(1, 6, (attribute(0x099E, numbered),))]
    (made,) = Reply(1, 1, 1, 8000, 0x05, 0x0803).messages(things, 1364)
    session = PhilipsIntellivue(transmit=False).open()
    session.receive(codec.frame(made), 0.0)

    seen = session.take_readings()[0].results[0].observations
    assert [(item.key, str(item.value)) for item in seen] == [
        ("ecg_rhythm", "D012"),
        ("ecg_ectopic_status", "D012"),
        ("x_philips_ecg_ectopic_status_value", "3"),
    ]


@moderate
@given(
    body=st.binary(max_size=200),
    polled=st.sampled_from([5, 6, 9, 0x21, 0x2A, 0x36]),
    identity=st.sampled_from(
        [0x0950, 0x094B, 0x096E, 0x0967, 0x096D, 0x096F, 0x0A16, 0x099E, 0x0902, 0x0904, 0x095A, 0x0928, 0x092D, 0x0984]
    ),
)
def test_sound_frames_with_any_content_raise_nothing(body: bytes, polled: int, identity: int) -> None:
    (made,) = Reply(1, 1, 1, 8000, polled, 0).messages([Thing(1, 5, (attribute(identity, body),))], 1364)
    session = PhilipsIntellivue(transmit=False).open()

    session.receive(codec.frame(made), 0.0)
    session.tick(5.0)

    assert not any("driver failed" in (reading.fault or "") for reading in session.take_readings())


@moderate
@given(body=st.binary(max_size=200), kind=st.integers(0, 6), command=st.integers(0, 8))
def test_data_messages_of_any_kind_raise_nothing(body: bytes, kind: int, command: int) -> None:
    session = PhilipsIntellivue().open()

    session.receive(codec.frame(codec.data(kind, 1, command, body)), 0.0)
    session.receive(codec.frame(body or b"\0"), 0.0)
    session.tick(5.0)

    assert not any("driver failed" in (reading.fault or "") for reading in session.take_readings())


@moderate
@given(datagrams=st.lists(st.binary(max_size=80), max_size=6))
def test_datagrams_of_any_bytes_raise_nothing(datagrams: list[bytes]) -> None:
    session = PhilipsIntellivue(transport="lan").open()
    for number, datagram in enumerate([*datagrams, b"\0\0\1\0" + b"".join(datagrams)]):
        session.receive(datagram, float(number))
        session.take_output()
        with pytest.raises(ContentError):
            read_announcement(datagram)

    assert not any("driver failed" in (reading.fault or "") for reading in session.take_readings())
