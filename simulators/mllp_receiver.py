"""An EMR's or engine's inbound side: takes HL7 v2 over MLLP and answers, or misbehaves as scripted.

Answers `AA` in original mode and where only MSH-16 asks, `CA` where MSH-15 asks (HL7 v2.5, 2.9.2 and 2.9.3). Every
message is in the journal before the first byte of its answer leaves, so a crash test can trust the journal: what a
sender saw acknowledged stands there.

Faults (see faults.py): `late` (answers after delay_s, in order), `ae` `ar` `ce` `cr` (with ERR, table 0357 `code`),
`ae207` (cannot store now), `wrong_id` (MSA-2 of another message), `half` (half an answer, then closes), `close`
(no answer, closes), `silent` (no answer, stays open), `garbage` (a framed answer that is not HL7), `split` (the answer
in two TCP segments).
"""

import argparse
import asyncio
import hashlib
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import cast

import uvloop

from simulators.arguments import add_journal, add_listen, make_parser
from simulators.faults import FaultPlan, Rule, load_plan
from simulators.journal import Journal
from simulators.lifecycle import announce, stop_event, summarise
from simulators.mllp_answers import Heading, acknowledgement, read_heading
from simulators.mllp_frames import FrameSplitter, frame

FAULTS = frozenset({"late", "ae", "ar", "ce", "cr", "ae207", "wrong_id", "half", "close", "silent", "garbage", "split"})
NEGATIVE = {"ae": ("AE", "102"), "ar": ("AR", "200"), "ce": ("CE", "102"), "cr": ("CR", "200"), "ae207": ("AE", "207")}
SPLIT_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one message is answered with, decided before it is journalled."""

    code: str  # MSA-1, "" when nothing readable is sent
    frame: bytes
    fault: Rule | None


class Receiver:
    """What all connections share: the script, the journal, the counters, the end."""

    def __init__(self, plan: FaultPlan, journal: Journal, stopped: asyncio.Event, stop_after: int | None) -> None:
        self.plan, self.journal, self.stopped, self.stop_after = plan, journal, stopped, stop_after
        self.received = self.answered = self.connections = 0
        self.first_s = self.last_s = 0.0
        self.open: set[asyncio.Transport] = set()

    def take(self, body: bytes, connection: int) -> Answer:
        """Count and journal one message and decide its answer."""
        self.received += 1
        heading = read_heading(body)
        id = "" if heading is None else heading.control_id
        answer = decide(heading, self.plan.draw(self.received, id))
        if self.journal.kept:
            self.journal.note(
                ordinal=self.received,
                id=id,
                sha256=hashlib.sha256(body).hexdigest(),
                answer=answer.code,
                fault=answer.fault.fault if answer.fault else None,
                connection=connection,
                bytes=len(body),
            )
        return answer

    def saw_work(self) -> None:
        """Note when something was last done, and stop when enough was."""
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        if self.stop_after is not None and self.received >= self.stop_after:
            self.stopped.set()


def decide(heading: Heading | None, fault: Rule | None) -> Answer:
    """Return the answer a message gets: positive, negative or as the fault wants it."""
    if heading is None:
        return Answer(code="AR", frame=frame(acknowledgement(None, "AR", error="200")), fault=fault)
    if fault is not None and fault.fault in NEGATIVE:
        code, error = NEGATIVE[fault.fault]
        body = acknowledgement(heading, code, error=fault.code or error, text=fault.text)
        return Answer(code=code, frame=frame(body), fault=fault)
    code = "CA" if heading.wants_commit else "AA"
    if fault is not None and fault.fault == "wrong_id":
        return Answer(code=code, frame=frame(acknowledgement(heading, code, control_id="WRONG-0")), fault=fault)
    if fault is not None and fault.fault == "garbage":
        return Answer(code="", frame=frame(b"\x00\xff no HL7 here"), fault=fault)
    if fault is not None and fault.fault in ("close", "silent", "half"):
        code = ""
    return Answer(code=code, frame=frame(acknowledgement(heading, code or "AA")), fault=fault)


class Connection(asyncio.Protocol):
    """One sender. Messages are answered in order; while an answer is held back nothing more is read."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._splitter = FrameSplitter()
        self._waiting: deque[bytes] = deque()
        self._output: list[bytes] = []
        self._held = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection and send small answers at once."""
        self._transport = cast(asyncio.Transport, transport)
        self._receiver.connections += 1
        self._number = self._receiver.connections
        self._receiver.open.add(self._transport)
        wire = self._transport.get_extra_info("socket")
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget what was not answered."""
        self._receiver.open.discard(self._transport)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Take bytes and answer what is complete."""
        try:
            self._waiting.extend(self._splitter.feed(data))
        except ValueError:
            self._transport.abort()
            return
        self._work()

    def _work(self) -> None:
        while self._waiting and not self._held and not self._transport.is_closing():
            answer = self._receiver.take(self._waiting.popleft(), self._number)
            if answer.fault is None or answer.fault.fault in NEGATIVE or answer.fault.fault in ("wrong_id", "garbage"):
                self._output.append(answer.frame)
            else:
                self._misbehave(answer, answer.fault)
        self._send()
        self._receiver.saw_work()

    def _send(self) -> None:
        """Write the journal, then the answers: never the other way round."""
        self._receiver.journal.flush()
        if self._output and not self._transport.is_closing():
            self._receiver.answered += len(self._output)
            self._transport.write(b"".join(self._output))
        self._output.clear()

    def _misbehave(self, answer: Answer, fault: Rule) -> None:
        self._send()
        match fault.fault:
            case "late":
                self._hold(fault.delay_s, answer.frame)
            case "split":
                middle = len(answer.frame) // 2
                self._transport.write(answer.frame[:middle])
                self._hold(SPLIT_PAUSE_S, answer.frame[middle:])
            case "half":
                self._transport.write(answer.frame[: len(answer.frame) // 2])
                self._transport.close()
            case "close":
                self._transport.close()
            case "silent":
                pass
            case other:
                raise AssertionError(other)

    def _hold(self, delay_s: float, rest: bytes) -> None:
        self._held = True
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(delay_s, self._go_on, rest)

    def _go_on(self, rest: bytes) -> None:
        self._held = False
        if self._transport.is_closing():
            return
        self._output.append(rest)
        self._transport.resume_reading()
        self._work()


async def run(options: argparse.Namespace) -> None:
    """Listen until SIGTERM or until enough was received."""
    plan = load_plan(options.faults, FAULTS, options.seed)
    journal = Journal(options.journal)
    receiver = Receiver(plan, journal, stop_event(), options.stop_after)
    host, port = options.listen
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(receiver), host, port, ssl=_tls(options), backlog=1024)
    announce(port=server.sockets[0].getsockname()[1], host=host, tls=options.tls is not None)
    await receiver.stopped.wait()
    server.close()
    for transport in list(receiver.open):
        transport.close()
    journal.close()
    summarise(
        received=receiver.received,
        answered=receiver.answered,
        connections=receiver.connections,
        seconds=receiver.last_s - receiver.first_s,
    )


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*options.tls)
    if options.tls_client_ca is not None:
        context.load_verify_locations(options.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def main() -> None:
    """Run the command line."""
    parser = make_parser(
        "mllp_receiver",
        "Receives HL7 v2 over MLLP and answers, with scripted faults.",
        """--listen 127.0.0.1:2576 --journal emr.jsonl --faults '[{"fault": "late", "every": 50, "delay_s": 2}]'""",
    )
    add_listen(parser)
    add_journal(parser)
    parser.add_argument("--faults", metavar="FILE|JSON", help=f"list of rules; faults: {', '.join(sorted(FAULTS))}")
    parser.add_argument("--stop-after", type=int, metavar="N", help="end after N messages")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="speak TLS")
    parser.add_argument("--tls-client-ca", metavar="CA", help="ask every sender for a certificate of this authority")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
