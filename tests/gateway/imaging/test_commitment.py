"""Storage commitment as SCP: what is kept, what we commit to, and how the report finds its way."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from gateway.alarms import Alarms
from gateway.clock import ManualClock, SystemClock
from gateway.config import ClientTls, DicomPeer
from gateway.errors import ContentError, LinkError
from gateway.formats.commitment import Reference, read_request, write_report
from gateway.formats.identifiers import decode
from gateway.imaging.commitment import (
    COMMITMENT_SOP_CLASS,
    COMMITMENT_SOP_INSTANCE,
    N_ACTION_RQ,
    REFERENCES_MAX,
    CommitmentPolicy,
    CommitmentRequests,
    judge,
)
from gateway.imaging.commitment_reports import GIVE_UP_S, CommitmentReports
from gateway.imaging.service import Caller, Outcome
from gateway.model import Incoming, Kind
from gateway.spool import Spool
from gateway.store.commitments import (
    CommitmentState,
    HeldInstance,
    keep_commitment,
    read_commitments,
    references_of,
    remove_commitments,
)
from gateway.store.store import Store
from gateway.store.studies import follow as follow_studies
from gateway.store.studies import followed_until, open_studies, read_new_instances, read_studies
from tests.gateway.imaging.exchanges import CALLER, EXPLICIT, NOW, NoExchange, encoded, request
from tests.gateway.senders.certificates import make_certificates
from tests.gateway.spooling import keep_object
from tests.gateway.store.stores import keep, open_store

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
STUDY = "1.2.7"


def asked(*instances: str, transaction: str = "1.2.99", sop_class: str = CT) -> Dataset:
    dataset = Dataset()
    dataset.TransactionUID = transaction
    items = []
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        items.append(item)
    dataset.ReferencedSOPSequence = items
    return dataset


class Association:
    """One that CT1 has open: takes reports, or answers as told."""

    def __init__(self, status: int = 0, caller: Caller = CALLER, fails: bool = False) -> None:
        self.caller = caller
        self.status = status
        self.fails = fails
        self.stands = True
        self.reports: list[tuple[int, bytes]] = []

    async def report(self, sop_class_uid: str, sop_instance_uid: str, event_type: int, data: bytes) -> int:
        assert (sop_class_uid, sop_instance_uid) == (COMMITMENT_SOP_CLASS, COMMITMENT_SOP_INSTANCE)
        if self.fails:
            raise LinkError("gone")
        self.reports.append((event_type, data))
        return self.status


class House:
    """The SCP's parts over a real store and spool."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(NOW)
        self.store: Store = open_store(folder, self.clock)
        self.spool = Spool(folder / "spool")
        self.spool.open()
        self.alarms = Alarms(self.clock)
        self.policy = CommitmentPolicy(archive=False, archives=(), timeout_s=3600.0, peers=())
        self.associations: list[Association] = []
        self.archived: bool | None = True
        self.woken = 0

    def reports(self) -> CommitmentReports:
        made = CommitmentReports(
            self.store,
            self.spool,
            self.clock,
            self.alarms,
            policies=lambda source: self.policy,
            archived=lambda held, archives: self.archived,
        )
        made._associations.extend(self.associations)
        return made

    def ask(self, dataset: Dataset | bytes, **more: object) -> Outcome:
        async def keep_it(new: Any) -> bool:
            return await asyncio.wrap_future(self.store.call(lambda c: keep_commitment(c, new)))

        def kept() -> None:
            self.woken += 1

        more.setdefault("action_type", 1)
        instance = str(more.pop("instance", COMMITMENT_SOP_INSTANCE))
        field = int(str(more.pop("field", N_ACTION_RQ)))
        service = CommitmentRequests(keep_it, kept)
        asking = request(field, COMMITMENT_SOP_CLASS, instance, dataset, **more)
        return asyncio.run(service(asking, NoExchange()))

    def hold(self, *instances: str, sop_class: str = CT) -> list[str]:
        """Store Instances; return their names in the spool."""
        names = []
        for uid in instances:
            stored = keep_object(self.spool, bytes(128) + b"DICM" + uid.encode(), 132)
            headers = {"SOPClassUID": sop_class, "SOPInstanceUID": uid, "StudyInstanceUID": STUDY}
            item = _instance(uid, stored.size, stored.digest, stored.name, headers, self.clock)
            keep(self.store, item)
            names.append(stored.name)
        return names

    def round(self, times: int = 1) -> None:
        """Let time pass as it is wanted between tries, and work."""

        async def go() -> None:
            reports = self.reports()
            for _ in range(times):
                self.clock.advance(1.0)
                await reports.round()

        asyncio.run(go())

    def state(self) -> CommitmentState:
        return read_commitments(self.store.readers.connection, 9)[0].state

    def reasons(self, number: int = 1) -> list[int | None]:
        return [reason for _, reason in references_of(self.store.readers.connection, number)]


