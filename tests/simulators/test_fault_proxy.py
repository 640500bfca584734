"""The proxy forwards, and each fault is what it says on the wire."""

import json
import socket
import time

import pytest


class Line:
    """A connection through the proxy to a server of the test's own, and the proxy's control connection."""

    def __init__(self, proxy, server):
        self.proxy, self.server = proxy, server
        self.control = socket.create_connection(("127.0.0.1", proxy.ready["control"]), timeout=10)
        self.answers = self.control.makefile("rb")

    def command(self, **wanted):
        self.control.sendall(json.dumps(wanted).encode() + b"\n")
        return json.loads(self.answers.readline())

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10)
        far, _ = self.server.accept()
        far.settimeout(10)
        return client, far


@pytest.fixture
def line(start):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        to = f"127.0.0.1:{server.getsockname()[1]}"
        made = Line(start("fault_proxy", "--to", to, "--control", "127.0.0.1:0"), server)
        yield made
        made.answers.close()
        made.control.close()


def test_bytes_pass_both_ways_and_so_does_the_end(line):
    client, far = line.connect()
    with client, far:
        client.sendall(b"ask")
        assert far.recv(10) == b"ask"
        far.sendall(b"answer")
        assert client.recv(10) == b"answer"
        far.close()
        assert client.recv(10) == b""


def test_latency_delays(line):
    client, far = line.connect()
    with client, far:
        line.command(latency_s=0.2)
        began_s = time.monotonic()
        client.sendall(b"slow")
        assert far.recv(10) == b"slow"
        assert time.monotonic() - began_s >= 0.2


def test_bandwidth_limits(line):
    client, far = line.connect()
    with client, far:
        line.command(bandwidth=65536)
        began_s, received = time.monotonic(), 0
        client.sendall(b"x" * 32768)
        while received < 32768:
            received += len(far.recv(65536))
        assert time.monotonic() - began_s >= 0.2


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_connection_is_cut_after_n_bytes(line, how):
    line.command(cut_after=5, cut=how)
    client, far = line.connect()
    with client, far:
        client.sendall(b"0123456789")
        if how == "fin":
            assert _rest(client) == b""
        else:
            with pytest.raises(ConnectionResetError):
                _rest(client)


def test_a_half_open_connection_is_silent_until_it_goes_on(line):
    client, far = line.connect()
    with client, far:
        line.command(half_open=True)
        client.sendall(b"held")
        far.settimeout(0.2)
        with pytest.raises(TimeoutError):
            far.recv(10)
        line.command(half_open=False)
        far.settimeout(10)
        assert far.recv(10) == b"held"


def test_everything_is_reset_on_command(line):
    client, far = line.connect()
    with client, far:
        client.sendall(b"x")
        far.recv(1)
        assert line.command(do="rst")["ok"]
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_the_port_refuses_and_opens_again(line):
    line.command(refuse=True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", line.proxy.port), timeout=10)
    line.command(refuse=False)
    client, far = line.connect()
    client.close()
    far.close()


def test_an_unknown_command_is_told(line):
    assert line.command(explode=True) == {"ok": False, "error": "unknown: explode"}
    assert line.command(do="status")["ok"]


def test_it_stops_cleanly_with_an_open_connection(line):
    client, far = line.connect()
    with client, far:
        assert line.proxy.stop()["connections"] == 1


def _rest(wire):
    received = b""
    while data := wire.recv(100):
        received += data
    return received
