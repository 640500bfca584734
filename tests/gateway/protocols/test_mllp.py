"""The MLLP codec: cuts, junk, ends, bounds."""

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import FrameError
from gateway.protocols.mllp import (
    HEAD_BYTES_MAX,
    CommitBlock,
    Decoder,
    Event,
    Frame,
    Junk,
    Oversize,
    Partial,
    encode_frame,
)

MESSAGE = b"MSH|^~\\&|A|B|C|D|20260101||ORU^R01|1|P|2.6\rPID|||7\r"
OTHER = MESSAGE.replace(b"|1|", b"|2|")


def decoder(frame_bytes_max: int = 1 << 20) -> Decoder:
    return Decoder(frame_bytes_max=frame_bytes_max, frame_timeout_s=30.0, end_without_cr_s=0.5)


def receive(*parts: bytes, frame_bytes_max: int = 1 << 20) -> list[Event]:
    codec = decoder(frame_bytes_max)
    return [event for part in parts for event in codec.receive(part, 0.0)]


def test_one_read_is_one_frame() -> None:
    assert receive(encode_frame(MESSAGE)) == [Frame(MESSAGE)]


def test_frames_in_one_read_come_in_order() -> None:
    assert receive(encode_frame(MESSAGE) + encode_frame(OTHER)) == [Frame(MESSAGE), Frame(OTHER)]


@pytest.mark.parametrize("junk", [b"\r\n", b"\x05", b"   ", b"hello", b"\x1c\r"])
def test_junk_before_the_start_is_counted_and_skipped(junk: bytes) -> None:
    assert receive(junk + encode_frame(MESSAGE)) == [Junk(len(junk)), Frame(MESSAGE)]
    assert receive(junk, encode_frame(MESSAGE)) == [Junk(len(junk)), Frame(MESSAGE)]


def test_a_missing_cr_is_done_without_when_the_next_frame_begins() -> None:
    assert receive(b"\x0b" + MESSAGE + b"\x1c" + encode_frame(OTHER)) == [Frame(MESSAGE), Frame(OTHER)]
    assert receive(b"\x0b" + MESSAGE + b"\x1c", encode_frame(OTHER)) == [Frame(MESSAGE), Frame(OTHER)]


def test_a_missing_cr_is_done_without_after_a_while_and_swallowed_when_it_comes() -> None:
    codec = decoder()
    assert codec.receive(b"\x0b" + MESSAGE + b"\x1c", 10.0) == []
    assert codec.deadline == 10.5
    assert codec.tick(10.4) == []
    assert codec.tick(10.5) == [Frame(MESSAGE)]
    assert codec.deadline is None
    assert codec.receive(b"\r", 11.0) == []

    assert codec.receive(encode_frame(OTHER), 11.0) == [Frame(OTHER)]


def test_a_late_cr_ends_the_frame_once() -> None:
    codec = decoder()
    codec.receive(b"\x0b" + MESSAGE + b"\x1c", 10.0)
    assert codec.receive(b"\r", 10.2) == [Frame(MESSAGE)]
    assert codec.tick(99.0) == []
    assert codec.receive(encode_frame(OTHER), 100.0) == [Frame(OTHER)]


def test_without_the_option_a_missing_cr_is_awaited_until_the_frame_times_out() -> None:
    codec = Decoder(frame_bytes_max=1000, frame_timeout_s=30.0, end_without_cr_s=None)
    codec.receive(b"\x0bMSH\x1c", 0.0)
    assert codec.deadline == 30.0
    assert codec.tick(30.0) == [Partial(4)]


def test_an_end_byte_inside_the_content_belongs_to_it() -> None:
    assert receive(b"\x0bMSH|\x1c|\x1c\x1c\r") == [Frame(b"MSH|\x1c|\x1c")]
    assert receive(b"\x0bMSH|\x1c", b"|\x1c", b"\x1c", b"\r") == [Frame(b"MSH|\x1c|\x1c")]


def test_silence_inside_a_frame_drops_it() -> None:
    codec = decoder()
    codec.receive(b"\x0bMSH|", 5.0)
    codec.receive(b"more", 20.0)
    assert codec.deadline == 50.0
    assert codec.tick(50.0) == [Partial(8)]
    assert codec.buffered == 0
    assert codec.receive(encode_frame(MESSAGE), 51.0) == [Frame(MESSAGE)]


