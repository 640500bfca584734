"""A simulated IntelliVue without its wires: what it answers, and what it sends by itself (monitor's side of a session).

    idle --Association Request--> waiting for the MDS result --result--> operating --Release, silence--> idle

It holds one association; whom it belongs to is the runner's matter. Time is seconds of the runner's clock.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from simulators import philips_intellivue_codec as codec
from simulators import philips_intellivue_patient as patient
from simulators.philips_intellivue_codec import Reply, Request, Thing, attribute

TICKS = 8000
MDS_AGAIN_S, MDS_TIMES, MDS_TIMEOUT_S = 3.1, 3, 10.0
TIMEOUT_S = 10.0
PERIOD_TICKS = {codec.NUMERICS: 8192, codec.WAVES: patient.BLOCK_TICKS, codec.ALERTS: 8192, codec.ENUMERATIONS: 8192}
CONTEXT_EVERY = 4  # blocks: the context of one object in 1024 ms
WAVE_DELAY_TICKS = 8192  # waves arrive a second late
ROWS_EVERY_S = 5  # the recording has a row a minute; a demo should not stand still for so long


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is particular of one monitor."""

    number: int = 1
    model: str = "866062"
    software: str = "L.01.18"
    bed_label: str = ""
    patient_id: str = ""
    family_name: str = ""
    given_name: str = ""
    demo: bool = False
    mtu: int = 1364
    extensions: int = 0x8E000000
    start_ticks: int = 0xFFFF0000  # relative time wraps soon
    first_row: int = 0
    waves: tuple[int, ...] = tuple(patient.WAVES)

    @property
    def mac(self) -> bytes:
        """Return the address of the monitor's network card."""
        return bytes.fromhex("0009fb") + struct.pack(">I", self.number)[1:]


@dataclass(slots=True)
class _Stream:
    """An extended poll that runs."""

    request: Request
    until: int
    due: int
    sequence: int = 1


@dataclass(frozen=True, slots=True)
class Sent:
    """One result as it goes out, in one message or several; `vitals` is what numerics in it showed."""

    messages: list[bytes]
    polled: int = 0
    sequence: int | None = None
    vitals: dict[str, float] | None = None


@dataclass(slots=True)
class Conditions:
    """What the script has done to the monitor now."""

    sensors: bool = True
    alarm: bool = False
    demo: bool = False
    clock_ahead: timedelta = field(default_factory=timedelta)


