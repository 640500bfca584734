"""An imaging Modality: C-STOREs objects and keeps each until it was answered with Success (DICOM PS3.7, 9.1.1).

Sends pydicom's test images in the transfer syntax in which they are stored, or generated series. On a failure status
of the kind "out of resources" (A7xx), an abort, a rejection or a silent peer it pauses and sends the same instance,
with the same UIDs and the same bytes, on a new association; other failures are counted and given up. The journal has
one line per instance that was acknowledged with Success.

With `--commitment N` it asks for storage commitment after every N acknowledged instances, see committing.py.
With `--scheduled` it works through its worklist instead, see scheduled.py.
"""

import argparse
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association

from simulators import scheduled
from simulators.arguments import add_journal, add_listen, address, make_parser, size
from simulators.committing import Committer
from simulators.dicom_objects import MODALITIES, ObjectFile, ObjectSource, describe, test_images
from simulators.journal import Journal
from simulators.lifecycle import announce, stop_flag, summarise

RETRY_PAUSE_S = 0.5
NETWORK_TIMEOUT_S = 30.0
JOIN_TIMEOUT_S = 10.0
SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA7
CONTEXTS_MAX = 128


@dataclass(kw_only=True)
class Round:
    """What the associations share: the objects, how many, how fast, and the counters."""

    objects: Iterator[ObjectFile]
    journal: Journal
    stopped: threading.Event
    count: int | None
    interval_s: float
    committer: Committer | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    taken: int = 0
    acknowledged: int = 0
    refused: int = 0
    retried: int = 0
    associations: int = 0
    due_s: float = 0.0

    def take(self) -> tuple[int, ObjectFile] | None:
        """Return the next object and its number, at its time, or None when enough was sent."""
        with self.lock:
            if self.stopped.is_set() or (self.count is not None and self.taken >= self.count):
                return None
            wait_s = self.due_s - time.monotonic()
            self.due_s = max(self.due_s, time.monotonic() - self.interval_s) + self.interval_s
            if wait_s > 0 and self.stopped.wait(wait_s):
                return None
            self.taken += 1
            return self.taken, next(self.objects)

    def saw_success(self, number: int, sent: ObjectFile, status: int) -> None:
        """Journal an acknowledged instance."""
        with self.lock:
            self.acknowledged += 1
        self.journal.note(
            ordinal=number, id=sent.sop_instance, sha256=sent.sha256, code=f"{status:04X}", bytes=sent.bytes
        )
        self.journal.flush()
        if self.committer is not None:
            self.committer.acknowledged(sent.sop_class, sent.sop_instance)