def test_a_frame_begun_anew_replaces_its_first_half() -> None:
    assert receive(b"\x0bMSH|^~\\&|hal" + encode_frame(MESSAGE)) == [Partial(12), Frame(MESSAGE)]


def test_the_end_of_input_believes_an_end_without_cr_and_drops_half_a_frame() -> None:
    codec = decoder()
    codec.receive(b"\x0b" + MESSAGE + b"\x1c", 0.0)
    assert codec.finish() == [Frame(MESSAGE)]
    codec.receive(b"\x0bMSH", 0.0)
    assert codec.finish() == [Partial(3)]
    assert codec.finish() == []


def test_commit_blocks_are_told_from_messages() -> None:
    blocks = receive(b"\x0b\x06\x1c\r\x0b\x15\x1c\r" + encode_frame(MESSAGE))
    assert blocks == [CommitBlock(True), CommitBlock(False), Frame(MESSAGE)]


def test_an_empty_frame_is_a_frame() -> None:
    assert receive(b"\x0b\x1c\r") == [Frame(b"")]


def test_a_frame_of_just_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert receive(encode_frame(b"a" * 100), frame_bytes_max=100) == [Frame(b"a" * 100)]
    assert receive(encode_frame(b"a" * 101), frame_bytes_max=100) == [Oversize(b"a" * 100)]
    assert receive(b"\x0b" + b"a" * 100 + b"\x1c", b"\r", frame_bytes_max=100) == [Frame(b"a" * 100)]


def test_a_hundred_megabytes_without_an_end_cost_no_memory_and_the_next_frame_works() -> None:
    codec = decoder(frame_bytes_max=1 << 20)
    chunk = b"x" * (1 << 18)
    tracemalloc.start()
    events = codec.receive(b"\x0bMSH|", 0.0)
    for _ in range(400):
        events += codec.receive(chunk, 0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [len(event.head) for event in events if isinstance(event, Oversize)] == [HEAD_BYTES_MAX]
    assert codec.buffered == 0
    assert peak < 4 << 20
    assert codec.receive(b"\x1c\r" + encode_frame(MESSAGE), 1.0) == [Frame(MESSAGE)]


def test_an_oversize_frame_that_never_ends_times_out() -> None:
    codec = decoder(frame_bytes_max=10)
    codec.receive(b"\x0b" + b"x" * 50, 0.0)
    assert codec.tick(30.0) == [Partial(50)]
    assert codec.receive(encode_frame(b"MSH"), 31.0) == [Frame(b"MSH")]


def test_content_with_an_end_block_is_not_framed() -> None:
    with pytest.raises(FrameError):
        encode_frame(b"MSH|\x1c\r")


tricky = st.lists(
    st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\x1c\r", b"MSH|", b"\x0bMSH", b"\x06", b"\x15", b"x" * 30, b" "]),
    max_size=40,
).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@settings(max_examples=400, deadline=None)
@given(st.one_of(tricky, st.binary(max_size=200)), st.lists(st.integers(0, 10_000), max_size=12), st.integers(0, 50))
def test_cutting_anywhere_changes_nothing(data: bytes, places: list[int], limit: int) -> None:
    whole, parts = decoder(limit), decoder(limit)
    at_once = whole.receive(data, 0.0)
    piecewise = [event for part in cut(data, places) for event in parts.receive(part, 0.0)]
    assert at_once == piecewise
    assert whole.buffered == parts.buffered <= limit
    assert (whole.deadline, whole.inside) == (parts.deadline, parts.inside)
    assert whole.finish() == parts.finish()


@settings(max_examples=200, deadline=None)
@given(tricky)
def test_byte_by_byte_equals_at_once(data: bytes) -> None:
    assert receive(data) == receive(*(data[at : at + 1] for at in range(len(data))))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60).filter(lambda raw: b"\x0b" not in raw and b"\x1c" not in raw), max_size=6))
def test_what_was_framed_comes_back(contents: list[bytes]) -> None:
    contents = [content for content in contents if content not in (b"\x06", b"\x15")]
    assert receive(b"".join(map(encode_frame, contents))) == [Frame(content) for content in contents]
