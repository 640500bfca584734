"""Group `dicom`: C-STORE intake from DCMTK's storescu, against DCMTK's storescp and Orthanc.

We sync file, folder and row before Success; storescp syncs nothing. The limit is what the disk does bare: write,
sync, rename, sync folder, the same sizes, one after the other. Forwarding goes from our requestor to storescp, against
storescu, the files in memory. Processor time is what the receiving process and its children used. One object of two
gigabytes comes in while the receiver's memory is watched.
"""

import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import uvloop
from measuring import Figure, figure, in_turn, tell
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from world import agent, cpu_s, folder, free_port, process, rss_mb, wait_for_port

from gateway.clock import SystemClock
from gateway.formats.dicom import read_meta
from gateway.net.requestor import Outgoing, Peer, Wanted, open_association

RUNS = 5
LARGE = (200, 512)  # objects, and KB of each
SMALL = (2000, 32)
NAGLED = (60, 512)
HUGE_BYTES = 2_000_000_000
PDU = 131072

NODELAY = {"TCP_NODELAY": "1"}  # DCMTK reads it, in both ends; without it each object waits 40 ms

Receiver = Callable[[Path, bool], Iterator[tuple[int, str]]]


def intake(name: str, shape: tuple[int, int], associations: int = 1, *, nodelay: bool = True) -> Figure:
    """Objects a second through the gateway and through storescp, in turn."""
    tell(f"{name}: {shape[0]} x {shape[1]} KB, {associations} association(s)")
    with folder() as place:
        files = make_objects(place / "objects", *shape)
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
        files = make_objects(place / "objects", *LARGE)
        ours, theirs = in_turn(
            RUNS, lambda: _through(_gateway, files, 1, True), lambda: _through(_orthanc, files, 1, True)
        )
    return figure("dicom-intake-orthanc", "inst/s", ours, peer="Orthanc", peers=theirs)


def _through(receiver: Receiver, files: list[Path], associations: int, nodelay: bool) -> float:
    with folder() as place, contextmanager(receiver)(place, nodelay) as (port, title):
        started = time.perf_counter()
        _send(files, associations, port, title, nodelay=nodelay)
        return len(files) / (time.perf_counter() - started)


