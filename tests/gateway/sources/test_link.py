import asyncio
import json
import os
import pty
import sys
import time
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gateway.clock import SystemClock
from gateway.config import DeviceSource, Line
from gateway.driver import About, LineSession, LineSettings, Reading, Result, observe
from gateway.errors import LinkError, StoreError
from gateway.model import Accepted, Condition, Incoming, Kind, Priority, Turn
from gateway.registry import create_driver
from gateway.sources import backlog
from gateway.sources.link import DeviceLink, line_of
from gateway.status import LinkState, SourceStatus
from gateway.tap import Direction
from tests.drivers.transcripts import shown_result

HOUSE = Path(__file__).parents[3]
TIMEOUT_S = 20.0


class FakeIntake:
    """Keeps what it is given; refuses while `refusing` is set; waits while `held` is."""

    def __init__(self) -> None:
        self.kept: list[Incoming] = []
        self.tries = 0
        self.refusing = False
        self.open = asyncio.Event()
        self.open.set()

    async def accept(self, incoming: Incoming) -> Accepted:
        self.tries += 1
        await self.open.wait()
        if self.refusing:
            raise StoreError("the disk is full")
        self.kept.append(incoming)
        return Accepted(message_id=len(self.kept), repeated=False)


class MemoryStream:
    """A Stream whose other end is the test."""

    def __init__(self) -> None:
        self.peer = "memory"
        self.pieces: asyncio.Queue[bytes | LinkError] = asyncio.Queue()
        self.written: list[bytes] = []
        self.closed = False

    async def read(self) -> bytes:
        piece = await self.pieces.get()
        if isinstance(piece, LinkError):
            raise piece
        return piece

    async def write(self, data: bytes) -> None:
        self.written.append(data)

    async def close(self) -> None:
        self.closed = True


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Lines that are published as they are; `boom` is a bug of the Session itself."""

    about: ClassVar[About] = About(name="plain", summary="-", models=("-",), source="-", silence_s=60.0)

    def open(self) -> LineSession:
        return PlainSession(self._read, first_line_dropped=False)

    def _read(self, line: bytes) -> tuple[Result, ...]:
        text = line.decode("ascii")
        return tuple(Result(observations=(observe("x_text", part, sub="1.1.1.1"),)) for part in text.split("|"))


class PlainSession(LineSession):
    def receive(self, data: bytes, now: float) -> None:
        if b"boom" in data:
            raise RuntimeError("a bug")
        super().receive(data, now)


class AskingSession:
    """Withholds its word on a Reading until it is settled: every byte is a Reading."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.output = b""
        self.deadline = None
        self.notice: str | None = None

    def receive(self, data: bytes, now: float) -> None:
        self.readings += [Reading(raw=bytes((byte,)), results=(Result(observations=()),)) for byte in data]
        self.notice = "demo mode" if data == b"demo" else None

    def tick(self, now: float) -> None: ...

    def settle(self, stored: bool, now: float) -> None:
        self.output += b"\x06" if stored else b"\x15"

    def take_readings(self) -> list[Reading]:
        taken, self.readings = self.readings, []
        return taken

    def take_output(self) -> bytes:
        taken, self.output = self.output, b""
        return taken


@dataclass(frozen=True, kw_only=True)
class Asking:
    about: ClassVar[About] = About(name="asking", summary="-", models=("-",), source="-", acknowledges=True)

    def open(self) -> AskingSession:
        return AskingSession()


@dataclass(frozen=True, kw_only=True)
class Clocked:
    """Lines `<clock>` as the Device's time, each with an alarm."""

    about: ClassVar[About] = About(name="clocked", summary="-", models=("-",), source="-")

    def open(self) -> LineSession:
        return LineSession(self._read, first_line_dropped=False)

    def _read(self, line: bytes) -> tuple[Result, ...]:
        text = line.decode("ascii")
        alarm = Condition(code="E1", text="low", priority=Priority.HIGH)
        clock = datetime.fromisoformat(text)
        return (Result(observations=(), conditions=(alarm,), device_time=text, device_clock=clock),)


@dataclass
class House:
    intake: FakeIntake
    status: SourceStatus
    streams: list[MemoryStream]
    link: DeviceLink

    @property
    def texts(self) -> list[Any]:
        return [kept.result and kept.result.observations[0].value for kept in self.intake.kept]


