"""What a frame is and what is answered, for any bytes whatever."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.formats.acknowledgement import read_acknowledgement
from gateway.protocols.mllp import Decoder, Frame
from gateway.sources.mllp_reading import Origin, answer, read_frame, read_oversize

ORIGIN = Origin(source="emr", peer="127.0.0.1", encoding="utf-8")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
pieces = st.sampled_from(
    [b"MSH", b"|", b"^~\\&", b"\x1c", b"\x0b", b"\r", b"\n", b"ORU", b"AL", b"||||||||", b"\xff", b"ISO IR87", b"2.5"]
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.lists(pieces, max_size=40).map(lambda parts: b"MSH|^~\\&|" + b"".join(parts)),
        st.lists(pieces, max_size=40).map(b"".join),
    ),
    st.booleans(),
)
def test_no_content_breaks_the_reading_or_the_answer(content: bytes, stored: bool) -> None:
    for read in (read_frame(content, ORIGIN, NOW), read_oversize(content, 10, ORIGIN, NOW)):
        frames = answer(read, stored=stored, control_id="X1", now=NOW)
        events = Decoder(frame_bytes_max=1 << 20).receive(frames, 0.0)
        told = [read_acknowledgement(event.content) for event in events if isinstance(event, Frame)]

        assert len(told) == len(events) <= 2
        assert read.incoming is None or read.incoming.raw == content
        if not stored or read.fault is not None:
            assert not any(one.code.accepted for one in told)
        if read.header is not None:
            assert all(one.control_id == read.header.control_id for one in told)
