"""What a modality does all day: asks for its worklist, says what it does, stores, and asks for commitment.

    worklist C-FIND --> MPPS N-CREATE --> C-STORE ... --> MPPS N-SET --> N-ACTION --> report

Each act has an association of its own, as most modalities do it (IHE RAD-5, 6, 8, 7, 10). Before it begins, the item is
asked for once more: one that has gone was cancelled, one with another start was moved, and neither is done. The journal
has a line for every act of every item: `act` is queried, moved, cancelled, started, stored, completed, discontinued,
commitment or error, `id` the scheduled step, the SOP Instance or the Transaction UID.
"""

import argparse
import random
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from simulators.dicom_objects import MODALITIES, ROW_PIXELS, describe, fill_pixels
from simulators.journal import Journal
from simulators.lifecycle import announce, stop_flag, summarise

TIMEOUT_S = 30.0
PENDING = (0xFF00, 0xFF01)
ASKED = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyInstanceUID",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
)
ASKED_OF_STEP = (
    "Modality",
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "ScheduledProcedureStepDescription",
    "ScheduledProcedureStepID",
)


class RefusedError(Exception):
    """The peer did not do what was asked; the text says what and how it answered."""


@dataclass(kw_only=True)
class Reports:
    """Commitment reports that came, by Transaction UID; taken by the handlers of this and of new associations."""

    came: dict[str, tuple[int, Dataset, str]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, event: Any, where: str) -> tuple[int, None]:
        """Take one N-EVENT-REPORT."""
        with self.changed:
            told = event.event_information
            self.came[str(told.TransactionUID)] = (int(event.event_type), told, where)
            self.changed.notify_all()
        return 0x0000, None

    def wait(self, transaction: str, timeout_s: float) -> tuple[int, Dataset, str] | None:
        """Return event type, data set and association of a report, None when none came in time."""
        with self.changed:
            self.changed.wait_for(lambda: transaction in self.came, timeout_s)
            return self.came.pop(transaction, None)


