"""What the box holds is found and sent: C-FIND, C-MOVE and C-GET as services, over a real store and real files."""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from gateway.errors import ContentError, LinkError
from gateway.formats.identifiers import decode, name_of
from gateway.imaging import holdings
from gateway.imaging.finding import ANSWERS_MAX, Finding
from gateway.imaging.holdings import Holdings
from gateway.imaging.query import C_FIND_RQ, C_GET_RQ, C_MOVE_RQ, Root, read_asked
from gateway.imaging.retrieving import Getting, Moving, Outlet, Retrieving
from gateway.imaging.service import Held, Outcome, Request, Suboperations
from gateway.model import Kind
from gateway.spool import Spool
from gateway.store import holdings as store_holdings
from gateway.store.retention import remove_piece
from gateway.store.store import Store
from gateway.store.studies import follow
from tests.gateway.imaging.exchanges import EXPLICIT, request
from tests.gateway.imaging.objects import CT_CLASS, ct, written
from tests.gateway.store.stores import incoming, keep, open_store


class Talk:
    """An exchange that notes what is said, and can be cancelled, gone or picky."""

    def __init__(self, *, takes: Sequence[str] = (EXPLICIT,), cancel_after: int | None = None) -> None:
        self.said: list[tuple[int, bytes, Suboperations | None]] = []
        self.stored: list[Held] = []
        self.statuses: dict[str, int] = {}
        self._takes = tuple(takes)
        self._cancel_after = cancel_after

    @property
    def cancelled(self) -> bool:
        return self._cancel_after is not None and len(self.said) >= self._cancel_after

    async def pending(
        self, data: bytes = b"", *, status: int = 0xFF00, suboperations: Suboperations | None = None
    ) -> None:
        self.said.append((status, data, suboperations))

    def takes(self, sop_class_uid: str) -> tuple[str, ...]:
        return self._takes if sop_class_uid == CT_CLASS else ()

    async def store(self, held: Held) -> int:
        self.stored.append(held)
        return self.statuses.get(held.sop_instance_uid, 0)

    @property
    def answers(self) -> list[dict[str, str]]:
        found = []
        for _, data, _ in self.said:
            read = decode(data, EXPLICIT)
            found.append({name_of(tag): "\\".join(element.values) for tag, element in read.items()})
        return found


