"""An EMR that orders imaging: ORM^O01 or OMI^O23 over MLLP, and what comes after: moved, cancelled, discontinued.

Each order is sent as new (ORC-1 NW) and, as the script says, changed later: XO with another start, CA before the work
began, DC during it (IHE RAD-3, RAD-4, RAD-13). One message at a time; each waits for its acknowledgement, and what is
not answered is sent again on a new connection. The journal has a line for every message that was acknowledged: `id` is
MSH-10, `order` the accession number, `control` ORC-1, `code` MSA-1.
"""

import argparse
import hashlib
import itertools
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from simulators.arguments import add_journal, address, make_parser
from simulators.hl7_messages import PATIENTS, Patient
from simulators.journal import Journal
from simulators.lifecycle import announce, stop_flag, summarise
from simulators.mllp_frames import FrameSplitter, frame

ANSWER_S = 10.0
RECONNECT_PAUSE_S = 0.2
CHANGES = {"XO": "SC", "CA": "CA", "DC": "CA"}  # ORC-1 and the ORC-5 that goes with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order and its one scheduled step."""

    number: int
    run: int
    modality: str
    station: str
    start: datetime

    @property
    def accession(self) -> str:
        """Return the accession number, at most 16 characters."""
        return f"A{self.run % 10**8:08d}{self.number:04d}"

    def message(self, control: str, form: str, control_id: str) -> str:
        """Return the message that says NW, XO, CA or DC of this order."""
        patient = Patient(number=(self.number - 1) % PATIENTS + 1)
        moment = time.strftime("%Y%m%d%H%M%S+0000", time.gmtime())
        kind = "ORM^O01^ORM_O01" if form == "orm" else "OMI^O23^OMI_O23"
        head = f"MSH|^~\\&|DEMO-EMR|DEMO|GATEWAY|DEMO|{moment}||{kind}|{control_id}|P|2.5.1||||||UNICODE UTF-8"
        tail = self._orm(control) if form == "orm" else self._omi(control)
        return "\r".join([head, patient.pid(), patient.pv1(), *tail]) + "\r"

    def _orm(self, control: str) -> list[str]:
        numbers, start, serial = self._numbers, self.start.strftime("%Y%m%d%H%M%S"), self._serial
        service = (
            f"{self.modality}DEMO^{self.modality} demo^99DEMO^{self.modality}DEMO_P^{self.modality} protocol^99DEMO"
        )
        ids = f"{self.accession}|RP{serial}|S{serial}|{self.station}"
        return [
            f"ORC|{control}|{numbers}||{CHANGES.get(control, 'SC')}||^^^{start}^^R",
            f"OBR|1|{numbers}|{service}||||||||||||||{ids}|||{self.modality}|||^^^{start}^^R",
            f"ZDS|{self._study}^DEMO^Application^DICOM",
        ]

    def _omi(self, control: str) -> list[str]:
        numbers, serial = self._numbers, self._serial
        service = f"{self.modality}DEMO^{self.modality} demo^99DEMO"
        ids = f"{self.accession}^DEMO-OF|RP{serial}|{self._study}|S{serial}"
        return [
            f"ORC|{control}|{numbers}||{CHANGES.get(control, 'SC')}",
            f"TQ1|1||||||{self.start:%Y%m%d%H%M%S}||R^Routine^HL70078",
            f"OBR|1|{numbers}|{service}",
            f"IPC|{ids}|{self.modality}|{self.modality}DEMO_P^protocol^99DEMO|ROOM|ROOM|{self.station}",
        ]

    @property
    def _serial(self) -> str:
        return f"{self.run % 10**6:06d}{self.number:04d}"

    @property
    def _numbers(self) -> str:
        return f"P{self._serial}^DEMO-OP|F{self._serial}^DEMO-OF"

    @property
    def _study(self) -> str:
        return f"2.25.{self.run}9{self.number:04d}"


