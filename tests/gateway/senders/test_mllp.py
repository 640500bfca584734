import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import hl7
import pytest
from hl7.mllp import start_hl7_server
from hl7apy.mllp import AbstractHandler, MLLPServer

from gateway.config import ClientTls, MllpDestination
from gateway.errors import LinkError
from gateway.formats.order_status import render_order_status
from gateway.formats.origin import Origin
from gateway.formats.pcd import render_pcd01
from gateway.model import Kind, Message, Parcel, Receipt, Verdict
from gateway.senders.mllp import ACKNOWLEDGEMENT_BYTES_MAX, MllpSender
from gateway.senders.mllp_link import MllpLink
from tests.gateway.formats.results_of import ORIGIN, OXIMETER, message_of, parcel_of
from tests.gateway.senders.certificates import Certificates
from tests.gateway.senders.scripted_receiver import (
    Act,
    ScriptedReceiver,
    acknowledgement,
    answer,
    control_id,
    framed,
    nothing,
    say,
    then_close,
)

SHORT_S = 0.15


def origins(message: Message) -> Origin:
    return ORIGIN


def hl7_parcel(number: int, *, raw: bytes | None = None) -> Parcel:
    raw = raw or b"MSH|^~\\&|LAB|X|||20260115||ORU^R01|ID-%d|P|2.5\rPID|||4711\xe9\rOBX|1|ST|a||b\nc\r" % number
    return parcel_of(message_of(None, kind=Kind.HL7, raw=raw, number=number), number=number)


def sender_to(port: int, *, ack_timeout_s: float = 5.0, tls: ClientTls | None = None) -> MllpSender:
    return MllpSender(
        MllpDestination(
            name="emr", host="localhost" if tls else "127.0.0.1", port=port, ack_timeout_s=ack_timeout_s, tls=tls
        ),
        origins,
    )


async def sent(sender: MllpSender, parcels: Sequence[Parcel]) -> list[Receipt]:
    async with aclosing(sender.send(parcels)) as receipts:
        return [receipt async for receipt in receipts]


@asynccontextmanager
async def talk(*script: Act, ack_timeout_s: float = 5.0) -> AsyncIterator[tuple[ScriptedReceiver, MllpSender]]:
    async with ScriptedReceiver.serving(*script) as receiver:
        sender = sender_to(receiver.port, ack_timeout_s=ack_timeout_s)
        try:
            yield receiver, sender
        finally:
            await sender.close()


async def test_hl7_goes_out_byte_for_byte_over_one_connection() -> None:
    parcels = [hl7_parcel(n) for n in range(5)]
    async with talk() as (receiver, sender):
        receipts = await sent(sender, parcels)
        receipts += await sent(sender, [hl7_parcel(9)])

    assert receiver.messages == [*(parcel.message.raw for parcel in parcels), hl7_parcel(9).message.raw]
    assert {receipt.verdict for receipt in receipts} == {Verdict.DELIVERED}
    assert [receipt.delivery_id for receipt in receipts] == [0, 1, 2, 3, 4, 9]
    assert receipts[3].acknowledgement == acknowledgement("AA", b"ID-3")
    assert receiver.connections == 1


async def test_a_message_that_the_disk_has_changed_does_not_go_on() -> None:
    whole, next_one = hl7_parcel(1), hl7_parcel(2)
    assert whole.message.raw is not None
    damaged = replace(whole, message=replace(whole.message, raw=whole.message.raw.replace(b"4711", b"4712")))
    assert damaged != whole
    async with talk() as (receiver, sender):
        receipts = await sent(sender, [damaged, next_one])

    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED, Verdict.DELIVERED]
    assert receipts[0].reason == "the stored bytes are not those that came: the disk has changed them"
    assert receiver.messages == [next_one.message.raw]


async def test_observations_go_out_as_pcd_01() -> None:
    parcel = parcel_of(message_of(OXIMETER))
    async with talk(answer("CA")) as (receiver, sender):
        receipts = await sent(sender, [parcel])

    assert receiver.messages == [render_pcd01(parcel, ORIGIN)]
    assert receipts[0].verdict is Verdict.DELIVERED


