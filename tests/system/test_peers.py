"""Real peers at both ends: what they send through the running agent arrives unchanged."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pydicom.data
import pytest
from hl7apy.mllp import AbstractHandler, MLLPServer
from pydicom.dataset import Dataset
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pynetdicom import AE, _config, build_context

from gateway.formats.dicom import read_meta
from tests.system.agents import HEAD, Agent, free_port, listens

WAIT_S = 40.0


# What storescu proposes besides the uncompressed syntaxes, by option.
PROPOSALS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.5": "-xr",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.57": "-xs",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
}


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        threading.Event().wait(0.05)


@contextmanager
def running(tmp_path: Path, stanzas: str) -> Iterator[Agent]:
    config = tmp_path / "gateway.toml"
    config.write_text(HEAD.format(data=tmp_path / "data", console=free_port()) + stanzas)
    agent = Agent(config, tmp_path / "agent.log")
    try:
        yield agent
    finally:
        assert agent.stop() == 0


@contextmanager
def program(*command: str, env: dict[str, str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, **(env or {})}
    )
    try:
        yield child
    finally:
        child.terminate()
        child.wait(20)
        assert child.stdout is not None
        child.stdout.close()


# --- DCMTK, Orthanc -------------------------------------------------------------------------------------------------


def storage_objects(place: Path, syntaxes: Collection[str] = ()) -> dict[Path, list[Path]]:
    """Copy pydicom's own test files that are Part 10 storage objects: folders of one transfer syntax, no UID twice.

    In all transfer syntaxes, where none are given.
    """
    found: dict[Path, list[Path]] = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    shipped = Path(pydicom.data.__file__).parent
    for file in sorted(path for path in shipped.rglob("*") if path.is_file()):
        try:
            dataset = pydicom.dcmread(file)
            uid, syntax = dataset.SOPInstanceUID, UID(dataset.file_meta.TransferSyntaxUID)
            named = {dataset.file_meta.MediaStorageSOPInstanceUID, uid}
            owners = [dataset.SOPClassUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID]
            whole = len(named) == 1 and all(owners) and "PatientID" in dataset and len(list(dataset.iterall())) > 0
        except Exception:
            continue  # no Part 10 file, or a broken one
        if whole and (not syntaxes or syntax in syntaxes):
            folder = place / f"{seen[uid]}-{syntax}"
            seen[uid] += 1
            folder.mkdir(parents=True, exist_ok=True)
            found[folder].append(Path(shutil.copy(file, folder / file.name)))
    return found


def send(folder: Path, port: int, title: str) -> None:
    syntax = folder.name.partition("-")[2]
    options = [PROPOSALS[syntax], "-R"] if syntax in PROPOSALS else []
    command = ["storescu", *options, "--no-halt", "-aec", title, "127.0.0.1", str(port), "+sd", str(folder)]
    subprocess.run(command, env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True, timeout=WAIT_S, check=False)


def data_set_bytes(file: Path) -> bytes:
    return file.read_bytes()[read_meta(file).dataset_offset :]


def comparable(dataset: Dataset) -> Dataset:
    """Without group lengths, which DCMTK leaves out when it writes."""
    for part in [dataset, *(item for element in dataset.iterall() if element.VR == "SQ" for item in element.value)]:
        for tag in [tag for tag in part.keys() if tag.element == 0]:  # noqa: SIM118 - a Dataset iterates over elements
            del part[tag]
    return dataset


@contextmanager
def orthanc(place: Path) -> Iterator[tuple[int, httpx.Client]]:
    dicom, http = free_port(), free_port()
    settings = {
        "StorageDirectory": str(place),
        "IndexDirectory": str(place),
        "DicomPort": dicom,
        "HttpPort": http,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "RemoteAccessAllowed": False,
        "Plugins": [],
    }
    place.mkdir()
    (place / "orthanc.json").write_text(json.dumps(settings))
    with program("Orthanc", str(place / "orthanc.json")), httpx.Client(base_url=f"http://127.0.0.1:{http}") as client:
        eventually(lambda: listens(dicom) and listens(http), "Orthanc listens")
        yield dicom, client


def test_every_storage_object_of_pydicom_reaches_orthanc_as_storescu_sent_it(tmp_path: Path) -> None:
    folders = storage_objects(tmp_path / "files", PROPOSALS)
    gateway, reference = free_port(), free_port()
    (tmp_path / "reference").mkdir()
    with orthanc(tmp_path / "orthanc") as (pacs, archive):
        stanzas = (
            f'[[source]]\nname = "imaging"\ntype = "dicom"\nlisten = "127.0.0.1:{gateway}"\n'
            f'[[destination]]\nname = "pacs"\ntype = "dicom"\nhost = "127.0.0.1"\nport = {pacs}\nae_title = "ORTHANC"\n'
        )
        with running(tmp_path, stanzas):
            arrived: dict[str, bool] = {}
            earlier: set[bytes] = set()
            for folder in sorted(folders):  # a UID that comes twice comes in two folders
                sent = storescp_receives(folder, tmp_path / "reference" / folder.name, reference)
                send(folder, gateway, "GATEWAY")
                news = [file for file in sent if data_set_bytes(file) not in earlier]  # repeats are stored once
                earlier.update(data_set_bytes(file) for file in sent)
                wanted = {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID: file for file in news}
                eventually(lambda wanted=wanted: set(instances(archive)) >= set(wanted), f"{folder.name} in Orthanc")  # type: ignore[misc]
                arrived.update(compare(archive, wanted, tmp_path / "data" / "spool" / "objects"))
                for number in instances(archive).values():
                    archive.delete(f"/instances/{number}").raise_for_status()

    assert len(arrived) >= 50
    assert [file for file, same in arrived.items() if not same] == []


def test_every_storage_object_of_pydicom_reaches_orthanc_as_pynetdicom_sent_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)  # the files' bytes as they are
    rounds: dict[str, dict[str, Path]] = defaultdict(dict)  # a UID that comes twice comes in two rounds
    for folder, files in storage_objects(tmp_path / "files").items():
        uids = {pydicom.dcmread(file).SOPInstanceUID: file for file in files if is_encoded_as_it_says(file)}
        if uids:
            rounds[folder.name.partition("-")[0]].update(uids)
    gateway = free_port()
    arrived: dict[str, bool] = {}
    earlier: set[bytes] = set()
    with orthanc(tmp_path / "orthanc") as (pacs, archive):
        stanzas = (
            f'[[source]]\nname = "imaging"\ntype = "dicom"\nlisten = "127.0.0.1:{gateway}"\n'
            f'[[destination]]\nname = "pacs"\ntype = "dicom"\nhost = "127.0.0.1"\nport = {pacs}\nae_title = "ORTHANC"\n'
        )
        with running(tmp_path, stanzas):
            for number in sorted(rounds):
                assert set(store_all(rounds[number].values(), gateway)) == {0x0000}
                sent = rounds[number].items()  # of which repeats are stored once
                wanted = {uid: file for uid, file in sent if data_set_bytes(file) not in earlier}
                earlier.update(map(data_set_bytes, rounds[number].values()))
                eventually(lambda wanted=wanted: set(instances(archive)) >= set(wanted), f"round {number} in Orthanc")  # type: ignore[misc]
                arrived.update(compare(archive, wanted, tmp_path / "data" / "spool" / "objects"))
                for known in instances(archive).values():
                    archive.delete(f"/instances/{known}").raise_for_status()

    assert len(arrived) >= 120
    assert [file for file, same in arrived.items() if not same] == []


def is_encoded_as_it_says(file: Path) -> bool:
    """Whether a file is whole and its VRs are those of its transfer syntax; Orthanc often never answers others.

    Not an implicit data set under an explicit syntax (PS3.5, A.2), encapsulated pixels that are not OB (A.4), or a file
    that was cut short. storescu sends none of these.
    """
    dataset = pydicom.dcmread(file)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    if syntax == DeflatedExplicitVRLittleEndian:
        return True
    pixels_fit = "PixelData" not in dataset or (
        dataset["PixelData"].VR == "OB"
        if syntax.is_compressed
        else len(dataset.PixelData) >= get_expected_length(dataset)
    )
    return data_set_bytes(file)[4:6].isalpha() is not syntax.is_implicit_VR and pixels_fit


def store_all(files: Collection[Path], port: int) -> list[int]:
    """Send files with pynetdicom on one association, each in its own transfer syntax; return the statuses."""
    metas = [read_meta(file) for file in files]
    contexts = sorted({(meta.sop_class_uid, meta.transfer_syntax) for meta in metas})
    association = AE("PYN").associate("127.0.0.1", port, [build_context(*context) for context in contexts])
    assert len(association.accepted_contexts) == len(contexts)
    statuses = [int(association.send_c_store(file).Status) for file in files]
    association.release()
    return statuses


def storescp_receives(folder: Path, place: Path, port: int) -> list[Path]:
    """What storescu makes of the files by itself: those it can send, as a bit-preserving storescp receives them."""
    place.mkdir()
    command = ["storescp", "+B", "--promiscuous", "+xa", "-fe", ".dcm", "-od", str(place), str(port)]
    with program(*command):
        eventually(lambda: listens(port), "storescp listens")
        send(folder, port, "ANY")
    return sorted(place.glob("*.dcm"))


def instances(archive: httpx.Client) -> dict[str, str]:
    """Orthanc's own numbers by SOP Instance UID."""
    listed: list[dict[str, Any]] = archive.get("/instances?expand").raise_for_status().json()
    return {entry["MainDicomTags"]["SOPInstanceUID"]: entry["ID"] for entry in listed}


