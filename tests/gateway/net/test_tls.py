"""TLS contexts: what is wrong with the files is told."""

import ssl
from pathlib import Path

import pytest

from gateway.config import ClientTls, ServerTls
from gateway.errors import LinkError
from gateway.net.tls import client_context, server_context


def test_without_files_a_client_trusts_the_systems_authorities_and_verifies() -> None:
    context = client_context(ClientTls())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_that_is_no_certificate_is_a_link_error(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "broken.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LinkError, match=r"broken\.pem"):
        server_context(ServerTls(cert=file, key=file))
    with pytest.raises(LinkError, match=r"broken\.pem"):
        client_context(ClientTls(ca=file))
    with pytest.raises(LinkError, match=r"broken\.pem"):
        client_context(ClientTls(cert=file, key=file))
