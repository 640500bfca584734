"""GE Dash monitors on the Unity network (UDP), as far as the public captures show them.

    python -m simulators.dash_unity --monitors 2 --listen 127.0.0.1:2000 --fault sensor-off@20+10

Requests come to one port, numerics and waves leave from two others. A stream lasts 30 s after its last request. With
`--announce HOST` presence (port 7000) and alarms (port 7001) are told there without being asked.
"""

import asyncio
import random
import struct
import time
from collections.abc import Callable

from simulators.arguments import address as host_and_port
from simulators.dash_unity_codec import (
    INVALID,
    MISSING,
    EntryImage,
    alarm_broadcast,
    bed_message,
    discovery,
    wave_packet,
)
from simulators.script import Script
from simulators.ward import End, Machine, arguments, local_time, play
from simulators.waveforms import BedVitals, bed_vitals, signal

NUMERICS_S, WAVES_S, ALARM_S, DISCOVERY_S = 2.0, 0.25, 2.0, 10.0
STREAM_S = 30.0  # after the last request; the real value is not known
DISCOVERY_PORT, ALARM_PORT = 7000, 7001
FIRST_TIME = 1_783_246_500  # 2026-07-05 10:15:00
PATIENT = "DEMO,D"
ECG_RATE, OTHER_RATE = 240, 60
_REQUEST, _NUMERICS, _WAVES = 202, 96, 33


