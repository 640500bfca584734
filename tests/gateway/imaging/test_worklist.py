"""The Modality Worklist service: answers, limits, cancels, views, character sets, and the queries that are kept."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.config import WorklistSettings, WorklistView
from gateway.dataset import Attributes, Element, text_at, values_at
from gateway.formats.dicom import DEFLATED
from gateway.formats.identifiers import CHARACTER_SET, decode, encode, tag_of, vr_of
from gateway.imaging.service import Caller, Held, Outcome, Request, Suboperations
from gateway.imaging.worklist import C_FIND_RQ, WORKLIST_SOP_CLASS, Worklist
from gateway.store.store import Store
from gateway.store.worklist import put_upstream
from gateway.store.worklist_reading import read_queries

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)
SEQUENCE = tag_of("ScheduledProcedureStepSequence")
ACCESSION = tag_of("AccessionNumber")
BROKEN = b"\x40\0\x00\x01SQ\0\0\xff\xff\xff\xff\x01\x02\x03\x04\x05\x06\x07\x08"  # no item where one is due


def data(step: dict[str, str] | None = None, charset: str = "", **keys: str) -> dict[int, Element]:
    def made(values: dict[str, str]) -> dict[int, Element]:
        tags = ((tag_of(name), value) for name, value in values.items())
        return {tag: Element(vr_of(tag), (value,) if value else ()) for tag, value in tags}

    found = made(keys)
    if charset:
        found[CHARACTER_SET] = Element("CS", tuple(charset.split("\\")))
    if step is not None:
        found[SEQUENCE] = Element("SQ", items=(made(step),))
    return found


def scheduled(accession: str, name: str = "Doe^Jane", station: str = "CT1", day: str = "20260115") -> Attributes:
    step = {
        "Modality": "CT" if station.startswith("CT") or not station else "MR",
        "ScheduledStationAETitle": station,
        "ScheduledProcedureStepStartDate": day,
        "ScheduledProcedureStepStartTime": "120000",
        "ScheduledProcedureStepID": f"S-{accession}",
    }
    return data(step, AccessionNumber=accession, PatientName=name, PatientID=f"P-{accession}")


class Exchange:
    """An association in which answers are heard; the peer cancels after so many."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.heard: list[tuple[int, bytes]] = []
        self._cancel_after = cancel_after

    @property
    def cancelled(self) -> bool:
        return self._cancel_after is not None and len(self.heard) >= self._cancel_after

    async def pending(
        self, data: bytes = b"", *, status: int = 0xFF00, suboperations: Suboperations | None = None
    ) -> None:
        self.heard.append((status, data))

    def takes(self, sop_class_uid: str) -> tuple[str, ...]:
        raise AssertionError

    async def store(self, held: Held) -> int:
        raise AssertionError


class Hospital:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.settings = WorklistSettings(timezone="UTC")
        self.service = Worklist(store, ManualClock(NOW), lambda: self.settings)
        self.exchange = Exchange()
        self.outcome = Outcome(status=-1)

    def schedule(self, *items: Attributes) -> None:
        self.store.call(lambda connection: put_upstream(connection, "ris", items, NOW)).result(10)

    async def ask(
        self,
        identifier: Attributes | bytes,
        *,
        title: str = "CT1",
        syntax: str = EXPLICIT,
        sets: tuple[str, ...] = (),
        cancel_after: int | None = None,
    ) -> list[dict[int, Element]]:
        caller = Caller(calling_ae_title=title, called_ae_title="GATEWAY", host="10.0.0.7", source="imaging")
        raw = identifier if isinstance(identifier, bytes) else encode(identifier, syntax, sets)
        request = Request(
            caller=caller,
            field=C_FIND_RQ,
            message_id=1,
            sop_class_uid=WORKLIST_SOP_CLASS,
            transfer_syntax=syntax,
            received_at=NOW,
            data=raw,
        )
        self.exchange = Exchange(cancel_after)
        self.outcome = await self.service(request, self.exchange)
        self.store.call(lambda connection: None).result(10)
        return [decode(answer, syntax) for _, answer in self.exchange.heard]

    async def accessions(self, identifier: Attributes, title: str = "CT1") -> list[str]:
        return [text_at(answer, ACCESSION) for answer in await self.ask(identifier, title=title)]


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    store = Store(tmp_path, ManualClock(NOW), failed=lambda error: None)
    yield Hospital(store)
    store.close()


