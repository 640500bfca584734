"""Two state machines talk, cut anywhere; and one hears what no peer should say."""

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocols.dimse import Command, Field, response_to
from gateway.protocols.negotiation import Acceptance, AnsweredContext, Proposal, ProposedContext, Rejection
from gateway.protocols.pdu import (
    BytesSink,
    encode_abort,
    encode_release_rp,
    encode_release_rq,
    fragment_bytes,
    p_data_head,
)
from gateway.protocols.upper_layer import (
    CLOSE_S,
    FIRST_PDU_S,
    PDU_LIMIT_MIN,
    STALL_S,
    Accepted,
    Ended,
    Event,
    Message,
    Rejected,
    ReleaseAsked,
    Requested,
    State,
    UpperLayer,
)

LIMIT = 1 << 16
STORE = Command(field=Field.C_STORE, message_id=1, sop_class_uid="1.2", sop_instance_uid="1.3", has_data=True)
ECHO = Command(field=Field.C_ECHO, message_id=2, sop_class_uid="1.2.840.10008.1.1")


def layer(*, requestor: bool, pdu_max: int = 16384) -> UpperLayer:
    return UpperLayer(requestor=requestor, pdu_max=pdu_max, choose=lambda _, __: BytesSink(LIMIT), now=0.0)


def proposal(pdu_max: int = 16384) -> Proposal:
    context = ProposedContext(1, "1.2", ("1.2.840.10008.1.2",))
    return Proposal(called_ae_title="A", calling_ae_title="B", contexts=(context,), pdu_max=pdu_max)


def acceptance(pdu_max: int = 16384) -> Acceptance:
    answered = (AnsweredContext(1, 0, "1.2.840.10008.1.2"),)
    return Acceptance(called_ae_title="A", calling_ae_title="B", contexts=answered, pdu_max=pdu_max)


def cut(data: bytes, sizes: Iterable[int]) -> Iterable[bytes]:
    for size in sizes:
        if not data:
            return
        yield data[:size]
        data = data[size:]
    if data:
        yield data


def feed(to: UpperLayer, data: bytes, sizes: Iterable[int] = ()) -> list[Event]:
    """Give bytes the way sockets do: into the buffers, cut anywhere."""
    for part in cut(data, sizes):
        view = memoryview(part)
        while view:
            taken = 0
            for buffer in to.buffers():
                count = min(len(buffer), len(view))
                buffer[:count] = view[:count]
                view = view[count:]
                taken += count
            to.received(taken, 0.0)
    return to.take_events()


def output(of: UpperLayer) -> bytes:
    return b"".join(of.take_output())


def pair(pdu_max: int = 16384) -> tuple[UpperLayer, UpperLayer]:
    ours, theirs = layer(requestor=True, pdu_max=pdu_max), layer(requestor=False, pdu_max=pdu_max)
    ours.request(proposal(pdu_max))
    (asked,) = feed(theirs, output(ours))
    assert isinstance(asked, Requested)
    theirs.accept(acceptance(pdu_max))
    (answered,) = feed(ours, output(theirs))
    assert isinstance(answered, Accepted)
    return ours, theirs


def established() -> UpperLayer:
    return pair()[1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=9000), min_size=1, max_size=4),
    st.sampled_from([0, 7, 128, 4096, 16384]),
    st.lists(st.integers(1, 5000), max_size=60),
)
def test_messages_arrive_whole_however_they_are_cut(datas: list[bytes], pdu_max: int, sizes: list[int]) -> None:
    ours, theirs = pair(pdu_max)
    for data in datas:
        ours.send(1, STORE, data)
        ours.send(1, ECHO)

    events = feed(theirs, output(ours), sizes)

    assert [event.command.field for event in events if isinstance(event, Message)] == [1, 0x30] * len(datas)
    sinks = [event.sink for event in events if isinstance(event, Message) and event.sink is not None]
    assert [sink.data for sink in sinks if isinstance(sink, BytesSink)] == datas
    assert not theirs.inside


