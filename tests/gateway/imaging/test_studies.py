"""When a study is complete, what it then owes, and what it says of a patient that the worklist does not."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.alarms import Alarms
from gateway.clock import ManualClock
from gateway.config import DicomDestination, DicomSource, Route
from gateway.dataset import Attributes, Element
from gateway.imaging.demographics import disagreements
from gateway.imaging.studies import StudyWatch
from gateway.model import DeliveryState, Incoming, Kind
from gateway.orders import ProcedureStep, ScheduledStep, StepChange, StepState
from gateway.routing import Router
from gateway.store.conflicts import forget_conflicts
from gateway.store.reading import read_deliveries
from gateway.store.retention import remove_piece
from gateway.store.store import Store
from gateway.store.studies import StudyProgress, oldest_waiting, read_studies, remove_studies
from gateway.typed import Address
from tests.gateway.store.stores import START, keep, open_store

STUDY = "1.2.7"
ITEM: Attributes = {
    0x00100020: Element("LO", ("ZZ1",)),
    0x00100010: Element("PN", ("ZZTEST^Anna",)),
    0x00100030: Element("DA", ("19620714",)),
    0x00080050: Element("SH", ("A1",)),
    0x0020000D: Element("UI", (STUDY,)),
}
SOURCE = DicomSource(name="imaging", listen=Address("127.0.0.1", 0), services=("storage", "mpps"))
ARCHIVE = DicomDestination(name="archive", host="a", port=104, ae_title="A")
RESEARCH = DicomDestination(name="research", host="b", port=104, ae_title="B", mpps=True)


class House:
    """Watched studies over a real store."""

    def __init__(self, folder: Path, *routes: Route) -> None:
        self.clock = ManualClock(START)
        self.store: Store = open_store(folder, self.clock)
        self.alarms = Alarms(self.clock)
        self.route(*routes)
        self.item: Attributes | None = None
        self.woken: list[str] = []
        self.watch = self.watching()

    def route(self, *routes: Route) -> None:
        self.router = Router(routes, (SOURCE,), (ARCHIVE, RESEARCH))

    def watching(self) -> StudyWatch:
        return StudyWatch(
            self.store,
            self.clock,
            self.alarms,
            router=lambda: self.router,
            find_item=lambda step: self.item,
            stable_s=lambda source: 60.0,
            owed=self.woken.extend,
        )

    def receive(self, number: int, study: str = STUDY, **headers: str) -> None:
        self.keep(
            Kind.DICOM,
            f"1.2.{number}",
            {"StudyInstanceUID": study, "PatientID": "ZZ1", "AccessionNumber": "A1", "Modality": "CT"} | headers,
            study,
            object_name=f"{number:064x}",
        )

    def perform(self, state: StepState, *made: int, uid: str = "1.2.500") -> None:
        items = tuple({0x00081155: Element("UI", (f"1.2.{number}",))} for number in made)
        series = Element("SQ", items=({0x00081140: Element("SQ", items=items)},))
        step = ProcedureStep(sop_instance_uid=uid, state=state, attributes={0x00400340: series})
        scheduled = (ScheduledStep(study_instance_uid=STUDY, accession_number="A1"),)
        change = StepChange(step=step, scheduled=scheduled, at=self.clock.now())
        self.keep(
            Kind.MPPS, uid, {"StudyInstanceUID": STUDY}, STUDY, changes=(change,), digest=f"{uid}{state}".encode()
        )

    def keep(self, kind: Kind, uid: str, headers: dict[str, str], study: str, **more: object) -> None:
        values: dict[str, object] = {"digest": hashlib.sha256(uid.encode()).digest(), "raw": None}
        item = Incoming(
            source="imaging",
            kind=kind,
            received_at=self.clock.now(),
            size=1,
            identifier=uid,
            headers=headers,
            terms=(study,),
            lane_key=study,
            **(values | more),  # type: ignore[arg-type]
        )
        keep(self.store, item, *self.router.owed(item).destinations)

    async def after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        while await self.watch.round():
            pass

    def studies(self) -> list[StudyProgress]:
        return read_studies(self.store.readers.connection, 9)

    def causes(self) -> list[str | None]:
        return [study.cause for study in self.studies()]

    def owed(self, destination: str) -> list[int]:
        found = read_deliveries(
            self.store.readers.connection, "E", destination=destination, state=DeliveryState.PENDING
        )
        return sorted(delivery.message_id for delivery in found)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(
        tmp_path,
        Route(sources=("imaging",), to=("archive",)),
        Route(sources=("imaging",), to=("research",), after="study-complete", when='Modality == "CT"'),
    )
    yield made
    made.store.close()


async def test_a_study_that_nothing_was_added_to_for_a_while_is_complete(house: House) -> None:
    house.receive(1)
    await house.after(59)
    assert house.causes() == [None]
    house.receive(2)
    await house.after(59)
    assert house.causes() == [None]

    await house.after(1)
    assert house.causes() == ["age"]
    assert house.studies()[0].instances == 2


async def test_what_waits_for_a_complete_study_is_owed_then_and_once(house: House) -> None:
    house.receive(1)
    house.receive(2, Modality="SR")
    house.receive(3)
    await house.after(1)
    assert (house.owed("archive"), house.owed("research"), house.woken) == ([1, 2, 3], [], [])

    await house.after(60)
    assert (house.owed("research"), house.woken) == ([1, 3], ["research"])
    await house.after(60)
    assert house.owed("research") == [1, 3]


async def test_what_waited_by_a_route_that_waits_no_more_is_owed_when_its_study_is_complete(house: House) -> None:
    house.receive(1)
    house.route(Route(sources=("imaging",), to=("archive", "research")))
    house.receive(2)
    assert (house.owed("archive"), house.owed("research")) == ([1, 2], [2])

    await house.after(60)
    await house.after(60)
    assert (house.owed("archive"), house.owed("research")) == ([1, 2], [1, 2])


async def test_an_instance_that_comes_late_is_owed_when_the_study_is_complete_again(house: House) -> None:
    house.receive(1)
    await house.after(60)
    house.receive(2)
    await house.after(1)
    assert (house.causes(), house.owed("research")) == ([None], [1])

    await house.after(60)
    assert (house.causes(), house.owed("research")) == (["age"], [1, 2])


async def test_mpps_that_is_over_completes_a_study_as_soon_as_all_it_made_is_here(house: House) -> None:
    house.receive(1)
    house.perform(StepState.IN_PROGRESS)
    await house.after(1)
    house.perform(StepState.COMPLETED, 1, 2)
    await house.after(1)
    assert house.causes() == [None]

    house.receive(2)
    await house.after(1)
    assert house.causes() == ["mpps"]


async def test_a_step_that_is_still_at_work_leaves_the_study_to_its_age(house: House) -> None:
    house.receive(1)
    house.perform(StepState.COMPLETED, 1)
    house.perform(StepState.IN_PROGRESS, uid="1.2.501")
    await house.after(59)
    assert house.causes() == [None]

    await house.after(1)
    assert house.causes() == ["age"]


async def test_a_procedure_step_is_owed_at_once_also_by_a_route_that_waits(house: House) -> None:
    house.perform(StepState.IN_PROGRESS)
    assert house.owed("research") == []  # its modality is not CT

    house.router = Router(
        (Route(sources=("imaging",), to=("research",), after="study-complete"),), (SOURCE,), (RESEARCH,)
    )
    house.perform(StepState.IN_PROGRESS, uid="1.2.502")
    assert house.owed("research") == [2]


async def test_what_was_followed_is_not_followed_again_after_a_restart(house: House) -> None:
    house.receive(1)
    await house.after(1)
    house.watch = house.watching()
    house.receive(2)

    await house.after(1)
    assert house.studies()[0].instances == 2


async def test_a_study_that_disagrees_with_the_worklist_is_reported_once(house: House) -> None:
    house.item = ITEM
    house.receive(1, PatientName="ZZTEST^ANNA", PatientBirthDate="19620714")
    await house.after(1)
    assert house.alarms.standing() == []

    house.receive(2, PatientID="ZZ2")
    house.receive(3, PatientName="ZZTEST^OTTO")
    await house.after(1)
    assert house.studies()[0].disagreements == ("PatientID", "PatientName")
    assert [alarm.key for alarm in house.alarms.standing()] == ["worklist-disagrees:imaging"]
    assert len(read_studies(house.store.readers.connection, 9, disagreeing=True)) == 1


async def test_what_waits_holds_retention_and_what_is_done_is_forgotten(house: House) -> None:
    house.receive(1)
    await house.after(1)
    connection = house.store.readers.connection
    assert oldest_waiting(connection) is not None

    await house.after(60)
    assert oldest_waiting(connection) is None
    assert house.store.call(lambda c: remove_studies(c, 1 << 60)).result(10) == 1


@pytest.mark.parametrize(
    ("headers", "keywords"),
    [
        ({"PatientID": "ZZ1"}, ()),
        ({"PatientID": "ZZ1", "PatientName": "zztest^anna^^"}, ()),
        ({"PatientID": "ZZ1", "PatientName": "ZZTEST^Anna=x=y"}, ()),
        ({"PatientID": "ZZ1", "PatientName": "ZZTEST^Anne"}, ("PatientName",)),
        ({}, ("PatientID",)),
        ({"PatientID": "ZZ1", "PatientSex": "M"}, ()),
        ({"PatientID": "ZZ1", "PatientBirthDate": "19620715"}, ("PatientBirthDate",)),
        (
            {"PatientID": "ZZ1", "AccessionNumber": "A2", "StudyInstanceUID": "1"},
            ("AccessionNumber", "StudyInstanceUID"),
        ),
    ],
)
def test_what_disagrees(headers: dict[str, str], keywords: tuple[str, ...]) -> None:
    assert disagreements(headers, ITEM) == keywords


def test_a_route_that_waits_keeps_instances_back() -> None:
    waiting = Route(sources=("imaging",), to=("research",), after="study-complete")
    router = Router((waiting,), (SOURCE,), (ARCHIVE, RESEARCH))
    image = Incoming(
        source="imaging", kind=Kind.DICOM, received_at=START, size=0, digest=b"", headers={"StudyInstanceUID": STUDY}
    )

    assert router.owed(image).destinations == ()
    assert router.owed(replace(image, headers={})).destinations == ("research",)
    assert router.owed_when_complete(image).destinations == ("research",)


async def test_another_object_under_a_known_uid_is_alarmed_until_it_was_seen(house: House) -> None:
    house.receive(1)
    await house.after(1)
    assert house.alarms.standing() == []

    house.keep(Kind.DICOM, "1.2.1", {"StudyInstanceUID": STUDY}, STUDY, digest=b"another", object_name="e" * 64)
    await house.after(1)
    (alarm,) = house.alarms.standing()
    assert alarm.key == "uid-conflict:imaging"
    assert "messages 2 and 1" in alarm.text

    house.alarms.clear(alarm.key)  # as a new start of the agent does
    house.watch = house.watching()
    await house.after(1)
    assert [alarm.key for alarm in house.alarms.standing()] == ["uid-conflict:imaging"]

    house.store.call(lambda connection: forget_conflicts(connection, "imaging")).result(10)
    house.alarms.clear(alarm.key)
    house.watch = house.watching()
    await house.after(1)
    assert house.alarms.standing() == []


async def test_an_instance_of_no_study_waits_for_none(house: House) -> None:
    house.keep(Kind.DICOM, "1.2.1", {"Modality": "CT"}, "1.2.1", object_name=f"{1:064x}")
    await house.after(60)

    assert (house.owed("archive"), house.owed("research")) == ([1], [1])


async def test_what_the_watch_has_not_seen_yet_is_not_let_go(house: House) -> None:
    def let_go() -> int:
        work = house.store.call(lambda c: remove_piece(c, after=0, before_micros=1 << 60, quarantined=True))
        return work.result(10).removed

    house.router = Router(
        (Route(sources=("imaging",), to=("research",), after="study-complete", when='Modality == "CT"'),),
        (SOURCE,),
        (RESEARCH,),
    )
    house.receive(1)
    house.receive(2, Modality="SR")
    unseen = let_go()
    await house.after(1)
    growing = let_go()
    await house.after(60)

    assert (unseen, growing, let_go()) == (0, 0, 1)
    assert house.owed("research") == [1]
