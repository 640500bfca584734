import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    Verification,
)

from gateway.alarms import Alarms
from gateway.clock import ManualClock, to_micros
from gateway.config import DicomDestination
from gateway.formats.commitment import FAILURES_EXIST, Reference, read_report, write_report
from gateway.formats.dicom import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.imaging.committed import CommitmentAnswers, Committer
from gateway.imaging.service import Caller, Request
from gateway.model import Accepted, DeliveryState, Receipt, Verdict
from gateway.store.archive import ArchivalState, Reports, ask, due_archivals, is_awaited, states_of
from gateway.store.counters import read_counters
from gateway.store.reading import read_attempts
from gateway.store.retention import remove_piece
from tests.gateway.senders import library_peer
from tests.gateway.store.stores import START, Outcomes, incoming, open_store

CT = "1.2.840.10008.5.1.4.1.1.2"
DESTINATION = DicomDestination(
    name="pacs",
    host="127.0.0.1",
    port=1,
    ae_title="PACS",
    commitment=True,
    commitment_delay_s=10,
    commitment_timeout_s=100,
    commitment_attempts_max=2,
)


class House:
    """A store, a clock, and what was said about an archive."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(START)
        self.store = open_store(folder, self.clock)
        self.alarms = Alarms(self.clock)
        self.again: list[str] = []
        self.uncommitted: list[int] = []
        self.settings = DESTINATION
        self.answers = CommitmentAnswers(
            self.store, self.clock, self.alarms, lambda: [self.settings], self.again.append
        )

    def deliver(self, *uids: str) -> None:
        """Keep an Instance for each UID and deliver it to the archive."""
        outcomes = Outcomes()
        for uid in uids:
            self.store.keep(incoming(uid.encode(), identifier=uid), ("pacs",), outcomes)
        for uid, accepted in zip(uids, outcomes.wait(len(uids)), strict=True):
            assert isinstance(accepted, Accepted)
            self.settle(self.delivery_of(accepted.message_id), uid)

    def settle(self, delivery: int, uid: str) -> None:
        done = threading.Event()
        receipt = Receipt(delivery_id=delivery, verdict=Verdict.DELIVERED, archived=(CT, uid))
        self.store.settle(
            "pacs",
            receipt,
            attempt=self.query("SELECT attempts FROM delivery WHERE id = ?", delivery) + 1,
            state=DeliveryState.DELIVERED,
            at=self.clock.now(),
            settled=lambda error: done.set(),
        )
        assert done.wait(10)

    def delivery_of(self, message: int) -> int:
        number = self.query("SELECT id FROM delivery WHERE message = ?", message)
        assert isinstance(number, int)
        return number

    def query(self, sql: str, *values: object) -> Any:
        return self.store.readers.connection.execute(sql, values).get

    def due(self, wait_s: float = 0.0) -> list[str]:
        """Return what is to be asked for so much later."""
        now = self.clock.now() + timedelta(seconds=wait_s)
        found = due_archivals(
            self.store.readers.connection, "pacs", wanted_before=now - timedelta(seconds=10), asked_before=now, limit=9
        )
        return [each.sop_instance_uid for each in found]

    def states(self) -> list[ArchivalState]:
        rows = self.store.readers.connection.execute("SELECT state FROM archival ORDER BY delivery").fetchall()
        return [ArchivalState(state) for (state,) in rows]

    def let_go(self) -> int:
        at = to_micros(self.clock.now() + timedelta(days=1))
        work = self.store.call(lambda c: remove_piece(c, after=0, before_micros=at, quarantined=True))
        return work.result(10).removed

    def ask(self, transaction: str, *deliveries: int) -> None:
        again_at = self.clock.now() + timedelta(seconds=100)
        self.store.call(lambda c: ask(c, transaction, deliveries, again_at)).result(10)

    async def report(self, transaction: str, *outcomes: tuple[str, int]) -> int:
        """Let the archive report, as its listener's peer would."""
        event_type, data = write_report(
            transaction, [(Reference(CT, uid), reason) for uid, reason in outcomes], IMPLICIT_LITTLE
        )
        status, _ = await self.answers.take(event_type, data, IMPLICIT_LITTLE)
        return status


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    await asyncio.to_thread(made.store.close)


