import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import FrameError
from gateway.protocols.negotiation import (
    Acceptance,
    AnsweredContext,
    Proposal,
    ProposedContext,
    Rejection,
    Role,
    decode_accept,
    decode_rejection,
    decode_request,
    encode_accept,
    encode_rejection,
    encode_request,
)

UID = st.lists(st.integers(0, 99999), min_size=2, max_size=6).map(lambda parts: ".".join(map(str, parts)))
TITLE = st.text("ABC123", min_size=1, max_size=16)
CONTEXTS = st.lists(st.tuples(UID, st.lists(UID, min_size=1, max_size=3)), min_size=1, max_size=20)
SHARED = {
    "called_ae_title": TITLE,
    "calling_ae_title": TITLE,
    "pdu_max": st.integers(0, 1 << 20),
    "implementation_uid": UID,
    "implementation_version": TITLE,
    "roles": st.dictionaries(UID, st.builds(Role, st.booleans(), st.booleans()), max_size=3),
    "extended": st.dictionaries(UID, st.binary(max_size=8), max_size=3),
    "window": st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
}


def _proposed(contexts: list[tuple[str, list[str]]]) -> tuple[ProposedContext, ...]:
    return tuple(ProposedContext(2 * n + 1, uid, tuple(syntaxes)) for n, (uid, syntaxes) in enumerate(contexts))


def _answered(contexts: list[tuple[str, list[str]]]) -> tuple[AnsweredContext, ...]:
    return tuple(AnsweredContext(2 * n + 1, n % 5, syntaxes[0]) for n, (_, syntaxes) in enumerate(contexts))


@settings(max_examples=50, deadline=None)
@given(st.builds(Proposal, contexts=CONTEXTS.map(_proposed), **SHARED))
def test_a_proposal_comes_back_as_it_went(proposal: Proposal) -> None:
    assert decode_request(encode_request(proposal)[6:]) == proposal


@settings(max_examples=50, deadline=None)
@given(st.builds(Acceptance, contexts=CONTEXTS.map(_answered), **SHARED))
def test_an_acceptance_comes_back_as_it_went(acceptance: Acceptance) -> None:
    assert decode_accept(encode_accept(acceptance)[6:]) == acceptance


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bodies_are_read_or_a_frame_error(body: bytes, headed: bool) -> None:
    whole = struct.pack(">H2x16s16s32x", 1, b"A", b"B") + body if headed else body
    for decode in (decode_request, decode_accept, decode_rejection):
        with contextlib.suppress(FrameError):
            decode(whole)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _request(items: bytes, called: bytes = b"A", calling: bytes = b"B") -> bytes:
    return struct.pack(">H2x16s16s32x", 1, called, calling) + items


def test_what_nobody_knows_is_left_out() -> None:
    context = _item(0x20, b"\1\0\0\0" + _item(0x30, b"1.2.3 ") + _item(0x99, b"?") + _item(0x40, b"1.2.4\0"))
    user = _item(0x50, _item(0x51, bytes(4)) + _item(0x58, b"\1\1\0\1a\0\0") + _item(0x77, b"new"))

    proposal = decode_request(_request(_item(0x10, b"1.2.840.10008.3.1.1.1") + context + _item(0x66, b"x") + user))

    assert proposal.contexts == (ProposedContext(1, "1.2.3", ("1.2.4",)),)
    assert proposal.pdu_max == 0


@pytest.mark.parametrize("title", [b"", b"\xd6RT\\1", b"CT\x001", b"\x01" * 16])
def test_odd_titles_become_printable(title: bytes) -> None:
    proposal = decode_request(_request(b"", called=title, calling=title))

    assert proposal.called_ae_title.isprintable()
    assert proposal.called_ae_title


def test_a_hundred_and_twenty_eight_contexts_are_read_and_no_more() -> None:
    contexts = _proposed([("1.2.3", ["1.2.4"])] * 200)[:128]
    proposal = Proposal(called_ae_title="A", calling_ae_title="B", contexts=contexts, pdu_max=0)

    assert decode_request(encode_request(proposal)[6:]).contexts == contexts


def test_a_rejection_tells_why_and_for_how_long() -> None:
    rejection = Rejection(2, 3, 2)

    assert decode_rejection(encode_rejection(rejection)[6:]) == rejection
    assert rejection.is_transient
    assert rejection.words == "local limit exceeded"