def test_a_command_and_its_data_may_share_a_pdu_and_be_cut_within() -> None:
    ours, theirs = pair()
    ours.send(1, STORE, b"pixels")
    pdus = output(ours)
    first, second = pdus[: 6 + struct.unpack_from(">L", pdus, 2)[0]], pdus[6 + struct.unpack_from(">L", pdus, 2)[0] :]
    command = first[12:]
    halves = b"".join(
        struct.pack(">LBB", len(half) + 2, 1, bits) + half for half, bits in ((command[:9], 1), (command[9:], 3))
    )
    pdvs = halves + second[6:]

    (message,) = feed(theirs, struct.pack(">BxL", 4, len(pdvs)) + pdvs, [1] * 400)

    assert isinstance(message, Message)
    assert isinstance(message.sink, BytesSink)
    assert message.sink.data == b"pixels"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.booleans(), st.lists(st.integers(1, 50), max_size=30))
def test_arbitrary_bytes_end_in_an_abort_or_nothing(
    data: bytes, requestor: bool, associated: bool, sizes: list[int]
) -> None:
    one = pair()[0 if requestor else 1] if associated else layer(requestor=requestor)
    if requestor and not associated:
        one.request(proposal())
    one.take_output()

    feed(one, data, sizes)

    for part in one.take_output():
        assert part[0] in (6, 7)
    if one.state is State.ENDING:
        one.tick(1e9)
        assert one.state in (State.ENDING, State.CLOSED)


@pytest.mark.parametrize("requestor", [True, False])
def test_a_release_with_an_abort_right_behind_it_is_not_answered(requestor: bool) -> None:
    ours, theirs = pair()
    hearing = ours if requestor else theirs
    asked, over = feed(hearing, encode_release_rq() + encode_abort(0, 0))
    hearing.answer_release(0.0)

    assert isinstance(asked, ReleaseAsked)
    assert isinstance(over, Ended)
    assert (hearing.state, output(hearing)) == (State.CLOSED, b"")


@pytest.mark.parametrize("requestor", [True, False])
def test_each_side_may_release(requestor: bool) -> None:
    ours, theirs = pair()
    if not requestor:
        ours, theirs = theirs, ours
    ours.release()
    (asked,) = feed(theirs, output(ours))
    assert isinstance(asked, ReleaseAsked)
    theirs.answer_release(0.0)
    (over,) = feed(ours, output(theirs))

    assert isinstance(over, Ended)
    assert over.released
    assert ours.state is State.CLOSED
    assert theirs.state is State.ENDING
    theirs.closed()
    assert theirs.state is State.CLOSED
    assert [event.released for event in theirs.take_events() if isinstance(event, Ended)] == [True]


def test_when_both_release_at_once_the_requestor_answers_first() -> None:
    ours, theirs = pair()
    ours.release()
    theirs.release()
    from_us, from_them = output(ours), output(theirs)

    assert feed(theirs, from_us) == []
    assert feed(ours, from_them) == []
    answer = output(ours)
    assert answer == encode_release_rp()
    assert output(theirs) == b""
    feed(theirs, answer)
    feed(ours, output(theirs))

    assert ours.state is theirs.state is State.CLOSED


def test_responses_still_come_after_release_was_asked_for() -> None:
    ours, theirs = pair()
    ours.release()
    feed(theirs, output(ours))
    theirs.send(1, Command(field=response_to(Field.C_ECHO), responded_to=2, status=0))
    (message,) = feed(ours, output(theirs))

    assert isinstance(message, Message)


def test_a_rejection_ends_the_matter() -> None:
    ours, theirs = layer(requestor=True), layer(requestor=False)
    ours.request(proposal())
    feed(theirs, output(ours))
    theirs.reject(Rejection(1, 1, 3), 0.0)
    (rejected,) = feed(ours, output(theirs))

    assert rejected == Rejected(Rejection(1, 1, 3))
    assert ours.state is State.CLOSED
    assert theirs.state is State.ENDING


