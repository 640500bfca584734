"""An upstream worklist is polled and kept: DCMTK's wlmscpfs is the RIS."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.clock import ManualClock, SystemClock
from gateway.config import DicomWorklistSource, WorklistSettings
from gateway.dataset import text_at
from gateway.errors import LinkError
from gateway.formats.identifiers import tag_of
from gateway.imaging.worklist_view import local_time
from gateway.orders import WorklistItem
from gateway.sources.dicom_worklist import UpstreamWorklist
from gateway.status import LinkState, SourceStatus
from gateway.store.store import Store
from gateway.store.worklist_reading import read_items
from tests.gateway.imaging.worklist_peers import ITEMS, free_port, wlmscpfs

WAIT_S = 20.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store", SystemClock(), failed=lambda error: None)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "ris").mkdir()


def upstream(store: Store, port: int, **more: object) -> tuple[UpstreamWorklist, SourceStatus]:
    values: dict[str, object] = {"days_before": 3650, "days_after": 3650, "ae_title": "WL", "gone_after_s": 0.0} | more
    settings = DicomWorklistSource(name="ris", host="127.0.0.1", port=port, **values)  # type: ignore[arg-type]
    status = SourceStatus("ris", "dicom-worklist")
    return UpstreamWorklist(settings, store, SystemClock(), status), status


def items(store: Store) -> list[WorklistItem]:
    return read_items(store.readers.connection, everything=True)


async def test_what_the_ris_has_is_kept_with_its_letters(store: Store, tmp_path: Path) -> None:
    with wlmscpfs(tmp_path / "ris") as port:
        source, _ = upstream(store, port)
        count = await source.poll()

    assert count == len(ITEMS)
    found = {item.accession: text_at(item.attributes, tag_of("PatientName")) for item in items(store)}
    assert found == {row[0]: row[1] for row in ITEMS}


async def test_each_station_and_modality_is_asked_for(store: Store, tmp_path: Path) -> None:
    with wlmscpfs(tmp_path / "ris") as port:
        source, _ = upstream(store, port, stations=("CT1", "MR1"), modalities=("CT", "MR"))
        await source.poll()

    assert {item.accession for item in items(store)} == {"A001", "A002", "A004", "A005"}


async def test_the_day_asked_for_is_the_hospitals(store: Store, tmp_path: Path) -> None:
    settings = WorklistSettings(timezone="America/Los_Angeles")
    clock = ManualClock(datetime(2026, 1, 16, 3, tzinfo=UTC))  # an evening of the fifteenth
    with wlmscpfs(tmp_path / "ris") as port:
        source, _ = upstream(store, port, days_before=0, days_after=0)
        its_own = UpstreamWorklist(
            source._settings, store, clock, SourceStatus("ris", "dicom-worklist"), lambda now: local_time(now, settings)
        )
        await its_own.poll()

    assert {item.accession for item in items(store)} == {"A001", "A002"}


async def test_what_is_gone_there_goes_and_a_poll_that_fails_removes_nothing(store: Store, tmp_path: Path) -> None:
    with wlmscpfs(tmp_path / "ris") as port:
        source, _ = upstream(store, port)
        await source.poll()
        (tmp_path / "ris" / "db" / "WL" / "A001.wl").unlink()
        await source.poll()

        assert "A001" not in {item.accession for item in items(store)}

    with pytest.raises(LinkError):
        await source.poll()

    assert len(items(store)) == len(ITEMS) - 1


async def test_a_ris_that_refuses_the_query_removes_nothing(store: Store, tmp_path: Path) -> None:
    with wlmscpfs(tmp_path / "ris") as port:
        source, _ = upstream(store, port)
        await source.poll()
        wrong, _ = upstream(store, port, ae_title="NOBODY")  # no such folder there
        with pytest.raises(LinkError):
            await wrong.poll()

    assert len(items(store)) == len(ITEMS)


async def test_a_ris_that_is_down_is_told_by_the_status_and_asked_again(store: Store, tmp_path: Path) -> None:
    port = free_port()
    source, status = upstream(store, port, poll_s=0.05)
    task = asyncio.create_task(source.run())
    try:
        async with asyncio.timeout(WAIT_S):
            await source.polled.wait()
            assert status.state is LinkState.DOWN and status.last_error
            source.polled.clear()
            await source.polled.wait()
        assert status.errors >= 2
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
