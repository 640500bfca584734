"""The MLLP listener over real sockets: every frame is answered, in order, after the commit."""

import asyncio
import sys
from datetime import UTC
from pathlib import Path
from typing import Any

import hl7
import pytest

from gateway.model import Kind
from gateway.protocols.mllp import encode_frame
from gateway.status import LinkState

WAIT_S = 10.0


def message(number: int = 1, body: bytes = b"", asks: bytes = b"") -> bytes:
    asked = b"|||" + asks if asks else b""
    return b"MSH|^~\\&|A|B|C|D|20260101||ORU^R01^ORU_R01|M%d|P|2.6%b\rPID|||7^^^X\r%b" % (number, asked, body)


BIG = message(1, b"OBX|1|ED|||^application^pdf^Base64^" + b"QUJD" * 25_000 + b"\r")
HUGE = message(1, b"OBX|1|ED|||^application^pdf^Base64^" + b"QUJD" * 500_000 + b"\r")
LATIN = message(1, b"OBX|1|ST|||M\xfcller\r")

MATRIX = {
    "one message": ([encode_frame(message(1))], [("AA", b"M1")]),
    "three on one connection": ([encode_frame(message(n)) for n in (1, 2, 3)], [("AA", b"M%d" % n) for n in (1, 2, 3)]),
    "seven-byte fragments": (
        [encode_frame(message(1))[at : at + 7] for at in range(0, len(message(1)) + 3, 7)],
        [("AA", b"M1")],
    ),
    "five pipelined": (
        [b"".join(encode_frame(message(n)) for n in range(5))],
        [("AA", b"M%d" % n) for n in range(5)],
    ),
    "FS without CR": ([encode_frame(message(1))[:-1]], [("AA", b"M1")]),
    "FS without CR, then the next": (
        [encode_frame(message(1))[:-1] + encode_frame(message(2))],
        [("AA", b"M1"), ("AA", b"M2")],
    ),
    "leading CRLF": ([b"\r\n" + encode_frame(message(1))], [("AA", b"M1")]),
    "leading ENQ": ([b"\x05" + encode_frame(message(1))], [("AA", b"M1")]),
    "LF segments": ([encode_frame(message(1).replace(b"\r", b"\n"))], [("AA", b"M1")]),
    "CRLF segments": ([encode_frame(message(1).replace(b"\r", b"\r\n"))], [("AA", b"M1")]),
    "invalid UTF-8": ([encode_frame(LATIN)], [("AA", b"M1")]),
    "100 KB": ([encode_frame(BIG)], [("AA", b"M1")]),
    "2 MB": ([encode_frame(HUGE)], [("AA", b"M1")]),
    "not HL7": ([encode_frame(b"hello")], [("AR", b"")]),
    "empty frame": ([b"\x0b\x1c\r"], [("AR", b"")]),
}


@pytest.mark.parametrize("case", MATRIX)
async def test_every_line_of_the_robustness_matrix_is_answered_and_the_next_works(house: Any, case: str) -> None:
    parts, expected = MATRIX[case]
    async with house(end_without_cr_s=0.05) as home:
        peer = await home.connect()
        for part in parts:
            await peer.send(part)
        assert await peer.codes(len(expected)) == expected

        await peer.send(encode_frame(message(99)))
        assert await peer.codes(1) == [("AA", b"M99")]


async def test_a_late_cr_ends_its_frame_once(house: Any) -> None:
    async with house(end_without_cr_s=None) as home:
        peer = await home.connect()
        await peer.send(encode_frame(message(1))[:-1])
        await home.until(lambda: home.listener.held == len(message(1)))
        await peer.send(b"\r")
        assert await peer.codes(1) == [("AA", b"M1")]

        await peer.send(encode_frame(message(2)))
        assert await peer.codes(1) == [("AA", b"M2")]
        assert home.status.errors == 0