@asynccontextmanager
async def running(link: DeviceLink) -> AsyncIterator[None]:
    task = asyncio.create_task(link.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def build_house(driver: Any, quiet_s: float | None = None) -> House:
    intake, status, streams = FakeIntake(), SourceStatus(name="bed-1", type="device"), []

    async def open_memory(port: str, line: LineSettings) -> MemoryStream:
        streams.append(MemoryStream())
        return streams[-1]

    settings = DeviceSource(name="bed-1", driver="plain", port="memory", quiet_s=quiet_s)
    return House(
        intake, status, streams, DeviceLink(settings, driver, intake, SystemClock(), status, opener=open_memory)
    )


async def until(holds: Callable[[], object], seconds: float = TIMEOUT_S) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is awaited lies in another process or in plain state
            await asyncio.sleep(0.005)


async def test_each_result_becomes_a_message_with_the_raw_bytes() -> None:
    house = build_house(Plain())
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"one|two\r\nthr")
        house.streams[0].pieces.put_nowait(b"ee\r\n")
        await until(lambda: len(house.intake.kept) == 3)

    assert house.texts == ["one", "two", "three"]
    first = house.intake.kept[0]
    assert (first.source, first.kind, first.raw, first.size) == ("bed-1", Kind.OBSERVATIONS, b"one|two\r\n", 9)
    assert (first.lane_key, first.peer, first.identifier, first.quarantined) == ("bed-1", "memory", None, None)
    assert (house.status.received, house.status.state) == (3, LinkState.UP)


async def test_while_a_commit_is_in_flight_reading_goes_on_and_order_is_kept() -> None:
    house = build_house(Plain())
    async with running(house.link):
        await until(lambda: house.streams)
        house.intake.open.clear()
        for number in range(50):
            house.streams[0].pieces.put_nowait(b"%d\r\n" % number)
        await until(lambda: house.streams[0].pieces.empty())
        house.intake.open.set()
        await until(lambda: len(house.intake.kept) == 50)

    assert house.texts == [str(number) for number in range(50)]


async def test_unreadable_bytes_are_kept_for_a_person() -> None:
    house = build_house(Plain())
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"\xff\xfe\r\n")
        await until(lambda: house.intake.kept)

    (kept,) = house.intake.kept
    assert (kept.kind, kept.raw, kept.result) == (Kind.UNREADABLE, b"\xff\xfe\r\n", None)
    assert kept.quarantined is not None and "not ASCII" in kept.quarantined
    assert house.status.errors == 1


async def test_what_a_session_still_gathers_is_kept_when_the_link_ends() -> None:
    house = build_house(Plain())
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"\xff\xfe\r\n")
        await until(lambda: house.status.state is LinkState.UP)

    assert [kept.raw for kept in house.intake.kept] == [b"\xff\xfe\r\n"]


async def test_a_bug_in_a_session_costs_neither_the_bytes_nor_the_link() -> None:
    house = build_house(Plain())
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"boom\r\n")
        house.streams[0].pieces.put_nowait(b"after\r\n")
        await until(lambda: len(house.intake.kept) == 2)

    assert house.intake.kept[0].quarantined == "session failed: RuntimeError"
    assert house.intake.kept[0].raw == b"boom\r\n"
    assert house.texts[1] == "after"
    assert len(house.streams) == 1


async def test_what_the_store_refuses_is_tried_again_in_order() -> None:
    house = build_house(Plain())
    house.intake.refusing = True
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"one\r\ntwo\r\n")
        await until(lambda: house.intake.tries >= 2)
        house.streams[0].pieces.put_nowait(b"three\r\n")
        house.intake.refusing = False
        await until(lambda: len(house.intake.kept) == 3)

    assert house.texts == ["one", "two", "three"]
    assert house.status.last_error == "not stored: the disk is full"
    assert house.status.lost == 0


async def test_beyond_its_bound_a_streaming_device_loses_readings_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "READINGS_MAX", 5)
    house = build_house(Plain())
    house.intake.refusing = True
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"0\r\n")
        await until(lambda: house.intake.tries)
        house.streams[0].pieces.put_nowait(b"".join(b"%d\r\n" % number for number in range(1, 9)))
        await until(lambda: house.status.lost == 4)
        assert "lost" in (house.status.last_error or "")
        house.intake.refusing = False
        await until(lambda: len(house.intake.kept) == 5)

    assert house.texts == ["0", "1", "2", "3", "4"]


