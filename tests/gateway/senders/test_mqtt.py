import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from paho.mqtt.client import MQTTMessage

from gateway.clock import ManualClock
from gateway.config import ClientTls, MqttDestination
from gateway.errors import LinkError, TemporaryError
from gateway.formats.origin import Origin, device_id_of
from gateway.model import (
    Absent,
    Condition,
    DeviceIdentity,
    Kind,
    Message,
    Observation,
    Parcel,
    Priority,
    Receipt,
    Result,
    Verdict,
    Wave,
)
from gateway.senders.mqtt import MqttSender
from gateway.typed import Secret
from tests.gateway.formats.results_of import ORIGIN, OXIMETER, RECEIVED_AT, message_of, parcel_of
from tests.gateway.senders.broker import Broker, free_port, running, subscribed
from tests.gateway.senders.certificates import Certificates

SHORT_S = 0.3
GATEWAY = "mdg/1/ukx/ward-3a"
DEVICE = f"{GATEWAY}/0201F3FFFE00A417"
VALIDATOR = Draft202012Validator(
    json.loads(files("gateway.formats").joinpath("mqtt.schema.json").read_text()), format_checker=FormatChecker()
)
ONE_OBS = Result(observations=(Observation(key="spo2", sub="1.0.0.7", value=Decimal("97.0"), unit="%"),))


def origins(message: Message) -> Origin:
    device = ORIGIN.device_id if message.source == "bed-12" else device_id_of("ward-3a", message.source)
    return replace(ORIGIN, source=message.source, device_id=device, bed=message.headers.get("bed", ORIGIN.bed))


def sender_to(port: int, *, clock: ManualClock | None = None, scheme: str = "mqtt", **settings: Any) -> MqttSender:
    host = "localhost" if scheme == "mqtts" else "127.0.0.1"
    destination = MqttDestination(name="broker", url=f"{scheme}://{host}:{port}", site="ukx", **settings)
    return MqttSender(
        destination, ORIGIN.gateway, origins, clock or ManualClock(RECEIVED_AT), clock_synced=lambda: True
    )


def obs_parcel(number: int, result: Result = ONE_OBS, *, source: str = "bed-12") -> Parcel:
    message = replace(message_of(result, number=number), source=source)
    message = replace(message, received_at=RECEIVED_AT + timedelta(milliseconds=number))
    return parcel_of(message, number=number, ordinal=number)


def hl7_parcel(number: int, raw: bytes = b"MSH|^~\\&|\xe4\rPID|1\r") -> Parcel:
    return parcel_of(message_of(None, kind=Kind.HL7, raw=raw, number=number), number=number)


async def sent(sender: MqttSender, parcels: Sequence[Parcel]) -> list[Receipt]:
    async with aclosing(sender.send(parcels)) as receipts:
        return [receipt async for receipt in receipts]


def verdicts(receipts: Sequence[Receipt]) -> set[Verdict]:
    return {receipt.verdict for receipt in receipts}


def told(message: MQTTMessage) -> Any:
    document = json.loads(message.payload)
    VALIDATOR.validate(document)
    return document


@asynccontextmanager
async def talk(folder: Path, *lines: str, **settings: Any) -> AsyncIterator[tuple[Broker, MqttSender]]:
    async with running(folder, *lines) as broker:
        sender = sender_to(broker.port, **settings)
        try:
            yield broker, sender
        finally:
            await sender.close()


async def test_the_first_reading_is_preceded_by_status_birth_and_context(tmp_path: Path) -> None:
    async with talk(tmp_path) as (broker, sender), subscribed(broker.port) as subscriber:
        receipts = await sent(sender, [obs_parcel(5, OXIMETER)])
        messages = await subscriber.take(5)
        await sender.close()
        goodbye = await subscriber.next()

    assert [(receipt.verdict, receipt.acknowledgement) for receipt in receipts] == [(Verdict.DELIVERED, b"\x00")]
    assert [message.topic for message in messages] == [
        f"{GATEWAY}/status",
        f"{GATEWAY}/status",
        f"{DEVICE}/birth",
        f"{DEVICE}/context",
        f"{DEVICE}/obs",
    ]
    documents = [told(message) for message in messages]
    assert [document.get("state") for document in documents[:2]] == ["starting", "online"]
    assert len({document["session"] for document in documents}) == 1
    assert documents[4]["seq"] == 5
    assert documents[4]["clock"] == {"synced": True}
    assert documents[4]["historical"] is False
    assert (goodbye.topic, told(goodbye)["state"]) == (f"{GATEWAY}/status", "offline")


