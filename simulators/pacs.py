"""A PACS with all it does to a gateway: stores, commits, takes procedure steps, and misbehaves as scripted.

To what `dicom_receiver` does it adds Storage Commitment (PS3.4, J) and MPPS (PS3.4, F) as SCP. The journal has, beside
a line for every C-STORE, one for every request for commitment (`act` commitment), every report (`act` report, with
event type and the peer's status) and every N-CREATE and N-SET (`act` mpps).

Faults of `--faults`, over all C-STOREs: those of `dicom_receiver`.
Faults of `--commitment`, over all requests: `late` (after delay_s), `deny` (nothing is committed, 0213), `partial`
(every second one fails, 0112), `silent` (no report ever), `refuse` (N-ACTION answered 0110), `elsewhere` (the report
comes on a new association to --report-to, whatever stands).
"""

import argparse
import threading
from contextlib import suppress
from typing import Any, cast

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from simulators import dicom_receiver
from simulators.arguments import add_journal, add_listen, address, make_parser
from simulators.faults import FaultPlan, Rule, load_plan
from simulators.journal import Journal
from simulators.lifecycle import announce, stop_flag, summarise

COMMITMENT_FAULTS = frozenset({"late", "deny", "partial", "silent", "refuse", "elsewhere"})
NOT_HELD, DENIED, PROCESSING_FAILURE = 0x0112, 0x0213, 0x0110
REPORT_TIMEOUT_S = 10.0
REPORT_AFTER_S = 0.1  # the response to the N-ACTION leaves first


class Archive:
    """What is stored, and what was promised of it."""

    def __init__(
        self, plan: FaultPlan, journal: Journal, stopped: threading.Event, options: argparse.Namespace
    ) -> None:
        self._plan, self._journal, self._stopped = plan, journal, stopped
        self._ae_title: str = options.ae_title
        self._report_to: tuple[str, int] | None = options.report_to
        self._lock = threading.Lock()
        self._stored: set[tuple[str, str]] = set()
        self._reporters: list[threading.Thread] = []
        self.steps: dict[str, str] = {}
        self.requests = self.reports = 0

    def saw(self, event: evt.Event, status: int) -> None:
        """Remember an object that was stored."""
        if status == 0 or status >> 12 == 0xB:
            request = cast(C_STORE, event.request)
            with self._lock:
                self._stored.add((str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)))

    def asked(self, event: Any) -> tuple[int, None]:
        """Answer a request for commitment; its report follows."""
        told: Dataset = event.action_information
        with self._lock:
            self.requests += 1
            ordinal = self.requests
            rule = self._plan.draw(ordinal, str(told.TransactionUID))
        references = [
            (str(each.ReferencedSOPClassUID), str(each.ReferencedSOPInstanceUID)) for each in told.ReferencedSOPSequence
        ]
        fault = rule.fault if rule is not None else None
        self._note(ordinal, str(told.TransactionUID), act="commitment", fault=fault, instances=len(references))
        if fault == "refuse":
            return PROCESSING_FAILURE, None
        if fault != "silent":
            reporter = threading.Thread(
                target=self._report,
                args=(ordinal, str(told.TransactionUID), references, rule, event.assoc),
                daemon=True,
            )
            self._reporters.append(reporter)
            reporter.start()
        return 0x0000, None

    def created(self, event: Any) -> tuple[int, None]:
        """Take an N-CREATE; a known step is a duplicate."""
        uid, said = str(event.request.AffectedSOPInstanceUID), event.attribute_list
        status = 0x0111 if uid in self.steps else 0x0000
        if not status:
            self.steps[uid] = str(said.PerformedProcedureStepStatus)
        self._note_step("N-CREATE", uid, said, status)
        return status, None

    def changed(self, event: Any) -> tuple[int, None]:
        """Take an N-SET of a step that is known and not over."""
        uid, said = str(event.request.RequestedSOPInstanceUID), event.modification_list
        status = 0x0112 if uid not in self.steps else 0x0000 if self.steps[uid] == "IN PROGRESS" else 0x0110
        if not status:
            self.steps[uid] = str(said.get("PerformedProcedureStepStatus", self.steps[uid]))
        self._note_step("N-SET", uid, said, status)
        return status, None

    def finish(self) -> None:
        """Wait for the reports that are on their way."""
        for reporter in self._reporters:
            reporter.join(REPORT_TIMEOUT_S)

    def _report(
        self, ordinal: int, transaction: str, references: list[tuple[str, str]], rule: Rule | None, assoc: Association
    ) -> None:
        fault = rule.fault if rule is not None else None
        self._stopped.wait(rule.delay_s if rule is not None and fault == "late" else REPORT_AFTER_S)
        outcomes = [(each, self._outcome(number, each, fault)) for number, each in enumerate(references)]
        report = Dataset()
        report.TransactionUID = transaction
        report.ReferencedSOPSequence = [_item(each) for each, reason in outcomes if not reason]
        report.FailedSOPSequence = [_item(each, reason) for each, reason in outcomes if reason]
        for keyword in ("ReferencedSOPSequence", "FailedSOPSequence"):
            if not report[keyword].value:
                del report[keyword]
        event_type = 2 if "FailedSOPSequence" in report else 1
        status, where = self._send(report, event_type, assoc, elsewhere=fault == "elsewhere")
        with self._lock:
            self.reports += 1
        answer = "" if status is None else f"{status:04X}"
        self._note(ordinal, transaction, act="report", event=event_type, answer=answer, association=where)

    def _outcome(self, number: int, reference: tuple[str, str], fault: str | None) -> int:
        if fault == "deny":
            return DENIED
        if fault == "partial" and number % 2:
            return NOT_HELD
        with self._lock:
            return 0 if reference in self._stored else NOT_HELD

    def _send(self, report: Dataset, event_type: int, assoc: Association, *, elsewhere: bool) -> tuple[int | None, str]:
        if assoc.is_established and not elsewhere:
            with suppress(RuntimeError, ValueError):  # it was released while we made up our mind
                if (status := _tell(assoc, report, event_type)) is not None:
                    return status, "same"
        if self._report_to is None:
            return None, "none"
        entity = AE(ae_title=self._ae_title)
        entity.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        called = str(assoc.requestor.ae_title).strip()
        new = entity.associate(*self._report_to, ae_title=called, ext_neg=[role])
        if not new.is_established:
            return None, "none"
        try:
            return _tell(new, report, event_type), "new"
        except (RuntimeError, ValueError):
            return None, "new"
        finally:
            new.release()

    def _note_step(self, operation: str, uid: str, said: Dataset, status: int) -> None:
        state = str(said.get("PerformedProcedureStepStatus", ""))
        self._note(len(self.steps), uid, act="mpps", operation=operation, state=state, answer=f"{status:04X}")

    def _note(self, ordinal: int, id: str, **more: object) -> None:
        self._journal.note(ordinal=ordinal, id=id, sha256="", **more)
        self._journal.flush()


