"""What simulated Devices do that speak only when they are asked: hear, answer, misbehave on demand, keep a journal.

A Device turns what it heard into answers; its values follow the recording, a set every `period_s`. Faults:

    noise         random bytes stand before every fifth answer
    cut           every seventh answer loses its second half
    bad-checksum  in every sixth answer a character has changed
    silence       three seconds without an answer after every twentieth
    restart       after every thirtieth answer the port goes away for a second and the Device starts again
    sensor-off    ten sets out of every thirty are without values
    alarm         ten sets out of every thirty have an alarm

The journal has one line for each answer that carried values and was sent whole: `values`.
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from simulators.arguments import add_journal, address, make_parser
from simulators.journal import Journal
from simulators.ports import Port, PtyPort, TcpPort
from simulators.recording import oximeter_vitals

FAULTS = ("noise", "cut", "bad-checksum", "silence", "restart", "sensor-off", "alarm")
SILENCE_S = 3.0
UNPLUGGED_S = 1.0
POLL_S = 0.2
NOISE_BYTES = 20


@dataclass(frozen=True, slots=True)
class State:
    """What a pump does at one moment: rate in mL/h, volume infused in mL; `alarm` and `off` by script."""

    rate: float
    volume: float
    alarm: bool
    off: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said; `values` are those in it, None where it carries none."""

    data: bytes
    values: dict[str, str] | None = None


class Device(Protocol):
    """What is particular of one pump."""

    def hear(self, data: bytes, state: State) -> Sequence[Answer]:
        """Return the answers to bytes that came; keeps what is not whole."""
        ...

    def start(self) -> None:
        """Forget the conversation: the pump was switched on."""
        ...


def arguments(module: str, description: str) -> argparse.ArgumentParser:
    """Return the parser that all answering simulators share."""
    parser = make_parser(module, description, "--pty pump.pty --fault noise --journal sent.jsonl")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pty", type=Path, metavar="LINK", help="a pty under this symbolic link (default: no link)")
    where.add_argument("--tcp", type=address, metavar="HOST:PORT", help="listen for one caller")
    parser.add_argument("--rate", type=float, default=1.0, metavar="FACTOR", help="how much faster values change")
    parser.add_argument("--fault", choices=FAULTS, action="append", default=[], help="may be given several times")
    parser.add_argument("--count", type=int, default=None, metavar="N", help="stop after N answers; default: never")
    add_journal(parser)
    return parser


def run(device: Device, asked: argparse.Namespace) -> None:
    """Answer until the count is reached or the process is ended."""
    port: Port = TcpPort(*asked.tcp) if asked.tcp is not None else PtyPort(asked.pty)
    print(port.name, flush=True)
    journal = Journal(asked.journal)
    try:
        _Line(device, port, journal, asked).serve()
    except KeyboardInterrupt:
        pass
    finally:
        journal.close()
        port.unplug()


class _Line:
    def __init__(self, device: Device, port: Port, journal: Journal, asked: argparse.Namespace) -> None:
        self._device = device
        self._port = port
        self._journal = journal
        self._asked = asked
        self._faults = frozenset(asked.fault)
        self._random = random.Random(asked.seed)
        self._pulses = [vitals.pulse for vitals, _ in zip(oximeter_vitals(), range(500), strict=False)]
        self._began = time.monotonic()
        self._answers = 0

    def serve(self) -> None:
        while self._asked.count is None or self._answers < self._asked.count:
            if not self._port.wait(POLL_S):
                time.sleep(POLL_S)
                continue
            if heard := self._port.receive(POLL_S):
                for answer in self._device.hear(heard, self._state()):
                    self._say(answer)

    def _state(self) -> State:
        number = int((time.monotonic() - self._began) * self._asked.rate)
        late = number % 30 >= 20
        pulse = self._pulses[number % len(self._pulses)]
        return State(
            rate=pulse / 10,
            volume=round(number * pulse / 36000, 3),
            alarm="alarm" in self._faults and late,
            off="sensor-off" in self._faults and late,
        )

    def _say(self, answer: Answer) -> None:
        self._answers += 1
        if "noise" in self._faults and self._answers % 5 == 0:
            self._port.send(self._random.randbytes(NOISE_BYTES))
        data = self._damaged(answer.data)
        sent = self._port.send(data)
        if sent and data == answer.data and answer.values is not None:
            digest = sha256(data).hexdigest()
            self._journal.note(ordinal=self._answers, id=str(self._answers), sha256=digest, values=answer.values)
            self._journal.flush()
        self._misbehave()

    def _damaged(self, data: bytes) -> bytes:
        if "cut" in self._faults and self._answers % 7 == 0:
            return data[: len(data) // 2]
        if "bad-checksum" in self._faults and self._answers % 6 == 0 and len(data) > 6:
            return data[:5] + bytes((data[5] ^ 0x01,)) + data[6:]
        return data

    def _misbehave(self) -> None:
        if "silence" in self._faults and self._answers % 20 == 0:
            time.sleep(SILENCE_S)
        if "restart" in self._faults and self._answers % 30 == 0:
            self._port.unplug()
            time.sleep(UNPLUGGED_S)
            self._device.start()
            self._port.plug()