# --- what the store knows ---


async def test_what_was_delivered_is_kept_until_the_archive_has_committed(house: House) -> None:
    house.deliver("1.1", "1.2")

    assert house.let_go() == 0
    assert house.due() == []
    assert house.due(10) == ["1.1", "1.2"]
    house.ask("9.9", 1, 2)
    assert house.due(99) == []
    assert await house.report("9.9", ("1.1", 0)) == 0
    assert house.states() == [ArchivalState.COMMITTED, ArchivalState.ASKED]
    assert house.let_go() == 1
    assert house.due(101) == ["1.2"]
    assert await house.report("9.9", ("1.2", 0)) == 0
    assert house.let_go() == 1
    assert house.states() == []
    assert house.query("SELECT count(*) FROM archival_request") == 0


async def test_what_is_denied_is_owed_again_a_limited_number_of_times(house: House) -> None:
    house.deliver("1.1")
    house.ask("9.1", 1)
    assert await house.report("9.1", ("1.1", 0x0110)) == 0
    assert house.again == ["pacs"]
    assert house.query("SELECT state FROM delivery") == DeliveryState.PENDING.value
    assert house.due(10_000) == []

    house.settle(1, "1.1")
    house.ask("9.2", 1)
    assert await house.report("9.2", ("1.1", 0x0112)) == 0

    assert house.query("SELECT state FROM delivery") == DeliveryState.PARKED.value
    assert [alarm.key for alarm in house.alarms.standing()] == ["parked:pacs"]
    assert house.let_go() == 0
    assert house.query("SELECT reason FROM attempt ORDER BY number DESC LIMIT 1") == "the archive did not commit (0112)"
    tried = [attempt.verdict for attempt in read_attempts(house.store.readers.connection, 1)]
    assert tried == ["delivered", "not-committed"] * 2
    counters = read_counters(house.store.readers.connection)["destination", "pacs"]
    assert {name: counters.get(name, 0) for name in ("pending", "delivered", "parked")} == {
        "pending": 0,
        "delivered": 0,
        "parked": 1,
    }


async def test_a_report_counts_once_and_also_when_it_comes_late(house: House) -> None:
    house.deliver("1.1")
    house.ask("9.1", 1)
    house.clock.advance(200)
    house.ask("9.2", 1)

    assert await house.report("9.1", ("1.1", 0)) == 0
    assert await house.report("9.2", ("1.1", 0x0110)) == 0

    assert house.states() == [ArchivalState.COMMITTED]
    assert house.query("SELECT state FROM delivery") == DeliveryState.DELIVERED.value


async def test_a_denial_that_is_told_twice_says_nothing_of_what_was_sent_since(house: House) -> None:
    house.deliver("1.1", "1.2")
    house.ask("9.1", 1, 2)
    assert await house.report("9.1", ("1.1", 0x0110), ("1.2", 0)) == 0
    house.settle(1, "1.1")

    assert await house.report("9.1", ("1.1", 0x0110), ("1.2", 0)) == 0  # its answer was lost on the way
    house.ask("9.2", 1)
    assert await house.report("9.1", ("1.1", 0x0110), ("1.2", 0)) == 0

    assert house.states() == [ArchivalState.ASKED, ArchivalState.COMMITTED]
    assert house.query("SELECT state FROM delivery WHERE id = 1") == DeliveryState.DELIVERED.value


