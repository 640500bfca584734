from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.bis.frames import FRAME_BYTES_MAX, Decoder, Frame, MessageId, Noise, PacketType, encode
from simulators.bis import frame

LAW = settings(max_examples=40, deadline=None)
GOLDEN = {  # requests of the public program; the stops corrected to the length rule
    "BA AB 00 00 0D 00 01 00 04 00 00 00 73 00 00 00 00 00 01 00 00 86 00": encode(MessageId.START_PROCESSED, b"\0"),
    "BA AB 00 00 0D 00 01 00 04 00 00 00 73 00 00 00 00 00 01 00 01 87 00": encode(MessageId.START_PROCESSED, b"\1"),
    "BA AB 00 00 0E 00 01 00 04 00 00 00 6F 00 00 00 00 00 02 00 80 00 04 01": encode(
        MessageId.START_RAW_EEG, b"\x80\0"
    ),
    "BA AB 00 00 0C 00 01 00 04 00 00 00 74 00 00 00 00 00 00 00 85 00": encode(MessageId.STOP_PROCESSED),
    "BA AB 00 00 0C 00 01 00 04 00 00 00 70 00 00 00 00 00 00 00 81 00": encode(MessageId.STOP_RAW_EEG),
}


def frames_of(*pieces: bytes) -> list[Frame]:
    decoder = Decoder()
    found = [one for piece in pieces for one in decoder.receive(piece)]
    return [one for one in [*found, *decoder.give_up()] if isinstance(one, Frame)]


def test_requests_are_those_of_the_public_program() -> None:
    assert [bytes.fromhex(golden) for golden in GOLDEN] == list(GOLDEN.values())


@given(messages=st.lists(st.binary(max_size=60), min_size=1, max_size=4), cuts=st.lists(st.integers(0, 400)))
@LAW
def test_frames_are_found_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(frame(0x34, message, sequence=number) for number, message in enumerate(messages))
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})

    found = frames_of(*(data[start:end] for start, end in zip([0, *ends], ends, strict=False)))

    assert [(one.message, one.sequence) for one in found] == [(message, n) for n, message in enumerate(messages)]


@given(noise=st.binary(max_size=100), message=st.binary(max_size=40))
@LAW
def test_after_noise_the_next_whole_frame_is_read(noise: bytes, message: bytes) -> None:
    whole = frame(0x34, message)

    assert whole in [one.raw for one in frames_of(noise + b"\xba\xab\x00\x00\x50\x00\x01\x00" + whole)]


@given(message=st.binary(max_size=60), place=st.integers(2, 90), change=st.integers(1, 255))
@LAW
def test_a_changed_byte_gives_no_value(message: bytes, place: int, change: int) -> None:
    whole = bytearray(frame(0x34, message))
    whole[2 + place % (len(whole) - 2)] ^= change

    assert not [one for one in frames_of(bytes(whole)) if one.raw == frame(0x34, message)]
    assert all(sum(one.raw[2:-2]) & 0xFFFF == int.from_bytes(one.raw[-2:], "little") for one in frames_of(bytes(whole)))


@given(data=st.binary(max_size=4000))
@LAW
def test_memory_is_bounded_and_no_byte_is_lost(data: bytes) -> None:
    decoder, kept = Decoder(), b""

    for start in range(0, len(data), 500):
        for one in decoder.receive(data[start : start + 500]):
            kept += one.raw if isinstance(one, Frame) else one.data
        assert decoder.buffered <= FRAME_BYTES_MAX
    for one in decoder.give_up():
        kept += one.raw if isinstance(one, Frame) else one.data

    assert kept == data


def test_acknowledgements_have_no_inner_part() -> None:
    (nak,) = frames_of(bytes.fromhex("baab 0700 0000 0300 0a00"))

    assert (nak.type, nak.message_id, nak.message, nak.sequence) == (PacketType.NAK, None, b"", 7)


def test_what_is_no_frame_is_noise() -> None:
    assert Decoder().receive(b"\x00\xff\xba") == [Noise(b"\x00\xff")]
