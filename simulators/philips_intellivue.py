"""Philips IntelliVue monitors on the data export interface: serial lines or UDP, silent until they are associated.

    python -m simulators.philips_intellivue --monitors 60 --pty beds/mx --fault sensor-off@20+10 --fault restart@60+5
    python -m simulators.philips_intellivue --udp 127.0.0.1:0 --tell 127.0.0.1:24105

On UDP a monitor that is not associated announces itself to `--tell` (Connect Indication). Numerics, alarms and rhythm
come every 1.024 s, waves every 256 ms; the values are those of the ICU recording, a minute of it every five seconds.
"""

import asyncio
import random
import time
from datetime import datetime, timedelta

from simulators.arguments import address
from simulators.philips_intellivue_codec import Receiver, frame
from simulators.philips_intellivue_monitor import Monitor, Sent, Settings
from simulators.script import Script
from simulators.ward import End, Machine, UdpEnd, arguments, play, serial_ends, switched_on

ANNOUNCE_S = 2.0
NOISE_BYTES = 60
ROWS_APART = 37


class IntellivueMachine:
    """One monitor with its script, at a serial line or, with `port`, on a LAN."""

    def __init__(
        self,
        settings: Settings,
        *,
        script: Script | None = None,
        began: float = 0.0,
        wall: datetime = datetime(2026, 7, 5, 10, 15),
        port: int | None = None,
    ) -> None:
        self.script = script or Script()
        self._settings = settings
        self._began = began
        self._wall = wall
        self._port = port
        self._monitor: Monitor | None = Monitor(settings, began, wall)
        self._receiver = Receiver()
        self._output: list[bytes] = []
        self._random = random.Random(settings.number)
        self._announced_at = float("-inf")
        self._ahead = timedelta()

    @property
    def operating(self) -> bool:
        """Tell whether a client is associated and its polls run."""
        return self._monitor is not None and self._monitor.operating

    def receive(self, data: bytes, now: float) -> None:
        """Take what the client said."""
        for content in [data] if self._port is not None else self._receiver.feed(data):
            if self._monitor is not None:
                self._send(self._monitor.hear(content, now), now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._obey(now)
        if self._monitor is None:
            return
        self._send(self._monitor.due(now), now)
        lonely = self._port is not None and not self._monitor.associated
        if lonely and now >= self._announced_at + ANNOUNCE_S:
            self._announced_at = now
            self._send([Sent([self._monitor.announcement(now, self._port or 0)])], now)

    def take_output(self) -> list[bytes]:
        """Hand over what is sent."""
        taken, self._output = self._output, []
        return taken

    def deadline(self, now: float) -> float:
        """Return when to tick."""
        change = self.script.next_change(now - self._began)
        edge = float("inf") if change is None else self._began + change
        return min(edge, now + (0.1 if self._monitor is None else self._monitor.next_due(now)))

    def _obey(self, now: float) -> None:
        age = now - self._began
        if self.script.stands("restart", age):
            self._monitor = None
        elif self._monitor is None:
            wall = self._wall + timedelta(seconds=age)
            self._monitor = Monitor(self._settings, now, wall)
        while (jump := self.script.take("clock", age)) is not None:
            self._ahead += timedelta(seconds=jump.seconds)
        if self._monitor is not None:
            state = self._monitor.now
            state.sensors = not self.script.stands("sensor-off", age)
            state.alarm, state.demo = self.script.stands("alarm", age), self.script.stands("demo", age)
            state.clock_ahead = self._ahead

    def _send(self, sent: list[Sent], now: float) -> None:
        age = now - self._began
        if self.script.stands("silence", age):
            return
        for message in (message for each in sent for message in each.messages):
            if self.script.take("noise", age):
                self._output.append(self._random.randbytes(NOISE_BYTES))
            wrong = self.script.take("checksum", age) is not None
            piece = _damaged(message, wrong) if self._port is not None else frame(message, error=0x0101 if wrong else 0)
            self._output.append(piece[: len(piece) // 2] if self.script.take("cut", age) else piece)


def _damaged(message: bytes, wrong: bool) -> bytes:
    """Return a datagram; UDP has no checksum of ours, so a wrong one is a wrong length."""
    return message[:6] + bytes((message[6] ^ 1,)) + message[7:] if wrong else message


if __name__ == "__main__":
    parser = arguments("philips_intellivue", "Philips IntelliVue monitors.", "--monitors 60 --pty beds/mx")
    parser.add_argument("--udp", type=address, metavar="HOST:PORT", help="UDP; PORT+1 and so on for further monitors")
    parser.add_argument("--tell", type=address, metavar="HOST:PORT", help="whom monitors on UDP announce themselves to")
    parser.add_argument("--demo", action="store_true", help="demo mode from the beginning")
    parser.add_argument("--patient", default="", metavar="ID", help="the patient id that is entered (default: nobody)")
    options = parser.parse_args()
    began = time.monotonic() * options.speed
    host, first = options.udp or ("", 0)
    ports = [first + number if first else 0 for number in range(options.monitors)]
    machines: list[Machine] = [
        IntellivueMachine(
            Settings(
                number=options.seed + number,
                first_row=ROWS_APART * number,
                demo=options.demo,
                patient_id=options.patient,
                mtu=1364 if options.udp else 996,
            ),
            script=Script(tuple(options.fault)),
            began=switched_on(began, number),
            wall=datetime.now(),
            port=port if options.udp else None,
        )
        for number, port in enumerate(ports)
    ]
    ends: list[End] = [UdpEnd(host, port, options.tell) for port in ports] if options.udp else serial_ends(options)
    asyncio.run(play(machines, ends, options))