async def test_a_report_that_nobody_asked_for_changes_nothing(house: House) -> None:
    house.deliver("1.1")
    house.ask("9.1", 1)

    assert await house.report("9.9", ("1.1", 0)) == 0x0115
    assert await house.report("9.1", ("1.7", 0)) == 0
    assert (await house.answers.take(3, b"", IMPLICIT_LITTLE))[0] == 0x0113
    assert (await house.answers.take(1, b"\xff" * 9, IMPLICIT_LITTLE))[0] == 0x0115
    assert house.states() == [ArchivalState.ASKED]


async def test_the_listener_takes_reports_only(house: House) -> None:
    caller = Caller(calling_ae_title="PACS", called_ae_title="GATEWAY", host="h", source="imaging")
    request = Request(
        caller=caller,
        field=0x0100,
        message_id=1,
        sop_class_uid="1.2.840.10008.1.20.1",
        transfer_syntax=EXPLICIT_LITTLE,
        received_at=START,
        event_type=1,
        data=write_report("9.1", [(Reference(CT, "1.1"), 0)], EXPLICIT_LITTLE)[1],
    )
    house.deliver("1.1")
    house.ask("9.1", 1)

    assert (await house.answers(replace(request, field=0x0130), None)).status == 0x0211  # type: ignore[arg-type]
    assert (await house.answers(request, None)).status == 0  # type: ignore[arg-type]
    assert states_of(house.store.readers.connection, [1]) == {1: {"pacs": ArchivalState.COMMITTED}}


async def test_an_archive_that_is_asked_no_more_holds_nothing_back(house: House) -> None:
    house.deliver("1.1")
    reports: Reports = house.store.reports

    assert house.store.call(lambda c: reports.waive(c, ["pacs", "other"])).result(10) == 1
    assert house.let_go() == 1


async def test_it_is_known_whether_anything_waits_for_an_archive(house: House) -> None:
    before = is_awaited(house.store.readers.connection, "pacs")
    house.deliver("1.1")
    house.ask("9.1", 1)
    asked = is_awaited(house.store.readers.connection, "pacs")
    assert await house.report("9.1", ("1.1", 0)) == 0

    assert (before, asked) == (False, True)
    assert not is_awaited(house.store.readers.connection, "pacs")


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.deliver("1.1", "1.2")
    house.ask("9.1", 1)
    await asyncio.to_thread(house.store.close)

    later = House(tmp_path)
    assert later.due(10) == ["1.2"]
    assert later.let_go() == 0
    assert await later.report("9.1", ("1.1", 0)) == 0
    assert later.states() == [ArchivalState.COMMITTED, ArchivalState.WANTED]
    await asyncio.to_thread(later.store.close)


def test_a_report_is_read_as_it_was_written() -> None:
    outcomes = [(Reference(CT, "1.1"), 0), (Reference(CT, "1.2"), 0x0112), (Reference(CT, "1.3"), 0)]
    for syntax in (IMPLICIT_LITTLE, EXPLICIT_LITTLE):
        event_type, data = write_report("9.9", outcomes, syntax)
        report = read_report(data, syntax)

        assert event_type == FAILURES_EXIST
        assert (report.transaction_uid, report.committed) == ("9.9", ("1.1", "1.3"))
        assert report.failed == {"1.2": 0x0112}


# --- with an archive ---


class Archive:
    """A peer that answers N-ACTION as told and reports on the association that asked."""

    def __init__(self) -> None:
        self.status = 0x0000
        self.failed: dict[str, int] = {}
        self.silent = False
        self.asked: list[list[str]] = []
        self.answers: list[int] = []
        self._threads: list[threading.Thread] = []

    def act(self, event: evt.Event) -> tuple[int, None]:
        information = event.action_information
        uids = [str(item.ReferencedSOPInstanceUID) for item in information.ReferencedSOPSequence]
        self.asked.append(uids)
        if self.status == 0 and not self.silent:
            thread = threading.Thread(target=self._report, args=(event.assoc, str(information.TransactionUID), uids))
            self._threads.append(thread)
            thread.start()
        return self.status, None

    def _report(self, assoc: Any, transaction: str, uids: Sequence[str]) -> None:
        report = Dataset()
        report.TransactionUID = transaction
        sound = [_reference(uid) for uid in uids if uid not in self.failed]
        if sound:
            report.ReferencedSOPSequence = DicomSequence(sound)
        if self.failed:
            report.FailedSOPSequence = DicomSequence(_reference(*each) for each in self.failed.items())
        threading.Event().wait(0.05)  # the response to the N-ACTION leaves first
        status, _ = assoc.send_n_event_report(
            report, 2 if self.failed else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(int(status.Status))

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)