@pytest.mark.parametrize(
    ("act", "verdict", "reason"),
    [
        (answer("AA"), Verdict.DELIVERED, None),
        (answer("CA"), Verdict.DELIVERED, None),
        (answer("AA", end="\n"), Verdict.DELIVERED, None),
        (answer("AA", end="\r\n"), Verdict.DELIVERED, None),
        (answer("AA", before=b"\r\n\x05 "), Verdict.DELIVERED, None),
        (answer("AA", before=b"\x0b\x06\x1c\r"), Verdict.DELIVERED, None),
        (answer("AE"), Verdict.REFUSED, "AE"),
        (answer("AE", error="102"), Verdict.REFUSED, "AE ERR-102 (data type error)"),
        (answer("AE", error="206"), Verdict.RETRY, "AE ERR-206 (application record locked)"),
        (answer("AE", error="207"), Verdict.RETRY, "AE ERR-207 (application internal error)"),
        (answer("CE", error="207"), Verdict.RETRY, "CE ERR-207 (application internal error)"),
        (answer("CE", error="Doe"), Verdict.REFUSED, "CE"),
        (answer("AR", error="200"), Verdict.REFUSED, "AR ERR-200 (unsupported message type)"),
        (answer("CR"), Verdict.REFUSED, "CR"),
        (say(b"\x0b\x15\x1c\r"), Verdict.RETRY, "MLLP NAK: not stored by the peer"),
    ],
)
async def test_every_answer_has_its_verdict(act: Act, verdict: Verdict, reason: str | None) -> None:
    async with talk(act) as (_, sender):
        receipts = await sent(sender, [hl7_parcel(1)])

    assert [(receipt.verdict, receipt.reason) for receipt in receipts] == [(verdict, reason)]


