"""The SDC Source against sdc11073's own provider in another process, over loopback."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.clock import SystemClock
from gateway.config import SdcSource, SdcTls
from gateway.model import Absent, Accepted, Condition, Incoming, Kind, Observation, Phase, Priority, Turn, Wave
from gateway.sources import sdc
from gateway.sources.sdc import SdcLink, try_provider
from gateway.sources.sdc_inbox import Ended, Event, Inbox, Reported, Unreadable
from gateway.status import LinkState, SourceStatus

HOUSE = Path(__file__).parents[3]
TIMEOUT_S = 20.0
AGAIN_S = 5.0
EPR = "urn:uuid:00000000-0000-4000-8000-000000000014"


class Intake:
    """Keeps what it is given, and wakes who waits for it."""

    def __init__(self) -> None:
        self.kept: list[Incoming] = []
        self._more = asyncio.Condition()

    async def accept(self, incoming: Incoming) -> Accepted:
        async with self._more:
            self.kept.append(incoming)
            self._more.notify_all()
        return Accepted(message_id=len(self.kept), repeated=False)

    async def until(self, holds: Callable[["Intake"], Any], timeout_s: float = TIMEOUT_S) -> Any:
        async with asyncio.timeout(timeout_s), self._more:
            return await self._more.wait_for(lambda: holds(self))

    def observations(self, key: str, start: int = 0) -> list[Observation]:
        return [seen for one in self.kept[start:] if one.result for seen in one.result.observations if seen.key == key]

    def waves(self, key: str, start: int = 0) -> list[Wave]:
        return [seen for one in self.kept[start:] if one.result for seen in one.result.waves if seen.key == key]

    def conditions(self, start: int = 0) -> list[Condition]:
        return [seen for one in self.kept[start:] if one.result for seen in one.result.conditions]


class Monitor:
    """The simulator's process."""

    def __init__(self, process: asyncio.subprocess.Process, first: dict[str, Any]) -> None:
        self.process = process
        self.address: str = first["address"]

    async def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        await self.process.stdin.drain()

    async def says(self, word: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            while word not in json.loads(await self.process.stdout.readline()):
                pass


@asynccontextmanager
async def monitor(*options: str) -> AsyncIterator[Monitor]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulators.sdc", "--commands", "--interval", "0.2", *options),
        cwd=HOUSE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            first = json.loads(await process.stdout.readline())
        yield Monitor(process, first)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def listening(settings: SdcSource) -> AsyncIterator[tuple[Intake, SourceStatus]]:
    intake, status = Intake(), SourceStatus(name=settings.name, type="sdc")
    link = SdcLink(settings, intake, SystemClock(), status, clock_step_s=2.0)
    task = asyncio.create_task(link.run())
    try:
        yield intake, status
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - a status has no event
            await asyncio.sleep(0.01)


def phases(intake: Intake, code: str, start: int = 0) -> list[Phase | None]:
    return [seen.phase for seen in intake.conditions(start) if seen.code == code]


async def test_a_monitor_is_read_with_its_numbers_waves_alarms_and_modules() -> None:
    async with monitor() as device:
        settings = SdcSource(name="bed-14", endpoint=device.address, epr=EPR, waves=("pleth_wave",), bed="ICU^^99")
        async with listening(settings) as (intake, status):
            await intake.until(lambda now: now.observations("heart_rate") and len(now.waves("pleth_wave")) > 2)
            await device.tell("alarm on")
            await intake.until(lambda now: Phase.START in phases(now, "spo2_low"))
            await device.tell("alarm latch")
            await intake.until(lambda now: Phase.LATCHED in phases(now, "spo2_low"))
            await device.tell("alarm off")
            await intake.until(lambda now: Phase.END in phases(now, "spo2_low"))
            await device.tell("sensor off")
            await intake.until(lambda now: any(seen.absent is Absent.NAV for seen in now.observations("spo2")))
            await device.tell("module out")
            await device.tell("module in")
            await device.tell("sensor on")
            before = len(intake.kept)
            spo2 = await intake.until(lambda now: [s for s in now.observations("spo2", before) if s.value is not None])
            up, port = status.state, status.port

    assert (up, port) == (LinkState.UP, device.address)
    first = intake.kept[0]
    assert first.kind is Kind.OBSERVATIONS
    assert first.raw is not None and b"GetMdibResponse" in first.raw
    assert first.headers == {"bed": "ICU^^99"}
    assert first.result is not None
    assert first.result.patient_id == "ZZTEST-014"
    assert (first.result.device.model, first.result.device.serial) == ("SDC Monitor", "SIM-0014")
    rate = intake.observations("heart_rate")[-1]
    assert isinstance(rate.value, Decimal) and 20 < rate.value < 200
    assert (rate.sub, rate.unit, rate.code) == ("1.1.1.1", "/min", 147842)
    assert (spo2[-1].sub, spo2[-1].low, spo2[-1].high) == ("1.2.1.1", 90, 100)
    low = [seen for seen in intake.conditions() if seen.code == "spo2_low"]
    assert (low[0].priority, low[0].sub, low[0].mdc, low[0].technical) == (Priority.HIGH, "1.2.1.1", 196672, False)
    assert [seen.episode.turn for seen in low if seen.episode][-1] is Turn.RESET
    assert len({seen.episode.instance for seen in low if seen.episode}) == 1
    pieces = intake.waves("pleth_wave")[:3]
    assert [len(piece.samples) for piece in pieces] == [25, 25, 25]
    assert (pieces[1].period_s, pieces[1].gap, pieces[1].sub) == (Decimal("0.004"), False, "1.2.1.3")
    assert any(intake.observations("x_sdc_set_sim_1"))
    assert status.lost == status.errors == 0


@pytest.mark.parametrize(("word", "discovery"), [("restart", False), ("die", True)])
async def test_a_monitor_that_restarts_is_found_and_read_again(word: str, discovery: bool) -> None:
    async with monitor(*["--discovery"] * discovery, "--off", "0.2") as device:
        where = {"adapter": "127.0.0.1"} if discovery else {"endpoint": device.address}
        settings = SdcSource(name="bed-14", epr=EPR, **where)
        async with listening(settings) as (intake, status):
            await intake.until(lambda now: len(now.observations("heart_rate")) > 2)
            await device.tell("alarm on")
            await intake.until(lambda now: Phase.START in phases(now, "spo2_low"))
            await device.tell(word)
            await until(lambda: status.state is LinkState.DOWN)
            before = len(intake.kept)
            await device.says("on")
            await intake.until(lambda now: now.observations("heart_rate", before), AGAIN_S)

            assert status.state is LinkState.UP
            assert phases(intake, "spo2_low", before)[:1] == [Phase.END]
            assert intake.waves("pleth_wave") == []


async def test_what_a_demonstration_shows_is_not_published() -> None:
    async with AsyncExitStack() as stack:
        device = await stack.enter_async_context(monitor())
        settings = SdcSource(name="bed-14", endpoint=device.address)
        intake, status = await stack.enter_async_context(listening(settings))
        await intake.until(lambda now: now.observations("heart_rate"))
        await device.tell("demo on")
        await until(lambda: status.notice == "demo mode")
        published = len(intake.kept)
        await device.tell("alarm on")
        await device.tell("alarm off")
        await device.tell("demo off")
        await until(lambda: status.notice is None)
        shown = [one.result for one in intake.kept[published:] if one.result is not None]

    assert sum(bool(result.observations) for result in shown) <= 1
    assert all(not result.conditions for result in shown)


def certificates(folder: Path) -> dict[str, Path]:
    """Make an authority and two certificates it signed, one that it did not; return the folder of each."""
    authority, signing = _authority("SDC test CA")
    other, other_signing = _authority("Other CA")
    made = {}
    for name, issuer, key in (
        ("monitor-14", authority, signing),
        ("gateway", authority, signing),
        ("stranger", other, other_signing),
    ):
        made[name] = folder / name
        made[name].mkdir()
        own = ec.generate_private_key(ec.SECP256R1())
        _write(made[name] / "cert.pem", _signed(name, own.public_key(), issuer.subject, key))
        _write(made[name] / "ca.pem", authority)
        (made[name] / "key.pem").write_bytes(
            own.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return made


def _authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return _signed(name, key.public_key(), subject, key, authority=True), key


def _signed(
    name: str,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _write(file: Path, certificate: x509.Certificate) -> None:
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _tls(folder: Path, *devices: str) -> SdcTls:
    return SdcTls(cert=folder / "cert.pem", key=folder / "key.pem", ca=folder / "ca.pem", devices=devices)


async def test_with_tls_both_ends_show_who_they_are(tmp_path: Path) -> None:
    made = certificates(tmp_path)
    async with monitor("--tls", str(made["monitor-14"])) as device:
        good = SdcSource(name="good", endpoint=device.address, tls=_tls(made["gateway"], "monitor-14"))
        wrong_device = SdcSource(name="wrong", endpoint=device.address, tls=_tls(made["gateway"], "monitor-15"))
        stranger = SdcSource(name="stranger", endpoint=device.address, tls=_tls(made["stranger"]))
        async with AsyncExitStack() as stack:
            intake, status = await stack.enter_async_context(listening(good))
            _, wrong = await stack.enter_async_context(listening(wrong_device))
            nothing, strange = await stack.enter_async_context(listening(stranger))
            await intake.until(lambda now: len(now.observations("heart_rate")) > 2)
            await until(lambda: "names none of tls.devices" in str(wrong.last_error) and strange.last_error is not None)

    assert status.state is LinkState.UP
    assert (wrong.state, wrong.received) == (LinkState.DOWN, 0)
    assert (strange.state, strange.received, nothing.kept) == (LinkState.DOWN, 0, [])


async def test_another_device_at_the_address_is_not_taken_for_it() -> None:
    other = "urn:uuid:00000000-0000-4000-8000-000000000015"
    async with AsyncExitStack() as stack:
        device = await stack.enter_async_context(monitor())
        settings = SdcSource(name="bed-15", endpoint=device.address, epr=other)
        intake, status = await stack.enter_async_context(listening(settings))
        await until(lambda: status.last_error is not None)

        tried = await try_provider(SdcSource(name="bed-14", endpoint=device.address))

    assert "is another device than" in str(status.last_error)
    assert intake.kept == []
    assert tried == f"read {device.address}: 31 entries"


def test_the_library_is_not_loaded_before_a_source_connects() -> None:
    code = "import gateway.app, sys; print({name.split('.')[0] for name in sys.modules} & {'sdc11073', 'lxml'})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.strip() == "set()"


class Scripted:
    """A connection that offers what it was given and is held open until the test lets go."""

    address = "http://scripted"

    def __init__(self, events: list[Event]) -> None:
        self.events = events
        self.closed = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, _: SdcSource, inbox: Inbox) -> "Scripted":
        assert self.go.wait(TIMEOUT_S)
        for event in self.events:
            inbox.offer(event)
        self.events = []
        return self

    def close(self, *, unsubscribe: bool) -> None:
        self.closed.set()


@asynccontextmanager
async def scripted(connection: Scripted) -> AsyncIterator[tuple[Intake, SourceStatus]]:
    intake, status = Intake(), SourceStatus(name="bed-14", type="sdc")
    settings = SdcSource(name="bed-14", endpoint="http://scripted:1/x")
    link = SdcLink(settings, intake, SystemClock(), status, clock_step_s=2.0, connector=connection)
    task = asyncio.create_task(link.run())
    try:
        yield intake, status
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_cannot_be_understood_is_kept_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    def boom(*_: object) -> None:
        raise KeyError("a name that nobody may log")

    monkeypatch.setattr(sdc.Picture, "follow", boom)
    events: list[Event] = [Unreadable(raw=b"<a/>", fault="report not understood: X"), Reported(raw=b"<b/>", states=())]
    async with scripted(Scripted(events)) as (intake, status):
        await intake.until(lambda now: len(now.kept) == 2)

    assert [(one.raw, one.quarantined) for one in intake.kept] == [
        (b"<a/>", "report not understood: X"),
        (b"<b/>", "mapping failed: KeyError"),
    ]
    assert "nobody" not in str(status.last_error)


async def test_reports_that_are_lost_are_counted_and_the_connection_is_made_anew() -> None:
    connection = Scripted([Unreadable(raw=b"<a/>", fault="X")] * 510)
    async with scripted(connection) as (intake, status):
        await until(lambda: status.lost == 10)
        await intake.until(lambda now: len(now.kept) == 500)

    assert connection.closed.is_set()
    assert "10 reports lost" in str(status.last_error) or "came faster" in str(status.last_error)


async def test_a_connection_that_comes_when_nobody_waits_any_more_is_closed() -> None:
    connection = Scripted([])
    connection.go.clear()
    async with scripted(connection):
        await asyncio.sleep(0)
    connection.go.set()

    assert await asyncio.to_thread(connection.closed.wait, TIMEOUT_S)


async def test_a_connection_that_is_over_is_closed() -> None:
    connection = Scripted([Ended(reason="the subscriptions ended")])
    async with scripted(connection) as (_, status):
        await until(lambda: status.state is LinkState.DOWN)

        assert status.last_error == "the subscriptions ended"
        assert await asyncio.to_thread(connection.closed.wait, TIMEOUT_S)