def _reference(uid: str, reason: int = 0) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
    if reason:
        item.FailureReason = reason
    return item


@contextmanager
def serving(archive: Archive, *, offers: str = StorageCommitmentPushModel) -> Iterator[int]:
    ae = AE("PACS")
    ae.add_supported_context(offers)
    with library_peer.serving(ae, 0, [(evt.EVT_N_ACTION, archive.act)]) as port:
        yield port
        archive.join()


def committer(house: House, port: int) -> Committer:
    house.settings = replace(DESTINATION, port=port, connect_timeout_s=3.0, response_timeout_s=5.0)
    return Committer(house.settings, house.store, house.clock, house.alarms, house.answers, house.uncommitted.append)


async def test_an_archive_is_asked_and_reports_on_the_same_association(house: House) -> None:
    house.deliver("1.1", "1.2", "1.3")
    archive = Archive()
    archive.failed = {"1.2": 0x0110}
    with serving(archive) as port:
        asking = committer(house, port)
        assert not await asking.round()
        house.clock.advance(10)
        assert await asking.round()
        assert not await asking.round()

    assert archive.asked == [["1.1", "1.2", "1.3"]]
    assert archive.answers == [0x0000]
    assert house.states() == [ArchivalState.COMMITTED, ArchivalState.DENIED, ArchivalState.COMMITTED]
    assert house.again == ["pacs"]


@pytest.mark.parametrize(
    ("prepare", "offers", "words"),
    [
        (lambda archive: setattr(archive, "status", 0x0110), StorageCommitmentPushModel, "answered 0110"),
        (lambda archive: None, Verification, "no storage commitment"),
    ],
)
async def test_a_refusal_is_told_and_asked_again_later(
    house: House, prepare: Callable[[Archive], None], offers: str, words: str
) -> None:
    house.deliver("1.1")
    house.clock.advance(10)
    archive = Archive()
    prepare(archive)
    with serving(archive, offers=offers) as port:
        await committer(house, port).round()

    (alarm,) = house.alarms.standing()
    assert alarm.key == "commitment-refused:pacs"
    assert words in alarm.text
    assert house.due(59) == []
    assert house.due(61) == ["1.1"]


async def test_a_silent_archive_is_asked_again_under_a_new_transaction(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.imaging.committed.REPORT_WAIT_S", 0.05)
    house.deliver("1.1")
    house.clock.advance(10)
    archive = Archive()
    archive.silent = True
    with serving(archive) as port:
        asking = committer(house, port)
        await asking.round()
        assert not await asking.round()
        house.clock.advance(101)
        await asking.round()
        house.clock.advance(300)
        await asking.round()

    assert archive.asked == [["1.1"]] * 3
    assert house.query("SELECT count(DISTINCT transaction_uid) FROM archival_request") == 3
    assert [alarm.key for alarm in house.alarms.standing()] == ["uncommitted:pacs"]
    assert set(house.uncommitted) == {1}


async def test_an_archive_that_is_away_is_asked_when_it_is_back(house: House) -> None:
    house.deliver("1.1")
    house.clock.advance(10)
    archive = Archive()
    with serving(archive) as port:
        pass
    away = committer(house, port)
    assert await away.round()
    house.clock.advance(61)
    with serving(archive) as port:
        back = committer(house, port)
        assert await back.round()

    assert house.states() == [ArchivalState.COMMITTED]
