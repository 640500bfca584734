"""What DCMTK and pynetdicom may say that is unusual and right: PDUs of any size, many contexts, odd titles, TLS."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pynetdicom import AE, _config, build_context

from gateway.config import DicomSource as Settings
from gateway.config import ServerTls
from gateway.formats.dicom import read_meta
from gateway.typed import Address, Size
from tests.gateway.sources.dicom_house import EXPLICIT, House, running
from tests.gateway.sources.own_scu import CT_CLASS

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
DATASET = CT.read_bytes()[read_meta(CT).dataset_offset :]
SETTINGS = Settings(name="imaging", listen=Address("127.0.0.1", 0))
SMALLEST, LARGEST = 4096, 131072  # what DCMTK lets be set
CONTEXTS_MAX = 128


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with running(House(tmp_path), SETTINGS) as house:
        yield house


@pytest.fixture(autouse=True)
def files_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)


def pynetdicom_stores(
    house: House, *, contexts: Any = (), title: str = "PYN", pdu_max: int = 16382, **more: Any
) -> int:
    """Store the CT image with pynetdicom; return the status."""
    entity = AE(title)
    association = entity.associate(
        "127.0.0.1", house.port, contexts or [build_context(CT_CLASS, EXPLICIT)], max_pdu=pdu_max, **more
    )
    assert association.is_established
    status = association.send_c_store(CT)
    association.release()
    return int(status.Status)


def kept(house: House) -> list[bytes]:
    """The data sets that are held."""
    files = [house.spool.path_of(incoming.object_name or "") for incoming in house.intake.inputs]
    return [file.read_bytes()[read_meta(file).dataset_offset :] for file in files]


@pytest.mark.parametrize("ours", [SMALLEST, 131072, 16 << 20])
async def test_pdus_of_every_size_are_taken(tmp_path: Path, ours: int) -> None:
    async with running(House(tmp_path), replace(SETTINGS, pdu_max=Size(ours))) as house:
        for theirs in (SMALLEST, LARGEST):
            options = ("--max-pdu", str(theirs), "--max-send-pdu", str(theirs))
            code, output = await house.storescu(CT, options=options)
            assert code == 0, output
        for pdu_max in (SMALLEST, 0):  # 0: no limit to what we may send
            assert await asyncio.to_thread(pynetdicom_stores, house, pdu_max=pdu_max) == 0

    assert kept(house)[2:] == [DATASET] * 2  # storescu writes a data set anew
    assert kept(house)[0] == kept(house)[1]


async def test_pynetdicom_proposes_a_hundred_and_twenty_eight_contexts(house: House) -> None:
    contexts = [build_context(f"1.2.3.{number}", EXPLICIT) for number in range(CONTEXTS_MAX - 1)]
    contexts.append(build_context(CT_CLASS, EXPLICIT))

    assert await asyncio.to_thread(pynetdicom_stores, house, contexts=contexts) == 0
    assert kept(house) == [DATASET]


async def test_dcmtk_proposes_a_hundred_and_twenty_eight_contexts(house: House, tmp_path: Path) -> None:
    classes = [f"1.2.3.{number}" for number in range(CONTEXTS_MAX - 1)] + ["CTImageStorage"]
    lines = [f"PresentationContext{number} = {name}\\Explicit" for number, name in enumerate(classes, 1)]
    profile = tmp_path / "profile"
    profile.write_text(
        "[[TransferSyntaxes]]\n[Explicit]\nTransferSyntax1 = LittleEndianExplicit\n[[PresentationContexts]]\n[All]\n"
        + "\n".join(lines)
        + "\n[[Profiles]]\n[All]\nPresentationContexts = All\n"
    )
    code, output = await house.storescu(CT, options=("-xf", str(profile), "All"))

    assert code == 0, output
    assert len(kept(house)) == 1


@pytest.mark.parametrize("title", ["ct 1", "CT1.ROOM-2_(OLD)", "~", "sixteen letters!"])
async def test_titles_are_taken_as_they_come(house: House, title: str) -> None:
    code, output = await house.storescu(CT, options=("-aet", title, "-aec", title))
    assert code == 0, output
    assert await asyncio.to_thread(pynetdicom_stores, house, title=title, ae_title=title) == 0

    assert [incoming.peer for incoming in house.intake.inputs] == [f"{title}@127.0.0.1"] * 2


@pytest.mark.parametrize("uid", ["1.2.3.04.005", "1.2.34", "1.2.345"], ids=["leading-zeros", "even", "odd"])
async def test_uids_of_both_lengths_and_with_leading_zeros_come_from_both(
    house: House, tmp_path: Path, uid: str
) -> None:
    image = pydicom.dcmread(CT)
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = uid
    image.save_as(tmp_path / "image.dcm")
    code, output = await house.storescu(tmp_path / "image.dcm")
    assert code == 0, output

    def store() -> int:
        association = AE().associate("127.0.0.1", house.port, [build_context(CT_CLASS, EXPLICIT)])
        status = association.send_c_store(tmp_path / "image.dcm")
        association.release()
        return int(status.Status)

    assert await asyncio.to_thread(store) == 0
    assert [incoming.identifier for incoming in house.intake.inputs] == [uid] * 2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    made = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ServerTls(cert=folder / "cert.pem", key=folder / "key.pem")


async def test_both_store_in_tls_with_certificates_on_both_sides(tmp_path: Path, certificate: ServerTls) -> None:
    context = ssl.create_default_context(cafile=certificate.cert)
    context.load_cert_chain(certificate.cert, certificate.key)
    mutual = replace(SETTINGS, tls=replace(certificate, ca=certificate.cert, verify_client=True))
    async with running(House(tmp_path), mutual) as house:
        trust = ("+cf", str(certificate.cert))
        code, output = await house.storescu(CT, options=("+tls", str(certificate.key), str(certificate.cert), *trust))
        assert code == 0, output
        assert await asyncio.to_thread(pynetdicom_stores, house, tls_args=(context, "localhost")) == 0

    assert kept(house)[1] == DATASET