def _tell(assoc: Association, report: Dataset, event_type: int) -> int | None:
    status, _ = assoc.send_n_event_report(
        report, event_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    return int(status.Status) if "Status" in status else None


def _item(reference: tuple[str, str], reason: int = 0) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference
    if reason:
        item.FailureReason = reason
    return item


def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or until enough was received."""
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    stopped, journal = stop_flag(), Journal(options.journal)
    if options.directory is not None:
        options.directory.mkdir(parents=True, exist_ok=True)
    faults = load_plan(options.faults, dicom_receiver.FAULTS, options.seed)
    receiver = dicom_receiver.Receiver(faults, journal, stopped, options)
    promises = load_plan(options.commitment, COMMITMENT_FAULTS, options.seed)
    archive = Archive(promises, journal, stopped, options)

    def store(event: evt.Event) -> int:
        status = receiver.store(event)
        archive.saw(event, status)
        return status

    entity = AE(ae_title=options.ae_title)
    entity.add_supported_context(Verification)
    entity.add_supported_context(StorageCommitmentPushModel)
    entity.add_supported_context(ModalityPerformedProcedureStep)
    entity.maximum_associations, entity.maximum_pdu_size = dicom_receiver.ASSOCIATIONS_MAX, 131072
    handlers: list[Any] = [
        (evt.EVT_C_STORE, store),
        (evt.EVT_REQUESTED, receiver.maybe_reject),
        (evt.EVT_N_ACTION, archive.asked),
        (evt.EVT_N_CREATE, archive.created),
        (evt.EVT_N_SET, archive.changed),
    ]
    server = entity.start_server(options.listen, block=False, evt_handlers=handlers)
    assert server is not None and server.socket is not None
    host, port = server.socket.getsockname()[:2]
    announce(port=port, host=host, ae_title=options.ae_title)
    stopped.wait()
    archive.finish()
    server.shutdown()
    journal.close()
    summarise(
        received=receiver.received,
        stored=receiver.stored,
        rejected=receiver.rejected,
        requests=archive.requests,
        reports=archive.reports,
        steps=archive.steps,
    )


def main() -> None:
    """Run the command line."""
    parser = make_parser(
        "pacs",
        "Stores, commits and takes procedure steps, with scripted faults.",
        """--ae-title PACS --journal pacs.jsonl --commitment '[{"fault": "late", "delay_s": 3}]'""",
    )
    add_listen(parser)
    add_journal(parser)
    parser.add_argument("--ae-title", default="PACS")
    dicom_receiver.add_arguments(parser)
    known = ", ".join(sorted(COMMITMENT_FAULTS))
    parser.add_argument("--commitment", metavar="FILE|JSON", help=f"list of rules for commitment; faults: {known}")
    parser.add_argument("--report-to", type=address, metavar="HOST:PORT", help="where reports go on a new association")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