def wave_of(count: int, key: str = "ecg_wave_ii", code: int = 131330) -> Wave:
    return Wave(key=key, sub="1.1.2.1", samples=tuple(range(count)), period_s=Decimal("0.004"), code=code, unit="mV")


async def test_a_result_with_an_alarm_and_waves_is_delivered_when_all_of_it_is_acknowledged(tmp_path: Path) -> None:
    alarm = Condition(code="E1", text="low", priority=Priority.HIGH)
    mixed = replace(ONE_OBS, conditions=(alarm,), waves=(wave_of(60), wave_of(30, "pleth_wave", 150452)))
    parcels = [obs_parcel(1, mixed), obs_parcel(2), obs_parcel(3, Result(observations=(), waves=(wave_of(5),)))]
    async with talk(tmp_path, in_flight_max=2) as (broker, sender), subscribed(broker.port) as subscriber:
        receipts = await sent(sender, parcels)
        messages = [await subscriber.next() for _ in range(2 + 2 + 4 + 2)]  # status, birth and context before
        documents = [told(message) for message in messages]

    assert [(receipt.delivery_id, receipt.verdict, receipt.acknowledgement) for receipt in receipts] == [
        (1, Verdict.DELIVERED, b"\0\0\0\0"),
        (2, Verdict.DELIVERED, b"\0"),
        (3, Verdict.DELIVERED, b"\0"),
    ]
    news = [
        (message.topic.rsplit("/", 1)[1], document["seq"])
        for message, document in zip(messages, documents, strict=True)
    ]
    assert [one for one in news if one[0] in ("obs", "event", "wave")] == [
        ("obs", 1),
        ("event", 1),
        ("wave", 1),
        ("wave", 1),
        ("obs", 2),
        ("wave", 3),
    ]


async def test_of_a_parcel_with_one_document_too_large_nothing_is_published(tmp_path: Path) -> None:
    limits = ("allow_anonymous true", "max_packet_size 4096")
    async with talk(tmp_path, *limits) as (broker, sender), subscribed(broker.port, f"{DEVICE}/#") as subscriber:
        receipts = await sent(sender, [obs_parcel(1, replace(ONE_OBS, waves=(wave_of(2000),))), obs_parcel(2)])
        topics = [(await subscriber.next()).topic.rsplit("/", 1)[1] for _ in range(3)]

    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED, Verdict.DELIVERED]
    assert topics == ["birth", "context", "obs"]


async def test_messages_carry_the_properties_that_a_router_needs(tmp_path: Path) -> None:
    async with talk(tmp_path) as (broker, sender), subscribed(broker.port) as subscriber:
        await sent(sender, [obs_parcel(5), hl7_parcel(6)])
        *_, obs, hl7 = await subscriber.take(6)

    assert obs.properties.ContentType == "application/json"
    assert obs.properties.PayloadFormatIndicator == 1
    assert obs.properties.MessageExpiryInterval == 7 * 86_400
    assert obs.properties.UserProperty == [("id", told(obs)["id"]), ("schema", "obs/1"), ("site", "ukx")]
    assert (hl7.topic, hl7.payload) == (f"{GATEWAY}/bed-12/hl7", b"MSH|^~\\&|\xe4\rPID|1\r")
    assert hl7.properties.ContentType == "application/hl7-v2"