UNEXPECTED = {
    "associate again": struct.pack(">BxL", 1, 200),
    "an answer nobody asked for": struct.pack(">BxL", 2, 200),
    "a release nobody asked for": encode_release_rp(),
    "an unknown type": struct.pack(">BxL", 0x42, 0),
    "too long": struct.pack(">BxL", 4, PDU_LIMIT_MIN * 4),
    "a release of a megabyte": struct.pack(">BxL", 5, 1 << 20),
    "no fragment": struct.pack(">BxL", 4, 0),
    "a fragment beyond its PDU": struct.pack(">BxLLBB", 4, 6, 1000, 1, 3),
    "a fragment without a head": struct.pack(">BxLLBB", 4, 6, 1, 1, 3),
    "bytes behind the last fragment": struct.pack(">BxLLBB", 4, 9, 2, 1, 0) + b"abc",
    "another context": p_data_head(3, 3, 2) + b"xx",
    "data first": p_data_head(1, 2, 2) + b"xx",
    "a command of nothing": p_data_head(1, 3, 0),
    "a command that is none": p_data_head(1, 3, 4) + b"\xff" * 4,
    "an endless command": p_data_head(1, 1, 60_000) + bytes(60_000) + p_data_head(1, 1, 60_000) + bytes(60_000),
}


@pytest.mark.parametrize("said", UNEXPECTED.values(), ids=UNEXPECTED.keys())
def test_what_breaks_the_rules_is_aborted_once(said: bytes) -> None:
    theirs = established()
    events = feed(theirs, said + bytes(100))
    answer = output(theirs)

    assert answer[:1] == b"\x07"
    assert len(answer) == 10
    assert answer[8] == 2
    assert theirs.state is State.ENDING
    assert [type(event) for event in events] == [Ended]


def test_data_in_another_context_or_a_command_in_between_is_aborted() -> None:
    for wrong in (p_data_head(1, 1, 2) + b"xx", p_data_head(1, 3, 2) + b"xx"):
        ours, theirs = pair()
        ours.send(1, STORE, b"data")
        head = output(ours).partition(b"data")[0][:-12]
        feed(theirs, head + wrong)
        assert theirs.state is State.ENDING


@pytest.mark.parametrize("state", ["await", "decide", "established", "release-sent", "release-asked", "ending"])
def test_an_abort_is_heard_in_every_state(state: str) -> None:
    ours, theirs = pair()
    one = theirs
    match state:
        case "await":
            one = layer(requestor=False)
        case "decide":
            one = layer(requestor=False)
            asking = layer(requestor=True)
            asking.request(proposal())
            feed(one, output(asking))
        case "release-sent":
            one.release()
        case "release-asked":
            ours.release()
            feed(one, output(ours))
        case "ending":
            one.abort(0.0)
    one.take_events()

    feed(one, encode_abort(0, 0))

    assert one.state in (State.CLOSED, State.ENDING)


def test_the_first_pdu_is_not_waited_for_for_ever() -> None:
    one = layer(requestor=False)
    assert one.deadline == FIRST_PDU_S

    one.tick(FIRST_PDU_S)

    assert one.state is State.CLOSED
    assert output(one) == b""


def test_a_pdu_that_stops_midway_is_given_up() -> None:
    one = established()
    feed(one, encode_release_rq()[:7])
    assert one.deadline == STALL_S

    one.tick(STALL_S)

    assert output(one)[:1] == b"\x07"
    assert one.deadline == STALL_S + CLOSE_S
    one.tick(STALL_S + CLOSE_S)
    assert one.state is State.CLOSED


def test_what_follows_the_end_is_not_kept() -> None:
    one = established()
    one.abort(0.0)
    for _ in range(600):
        feed(one, bytes(4096))

    assert one.state is State.CLOSED
    assert sum(map(len, one.buffers())) <= 4096


@pytest.mark.parametrize(
    ("theirs", "size"), [(0, (128 << 10) - 6), (16384, 16378), (7, 2), (1, 2), (1 << 30, (128 << 10) - 6)]
)
def test_fragments_respect_both_limits(theirs: int, size: int) -> None:
    assert fragment_bytes(theirs, 128 << 10) == size
