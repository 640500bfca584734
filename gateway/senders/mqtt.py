"""JSON and HL7 to an MQTT broker: delivered means PUBACK.

    closed --connect, status starting, births, status online--> open --publish, PUBACK--> open
                                                                open --close--> status offline, DISCONNECT
                                                                open --loss, silence--> closed (last will: lost)

Topics: `<root>/1/<site>/<gateway>/status` and, below the gateway, `<device>/birth`, `context`, `obs`, `event`, `wave`
and `<source>/hl7`. `status`, `birth` and `context` are retained, the others are not. All go out at QoS 1, waves too: a
Parcel is delivered when all that it became is acknowledged. What a PUBACK means:

    below 0x80        delivered; 0x10 (nobody subscribes) too, told once a session
    0x87              we may not write there: TemporaryError, because no message will fare better
    0x97              over quota: TemporaryError with a pause
    0x90, 0x99        topic name, payload format: REFUSED
    0x80, 0x83, else  RETRY_CONTENT

A packet larger than the broker said it takes is REFUSED unsent. A broker that does not say, but disconnects with
0x95 (packet too large), has refused the largest of those under way: from then on its like is REFUSED unsent too. An
announcement (status, birth, context) that is too large is left out and told; what its Device measures goes on.

MQTT 3.1.1 knows no reasons: there a broker drops what we may not write in silence, and calls it delivered.
Parcels are published ahead, up to `in_flight_max` and the broker's Receive Maximum, and their Receipts come in order;
after a loss those without a Receipt go out again, each with the same id. The last will and the births of one
connection carry its session, so that a consumer can tell a late `lost` from a new one.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from math import inf
from urllib.parse import urlsplit
from uuid import uuid4

from paho.mqtt.enums import MQTTProtocolVersion

from gateway.clock import Clock
from gateway.config import ClientTls, MqttDestination
from gateway.errors import ConfigError, ContentError, LinkError, TemporaryError
from gateway.formats import events
from gateway.formats.births import Birth, Births
from gateway.formats.events import Document, Envelope
from gateway.formats.hl7_digest import intact
from gateway.formats.origin import Origin, Origins, gateway_level, topic_level
from gateway.formats.result_documents import result_documents
from gateway.model import Kind, Message, Parcel, Receipt, Verdict
from gateway.net.tls import client_context
from gateway.secrets import resolve_secret
from gateway.senders.mqtt_link import Dial, MqttLink, Publication

EXPIRY_S = 7 * 86_400  # of obs, event and hl7, in the broker
HISTORICAL_S = 30.0  # older than this when it leaves: a live display must not show it as news
BATCH_MAX = 256
NOT_AUTHORISED_PAUSE_S = 30.0
QUOTA_PAUSE_S = 5.0
CLOSE_TIMEOUT_S = 2.0  # for the last status and DISCONNECT
PACKET_OVERHEAD = 512  # bytes of a PUBLISH beside topic and payload: header and our properties

_NO_SUBSCRIBER, _NOT_AUTHORISED, _QUOTA = 0x10, 0x87, 0x97  # MQTT 5, 3.4.2.1
_REFUSED = frozenset({0x90, 0x99})  # topic name invalid, payload format invalid
_FAILURE = 0x80
_PORTS = {"mqtt": 1883, "mqtts": 8883}

_log = logging.getLogger("gateway.senders")


@dataclass(frozen=True, slots=True)
class _Published:
    """A Parcel on its way, in one publication or several: the broker's word on each is to come."""

    delivery_id: int
    size: int  # of the largest
    acknowledged: tuple["asyncio.Future[int | None]", ...]