ALL = data({"ScheduledProcedureStepID": ""}, AccessionNumber="")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
async def test_a_query_is_answered_with_what_it_asked_for(hospital: Hospital, syntax: str) -> None:
    hospital.schedule(scheduled("A1"), scheduled("A2", "Roe^Richard"))
    wanted = data({"ScheduledProcedureStepStatus": ""}, PatientName="ROE*", AccessionNumber="", PatientSex="")

    answers = await hospital.ask(wanted, syntax=syntax)

    expected = {"ScheduledProcedureStepStatus": "SCHEDULED"}
    assert answers == [data(expected, PatientName="Roe^Richard", AccessionNumber="A2", PatientSex="")]
    assert hospital.outcome == Outcome(status=0x0000) and hospital.exchange.heard[0][0] == 0xFF00


async def test_a_key_that_nobody_knows_is_told_by_the_status(hospital: Hospital) -> None:
    hospital.schedule(scheduled("A1"))

    (answer,) = await hospital.ask(data(AccessionNumber="", ContentLabel="X"))

    assert hospital.exchange.heard[0][0] == 0xFF01
    assert answer == data(AccessionNumber="A1")


async def test_steps_come_in_the_order_of_their_start(hospital: Hospital) -> None:
    hospital.schedule(scheduled("A3", day="20260117"), scheduled("A1", day="20260115"), scheduled("A2", day="20260116"))

    assert await hospital.accessions(ALL) == ["A1", "A2", "A3"]


async def test_a_cancel_ends_the_answers(hospital: Hospital) -> None:
    hospital.schedule(*(scheduled(f"A{number}") for number in range(9)))

    answers = await hospital.ask(ALL, cancel_after=3)

    assert len(answers) == 3 and hospital.outcome.status == 0xFE00