async def test_a_slow_store_makes_the_device_wait_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "READINGS_MAX", 5)
    house = build_house(Plain())
    house.intake.open.clear()
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"".join(b"%d\r\n" % number for number in range(30)))
        await until(lambda: house.intake.tries)
        house.intake.open.set()
        await until(lambda: len(house.intake.kept) == 30)

    assert house.texts == [str(number) for number in range(30)]
    assert house.status.lost == 0


async def test_nothing_is_acknowledged_before_it_is_stored_and_a_refusal_is_told() -> None:
    house = build_house(Asking())
    async with running(house.link):
        await until(lambda: house.streams)
        stream = house.streams[0]
        house.intake.open.clear()
        stream.pieces.put_nowait(b"a")
        await until(lambda: house.intake.tries == 1)
        assert stream.written == []
        house.intake.open.set()
        await until(lambda: stream.written)
        house.intake.refusing = True
        stream.pieces.put_nowait(b"b")
        await until(lambda: len(stream.written) == 2)

    assert stream.written == [b"\x06", b"\x15"]
    assert house.intake.tries == 2


async def test_a_lost_stream_is_opened_again() -> None:
    house = build_house(Plain())
    async with running(house.link):
        for number, end in enumerate((LinkError("pulled out"), b"", b"")):
            await until(lambda number=number: len(house.streams) == number + 1)
            house.streams[number].pieces.put_nowait(b"%d\r\n" % number)
            house.streams[number].pieces.put_nowait(end)
            await until(lambda number=number: len(house.intake.kept) == number + 1)

    assert house.texts == ["0", "1", "2"]
    assert all(stream.closed for stream in house.streams)


async def test_a_device_in_demo_mode_is_shown_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    house = build_house(Asking())
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"demo")
        await until(lambda: house.status.notice == "demo mode")
        assert house.status.state is LinkState.UP
        house.streams[0].pieces.put_nowait(b"x")
        await until(lambda: house.status.notice is None)

    told = [record.message for record in caplog.records if "link.notice" in record.message]
    assert told == ["link.notice source=bed-1 reason=demo mode", "link.notice source=bed-1 reason=none any more"]


async def test_the_devices_clock_is_compared_with_ours_and_told_when_it_is_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = build_house(Clocked())
    ahead = [datetime.now() + timedelta(seconds=seconds) for seconds in (0.5, 3600, 3600.5)]
    async with running(house.link):
        await until(lambda: house.streams)
        for shown in ahead:
            house.streams[0].pieces.put_nowait(shown.isoformat().encode() + b"\r\n")
        await until(lambda: len(house.intake.kept) == 3)

    assert house.status.device_clock_offset_s == pytest.approx(3600.5, abs=5)
    assert house.intake.kept[1].result is not None
    assert house.intake.kept[1].result.device_time == ahead[1].isoformat()
    assert len([record for record in caplog.records if "device.clock_off source=bed-1" in record.message]) == 1


async def test_an_alarm_that_is_restated_is_one_episode() -> None:
    house = build_house(Clocked())
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"2026-01-15T10:00:00\r\n2026-01-15T10:00:01\r\n")
        await until(lambda: len(house.intake.kept) == 2)

    first, second = (kept.result.conditions[0].episode for kept in house.intake.kept if kept.result)
    assert first is not None
    assert second is not None
    assert (first.turn, second.turn, first.instance) == (Turn.START, Turn.CONTINUE, second.instance)


async def test_who_looks_on_sees_both_directions_and_disturbs_nobody() -> None:
    house = build_house(Asking())
    async with running(house.link):
        await until(lambda: house.streams)
        with house.status.tap.watched() as onlooker:
            house.streams[0].pieces.put_nowait(b"a")
            async with asyncio.timeout(TIMEOUT_S):
                seen = [await onlooker.take() for _ in range(2)]

    assert [(piece.direction, piece.data) for piece in seen] == [(Direction.HEARD, b"a"), (Direction.SAID, b"\x06")]
    assert house.streams[0].written == [b"\x06"]


async def test_silence_is_down_and_bytes_are_up_again() -> None:
    house = build_house(Plain(), quiet_s=0.2)
    async with running(house.link):
        await until(lambda: house.streams)
        assert house.status.state is LinkState.STARTING
        house.streams[0].pieces.put_nowait(b"one\r\n")
        await until(lambda: house.status.state is LinkState.UP)
        await until(lambda: house.status.state is LinkState.DOWN)
        assert house.status.last_error == "silent for 0.2 s"
        house.streams[0].pieces.put_nowait(b"two\r\n")
        await until(lambda: house.status.state is LinkState.UP)
        await until(lambda: len(house.intake.kept) == 2)

    assert len(house.streams) == 1


