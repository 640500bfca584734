"""A blood gas analyser that speaks ASTM E1381 and E1394 to its host, over a pty or TCP.

One sample every `period_s`: it enquires, sends H, P, O, R…, L as frames, repeats what is NAKed (at most six times),
and asks for orders with a Q record before every fifth sample (`--ask-every`). Its values follow a recorded patient.

Faults: `sensor-off` sends `.....` for what was not measured, `noise` bytes before every third transmission, `cut` and
`bad-checksum` in every fourth frame (repeated soundly after the NAK), `silence` stops in mid-transmission once,
`restart` after every tenth sample, `clock-jump` an hour back after every fifth, `alarm` values far out of range.

The journal has one line for each sample that the host acknowledged (`id` S0001 …, `values` by test) and for each
answer to a question (`id` Q0005 …, `answer`).
"""

import argparse
import random
import time
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path

from simulators.arguments import add_journal, address, make_parser
from simulators.journal import Journal
from simulators.ports import Port, PtyPort, TcpPort
from simulators.recording import oximeter_vitals

FAULTS = ("sensor-off", "noise", "cut", "bad-checksum", "silence", "restart", "clock-jump", "alarm")
ENQ, ACK, NAK, EOT = b"\x05", b"\x06", b"\x15", b"\x04"
REPLY_S = 15.0
TRIES = 6
ANSWER_S = 20.0
PERIOD_S = 10.0
PAUSE_S = 10.0  # after a refusal (LIS01-A2, 6.2.6)
SILENCE_S = 40.0
POLL_S = 0.3
FIRST_CLOCK = datetime(2026, 7, 5, 10, 15)


