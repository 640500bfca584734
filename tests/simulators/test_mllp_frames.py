"""Frames come out whole however the stream is cut; scripts of faults are the same for the same seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators import mllp_frames
from simulators.faults import load_plan
from simulators.mllp_frames import FrameSplitter, frame

BODIES = st.lists(st.binary(max_size=40).filter(lambda body: b"\x1c" not in body and b"\x0b" not in body), max_size=6)


@given(BODIES, st.lists(st.integers(min_value=1, max_value=30), max_size=20))
def test_the_cutting_of_the_stream_does_not_matter(bodies, cuts):
    stream = b"".join(b"junk" + frame(body) for body in bodies)
    splitter, found = FrameSplitter(), []
    for cut in [*cuts, len(stream) or 1]:
        found += splitter.feed(stream[:cut])
        stream = stream[cut:]
    found += splitter.feed(stream)

    assert found == bodies


@given(st.binary(max_size=200))
def test_no_bytes_raise(data):
    FrameSplitter().feed(data)


def test_a_frame_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(mllp_frames, "FRAME_BYTES_MAX", 100)
    with pytest.raises(ValueError, match="longer"):
        FrameSplitter().feed(b"\x0b" + b"x" * 200)


def test_the_same_seed_draws_the_same_faults():
    script = '[{"fault": "close", "probability": 0.3, "times": 5}, {"fault": "ae", "every": 4, "first": 8, "last": 20}]'
    first, second = (load_plan(script, frozenset({"close", "ae"}), seed=9) for _ in range(2))
    drawn = [rule and rule.fault for rule in (first.draw(n, "") for n in range(1, 40))]

    assert drawn == [rule and rule.fault for rule in (second.draw(n, "") for n in range(1, 40))]
    assert drawn.count("close") == 5
    assert 1 <= drawn.count("ae") <= 4
