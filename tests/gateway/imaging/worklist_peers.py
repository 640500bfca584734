"""DCMTK's worklist server with a dozen items, to be compared with and to be asked."""

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

EXPLICIT = "1.2.840.10008.1.2.1"
WORKLIST_SOP_CLASS = "1.2.840.10008.5.1.4.31"
AT_ONCE = {**os.environ, "TCP_NODELAY": "1"}  # DCMTK waits for the delayed ACK otherwise

# accession, name, id, sex, modality, station, date, time, performer, character set
ITEMS = (
    ("A001", "Doe^Jane", "MRN001", "F", "CT", "CT1", "20260115", "080000", "Smith^Ann", ""),
    ("A002", "Doe^John^Q", "MRN002", "M", "CT", "CT1", "20260115", "140000", "Smith^Bob", ""),
    ("A003", "Roe^Richard", "MRN003", "M", "CT", "CT2", "20260116", "093000", "Jones^Carl", ""),
    ("A004", "Poe^Edgar^Allan^Mr", "MRN004", "M", "MR", "MR1", "20260116", "235959", "Jones^Carl", ""),
    ("A005", "Low^Ada", "PAT-5", "F", "MR", "MR1", "20260117", "000000", "Smith^Ann", ""),
    ("A006", "Moe^Curly", "PAT-6", "O", "US", "US_ROOM", "20260117", "1200", "Kay^Dee", ""),
    ("A007", "Zoe^Zita", "PAT-7", "F", "US", "US_ROOM", "20260120", "120000.5", "Kay^Dee", ""),
    ("A008", "O'Neil^Pat", "900", "F", "DX", "DX1", "20260131", "100000", "Kay^Dee", ""),
    ("A009", "Doe-Smith^Mary", "901", "F", "DX", "DX1", "20260201", "101500", "Smith^Ann", ""),
    ("A010", "Müller^Jörg", "902", "M", "MG", "MG1", "20260202", "111500", "Weiß^Änne", "ISO_IR 100"),
    (
        "A011",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        "903",
        "M",
        "NM",
        "NM1",
        "20260203",
        "120000",
        "Kay^Dee",
        "ISO_IR 192",
    ),
    ("A012", "Иванов^Иван", "904", "M", "XA", "XA1", "20260204", "130000", "Kay^Dee", "ISO_IR 144"),
)


def item(row: tuple[str, ...]) -> Dataset:
    accession, name, identity, sex, modality, station, day, time, performer, charset = row
    number = accession[1:]
    found = Dataset()
    if charset:
        found.SpecificCharacterSet = charset
    found.AccessionNumber, found.PatientName, found.PatientID, found.PatientSex = accession, name, identity, sex
    found.ReferringPhysicianName, found.RequestingPhysician = f"Ref{number}", f"Req{number}"
    found.PatientBirthDate, found.PatientWeight, found.MedicalAlerts = "19700101", "70", "none"
    found.Allergies, found.PregnancyStatus = "none", 4
    found.StudyInstanceUID = f"1.2.826.0.1.{int(number)}"
    found.RequestedProcedureDescription, found.RequestedProcedureID = f"Procedure {number}", f"RP{number}"
    found.RequestedProcedurePriority, found.AdmissionID, found.CurrentPatientLocation = "ROUTINE", f"V{number}", "WARD"
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle, step.ScheduledProcedureStepID = modality, station, f"S{number}"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = day, time
    step.ScheduledPerformingPhysicianName, step.ScheduledProcedureStepDescription = performer, f"Step {number}"
    step.ScheduledStationName, step.ScheduledProcedureStepLocation = f"{station}_N"[:16], f"ROOM{number}"
    found.ScheduledProcedureStepSequence = Sequence([step])
    return found


def save(dataset: Dataset, path: Path) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT
    dataset.file_meta.MediaStorageSOPClassUID = WORKLIST_SOP_CLASS
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(path, enforce_file_format=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    for _ in range(500):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        threading.Event().wait(0.02)
    raise TimeoutError


@contextlib.contextmanager
def wlmscpfs(folder: Path) -> Iterator[int]:
    """DCMTK's worklist with the items as files."""
    area = folder / "db" / "WL"
    area.mkdir(parents=True)
    for row in ITEMS:
        save(item(row), area / f"{row[0]}.wl")
    (area / "lockfile").touch()
    port = free_port()
    with (folder / "wlmscpfs.log").open("wb") as log:
        command = ["wlmscpfs", "-csk", "-s", "-dfp", str(folder / "db"), str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=AT_ONCE)
    try:
        wait_for(port)
        yield port
    finally:
        process.kill()
        process.wait(10)