class ScheduledModality:
    """One modality at work."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._journal = Journal(options.journal)
        self._random = random.Random(options.seed)
        self._reports = Reports()
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(("performed", "stored", "moved", "cancelled", "committed", "failed", "errors"), 0)
        self._ordinal = 0
        self._run = f"2.25.{time.time_ns()}"
        self._server = self._listen() if options.report == "new" else None

    @property
    def port(self) -> int | None:
        """Return where reports are taken on new associations."""
        if self._server is None or self._server.socket is None:
            return None
        return int(self._server.socket.getsockname()[1])

    def work(self, stopped: threading.Event) -> None:
        """Do items until enough are done or it is stopped."""
        done: set[str] = set()
        while not stopped.is_set() and not self._enough():
            for item in self._items():
                key = _step(item).ScheduledProcedureStepID or item.StudyInstanceUID
                if key in done or self._enough() or stopped.is_set():
                    continue
                done.add(key)
                self._perform(item)
            stopped.wait(self._options.poll)

    def close(self) -> None:
        """Stop listening and close the journal."""
        if self._server is not None:
            self._server.shutdown()
        self._journal.close()

    def _enough(self) -> bool:
        return self._options.count is not None and self.counts["performed"] >= self._options.count

    def _items(self) -> list[Dataset]:
        try:
            items = self.query()
        except RefusedError as error:
            self._note("error", "worklist", text=str(error))
            return []
        return items

    def _perform(self, item: Dataset) -> None:
        """Do one item; what goes wrong is journalled, and the day goes on."""
        key = str(_step(item).ScheduledProcedureStepID)
        self._note("queried", key, accession=str(item.AccessionNumber))
        if self._options.hesitate:
            time.sleep(self._options.hesitate)
        try:
            if not self._still_wanted(item):
                return
            given_up = self._options.discontinue_every and (
                (self.counts["performed"] + 1) % self._options.discontinue_every == 0
            )
            uid = self.start(item)
            images = self.store(item, uid)
            self.finish(item, uid, images, discontinued=bool(given_up))
            self.counts["performed"] += 1
            if not self._options.no_commitment:
                self.commit(images)
        except RefusedError as error:
            self._note("error", key, text=str(error))

    def _still_wanted(self, item: Dataset) -> bool:
        """Ask for the item once more: it may have been moved or cancelled while the patient was on the way."""
        key = str(_step(item).ScheduledProcedureStepID)
        again = next((each for each in self.query(step_id=key)), None)
        if again is None:
            self._note("cancelled", key)
            return False
        times = [
            (str(_step(each).ScheduledProcedureStepStartDate), str(_step(each).ScheduledProcedureStepStartTime))
            for each in (item, again)
        ]
        if times[0] != times[1]:
            self._note("moved", key, start=" ".join(times[1]))
            return False
        return True

    def query(self, step_id: str = "") -> list[Dataset]:
        """Return the items of our modality, or one by its step id (PS3.4, K). Raises RefusedError."""
        identifier = Dataset()
        for keyword in ASKED:
            setattr(identifier, keyword, "")
        step = Dataset()
        for keyword in ASKED_OF_STEP:
            setattr(step, keyword, "")
        step.Modality = self._options.modality
        step.ScheduledProcedureStepID = step_id
        if self._options.own_station:
            step.ScheduledStationAETitle = self._options.calling
        identifier.ScheduledProcedureStepSequence = [step]
        found = []
        with self._association(ModalityWorklistInformationFind) as association:
            for status, answer in association.send_c_find(identifier, ModalityWorklistInformationFind):
                if "Status" not in status or (status.Status not in PENDING and status.Status != 0):
                    raise RefusedError(f"worklist answered {_code(status)}")
                if answer is not None:
                    found.append(answer)
        return [item for item in found if not step_id or _step(item).ScheduledProcedureStepID == step_id]

    def start(self, item: Dataset) -> str:
        """Say that the step has begun (MPPS N-CREATE) and return its UID. Raises RefusedError."""
        self._ordinal += 1
        uid, now, step = f"{self._run}.4.{self._ordinal}", datetime.now(), _step(item)
        said = Dataset()
        said.SpecificCharacterSet = "ISO_IR 192"
        scheduled = Dataset()
        scheduled.StudyInstanceUID = item.StudyInstanceUID
        for keyword in (
            "AccessionNumber",
            "RequestedProcedureID",
            "RequestedProcedureDescription",
            "PlacerOrderNumberImagingServiceRequest",
            "FillerOrderNumberImagingServiceRequest",
        ):
            setattr(scheduled, keyword, item.get(keyword, ""))
        scheduled.ReferencedStudySequence = []
        scheduled.ScheduledProcedureStepID = step.ScheduledProcedureStepID
        scheduled.ScheduledProcedureStepDescription = step.get("ScheduledProcedureStepDescription", "")
        scheduled.ScheduledProtocolCodeSequence = []
        said.ScheduledStepAttributesSequence = [scheduled]
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
            setattr(said, keyword, item.get(keyword, ""))
        said.ReferencedPatientSequence = []
        said.PerformedProcedureStepID = f"P{self._ordinal}"
        said.PerformedStationAETitle = self._options.calling
        said.PerformedStationName = said.PerformedLocation = ""
        said.PerformedProcedureStepStartDate = now.strftime("%Y%m%d")
        said.PerformedProcedureStepStartTime = now.strftime("%H%M%S")
        said.PerformedProcedureStepStatus = "IN PROGRESS"
        said.PerformedProcedureStepDescription = said.PerformedProcedureTypeDescription = ""
        said.PerformedProcedureStepEndDate = said.PerformedProcedureStepEndTime = ""
        said.ProcedureCodeSequence, said.PerformedProtocolCodeSequence, said.PerformedSeriesSequence = [], [], []
        said.Modality, said.StudyID = self._options.modality, str(item.get("RequestedProcedureID", ""))
        with self._association(ModalityPerformedProcedureStep) as association:
            status, _ = association.send_n_create(said, ModalityPerformedProcedureStep, uid)
        self._expect(status, "N-CREATE")
        self._note("started", uid, step=str(step.ScheduledProcedureStepID), accession=str(item.AccessionNumber))
        return uid

    def store(self, item: Dataset, performed: str) -> list[Dataset]:
        """Make and store the images of an item (C-STORE); return them. Raises RefusedError."""
        images = [self._image(item, performed, number) for number in range(1, self._options.images + 1)]
        with self._association(MODALITIES[self._options.modality]) as association:
            for image in images:
                path = self._folder / "image.dcm"
                image.save_as(path, enforce_file_format=True)
                status = association.send_c_store(image)
                self._expect(status, "C-STORE", warnings=True)
                self.counts["stored"] += 1
                self._note(
                    "stored",
                    str(image.SOPInstanceUID),
                    sha256=describe(path).sha256,
                    study=str(image.StudyInstanceUID),
                )
        return images

    def finish(self, item: Dataset, uid: str, images: list[Dataset], *, discontinued: bool = False) -> None:
        """Say that the step is over (MPPS N-SET). Raises RefusedError."""
        now, said = datetime.now(), Dataset()
        said.PerformedProcedureStepStatus = "DISCONTINUED" if discontinued else "COMPLETED"
        said.PerformedProcedureStepEndDate = now.strftime("%Y%m%d")
        said.PerformedProcedureStepEndTime = now.strftime("%H%M%S")
        series = Dataset()
        series.SeriesInstanceUID, series.ProtocolName = images[0].SeriesInstanceUID, "DEMO"
        series.SeriesDescription = series.RetrieveAETitle = series.PerformingPhysicianName = series.OperatorsName = ""
        series.ReferencedImageSequence = [_reference(image) for image in images]
        series.ReferencedNonImageCompositeSOPInstanceSequence = []
        said.PerformedSeriesSequence = [series]
        with self._association(ModalityPerformedProcedureStep) as association:
            status, _ = association.send_n_set(said, ModalityPerformedProcedureStep, uid)
        self._expect(status, "N-SET")
        self._note("discontinued" if discontinued else "completed", uid, accession=str(item.AccessionNumber))

    def commit(self, images: list[Dataset]) -> None:
        """Ask for commitment and wait for the report. Raises RefusedError."""
        transaction = f"{self._run}.5.{self._ordinal}"
        asked = Dataset()
        asked.TransactionUID = transaction
        asked.ReferencedSOPSequence = [_reference(image) for image in images]
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._reports.take, ["same"])]
        with self._association(StorageCommitmentPushModel, handlers) as association:
            status, _ = association.send_n_action(
                asked, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            self._expect(status, "N-ACTION")
            if self._server is None:
                self._take_report(transaction, images)
        if self._server is not None:
            self._take_report(transaction, images)

    def _take_report(self, transaction: str, images: list[Dataset]) -> None:
        report = self._reports.wait(transaction, self._options.report_timeout)
        if report is None:
            raise RefusedError(f"no commitment report within {self._options.report_timeout:g} s")
        event_type, told, where = report
        committed = {str(each.ReferencedSOPInstanceUID) for each in told.get("ReferencedSOPSequence", [])}
        failed = [
            (str(one.ReferencedSOPInstanceUID), int(one.FailureReason)) for one in told.get("FailedSOPSequence", [])
        ]
        whole = committed | {uid for uid, _ in failed} == {str(image.SOPInstanceUID) for image in images}
        self.counts["committed"] += len(committed)
        self.counts["failed"] += len(failed)
        self._note(
            "commitment",
            transaction,
            event=event_type,
            committed=len(committed),
            failed=[f"{uid} {reason:04X}" for uid, reason in failed],
            association=where,
            whole=whole,
        )

    def _image(self, item: Dataset, performed: str, number: int) -> Dataset:
        image = Dataset()
        image.SOPClassUID, image.Modality = MODALITIES[self._options.modality], self._options.modality
        image.SpecificCharacterSet = "ISO_IR 192"
        image.SOPInstanceUID = UID(f"{self._run}.3.{self._ordinal}.{number}")
        image.SeriesInstanceUID = f"{self._run}.2.{self._ordinal}"
        image.file_meta = FileMetaDataset()
        image.file_meta.MediaStorageSOPClassUID, image.file_meta.MediaStorageSOPInstanceUID = (
            image.SOPClassUID,
            image.SOPInstanceUID,
        )
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"):
            setattr(image, keyword, item.get(keyword, ""))
        image.StudyInstanceUID, image.ReferringPhysicianName = item.StudyInstanceUID, ""
        now = datetime.now()
        image.StudyDate, image.StudyTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
        image.StudyID, image.SeriesNumber, image.InstanceNumber = str(item.get("RequestedProcedureID", "")), 1, number
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = ModalityPerformedProcedureStep, performed
        image.ReferencedPerformedProcedureStepSequence = [reference]
        request = Dataset()
        request.ScheduledProcedureStepID = _step(item).ScheduledProcedureStepID
        request.RequestedProcedureID = item.get("RequestedProcedureID", "")
        image.RequestAttributesSequence = [request]
        fill_pixels(image, max(1, self._options.size // (2 * ROW_PIXELS)), self._random)
        return image

    @contextmanager
    def _association(self, sop_class: str, handlers: list[Any] | None = None) -> Iterator[Association]:
        entity = AE(ae_title=self._options.calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = TIMEOUT_S
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
        host, port = self._options.to
        all_handlers: list[Any] = [(evt.EVT_CONN_OPEN, send_at_once), *(handlers or [])]
        association = entity.associate(host, port, ae_title=self._options.called, evt_handlers=all_handlers)
        if not association.is_established:
            raise RefusedError("no association")
        try:
            yield association
        except (RuntimeError, ValueError, OSError) as error:  # aborted under our hands, or no context
            raise RefusedError(type(error).__name__) from error
        finally:
            if association.is_established:
                association.release()

    def _listen(self) -> Any:
        entity = AE(ae_title=self._options.calling)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._reports.take, ["new"])]
        return entity.start_server(self._options.listen, block=False, evt_handlers=handlers)

    def _expect(self, status: Dataset, what: str, *, warnings: bool = False) -> None:
        if "Status" in status and (status.Status == 0 or (warnings and status.Status >> 12 == 0xB)):
            return
        raise RefusedError(f"{what} answered {_code(status)}")

    def _note(self, act: str, id: str, *, sha256: str = "", **more: object) -> None:
        with self._lock:
            if act in ("moved", "cancelled"):
                self.counts[act] += 1
            elif act == "error":
                self.counts["errors"] += 1
            self._journal.note(ordinal=self._ordinal, id=id, sha256=sha256, act=act, **more)
            self._journal.flush()


def send_at_once(event: evt.Event) -> None:
    """Set TCP_NODELAY: pynetdicom writes command and data apart, and Nagle's algorithm would add 40 ms to each."""
    wrapped = event.assoc.dul.socket
    if wrapped is not None and wrapped.socket is not None:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def run(options: argparse.Namespace) -> bool:
    """Work until enough is done or SIGTERM; return whether nothing went wrong."""
    stopped = stop_flag()
    with tempfile.TemporaryDirectory(prefix="scheduled-") as folder:
        modality = ScheduledModality(options, Path(folder))
        announce(to="{}:{}".format(*options.to), calling=options.calling, port=modality.port)
        try:
            modality.work(stopped)
        finally:
            modality.close()
    summarise(**modality.counts)
    return modality.counts["errors"] == 0 and modality.counts["failed"] == 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the scheduled workflow."""
    group = parser.add_argument_group("with --scheduled")
    group.add_argument("--scheduled", action="store_true", help="work through the worklist instead")
    group.add_argument("--modality", choices=tuple(MODALITIES), default="CT", help="what the worklist is asked for")
    group.add_argument("--own-station", action="store_true", help="only items whose station is --calling")
    group.add_argument("--images", type=int, default=3, help="of an item")
    group.add_argument("--poll", type=float, default=1.0, metavar="SECONDS", help="between two worklist queries")
    group.add_argument("--hesitate", type=float, default=0.0, metavar="SECONDS", help="between query and start")
    group.add_argument("--discontinue-every", type=int, default=0, metavar="N", help="give every Nth step up")
    group.add_argument("--no-commitment", action="store_true", help="do not ask for commitment")
    group.add_argument("--report", choices=("same", "new"), default="same", help="association of the report")
    group.add_argument("--report-timeout", type=float, default=20.0, metavar="SECONDS")


def _step(item: Dataset) -> Dataset:
    step: Dataset = item.ScheduledProcedureStepSequence[0]
    return step


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return reference


def _code(status: Dataset) -> str:
    return f"{status.Status:04X}" if "Status" in status else "nothing"