async def test_status_birth_and_context_wait_for_late_subscribers_and_readings_do_not(tmp_path: Path) -> None:
    async with talk(tmp_path) as (broker, sender):
        receipts = await sent(sender, [obs_parcel(1), hl7_parcel(2)])
        async with subscribed(broker.port) as subscriber:
            messages = await subscriber.take(3)
            await sender.close()
            last = await subscriber.next()

    assert {message.topic for message in messages} == {f"{GATEWAY}/status", f"{DEVICE}/birth", f"{DEVICE}/context"}
    assert told(last)["state"] == "offline"
    assert verdicts(receipts) == {Verdict.DELIVERED}


async def test_no_subscriber_is_delivered_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with talk(tmp_path) as (_, sender):
        receipts = await sent(sender, [hl7_parcel(1), hl7_parcel(2)])

    assert [(receipt.verdict, receipt.acknowledgement) for receipt in receipts] == [(Verdict.DELIVERED, b"\x10")] * 2
    assert [record.message for record in caplog.records].count("mqtt.no_subscriber destination=broker") == 1


async def test_readings_arrive_in_order_each_once(tmp_path: Path) -> None:
    parcels = [obs_parcel(n) for n in range(300)]
    obs = f"{DEVICE}/obs"
    async with talk(tmp_path, in_flight_max=7) as (broker, sender), subscribed(broker.port, obs) as subscriber:
        receipts = await sent(sender, parcels)
        messages = await subscriber.take(300)

    assert [receipt.delivery_id for receipt in receipts] == list(range(300))
    assert [told(message)["seq"] for message in messages] == list(range(300))


async def test_a_birth_comes_again_when_something_is_new_and_only_then(tmp_path: Path) -> None:
    other = replace(ONE_OBS, observations=(*ONE_OBS.observations, Observation(key="pulse", sub="1.0.0.8", value="x")))
    missing = Result(observations=(Observation(key="spo2", sub="1.0.0.7", absent=Absent.OFF),))
    parcels = [obs_parcel(1), obs_parcel(2), obs_parcel(3, missing), obs_parcel(4, other), obs_parcel(5)]
    async with talk(tmp_path) as (broker, sender), subscribed(broker.port, f"{GATEWAY}/+/+") as subscriber:
        await sent(sender, parcels)
        messages = await subscriber.take(9)

    kinds = [message.topic.rsplit("/", 1)[1] for message in messages]
    assert kinds == ["birth", "context", "obs", "obs", "obs", "birth", "context", "obs", "obs"]
    assert [metric["key"] for metric in told(messages[5])["metrics"]] == ["spo2", "pulse"]


async def test_a_reading_that_left_late_is_historical(tmp_path: Path) -> None:
    clock = ManualClock(RECEIVED_AT)
    obs = f"{DEVICE}/obs"
    async with talk(tmp_path, clock=clock) as (broker, sender), subscribed(broker.port, obs) as subscriber:
        clock.advance(31)
        await sent(sender, [obs_parcel(1)])
        message = await subscriber.next()

    assert told(message)["historical"] is True