class MqttSender:
    """Speaks to one broker over one connection, kept open between calls.

    `clock_synced` tells whether the gateway's clock is synchronised, None when it cannot know.
    """

    batch_max = BATCH_MAX

    def __init__(
        self,
        settings: MqttDestination,
        gateway: str,
        origins: Origins,
        clock: Clock,
        *,
        clock_synced: Callable[[], bool | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._origins = origins
        self._clock = clock
        self._clock_synced = clock_synced
        self._gateway = gateway_level(gateway)
        self._root = f"{settings.topic_root}/1/{settings.site}/{self._gateway}"
        self._started_at = clock.now()
        self._births = Births()
        self._link: MqttLink | None = None
        self._session = ""
        self._seq = 0
        self._told_no_subscriber = False
        self._size_max: int | None = None  # learnt from a broker that did not say
        self._announcing = 0  # bytes of the announcement under way

    async def send(self, parcels: Sequence[Parcel]) -> AsyncGenerator[Receipt, None]:
        """Publish ahead and yield the Receipts in order; see `Sender.send`."""
        link = await self._connected()
        under_way: deque[_Published | Receipt] = deque()
        ahead = deque(parcels)
        while ahead or under_way:
            is_next_told = bool(under_way) and _is_told(under_way[0])
            try:
                if ahead and not is_next_told and (self._has_room(link) or not under_way):
                    under_way.append(await self._publish(link, ahead.popleft()))
                    continue
                receipt = await self._settle(link, under_way[0])
            except LinkError:
                self._learn_size(link, under_way)
                raise
            under_way.popleft()
            yield receipt
            if receipt.verdict in (Verdict.RETRY, Verdict.RETRY_CONTENT):
                return

    async def probe(self) -> str:
        """Connect under a name of its own, so that a running gateway keeps its connection, and leave again.

        Raises LinkError or TemporaryError.
        """
        link = MqttLink(self._dial(f"{self._client_id}-probe-{uuid4().hex[:8]}", None))
        await link.open()
        await self._leave(link)
        return f"connected to {self._settings.url} with MQTT {self._settings.version}"

    async def close(self) -> None:
        """Tell that the gateway goes offline, and disconnect."""
        link, self._link = self._link, None
        if link is None or link.lost is not None:
            return
        try:
            with suppress(TimeoutError, LinkError, TemporaryError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await link.publish(self._status("offline"))
        finally:
            await self._leave(link)

    @property
    def _client_id(self) -> str:
        return self._settings.client_id or f"{self._gateway}-{topic_level(self._settings.name)}"

    async def _leave(self, link: MqttLink) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await link.close()
        finally:
            link.abort()

    async def _connected(self) -> MqttLink:
        if self._link is not None and self._link.lost is None:
            return self._link
        self._drop()
        self._session = events.session_of(self._clock.now())
        self._seq, self._told_no_subscriber = 0, False
        link = MqttLink(self._dial(self._client_id, self._status("lost")))
        await link.open()
        self._link = link
        _log.info("mqtt.connected destination=%s session=%s", self._settings.name, self._session)
        try:
            await self._announce(link, self._status("starting"))
            for known in self._births:
                await self._announce_device(link, known)
            await self._announce(link, self._status("online"))
        except BaseException:
            self._learn_size(link, ())
            self._drop()
            raise
        return link

    def _dial(self, client_id: str, will: Publication | None) -> Dial:
        settings = self._settings
        place = urlsplit(settings.url)
        tls = settings.tls or (ClientTls() if place.scheme == "mqtts" else None)
        try:
            password = resolve_secret(settings.password) if settings.password is not None else None
        except ConfigError as error:
            raise TemporaryError(str(error)) from error
        return Dial(
            host=place.hostname or "",
            port=place.port or _PORTS[place.scheme],
            version=MQTTProtocolVersion.MQTTv5 if settings.version == "5" else MQTTProtocolVersion.MQTTv311,
            client_id=client_id,
            username=settings.username,
            password=password,
            tls=client_context(tls) if tls is not None else None,
            server_name=tls.server_name if tls is not None else None,
            keepalive_s=settings.keepalive_s,
            timeout_s=settings.connect_timeout_s,
            will=will,
        )

    async def _announce_device(self, link: MqttLink, known: Birth) -> None:
        origin = known.origin
        born = events.birth(self._envelope(), known)
        await self._announce(link, self._retained(f"{origin.device_id}/birth", born))
        if origin.bed:
            place = events.context(self._envelope(), origin, self._started_at)
            await self._announce(link, self._retained(f"{origin.device_id}/context", place))

    async def _announce(self, link: MqttLink, publication: Publication) -> None:
        """Publish what no Parcel brings, and wait; that the broker dislikes it is told, and stops nothing."""
        size = _size_of(publication)
        if size > self._limit(link):
            _log.warning("mqtt.announcement_too_large destination=%s bytes=%d", self._settings.name, size)
            return
        self._announcing = size
        reason = await self._acknowledged(link, link.publish(publication))
        self._announcing = 0
        _raise_if_not_now(reason)
        if reason >= _FAILURE:
            _log.warning("mqtt.announcement_refused destination=%s reason=0x%02X", self._settings.name, reason)

    def _status(self, state: events.State) -> Publication:
        told = events.status(
            self._envelope(), state, version=_version(), started_at=self._started_at, devices=len(self._births)
        )
        return self._retained("status", told)

    def _envelope(self) -> Envelope:
        """Return the envelope of a retained document: they are counted from 0 in each session."""
        envelope = Envelope(gateway=self._gateway, session=self._session, seq=self._seq, sent_at=self._clock.now())
        self._seq += 1
        return envelope

    def _retained(self, topic: str, told: Document) -> Publication:
        return Publication(
            topic=f"{self._root}/{topic}",
            body=told.body,
            content_type="application/json",
            retain=True,
            user=self._user(told.id, told.schema),
        )

    def _user(self, document_id: str, schema: str) -> dict[str, str]:
        return {"id": document_id, "schema": schema, "site": self._settings.site}

    def _has_room(self, link: MqttLink) -> bool:
        return link.in_flight < min(self._settings.in_flight_max, link.receive_max)

    async def _publish(self, link: MqttLink, parcel: Parcel) -> _Published | Receipt:
        number = parcel.delivery.id
        try:
            publications = await self._publications(link, parcel)
        except ContentError as error:
            return Receipt(delivery_id=number, verdict=Verdict.REFUSED, reason=str(error))
        size = max(map(_size_of, publications))
        if size > self._limit(link):
            reason = f"{size} bytes, the broker takes {self._limit(link):.0f}"
            return Receipt(delivery_id=number, verdict=Verdict.REFUSED, reason=reason)
        acknowledged = []
        for publication in publications:
            await self._room(link)
            acknowledged.append(link.publish(publication))
        return _Published(number, size, tuple(acknowledged))

    async def _publications(self, link: MqttLink, parcel: Parcel) -> tuple[Publication, ...]:
        """Return what a Parcel becomes, at least one. Raises ContentError."""
        message = parcel.message
        match message.kind:
            case Kind.OBSERVATIONS:
                return await self._observations(link, parcel)
            case Kind.HL7 if message.raw is not None:
                hl7 = Publication(
                    topic=f"{self._root}/{topic_level(message.source)}/hl7",
                    body=intact(message, message.raw),
                    content_type="application/hl7-v2",
                    utf8=False,  # as received, in whatever character set MSH-18 names
                    expiry_s=EXPIRY_S,
                    user=self._user(events.hl7_id(message), "hl7-v2"),
                )
                return (hl7,)
            case _:
                raise ContentError(f"a {message.kind.value} message cannot go over MQTT")

    async def _observations(self, link: MqttLink, parcel: Parcel) -> tuple[Publication, ...]:
        message, now = parcel.message, self._clock.now()
        if message.result is None:
            raise ContentError(f"message {message.id}: no Result to render")
        origin = self._origins(message)
        envelope = Envelope(gateway=self._gateway, session=self._session, seq=parcel.delivery.ordinal, sent_at=now)
        historical, synced = _is_historical(message, now), self._clock_synced()
        documents = result_documents(envelope, message, origin, historical=historical, synced=synced)
        stands = (self._births.origin_of(message.source) if historical else None) or origin  # old news move no Device
        if (known := self._births.learn(message.source, stands, message.result)) is not None:
            await self._announce_device(link, known)
            self._births.keep(message.source, known)
        return tuple(self._reading(origin, told) for told in documents)

    def _reading(self, origin: Origin, told: Document) -> Publication:
        return Publication(
            topic=f"{self._root}/{origin.device_id}/{told.kind}",
            body=told.body,
            content_type="application/json",
            expiry_s=None if told.kind == "wave" else EXPIRY_S,
            user=self._user(told.id, told.schema),
        )

    async def _settle(self, link: MqttLink, item: _Published | Receipt) -> Receipt:
        if isinstance(item, Receipt):
            return item
        reasons = [await self._acknowledged(link, one) for one in item.acknowledged]
        for reason in reasons:
            _raise_if_not_now(reason)
        if _NO_SUBSCRIBER in reasons and not self._told_no_subscriber:
            self._told_no_subscriber = True
            _log.warning("mqtt.no_subscriber destination=%s", self._settings.name)
        return _receipt(item.delivery_id, reasons)

    async def _acknowledged(self, link: MqttLink, acknowledged: "asyncio.Future[int | None]") -> int:
        limit_s = self._settings.ack_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                reason = await acknowledged
        except TimeoutError as error:
            self._drop()
            raise LinkError(f"{self._settings.url}: no PUBACK within {limit_s:g} s") from error
        if reason is None:
            raise LinkError(f"{self._settings.url}: {link.lost}")
        return reason

    async def _room(self, link: MqttLink) -> None:
        """Wait until one more may be in flight: a batch that ended early may have left some."""
        while not self._has_room(link):
            await self._acknowledged(link, link.oldest())

    def _limit(self, link: MqttLink) -> float:
        """Return how large a packet may be."""
        return min(limit for limit in (link.packet_bytes_max, self._size_max, inf) if limit is not None)

    def _learn_size(self, link: MqttLink, under_way: Iterable[_Published | Receipt]) -> None:
        """Blame the largest of those under way, where the broker named no limit and left because of one."""
        if link.too_large:
            sizes = [item.size for item in under_way if isinstance(item, _Published)]
            self._size_max = max([self._announcing, *sizes]) - 1
        self._announcing = 0

    def _drop(self) -> None:
        if self._link is not None:
            self._link.abort()
            self._link = None


def _size_of(publication: Publication) -> int:
    """Return how large a packet it becomes, at most."""
    return len(publication.topic) + len(publication.body) + PACKET_OVERHEAD


def _is_told(item: _Published | Receipt) -> bool:
    """Tell whether the broker's word on all of a Parcel is known."""
    return isinstance(item, Receipt) or all(one.done() for one in item.acknowledged)


def _version() -> str:
    try:
        return version("medical-edge-gateway")
    except PackageNotFoundError:
        return "unknown"


def _is_historical(message: Message, now: datetime) -> bool:
    assert message.result is not None
    observed_at = message.result.observed_at or message.received_at
    return now - observed_at > timedelta(seconds=HISTORICAL_S)


def _raise_if_not_now(reason: int) -> None:
    if reason == _NOT_AUTHORISED:
        raise TemporaryError("PUBACK 0x87: not authorised to publish there", retry_after_s=NOT_AUTHORISED_PAUSE_S)
    if reason == _QUOTA:
        raise TemporaryError("PUBACK 0x97: quota exceeded", retry_after_s=QUOTA_PAUSE_S)


def _receipt(number: int, reasons: Sequence[int]) -> Receipt:
    """Return the verdict on a Parcel of which each publication has its reason: the worst of them counts."""
    words = bytes(reasons)
    failures = [reason for reason in reasons if reason >= _FAILURE]
    if not failures:
        return Receipt(delivery_id=number, verdict=Verdict.DELIVERED, acknowledgement=words)
    worst = next((reason for reason in failures if reason in _REFUSED), failures[0])
    verdict = Verdict.REFUSED if worst in _REFUSED else Verdict.RETRY_CONTENT
    return Receipt(delivery_id=number, verdict=verdict, reason=f"PUBACK 0x{worst:02X}", acknowledgement=words)
