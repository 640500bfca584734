import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.medibus.frames import (
    Broken,
    Command,
    Control,
    Curve,
    Decoder,
    Event,
    Response,
    Stray,
    encode_command,
    encode_response,
)
from gateway.errors import FrameError
from simulators.medibus_codec import ESC, SOH, frame

LAW = settings(max_examples=40, deadline=None)
SLOW = st.binary(max_size=40).map(lambda data: bytes(byte & 0x7F for byte in data if byte & 0x7F not in MARKS))
MARKS = {0x01, 0x0D, 0x11, 0x13, 0x18, 0x1B}


def events_of(*pieces: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.receive(piece)]


def joined(events: list[Event]) -> list[Event]:
    """Pieces of curves and of stray bytes that were cut are one again."""
    out: list[Event] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, Curve) and isinstance(last, Curve):
            out[-1] = Curve(last.data + event.data)
        elif isinstance(event, Stray) and isinstance(last, Stray):
            out[-1] = Stray(last.data + event.data)
        else:
            out.append(event)
    return out


@pytest.mark.parametrize(
    ("code", "digits"),
    [
        (0x24, "3F"),
        (0x25, "40"),
        (0x26, "41"),
        (0x27, "42"),
        (0x28, "43"),
        (0x29, "44"),
        (0x2A, "45"),
        (0x2B, "46"),
        (0x2C, "47"),
        (0x2D, "48"),
        (0x2E, "49"),
        (0x30, "4B"),
        (0x51, "6C"),
        (0x52, "6D"),
        (0x55, "70"),
        (0x56, "71"),
    ],
)
def test_a_command_is_what_the_sheet_computes(code: int, digits: str) -> None:
    assert encode_command(code) == bytes((0x1B, code)) + digits.encode("ascii") + b"\r"


def test_commands_and_responses_that_are_too_long_are_refused() -> None:
    with pytest.raises(FrameError):
        encode_command(0x4A, bytes(252))
    with pytest.raises(FrameError):
        encode_response(0x2A, bytes(3841))

    assert len(encode_command(0x4A, bytes(251))) == 256
    assert len(encode_response(0x2A, bytes(3840))) == 3845


def test_a_command_inside_a_response_does_not_count_for_it() -> None:
    raw = bytes.fromhex("01511B5236440D35320D")

    assert events_of(raw) == [Command(0x52, b"", b"\x1bR6D\r"), Response(0x51, b"", b"\x01Q52\r")]


@given(
    data=SLOW,
    curve=st.lists(st.binary(max_size=6).map(lambda b: bytes(x | 0x80 for x in b)), max_size=12),
    at=st.integers(0, 50),
)
@LAW
def test_curves_anywhere_leave_slow_frames_alone(data: bytes, curve: list[bytes], at: int) -> None:
    whole = encode_response(0x24, data)
    place = at % len(whole)
    mixed = whole[:place] + b"".join(curve) + whole[place:]

    slow = [event for event in events_of(mixed) if not isinstance(event, Curve)]

    assert slow == [Response(0x24, data, whole)]


@given(data=SLOW, noise=st.binary(max_size=60), cuts=st.lists(st.integers(0, 300), max_size=8))
@LAW
def test_cutting_changes_nothing_and_after_noise_the_next_frame_is_read(
    data: bytes, noise: bytes, cuts: list[int]
) -> None:
    stream = frame(SOH, 0x24, data) + noise + frame(SOH, 0x27, data) + frame(ESC, 0x30)
    ends = sorted({cut % (len(stream) + 1) for cut in cuts} | {len(stream)})
    pieces = [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    assert joined(events_of(*pieces)) == joined(events_of(stream))
    assert [Response(0x27, data, frame(SOH, 0x27, data)), Command(0x30, b"", b"\x1b04B\r")] == events_of(stream)[-2:]


@given(data=SLOW, place=st.integers(0, 100), change=st.integers(1, 127))
@LAW
def test_a_changed_byte_never_gives_that_frame(data: bytes, place: int, change: int) -> None:
    whole = bytearray(encode_response(0x24, data))
    whole[place % len(whole)] ^= change

    assert Response(0x24, data, encode_response(0x24, data)) not in events_of(bytes(whole))
    for event in events_of(bytes(whole)):
        if isinstance(event, Response | Command):
            assert frame(event.raw[0], event.raw[1], event.raw[2:-3]) == event.raw


@pytest.mark.parametrize(("start", "limit"), [(b"\x1b", 256), (b"\x01", 3845)])
def test_a_frame_without_an_end_is_given_up(start: bytes, limit: int) -> None:
    decoder = Decoder()

    events = decoder.receive(start + b"A" * 5000)

    assert isinstance(events[0], Broken) and len(events[0].raw) == limit - 1
    assert decoder.buffered == 0
    assert decoder.receive(encode_command(0x30)) == [Command(0x30, b"", b"\x1b04B\r")]


def test_what_was_open_is_lost_when_a_response_begins_and_when_it_is_aborted() -> None:
    begun = b"\x01$EB"

    assert events_of(begun, encode_response(0x30))[-1] == Response(0x30, b"", b"\x01031\r")
    assert events_of(begun, b"\x18") == [Broken("a frame without an end", begun, is_command=False), Control.ABORT]


def test_suspend_and_resume_act_inside_a_frame() -> None:
    whole = encode_response(0x30)

    assert events_of(whole[:3] + b"\x11" + whole[3:4] + b"\x13" + whole[4:]) == [
        Control.SUSPEND,
        Control.RESUME,
        Response(0x30, b"", whole),
    ]


def test_a_damaged_command_is_told_from_a_damaged_response() -> None:
    command, response = events_of(b"\x1b04C\r", b"\x01032\r")

    assert isinstance(command, Broken) and command.is_command
    assert isinstance(response, Broken) and not response.is_command
    assert response.reason == "checksum '32', expected '31'"
