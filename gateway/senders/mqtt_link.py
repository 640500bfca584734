"""One MQTT connection to a broker: what is published, and the broker's word on each.

    dialling --CONNACK--> connected --close--> lost
             --refused--> lost      --socket closed, silence, DISCONNECT--> lost

paho-mqtt is the codec and keeps the protocol's state; the loop turns it: a worker thread dials (TCP, TLS), from then
on everything runs on the loop. A link lives for one connection and never repeats: paho's queue is not our memory.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.errors import LinkError, TemporaryError
from gateway.net.keepalive import acknowledge_at_once, keep_alive

RECEIVE_BYTES = 4096
MISC_S = 1.0  # how often pings are due to be looked at
_PACKET_TOO_LARGE = 0x95  # MQTT 5, 3.14.2.1
IN_FLIGHT_MAX = 65_535  # MQTT 5, 3.2.2.3.3: Receive Maximum where the broker names none


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One PUBLISH at QoS 1. `user` are user properties, `expiry_s` the Message Expiry Interval; both MQTT 5 only."""

    topic: str
    body: bytes
    content_type: str
    utf8: bool = True
    retain: bool = False
    expiry_s: int | None = None
    user: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """How to connect: where, as whom, with which last will. `tls` verifies `server_name`."""

    host: str
    port: int
    version: MQTTProtocolVersion
    client_id: str
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    keepalive_s: int
    timeout_s: float
    will: Publication | None = None


class _Properties(Properties):
    """The properties of a PUBLISH, encoded by us: paho's own cost more than all the rest of a publication."""

    def __init__(self, packed: bytes) -> None:  # paho's builds its tables of names anew each time
        self._packed = packed

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def pack(self) -> bytes:
        """Return what stands in the packet."""
        return self._packed


class _Client(Client):
    """paho's client, calling the host that we mean while TLS verifies the name that we mean.

    It reads and writes its socket through boxes, because paho asks for single bytes and sends each packet alone: what
    is published in one turn of the loop goes out together, at `flush`. `told` hears of PUBACKs and their reasons.
    """

    dial: Dial
    told: Callable[[int, int], None]
    _box = b""
    _unsent = b""

    def _sock_recv(self, bufsize: int) -> bytes:
        if not self._box:
            self._box = super()._sock_recv(RECEIVE_BYTES)
        taken, self._box = self._box[:bufsize], self._box[bufsize:]
        return taken

    @property
    def has_unread(self) -> bool:
        """Tell whether bytes were received that paho has not asked for yet."""
        return bool(self._box)

    def _sock_send(self, buf: bytes | bytearray) -> int:
        self._unsent += buf
        return len(buf)

    def flush(self) -> None:
        """Send what was gathered; what the socket does not take waits until it is writable."""
        while self._unsent and self.socket() is not None:
            try:
                taken = super()._sock_send(self._unsent)
            except BlockingIOError:  # paho has asked to be told
                return
            except OSError:
                self._unsent = b""
                self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
                return
            self._unsent = self._unsent[taken:]

    def _sock_close(self) -> None:
        with suppress(OSError):  # BlockingIOError is one: who does not read hears no farewell
            if self._unsent and self.socket() is not None:
                super()._sock_send(self._unsent)
        self._unsent = b""
        super()._sock_close()

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        if cmd != "PUBACK" or not 2 <= len(packet) <= 4 or packet[3:] > b"\0":
            return super()._handle_pubackcomp(cmd)
        mid = int.from_bytes(packet[:2], "big")  # without properties: the common case, without paho's objects
        if self._out_messages.pop(mid, None) is not None:
            self._inflight_messages -= 1
            self.told(mid, packet[2] if len(packet) > 2 else 0)  # MQTT 5, 3.4.2.1
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _create_socket_connection(self) -> socket.socket:
        connection = socket.create_connection((self.dial.host, self.dial.port), timeout=self.dial.timeout_s)
        keep_alive(connection)
        return connection

    def cut(self) -> None:
        """Close the socket without a word."""
        self._unsent = b""
        self._sock_close()


