from hypothesis import given
from hypothesis import strategies as st

from gateway.laboratory import LabOrder, LabQuery
from gateway.model import Reading
from gateway.protocols.astm import (
    ANSWER_S,
    CONTENTION_PAUSE_S,
    RECEIVE_TIMEOUT_S,
    REFUSED_PAUSE_S,
    REPLY_TIMEOUT_S,
    TRIES_MAX,
    AstmSession,
)
from gateway.protocols.astm_frames import ACK, ENQ, EOT, NAK, Frame, FrameCutter, Noise, Signal, checks, frames

RECORDS = [b"H|\\^&", b"R|1|^^^GLU|5.4", b"L|1|N"]
FRAMES = frames(RECORDS)


def session() -> AstmSession:
    return AstmSession(lambda text: (), query_of=_query_of, render=lambda query, orders: [b"H|\\^&", b"L|1|N"])


def _query_of(text: bytes) -> LabQuery | None:
    return LabQuery(sample_id="S1") if b"\rQ|" in b"\r" + text else None


def told(found: object) -> object:
    match found:
        case Frame():
            return found.text
        case Signal():
            return found.character
        case Noise():
            return ("noise", found.raw)
    return None


def test_noise_before_a_signal_does_not_swallow_it() -> None:
    assert [told(found) for found in FrameCutter().feed(b"\xf5\xb1'\x05")] == [("noise", b"\xf5\xb1'"), ENQ]


def test_the_published_frame_is_made_and_cut() -> None:
    frame = bytes.fromhex("02 31 41 7C 42 7C 43 7C 44 0D 03 42 46 0D 0A")

    (found,) = FrameCutter().feed(frame)

    assert frames([b"A|B|C|D"]) == [frame]
    assert isinstance(found, Frame)
    assert (found.number, found.text, found.continued, found.sound) == (1, b"A|B|C|D\r", False, True)


def test_a_long_record_is_split_as_published() -> None:
    first, second = frames([b"x" * 300])

    assert len(first) == 247
    assert (first[1:2], first[-5:-4], second[1:2], second[-5:-4]) == (b"1", b"\x17", b"2", b"\x03")


@given(text=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=700))
def test_what_is_sent_is_what_is_cut(text: str) -> None:
    record = text.encode("latin-1")

    found = [item for frame in frames([record]) for item in FrameCutter().feed(frame)]

    assert all(isinstance(item, Frame) and item.sound for item in found)
    assert b"".join(item.text for item in found if isinstance(item, Frame)) == record.rstrip(b"\r") + b"\r"


@given(frame=st.sampled_from(FRAMES), place=st.integers(1, 40), change=st.integers(1, 255))
def test_a_changed_byte_never_passes_for_a_sound_frame(frame: bytes, place: int, change: int) -> None:
    damaged = bytearray(frame)
    place = 1 + place % (len(frame) - 3)
    damaged[place] ^= change

    cutter = FrameCutter()
    found = [*cutter.feed(bytes(damaged)), *cutter.flush()]

    sound = [item for item in found if isinstance(item, Frame) and item.sound]
    assert all(checks(item.raw[1 : item.raw.index(b"\x03") + 1]) in item.raw.upper() for item in sound)
    assert not any(item.text == FrameCutter and item.raw == frame for item in sound)


@given(data=st.binary(max_size=400), places=st.lists(st.integers(0, 400), max_size=6))
def test_how_bytes_are_cut_never_matters(data: bytes, places: list[int]) -> None:
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    whole, cut = FrameCutter(), FrameCutter()

    one = [*whole.feed(data), *whole.flush()]
    other = [item for piece in pieces for item in cut.feed(piece)] + list(cut.flush())

    assert [found for found in one if not isinstance(found, Noise)] == [
        found for found in other if not isinstance(found, Noise)
    ]


def say(subject: AstmSession, data: bytes, now: float = 0.0) -> bytes:
    subject.receive(data, now)
    for _ in subject.take_readings():
        subject.settle(stored=True, now=now)
    return subject.take_output()


def at(subject: AstmSession, now: float) -> bytes:
    subject.tick(now)
    return subject.take_output()


def test_an_enquiry_in_mid_transmission_is_refused() -> None:
    subject = session()
    say(subject, ENQ + FRAMES[0])

    assert say(subject, ENQ) == NAK


def test_a_transmission_that_breaks_off_is_told_and_forgotten() -> None:
    subject = session()
    say(subject, ENQ + FRAMES[0])

    subject.tick(RECEIVE_TIMEOUT_S)
    subject.tick(RECEIVE_TIMEOUT_S + 1)

    (reading,) = subject.take_readings()
    assert reading.fault == "a transmission broke off"
    assert say(subject, ENQ, RECEIVE_TIMEOUT_S + 2) == ACK


