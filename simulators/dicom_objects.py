"""The DICOM objects the simulated modality sends: real test images with fresh UIDs, or generated series.

Real images are the Part 10 storage objects of pydicom's test files that lie inside its wheel; nothing is downloaded.
Each is written to a file, so that the bytes of the data set are known before they are sent. Every patient is ZZTEST.
"""

import functools
import hashlib
import io
import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pydicom
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, UltrasoundImageStorage
from pynetdicom.dsutils import split_dataset

MODALITIES = {"CT": CTImageStorage, "MR": MRImageStorage, "US": UltrasoundImageStorage}
ROW_PIXELS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFile:
    """One object on disk, ready to be sent as it is."""

    path: Path
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    sha256: str  # of the data set's bytes, without preamble and file meta information
    bytes: int


def describe(path: Path) -> ObjectFile:
    """Return what a Part 10 file holds. Raises ValueError when it is no storage object."""
    meta, offset = split_dataset(path)
    try:
        classes = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID)
    except AttributeError as error:
        raise ValueError(f"{path.name}: no storage object in Part 10 format") from error
    data = path.read_bytes()[offset:]
    return ObjectFile(
        path=path,
        sop_class=classes[0],
        sop_instance=classes[1],
        transfer_syntax=classes[2],
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
    )


@functools.cache
def test_images() -> tuple[Path, ...]:
    """Return the sound storage objects among pydicom's test files, sorted by name."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    return tuple(path for path in sorted(folder.glob("*.dcm")) if _is_storage_object(path))


class ObjectSource:
    """Makes objects one after the other, each in a file of `folder` that the caller deletes."""

    def __init__(self, folder: Path, seed: int, *, series: str | None, instances: int, size_bytes: int) -> None:
        self._folder, self._random = folder, random.Random(seed)
        self._series, self._instances, self._size_bytes = series, instances, size_bytes
        self._run = f"2.25.{int(datetime.now(UTC).timestamp() * 1_000_000)}"

    def objects(self) -> Iterator[ObjectFile]:
        """Yield objects without end; UIDs are fresh in every run."""
        number = 0
        while True:
            number += 1
            dataset = self._real(number) if self._series is None else self._generated(number, self._series)
            path = self._folder / f"{number}.dcm"
            dataset.save_as(path, enforce_file_format=True)
            yield describe(path)

    def _real(self, number: int) -> Dataset:
        images = test_images()
        dataset = dcmread(images[(number - 1) % len(images)])
        _name(dataset, self._run, study=(number - 1) // len(images), series=number, instance=number)
        return dataset

    def _generated(self, number: int, modality: str) -> Dataset:
        study, instance = divmod(number - 1, self._instances)
        dataset = Dataset()
        dataset.SOPClassUID, dataset.Modality = MODALITIES[modality], modality
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        _name(dataset, self._run, study=study, series=study, instance=number)
        dataset.SeriesDescription = f"DEMO {modality}"
        dataset.InstanceNumber = instance + 1
        fill_pixels(dataset, max(1, self._size_bytes // (2 * ROW_PIXELS)), self._random)
        return dataset


def _name(dataset: Dataset, run: str, *, study: int, series: int, instance: int) -> None:
    """Give the object fresh UIDs and a patient nobody can take for real."""
    now = datetime.now(UTC)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"{run}.3.{instance}")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{run}.1.{study}", f"{run}.2.{series}"
    dataset.PatientName, dataset.PatientID = f"ZZTEST^DEMO{study % 12 + 1:02d}", f"ZZ{study % 12 + 1:06d}"
    dataset.StudyDate, dataset.StudyTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.StudyID, dataset.AccessionNumber = f"DEMO{study}", f"A{study + 1:09d}"


def fill_pixels(dataset: Dataset, rows: int, draw: random.Random) -> None:
    """Give the object a picture of noise, 512 pixels wide."""
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = min(rows, 65535), ROW_PIXELS, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    row = bytes(byte & (0xFF if place % 2 == 0 else 0x0F) for place, byte in enumerate(draw.randbytes(2 * ROW_PIXELS)))
    dataset.PixelData = row * dataset.Rows


def _is_storage_object(path: Path) -> bool:
    """Return whether the file can be read, told what it is, and written again in its own transfer syntax."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = dcmread(path)
            dataset.save_as(io.BytesIO(), enforce_file_format=True)
            return describe(path).sop_instance == str(dataset.SOPInstanceUID) and "truncated" not in path.name
        except (InvalidDicomError, ValueError, AttributeError, NotImplementedError, KeyError, EOFError, TypeError):
            return False