def _instance(uid: str, size: int, digest: bytes, name: str, headers: dict[str, str], clock: ManualClock) -> Any:
    return Incoming(
        source="imaging",
        identifier=uid,
        kind=Kind.DICOM,
        size=size,
        digest=digest,
        object_name=name,
        headers=headers,
        terms=(STUDY,),
        received_at=clock.now(),
    )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.store.close()


def reported(data: bytes, syntax: str = "1.2.840.10008.1.2") -> tuple[str, list[str], list[tuple[str, int]]]:
    """Return Transaction UID, what was committed, and what failed with its reason."""
    found = decode(data, syntax)
    committed = found[0x00081199].items if 0x00081199 in found else ()
    failed = found[0x00081198].items if 0x00081198 in found else ()
    return (
        found[0x00081195].values[0],
        [item[0x00081155].values[0] for item in committed],
        [(item[0x00081155].values[0], int(item[0x00081197].values[0])) for item in failed],
    )


def test_what_is_held_is_committed_on_the_same_association(house: House) -> None:
    house.hold("1.2.1", "1.2.2")
    association = Association()
    house.associations.append(association)
    assert house.ask(asked("1.2.1", "1.2.2")).status == 0x0000
    assert house.woken == 1

    house.round(2)
    ((event_type, data),) = association.reports
    assert event_type == 1
    assert reported(data) == ("1.2.99", ["1.2.1", "1.2.2"], [])
    assert house.state() is CommitmentState.REPORTED


def test_a_report_does_not_overtake_the_response(house: House) -> None:
    house.associations.append(Association())
    house.ask(asked("1.2.1"))

    asyncio.run(house.reports().round())
    assert house.associations[0].reports == []


def test_every_instance_of_the_request_stands_in_the_report(house: House) -> None:
    house.hold("1.2.1", "1.2.3")
    house.hold("1.2.4", sop_class=MR)
    (name,) = house.hold("1.2.5")
    (house.spool.objects / name).write_bytes(b"cut")
    association = Association()
    house.associations.append(association)
    house.ask(asked("1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.2.5"))
    house.clock.advance(30)

    house.round(2)
    ((event_type, data),) = association.reports
    assert event_type == 2
    assert reported(data) == ("1.2.99", ["1.2.1", "1.2.3"], [("1.2.2", 0x0112), ("1.2.4", 0x0119), ("1.2.5", 0x0110)])


def test_an_instance_that_is_on_its_way_is_waited_for(house: House) -> None:
    association = Association()
    house.associations.append(association)
    house.ask(asked("1.2.1"))
    house.round(2)
    assert house.state() is CommitmentState.WAITING

    house.hold("1.2.1")
    house.round(4)
    assert [event for event, _ in association.reports] == [1]


def test_a_request_repeated_while_it_is_open_is_kept_once(house: House) -> None:
    assert house.ask(asked("1.2.1")).status == 0x0000
    assert house.ask(asked("1.2.1")).status == 0x0000

    assert len(read_commitments(house.store.readers.connection, 9)) == 1


def test_a_transaction_uid_in_use_is_reported_as_such(house: House) -> None:
    house.hold("1.2.1", "1.2.2")
    association = Association()
    house.associations.append(association)
    house.ask(asked("1.2.1"))
    house.ask(asked("1.2.2"))

    house.round(3)
    told = [reported(data) for _, data in association.reports]
    assert ("1.2.99", ["1.2.1"], []) in told
    assert ("1.2.99", [], [("1.2.2", 0x0131)]) in told


