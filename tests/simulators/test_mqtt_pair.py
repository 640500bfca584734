"""Broker and subscriber against each other and against Mosquitto's."""

import json
import socket
import subprocess
import time

from simulators.journal import read_journal


def _publish(port, number, *options):
    payload = json.dumps({"id": f"n{number}", "seq": number})
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", "mdg/1/site/gw/obs", "-m", payload]
    subprocess.run([*command, *options], check=True, timeout=20)


def test_what_is_published_is_journalled_in_order(start, tmp_path):
    broker = start("broker")
    receiver = start(
        "mqtt_receiver", "--to", f"127.0.0.1:{broker.port}", "--version", "3.1.1", "--journal", tmp_path / "r",
        "--topic", "mdg/#", "--stop-after", 3,
    )  # fmt: skip
    for number in (1, 2, 3):
        _publish(broker.port, number)

    assert receiver.result()["received"] == 3
    entries = read_journal(tmp_path / "r")
    assert [(entry["id"], entry["seq"], entry["topic"]) for entry in entries] == [
        (f"n{number}", number, "mdg/1/site/gw/obs") for number in (1, 2, 3)
    ]
    broker.stop()


def test_the_embedded_broker_turns_version_5_away(start):
    broker = start("broker")
    connect = b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02me"
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as wire:
        wire.sendall(connect)
        answer = wire.recv(10)

    assert answer == b"\x20\x02\x00\x01"  # CONNACK, unacceptable protocol version


def test_version_5_is_received_from_mosquitto(start, tmp_path):
    with socket.socket() as wire:
        wire.bind(("127.0.0.1", 0))
        port = wire.getsockname()[1]
    with subprocess.Popen(["mosquitto", "-p", str(port)], stderr=subprocess.DEVNULL) as mosquitto:
        try:
            _wait_for(port)
            arguments = ("--to", f"127.0.0.1:{port}", "--stop-after", 1, "--journal", tmp_path / "r")
            receiver = start("mqtt_receiver", *arguments)
            _publish(port, 7, "-V", "5")
            assert receiver.result()["received"] == 1
        finally:
            mosquitto.kill()

    assert read_journal(tmp_path / "r")[0]["id"] == "n7"


def _wait_for(port):
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < until, "mosquitto does not listen"