class Box:
    """A store and a Spool that hold three studies of two patients."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = open_store(folder)
        self.spool = Spool(folder / "spool")
        self.spool.open()
        self.holdings = Holdings(self.store, self.spool)
        self.finding = Finding(self.store, self.holdings)
        self.retrieving = Retrieving(self.store, self.holdings, self.spool)
        self._number = 0

    def hold(self, **values: object) -> int:
        """Keep an image; the name in the Spool is its number."""
        self._number += 1
        values.setdefault("SOPInstanceUID", f"1.2.3.4.{self._number}")
        name = f"{self._number:064x}"
        written(ct(**values), self.spool.objects / name)
        digest = hashlib.sha256(name.encode()).digest()
        item = incoming(
            b"", str(values["SOPInstanceUID"]), kind=Kind.DICOM, source="imaging", object_name=name, digest=digest
        )
        return keep(self.store, item).message_id

    async def find(self, root: Root = Root.STUDY, talk: Talk | None = None, **keys: object) -> tuple[Outcome, Talk]:
        talk = talk or Talk()
        outcome = await self.finding(asking(C_FIND_RQ, root.find, **keys), talk)
        return outcome, talk


def asking(field: int, sop_class: str, *, extended: bytes = b"", destination: str = "", **keys: object) -> Request:
    dataset = Dataset()
    for keyword, value in keys.items():
        setattr(dataset, keyword, value)
    return request(field, sop_class, "", dataset, sop_class_extended=extended, move_destination=destination)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    for number, (patient, study, date, series, modality) in enumerate(
        [
            ("P1", "1.5.1", "20260101", "1.5.1.1", "CT"),
            ("P1", "1.5.1", "20260101", "1.5.1.1", "CT"),
            ("P1", "1.5.1", "20260101", "1.5.1.2", "SR"),
            ("P1", "1.5.2", "20260105", "1.5.2.1", "CT"),
            ("P2", "1.5.3", "20260110", "1.5.3.1", "MR"),
        ],
        1,
    ):
        box.hold(
            PatientID=patient,
            PatientName=f"ZZTEST^{patient}",
            StudyInstanceUID=study,
            StudyDate=date,
            SeriesInstanceUID=series,
            Modality=modality,
            InstanceNumber=number,
        )
    yield box
    box.store.close()


async def test_an_index_without_images_costs_no_transaction_and_goes_on_where_it_was(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "LOOK_MAX", 20)
    monkeypatch.setattr(store_holdings, "LOOK_MAX", 20)
    monkeypatch.setattr(store_holdings, "PIECE_MAX", 2)
    await box.holdings.catch_up()
    before = box.store.writer.commits
    for number in range(15):
        keep(box.store, incoming(b"MSH|%d" % number, f"{number}"))
    kept = box.store.writer.commits

    await box.holdings.catch_up()

    assert before < kept == box.store.writer.commits
    box.hold(PatientID="P3", PatientName="ZZTEST^P3", StudyInstanceUID="1.5.4", SeriesInstanceUID="1.5.4.1")
    again = Holdings(box.store, box.spool)
    await again.catch_up()
    assert box.store.writer.commits == kept + 2  # its row, and the index's
    await box.holdings.catch_up()
    assert box.store.writer.commits == kept + 2
    _, talk = await box.find(QueryRetrieveLevel="STUDY", PatientID="", StudyInstanceUID="")
    assert sorted(found["StudyInstanceUID"] for found in talk.answers) == ["1.5.1", "1.5.2", "1.5.3", "1.5.4"]


async def test_studies_are_found_with_what_is_counted_in_them(box: Box) -> None:
    outcome, talk = await box.find(
        QueryRetrieveLevel="STUDY",
        PatientID="P1",
        StudyInstanceUID="",
        ModalitiesInStudy="",
        NumberOfStudyRelatedInstances="",
        NumberOfStudyRelatedSeries="",
    )

    assert outcome.status == 0
    assert [
        (found["StudyInstanceUID"], found["ModalitiesInStudy"], found["NumberOfStudyRelatedInstances"])
        for found in talk.answers
    ] == [("1.5.1", "CT\\SR", "3"), ("1.5.2", "CT", "1")]
    assert {found["QueryRetrieveLevel"] for found in talk.answers} == {"STUDY"}


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"StudyDate": "20260102-20260110"}, {"1.5.2", "1.5.3"}),
        ({"StudyDate": "-20260104"}, {"1.5.1"}),
        ({"PatientName": "zztest^p2"}, {"1.5.3"}),
        ({"PatientID": "P?"}, {"1.5.1", "1.5.2", "1.5.3"}),
        ({"ModalitiesInStudy": "MR"}, {"1.5.3"}),
        ({"StudyInstanceUID": ["1.5.1", "1.5.3"]}, {"1.5.1", "1.5.3"}),
        ({"AccessionNumber": "nothing"}, set()),
        ({}, {"1.5.1", "1.5.2", "1.5.3"}),
    ],
)
async def test_studies_are_matched_by_their_keys(box: Box, keys: dict[str, object], found: set[str]) -> None:
    _, talk = await box.find(**({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""} | keys))

    assert {answer["StudyInstanceUID"] for answer in talk.answers} == found


async def test_each_level_is_answered_below_its_unique_keys(box: Box) -> None:
    _, patients = await box.find(
        Root.PATIENT, QueryRetrieveLevel="PATIENT", PatientID="", NumberOfPatientRelatedStudies=""
    )
    _, series = await box.find(
        QueryRetrieveLevel="SERIES", StudyInstanceUID="1.5.1", SeriesInstanceUID="", NumberOfSeriesRelatedInstances=""
    )
    _, images = await box.find(
        QueryRetrieveLevel="IMAGE", StudyInstanceUID="1.5.1", SeriesInstanceUID="1.5.1.1", SOPInstanceUID=""
    )

    assert [(one["PatientID"], one["NumberOfPatientRelatedStudies"]) for one in patients.answers] == [
        ("P1", "2"),
        ("P2", "1"),
    ]
    assert [(one["SeriesInstanceUID"], one["NumberOfSeriesRelatedInstances"]) for one in series.answers] == [
        ("1.5.1.1", "2"),
        ("1.5.1.2", "1"),
    ]
    assert [one["SOPInstanceUID"] for one in images.answers] == ["1.2.3.4.1", "1.2.3.4.2"]


@pytest.mark.parametrize(
    ("root", "keys"),
    [
        (Root.STUDY, {}),
        (Root.STUDY, {"QueryRetrieveLevel": "PATIENT"}),
        (Root.STUDY, {"QueryRetrieveLevel": "SERIES"}),
        (Root.PATIENT, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.5.1"}),
        (Root.STUDY, {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": ["1.5.1", "1.5.2"]}),
        (Root.STUDY, {"QueryRetrieveLevel": "STUDY", "StudyDate": "yesterday"}),
    ],
)
async def test_an_identifier_that_breaks_the_model_is_refused(box: Box, root: Root, keys: dict[str, object]) -> None:
    outcome, talk = await box.find(root, **keys)

    assert (outcome.status, talk.said) == (0xA900, [])
    assert outcome.comment


async def test_relational_queries_need_no_keys_above(box: Box) -> None:
    talk = Talk()
    keys = {"QueryRetrieveLevel": "IMAGE", "PatientID": "P2", "SOPInstanceUID": ""}

    outcome = await box.finding(asking(C_FIND_RQ, Root.STUDY.find, extended=b"\1", **keys), talk)

    assert outcome.status == 0
    assert [one["SOPInstanceUID"] for one in talk.answers] == ["1.2.3.4.5"]


async def test_a_cancelled_query_ends(box: Box) -> None:
    outcome, talk = await box.find(talk=Talk(cancel_after=1), QueryRetrieveLevel="STUDY", StudyInstanceUID="")

    assert (outcome.status, len(talk.said)) == (0xFE00, 1)


async def test_too_many_answers_are_told(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ANSWERS_MAX > 2
    monkeypatch.setattr("gateway.imaging.finding.ANSWERS_MAX", 2)

    outcome, talk = await box.find(QueryRetrieveLevel="STUDY", StudyInstanceUID="")

    assert (outcome.status, len(talk.said)) == (0xA700, 2)


async def test_of_two_contents_under_one_uid_the_newer_is_found_once(box: Box) -> None:
    newer = box.hold(
        PatientID="P2", StudyInstanceUID="1.5.3", SeriesInstanceUID="1.5.3.1", SOPInstanceUID="1.2.3.4.5", Modality="MR"
    )

    _, talk = await box.find(
        QueryRetrieveLevel="IMAGE", StudyInstanceUID="1.5.3", SeriesInstanceUID="1.5.3.1", SOPInstanceUID=""
    )
    named = await box.retrieving.named(
        asking(C_GET_RQ, Root.STUDY.get, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.5.3")
    )

    assert [one["SOPInstanceUID"] for one in talk.answers] == ["1.2.3.4.5"]
    assert [each.path.name for each in named.held] == [f"{newer:064x}"]


async def test_what_retention_removed_is_not_found(box: Box) -> None:
    await box.find(QueryRetrieveLevel="STUDY", StudyInstanceUID="")

    box.store.call(lambda c: follow(c, 5, [], {})).result(10)
    box.store.call(lambda c: remove_piece(c, after=0, before_micros=1 << 60, quarantined=True)).result(10)
    _, talk = await box.find(QueryRetrieveLevel="STUDY", StudyInstanceUID="")

    left = box.store.readers.connection.execute(
        "SELECT (SELECT count(*) FROM held_study) + (SELECT count(*) FROM held_series)"
    ).get
    assert (talk.said, left) == ([], 0)


async def test_a_study_is_got_on_the_same_association(box: Box) -> None:
    talk = Talk()
    talk.statuses["1.2.3.4.2"] = 0xB000

    asked = asking(C_GET_RQ, Root.STUDY.get, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.5.1")
    outcome = await Getting(box.retrieving)(asked, talk)

    assert [held.sop_instance_uid for held in talk.stored] == ["1.2.3.4.1", "1.2.3.4.2", "1.2.3.4.3"]
    assert (outcome.status, outcome.suboperations) == (0xB000, Suboperations(completed=2, warning=1))
    assert [said[2].remaining for said in talk.said if said[2]] == [2, 1]


async def test_what_the_peer_does_not_take_is_told_by_uid(box: Box) -> None:
    talk = Talk(takes=("1.2.840.10008.1.2.4.50",))

    asked = asking(C_GET_RQ, Root.STUDY.get, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.5.2")
    outcome = await Getting(box.retrieving)(asked, talk)

    assert outcome.status == 0xA702
    assert decode(outcome.data, EXPLICIT)[0x00080058].values == ("1.2.3.4.4",)


class Peer:
    """A move destination."""

    def __init__(self, fails: bool = False) -> None:
        self.got: list[Held] = []
        self.fails = fails

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Outlet]:
        if self.fails:
            raise LinkError("refused")
        yield self

    async def send(self, held: Held) -> int:
        self.got.append(held)
        return 0


async def test_a_series_is_moved_to_a_peer_that_is_named(box: Box) -> None:
    peer = Peer()
    moving = Moving(box.retrieving, lambda title, held, asked: peer.open() if title == "WS1" else None)
    keys = {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.5.1", "SeriesInstanceUID": "1.5.1.1"}

    moved = await moving(asking(C_MOVE_RQ, Root.STUDY.move, destination="WS1", **keys), Talk())
    unknown = await moving(asking(C_MOVE_RQ, Root.STUDY.move, destination="WS2", **keys), Talk())

    assert (moved.status, moved.suboperations) == (0, Suboperations(completed=2))
    assert [held.sop_instance_uid for held in peer.got] == ["1.2.3.4.1", "1.2.3.4.2"]
    assert unknown.status == 0xA801


async def test_a_peer_that_cannot_be_called_fails_all(box: Box) -> None:
    peer = Peer(fails=True)
    asked = asking(C_MOVE_RQ, Root.STUDY.move, destination="WS1", QueryRetrieveLevel="STUDY", StudyInstanceUID="1.5.1")

    outcome = await Moving(box.retrieving, lambda *_: peer.open())(asked, Talk())

    assert (outcome.status, outcome.suboperations) == (0xA702, Suboperations(failed=3))


async def test_a_retrieval_without_a_unique_key_is_refused(box: Box) -> None:
    asked = asking(C_GET_RQ, Root.STUDY.get, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.5.*")

    assert (await Getting(box.retrieving)(asked, Talk())).status == 0xA900


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200), syntax=st.sampled_from([EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"]))
def test_arbitrary_bytes_are_an_identifier_or_are_refused(data: bytes, syntax: str) -> None:
    try:
        read_asked(decode(data, syntax), Root.STUDY)
    except ContentError as error:
        assert str(error)


class Breaking(Peer):
    """A move destination that is gone after the first Instance."""

    async def send(self, held: Held) -> int:
        if self.got:
            raise LinkError("the peer closed the connection")
        return await super().send(held)


async def test_a_move_destination_that_breaks_off_keeps_what_it_took(box: Box) -> None:
    asked = asking(C_MOVE_RQ, Root.STUDY.move, destination="WS1", QueryRetrieveLevel="STUDY", StudyInstanceUID="1.5.1")

    outcome = await Moving(box.retrieving, lambda *_: Breaking().open())(asked, Talk())

    assert (outcome.status, outcome.suboperations) == (0xB000, Suboperations(completed=1, failed=2))
    assert decode(outcome.data, EXPLICIT)[0x00080058].values == ("1.2.3.4.2", "1.2.3.4.3")


async def test_what_cannot_be_read_is_told_as_failed(box: Box) -> None:
    await box.holdings.catch_up()
    (box.spool.objects / f"{2:064x}").unlink()
    talk = Talk()

    asked = asking(C_GET_RQ, Root.STUDY.get, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.5.1")
    outcome = await Getting(box.retrieving)(asked, talk)

    assert (outcome.status, outcome.suboperations) == (0xB000, Suboperations(completed=2, failed=1))
    assert decode(outcome.data, EXPLICIT)[0x00080058].values == ("1.2.3.4.2",)


async def test_what_could_not_be_read_for_the_index_is_found_by_what_was_known_when_it_came(box: Box) -> None:
    name = f"{9:064x}"  # no such file
    headers = {"PatientID": "P9", "StudyInstanceUID": "1.5.9", "SOPInstanceUID": "1.2.3.4.9", "SOPClassUID": CT_CLASS}
    keep(box.store, incoming(b"", "1.2.3.4.9", kind=Kind.DICOM, object_name=name, headers=headers, digest=b"9"))

    _, talk = await box.find(QueryRetrieveLevel="STUDY", PatientID="P9", StudyInstanceUID="")
    asked = asking(C_GET_RQ, Root.STUDY.get, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.5.9")
    outcome = await Getting(box.retrieving)(asked, Talk())

    assert [found["StudyInstanceUID"] for found in talk.answers] == ["1.5.9"]
    assert (outcome.status, outcome.suboperations) == (0xA702, Suboperations(failed=1))


async def test_more_than_one_retrieval_can_bring_is_refused_not_cut(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.imaging.retrieving.INSTANCES_MAX", 2)
    talk = Talk()

    asked = asking(C_GET_RQ, Root.STUDY.get, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.5.1")
    outcome = await Getting(box.retrieving)(asked, talk)

    assert (outcome.status, talk.stored) == (0xA701, [])