def compare(archive: httpx.Client, wanted: dict[str, Path], spool: Path) -> dict[str, bool]:
    """Whether the gateway holds the very bytes that storescp was sent, and Orthanc every element of them."""
    held = {data_set_bytes(file) for file in spool.iterdir() if file.stat().st_size}  # others are made ahead of need
    numbers = instances(archive)
    same = {}
    for uid, file in wanted.items():
        body = archive.get(f"/instances/{numbers[uid]}/file").raise_for_status().content
        returned = file.with_suffix(".back")
        returned.write_bytes(body)
        original = pydicom.dcmread(file)
        deflated = original.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
        in_spool = deflated or data_set_bytes(file) in held  # zlib may pack the same data set in another way
        equal = comparable(pydicom.dcmread(returned)) == comparable(original)
        same[f"{file.parent.name}/{file.name}"] = in_spool and equal
    return same


# --- python-hl7, hl7apy ---------------------------------------------------------------------------------------------


class _Keeper(AbstractHandler):
    """Keeps what hl7apy's server hands over and answers AA."""

    def __init__(self, message: str, kept: "list[str]") -> None:
        super().__init__(message)
        kept.append(message)

    def reply(self) -> str:
        fields = self.incoming_message.split("\r")[0].split("|")
        return f"\x0bMSH|^~\\&|R|R|S|S|20260101||ACK|1|P|2.5\rMSA|AA|{fields[9]}\r\x1c\r"