class Analyser:
    """Sends samples; knows nothing of the host but what it hears."""

    def __init__(self, port: Port, journal: Journal, faults: frozenset[str], seed: int) -> None:
        """Take the line, the journal, and what is to go wrong."""
        self._port = port
        self._journal = journal
        self._faults = faults
        self._random = random.Random(seed)
        self._frames = 0
        self.clock = FIRST_CLOCK

    def send_sample(self, number: int, spo2: int, pulse: int) -> bool:
        """Bring one sample to the host; True when every frame was acknowledged."""
        values = self._values(spo2, pulse)
        if not self.transmit(self._records(number, values)):
            return False
        self._note(number, f"S{number:04d}", "\n".join(self._records(number, values)), values=values)
        return True

    def ask(self, number: int) -> None:
        """Ask what is to be done with a sample, and note the records of the host's answer."""
        question = [self._header(), f"Q|1|^S{number:04d}||ALL||||||||O", "L|1|N"]
        if self.transmit(question):
            answer = self._listen()
            self._note(number, f"Q{number:04d}", "\n".join(answer), answer=answer)

    def _note(self, number: int, name: str, text: str, **more: object) -> None:
        self._journal.note(ordinal=number, id=name, sha256=sha256(text.encode()).hexdigest(), **more)
        self._journal.flush()

    def transmit(self, records: list[str]) -> bool:
        """Send records as frames, with all the patience that the standard asks for."""
        if "noise" in self._faults and self._frames % 3 == 0:
            self._port.send(bytes(byte for byte in self._random.randbytes(30) if byte > 0x1F))
        if not self._say(ENQ):
            return False
        sent = all(self._send_frame(index, record) for index, record in enumerate(records, 1))
        self._port.send(EOT)
        return sent

    def _send_frame(self, index: int, record: str) -> bool:
        self._frames += 1
        content = f"{index % 8}{record}\r\x03".encode("latin-1")
        sound = b"\x02" + content + f"{sum(content) % 256:02X}\r\n".encode()
        for attempt in range(TRIES):
            frame = self._damaged(sound) if attempt == 0 and self._frames % 4 == 0 else sound
            if self._say(frame):
                return True
        return False

    def _damaged(self, frame: bytes) -> bytes:
        if "bad-checksum" in self._faults:
            return frame[:-4] + (b"00" if frame[-4:-2] != b"00" else b"11") + frame[-2:]
        if "cut" in self._faults:
            return frame[: len(frame) // 2] + frame[-5:]
        return frame

    def _say(self, words: bytes) -> bool:
        self._port.send(words)
        until = time.monotonic() + REPLY_S
        while (left := until - time.monotonic()) > 0:
            heard = self._port.receive(left)
            if ACK in heard:
                return True
            if NAK in heard:
                return False
            if not heard and not self._port.wait(0):
                return False
        return False

    def _listen(self) -> list[str]:
        """Hear the host's transmission, acknowledging every frame."""
        heard, until = b"", time.monotonic() + ANSWER_S
        records: list[str] = []
        while (left := until - time.monotonic()) > 0:
            heard += self._port.receive(left)
            while heard:
                if heard[:1] == EOT:
                    return records
                if heard[:1] == b"\x02":
                    end = heard.find(b"\n")
                    if end < 0:
                        break
                    records.append(heard[2 : heard.index(b"\x03")].decode("latin-1").rstrip("\r"))
                    heard = heard[end + 1 :]
                    self._port.send(ACK)
                    continue
                if heard[:1] == ENQ:
                    self._port.send(ACK)
                heard = heard[1:]
        return records

    def _values(self, spo2: int, pulse: int) -> dict[str, str]:
        if "sensor-off" in self._faults and pulse % 3 == 0:
            return {"pH": ".....", "pCO2": ".....", "Na+": str(130 + pulse % 12)}
        if "alarm" in self._faults:
            return {"pH": "6.85", "pCO2": "92.0", "Na+": "171"}
        return {
            "pH": f"{7.0 + spo2 / 250:.3f}",
            "pCO2": f"{30 + pulse % 15}.{spo2 % 10}",
            "Na+": str(130 + pulse % 12),
        }

    def _header(self) -> str:
        return rf"H|\^&|||SIMGAS^1.0^SN0001|||||||P|LIS2-A2|{self.clock:%Y%m%d%H%M%S}"

    def _records(self, number: int, values: dict[str, str]) -> list[str]:
        units = {"pCO2": "mmHg", "Na+": "mmol/L"}
        flag = "HH" if "alarm" in self._faults else "N"
        stamp = f"{self.clock:%Y%m%d%H%M%S}"
        results = [
            f"R|{index}|^^^{test}^M|{value}|{units.get(test, '')}||{flag}||F||SIM||{stamp}"
            for index, (test, value) in enumerate(values.items(), 1)
        ]
        return [self._header(), "P|1|ZZTEST1", f"O|1|S{number:04d}||^^^ALL|R", *results, "L|1|N"]


def main() -> None:
    """Play until the count is reached or the process is ended."""
    parser = make_parser("astm", "A blood gas analyser.", "--pty lab.pty --rate 10 --journal sent.jsonl")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pty", type=Path, metavar="LINK", help="a pty under this symbolic link (default: no link)")
    where.add_argument("--tcp", type=address, metavar="HOST:PORT", help="listen for the host")
    where.add_argument("--call", type=address, metavar="HOST:PORT", help="call the host, as most analysers do")
    parser.add_argument("--rate", type=float, default=1.0, metavar="FACTOR", help="how much faster than life")
    parser.add_argument("--fault", choices=FAULTS, action="append", default=[], help="may be given several times")
    parser.add_argument("--count", type=int, default=None, metavar="N", help="stop after N samples; default: never")
    parser.add_argument("--ask-every", type=int, default=5, metavar="N", help="ask before every Nth sample; 0: never")
    add_journal(parser)
    play(parser.parse_args())


def play(asked: argparse.Namespace) -> None:
    """Send samples, each at its time."""
    port = _plug(asked)
    print(port.name, flush=True)
    journal = Journal(asked.journal)
    faults = frozenset(asked.fault)
    analyser = Analyser(port, journal, faults, asked.seed)
    vitals = oximeter_vitals()
    for number in count(1):
        if asked.count is not None and number > asked.count:
            break
        _await_host(port)
        if asked.ask_every and number % asked.ask_every == 0:
            analyser.ask(number)
        seen = next(vitals)
        while not analyser.send_sample(number, seen.spo2, seen.pulse):
            time.sleep(PAUSE_S / asked.rate)
            _await_host(port)
        _pass_time(analyser, port, asked, number)
    journal.close()
    time.sleep(POLL_S)
    port.unplug()


def _await_host(port: Port) -> None:
    """Wait until somebody has opened the line, and a moment longer: a port that was just opened is still being set."""
    if not port.wait(0):
        while not port.wait(None):
            time.sleep(POLL_S)
        time.sleep(POLL_S)


def _plug(asked: argparse.Namespace) -> Port:
    if asked.tcp is not None:
        return TcpPort(*asked.tcp)
    if asked.call is not None:
        return TcpPort(*asked.call, call=True)
    return PtyPort(asked.pty)


def _pass_time(analyser: Analyser, port: Port, asked: argparse.Namespace, number: int) -> None:
    analyser.clock += timedelta(seconds=PERIOD_S)
    if "clock-jump" in asked.fault and number % 5 == 0:
        analyser.clock -= timedelta(hours=1)
    if "silence" in asked.fault and number == 1:
        port.send(ENQ)
        time.sleep(SILENCE_S / asked.rate)
        port.send(EOT)
    if "restart" in asked.fault and number % 10 == 0:
        port.unplug()
        time.sleep(1.0)
        port.plug()
    time.sleep(PERIOD_S / asked.rate)


if __name__ == "__main__":
    main()
