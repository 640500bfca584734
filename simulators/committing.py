"""The half of a modality that asks for storage commitment for what was acknowledged (DICOM PS3.4, annex J).

    acknowledged Instances --N-ACTION, again until answered 0000--> promised --N-EVENT-REPORT--> reported

Reports are taken on the association of the request, which stays for a moment, and on new ones. The journal has a line
for every promise (`act` is "promised", `id` the Transaction UID, `instances` the SOP Instance UIDs) and for every
report, also one that came before: `act` is "reported", with `committed` and `failed`.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from simulators.journal import Journal

TIMEOUT_S = 3.0
STUCK_S = 5.0  # pynetdicom 3 waits for ever where an association ends just when something is to be sent on it
SAME_ASSOCIATION_S = 0.5  # how long a report is waited for where it was asked for
PAUSE_S = 0.5
LAST_REPORTS_S = 15.0  # waited for when the modality ends
REQUEST_COMMITMENT = 1  # action type


class Committer(threading.Thread):
    """Asks for every so many acknowledged Instances, one request at a time; `acknowledged` may be called by any thread.

    `prepare` is called with every connection that is opened, as handler of EVT_CONN_OPEN.
    """

    def __init__(
        self,
        to: tuple[str, int],
        calling: str,
        called: str,
        listen: tuple[str, int],
        every: int,
        journal: Journal,
        prepare: Callable[[evt.Event], None],
    ) -> None:
        super().__init__(daemon=True)
        self._to, self._calling, self._called, self._every = to, calling, called, every
        self._journal, self._prepare = journal, prepare
        self._changed = threading.Condition()
        self._waiting: list[tuple[str, str]] = []
        self._open: set[str] = set()  # promised, not reported
        self._reported: set[str] = set()
        self._ends_at: float | None = None  # told to end: the last reports are waited for until then
        self._run = f"2.25.{time.time_ns()}"
        self.promised = 0
        entity = AE(ae_title=calling)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        self._server: Any = entity.start_server(listen, block=False, evt_handlers=self._handlers("new"))

    def acknowledged(self, sop_class: str, sop_instance: str) -> None:
        """Hear of an Instance that was answered with Success."""
        with self._changed:
            self._waiting.append((sop_class, sop_instance))
            self._changed.notify_all()

    def end(self) -> int:
        """Ask for what is left, wait a while for reports; return how many promises were not reported on."""
        with self._changed:
            self._ends_at = time.monotonic() + LAST_REPORTS_S
            self._changed.notify_all()
        self.join(LAST_REPORTS_S + TIMEOUT_S)
        self._server.shutdown()
        return len(self._open)

    def run(self) -> None:
        """Ask until told to end, then ask once more and wait."""
        ordinal = 0
        while (instances := self._take()) is not None:
            ordinal += 1
            transaction = f"{self._run}.5.{ordinal}"
            while not self._ask(transaction, instances) and not self._is_late():
                time.sleep(PAUSE_S)
        while self._open and not self._is_late():
            self._stand()

    def _take(self) -> list[tuple[str, str]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ends_at is not None or len(self._waiting) >= self._every)
            taken, self._waiting = self._waiting, []
        return taken or None

    def _is_late(self) -> bool:
        return self._ends_at is not None and time.monotonic() > self._ends_at

    def _ask(self, transaction: str, instances: list[tuple[str, str]]) -> bool:
        """Ask once; return whether it was promised, or has been reported on already."""
        if transaction in self._reported:
            return True
        asked = Dataset()
        asked.TransactionUID, asked.ReferencedSOPSequence = transaction, []
        for sop_class, sop_instance in instances:
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, sop_instance
            asked.ReferencedSOPSequence.append(reference)
        association = self._associate()
        if association is None:
            return False
        rescue = threading.Timer(STUCK_S, association.kill)
        rescue.start()
        try:
            answer, _ = association.send_n_action(
                asked, REQUEST_COMMITMENT, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            if answer.get("Status") != 0x0000:
                return False
            self._note(transaction, act="promised", instances=[uid for _, uid in instances])
            with self._changed:
                self.promised += 1
                if transaction not in self._reported:
                    self._open.add(transaction)
                self._changed.wait_for(lambda: transaction in self._reported, SAME_ASSOCIATION_S)
        except (RuntimeError, ValueError, OSError):  # aborted or closed under our hands
            return False
        finally:
            _let_go(association)
            rescue.cancel()
        return True

    def _stand(self) -> None:
        """Keep an association on which reports may come."""
        association = self._associate()
        with self._changed:
            self._changed.wait_for(lambda: not self._open, 2.0)
        if association is not None:
            rescue = threading.Timer(STUCK_S, association.kill)
            rescue.start()
            _let_go(association)
            rescue.cancel()

    def _associate(self) -> Association | None:
        entity = AE(ae_title=self._calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = TIMEOUT_S
        entity.add_requested_context(StorageCommitmentPushModel, ExplicitVRLittleEndian)
        handlers = [(evt.EVT_CONN_OPEN, self._prepare), *self._handlers("same")]
        association = entity.associate(*self._to, ae_title=self._called, evt_handlers=handlers)
        return association if association.is_established else None

    def _handlers(self, where: str) -> list[Any]:
        return [(evt.EVT_N_EVENT_REPORT, self._report, [where])]

    def _report(self, event: Any, where: str) -> tuple[int, None]:
        told = event.event_information
        transaction = str(told.TransactionUID)
        self._note(
            transaction,
            act="reported",
            event=int(event.event_type),
            committed=[str(each.ReferencedSOPInstanceUID) for each in told.get("ReferencedSOPSequence", [])],
            failed=[str(each.ReferencedSOPInstanceUID) for each in told.get("FailedSOPSequence", [])],
            association=where,
        )
        with self._changed:
            self._reported.add(transaction)
            self._open.discard(transaction)
            self._changed.notify_all()
        return 0x0000, None

    def _note(self, transaction: str, **more: object) -> None:
        self._journal.note(ordinal=0, id=transaction, sha256="", **more)
        self._journal.flush()


def _let_go(association: Association) -> None:
    if association.is_established:
        association.release()
