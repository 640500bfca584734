import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway import upkeep as upkeep_module
from gateway.alarms import Alarms
from gateway.clock import ManualClock
from gateway.config import Alarms as AlarmSettings
from gateway.config import Config, MllpSource, Retention, WorklistSettings
from gateway.dataset import Element
from gateway.formats.worklist_tags import ACCESSION, SEQUENCE, START_DATE, STEP_ID
from gateway.model import DeliveryState
from gateway.spool import Spool
from gateway.status import DestinationStatus, LinkState, SourceStatus
from gateway.store import retention
from gateway.store.space import Space
from gateway.store.store import Store
from gateway.store.worklist import put_upstream
from gateway.store.worklist_reading import read_items
from gateway.typed import Address, Size
from gateway.upkeep import Upkeep
from tests.gateway.store.stores import START, incoming, keep, open_store, settle

MIB = 1 << 20


class House:
    """An upkeep with everything that it looks after."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(START)
        self.alarms = Alarms(self.clock)
        self.looked = asyncio.Event()
        self.store: Store = open_store(folder, self.clock)
        self.spool = Spool(folder / "spool")
        self.spool.open()
        self.space = Space(folder, reserve=0, stop_intake_below=0)
        self.config = Config(
            sources=(MllpSource(name="emr", listen=Address("127.0.0.1", 1)),),
            retention=Retention(days=1),
            alarms=AlarmSettings(oldest_pending_s=300.0),
        )
        self.source = SourceStatus(name="emr", type="mllp", started_at=START)
        self.destination = DestinationStatus(name="ris", type="mllp")
        self.upkeep = Upkeep(
            self.store,
            self.spool,
            self.space,
            self.alarms,
            self.clock,
            config=lambda: self.config,
            sources=lambda: [self.source],
            destinations=lambda: [self.destination],
        )

    def keys(self) -> list[str]:
        return [alarm.key for alarm in self.alarms.standing()]

    def left(self) -> list[int]:
        rows = self.store.readers.connection.execute("SELECT id FROM message ORDER BY id").fetchall()
        return [number for (number,) in rows]

    async def look(self) -> None:
        """One round of everything that is watched."""
        watching = asyncio.create_task(self.upkeep.watch())
        self.looked.clear()
        await asyncio.wait_for(self.looked.wait(), 10)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    made = House(tmp_path)
    look = made.upkeep._look_at_silence

    def counted() -> None:
        look()
        made.looked.set()

    monkeypatch.setattr(made.upkeep, "_look_at_silence", counted)
    yield made
    made.store.close()


def test_old_settled_messages_go_and_owed_ones_stay(house: House) -> None:
    keep(house.store, incoming(b"1"), "ris")
    keep(house.store, incoming(b"2"), "ris")
    keep(house.store, incoming(b"3", received_at=START + timedelta(hours=23)), "ris")
    settle(house.store, "ris", 1)
    settle(house.store, "ris", 3)
    house.clock.advance(86_400 + 3600)

    assert house.upkeep.retain_once() == 1
    assert house.left() == [2, 3]


def test_objects_go_with_their_messages(house: House) -> None:
    name = "ab" * 32
    file = house.spool.objects / name
    file.write_bytes(b"DICM")
    keep(house.store, incoming(b"1", object_name=name), "pacs")
    house.clock.advance(2 * 86_400)
    house.upkeep.retain_once()
    assert file.exists()
    settle(house.store, "pacs", 1)
    house.upkeep.retain_once()

    assert not file.exists()


def test_a_step_of_today_stays_whatever_day_it_is_elsewhere(house: House) -> None:
    house.config = replace(house.config, worklist=WorklistSettings(keep_days=0, timezone="America/Los_Angeles"))
    house.clock.advance((datetime(2026, 1, 16, 3, tzinfo=UTC) - house.clock.now()).total_seconds())
    for day in ("20260114", "20260115"):  # it is the evening of the fifteenth
        step = {START_DATE: Element("DA", (day,)), STEP_ID: Element("SH", ("1",))}
        item = {ACCESSION: Element("SH", (day,)), SEQUENCE: Element("SQ", items=(step,))}
        before = house.clock.now() - timedelta(hours=1)
        house.store.call(lambda c, item=item, at=before: put_upstream(c, "ris", [item], at)).result(10)  # type: ignore[misc]
    house.upkeep.retain_once()

    assert [item.accession for item in read_items(house.store.readers.connection)] == ["20260115"]


def test_old_files_that_no_row_knows_go_and_owed_ones_stay(house: House) -> None:
    names = [digit * 64 for digit in "abc"]
    for name in names:
        (house.spool.objects / name).write_bytes(b"DICM")
    keep(house.store, incoming(b"1", object_name=names[0]), "pacs")
    old = (START - timedelta(days=3)).timestamp()
    for name in names[:2]:
        os.utime(house.spool.objects / name, (old, old))
    os.utime(house.spool.objects / names[2], (START.timestamp(), START.timestamp()))
    house.upkeep.retain_once()

    assert sorted(house.spool.names()) == [names[0], names[2]]


def test_no_unknown_file_goes_while_a_store_waits_set_aside(house: House, tmp_path: Path) -> None:
    (house.spool.objects / ("a" * 64)).write_bytes(b"DICM")
    os.utime(house.spool.objects / ("a" * 64), (0, 0))
    (tmp_path / "set-aside" / "20260101T000000Z").mkdir(parents=True)
    house.upkeep.retain_once()

    assert list(house.spool.names()) == ["a" * 64]


def test_too_large_a_folder_lets_the_oldest_settled_go_and_no_more_than_needed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHUNK_ROWS", 5)
    for number in range(100):
        keep(house.store, incoming(b"%d" % number * 25_000), "ris")
        if number >= 10:
            settle(house.store, "ris", number + 1)
    house.config = replace(house.config, retention=Retention(days=1, max_size=Size(3 * MIB)))
    assert house.upkeep._data_bytes() > 4 * MIB
    house.clock.advance(1)
    removed = house.upkeep.retain_once()

    assert 15 <= removed <= 60
    assert house.upkeep._data_bytes() <= 3 * MIB
    assert house.left() == [*range(1, 11), *range(11 + removed, 101)]


def test_a_parked_delivery_outlives_age_and_size(house: House) -> None:
    keep(house.store, incoming(b"x" * 2 * MIB), "ris")
    settle(house.store, "ris", 1, DeliveryState.PARKED)
    house.config = replace(house.config, retention=Retention(days=0, max_size=Size(MIB)))
    house.clock.advance(1_000_000)

    assert house.upkeep.retain_once() == 0
    assert house.left() == [1]


async def test_low_room_raises_and_ends_its_alarm(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.space._stop_below = 20 * MIB
    monkeypatch.setattr(Space, "free_bytes", lambda space: 10 * MIB)
    await house.look()
    assert house.keys() == ["disk-low"]
    monkeypatch.setattr(Space, "free_bytes", lambda space: 100 * MIB)
    await house.look()

    assert house.keys() == []


async def test_a_log_that_does_not_shrink_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "LOG_BYTES_MAX", 1)
    keep(house.store, incoming(b"1"))
    await house.look()

    assert house.keys() == ["store-log-large"]


async def test_a_store_set_aside_is_told_until_a_person_removes_it(house: House) -> None:
    aside = house.store.path.parent / "set-aside" / "20260101T000000Z"
    aside.mkdir(parents=True)
    await house.look()
    await house.look()
    assert house.keys() == ["store-set-aside"]
    aside.rmdir()
    await house.look()

    assert house.keys() == []


async def test_what_waits_too_long_is_told(house: House) -> None:
    keep(house.store, incoming(b"1"), "ris")
    await house.look()
    assert house.keys() == []
    house.clock.advance(301)
    await house.look()
    assert house.keys() == ["pending-old:ris"]
    assert house.upkeep.oldest_pending_s == {"ris": 301.0}
    settle(house.store, "ris", 1)
    await house.look()

    assert house.keys() == []
    assert house.upkeep.oldest_pending_s == {}


async def test_what_waits_for_a_destination_that_is_configured_no_more_is_told(house: House) -> None:
    keep(house.store, incoming(b"1"), "ris", "old", "gone")
    keep(house.store, incoming(b"2"), "gone")
    settle(house.store, "old", 2)
    settle(house.store, "gone", 3, state=DeliveryState.PARKED)
    await house.look()
    before = house.keys()
    settle(house.store, "gone", 4)
    await house.look()
    parked = house.keys()
    house.store.call(lambda c: house.store.acts.discard(c, [3], "moved", "anna", START)).result(10)
    await house.look()

    assert before == parked == ["destination-gone:gone"]
    assert house.keys() == []


async def test_an_archive_that_is_configured_no_more_and_has_not_committed_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(house.store, incoming(b"1"), "pacs")
    settle(house.store, "pacs", 1)
    monkeypatch.setattr(upkeep_module, "is_awaited", lambda connection, name: name == "pacs")
    await house.look()

    assert house.keys() == ["destination-gone:pacs"]


async def test_a_source_that_falls_silent_is_told(house: House) -> None:
    house.config = replace(house.config, alarms=AlarmSettings(quiet_s=60.0, oldest_pending_s=300.0))
    house.clock.advance(59)
    await house.look()
    assert house.keys() == []
    house.clock.advance(2)
    await house.look()
    assert house.keys() == ["quiet:emr"]
    house.source.saw_input(house.clock.now())
    await house.look()

    assert house.keys() == []


@pytest.mark.parametrize("step", [timedelta(days=-365), timedelta(days=365)])
async def test_silence_is_measured_by_a_clock_that_nobody_sets(house: House, step: timedelta) -> None:
    house.config = replace(house.config, alarms=AlarmSettings(quiet_s=60.0, oldest_pending_s=300.0))
    house.source.saw_input(house.clock.now())
    await house.look()
    house.clock._now += step
    house.clock.advance(50)
    await house.look()
    early = house.keys()
    house.clock.advance(20)
    await house.look()
    late = house.keys()

    assert "quiet:emr" not in early
    assert "quiet:emr" in late


async def test_a_clock_that_is_set_is_told(house: House) -> None:
    await house.look()
    house.clock._now += timedelta(seconds=1.9)
    await house.look()
    assert house.keys() == []
    house.clock._now -= timedelta(hours=1)
    await house.look()

    assert house.keys() == ["clock-stepped"]


async def test_rounds_of_retention_go_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep_module, "RETENTION_ROUND_S", 0.0)
    rounds = 0
    done = asyncio.Event()

    def retain_once() -> int:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            house.store.call(lambda connection: None)
            loop.call_soon_threadsafe(done.set)
        return 0

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(house.upkeep, "retain_once", retain_once)
    task = asyncio.create_task(house.upkeep.retain())
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_readings_that_are_lost_are_an_alarm_until_no_more_are(house: House) -> None:
    house.source.lost = 3
    await house.look()
    during = house.keys()
    await house.look()
    after = house.keys()

    assert "readings-lost:emr" in during
    assert "readings-lost:emr" not in after


async def test_a_source_that_failed_is_told_and_one_that_was_stopped_is_not(house: House) -> None:
    house.source.state = LinkState.DOWN
    await house.look()
    stopped = house.keys()
    house.source.saw_error("refused", house.clock.now())
    await house.look()
    failed = house.keys()

    assert "source-down:emr" not in stopped
    assert "source-down:emr" in failed