class MqttLink:
    """A connection. `lost` says why it is no more, None while it stands; `too_large` that a packet was the cause."""

    def __init__(self, dial: Dial) -> None:
        self.lost: str | None = None
        self.too_large = False
        self.receive_max = IN_FLIGHT_MAX
        self.packet_bytes_max: int | None = None
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._welcome: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._waiting: dict[int, asyncio.Future[int | None]] = {}
        self._misc: asyncio.TimerHandle | None = None
        self._adopted = False
        self._v5 = dial.version == MQTTProtocolVersion.MQTTv5
        self._place = f"{dial.host}:{dial.port}"
        self._client = self._client_of(dial)

    @property
    def in_flight(self) -> int:
        """Return how many publications wait for the broker's word."""
        return len(self._waiting)

    async def open(self) -> None:
        """Connect. Raises LinkError when the transport fails, TemporaryError when the broker refuses us."""
        dial = self._client.dial
        try:
            async with asyncio.timeout(dial.timeout_s):
                await self._dial(dial)
                reason = await self._welcome
        except TimeoutError as error:
            self.abort()
            raise LinkError(f"{self._place}: no connection within {dial.timeout_s:g} s") from error
        except OSError as error:
            self.abort()
            raise LinkError(f"{self._place}: {error.strerror or error}") from error
        except BaseException:
            self.abort()
            raise
        if reason.is_failure:
            self.abort()
            raise TemporaryError(f"{self._place}: the broker refused the connection: {reason}")
        if self.lost is not None:
            raise LinkError(f"{self._place}: {self.lost}")

    def publish(self, publication: Publication) -> asyncio.Future[int | None]:
        """Send at QoS 1; the future is the PUBACK's reason code, None when the connection is lost before."""
        future: asyncio.Future[int | None] = self._loop.create_future()
        if self.lost is not None:
            future.set_result(None)
            return future
        info = self._client.publish(
            publication.topic,
            publication.body,
            qos=1,
            retain=publication.retain,
            properties=_Properties(packed_properties(publication)) if self._v5 else None,
        )
        self._waiting[info.mid] = future
        return future

    def oldest(self) -> "asyncio.Future[int | None]":
        """Return the future of the publication that waits longest; there must be one."""
        return next(iter(self._waiting.values()))

    async def close(self) -> None:
        """Say DISCONNECT (normal: the last will is dropped) and wait until it is sent. The caller limits the wait."""
        if self.lost is None:
            self._client.disconnect()
            await self._ended.wait()

    def abort(self) -> None:
        """Cut the connection: the broker will publish the last will."""
        if self._adopted:
            self._client.cut()
        self._lose("aborted")

    def _client_of(self, dial: Dial) -> _Client:
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=dial.client_id,
            protocol=dial.version,
            reconnect_on_failure=False,
            clean_session=None if self._v5 else True,
        )
        client.dial = dial
        client.connect_timeout = dial.timeout_s
        client.max_inflight_messages = 0  # the caller keeps the limit
        client.username_pw_set(dial.username, dial.password)
        if dial.tls is not None:
            client.tls_set_context(dial.tls)
        if dial.will is not None:
            will = dial.will
            client.will_set(will.topic, will.body, 1, will.retain, self._will_properties(will))
        client.on_connect = self._connected
        client.on_publish = self._acknowledged
        client.told = self._tell
        client.on_disconnect = self._disconnected
        client.on_socket_register_write = self._wants_write
        client.on_socket_unregister_write = self._wants_no_write
        client.on_socket_close = self._closes
        return client

    def _will_properties(self, publication: Publication) -> Properties | None:
        if not self._v5:
            return None
        told = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
        told.ContentType = publication.content_type
        if publication.utf8:
            told.PayloadFormatIndicator = 1
        if publication.expiry_s is not None:
            told.MessageExpiryInterval = publication.expiry_s
        told.UserProperty = list(publication.user.items())
        return told

    async def _dial(self, dial: Dial) -> None:
        """Connect in a worker thread; one that is given up closes its own socket when it comes to its end."""
        dialled = self._loop.run_in_executor(None, self._dial_blocking, dial)
        try:
            await asyncio.shield(dialled)
        except asyncio.CancelledError:
            dialled.add_done_callback(self._discard)
            raise
        self._adopt()

    def _dial_blocking(self, dial: Dial) -> None:
        name = dial.server_name or dial.host
        if self._v5:
            self._client.connect(name, dial.port, dial.keepalive_s, clean_start=True)
        else:
            self._client.connect(name, dial.port, dial.keepalive_s)

    def _discard(self, dialled: "asyncio.Future[None]") -> None:
        if not dialled.cancelled() and dialled.exception() is None:
            self._client.cut()

    def _adopt(self) -> None:
        """Let the loop turn the client from here on."""
        connection = self._client.socket()
        if connection is None:
            raise LinkError(f"{self._place}: closed by the broker")
        self._adopted = True
        self._loop.add_reader(connection.fileno(), self._readable)
        if self._client.want_write():
            self._loop.add_writer(connection.fileno(), self._writable)
        self._misc = self._loop.call_later(MISC_S, self._miscellany)

    def _readable(self) -> None:
        self._client.loop_read()
        connection = self._client.socket()
        while connection is not None and (self._client.has_unread or _is_decrypted(connection)):  # select does not tell
            self._client.loop_read()
            connection = self._client.socket()
        if isinstance(connection, socket.socket):
            acknowledge_at_once(connection)

    def _writable(self) -> None:
        self._client.loop_write()
        self._client.flush()

    def _miscellany(self) -> None:
        if self.lost is None:
            self._client.loop_misc()
            self._misc = self._loop.call_later(MISC_S, self._miscellany)

    def _wants_write(self, client: Client, userdata: object, connection: Any) -> None:
        if self._adopted:
            self._loop.add_writer(connection.fileno(), self._writable)

    def _wants_no_write(self, client: Client, userdata: object, connection: Any) -> None:
        if self._adopted:
            self._loop.remove_writer(connection.fileno())

    def _closes(self, client: Client, userdata: object, connection: Any) -> None:
        if self._adopted:
            self._loop.remove_reader(connection.fileno())
            self._loop.remove_writer(connection.fileno())

    def _connected(
        self, client: Client, userdata: object, flags: ConnectFlags, reason: ReasonCode, told: Properties | None
    ) -> None:
        self.receive_max = getattr(told, "ReceiveMaximum", IN_FLIGHT_MAX)
        self.packet_bytes_max = getattr(told, "MaximumPacketSize", None)
        if not self._welcome.done():
            self._welcome.set_result(reason)

    def _acknowledged(
        self, client: Client, userdata: object, mid: int, reason: ReasonCode, told: Properties | None
    ) -> None:
        self._tell(mid, reason.value)

    def _tell(self, mid: int, reason: int) -> None:
        future = self._waiting.pop(mid, None)
        if future is not None and not future.done():
            future.set_result(reason)

    def _disconnected(
        self, client: Client, userdata: object, flags: DisconnectFlags, reason: ReasonCode, told: Properties | None
    ) -> None:
        self.too_large = reason.value == _PACKET_TOO_LARGE
        if flags.is_disconnect_packet_from_server:
            self._lose(f"the broker disconnected: {reason}")
        elif self._welcome.done():
            self._lose("connection lost")
        else:
            self._lose("closed before the broker answered: does it want mqtts://, or another version of MQTT?")

    def _lose(self, why: str) -> None:
        if self.lost is None:
            self.lost = why
        if self._misc is not None:
            self._misc.cancel()
        if not self._welcome.done():
            self._welcome.set_exception(LinkError(f"{self._place}: {why}"))
            self._welcome.exception()  # it may be that nobody waits for it any more
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_result(None)
        self._ended.set()


def packed_properties(publication: Publication) -> bytes:
    """Return the properties of a PUBLISH with their length before them (MQTT 5, 2.2.2 and 3.3.2.3)."""
    packed = b"\x01\x01" if publication.utf8 else b""
    if publication.expiry_s is not None:
        packed += b"\x02" + publication.expiry_s.to_bytes(4, "big")
    packed += b"\x03" + _utf8(publication.content_type)
    for name, value in publication.user.items():
        packed += b"\x26" + _utf8(name) + _utf8(value)
    return _variable_length(len(packed)) + packed


def _utf8(text: str) -> bytes:
    """Return a UTF-8 string with its two bytes of length (MQTT 5, 1.5.4)."""
    encoded = text.encode("utf-8")
    return len(encoded).to_bytes(2, "big") + encoded


def _variable_length(number: int) -> bytes:
    """Return a variable byte integer (MQTT 5, 1.5.5)."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _is_decrypted(connection: object) -> bool:
    """Tell whether TLS holds bytes that came and were not read yet."""
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