def test_after_its_report_a_request_may_come_again(house: House) -> None:
    house.hold("1.2.1")
    association = Association()
    house.associations.append(association)
    for _ in range(2):
        house.ask(asked("1.2.1"), received_at=house.clock.now())
        house.round(2)

    assert len(association.reports) == 2


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"action_type": 2}, 0x0123),
        ({"action_type": None}, 0x0123),
        ({"instance": "1.2.3"}, 0x0112),
        ({"field": 0x0140}, 0x0211),
    ],
)
def test_what_is_no_commitment_request_is_refused(house: House, more: dict[str, object], status: int) -> None:
    assert house.ask(asked("1.2.1"), **more).status == status
    assert house.woken == 0


@pytest.mark.parametrize(
    "dataset",
    [asked("1.2.1", transaction=""), asked(), asked(""), asked("1.2.x"), asked("1.2.1", sop_class=""), b"\x08\x00"],
)
def test_a_data_set_that_lacks_something_is_refused(house: House, dataset: Dataset | bytes) -> None:
    assert house.ask(dataset).status == 0x0115


def test_a_request_for_too_many_is_refused(house: House) -> None:
    request_ = asked(*(f"1.2.{number}" for number in range(REFERENCES_MAX + 1)))
    assert house.ask(request_).status in (0x0115, 0x0213)


def test_a_store_that_cannot_keep_is_said_so(house: House) -> None:
    house.store.close()
    assert house.ask(asked("1.2.1")).status == 0x0213


def test_with_archives_nothing_is_committed_before_them(house: House) -> None:
    house.policy = CommitmentPolicy(archive=True, archives=("pacs",), timeout_s=100.0, peers=())
    house.archived = False
    house.hold("1.2.1")
    association = Association()
    house.associations.append(association)
    house.ask(asked("1.2.1"))
    house.round(3)
    assert house.state() is CommitmentState.WAITING

    house.archived = True
    house.clock.advance(30)
    house.round(3)
    assert [reported(data)[1] for _, data in association.reports] == [["1.2.1"]]


def test_archives_that_take_too_long_leave_the_modality_its_copy(house: House) -> None:
    house.policy = CommitmentPolicy(archive=True, archives=("pacs",), timeout_s=100.0, peers=())
    house.archived = False
    house.hold("1.2.1")
    association = Association()
    house.associations.append(association)
    house.ask(asked("1.2.1"))
    house.clock.advance(101)

    house.round(2)
    assert [reported(data)[2] for _, data in association.reports] == [[("1.2.1", 0x0213)]]


def held(sop_class: str = CT) -> HeldInstance:
    return HeldInstance(
        message_id=1, source="imaging", sop_class_uid=sop_class, study_instance_uid=STUDY, object_name="a", size=1
    )


@pytest.mark.parametrize(
    ("archive", "archived", "age_s", "reason"),
    [
        (False, None, 0.0, 0),
        (True, None, 599.0, None),
        (True, None, 600.0, 0x0110),
        (True, False, 599.0, None),
        (True, False, 3600.0, 0x0213),
        (True, True, 3600.0, 0),
    ],
)
def test_what_is_judged_when(archive: bool, archived: bool | None, age_s: float, reason: int | None) -> None:
    policy = CommitmentPolicy(archive=archive, archives=("pacs",), timeout_s=3600.0, peers=())

    found = judge([Reference(CT, "1")], {"1": held()}, lambda one: True, lambda one: archived, policy, age_s)

    assert found == [reason]


def test_a_report_that_nobody_takes_is_tried_again_over_restarts(house: House) -> None:
    house.hold("1.2.1")
    house.associations.append(Association(status=0x0110))
    house.ask(asked("1.2.1"))
    house.round(3)
    assert house.state() is CommitmentState.DECIDED

    house.associations[:] = [Association(), Association(fails=True)]
    house.clock.advance(300)
    house.round(1)
    assert house.state() is CommitmentState.REPORTED
    assert len(house.associations[0].reports) == 1


def test_only_the_same_ae_at_the_same_source_is_told(house: House) -> None:
    house.hold("1.2.1")
    other = Caller(calling_ae_title="MR1", called_ae_title="GATEWAY", host="10.0.0.7", source="imaging")
    elsewhere = Caller(calling_ae_title="CT1", called_ae_title="GATEWAY", host="10.0.0.7", source="theatre")
    house.associations[:] = [Association(caller=other), Association(caller=elsewhere)]
    house.ask(asked("1.2.1"))

    house.round(3)
    assert [one.reports for one in house.associations] == [[], []]
    assert "no port is configured" in str(read_commitments(house.store.readers.connection, 1)[0].last_error)