class Line:
    """One MLLP connection, opened again when it breaks."""

    def __init__(self, to: tuple[str, int], stopped: threading.Event) -> None:
        self._to, self._stopped = to, stopped
        self._wire: socket.socket | None = None
        self._splitter = FrameSplitter()
        self.resent = 0

    def ask(self, body: bytes, control_id: str) -> str | None:
        """Send a message until it is answered; return MSA-1, None when stopped."""
        for attempt in itertools.count():
            if self._stopped.is_set():
                return None
            self.resent += attempt > 0
            try:
                return self._ask(body, control_id)
            except (OSError, ValueError):
                self.close()
                self._stopped.wait(RECONNECT_PAUSE_S)
        return None

    def close(self) -> None:
        """Close the connection."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _ask(self, body: bytes, control_id: str) -> str:
        if self._wire is None:
            self._wire = socket.create_connection(self._to, ANSWER_S)
            self._wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._splitter = FrameSplitter()
        self._wire.sendall(frame(body))
        while data := self._wire.recv(65536):
            for answer in self._splitter.feed(data):
                fields = next((line.split("|") for line in answer.decode().split("\r") if line[:3] == "MSA"), [])
                if len(fields) > 2 and fields[2] == control_id:
                    return fields[1]
        raise ValueError("closed without an answer")


class Emr:
    """Sends what is due, in order."""

    def __init__(self, options: argparse.Namespace, stopped: threading.Event) -> None:
        self._options, self._stopped = options, stopped
        self._line = Line(options.to, stopped)
        self._journal = Journal(options.journal)
        self._run = int(time.time()) if options.run is None else options.run
        self._later: deque[tuple[float, Order, str]] = deque()
        self.counts = {"sent": 0, "acknowledged": 0, "refused": 0}

    def work(self) -> None:
        """Order until enough was ordered and changed, or stopped."""
        for number in itertools.count(1):
            if self._options.count is not None and number > self._options.count:
                break
            self._change_due()
            if self._stopped.is_set():
                return
            order = self._order(number)
            self._send(order, "NW")
            for control in ("XO", "CA", "DC"):
                every = getattr(self._options, f"{control.lower()}_every")
                if every and number % every == 0:
                    self._later.append((time.monotonic() + self._options.change_after, order, control))
                    break
            self._stopped.wait(1 / self._options.rate if self._options.rate else 0.0)
        while self._later and not self._stopped.is_set():
            self._stopped.wait(max(0.0, self._later[0][0] - time.monotonic()))
            self._change_due()

    def close(self) -> None:
        """Close connection and journal."""
        self._line.close()
        self._journal.close()

    def _order(self, number: int) -> Order:
        start = datetime.now().replace(microsecond=0) + timedelta(minutes=self._options.start_in)
        return Order(
            number=number, run=self._run, modality=self._options.modality, station=self._options.station, start=start
        )

    def _change_due(self) -> None:
        while self._later and self._later[0][0] <= time.monotonic() and not self._stopped.is_set():
            _, order, control = self._later.popleft()
            moved = timedelta(days=1) if control == "XO" else timedelta(0)
            self._send(
                Order(
                    number=order.number,
                    run=order.run,
                    modality=order.modality,
                    station=order.station,
                    start=order.start + moved,
                ),
                control,
            )

    def _send(self, order: Order, control: str) -> None:
        self.counts["sent"] += 1
        control_id = f"O{self._run % 10**8:08d}-{self.counts['sent']}"
        body = order.message(control, self._options.form, control_id).encode()
        code = self._line.ask(body, control_id)
        if code is None:
            return
        self.counts["acknowledged" if code in ("AA", "CA") else "refused"] += 1
        digest = hashlib.sha256(body).hexdigest()
        facts = {"order": order.accession, "control": control, "code": code, "bytes": len(body)}
        self._journal.note(ordinal=self.counts["sent"], id=control_id, sha256=digest, **facts)
        self._journal.flush()


def main() -> None:
    """Run the command line; exit status 1 when something sent was refused or never answered."""
    parser = make_parser(
        "orders",
        "Orders imaging over MLLP, and changes its mind.",
        "--to 127.0.0.1:2575 --modality CT --count 10 --xo-every 3 --ca-every 5 --journal orders.jsonl",
    )
    parser.add_argument("--to", type=address, required=True, metavar="HOST:PORT")
    parser.add_argument("--form", choices=("orm", "omi"), default="orm")
    parser.add_argument("--modality", default="CT")
    parser.add_argument("--station", default="CT1", help="AE title of the station that is to do it")
    parser.add_argument("--count", type=int, help="end after N orders (default: go on)")
    parser.add_argument("--rate", type=float, help="orders a second (default: as fast as answered)")
    parser.add_argument("--start-in", type=float, default=0.0, metavar="MINUTES", help="from now")
    parser.add_argument("--change-after", type=float, default=1.0, metavar="SECONDS", help="when changes are sent")
    parser.add_argument("--xo-every", type=int, default=0, metavar="N", help="move every Nth order to tomorrow")
    parser.add_argument("--ca-every", type=int, default=0, metavar="N", help="cancel every Nth order")
    parser.add_argument("--dc-every", type=int, default=0, metavar="N", help="discontinue every Nth order")
    parser.add_argument("--run", type=int, help="number that makes ids unique (default: from the clock)")
    add_journal(parser)
    options = parser.parse_args()
    emr = Emr(options, stop_flag())
    announce(to="{}:{}".format(*options.to))
    try:
        emr.work()
    finally:
        emr.close()
    summarise(**emr.counts)
    if emr.counts["acknowledged"] != emr.counts["sent"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