async def test_a_cr_that_comes_after_its_frame_was_ended_without_it_is_swallowed(house: Any) -> None:
    async with house(end_without_cr_s=0.02) as home:
        peer = await home.connect()
        await peer.send(encode_frame(message(1))[:-1])
        assert await peer.codes(1) == [("AA", b"M1")]

        await peer.send(b"\r", encode_frame(message(2)))
        assert await peer.codes(1) == [("AA", b"M2")]
        assert len(home.intake.kept) == 2


async def test_a_message_is_kept_as_it_came_with_what_is_known_of_it(house: Any) -> None:
    raw = message(1, b"PV1||I|ICU" + b"|" * 16 + b"V1\r")
    async with house() as home:
        peer = await home.connect()
        await peer.send(encode_frame(raw))
        await peer.answer()

        kept = home.intake.kept[0]
        assert (kept.raw, kept.size, kept.kind, kept.source) == (raw, len(raw), Kind.HL7, "emr")
        assert (kept.identifier, kept.terms, kept.lane_key) == ("M1", ("7", "V1"), "7")
        assert (kept.peer, kept.quarantined, len(kept.digest)) == ("127.0.0.1", None, 16)
        assert kept.received_at.tzinfo is UTC
        assert (home.status.received, home.status.errors, home.status.connections) == (1, 0, 1)
        assert home.status.state is LinkState.UP


async def test_no_answer_leaves_before_the_message_is_settled(house: Any) -> None:
    async with house() as home:
        home.intake.holding = True
        peer = await home.connect()
        await peer.send(encode_frame(message(1)))
        await home.intake.have(1)
        assert await peer.is_quiet()

        home.intake.settle()
        assert await peer.codes(1) == [("AA", b"M1")]


async def test_answers_leave_in_the_order_of_frames_even_if_refusals_need_no_storage(house: Any) -> None:
    async with house() as home:
        home.intake.holding = True
        peer = await home.connect()
        frames = [message(1), b"", b"junk", message(2, asks=b"AL|AL"), b"", message(3)]
        await peer.send(b"".join(map(encode_frame, frames)))
        await home.intake.have(4)
        assert await peer.is_quiet()

        home.intake.waiting.reverse()
        home.intake.settle()
        assert await peer.codes(7) == [
            ("AA", b"M1"),
            ("AR", b""),
            ("AR", b""),
            ("CA", b"M2"),
            ("AA", b"M2"),
            ("AR", b""),
            ("AA", b"M3"),
        ]


@pytest.mark.parametrize(
    ("asks", "accepted", "failed"),
    [
        (b"", ["AA"], ["AE"]),
        (b"AL|NE", ["CA"], ["CE"]),
        (b"NE|AL", ["AA"], ["AE"]),
        (b"AL|AL", ["CA", "AA"], ["CE"]),
        (b"NE|NE", [], []),
    ],
)
async def test_the_acknowledgement_mode_is_the_senders(
    house: Any, asks: bytes, accepted: list[str], failed: list[str]
) -> None:
    async with house() as home:
        peer = await home.connect()
        await peer.send(encode_frame(message(1, asks=asks)))
        assert await peer.codes(len(accepted)) == [(code, b"M1") for code in accepted]
        await home.intake.have(1)

        home.intake.failing = True
        await peer.send(encode_frame(message(2, asks=asks)))
        assert await peer.codes(len(failed)) == [(code, b"M2") for code in failed]
        await home.intake.have(2)

        home.intake.failing = False
        await peer.send(encode_frame(message(3)))
        assert await peer.codes(1) == [("AA", b"M3")]


async def test_answers_have_control_ids_of_their_own(house: Any) -> None:
    async with house() as home:
        peer = await home.connect()
        await peer.send(*(encode_frame(message(1, asks=b"AL|AL")) for _ in range(3)))
        ids = {str(hl7.parse((await peer.raw_answer()).decode()).segment("MSH")[10]) for _ in range(6)}
        assert len(ids) == 6
        assert all(len(own) <= 20 for own in ids)