class Monitor:
    """One monitor. `hear` takes user data, `due` gives what it sends by itself."""

    def __init__(self, settings: Settings, switched_on: float, wall: datetime) -> None:
        self.settings = settings
        self.now = Conditions()
        self.associated = False
        self.operating = False
        self._switched_on = switched_on
        self._wall = wall
        self._heard_at = 0.0
        self._created_at = 0.0
        self._created = 0
        self._streams: dict[int, _Stream] = {}
        self._texts: tuple[int, ...] = ()
        self._changes = 0

    def ticks(self, now: float) -> int:
        """Return the monitor's relative time."""
        return (self.settings.start_ticks + round((now - self._switched_on) * TICKS)) % (1 << 32)

    def clock(self, now: float) -> datetime:
        """Return the monitor's wall clock."""
        return self._wall + timedelta(seconds=now - self._switched_on) + self.now.clock_ahead

    def hear(self, content: bytes, now: float) -> list[Sent]:
        """Take one message of the client; return the answers."""
        if not content:
            return []
        self._heard_at = now
        match content[0]:
            case 0x0D:
                return self._associate(content, now)
            case 0x09 if not self.associated or self.operating:
                self.drop()
                return [Sent([codec.RELEASED])]
            case 0x19:
                self.drop()
            case 0xE1 if self.associated:
                return self._answer(content, now)
        return []

    def drop(self) -> None:
        """Forget the association."""
        self.associated = self.operating = False
        self._streams.clear()
        self._texts = ()

    def due(self, now: float) -> list[Sent]:
        """Return what the monitor sends by itself at this moment."""
        if not self.associated:
            return []
        if not self.operating:
            return self._wait_for_result(now)
        if now - self._heard_at > TIMEOUT_S:
            self.drop()
            return [Sent([codec.ABORT])]
        return [sent for polled in tuple(self._streams) for sent in self._stream(polled, now)]

    def next_due(self, now: float) -> float:
        """Return in how many seconds something may be due."""
        if not self.operating:
            return 0.1
        at = self._elapsed(now)
        return max(0.0, min((stream.due - at for stream in self._streams.values()), default=TICKS // 10) / TICKS)

    def announcement(self, now: float, port: int) -> bytes:
        """Return the Connect Indication of this monitor."""
        mac, address = self.settings.mac, bytes((127, 0, 0, 1, 255, 0, 0, 0))
        product = (
            struct.pack(">HH", 1, 0x0008) + codec.label(f"DE{self.settings.number:08d}"),
            struct.pack(">HH", 9, 0x0008) + codec.label(self.settings.model),
            struct.pack(">HH", 4, 0x0058) + codec.label(self.settings.software),
        )
        protocols = (struct.pack(">HHHH", 1, 1, port, 0), struct.pack(">HHHH", 5, 1, port, 0))
        bed = self.settings.bed_label.encode("utf-16-be")[:32]
        return codec.connect_indication(
            self.ticks(now),
            (
                attribute(0x0986, struct.pack(">HH", 1, 0x114D)),
                attribute(0xF135, bed + bytes(34 - len(bed))),
                attribute(0xF100, mac + address),
                attribute(0xF101, codec.listing(*protocols)),
                attribute(0x0928, codec.label("Philips") + codec.label(self.settings.model)),
                attribute(0x092D, codec.listing(*product)),
            ),
        )

    def _associate(self, content: bytes, now: float) -> list[Sent]:
        asked, mtu = codec.requested(content)
        self.drop()
        self.associated, self._created_at, self._created = True, now, 1
        self._mtu = min(mtu, self.settings.mtu)
        accepted = codec.accept(
            period_ticks=4000, mtu_receive=mtu, mtu_transmit=self._mtu, extensions=asked & self.settings.extensions
        )
        return [Sent([accepted]), Sent([self._create(now)])]

    def _create(self, now: float) -> bytes:
        return codec.mds_create(1, self.ticks(now), (*self._system(now), *self._times(now)))

    def _system(self, now: float) -> tuple[bytes, ...]:
        mode = 0x2000 if self._demo else 0x4000
        return (
            attribute(0x0984, b"\0\6" + self.settings.mac),
            attribute(0x0986, struct.pack(">HH", 1, 0x114D)),
            attribute(0x0928, codec.label("Philips") + codec.label("M8000")),
            attribute(0x0946, struct.pack(">H", mode)),
            attribute(0x090D, b"\0\2"),
            attribute(0x09A7, b"\0\6"),
            attribute(0x091E, codec.text(self.settings.bed_label)),
        )

    def _times(self, now: float) -> tuple[bytes, ...]:
        return (
            attribute(0x0987, codec.clock(self.clock(now))),
            attribute(
                0x098F,
                struct.pack(">I", self.ticks(now) - self.clock(now).microsecond * TICKS // 1_000_000 & 0xFFFFFFFF),
            ),
        )

    @property
    def _demo(self) -> bool:
        return self.settings.demo or self.now.demo

    def _wait_for_result(self, now: float) -> list[Sent]:
        if now - self._created_at > MDS_TIMEOUT_S:
            self.drop()
            return [Sent([codec.ABORT])]
        if self._created < MDS_TIMES and now - self._created_at > MDS_AGAIN_S * self._created:
            self._created += 1
            return [Sent([self._create(now)])]
        return []

    def _answer(self, content: bytes, now: float) -> list[Sent]:
        if content[4:6] == b"\x00\x02" and content[10:12] == b"\x00\x01":
            self.operating = True
            return []
        asked = codec.request(content)
        if asked is None or not self.operating:
            return []
        match asked.command, asked.action:
            case 3, _:
                return [Sent([codec.priority_list(asked.invoke, 3, self._texts)])]
            case 5, _:
                self._texts = asked.texts
                return [Sent([codec.priority_list(asked.invoke, 5, asked.texts)])]
            case 7, codec.SINGLE:
                return [self._result(asked, None, now)]
            case 7, codec.EXTENDED if asked.polled in PERIOD_TICKS:
                return [self._begin(asked, now)]
        return [Sent([codec.refused_action(asked.invoke, asked.action)])]

    def _elapsed(self, now: float) -> int:
        return round((now - self._switched_on) * TICKS)

    def _begin(self, asked: Request, now: float) -> Sent:
        """Start an extended poll: its first answer says that it was accepted."""
        at, period = self._elapsed(now), PERIOD_TICKS[asked.polled]
        due = (at // period + 1) * period
        self._streams[asked.polled] = _Stream(asked, at + asked.period_ticks, due)
        if asked.polled == codec.WAVES:
            reply = Reply(asked.invoke, asked.number, 0, self.ticks(now), asked.polled, asked.group)
            return Sent(reply.messages((), self._mtu), asked.polled, 0)
        return self._result(asked, 0, now)

    def _stream(self, polled: int, now: float) -> Iterator[Sent]:
        stream, at = self._streams[polled], self._elapsed(now)
        if at > stream.until:
            del self._streams[polled]
            return
        while stream.due <= at:
            moment = self._switched_on + stream.due / TICKS
            yield self._result(stream.request, stream.sequence, moment)
            stream.sequence = (stream.sequence + 1) & 0xFFFF
            stream.due += PERIOD_TICKS[polled]

    def _result(self, asked: Request, sequence: int | None, now: float) -> Sent:
        ticks, vitals = self.ticks(now), None
        match asked.polled:
            case codec.NUMERICS:
                vitals = patient.rows()[self._row(now)]
                things = self._numerics(vitals, asked.group, now)
            case codec.WAVES:
                ticks = (ticks - WAVE_DELAY_TICKS) % (1 << 32)
                things = self._waves(asked.group, sequence, now)
            case codec.ALERTS:
                things = self._alerts(asked.group)
            case codec.PATIENT:
                things = self._demographics()
            case codec.MDS:
                things = self._mds(asked.group, now)
            case codec.ENUMERATIONS:
                rhythm = struct.pack(">HHHHH", 0xD007, 0x0400 if self._demo else 0, 1, 2, 0xD012)
                things = [Thing(1, 0x8700, (attribute(0x099E, rhythm),))]
            case _:
                return Sent([codec.refused_action(asked.invoke, asked.action, 0)])
        reply = Reply(asked.invoke, asked.number, sequence, ticks, asked.polled, asked.group)
        return Sent(reply.messages(things, self._mtu), asked.polled, sequence, vitals if self.now.sensors else None)

    def _row(self, now: float) -> int:
        seconds = (now - self._switched_on) / ROWS_EVERY_S
        return (self.settings.first_row + int(seconds)) % len(patient.rows())

    def _numerics(self, row: dict[str, float], group: int, now: float) -> list[Thing]:
        things = patient.numerics(
            row,
            extra=patient.DEMO if self._demo else 0,
            sensors=self.now.sensors,
            alarm=self.now.alarm,
            cuff_at=self.clock(now).replace(second=0),
        )
        if group == 0x0811:
            return patient.static_numerics(things)
        if group == 0:
            static = patient.static_numerics(things)
            return [
                Thing(one.context, one.handle, (*other.attributes, *one.attributes))
                for one, other in zip(things, static, strict=True)
            ]
        return things

    def _waves(self, group: int, sequence: int | None, now: float) -> list[Thing]:
        wanted = [text & 0xFFFF for text in self._texts]
        sources = [patient.WAVES[physio] for physio in wanted if physio in self.settings.waves]
        if sequence is None:
            return [Thing(1, source.handle, patient.wave_context(source)) for source in sources]
        state = patient.DEMO if self._demo else 0
        block = self._elapsed(now) // patient.BLOCK_TICKS
        things = [patient.wave_block(source, block, state, self.now.sensors) for source in sources]
        if group == 0 and sources and sequence % CONTEXT_EVERY == 1:
            turn = sequence // CONTEXT_EVERY % len(sources)
            told = things[turn]
            things[turn] = Thing(told.context, told.handle, (*patient.wave_context(sources[turn]), *told.attributes))
        return things

    def _alerts(self, group: int) -> list[Thing]:
        if group != 0x0801:
            return [Thing(0, 5, (attribute(0x0921, b"\0\5"), attribute(0x092F, struct.pack(">HH", 1, codec.ALERTS))))]
        patient_alarms, technical = [], []
        demo = 0x0100 if self._demo else 0
        if self.now.alarm:
            entry = codec.alarm(
                patient.HEART_RATE,
                40,
                0x0200,
                0x0008 | demo,
                patient.HEART_RATE_HANDLE,
                "**HR    125>120",
                instance=1,
                identity=4,
                flags=0x6000,
            )
            patient_alarms.append(entry)
        if not self.now.sensors:
            entry = codec.alarm(
                patient.SPO2,
                308,
                0x0001,
                0x0008 | demo,
                patient.SPO2_HANDLE,
                "SpO2 NO SENSOR",
                instance=2,
                identity=8,
                flags=0x4000,
            )
            technical.append(entry)
        highest = struct.pack(">HHHHH", 0, self._changes, 0x0200 if patient_alarms else 0, 1 if technical else 0, 0)
        return [
            Thing(
                1,
                5,
                (
                    attribute(0x0916, highest),
                    attribute(0x0902, codec.listing(*patient_alarms)),
                    attribute(0x0904, codec.listing(*technical)),
                ),
            )
        ]

    def _demographics(self) -> list[Thing]:
        known = self.settings
        told = [attribute(0x0957, struct.pack(">H", 2 if known.patient_id else 0))]
        if known.patient_id:
            told += [
                attribute(0x0962, b"\0\1"),
                attribute(0x0961, b"\0\2"),
                attribute(0x095A, codec.text(known.patient_id)),
                attribute(0x095D, codec.text(known.given_name)),
                attribute(0x095C, codec.text(known.family_name)),
                attribute(0x09DC, codec.number(170.0, 1) + struct.pack(">H", 0x0511)),
                attribute(0x09DF, codec.number(65.5, 1) + struct.pack(">H", 0x06C3)),
                attribute(0x0A1E, b"\0\0"),
            ]
        return [Thing(0, 1, tuple(told))]

    def _mds(self, group: int, now: float) -> list[Thing]:
        if group == 0x080C:
            product = (
                struct.pack(">HH", 1, 0x0008) + codec.label(f"DE{self.settings.number:08d}"),
                struct.pack(">HH", 9, 0x0008) + codec.label(self.settings.model),
                struct.pack(">HH", 4, 0x0058) + codec.label(self.settings.software),
            )
            return [Thing(0, 0, (attribute(0x092D, codec.listing(*product)),))]
        return [Thing(0, 0, (*self._system(now), *self._times(now)))]