async def test_a_line_that_the_plug_cut_off_is_not_ended_by_who_speaks_after_a_silence() -> None:
    house = build_house(Plain(), quiet_s=0.2)
    async with running(house.link):
        await until(lambda: house.streams)
        house.streams[0].pieces.put_nowait(b"one\r\nspo2 9")
        await until(lambda: house.status.state is LinkState.UP)
        await until(lambda: house.status.state is LinkState.DOWN)
        house.streams[0].pieces.put_nowait(b"8\r\ntwo\r\n")
        await until(lambda: "two" in house.texts)

    assert "spo2 98" not in house.texts
    assert [kept.quarantined for kept in house.intake.kept if kept.quarantined] == ["a line broke off"]


async def test_what_was_read_before_the_stop_is_on_disk_after_it() -> None:
    house = build_house(Plain())
    async with running(house.link):
        await until(lambda: house.streams)
        house.intake.open.clear()
        house.streams[0].pieces.put_nowait(b"last\r\n")
        await until(lambda: house.intake.tries)
        asyncio.get_running_loop().call_later(0.05, house.intake.open.set)

    assert house.texts == ["last"]


def test_a_stanza_overrides_the_line_settings_of_its_driver() -> None:
    default = LineSettings(baud=9600, parity="even", stop_bits=2)

    assert line_of(Line(), default) == default
    assert line_of(Line(baud=115200, parity="none"), default) == LineSettings(baud=115200, stop_bits=2)


# --- with simulators on ptys and TCP -------------------------------------------------------------------------------