def test_an_association_that_is_opened_gets_what_is_due(house: House) -> None:
    house.hold("1.2.1")
    house.ask(asked("1.2.1"))
    house.round(8)
    association = Association()

    async def go() -> None:
        reports = house.reports()
        await reports.associated(association)
        await reports.round()

    asyncio.run(go())
    assert len(association.reports) == 1


def test_after_a_week_a_report_is_given_up_with_an_alarm(house: House) -> None:
    house.hold("1.2.1")
    house.ask(asked("1.2.1"))
    house.round(2)
    house.clock.advance(GIVE_UP_S)

    house.round(1)
    assert house.state() is CommitmentState.GIVEN_UP
    assert [alarm.key for alarm in house.alarms.standing()] == ["commitment-unreported:imaging"]


def test_settled_requests_are_removed_when_old(house: House) -> None:
    house.hold("1.2.1")
    house.associations.append(Association())
    house.ask(asked("1.2.1"))
    house.ask(asked("1.2.2", transaction="1.2.98"))
    house.round(2)

    assert house.store.call(lambda c: remove_commitments(c, 1 << 60)).result(10) == 1
    assert [one.transaction_uid for one in read_commitments(house.store.readers.connection, 9)] == ["1.2.98"]


def test_a_request_for_all_that_is_here_completes_the_study(house: House) -> None:
    house.hold("1.2.1", "1.2.2")
    connection = house.store.readers.connection
    until, found = read_new_instances(connection, followed_until(connection))
    house.store.call(lambda c: follow_studies(c, until, found, {})).result(10)
    assert len(open_studies(connection)) == 1
    house.ask(asked("1.2.1", "1.2.2"))

    house.round(1)
    assert [(one.instances, one.cause) for one in read_studies(connection, 9)] == [(2, "commitment")]


# --- on a new association, with pynetdicom --------------------------------------------------------------------------


class Modality:
    """pynetdicom listening for reports, as SCU by role selection."""

    def __init__(self, status: int = 0x0000, ssl_context: ssl.SSLContext | None = None) -> None:
        self.reports: list[tuple[int, Dataset, str]] = []
        self.status = status
        entity = AE("CT1")
        entity.add_supported_context(COMMITMENT_SOP_CLASS, scu_role=True, scp_role=True)
        self.server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)],
            ssl_context=ssl_context,
        )
        assert self.server is not None and self.server.socket is not None
        self.port = int(self.server.socket.getsockname()[1])

    def _take(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information, event.assoc.requestor.ae_title))
        return self.status, None


@pytest.fixture
def modality() -> Iterator[Callable[..., Modality]]:
    made: list[Modality] = []

    def make(status: int = 0x0000) -> Modality:
        made.append(Modality(status))
        return made[-1]

    yield make
    for one in made:
        assert one.server is not None
        one.server.shutdown()


def calling_back(house: House, *ports: int) -> None:
    house.policy = CommitmentPolicy(
        archive=False,
        archives=(),
        timeout_s=60.0,
        peers=tuple(DicomPeer(ae_title="CT1", host="127.0.0.1", port=port) for port in ports),
    )
    house.clock = SystemClock()  # type: ignore[assignment]


async def rounds(house: House, until: Callable[[], bool]) -> None:
    reports = house.reports()
    async with asyncio.timeout(10):
        while not until():
            await reports.round()
            await asyncio.sleep(0.02)


def test_a_modality_that_has_left_is_called_back(house: House, modality: Callable[..., Modality]) -> None:
    house.hold("1.2.1")
    peer = modality()
    calling_back(house, peer.port)
    gone = Association(fails=True)
    house.associations.append(gone)
    house.ask(asked("1.2.1", "1.2.2", transaction="1.2.50"), received_at=house.clock.now() - timedelta(seconds=20))
    house.ask(asked("1.2.1", transaction="1.2.51"), received_at=house.clock.now() - timedelta(seconds=20))

    asyncio.run(rounds(house, lambda: len(peer.reports) == 2))
    (first, told, title), (second, more, _) = peer.reports
    assert (first, second, title) == (2, 1, "GATEWAY")
    assert told.TransactionUID == "1.2.50"
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == ["1.2.1"]
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in told.FailedSOPSequence] == [
        ("1.2.2", 0x112)
    ]
    assert "FailedSOPSequence" not in more


