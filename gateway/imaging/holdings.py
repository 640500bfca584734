"""What the box holds, for Query/Retrieve: the index follows the Messages, and every query looks that it is up to date.

An Instance's head is read behind the intake, once, so that receiving it costs nothing more. A query or retrieval that
comes first waits until what was acknowledged before it is in the index. Where the disk does not give the head, what
was known of it when it came stands in the index: it is found, and a retrieval tells that it cannot be read.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from gateway.dataset import Attributes, Element
from gateway.errors import ContentError, StoreError
from gateway.formats.dicom import read_header
from gateway.formats.identifiers import tag_of, to_json, vr_of
from gateway.spool import Spool
from gateway.store.holdings import LOOK_MAX, NewHolding, Unindexed, add_holdings, indexed_until, unindexed
from gateway.store.store import Store

ROUND_S = 5.0

PATIENT_KEYS = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientBirthTime",
    "PatientSex",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientComments",
)
STUDY_KEYS = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "ReferringPhysicianName",
    "NameOfPhysiciansReadingStudy",
    "AdmittingDiagnosesDescription",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "Occupation",
    "AdditionalPatientHistory",
    "InstitutionName",
)
SERIES_KEYS = (
    "SeriesInstanceUID",
    "Modality",
    "SeriesNumber",
    "SeriesDescription",
    "SeriesDate",
    "SeriesTime",
    "Laterality",
    "BodyPartExamined",
    "ProtocolName",
    "PerformingPhysicianName",
    "OperatorsName",
    "StationName",
    "Manufacturer",
    "ManufacturerModelName",
    "FrameOfReferenceUID",
    "PerformedProcedureStepID",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
)
IMAGE_KEYS = (
    "SOPInstanceUID",
    "SOPClassUID",
    "InstanceNumber",
    "ImageType",
    "AcquisitionNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "ContentDate",
    "ContentTime",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "Rows",
    "Columns",
    "BitsAllocated",
    "NumberOfFrames",
    "CompletionFlag",
    "VerificationFlag",
)
_ALL = (*PATIENT_KEYS, *STUDY_KEYS, *SERIES_KEYS, *IMAGE_KEYS)

_log = logging.getLogger("gateway.imaging")


class Holdings:
    """Keeps the index; one for the agent."""

    def __init__(self, store: Store, spool: Spool) -> None:
        """Take the store, whose writer adds the rows, and the Spool, where the files lie."""
        self._store = store
        self._spool = spool
        self._one = asyncio.Lock()
        self._mark = 0  # up to this Message all is in the index
        self._written = 0  # and the store knows it up to this one

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self.catch_up()
            await asyncio.sleep(ROUND_S)

    async def catch_up(self) -> None:
        """Index what was kept before this call. Raises StoreError."""
        async with self._one:
            known, goal = await asyncio.to_thread(lambda: indexed_until(self._store.readers.connection))
            self._mark = max(self._mark, known)
            while self._mark < goal:
                until, read = await asyncio.to_thread(self._read_piece, goal)
                if read or until - self._written >= LOOK_MAX:  # what is nobody's images costs no transaction
                    await asyncio.wrap_future(self._store.call(partial(add_holdings, until=until, holdings=read)))
                    self._written = until
                self._mark = until

    def _read_piece(self, goal: int) -> tuple[int, list[NewHolding]]:
        until, new = unindexed(self._store.readers.connection, self._mark, goal)
        return until, self._read(new)

    def _read(self, new: Sequence[Unindexed]) -> list[NewHolding]:
        return [_holding(each, {**each.headers, **self._head(each)}) for each in new]

    def _head(self, new: Unindexed) -> dict[str, str]:
        try:
            return read_header(self._spool.path_of(new.object_name), _ALL).values
        except (ContentError, OSError, StoreError) as error:  # gone with its retention, or not readable
            _log.warning("instance.unread message=%d reason=%s", new.message_id, type(error).__name__)
            return {}


def _holding(new: Unindexed, values: dict[str, str]) -> NewHolding:
    return NewHolding(
        message_id=new.message_id,
        object_name=new.object_name,
        sop_instance_uid=values.get("SOPInstanceUID", ""),
        sop_class_uid=values.get("SOPClassUID", ""),
        patient_id=values.get("PatientID", ""),
        study_instance_uid=values.get("StudyInstanceUID", ""),
        study_date=values.get("StudyDate", "")[:8],
        series_instance_uid=values.get("SeriesInstanceUID", ""),
        modality=values.get("Modality", ""),
        study=to_json(_some(values, (*PATIENT_KEYS, *STUDY_KEYS))),
        series=to_json(_some(values, SERIES_KEYS)),
        instance=to_json(_some(values, IMAGE_KEYS)),
    )


def _some(values: dict[str, str], keywords: Sequence[str]) -> Attributes:
    found = {}
    for keyword in keywords:
        if text := values.get(keyword):
            tag = tag_of(keyword)
            found[tag] = Element(vr_of(tag), tuple(text.split("\\")))
    return found