@asynccontextmanager
async def simulated(*words: str) -> AsyncIterator[str]:
    """Run a simulator; give the port that it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, cwd=HOUSE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def device_link(
    driver: str, port: str, options: dict[str, Any] | None = None
) -> tuple[DeviceLink, FakeIntake, SourceStatus]:
    created, faults = create_driver(driver, options or {})
    assert created is not None, faults
    intake, status = FakeIntake(), SourceStatus(name="bed-1", type="device")
    settings = DeviceSource(name="bed-1", driver=driver, port=port)
    return DeviceLink(settings, created, intake, SystemClock(), status), intake, status


def sent(journal: Path) -> list[tuple[Any, Any]]:
    if not journal.exists():
        return []
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    return [(entry["spo2"], entry["pulse"]) for entry in entries]


def arrived(intake: FakeIntake) -> list[tuple[Any, Any]]:
    results = [kept.result for kept in intake.kept if kept.result is not None]
    pairs = [tuple(item.value for item in result.observations[:2]) for result in results]
    return [tuple(None if value is None else int(value) for value in pair) for pair in pairs]


CASES = [
    ("nellcor", ["--rate", "60"], {}),
    ("nellcor", ["--rate", "60", "--fault", "cut"], {}),
    ("masimo", ["--rate", "30"], {}),
    ("masimo", ["--rate", "30", "--fault", "sensor-off", "--fault", "noise"], {}),
    ("nonin", ["--rate", "20", "--format", "7"], {}),
    ("nonin", ["--rate", "20", "--format", "7", "--fault", "noise"], {"format": "7"}),
    ("nonin", ["--rate", "20", "--format", "2", "--fault", "sensor-off"], {}),
    ("nonin", ["--rate", "30", "--format", "13"], {}),
    ("nonin", ["--rate", "30", "--format", "text"], {}),
]


@pytest.mark.parametrize(
    ("driver", "words", "options"), CASES, ids=lambda part: " ".join(part) if isinstance(part, list) else None
)
async def test_what_a_simulated_device_sent_is_what_arrived(
    driver: str, words: list[str], options: dict[str, Any], tmp_path: Path
) -> None:
    journal = tmp_path / "sent.jsonl"
    words = [f"simulators.{driver}", *words, "--count", "23", "--start", "50", "--journal", str(journal)]
    async with simulated(*words) as port:
        link, intake, status = device_link(driver, port, options)
        async with running(link):
            await until(lambda: status.state is LinkState.UP)
            await until(lambda: status.state is LinkState.DOWN)  # the simulator has ended

    assert len(sent(journal)) >= 20
    assert arrived(intake) == sent(journal)


async def test_format_8_arrives_but_for_the_set_that_gets_it_into_step(tmp_path: Path) -> None:
    journal = tmp_path / "sent.jsonl"
    words = ["simulators.nonin", "--rate", "30", "--format", "8", "--count", "20", "--journal", str(journal)]
    async with simulated(*words) as port:
        link, intake, status = device_link("nonin", port, {"format": "8"})
        async with running(link):
            await until(lambda: status.state is LinkState.UP)
            await until(lambda: status.state is LinkState.DOWN)

    assert arrived(intake) == sent(journal)[1:]


async def test_a_format_is_selected_where_that_is_allowed(tmp_path: Path) -> None:
    async with simulated("simulators.nonin", "--rate", "20", "--format", "8") as port:
        link, intake, _ = device_link("nonin", port, {"format": "7", "transmit": True})
        async with running(link):
            await until(lambda: len(arrived(intake)) >= 3)

    assert all(kept.size == 375 for kept in intake.kept if kept.result)


async def test_a_monitor_that_calls_us_is_read() -> None:
    from gateway.net.opening import open_stream

    opened: list[Any] = []

    async def opener(port: str, line: LineSettings) -> Any:
        opened.append(await open_stream(port, line))
        return opened[-1]

    created, _ = create_driver("nellcor", {})
    assert created is not None
    intake, status = FakeIntake(), SourceStatus(name="bed-1", type="device")
    settings = DeviceSource(name="bed-1", driver="nellcor", port="listen://127.0.0.1:0")
    link = DeviceLink(settings, created, intake, SystemClock(), status, opener=opener)
    async with running(link):
        await until(lambda: opened)
        async with simulated("simulators.nellcor", "--rate", "60", "--call", f"127.0.0.1:{opened[0].port}"):
            await until(lambda: len(arrived(intake)) >= 5)

    assert intake.kept[0].peer == "127.0.0.1"
    assert intake.kept[0].result is not None and "2026" not in shown_result(intake.kept[0].result)


async def test_a_device_that_is_plugged_in_again_is_heard_within_five_seconds(tmp_path: Path) -> None:
    port = tmp_path / "bed-1"
    link, intake, status = device_link("masimo", str(port))
    async with running(link):
        for round_number in range(3):
            master = plug(port)
            began = time.monotonic()
            known = len(arrived(intake))
            await until(lambda known=known, master=master: speak(master) and len(arrived(intake)) > known, 5.0)
            assert time.monotonic() - began < 5.0, round_number
            port.unlink()
            os.close(master)
            await until(lambda: status.state is LinkState.DOWN)

    assert status.last_error is not None


def plug(port: Path) -> int:
    master, slave = pty.openpty()
    tty.setraw(slave)
    port.symlink_to(os.ttyname(slave))
    os.close(slave)
    os.set_blocking(master, False)
    return master


def speak(master: int) -> bool:
    with suppress(OSError):
        os.write(master, b"02/22/16 22:47:45 SPO2=098% BPM=097 PI=03.60% ALARM=0000 EXC=000800\r\n")
    return True


async def test_a_simulator_that_restarts_is_followed(tmp_path: Path) -> None:
    port, journal = tmp_path / "bed-1", tmp_path / "sent.jsonl"
    words = ["--pty", str(port), "--rate", "30", "--count", "15", "--fault", "restart", "--journal", str(journal)]
    async with simulated("simulators.masimo", *words):
        link, intake, status = device_link("masimo", str(port))
        async with running(link):
            await until(lambda: len(sent(journal)) == 15)
            await until(lambda: status.state is LinkState.DOWN)

    assert arrived(intake) == sent(journal)


async def test_a_terminal_server_that_drops_is_met_again_within_five_seconds() -> None:
    lines, connections = [b"x 1\r\n", b"x 2\r\n"], []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(lines[len(connections) - 1])

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    intake, status = FakeIntake(), SourceStatus(name="bed-1", type="device")
    settings = DeviceSource(name="bed-1", driver="plain", port=f"tcp://127.0.0.1:{port}")
    async with server, running(DeviceLink(settings, Plain(), intake, SystemClock(), status)):
        await until(lambda: len(intake.kept) == 1)
        dropped_at = time.monotonic()
        server.close()
        connections[0].transport.abort()
        await until(lambda: status.state is LinkState.DOWN)
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        await until(lambda: len(intake.kept) == 2)
        took_s = time.monotonic() - dropped_at
        server.close()

    assert took_s < 5
    assert status.state is LinkState.UP
