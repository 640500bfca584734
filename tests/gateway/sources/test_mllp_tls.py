"""The MLLP listener over TLS and mutual TLS."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.config import ClientTls, ServerTls
from gateway.errors import LinkError
from gateway.net.tls import client_context
from gateway.protocols.mllp import encode_frame
from gateway.sources import mllp

WAIT_S = 10.0


def message(number: int = 1, body: bytes = b"", asks: bytes = b"") -> bytes:
    asked = b"|||" + asks if asks else b""
    return b"MSH|^~\\&|A|B|C|D|20260101||ORU^R01^ORU_R01|M%d|P|2.6%b\rPID|||7^^^X\r%b" % (number, asked, body)


class Authority:
    """A certificate authority for one test run, its certificates in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed(name, self.key.public_key(), ca=True)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        cert_file, key_file = self.folder / f"{name}-cert.pem", self.folder / f"{name}-key.pem"
        cert_file.write_bytes(self._signed(name, key.public_key(), ca=False).public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_file, key_file

    def _signed(self, name: str, public_key: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        def named(common: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(self.name))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self.key, hashes.SHA256())
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ward-ca")


@pytest.fixture(scope="module")
def server_tls(authority: Authority) -> ServerTls:
    cert, key = authority.issue("server")
    return ServerTls(cert=cert, key=key, ca=authority.file)


@pytest.fixture
def mutual_tls(server_tls: ServerTls) -> Iterator[ServerTls]:
    yield ServerTls(cert=server_tls.cert, key=server_tls.key, ca=server_tls.ca, verify_client=True)


async def test_messages_come_over_tls(house: Any, server_tls: ServerTls, authority: Authority) -> None:
    async with house(tls=server_tls) as home:
        context = client_context(ClientTls(ca=authority.file))
        peer = await home.connect(ssl=context, server_hostname="127.0.0.1")
        await peer.send(b"".join(encode_frame(message(n)) for n in range(5)))
        assert await peer.codes(5) == [("AA", b"M%d" % n) for n in range(5)]
        await peer.send(encode_frame(message(1, b"OBX|" + b"x" * 2_000_000)))
        assert await peer.codes(1) == [("AA", b"M1")]
        assert home.status.errors == 0


async def test_a_message_right_behind_the_handshake_is_heard(
    house: Any, server_tls: ServerTls, authority: Authority
) -> None:
    async with house(tls=server_tls) as home:

        def blocking() -> bytes:
            context = client_context(ClientTls(ca=authority.file))
            plain = socket.create_connection(("127.0.0.1", home.listener.port), WAIT_S)
            with context.wrap_socket(plain, server_hostname="localhost") as secured:
                secured.sendall(encode_frame(message(1)))
                return secured.recv(4096)

        for _ in range(5):
            assert b"MSA|AA|M1" in await asyncio.to_thread(blocking)


async def test_mutual_tls_takes_known_clients_only(
    house: Any, mutual_tls: ServerTls, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("client")
    stranger_cert, stranger_key = Authority(tmp_path, "other-ca").issue("stranger")
    async with house(tls=mutual_tls) as home:
        context = client_context(ClientTls(ca=authority.file, cert=cert, key=key))
        peer = await home.connect(ssl=context, server_hostname="localhost")
        await peer.send(encode_frame(message(1)))
        assert await peer.codes(1) == [("AA", b"M1")]

        for refused in (
            ClientTls(ca=authority.file),
            ClientTls(ca=authority.file, cert=stranger_cert, key=stranger_key),
        ):
            with pytest.raises((ConnectionError, ssl.SSLError)):
                stranger = await home.connect(ssl=client_context(refused), server_hostname="localhost")
                await stranger.send(encode_frame(message(2)))
                await stranger.answer()
        await home.until(lambda: home.status.errors == 2)
        assert len(home.intake.kept) == 1
        assert "TLS" in str(home.status.last_error)


async def test_a_client_verifies_the_listener(
    house: Any, server_tls: ServerTls, authority: Authority, tmp_path: Path
) -> None:
    async with house(tls=server_tls) as home:
        unknown = client_context(ClientTls(ca=Authority(tmp_path, "other-ca").file))
        with pytest.raises(ssl.SSLError):
            await home.connect(ssl=unknown, server_hostname="localhost")
        with pytest.raises(ssl.SSLError):
            await home.connect(ssl=client_context(ClientTls(ca=authority.file)), server_hostname="elsewhere")


async def test_plain_bytes_and_silence_on_a_tls_port_are_cut(
    house: Any, server_tls: ServerTls, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllp, "HANDSHAKE_TIMEOUT_S", 0.1)
    async with house(tls=server_tls) as home:
        plain, silent = await home.connect(), await home.connect()
        await plain.send(encode_frame(message(1)))
        while not await plain.is_closed():
            pass
        assert await silent.is_closed()
        await home.until(lambda: home.status.connections == 0)
        assert home.intake.kept == []

        peer = await home.connect(ssl=client_context(ClientTls(ca=authority.file)), server_hostname="localhost")
        await peer.send(encode_frame(message(2)))
        assert await peer.codes(1) == [("AA", b"M2")]


async def test_peers_off_the_allow_list_do_not_reach_tls(house: Any, server_tls: ServerTls) -> None:
    async with house(tls=server_tls, allow=(ip_network("127.0.0.2/32"),)) as home:
        assert await (await home.connect("127.0.0.1")).is_closed()
        assert home.status.last_error == "not on the allow list"


async def test_a_missing_certificate_is_a_link_error(house: Any, tmp_path: Path) -> None:
    with pytest.raises(LinkError, match=r"nowhere\.pem"):
        async with house(tls=ServerTls(cert=tmp_path / "nowhere.pem", key=tmp_path / "nowhere.pem")):
            pass