@pytest.mark.parametrize(("over_limit", "status"), [("refuse", 0xA700), ("success", 0x0000)])
async def test_more_than_the_limit_is_told(
    hospital: Hospital, over_limit: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    hospital.schedule(*(scheduled(f"A{number}") for number in range(9)))
    hospital.settings = replace(hospital.settings, answers_max=5, over_limit=over_limit)  # type: ignore[arg-type]

    answers = await hospital.ask(ALL)

    assert len(answers) == 5 and hospital.outcome.status == status
    assert "worklist.cut" in caplog.text


async def test_exactly_the_limit_is_no_more_than_it(hospital: Hospital) -> None:
    hospital.schedule(*(scheduled(f"A{number}") for number in range(5)))
    hospital.settings = replace(hospital.settings, answers_max=5)

    assert len(await hospital.ask(ALL)) == 5 and hospital.outcome.status == 0x0000


@pytest.mark.parametrize(
    ("raw", "syntax", "status"),
    [
        (BROKEN, EXPLICIT, 0xC000),
        (b"", DEFLATED, 0xC000),
        (encode(data({"ScheduledProcedureStepStartDate": "today"}), EXPLICIT), EXPLICIT, 0xA900),
    ],
)
async def test_what_is_no_query_is_refused_without_its_values(
    hospital: Hospital, raw: bytes, syntax: str, status: int
) -> None:
    await hospital.ask(raw, syntax=syntax)

    assert hospital.outcome.status == status and "today" not in hospital.outcome.comment
    assert len(hospital.outcome.comment) <= 64


async def test_a_view_shows_a_modality_only_its_own(hospital: Hospital) -> None:
    hospital.schedule(
        scheduled("MINE"),
        scheduled("OTHER", station="CT2"),
        scheduled("MR", station="MR1"),
        scheduled("LATER", day="20260116"),
        scheduled("EARLIER", day="20260114"),
        scheduled("NOBODY", station=""),
    )
    view = WorklistView(ae_title="CT*", own_station=True, modalities=("CT",), days_before=0, days_after=0)
    hospital.settings = replace(hospital.settings, views=(view,))

    assert sorted(await hospital.accessions(ALL)) == ["MINE", "NOBODY"]
    assert len(await hospital.accessions(ALL, "MR1")) == 6
    (kept,) = read_queries(hospital.store.readers.connection, 1, "CT1")
    assert kept.excluded == {
        "OTHER/S-OTHER": ("view: station",),
        "MR/S-MR": ("view: station", "view: modality"),
        "LATER/S-LATER": ("view: day",),
        "EARLIER/S-EARLIER": ("view: day",),
    }


async def test_a_step_without_a_station_is_offered_to_the_one_that_asks(hospital: Hospital) -> None:
    hospital.schedule(scheduled("A1", station=""))
    wanted = data({"ScheduledStationAETitle": "CT7"}, AccessionNumber="")

    (answer,) = await hospital.ask(wanted)
    assert values_at(answer, SEQUENCE, tag_of("ScheduledStationAETitle")) == ("CT7",)

    hospital.settings = replace(hospital.settings, offer_unassigned=False)
    assert await hospital.ask(wanted) == []


async def test_every_query_is_kept_with_what_left_each_step_out(hospital: Hospital) -> None:
    hospital.schedule(scheduled("A1"), scheduled("A2", "Roe^Richard", station="MR1"))

    await hospital.ask(data({"Modality": "MR"}, PatientName="Doe*"))

    (kept,) = read_queries(hospital.store.readers.connection, 10)
    assert (kept.calling, kept.host, kept.looked_at, kept.answered, kept.status) == ("CT1", "10.0.0.7", 2, 0, 0)
    assert kept.excluded == {
        "A1/S-A1": ("ScheduledProcedureStepSequence.Modality",),
        "A2/S-A2": ("PatientName",),
    }
    assert text_at(kept.keys, tag_of("PatientName")) == "Doe*"


@pytest.mark.parametrize(
    ("name", "asked_in", "view_sets", "answered_in"),
    [
        ("Doe^Jane", "ISO_IR 192", (), ()),
        ("Müller^Jörg", "", (), ("ISO_IR 100",)),
        ("Müller^Jörg", "ISO_IR 192", (), ("ISO_IR 192",)),
        ("Иванов^Иван", "ISO_IR 100", (), ("ISO_IR 144",)),
        ("山田^太郎", "ISO_IR 100", (), ("ISO_IR 192",)),
        ("山田^太郎", "\\ISO 2022 IR 87", (), ("", "ISO 2022 IR 87")),
        ("山田^太郎", "", ("\\ISO 2022 IR 87",), ("", "ISO 2022 IR 87")),
        ("王^小东", "GB18030", (), ("GB18030",)),
        ("Müller^Jörg", "", ("ISO_IR 192",), ("ISO_IR 192",)),
    ],
)
async def test_an_answer_is_in_the_character_set_that_its_letters_need(
    hospital: Hospital, name: str, asked_in: str, view_sets: tuple[str, ...], answered_in: tuple[str, ...]
) -> None:
    hospital.schedule(scheduled("A1", name))
    view = WorklistView(ae_title="*", character_sets=view_sets)
    hospital.settings = replace(hospital.settings, views=(view,))
    sets = tuple(asked_in.split("\\")) if asked_in else ()

    (answer,) = await hospital.ask(data(AccessionNumber="A*", PatientName=""), sets=sets)

    assert text_at(answer, tag_of("PatientName")) == name
    declared = answer.get(CHARACTER_SET)
    assert (declared.values if declared is not None else ()) == answered_in


async def test_a_query_in_letters_that_it_does_not_declare_is_read_as_the_view_assumes(hospital: Hospital) -> None:
    hospital.schedule(scheduled("A1", "Иванов"))
    hospital.settings = replace(
        hospital.settings, views=(WorklistView(ae_title="*", assumed_character_sets=("ISO_IR 144",)),)
    )
    raw = b"\x10\0\x10\0PN\x04\0" + "Ива".encode("iso8859_5") + b"*"

    assert len(await hospital.ask(raw)) == 1


async def test_a_change_is_seen_by_the_next_query(hospital: Hospital) -> None:
    hospital.schedule(scheduled("A1"))
    await hospital.ask(ALL)
    hospital.schedule(scheduled("A1", "Renamed^Rita"), scheduled("A2"))

    answers = await hospital.ask(data(PatientName="", AccessionNumber=""))

    assert {text_at(answer, tag_of("PatientName")) for answer in answers} == {"Renamed^Rita", "Doe^Jane"}