def test_a_modality_that_refuses_the_report_is_asked_again(house: House, modality: Callable[..., Modality]) -> None:
    house.hold("1.2.1")
    peer = modality(0x0110)
    calling_back(house, peer.port)
    house.ask(asked("1.2.1"), received_at=house.clock.now() - timedelta(seconds=20))
    asyncio.run(rounds(house, lambda: len(peer.reports) == 1))
    assert house.state() is CommitmentState.DECIDED

    peer.status = 0x0000
    asyncio.run(rounds(house, lambda: house.state() is CommitmentState.REPORTED))
    assert len(peer.reports) == 2


def test_a_modality_that_cannot_be_reached_keeps_no_other_waiting(
    house: House, modality: Callable[..., Modality]
) -> None:
    house.hold("1.2.1")
    calling_back(house, 1)  # nobody listens there
    open_one = Association(caller=Caller(calling_ae_title="MR1", called_ae_title="G", host="h", source="imaging"))
    house.associations.append(open_one)
    then = house.clock.now() - timedelta(seconds=20)
    house.ask(asked("1.2.1", transaction="1.2.60"), received_at=then)
    house.ask(asked("1.2.1", transaction="1.2.61"), received_at=then, caller=open_one.caller)

    asyncio.run(rounds(house, lambda: len(open_one.reports) == 1))
    (failed,) = [one for one in read_commitments(house.store.readers.connection, 9) if one.calling == "CT1"]
    assert failed.last_error is not None
    assert failed.attempts >= 1


# --- the data sets --------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 99), st.sampled_from([0, 0x0110, 0x0112, 0x0119, 0x0213])), max_size=20))
def test_a_report_says_every_outcome(outcomes: list[tuple[int, int]]) -> None:
    told = [(Reference(CT, f"1.2.{number}"), reason) for number, reason in outcomes]
    event_type, data = write_report("1.2.9", told, EXPLICIT)

    transaction, committed, failed = reported(data, EXPLICIT)
    assert transaction == "1.2.9"
    assert event_type == (2 if failed else 1)
    assert committed == [one.sop_instance_uid for one, reason in told if not reason]
    assert failed == [(one.sop_instance_uid, reason) for one, reason in told if reason]


@settings(max_examples=30, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.integers(0, 160)))
def test_any_bytes_are_a_request_or_a_content_error(data: bytes | int) -> None:
    whole = encoded(asked("1.2.1", "1.2.2"))
    try:
        found = read_request(data if isinstance(data, bytes) else whole[:data], EXPLICIT)
    except ContentError:
        return
    assert found.references


def test_a_modality_is_called_back_in_tls_and_a_missing_file_keeps_nobody_waiting(house: House, tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    peer = Modality(ssl_context=context)
    house.hold("1.2.1")
    calling_back(house, peer.port)
    broken = replace(house.policy.peers[0], tls=ClientTls(ca=tmp_path / "none.pem"))
    house.policy = replace(house.policy, peers=(broken,))
    house.ask(asked("1.2.1"), received_at=house.clock.now() - timedelta(seconds=20))
    asyncio.run(rounds(house, lambda: read_commitments(house.store.readers.connection, 1)[0].last_error is not None))

    sound = replace(broken, tls=ClientTls(ca=made.ca))
    house.policy = replace(house.policy, peers=(sound,))
    asyncio.run(rounds(house, lambda: house.state() is CommitmentState.REPORTED))
    assert peer.server is not None
    peer.server.shutdown()
    assert len(peer.reports) == 1


async def test_an_association_that_has_ended_is_forgotten_when_the_next_is_opened(house: House) -> None:
    reports = house.reports()
    ended, standing, last = Association(), Association(), Association()
    for association in (ended, standing):
        await reports.associated(association)
    ended.stands = False

    await reports.associated(last)

    assert list(reports._associations) == [standing, last]