def _send(files: list[Path], associations: int, port: int, title: str, *, nodelay: bool) -> None:
    environment = {**os.environ, **(NODELAY if nodelay else {})}
    senders = [
        subprocess.Popen(
            ["storescu", "-pdu", str(PDU), "-aec", title, "127.0.0.1", str(port), *files[part::associations]],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for part in range(associations)
    ]
    assert not any(sender.wait() for sender in senders), "a sender failed"


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


def make_objects(place: Path, count: int, kilobytes: int) -> list[Path]:
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
        image.StudyID, image.SeriesNumber = "1", 1
        image.Rows = image.Columns = side
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.PixelData = noise
        image.save_as(place / f"{number}.dcm", enforce_file_format=True)
        files.append(place / f"{number}.dcm")
    return files


def cpu_per_mb() -> Figure:
    """Processor milliseconds a megabyte received, ours and storescp's."""
    tell("dicom-cpu-per-mb")
    with folder() as place:
        files = make_objects(place / "objects", *LARGE)
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        ours, theirs = in_turn(
            RUNS,
            lambda: _cpu_ms(_gateway_process, files) / megabytes,
            lambda: _cpu_ms(_storescp_process, files) / megabytes,
        )
    return figure("dicom-cpu-per-mb", "ms/MB", ours, peer="storescp", peers=theirs, less_is_better=True)


def _cpu_ms(receiver: Callable[[Path], Iterator[tuple[int, str, int]]], files: list[Path]) -> float:
    with folder() as place, contextmanager(receiver)(place) as (port, title, pid):
        before = cpu_s(pid)
        _send(files, 1, port, title, nodelay=True)
        time.sleep(0.2)  # a forked child is counted when its parent has waited for it
        return (cpu_s(pid) - before) * 1000


def _gateway_process(place: Path) -> Iterator[tuple[int, str, int]]:
    port = free_port()
    stanzas = f'[[source]]\nname = "in"\ntype = "dicom"\nlisten = "127.0.0.1:{port}"\n'
    with agent(place, stanzas, wait_for=[port]) as child:
        yield port, "GATEWAY", child.pid


def _storescp_process(place: Path) -> Iterator[tuple[int, str, int]]:
    port = free_port()
    command = ("storescp", "+B", "-pdu", str(PDU), "-od", str(place), str(port))
    with process(*command, environment=NODELAY) as child:
        wait_for_port(port)
        yield port, "ANY", child.pid


def two_gigabytes() -> Figure:
    """Megabytes by which the receiver's memory grows at most while one object of 2 GB comes in."""
    tell("dicom-2gb-memory")
    with folder() as place, contextmanager(_gateway_process)(place) as (port, title, pid):
        (small,) = make_objects(place / "objects", 1, 512)
        large = _grown(small, place / "large.dcm", HUGE_BYTES)
        _send([small], 1, port, title, nodelay=True)
        before = highest = rss_mb(pid)
        sender = subprocess.Popen(["dcmsend", "--max-send-pdu", str(PDU), "-aec", title, "127.0.0.1", str(port), large])
        while sender.poll() is None:
            highest = max(highest, rss_mb(pid))
            time.sleep(0.01)
        assert sender.returncode == 0, "the sender failed"
        grown = highest - before
    return figure("dicom-2gb-memory", "MB", [grown], note=f"{HUGE_BYTES / 1e9:.1f} GB in; asked: less than 20")


def _grown(source: Path, target: Path, size: int) -> Path:
    """Write an image with so many bytes of pixels; a sparse file, so that making it costs nothing."""
    whole = source.read_bytes()
    at = whole.rindex(b"\xe0\x7f\x10\0OW\0\0") + 8
    target.write_bytes(whole[:at] + size.to_bytes(4, "little"))
    os.truncate(target, at + 4 + size)
    return target


def forward() -> Figure:
    """Objects a second from our requestor to storescp, and from storescu."""
    tell("dicom-forward")
    with folder() as place:
        files = make_objects(place / "objects", *LARGE)
        ours, theirs = in_turn(RUNS, lambda: _forwarded(files, _requestor), lambda: _forwarded(files, _storescu))
    return figure("dicom-forward", "inst/s", ours, peer="storescu", peers=theirs)


def _forwarded(files: list[Path], send: Callable[[list[Path], int], None]) -> float:
    with folder() as place, contextmanager(_storescp)(place, True) as (port, _):
        started = time.perf_counter()
        send(files, port)
        return len(files) / (time.perf_counter() - started)


def _storescu(files: list[Path], port: int) -> None:
    _send(files, 1, port, "ANY", nodelay=True)


def _requestor(files: list[Path], port: int) -> None:
    """Send on the loop, as a lane does; in this process, so without the start of another."""
    uvloop.run(_store_all(files, port))


async def _store_all(files: list[Path], port: int) -> None:
    peer = Peer(host="127.0.0.1", port=port, ae_title="ANY", calling_ae_title="GATEWAY")
    association = await open_association(peer, [Wanted(CTImageStorage, (ExplicitVRLittleEndian,))], SystemClock())
    out = [_outgoing(file) for file in files]
    for file, following in zip_longest(out, out[1:]):
        assert file is not None
        answer = await association.store(file, ahead=following)
        assert answer.status == 0, f"status {answer.status:04X}"
    await association.release()


def _outgoing(file: Path) -> Outgoing:
    meta = read_meta(file)
    return Outgoing(
        path=file,
        dataset_offset=meta.dataset_offset,
        size=file.stat().st_size - meta.dataset_offset,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax=meta.transfer_syntax,
    )


MEASURES = {
    "dicom-intake-1": lambda: [intake("dicom-intake-1", LARGE)],
    "dicom-intake-4": lambda: [intake("dicom-intake-4", LARGE, 4)],
    "dicom-intake-small": lambda: [intake("dicom-intake-small", SMALL)],
    "dicom-intake-nagle": lambda: [intake("dicom-intake-nagle", NAGLED, nodelay=False)],
    "dicom-intake-orthanc": lambda: [against_orthanc()],
    "dicom-cpu-per-mb": lambda: [cpu_per_mb()],
    "dicom-2gb-memory": lambda: [two_gigabytes()],
    "dicom-forward": lambda: [forward()],
}