def asked() -> AstmSession:
    """A Session that has been asked and has to answer; the analyser has let go of the line."""
    subject = session()
    say(subject, ENQ + b"".join(frames([b"H|\\^&", b"Q|1|^S1", b"L|1|N"])) + EOT)
    return subject


def test_a_question_is_handed_over_once_and_answered_with_what_is_known() -> None:
    subject = asked()

    (query,) = subject.take_queries()
    subject.answer(query, (LabOrder(sample_id="S1", tests=("GLU",)),), 1.0)

    assert subject.take_queries() == []
    assert subject.take_output() == ENQ
    assert say(subject, ACK, 1.1) == frames([b"H|\\^&", b"L|1|N"])[0]
    assert say(subject, NAK, 1.2) == frames([b"H|\\^&", b"L|1|N"])[0]
    assert say(subject, ACK, 1.3) == frames([b"H|\\^&", b"L|1|N"])[1]
    assert say(subject, ACK, 1.4) == EOT
    assert subject.deadline is None


def test_a_question_that_nobody_answers_is_answered_all_the_same() -> None:
    assert at(asked(), ANSWER_S) == ENQ


def test_a_question_in_a_message_that_was_refused_is_not_answered_before_it_comes_again() -> None:
    subject = session()
    head, question, last = frames([b"H|\\^&", b"Q|1|^S1", b"L|1|N"])
    assert say(subject, ENQ + head + question) == ACK * 3
    subject.receive(last, 0.1)
    (taken,) = subject.take_queries()
    subject.settle(False, 0.1)
    assert subject.take_output() == NAK

    subject.answer(taken, (LabOrder(sample_id="S1", tests=("GLU",)),), 0.2)
    assert subject.deadline is not None
    assert subject.deadline > ANSWER_S  # nobody waits for an answer

    assert say(subject, last, 0.3) == ACK
    (again,) = subject.take_queries()
    say(subject, EOT, 0.5)
    subject.answer(again, (), 0.6)
    assert subject.take_output() == ENQ


def test_in_contention_the_analyser_goes_first() -> None:
    subject = asked()
    at(subject, ANSWER_S)

    assert say(subject, ENQ, ANSWER_S + 0.1) == b""  # it waits a second and asks again
    assert say(subject, ENQ, ANSWER_S + 1.1) == ACK
    assert say(subject, EOT, ANSWER_S + 2) == b""
    assert at(subject, ANSWER_S + 0.1 + CONTENTION_PAUSE_S) == ENQ


def test_a_busy_analyser_is_asked_again_and_not_for_ever() -> None:
    subject, now = asked(), ANSWER_S
    tries = 0
    while at(subject, now) == ENQ:
        tries += 1
        assert say(subject, NAK, now + 1) == b""
        now += 1 + REFUSED_PAUSE_S

    assert tries == TRIES_MAX
    assert subject.deadline is None


def test_an_analyser_that_falls_silent_gets_an_end() -> None:
    subject = asked()
    at(subject, ANSWER_S)
    say(subject, ACK, ANSWER_S + 1)

    assert at(subject, ANSWER_S + 1 + REPLY_TIMEOUT_S) == EOT
    assert at(subject, ANSWER_S + 60) == b""


def test_a_frame_refused_six_times_ends_the_answer() -> None:
    subject = asked()
    at(subject, ANSWER_S)
    say(subject, ACK, ANSWER_S)

    said = [say(subject, NAK, ANSWER_S) for _ in range(TRIES_MAX)]

    assert said[-1] == EOT
    assert len(set(said[:-1])) == 1


def test_an_end_by_the_analyser_ends_the_answer() -> None:
    subject = asked()
    at(subject, ANSWER_S)
    say(subject, ACK, ANSWER_S)

    assert say(subject, EOT, ANSWER_S) == EOT
    assert subject.deadline is None


def test_beside_another_host_nothing_is_said() -> None:
    subject = AstmSession(lambda text: (), transmit=False)

    subject.receive(ENQ + b"".join(FRAMES) + EOT, 0.0)

    assert subject.take_output() == b""


@given(pieces=st.lists(st.sampled_from([ENQ, EOT, ACK, NAK, *FRAMES, b"\x02", b"x\x03", b"Q"]), max_size=40))
def test_whatever_is_said_memory_is_bounded_and_nothing_raises(pieces: list[bytes]) -> None:
    subject = session()
    readings: list[Reading] = []
    for number, piece in enumerate(pieces):
        subject.receive(piece, float(number))
        subject.tick(float(number))
        readings += subject.take_readings()
        subject.settle(stored=number % 3 != 0, now=float(number))
        subject.take_output()
        assert subject.buffered_bytes < 70_000