class Lane(threading.Thread):
    """One association after the other, one instance at a time."""

    def __init__(self, work: Round, options: argparse.Namespace, contexts: list[tuple[str, str]]) -> None:
        super().__init__(daemon=True)
        self._contexts = contexts
        self._round, self._options = work, options
        self._association: Association | None = None

    def run(self) -> None:
        """Send until nothing is left."""
        while (taken := self._round.take()) is not None:
            self._send(*taken)
        if self._association is not None and self._association.is_established:
            self._association.release()

    def _send(self, number: int, item: ObjectFile) -> None:
        while not self._round.stopped.is_set():
            status = self._attempt(item)
            if status == SUCCESS or (status is not None and status >> 12 == 0xB):
                self._round.saw_success(number, item, status)
                break
            if status is not None and status >> 8 != OUT_OF_RESOURCES:
                self._round.refused += 1
                print(f"{item.sop_instance}: refused with {status:04X}", file=sys.stderr)
                break
            self._round.retried += 1
            self._round.stopped.wait(RETRY_PAUSE_S)
        if not self._options.files:
            item.path.unlink(missing_ok=True)

    def _attempt(self, item: ObjectFile) -> int | None:
        """Return the status of one C-STORE, None when there was no answer."""
        association = self._open()
        if association is None:
            return None
        try:
            answer = association.send_c_store(item.path)
        except (RuntimeError, OSError):  # aborted or closed while we sent
            return None
        except ValueError:  # no accepted presentation context for it
            return 0x0122
        if "Status" not in answer:
            association.abort()
            return None
        return int(answer.Status)

    def _open(self) -> Association | None:
        if self._association is not None and self._association.is_established:
            return self._association
        self._round.associations += 1
        entity = AE(ae_title=self._options.calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = NETWORK_TIMEOUT_S
        entity.connection_timeout = NETWORK_TIMEOUT_S
        for sop_class, transfer_syntax in self._contexts:
            entity.add_requested_context(sop_class, transfer_syntax)
        host, port = self._options.to
        handlers: list[Any] = [(evt.EVT_CONN_OPEN, scheduled.send_at_once)]
        opened = entity.associate(host, port, ae_title=self._options.called, evt_handlers=handlers)
        self._association = opened if opened.is_established else None
        return self._association


def run(options: argparse.Namespace) -> bool:
    """Send until all is acknowledged or SIGTERM; return whether nothing was refused."""
    warnings.filterwarnings("ignore", module="pydicom")  # the test images are odd on purpose
    _config.STORE_SEND_CHUNKED_DATASET = True  # sends the file's bytes as they are
    stopped, journal = stop_flag(), Journal(options.journal)
    committer = _committer(options, journal)
    with tempfile.TemporaryDirectory(prefix="modality-") as folder:
        work = Round(
            objects=_objects(options, Path(folder)),
            journal=journal,
            stopped=stopped,
            count=len(options.files) if options.files else options.count,
            interval_s=1 / options.rate if options.rate else 0.0,
            committer=committer,
        )
        contexts = _contexts(options)
        lanes = [Lane(work, options, contexts) for _ in range(options.associations)]
        announce(to="{}:{}".format(*options.to), called=options.called, calling=options.calling)
        began_s = time.monotonic()
        for lane in lanes:
            lane.start()
        while any(lane.is_alive() for lane in lanes) and not stopped.wait(0.1):
            pass
        for lane in lanes:
            lane.join(JOIN_TIMEOUT_S)
    unreported = 0 if committer is None else committer.end()
    journal.close()
    seconds = time.monotonic() - began_s
    counts = {"retried": work.retried, "associations": work.associations, "seconds": seconds}
    if committer is not None:
        counts |= {"promised": committer.promised, "unreported": unreported}
    summarise(sent=work.taken, acknowledged=work.acknowledged, refused=work.refused, **counts)
    return work.refused == 0 and (stopped.is_set() or work.acknowledged == work.taken)


def _objects(options: argparse.Namespace, folder: Path) -> Iterator[ObjectFile]:
    if options.files:
        return (describe(path) for path in options.files)
    made = ObjectSource(
        folder, options.seed, series=options.series, instances=options.instances, size_bytes=options.size
    )
    return made.objects()


def _committer(options: argparse.Namespace, journal: Journal) -> Committer | None:
    if not options.commitment:
        return None
    made = Committer(
        options.to,
        options.calling,
        options.called,
        options.listen,
        options.commitment,
        journal,
        scheduled.send_at_once,
    )
    made.start()
    return made


def _contexts(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return SOP class and transfer syntax of everything we may send, for one association to carry it all."""
    if options.series is not None and not options.files:
        return [(MODALITIES[options.series], ExplicitVRLittleEndian)]
    described = [describe(path) for path in options.files or test_images()]
    return sorted({(item.sop_class, item.transfer_syntax) for item in described})[:CONTEXTS_MAX]


def main() -> None:
    """Run the command line; exit status 1 when an instance was refused or never acknowledged."""
    parser = make_parser(
        "modality",
        "C-STOREs DICOM objects: real test images, or generated series with --series.",
        "--to 127.0.0.1:11112 --called GATEWAY --calling CT1 --series CT --instances 20 --size 512KB --count 100",
    )
    parser.add_argument("--to", type=address, default=("127.0.0.1", 11112), metavar="HOST:PORT")
    parser.add_argument("--called", default="GATEWAY", help="AE title of the peer")
    parser.add_argument("--calling", default="MODALITY", help="our AE title")
    parser.add_argument("--associations", type=int, default=1)
    parser.add_argument("--count", type=int, help="end after N instances (default: go on)")
    parser.add_argument("--rate", type=float, help="instances a second in all (default: as fast as answered)")
    parser.add_argument("--series", choices=tuple(MODALITIES), help="generate series of this modality")
    parser.add_argument("--instances", type=int, default=20, help="instances of a generated series")
    parser.add_argument("--size", type=size, default=512 << 10, help="of a generated instance, e.g. 512KB")
    parser.add_argument("--files", type=Path, nargs="+", help="send these Part 10 files unchanged instead")
    parser.add_argument("--commitment", type=int, default=0, metavar="N", help="ask for every N; reports to --listen")
    parser.add_argument("--list", action="store_true", help="print the paths of the test images and end")
    add_listen(parser)
    add_journal(parser)
    scheduled.add_arguments(parser)
    options = parser.parse_args()
    if options.list:
        print("\n".join(str(path) for path in test_images()))
    elif not (scheduled.run(options) if options.scheduled else run(options)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