def test_mllp_send_reaches_hl7apys_server_byte_for_byte(tmp_path: Path) -> None:
    messages = [
        f"MSH|^~\\&|LAB|H|EMR|H|2026010112000{number}||ORU^R01|ID{number}|P|2.5|||||||UNICODE UTF-8\r"
        f"PID|1||ZZ{number}^^^H||ZZTEST^Grün^{number}\rOBR|1\rOBX|1|TX|X^Y||µg \\T\\ ~ ^ &|\r"
        for number in range(5)
    ]
    (tmp_path / "five.hl7").write_bytes(b"".join(b"\x0b" + text.encode() + b"\x1c\r" for text in messages))
    kept: list[str] = []
    server = MLLPServer("127.0.0.1", 0, {"ORU^R01": (_Keeper, kept)}, timeout=10)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    gateway = free_port()
    stanzas = (
        f'[[source]]\nname = "lab"\ntype = "mllp"\nlisten = "127.0.0.1:{gateway}"\n[[destination]]\nname = "emr"\n'
        f'type = "mllp"\nhost = "127.0.0.1"\nport = {server.server_address[1]}\n'
    )
    with running(tmp_path, stanzas):
        command = [Path(sys.executable).with_name("mllp_send"), "-p", str(gateway), "-f", "five.hl7", "127.0.0.1"]
        told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S, check=True).stdout
        eventually(lambda: len(kept) >= len(messages), "five messages at hl7apy")
    server.shutdown()
    server.server_close()
    serving.join(10)

    assert told.count("MSA|AA|ID") == len(messages)
    # mllp_send leaves out the last segment's CR before it frames a message; from there on no byte may change
    assert [text.encode() for text in kept] == [text.rstrip("\r").encode() for text in messages]


# --- a pty oximeter, Mosquitto --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["nellcor", "masimo", "nonin"])
def test_what_a_pty_oximeter_says_is_what_mosquitto_sub_prints(tmp_path: Path, device: str) -> None:
    broker = free_port()
    (tmp_path / "broker.conf").write_text(f"listener {broker} 127.0.0.1\nallow_anonymous true\n")
    stanzas = (
        f'[[source]]\nname = "bed-12"\ntype = "device"\ndriver = "{device}"\nport = "{tmp_path}/pty"\nbed = "ICU^^12"\n'
        f'[[destination]]\nname = "broker"\ntype = "mqtt"\nurl = "mqtt://127.0.0.1:{broker}"\n'
    )
    journal = tmp_path / "sent.jsonl"
    subscriber = ["mosquitto_sub", "-V", "5", "-p", str(broker), "-t", "mdg/1/+/+/+/obs", "-F", "%p"]
    with (
        program("mosquitto", "-c", str(tmp_path / "broker.conf")),
        program(
            sys.executable,
            "-m",
            f"simulators.{device}",
            "--pty",
            str(tmp_path / "pty"),
            "--journal",
            str(journal),
            "--rate",
            "20",
            "--start",
            "60",
        ),  # fmt: skip
    ):
        eventually(lambda: listens(broker) and (tmp_path / "pty").exists(), "broker and pty stand")
        with program(*subscriber) as subscribed, running(tmp_path, stanzas):
            assert subscribed.stdout is not None
            heard = [json.loads(subscribed.stdout.readline()) for _ in range(12)]

    sent = [json.loads(line) for line in journal.read_text().splitlines()]
    values = [(value(entry["spo2"]), value(entry["pulse"])) for entry in sent]
    published = [(observed(one, "spo2"), observed(one, "pulse_rate_spo2")) for one in heard]
    assert len(set(published)) > 1
    assert contains(values, published)


def value(number: float | None) -> Decimal | None:
    return None if number is None else Decimal(str(round(number)))


def observed(document: dict[str, Any], key: str) -> Decimal | None:
    (found,) = [one for one in document["observations"] if one["key"] == key]
    return None if "absent" in found else Decimal(str(found["value"]))


def contains(whole: list[Any], part: list[Any]) -> bool:
    """Whether the part stands in the whole, in order and without gaps."""
    return any(whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1))


def test_contains_means_in_order_and_without_gaps() -> None:
    assert contains([1, 2, 3], [2, 3])
    assert not contains([1, 2, 3], [1, 3])