@pytest.mark.parametrize("way", ["failing", "refusing"])
async def test_what_could_not_be_stored_is_told_with_207(house: Any, way: str) -> None:
    async with house() as home:
        setattr(home.intake, way, "disk low")
        peer = await home.connect()
        await peer.send(encode_frame(message(1)))
        told = await peer.answer()

        assert (told.code.value, told.control_id, told.errors[0].code) == ("AE", b"M1", "207")
        assert len(home.intake.kept) == (1 if way == "failing" else 0)
        assert home.status.errors == 1
        assert home.listener.held == 0

        await peer.send(encode_frame(b"not HL7 and not stored"))
        assert await peer.codes(1) == [("AE", b"")]


async def test_where_asked_a_store_failure_is_silence_and_the_repeat_is_answered(house: Any) -> None:
    async with house(store_error="silence") as home:
        home.intake.failing = True
        peer = await home.connect()
        await peer.send(encode_frame(message(1)))
        await home.intake.have(1)
        assert await peer.is_quiet()

        home.intake.failing = False
        await peer.send(encode_frame(message(1)))
        assert await peer.codes(1) == [("AA", b"M1")]


UNREADABLE = {
    "not HL7": (b"hello", b"", "100", None),
    "no separator": (b"MSHxyz", b"", "100", None),
    "no control ID": (message(1).replace(b"|M1|", b"||"), b"", "101", None),
    "no type": (message(1).replace(b"ORU^R01^ORU_R01", b""), b"M1", "101", "M1"),
    "an end byte in MSH": (message(1).replace(b"M1", b"M1\x1c"), b"", "100", None),
    "a header without end": (b"MSH|^~\\&|" + b"x" * 20_000, b"", "100", None),
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_cannot_be_read_is_quarantined_and_answered_ar(house: Any, case: str) -> None:
    raw, control_id, code, identifier = UNREADABLE[case]
    async with house() as home:
        peer = await home.connect()
        await peer.send(encode_frame(raw))
        told = await peer.answer()

        assert (told.code.value, told.control_id, told.errors[0].code) == ("AR", control_id, code)
        kept = home.intake.kept[0]
        assert (kept.kind, kept.raw, kept.identifier) == (Kind.UNREADABLE, raw, identifier)
        assert kept.quarantined
        assert home.status.errors == 1


async def test_an_acknowledgement_is_kept_and_never_answered(house: Any) -> None:
    ack = b"MSH|^~\\&|A|B|C|D|20260101||ACK^R01^ACK|9|P|2.6|||AL|AL\rMSA|AA|7\r"
    async with house() as home:
        peer = await home.connect()
        await peer.send(encode_frame(ack) + encode_frame(message(2)))
        assert await peer.codes(1) == [("AA", b"M2")]
        assert (home.intake.kept[0].kind, home.intake.kept[0].raw) == (Kind.HL7, ack)
        assert home.intake.kept[0].quarantined


async def test_a_commit_block_from_a_sender_is_noted_and_ignored(house: Any) -> None:
    async with house() as home:
        peer = await home.connect()
        await peer.send(b"\x0b\x06\x1c\r" + encode_frame(message(1)))
        assert await peer.codes(1) == [("AA", b"M1")]
        assert home.status.errors == 1


async def test_python_hl7_sends_to_us(house: Any, tmp_path: Path) -> None:
    file = tmp_path / "messages.hl7"
    file.write_bytes(encode_frame(message(1)) + encode_frame(message(2)))
    async with house() as home:
        program = Path(sys.executable).with_name("mllp_send")
        process = await asyncio.create_subprocess_exec(
            program, "-p", str(home.listener.port), "-f", file, "127.0.0.1", stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), WAIT_S)

        assert [kept.raw for kept in home.intake.kept] == [message(1).rstrip(), message(2).rstrip()]  # it strips the CR
        assert output.count(b"MSA|AA|M") == 2
