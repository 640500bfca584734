"""Group `dicom`: C-STORE intake from DCMTK's storescu, against DCMTK's storescp and Orthanc.

We sync file, folder and row before Success; storescp syncs nothing. The limit is what the disk does bare: write,
sync, rename, sync folder, the same sizes, one after the other.
"""

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from measuring import Figure, figure, in_turn, tell
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from world import agent, folder, free_port, process, wait_for_port

RUNS = 5
LARGE = (200, 512)  # objects, and KB of each
SMALL = (1000, 32)
NAGLED = (60, 512)
PDU = 131072

NODELAY = {"TCP_NODELAY": "1"}  # DCMTK reads it, in both ends; without it each object waits 40 ms

Receiver = Callable[[Path, bool], Iterator[tuple[int, str]]]


def intake(name: str, shape: tuple[int, int], associations: int = 1, *, nodelay: bool = True) -> Figure:
    """Objects a second through the gateway and through storescp, in turn."""
    tell(f"{name}: {shape[0]} x {shape[1]} KB, {associations} association(s)")
    with folder() as place:
        files = _objects(place / "objects", *shape)
        ours, theirs, limits = in_turn(
            RUNS,
            lambda: _through(_gateway, files, associations, nodelay),
            lambda: _through(_storescp, files, associations, nodelay),
            lambda: _bare(files),
        )
    return figure(name, "inst/s", ours, peer="storescp", peers=theirs, limits=limits)


def against_orthanc() -> Figure:
    """Objects a second through the gateway and through Orthanc, in turn."""
    tell("dicom-intake-orthanc")
    with folder() as place:
        files = _objects(place / "objects", *LARGE)
        ours, theirs = in_turn(
            RUNS, lambda: _through(_gateway, files, 1, True), lambda: _through(_orthanc, files, 1, True)
        )
    return figure("dicom-intake-orthanc", "inst/s", ours, peer="Orthanc", peers=theirs)


def _through(receiver: Receiver, files: list[Path], associations: int, nodelay: bool) -> float:
    with folder() as place, contextmanager(receiver)(place, nodelay) as (port, title):
        environment = {**os.environ, **(NODELAY if nodelay else {})}
        started = time.perf_counter()
        senders = [
            subprocess.Popen(
                ["storescu", "-pdu", str(PDU), "-aec", title, "127.0.0.1", str(port), *files[part::associations]],
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            for part in range(associations)
        ]
        assert not any(sender.wait() for sender in senders), "a sender failed"
        return len(files) / (time.perf_counter() - started)


def _gateway(place: Path, nodelay: bool) -> Iterator[tuple[int, str]]:
    del nodelay  # ours does without
    port = free_port()
    stanzas = f'[[source]]\nname = "in"\ntype = "dicom"\nlisten = "127.0.0.1:{port}"\n'
    with agent(place, stanzas, wait_for=[port]):
        yield port, "GATEWAY"


def _storescp(place: Path, nodelay: bool) -> Iterator[tuple[int, str]]:
    port = free_port()
    command = ("storescp", "--fork", "+B", "-pdu", str(PDU), "-od", str(place), str(port))
    with process(*command, environment=NODELAY if nodelay else None):
        wait_for_port(port)
        yield port, "ANY"


def _orthanc(place: Path, nodelay: bool) -> Iterator[tuple[int, str]]:
    port = free_port()
    settings = place / "orthanc.json"
    settings.write_text(
        json.dumps(
            {
                "StorageDirectory": str(place / "storage"),
                "IndexDirectory": str(place / "storage"),
                "DicomPort": port,
                "HttpPort": free_port(),
                "DicomAlwaysAllowStore": True,
                "RemoteAccessAllowed": False,
                "Plugins": [],
            }
        )
    )
    with process("Orthanc", str(settings), environment=NODELAY if nodelay else None):
        wait_for_port(port)
        yield port, "ORTHANC"


def _bare(files: list[Path]) -> float:
    with folder() as place:
        contents = [file.read_bytes() for file in files]
        directory = os.open(place, os.O_RDONLY)
        started = time.perf_counter()
        for number, content in enumerate(contents):
            with (place / "incoming").open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            (place / "incoming").rename(place / str(number))
            os.fsync(directory)
        elapsed = time.perf_counter() - started
        os.close(directory)
        return len(files) / elapsed


def _objects(place: Path, count: int, kilobytes: int) -> list[Path]:
    """Write synthetic CT images of one series."""
    place.mkdir()
    side = int((kilobytes * 512) ** 0.5)
    study, series = generate_uid(), generate_uid()
    noise = random.Random(1).randbytes(side * side * 2)
    files = []
    for number in range(count):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset(str(place / f"{number}.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.PatientName, image.PatientID, image.Modality = "ZZTEST^BENCH", "ZZ1", "CT"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.InstanceNumber = study, series, number + 1
        image.Rows = image.Columns = side
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.PixelData = noise
        image.save_as(place / f"{number}.dcm", enforce_file_format=True)
        files.append(place / f"{number}.dcm")
    return files


MEASURES = {
    "dicom-intake-1": lambda: [intake("dicom-intake-1", LARGE)],
    "dicom-intake-4": lambda: [intake("dicom-intake-4", LARGE, 4)],
    "dicom-intake-small": lambda: [intake("dicom-intake-small", SMALL)],
    "dicom-intake-nagle": lambda: [intake("dicom-intake-nagle", NAGLED, nodelay=False)],
    "dicom-intake-orthanc": lambda: [against_orthanc()],
}
