"""Objects to change: pydicom's own files, and small ones made to measure."""

import collections
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from gateway.formats.dicom import part10_prefix
from gateway.model import Delivery, DeliveryState, Kind, Message, Parcel

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
CT_CLASS, EXPLICIT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


def parcel(object_name: str | None = None, *, destination: str = "research", source: str = "imaging") -> Parcel:
    message = Message(
        id=1,
        source=source,
        kind=Kind.DICOM,
        received_at=NOW,
        size=1,
        digest=b"",
        peer=None,
        identifier=None,
        observed_at=None,
        raw=None,
        object_name=object_name,
        result=None,
        headers={},
        quarantined=None,
    )
    delivery = Delivery(
        id=1, message_id=1, destination=destination, state=DeliveryState.PENDING, ordinal=1, control_id="1"
    )
    return Parcel(delivery=delivery, message=message)


def ct(**values: object) -> Dataset:
    """Return a small CT image of somebody."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT_CLASS, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.5"
    dataset.FrameOfReferenceUID = "1.2.3.6"
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "DOE^JANE", "PID-77", "19800229"
    dataset.PatientSex, dataset.PatientAge = "F", "045Y"
    dataset.StudyDate, dataset.StudyTime, dataset.AcquisitionDateTime = "20260101", "101112", "20260101101112"
    dataset.AccessionNumber, dataset.StudyDescription = "ACC1", "CT chest of Jane Doe 4711"
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(range(32))
    dataset["PixelData"].VR = "OW"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def written(dataset: Dataset, path: Path, syntax: str = EXPLICIT) -> Path:
    """Write a data set as a Part 10 file."""
    body = path.with_suffix(".body")
    plain = Dataset()
    plain.update(dataset)  # without the preamble of a file that was read
    plain.save_as(body, implicit_vr=syntax == IMPLICIT, little_endian=syntax != "1.2.840.10008.1.2.2")
    prefix = part10_prefix(
        sop_class_uid=str(dataset.get("SOPClassUID", CT_CLASS)),
        sop_instance_uid=str(dataset.get("SOPInstanceUID", "1.2.3.4")),
        transfer_syntax=syntax,
    )
    path.write_bytes(prefix + body.read_bytes())
    return path


def faults(path: Path) -> collections.Counter[str]:
    """Return dciodvfy's errors, with the UIDs in them blotted out."""
    done = subprocess.run(["dciodvfy", path], capture_output=True, check=False, timeout=30)
    lines = (done.stderr + done.stdout).decode("latin-1").splitlines()
    return collections.Counter(re.sub(r"UID [0-9.]+", "UID #", line) for line in lines if line.startswith("Error"))
