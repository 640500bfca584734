"""What all oximeter simulators do: play the recording at a port, misbehave on demand, and keep a journal.

A Device only renders: `greet` what it says when it is switched on or a line begins, `say` one set of values. Faults:

    sensor-off   ten sets out of every thirty are without values
    noise        random bytes and a line end stand before every fifth set
    cut          every seventh set loses its second half
    silence      three seconds of nothing after every tenth set
    restart      after every tenth set the port goes away for a second and the Device starts again

The journal has one line for every set that was sent whole: `ordinal`, `id`, `sha256` of its bytes, `spo2`, `pulse`
(null without a sensor), `device_time` where the Device sends its clock.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Protocol

from simulators.arguments import add_journal, address, make_parser
from simulators.journal import Journal
from simulators.ports import Port, PtyPort, TcpPort
from simulators.recording import Vitals, oximeter_vitals

FAULTS = ("sensor-off", "noise", "cut", "silence", "restart")
SILENCE_S = 3.0
UNPLUGGED_S = 1.0
LINGER_S = 0.5  # what was said last can still be read
NOISE_BYTES = 40
LISTEN_DELAY_S = 0.3  # a port that was just opened is still being set
FIRST_DEVICE_TIME = datetime(2026, 7, 5, 10, 15)


@dataclass(frozen=True, slots=True)
class Saying:
    """One set of values on the wire; `device_time` as the Device prints it."""

    data: bytes
    device_time: str | None = None


class Device(Protocol):
    """What is particular of one Device; `period_s` lies between two sets."""

    period_s: float

    def greet(self) -> bytes:
        """Return what comes before the first set after a start."""
        ...

    def say(self, ordinal: int, vitals: Vitals | None, clock: datetime) -> Saying:
        """Return one set; without vitals the sensor is off."""
        ...

    def hear(self, data: bytes) -> bytes:
        """Return the answer to what the other side said."""
        ...


def arguments(module: str, description: str) -> argparse.ArgumentParser:
    """Return the parser that all bedside simulators share."""
    parser = make_parser(module, description, "--pty bed-12.pty --rate 10 --fault sensor-off --journal sent.jsonl")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pty", type=Path, metavar="LINK", help="a pty under this symbolic link (default: no link)")
    where.add_argument("--tcp", type=address, metavar="HOST:PORT", help="listen for one caller")
    where.add_argument("--call", type=address, metavar="HOST:PORT", help="call, as LAN monitors do")
    parser.add_argument("--rate", type=float, default=1.0, metavar="FACTOR", help="how much faster than life")
    parser.add_argument("--fault", choices=FAULTS, action="append", default=[], help="may be given several times")
    parser.add_argument("--count", type=int, default=None, metavar="N", help="stop after N sets; default: never")
    parser.add_argument("--start", type=int, default=0, metavar="ROW", help="first row of the recording")
    add_journal(parser)
    parser.add_argument("--journal-bytes", action="store_true", help="put the bytes themselves into the journal (hex)")
    return parser


def run(device: Device, asked: argparse.Namespace) -> None:
    """Play until the count is reached or the process is ended."""
    port = _plug(asked)
    print(port.name, flush=True)
    journal = Journal(asked.journal)
    player = _Player(device, port, journal, asked)
    try:
        player.play()
    except KeyboardInterrupt:
        pass
    finally:
        journal.close()
        time.sleep(LINGER_S)
        port.unplug()


def _plug(asked: argparse.Namespace) -> Port:
    if asked.tcp is not None:
        return TcpPort(*asked.tcp)
    if asked.call is not None:
        return TcpPort(*asked.call, call=True)
    return PtyPort(asked.pty)


class _Player:
    def __init__(self, device: Device, port: Port, journal: Journal, asked: argparse.Namespace) -> None:
        self._device = device
        self._port = port
        self._journal = journal
        self._faults = frozenset(asked.fault)
        self._rate = asked.rate
        self._count = asked.count
        self._vitals: Iterator[Vitals] = oximeter_vitals(asked.start)
        self._random = random.Random(asked.seed)
        self._whole = asked.journal_bytes
        self._heard_by_nobody = True

    def play(self) -> None:
        """Send one set after the other, each at its time."""
        due = time.monotonic()
        for ordinal in count(1):
            if self._count is not None and ordinal > self._count:
                return
            if self._await_listener():
                due = time.monotonic()  # what was due while nobody listened is not made up for
            due += self._device.period_s / self._rate
            self._say(ordinal)
            self._answer_until(due)
            self._misbehave_after(ordinal)

    def _await_listener(self) -> bool:
        """Return whether there was nobody before: the line begins anew."""
        if not self._heard_by_nobody and self._port.wait(0):
            return False
        while not self._port.wait(None):
            time.sleep(LISTEN_DELAY_S)
        time.sleep(LISTEN_DELAY_S)
        self._port.send(self._device.greet())
        self._heard_by_nobody = False
        return True

    def _say(self, ordinal: int) -> None:
        vitals: Vitals | None = next(self._vitals)
        if "sensor-off" in self._faults and ordinal % 30 >= 20:
            vitals = None
        saying = self._device.say(ordinal, vitals, FIRST_DEVICE_TIME + timedelta(seconds=ordinal))
        if "noise" in self._faults and ordinal % 5 == 0:
            self._port.send(self._random.randbytes(NOISE_BYTES) + b"\r\n")
        if "cut" in self._faults and ordinal % 7 == 0:
            self._port.send(saying.data[: len(saying.data) // 2] + b"\r\n")
            return
        began_at = time.time()
        if self._port.send(saying.data):
            self._journal.note(
                ordinal=ordinal,
                id=saying.device_time or str(ordinal),
                sha256=sha256(saying.data).hexdigest(),
                spo2=None if vitals is None else vitals.spo2,
                pulse=None if vitals is None else vitals.pulse,
                device_time=saying.device_time,
                began_at=began_at,
                **({"data": saying.data.hex()} if self._whole else {}),
            )
            self._journal.flush()
        else:
            self._heard_by_nobody = True

    def _answer_until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0:
            began = time.monotonic()
            heard = self._port.receive(left)
            if heard:
                self._port.send(self._device.hear(heard))
            elif time.monotonic() - began < left:  # nobody is there: that returns at once
                time.sleep(min(left, 0.05))

    def _misbehave_after(self, ordinal: int) -> None:
        if ordinal % 10:
            return
        if "silence" in self._faults:
            time.sleep(SILENCE_S)
        if "restart" in self._faults:
            time.sleep(LINGER_S)
            self._port.unplug()
            time.sleep(UNPLUGGED_S)
            self._port.plug()
            self._heard_by_nobody = True
