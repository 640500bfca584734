"""A PACS: takes what is stored and journals it, or misbehaves as scripted (DICOM PS3.4 annex B, PS3.7 9.1.1).

Accepts every storage SOP class and transfer syntax and never decodes a data set: its bytes are hashed as they came.
The journal line is written before the status leaves. With `--directory` objects are kept as Part 10 files.

Faults (see faults.py; items are counted over all associations): `slow` (answers after delay_s), `full` (A700),
`refuse` (C000), `warning` (B000, stored), `mismatch` (A900), `abort` (A-ABORT instead of an answer), `close` (the
connection is gone instead of an answer).
`--reject N` turns away the first N associations as "temporary congestion" (PS3.8, 9.3.4).
"""

import argparse
import hashlib
import threading
from pathlib import Path
from typing import Any, cast

from pynetdicom import AE, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from simulators.arguments import add_journal, add_listen, make_parser
from simulators.faults import FaultPlan, load_plan
from simulators.journal import Journal
from simulators.lifecycle import announce, stop_flag, summarise

STATUSES = {"full": 0xA700, "refuse": 0xC000, "warning": 0xB000, "mismatch": 0xA900}
FAULTS = frozenset({"slow", "abort", "close", *STATUSES})
SUCCESS, COERCED = 0x0000, 0xB000
REJECTED_TRANSIENT, BY_PRESENTATION, CONGESTION = 2, 3, 1  # PS3.8 table 9-21
ASSOCIATIONS_MAX = 64


class Receiver:
    """What all associations share: script, journal, counters."""

    def __init__(
        self, plan: FaultPlan, journal: Journal, stopped: threading.Event, options: argparse.Namespace
    ) -> None:
        self._plan, self._journal, self._stopped = plan, journal, stopped
        self._directory: Path | None = options.directory
        self._stop_after: int | None = options.stop_after
        self._to_reject: int = options.reject
        self._lock = threading.Lock()
        self.received = self.stored = self.rejected = 0

    def store(self, event: evt.Event) -> int:
        """Journal one instance and return its status."""
        request = cast(C_STORE, event.request)
        data = b"" if request.DataSet is None else request.DataSet.getvalue()
        instance = str(request.AffectedSOPInstanceUID)
        with self._lock:
            self.received += 1
            ordinal = self.received
            rule = self._plan.draw(ordinal, instance)
        fault = rule.fault if rule is not None else None
        status = STATUSES.get(fault or "", SUCCESS)
        if fault == "slow" and rule is not None:
            self._stopped.wait(rule.delay_s)
        silent = fault in ("abort", "close")
        if status in (SUCCESS, COERCED) and not silent:
            self._keep(event, instance, data)
        answer = "" if silent else f"{status:04X}"
        more = {"answer": answer, "fault": fault, "bytes": len(data)}
        digest = hashlib.sha256(data).hexdigest()
        self._journal.note(
            ordinal=ordinal, id=instance, sha256=digest, sop_class=str(request.AffectedSOPClassUID), **more
        )
        self._journal.flush()
        if silent:
            _break_off(event, politely=fault == "abort")
        if self._stop_after is not None and ordinal >= self._stop_after:
            self._stopped.set()
        return status

    def maybe_reject(self, event: evt.Event) -> None:
        """Turn an association away while the script says so."""
        with self._lock:
            if self.rejected >= self._to_reject:
                return
            self.rejected += 1
        event.assoc.acse.send_reject(REJECTED_TRANSIENT, BY_PRESENTATION, CONGESTION)
        event.assoc.kill()

    def _keep(self, event: evt.Event, instance: str, data: bytes) -> None:
        with self._lock:
            self.stored += 1
        if self._directory is not None:
            name = hashlib.sha256(instance.encode()).hexdigest()  # a UID from the wire is no file name
            (self._directory / f"{name}.dcm").write_bytes(event.encoded_dataset())


def _break_off(event: evt.Event, *, politely: bool) -> None:
    if politely:
        event.assoc.abort()
    elif event.assoc.dul.socket is not None:
        event.assoc.dul.socket.close()
        event.assoc.kill()


def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or until enough was received."""
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    stopped, journal = stop_flag(), Journal(options.journal)
    if options.directory is not None:
        options.directory.mkdir(parents=True, exist_ok=True)
    receiver = Receiver(load_plan(options.faults, FAULTS, options.seed), journal, stopped, options)
    entity = AE(ae_title=options.ae_title)
    entity.add_supported_context(Verification)
    entity.maximum_associations, entity.maximum_pdu_size = ASSOCIATIONS_MAX, 131072
    handlers: list[Any] = [(evt.EVT_C_STORE, receiver.store), (evt.EVT_REQUESTED, receiver.maybe_reject)]
    server = entity.start_server(options.listen, block=False, evt_handlers=handlers)
    assert server is not None and server.socket is not None
    host, port = server.socket.getsockname()[:2]
    announce(port=port, host=host, ae_title=options.ae_title)
    stopped.wait()
    server.shutdown()
    journal.close()
    summarise(received=receiver.received, stored=receiver.stored, rejected=receiver.rejected)


def main() -> None:
    """Run the command line."""
    parser = make_parser(
        "dicom_receiver",
        "Stores DICOM objects sent to it, with scripted faults.",
        """--listen 127.0.0.1:11113 --ae-title PACS --journal pacs.jsonl --faults '[{"fault": "full", "at": [3]}]'""",
    )
    add_listen(parser)
    add_journal(parser)
    parser.add_argument("--ae-title", default="PACS")
    add_arguments(parser)
    run(parser.parse_args())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every receiver of objects takes."""
    parser.add_argument("--directory", type=Path, help="keep what is stored here")
    parser.add_argument("--faults", metavar="FILE|JSON", help=f"list of rules; faults: {', '.join(sorted(FAULTS))}")
    parser.add_argument("--reject", type=int, default=0, metavar="N", help="turn away the first N associations")
    parser.add_argument("--stop-after", type=int, metavar="N", help="end after N instances")


if __name__ == "__main__":
    main()