@pytest.mark.parametrize(
    "act",
    [
        nothing,
        say(framed(b"hello")),
        say(framed(b"")),
        say(framed(b"MSH|^~\\&|EHR|||||| ACK|1|P|2.5\r")),
        say(framed(acknowledgement("XX", b"ID-1"))),
        say(framed(acknowledgement("", b"ID-1"))),
        say(framed(acknowledgement("AA", b"ID-2"))),
        say(framed(acknowledgement("AA", b"ID-1 "))),
        say(framed(acknowledgement("AA", b"id-1"))),
        say(framed(acknowledgement("AA", b""))),
        say(b"HTTP/1.0 400 Bad Request\r\n\r\n"),
        say(framed(acknowledgement("AA", b"ID-1"))[:60]),
        say(b"\x0b\x06\x1c\r"),
        say(b"\x0b" + b"x" * 300_000),
        then_close(nothing),
        then_close(say(framed(acknowledgement("AA", b"ID-1"))[:60])),
    ],
)
async def test_what_is_no_answer_to_this_message_breaks_the_connection(act: Act) -> None:
    async with talk(act, ack_timeout_s=SHORT_S) as (receiver, sender):
        with pytest.raises(LinkError):
            await sent(sender, [hl7_parcel(1), hl7_parcel(2)])
        await receiver.until_closed(1)
        receipts = await sent(sender, [hl7_parcel(1), hl7_parcel(2)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED, Verdict.DELIVERED]
    assert receiver.connections == 2
    assert receiver.messages[0] == receiver.messages[1] == hl7_parcel(1).message.raw


async def test_a_refusal_by_who_could_not_read_the_message_does_not_stop_the_lane_for_ever() -> None:
    unread = framed(acknowledgement("AR", b"", error="100"))
    async with talk(say(unread), say(unread)) as (receiver, sender):
        receipts = await sent(sender, [hl7_parcel(1), hl7_parcel(2)])
        receipts += await sent(sender, [hl7_parcel(1)])
        receipts += await sent(sender, [hl7_parcel(2)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.RETRY_CONTENT] * 2 + [Verdict.DELIVERED]
    assert receipts[0].reason == "AR ERR-100 (segment sequence error), without MSA-2"
    assert receiver.connections == 3


async def test_an_answer_that_comes_too_late_is_never_taken_for_another() -> None:
    late = asyncio.Event()

    async def answered_late(receiver: ScriptedReceiver, message: bytes, writer: asyncio.StreamWriter) -> None:
        await late.wait()
        writer.write(framed(acknowledgement("AA", control_id(message))))

    async with talk(answered_late, answer("AE"), ack_timeout_s=SHORT_S) as (_, sender):
        with pytest.raises(LinkError, match="no acknowledgement within"):
            await sent(sender, [hl7_parcel(1)])
        late.set()
        receipts = await sent(sender, [hl7_parcel(2)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED]


async def test_an_answer_without_its_last_cr_is_believed() -> None:
    async with talk(say(framed(acknowledgement("AA", b"ID-1"))[:-1])) as (_, sender):
        receipts = await sent(sender, [hl7_parcel(1), hl7_parcel(2)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED, Verdict.DELIVERED]


async def test_the_second_answer_of_enhanced_mode_is_not_misread() -> None:
    first_twice = answer("CA", after=framed(acknowledgement("AA", b"ID-1")))
    second_after_ae = answer("CA", before=framed(acknowledgement("AE", b"ID-1")))
    async with talk(first_twice, second_after_ae) as (receiver, sender):
        receipts = await sent(sender, [hl7_parcel(1), hl7_parcel(2), hl7_parcel(3)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED] * 3
    assert receiver.connections == 1


async def test_the_second_answer_to_a_control_id_is_not_taken_for_another_message_that_has_it_too() -> None:
    first, second = (
        b"MSH|^~\\&|LAB|X|||20260115||ORU^R01|SAME|P|2.5|||AL|AL\rPID|||%d\r" % number for number in (1, 2)
    )
    refused = answer("CE", error="207")
    late = framed(acknowledgement("AA", b"SAME"))

    async def answered_late(receiver: ScriptedReceiver, message: bytes, writer: asyncio.StreamWriter) -> None:
        receiver.writers[0].write(late)
        await refused(receiver, message, writer)

    async with talk(answer("CA"), answered_late) as (receiver, sender):
        receipts = await sent(sender, [hl7_parcel(1, raw=first), hl7_parcel(2, raw=second)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED, Verdict.RETRY]
    assert receiver.connections == 2


async def test_the_batch_ends_at_a_retry_and_goes_on_after_a_refusal() -> None:
    async with talk(answer("AE"), answer("AE", error="207")) as (receiver, sender):
        receipts = await sent(sender, [hl7_parcel(1), hl7_parcel(2), hl7_parcel(3)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED, Verdict.RETRY]
    assert len(receiver.messages) == 2


async def test_a_peer_that_closed_meanwhile_is_called_anew_before_anything_is_written() -> None:
    async with talk(then_close(answer("AA"))) as (receiver, sender):
        await sent(sender, [hl7_parcel(1)])
        await receiver.until_closed(1)
        receipts = await sent(sender, [hl7_parcel(2)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED]
    assert receiver.connections == 2
    assert len(receiver.messages) == 2


async def test_a_peer_that_closes_after_each_answer_gets_every_message() -> None:
    script = [then_close(answer("AA")) for _ in range(20)]
    parcels = [hl7_parcel(n) for n in range(20)]
    async with talk(*script) as (receiver, sender):
        receipts = await sent(sender, parcels)

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED] * 20
    assert list(dict.fromkeys(receiver.messages)) == [parcel.message.raw for parcel in parcels]


async def test_a_fresh_connection_closed_without_an_answer_is_not_tried_twice() -> None:
    async with talk(then_close(nothing)) as (receiver, sender):
        with pytest.raises(LinkError, match="closed"):
            await sent(sender, [hl7_parcel(1)])

    assert len(receiver.messages) == 1


async def test_a_peer_that_closes_in_the_moment_of_a_write_gets_the_same_bytes_once_more() -> None:
    async with talk(answer("AA"), then_close(nothing)) as (receiver, sender):
        receipts = await sent(sender, [hl7_parcel(1), hl7_parcel(2)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED, Verdict.DELIVERED]
    assert receiver.messages == [hl7_parcel(n).message.raw for n in (1, 2, 2)]


async def test_a_connection_that_closed_before_its_first_message_is_replaced() -> None:
    async with talk() as (receiver, sender):
        await sender.probe()
        await receiver.until_connected(1)
        receiver.writers[0].close()
        await receiver.until_closed(1)
        receipts = await sent(sender, [hl7_parcel(1)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED]
    assert receiver.connections == 2


async def test_an_answer_to_another_message_is_told_at_once() -> None:
    async with talk(say(framed(acknowledgement("AA", b"ID-2")))) as (_, sender):
        with pytest.raises(LinkError, match="another message"):
            await sent(sender, [hl7_parcel(1)])


async def test_the_socket_itself_tells_that_the_peer_left_before_the_loop_does() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        _, link = await asyncio.get_running_loop().create_connection(MllpLink, "127.0.0.1", port)
        peer, _ = server.accept()
        assert link.usable

        peer.close()  # and the loop has no turn to notice

        assert not link.usable
        link.abort()


async def test_a_message_that_forbids_answers_is_not_tried_for_ever() -> None:
    silent = b"MSH|^~\\&|LAB|X|||20260115||ORU^R01|ID-1|P|2.5|||NE|NE\r"
    async with talk(nothing, ack_timeout_s=SHORT_S) as (_, sender):
        first = await sent(sender, [hl7_parcel(1, raw=silent)])
        second = await sent(sender, [hl7_parcel(1, raw=silent)])

    assert first[0].verdict is Verdict.RETRY_CONTENT
    assert second[0].verdict is Verdict.DELIVERED


@pytest.mark.parametrize(
    "parcel",
    [
        hl7_parcel(1, raw=b"hello"),
        hl7_parcel(1, raw=b"MSH|^~\\&|LAB|\x1c\r|"),
        parcel_of(message_of(None)),
        parcel_of(message_of(None, kind=Kind.UNREADABLE)),
        parcel_of(message_of(None, kind=Kind.DICOM)),
    ],
)
async def test_what_cannot_go_over_mllp_is_refused_and_the_next_one_goes(parcel: Parcel) -> None:
    async with talk() as (receiver, sender):
        receipts = await sent(sender, [parcel, hl7_parcel(2)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED, Verdict.DELIVERED]
    assert len(receiver.messages) == 1


async def test_a_reason_carries_no_words_of_the_peer_and_a_kept_answer_is_bounded() -> None:
    wordy = b"\rNTE|1||" + b"x" * 9000

    async def act(receiver: ScriptedReceiver, message: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(framed(acknowledgement("AE", control_id(message), error="102") + wordy))

    async with talk(act) as (_, sender):
        [receipt] = await sent(sender, [hl7_parcel(1)])

    assert "Doe" not in (receipt.reason or "")
    assert len(receipt.acknowledgement or b"") == ACKNOWLEDGEMENT_BYTES_MAX


async def test_a_port_where_nobody_listens_is_a_link_error() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        sender = sender_to(unused.getsockname()[1])

        with pytest.raises(LinkError, match=r"127\.0\.0\.1"):
            await sent(sender, [hl7_parcel(1)])
        with pytest.raises(LinkError):
            await sender.probe()


async def test_a_probe_tells_where_it_connected() -> None:
    async with talk() as (receiver, sender):
        assert await sender.probe() == f"connected to 127.0.0.1:{receiver.port}"


async def test_a_batch_cut_short_by_its_reader_leaves_a_sound_connection() -> None:
    async with talk() as (receiver, sender):
        async with aclosing(sender.send([hl7_parcel(1), hl7_parcel(2)])) as receipts:
            assert (await anext(receipts)).delivery_id == 1
        receipts_after = await sent(sender, [hl7_parcel(2)])

    assert receipts_after[0].verdict is Verdict.DELIVERED
    assert receiver.connections == 1


async def test_a_cancelled_exchange_drops_its_connection() -> None:
    async with talk(nothing) as (receiver, sender):
        task = asyncio.create_task(sent(sender, [hl7_parcel(1)]))
        await receiver.until_received(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await receiver.until_closed(1)
        receipts = await sent(sender, [hl7_parcel(2)])

    assert receipts[0].verdict is Verdict.DELIVERED


async def test_a_message_of_16_megabytes_goes_out_whole() -> None:
    raw = b"MSH|^~\\&|LAB|X|||20260115||ORU^R01|ID-1|P|2.5\rOBX|1|ED|a||" + b"A" * (16 << 20) + b"\r"

    class Large(ScriptedReceiver):
        async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.messages.append((await reader.readexactly(len(raw) + 3))[1:-2])
            writer.write(framed(acknowledgement("AA", b"ID-1")))

    async with Large.serving() as receiver:
        sender = sender_to(receiver.port)
        [receipt] = await sent(sender, [hl7_parcel(1, raw=raw)])
        await sender.close()

    assert receipt.verdict is Verdict.DELIVERED
    assert receiver.messages == [raw]


async def test_tls_is_verified_by_name_and_authority(certificates: Certificates, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    async with ScriptedReceiver.serving(tls=context) as receiver:
        good = sender_to(receiver.port, tls=ClientTls(ca=certificates.ca))
        named = sender_to(receiver.port, tls=ClientTls(ca=certificates.ca, server_name="other.example"))
        unknown = sender_to(receiver.port, tls=ClientTls())

        [receipt] = await sent(good, [hl7_parcel(1)])
        for sender in (named, unknown, sender_to(receiver.port, tls=ClientTls(ca=tmp_path / "gone"))):
            with pytest.raises(LinkError):
                await sent(sender, [hl7_parcel(1)])
        await good.close()

    assert receipt.verdict is Verdict.DELIVERED


async def test_python_hl7_takes_what_we_send() -> None:
    received: list[str] = []

    async def converse(reader: hl7.mllp.HL7StreamReader, writer: hl7.mllp.HL7StreamWriter) -> None:
        while True:
            try:
                message = await reader.readmessage()
            except asyncio.IncompleteReadError:
                writer.close()
                return
            received.append(str(message))
            writer.writemessage(message.create_ack())
            await writer.drain()

    server = await start_hl7_server(converse, "127.0.0.1", 0, encoding="utf-8")
    parcels = [parcel_of(message_of(OXIMETER), control_id=f"W-{n}", number=n) for n in range(3)]
    async with server:
        sender = sender_to(server.sockets[0].getsockname()[1])
        receipts = await sent(sender, parcels)
        await sender.close()

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED] * 3
    assert received == [render_pcd01(parcel, ORIGIN).decode() for parcel in parcels]


async def test_hl7apy_which_serves_one_message_a_connection_takes_all_we_send() -> None:
    received: list[str] = []

    class Keep(AbstractHandler):  # type: ignore[misc]
        def reply(self) -> str:
            received.append(self.incoming_message)
            answered = self.incoming_message.split("|", 10)[9]
            return framed(acknowledgement("AA", answered.encode())).decode()

    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = MLLPServer("127.0.0.1", port, {"ORU^R01^ORU_R01": (Keep,), "ORU^R01": (Keep,)})
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    parcels = [parcel_of(message_of(OXIMETER), control_id=f"W-{n}", number=n) for n in range(8)]
    sender = sender_to(port)
    try:
        receipts = await sent(sender, parcels)
    finally:
        await sender.close()
        server.shutdown()
        server.server_close()
        thread.join()

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED] * 8
    assert received == [render_pcd01(parcel, ORIGIN).decode() for parcel in parcels]


def mpps_parcel() -> Parcel:
    message = message_of(None, kind=Kind.MPPS, raw=b"", number=3)
    facts = {"step": '{"00400252": ["CS", ["COMPLETED"]]}', "orders": '[{"00080050": ["SH", ["A1"]]}]'}
    return parcel_of(replace(message, headers=facts), number=3)


async def test_a_procedure_step_goes_out_as_an_order_status_where_one_is_wanted() -> None:
    async with ScriptedReceiver.serving() as receiver:
        sender = MllpSender(
            MllpDestination(name="ris", host="127.0.0.1", port=receiver.port, order_status="orm-o01"), origins
        )
        receipts = await sent(sender, [mpps_parcel()])
        await sender.close()

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED]
    assert receiver.messages == [render_order_status(mpps_parcel(), ORIGIN, "orm-o01")]


async def test_a_procedure_step_that_nobody_wanted_is_refused() -> None:
    async with talk() as (receiver, sender):
        receipts = await sent(sender, [mpps_parcel()])

    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED]
    assert receiver.messages == []