async def test_what_cannot_go_over_mqtt_is_refused_and_the_next_one_goes(tmp_path: Path) -> None:
    bad = Result(observations=(Observation(key="spo2", sub="nowhere", value="x"),))
    dicom = parcel_of(message_of(None, kind=Kind.DICOM), number=2)
    async with talk(tmp_path) as (_, sender):
        receipts = await sent(sender, [obs_parcel(1, bad), dicom, obs_parcel(3)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED, Verdict.REFUSED, Verdict.DELIVERED]


async def test_a_message_larger_than_the_broker_takes_is_refused(tmp_path: Path) -> None:
    large = hl7_parcel(1, b"MSH|^~\\&|" + b"x" * 5000)
    async with talk(tmp_path, "allow_anonymous true", "max_packet_size 4096") as (_, sender):
        receipts = await sent(sender, [large, hl7_parcel(2)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED, Verdict.DELIVERED]


async def test_a_message_that_the_disk_has_changed_does_not_go_on(tmp_path: Path) -> None:
    whole = hl7_parcel(1)
    damaged = replace(whole, message=replace(whole.message, raw=b"MSH|^~\\&|\xe4\rPID|2\r"))
    async with talk(tmp_path) as (_, sender):
        receipts = await sent(sender, [damaged, hl7_parcel(2)])

    assert [receipt.verdict for receipt in receipts] == [Verdict.REFUSED, Verdict.DELIVERED]


async def test_a_birth_larger_than_the_broker_takes_is_left_out_and_stops_nothing(tmp_path: Path) -> None:
    grown = [
        Result(observations=tuple(replace(ONE_OBS.observations[0], sub=f"1.0.{n}.{m}") for m in range(1, 5)))
        for n in range(12)
    ]
    async with talk(tmp_path, "allow_anonymous true", "max_packet_size 2500") as (_, sender):
        receipts = [await sent(sender, [obs_parcel(n, result), hl7_parcel(n)]) for n, result in enumerate(grown)]

    assert verdicts([receipt for pair in receipts for receipt in pair]) == {Verdict.DELIVERED}


async def test_a_broker_that_dies_in_the_middle_of_a_batch_costs_nothing(tmp_path: Path) -> None:
    parcels = {n: obs_parcel(n) for n in range(300)}
    delivered: list[int] = []
    seen: list[MQTTMessage] = []
    async with talk(tmp_path) as (broker, sender):
        async with subscribed(broker.port, f"{DEVICE}/obs", qos=0) as before:
            with pytest.raises(LinkError):
                async for receipt in sender.send(list(parcels.values())):
                    delivered.append(parcels.pop(receipt.delivery_id).delivery.id)
                    if len(delivered) == 100:
                        await broker.kill()
            seen += await before.take(len(delivered))  # the broker had passed on what it acknowledged
            seen += before.so_far()
        with pytest.raises(LinkError):
            await sent(sender, list(parcels.values()))
        await broker.start()
        async with subscribed(broker.port, f"{DEVICE}/obs") as after:
            delivered += [receipt.delivery_id for receipt in await sent(sender, list(parcels.values()))]
            seen += await after.take(len(parcels))

    assert delivered == list(range(300))
    pairs = {(document["seq"], document["id"]) for document in (json.loads(message.payload) for message in seen)}
    assert {seq for seq, _ in pairs} == set(range(300))
    assert len(pairs) == 300


async def test_a_new_connection_announces_every_known_device(tmp_path: Path) -> None:
    async with talk(tmp_path) as (broker, sender):
        await sent(sender, [obs_parcel(1), obs_parcel(2, source="bed-13")])
        await broker.kill()
        await broker.start()
        async with subscribed(broker.port) as subscriber:
            with pytest.raises(LinkError):  # the loss shows at the latest here
                await sent(sender, [hl7_parcel(3)])
                raise LinkError("noticed before")
            await sent(sender, [hl7_parcel(3)])
            names = [message.topic.split("/", 4)[4] for message in await subscriber.take(7)]

    other = device_id_of("ward-3a", "bed-13")
    births = [f"{device}/{kind}" for device in ("0201F3FFFE00A417", other) for kind in ("birth", "context")]
    assert names[:6] == ["status", *births, "status"]


async def test_a_reading_that_is_sent_late_does_not_move_its_device_back_to_the_bed_of_then(tmp_path: Path) -> None:
    late = obs_parcel(1, OXIMETER)
    hour_ago = RECEIVED_AT - timedelta(hours=1)
    message = replace(late.message, headers={"bed": "ICU^^9"}, received_at=hour_ago)
    async with talk(tmp_path) as (broker, sender), subscribed(broker.port, f"{DEVICE}/#") as subscriber:
        await sent(sender, [obs_parcel(2), replace(late, message=message), obs_parcel(3)])
        seen = [(message.topic.rsplit("/", 1)[1], told(message)) for message in await subscriber.take(7)]

    assert [document["location"]["bed"] for kind, document in seen if kind == "context"] == ["12", "12"]
    assert [document["location"]["bed"] for kind, document in seen if kind == "obs"] == ["12", "9", "12"]


async def test_a_gateway_that_dies_is_told_lost_with_the_session_it_had(tmp_path: Path) -> None:
    async with talk(tmp_path) as (broker, sender), subscribed(broker.port, f"{GATEWAY}/status") as subscriber:
        await sent(sender, [hl7_parcel(1)])
        online = (await subscriber.take(2))[1]
        assert sender._link is not None
        sender._link.abort()
        lost = await subscriber.next()

    assert told(lost)["state"] == "lost"
    assert told(lost)["session"] == told(online)["session"]


async def test_a_refused_password_is_temporary_and_the_right_one_gets_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "words"
    words.touch(mode=0o600)
    made = await asyncio.create_subprocess_exec("mosquitto_passwd", "-b", str(words), "ward", "right")
    assert await made.wait() == 0
    words.chmod(0o644)
    monkeypatch.setenv("BROKER_WORD", "wrong")
    async with talk(
        tmp_path,
        "allow_anonymous false",
        f"password_file {words}",
        username="ward",
        password=Secret(env="BROKER_WORD"),
    ) as (_, sender):
        with pytest.raises(TemporaryError, match="refused"):
            await sent(sender, [hl7_parcel(1)])
        with pytest.raises(TemporaryError):
            await sender.probe()
        monkeypatch.setenv("BROKER_WORD", "right")
        receipts = await sent(sender, [hl7_parcel(1)])
        monkeypatch.delenv("BROKER_WORD")
        with pytest.raises(TemporaryError, match="BROKER_WORD"):
            await sender.probe()

    assert verdicts(receipts) == {Verdict.DELIVERED}


async def test_a_topic_that_is_not_ours_stops_the_destination_and_not_the_message(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text(f"topic write {GATEWAY}/status\ntopic write {DEVICE}/birth\ntopic write {DEVICE}/context\n")
    acl.chmod(0o644)
    async with talk(tmp_path, "allow_anonymous true", f"acl_file {acl}") as (_, sender):
        with pytest.raises(TemporaryError, match="0x87") as raised:
            await sent(sender, [obs_parcel(1)])

    assert raised.value.retry_after_s is not None


async def test_the_older_protocol_delivers_too(tmp_path: Path) -> None:
    async with talk(tmp_path, version="3.1.1") as (broker, sender), subscribed(broker.port) as subscriber:
        receipts = await sent(sender, [obs_parcel(n) for n in range(40)])
        messages = await subscriber.take(44)

    assert verdicts(receipts) == {Verdict.DELIVERED}
    assert [told(message)["seq"] for message in messages[4:]] == list(range(40))


async def test_tls_is_verified_by_name_and_authority(certificates: Certificates, tmp_path: Path) -> None:
    lines = [f"certfile {certificates.cert}", f"keyfile {certificates.key}", "allow_anonymous true"]
    async with running(tmp_path, *lines) as broker:
        good = sender_to(broker.port, scheme="mqtts", tls=ClientTls(ca=certificates.ca))
        named = sender_to(broker.port, scheme="mqtts", tls=ClientTls(ca=certificates.ca, server_name="other.example"))
        unknown = sender_to(broker.port, scheme="mqtts")
        receipts = await sent(good, [obs_parcel(n) for n in range(100)])
        for sender in (named, unknown):
            with pytest.raises(LinkError):
                await sent(sender, [hl7_parcel(1)])
        await good.close()

    assert verdicts(receipts) == {Verdict.DELIVERED}


async def test_a_broker_that_wants_tls_and_gets_none_is_told_in_words(
    certificates: Certificates, tmp_path: Path
) -> None:
    lines = [f"certfile {certificates.cert}", f"keyfile {certificates.key}", "allow_anonymous true"]
    async with running(tmp_path, *lines) as broker:
        with pytest.raises(LinkError, match="does it want mqtts://"):
            await sender_to(broker.port).probe()


async def test_a_name_of_the_certificate_may_differ_from_the_host(certificates: Certificates, tmp_path: Path) -> None:
    lines = [f"certfile {certificates.cert}", f"keyfile {certificates.key}", "allow_anonymous true"]
    async with running(tmp_path, *lines) as broker:
        destination = MqttDestination(
            name="broker",
            url=f"mqtts://127.0.0.2:{broker.port}",
            tls=ClientTls(ca=certificates.ca, server_name="localhost"),
        )
        with pytest.raises(LinkError, match="refused"):  # the listener is at 127.0.0.1: what we dial is the host
            await MqttSender(destination, ORIGIN.gateway, origins, ManualClock()).probe()
        near = replace(destination, url=f"mqtts://127.0.0.1:{broker.port}")
        assert "connected" in await MqttSender(near, ORIGIN.gateway, origins, ManualClock()).probe()


async def test_a_probe_leaves_the_running_gateway_alone(tmp_path: Path) -> None:
    async with talk(tmp_path) as (broker, sender):
        await sent(sender, [hl7_parcel(1)])
        answer = await sender_to(broker.port).probe()
        receipts = await sent(sender, [hl7_parcel(2)])
        connects = [line for line in broker.log if "New client connected" in line]

    assert answer == f"connected to mqtt://127.0.0.1:{broker.port} with MQTT 5"
    assert verdicts(receipts) == {Verdict.DELIVERED}
    assert len(connects) == 2


async def test_a_second_gateway_of_the_same_name_is_noticed(tmp_path: Path) -> None:
    async with talk(tmp_path) as (broker, sender):
        await sent(sender, [hl7_parcel(1)])
        twin = sender_to(broker.port)
        await sent(twin, [hl7_parcel(1)])
        link = sender._link
        assert link is not None
        async with asyncio.timeout(5):
            await link._ended.wait()
        await twin.close()

    assert link.lost is not None


async def test_a_port_where_nobody_listens_is_a_link_error() -> None:
    sender = sender_to(free_port())

    with pytest.raises(LinkError, match="refused"):
        await sent(sender, [hl7_parcel(1)])
    with pytest.raises(LinkError):
        await sender.probe()
    await sender.close()


async def test_a_broker_that_says_nothing_is_given_up() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        sender = sender_to(mute.getsockname()[1], connect_timeout_s=SHORT_S)

        with pytest.raises(LinkError, match="no connection within"):
            await sent(sender, [hl7_parcel(1)])


async def test_a_tls_handshake_that_never_ends_is_given_up(certificates: Certificates) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        port = mute.getsockname()[1]
        sender = sender_to(port, scheme="mqtts", connect_timeout_s=SHORT_S, tls=ClientTls(ca=certificates.ca))

        with pytest.raises(LinkError):
            await sent(sender, [hl7_parcel(1)])


class MuteBroker:
    """Answers CONNECT and then no PUBLISH, or the reason codes it is told, in order."""

    def __init__(self, *reasons: int | bytes | None, connack: bytes = b"") -> None:
        self._reasons = list(reasons)
        self._connack = connack
        self.writers: list[asyncio.StreamWriter] = []
        self.publishes = 0
        self._conversations: list[asyncio.Future[None]] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()
            async with asyncio.timeout(5):
                await asyncio.gather(*self._conversations)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self._conversations.append(ended := asyncio.get_running_loop().create_future())
        try:
            while True:
                kind, body = await self._packet(reader)
                if kind >> 4 == 1:
                    writer.write(bytes([0x20, 3 + len(self._connack), 0, 0, len(self._connack)]) + self._connack)
                if kind >> 4 == 3:
                    self.publishes += 1
                    at = 2 + int.from_bytes(body[:2], "big")
                    reason = self._reasons.pop(0) if self._reasons else None
                    if isinstance(reason, bytes):
                        writer.write(reason)
                    elif reason is not None:
                        writer.write(b"\x40\x03" + body[at : at + 2] + bytes([reason]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            ended.set_result(None)

    async def _packet(self, reader: asyncio.StreamReader) -> tuple[int, bytes]:
        kind, size, shift = (await reader.readexactly(1))[0], 0, 0
        while True:
            byte = (await reader.readexactly(1))[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return kind, await reader.readexactly(size)


async def test_silence_after_a_publish_breaks_the_connection() -> None:
    broker = MuteBroker(0, 0, 0)
    async with broker.serving() as port:
        sender = sender_to(port, ack_timeout_s=SHORT_S)
        with pytest.raises(LinkError, match="no PUBACK within"):
            await sent(sender, [hl7_parcel(1), hl7_parcel(2)])

    assert len(broker.writers) == 1


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        (0x00, Verdict.DELIVERED),
        (0x10, Verdict.DELIVERED),
        (0x80, Verdict.RETRY_CONTENT),
        (0x83, Verdict.RETRY_CONTENT),
        (0x90, Verdict.REFUSED),
        (0x99, Verdict.REFUSED),
    ],
)
async def test_every_reason_has_its_verdict(reason: int, verdict: Verdict) -> None:
    async with MuteBroker(0, 0, reason).serving() as port:
        sender = sender_to(port)
        receipts = await sent(sender, [hl7_parcel(1)])

    assert [receipt.verdict for receipt in receipts] == [verdict]
    assert receipts[0].acknowledgement == bytes([reason])


async def test_a_packet_too_large_is_refused_when_it_comes_again() -> None:
    parcels = [hl7_parcel(1), hl7_parcel(2, b"MSH|^~\\&|" + b"x" * 500), hl7_parcel(3)]
    async with MuteBroker(0, 0, b"\xe0\x02\x95\x00", None, None, 0, 0, 0, 0).serving() as port:
        sender = sender_to(port)
        with pytest.raises(LinkError, match="too large"):
            await sent(sender, parcels)
        receipts = await sent(sender, parcels)

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED, Verdict.REFUSED, Verdict.DELIVERED]


async def test_an_announcement_too_large_is_left_out_when_it_comes_again() -> None:
    broker = MuteBroker(0, 0, b"\xe0\x02\x95\x00", 0, 0, 0, 0, 0)
    grown = replace(ONE_OBS, device=DeviceIdentity(model="x" * 2000))  # stands in the birth alone
    async with broker.serving() as port:
        sender = sender_to(port)
        with pytest.raises(LinkError, match="too large"):
            await sent(sender, [obs_parcel(1, grown)])
        receipts = await sent(sender, [obs_parcel(1, grown), hl7_parcel(2)])

    assert verdicts(receipts) == {Verdict.DELIVERED}


async def test_over_quota_is_temporary_with_a_pause() -> None:
    async with MuteBroker(0, 0, 0, 0x97).serving() as port:
        sender = sender_to(port)
        receipts = []
        with pytest.raises(TemporaryError) as raised:
            async for receipt in sender.send([hl7_parcel(1), hl7_parcel(2)]):
                receipts.append(receipt)

    assert [receipt.verdict for receipt in receipts] == [Verdict.DELIVERED]
    assert raised.value.retry_after_s is not None


async def test_never_more_is_in_flight_than_the_broker_allows() -> None:
    receive_maximum = bytes([0x21, 0, 2])
    broker = MuteBroker(0, 0, connack=receive_maximum)
    async with broker.serving() as port:
        sender = sender_to(port, ack_timeout_s=SHORT_S)
        with pytest.raises(LinkError):
            await sent(sender, [hl7_parcel(n) for n in range(10)])

    assert broker.publishes == 2 + 2


async def test_an_announcement_that_the_broker_dislikes_stops_nothing() -> None:
    async with MuteBroker(0x99, 0x83, 0).serving() as port:
        sender = sender_to(port)
        receipts = await sent(sender, [hl7_parcel(1)])

    assert verdicts(receipts) == {Verdict.DELIVERED}


async def test_mosquitto_sub_gets_the_digits_of_the_device(tmp_path: Path) -> None:
    async with talk(tmp_path) as (broker, sender):
        reader = await asyncio.create_subprocess_exec(
            *("mosquitto_sub", "-p", str(broker.port), "-V", "5", "-t", f"{DEVICE}/obs", "-C", "1", "-F", "%p"),
            stdout=asyncio.subprocess.PIPE,
        )
        await broker.until_logged("Sending SUBACK")
        await sent(sender, [obs_parcel(1)])
        async with asyncio.timeout(5):
            output, _ = await reader.communicate()

    assert b'"value":97.0,"unit":"%"' in output
