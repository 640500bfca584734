"""A consumer of the gateway's MQTT feed: subscribes, journals what arrives, acknowledges after that (QoS 1).

The journal has topic, id and seq of the JSON payload (empty where there is none) and the sha256 of its bytes. A
persistent session (`--session`) makes the broker keep what is published while this is away.
"""

import argparse
import hashlib
import json
import threading
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from simulators.arguments import add_journal, address, make_parser
from simulators.journal import Journal
from simulators.lifecycle import announce, stop_flag, summarise

READY_TIMEOUT_S = 15.0
KEEPALIVE_S = 30
RECONNECT_S = (1, 5)


class Receiver:
    """Counts and journals; paho calls it from its network thread."""

    def __init__(self, options: argparse.Namespace, journal: Journal, stopped: threading.Event) -> None:
        self._options, self._journal, self._stopped = options, journal, stopped
        self.subscribed = threading.Event()
        self.received = self.connects = 0

    def on_connect(
        self, client: Client, userdata: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        """Subscribe, at first and after every reconnect."""
        if reason.is_failure:
            return
        self.connects += 1
        if self._options.version == "5":
            client.subscribe(self._options.topic, options=SubscribeOptions(qos=1, retainAsPublished=True))
        else:
            client.subscribe(self._options.topic, qos=1)

    def on_subscribe(
        self, client: Client, userdata: object, mid: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        """Note that from now on everything arrives."""
        self.subscribed.set()

    def on_message(self, client: Client, userdata: object, message: MQTTMessage) -> None:
        """Journal one message, then acknowledge it."""
        self.received += 1
        content = read_payload(message.payload)
        self._journal.note(
            ordinal=self.received,
            id=str(content.get("id", "")),
            sha256=hashlib.sha256(message.payload).hexdigest(),
            topic=message.topic,
            seq=content.get("seq"),
            retain=message.retain,
            duplicate=message.dup,
            bytes=len(message.payload),
        )
        self._journal.flush()
        if self._options.echo:
            print(json.dumps({"topic": message.topic, "payload": content}), flush=True)
        if message.qos:
            client.ack(message.mid, message.qos)
        if self._options.stop_after is not None and self.received >= self._options.stop_after:
            self._stopped.set()


def read_payload(payload: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object of a payload, empty when it is none."""
    try:
        content = json.loads(payload)
    except (UnicodeDecodeError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def run(options: argparse.Namespace) -> bool:
    """Receive until SIGTERM or until enough came; return whether the subscription ever stood."""
    stopped, journal = stop_flag(), Journal(options.journal)
    receiver = Receiver(options, journal, stopped)
    client = _client(options)
    client.on_connect, client.on_subscribe, client.on_message = (
        receiver.on_connect,
        receiver.on_subscribe,
        receiver.on_message,
    )
    host, port = options.to
    client.connect_async(host, port, KEEPALIVE_S)
    client.loop_start()
    ready = receiver.subscribed.wait(READY_TIMEOUT_S)
    if ready:
        announce(to=f"{host}:{port}", topic=options.topic, version=options.version)
        stopped.wait()
    client.disconnect()
    client.loop_stop()
    journal.close()
    summarise(received=receiver.received, connects=receiver.connects)
    return ready


def _client(options: argparse.Namespace) -> Client:
    protocol = MQTTv5 if options.version == "5" else MQTTv311
    clean = None if options.version == "5" else options.session is None
    client = Client(
        CallbackAPIVersion.VERSION2, options.session or "", clean_session=clean, protocol=protocol, manual_ack=True
    )
    client.reconnect_delay_set(*RECONNECT_S)
    if options.username is not None:
        client.username_pw_set(options.username, options.password)
    if options.ca is not None:
        client.tls_set(options.ca)
    return client


def main() -> None:
    """Run the command line; exit status 1 when no subscription could be made."""
    parser = make_parser(
        "mqtt_receiver",
        "Subscribes to an MQTT broker and journals what arrives.",
        "--to 127.0.0.1:1883 --topic 'mdg/#' --version 3.1.1 --journal feed.jsonl",
    )
    parser.add_argument("--to", type=address, default=("127.0.0.1", 1883), metavar="HOST:PORT")
    parser.add_argument("--topic", default="#", help="topic filter (default: everything)")
    parser.add_argument("--version", choices=("5", "3.1.1"), default="5")
    parser.add_argument("--session", metavar="CLIENT_ID", help="keep a session under this client id (3.1.1)")
    parser.add_argument("--username")
    parser.add_argument("--password")
    parser.add_argument("--ca", metavar="FILE", help="speak TLS and trust this authority")
    parser.add_argument("--stop-after", type=int, metavar="N", help="end after N messages")
    parser.add_argument("--echo", action="store_true", help="print topic and JSON payload of every message")
    add_journal(parser)
    if not run(parser.parse_args()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