class UnityMonitor:
    """One monitor at an IPv4 address (four bytes); `first_time` is what its clock shows at the beginning."""

    def __init__(
        self,
        *,
        location: str = "ICU|B-07",
        address: bytes = bytes((127, 0, 0, 1)),
        start: int = 0,
        seed: int = 1,
        script: Script | None = None,
        began: float = 0.0,
        first_time: int = FIRST_TIME,
    ) -> None:
        self.script = script or Script()
        self._location = location
        self._address = address
        self._random = random.Random(seed)
        self._vitals = bed_vitals(start)
        self._cuff: tuple[int, int, int] = (INVALID, INVALID, INVALID)
        self._began = began
        self._clock_offset = 0
        self._first_time = first_time
        self._output: list[bytes] = []
        self._discovery_due = began
        self._alarm_due = began
        self._power_on()

    def _power_on(self) -> None:
        self._until = {_NUMERICS: float("-inf"), _WAVES: float("-inf")}
        self._due = {_NUMERICS: 0.0, _WAVES: 0.0}
        self._numbers = {_NUMERICS: 0, _WAVES: 0}
        self._played = 0

    def receive(self, data: bytes, now: float) -> None:
        """Take a request."""
        if len(data) < 60 or self._is_off(now):
            return
        function, sub = struct.unpack_from(">HH", data, 12)
        if function != _REQUEST or sub not in self._until:
            return
        if self._until[sub] <= now:
            self._due[sub] = now
        self._until[sub] = now + STREAM_S

    def tick(self, now: float) -> None:
        """Send what is due."""
        if self._is_off(now):
            self._power_on()
            return
        if step := self.script.take("clock", self._age(now)):
            self._clock_offset += int(step.seconds)
        if self._is_due(_NUMERICS, NUMERICS_S, now):
            self._send(self._bed_message(next(self._vitals), now), now)
        while self._is_due(_WAVES, WAVES_S, now):
            self._send(self._wave_packet(now), now)
        if now >= self._alarm_due and (told := self._alarm(now)):
            self._alarm_due = now + ALARM_S
            self._send(told, now)
        if now >= self._discovery_due:
            self._discovery_due = now + DISCOVERY_S
            clock = self._first_time + int(self._age(now)) + self._clock_offset
            self._send(discovery(self._address, clock, self._location, PATIENT), now)

    def take_output(self) -> list[bytes]:
        """Hand over the datagrams."""
        taken, self._output = self._output, []
        return taken

    def deadline(self, now: float) -> float:
        """Return when something is due."""
        due = [self._discovery_due, max(self._alarm_due, now + 0.1)]
        due += [self._due[kind] for kind, until in self._until.items() if until > now]
        return min(due)

    def _age(self, now: float) -> float:
        return now - self._began

    def _is_off(self, now: float) -> bool:
        return self.script.stands("restart", self._age(now))

    def _is_due(self, kind: int, period_s: float, now: float) -> bool:
        if self._until[kind] <= now or now < self._due[kind]:
            return False
        self._due[kind] += period_s
        self._numbers[kind] = (self._numbers[kind] + 1) & 0xFFFF
        return True

    def _bed_message(self, seen: BedVitals, now: float) -> bytes:
        off = self.script.stands("sensor-off", self._age(now))
        if seen.nibp_is_new:
            self._cuff = (round(seen.nibp_mean), round(seen.nibp_sys), round(seen.nibp_dia))
        rate, none = round(seen.heart_rate), (INVALID, INVALID, INVALID)
        entries = (
            EntryImage(code=0x3A, kind=1, values=none if off else (rate, 0, INVALID), limits=(35, 110, 0, 6, 0, 0)),
            EntryImage(code=0x22, kind=8, values=none if off else (round(seen.resp_rate), INVALID, INVALID)),
            EntryImage(
                code=0x2D,
                kind=11,
                values=none if off else (round(seen.spo2), round(seen.pulse), MISSING),
                limits=(94, 101, 35, 110, 0, 0),
            ),
            EntryImage(code=0x18, kind=10, values=self._cuff, limits=(40, 140, 80, 160, 20, 120)),
        )
        level = 3 if off else 7 if self.script.stands("alarm", self._age(now)) else 0
        number = self._numbers[_NUMERICS]
        return bed_message(self._address, number, entries, state=0, level=level, audio=level, admitted=1)

    def _wave_packet(self, now: float) -> bytes:
        off = self.script.stands("sensor-off", self._age(now))
        first = self._played
        self._played += 1
        channels = {
            0x07: _samples("ecg-i", 200.0, first, ECG_RATE),
            0x08: _samples("ecg-ii", 200.0, first, ECG_RATE),
            0x09: _samples("ecg-iii", 200.0, first, ECG_RATE),
            0x0A: _samples("ecg-v", 200.0, first, ECG_RATE),
            0x17: _samples("resp", 200.0, first, OTHER_RATE),
            0x27: _samples("pleth", 2000.0, first, OTHER_RATE),
        }
        shown = {code: None if off and code <= 0x0A else samples for code, samples in channels.items()}
        return wave_packet(self._numbers[_WAVES], shown)

    def _alarm(self, now: float) -> bytes:
        age = self._age(now)
        network = self._address[:3] + b"\xff"
        counter = int(age)
        if self.script.stands("alarm", age):
            return alarm_broadcast(
                self._address, network, self._location, level=7, code=0x3A, text="V TACH", counter=counter
            )
        if self.script.stands("sensor-off", age):
            return alarm_broadcast(
                self._address, network, self._location, level=3, code=0x3A, text="LEADS FAIL", counter=counter
            )
        return b""

    def _send(self, data: bytes, now: float) -> None:
        age = self._age(now)
        if self.script.stands("silence", age):
            return
        if self.script.take("noise", age):
            self._output.append(self._random.randbytes(200))
        if self.script.take("checksum", age):  # there is none: a length that does not agree is what can be noticed
            data = data[:58] + bytes((data[58] ^ 0x40,)) + data[59:]
        self._output.append(data[: len(data) // 2] if self.script.take("cut", age) else data)


def _samples(name: str, counts: float, packet: int, rate: int) -> list[int]:
    recorded, count = signal(name), rate // 4
    return [round(recorded.at(packet * count + number, rate) * counts) for number in range(count)]


class UnityEnd(asyncio.DatagramProtocol):
    """The ports of one monitor: requests come to one, numerics and waves leave from two others."""

    def __init__(self, host: str, port: int, announce: str | None = None) -> None:
        self._host, self._port = host, port
        self._announce = announce
        self._peers: dict[int, tuple[str, int]] = {}
        self._asked: asyncio.DatagramTransport | None = None
        self._sending: dict[int, asyncio.DatagramTransport] = {}
        self._heard: Callable[[bytes], None] = lambda data: None

    @property
    def name(self) -> str:
        """Return host:port of the requests."""
        return f"{self._host}:{self._port}"

    async def plug(self, heard: Callable[[bytes], None]) -> None:
        """Bind the ports."""
        self._heard = heard
        loop = asyncio.get_running_loop()
        self._asked, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self._host, self._port))
        self._port = self._asked.get_extra_info("sockname")[1]
        for kind in (_NUMERICS, _WAVES):
            self._sending[kind], _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=(self._host, 0)
            )

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Take a request (asyncio.DatagramProtocol)."""
        if len(data) >= 60:
            self._peers[struct.unpack_from(">H", data, 14)[0]] = address
        self._heard(data)

    def send(self, data: bytes) -> bool:
        """Send a datagram from the port that it belongs to."""
        if data.startswith(b"\x01\x04\0\0") or data[12:16] == b"\x00\xc9\x00\x04":
            port = DISCOVERY_PORT if data.startswith(b"\x01\x04") else ALARM_PORT
            if self._announce is None or self._asked is None:
                return False
            self._asked.sendto(data, (self._announce, port))
            return True
        kind = _NUMERICS if data[12:16] == b"\x00\xc9\x00\x14" else _WAVES
        peer = self._peers.get(kind) or next(iter(self._peers.values()), None)
        if peer is None or kind not in self._sending:
            return False
        self._sending[kind].sendto(data, peer)
        return True

    def unplug(self) -> None:
        """Close the ports."""
        for transport in (self._asked, *self._sending.values()):
            if transport is not None:
                transport.close()


if __name__ == "__main__":
    parser = arguments("dash_unity", "GE Dash monitors on the Unity network.", "--listen 127.0.0.1:2000 --for 60")
    parser.add_argument("--listen", type=host_and_port, default=("127.0.0.1", 0), metavar="HOST:PORT")
    parser.add_argument("--announce", default=None, metavar="HOST", help="tell presence and alarms there")
    options = parser.parse_args()
    now = time.monotonic() * options.speed
    host, port = options.listen
    machines: list[Machine] = [
        UnityMonitor(
            location=f"ICU|B-{number + 1:02d}",
            start=37 * number,
            seed=options.seed + number,
            script=Script(tuple(options.fault)),
            began=now,
            first_time=local_time(),
        )
        for number in range(options.monitors)
    ]
    ends: list[End] = [
        UnityEnd(host, port + number if port else 0, options.announce) for number in range(options.monitors)
    ]
    asyncio.run(play(machines, ends, options))
