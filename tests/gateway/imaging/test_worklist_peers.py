"""The worklist beside DCMTK's: the same items, the same queries by findscu, the same answers, or the reason why not."""

import asyncio
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gateway.clock import SystemClock
from gateway.config import DicomSource as Settings
from gateway.config import WorklistSettings
from gateway.errors import StoreError
from gateway.formats.identifiers import CHARACTER_SET, decode
from gateway.imaging.negotiation import Offer
from gateway.imaging.worklist import C_FIND_RQ, WORKLIST_SOP_CLASS, Worklist
from gateway.sources.dicom import DicomSource
from gateway.spool import Spool
from gateway.status import LinkState, SourceStatus
from gateway.store.store import Store
from gateway.store.worklist import put_upstream
from gateway.typed import Address
from tests.gateway.imaging.worklist_peers import AT_ONCE, ITEMS, item, save, wlmscpfs

EXPLICIT = "1.2.840.10008.1.2.1"
NOW = datetime(2026, 1, 15, 9, tzinfo=UTC)
STEP = "ScheduledProcedureStepSequence"
WAIT_S = 20.0


def top(charset: str = "", **keys: str) -> Dataset:
    return query({}, keys, charset)


def step(**keys: str) -> Dataset:
    return query(keys, {})


def both(step_keys: Mapping[str, str], **keys: str) -> Dataset:
    return query(step_keys, keys)


def query(step_keys: Mapping[str, str], keys: Mapping[str, str], charset: str = "") -> Dataset:
    """Return an identifier: the accession number and step id are always asked for."""
    found, inner = Dataset(), Dataset()
    if charset:
        found.SpecificCharacterSet = charset
    for name, value in {"AccessionNumber": "", **keys}.items():
        setattr(found, name, value.split("\\") if "\\" in value else value)
    for name, value in {"ScheduledProcedureStepID": "", **step_keys}.items():
        setattr(inner, name, value)
    found.ScheduledProcedureStepSequence = Sequence([inner])
    return found


def when(day: str, time: str | None = None) -> Dataset:
    keys = {"ScheduledProcedureStepStartDate": day}
    return step(**keys, **({} if time is None else {"ScheduledProcedureStepStartTime": time}))


RETURNED = dict.fromkeys(
    (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientWeight", "MedicalAlerts", "Allergies"),
        *("StudyInstanceUID", "RequestedProcedureID", "RequestedProcedureDescription", "RequestedProcedurePriority"),
        *("ReferringPhysicianName", "RequestingPhysician", "AdmissionID", "CurrentPatientLocation"),
    ),
    "",
)
RETURNED_STEP = dict.fromkeys(
    (
        *("Modality", "ScheduledStationAETitle", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"),
        *("ScheduledPerformingPhysicianName", "ScheduledProcedureStepDescription", "ScheduledStationName"),
        "ScheduledProcedureStepLocation",
    ),
    "",
)

EQUAL: dict[str, Dataset] = {
    # universal
    "everything": top(),
    "everything, all keys returned": both(RETURNED_STEP, **RETURNED),
    "a star for a name": top(PatientName="*"),
    "two stars for a name": top(PatientName="**"),
    "a star for a modality": step(Modality="*"),
    "a star for a station": step(ScheduledStationAETitle="*"),
    # single value
    "accession": top(AccessionNumber="A001"),
    "accession of nobody": top(AccessionNumber="A999"),
    "accession in small letters": top(AccessionNumber="a001"),
    "patient id": top(PatientID="MRN003"),
    "patient id in small letters": top(PatientID="mrn003"),
    "a part of a patient id": top(PatientID="MRN"),
    "name": top(PatientName="Doe^Jane"),
    "name with apostrophe": top(PatientName="O'Neil^Pat"),
    "name with hyphen": top(PatientName="Doe-Smith^Mary"),
    "name of nobody": top(PatientName="Nobody^Nora"),
    "a part of a name": top(PatientName="Doe"),
    "modality": step(Modality="CT"),
    "modality of nobody": step(Modality="PT"),
    "station": step(ScheduledStationAETitle="CT1"),
    "station with underscore": step(ScheduledStationAETitle="US_ROOM"),
    "station of nobody": step(ScheduledStationAETitle="CT9"),
    "performer": step(ScheduledPerformingPhysicianName="Smith^Ann"),
    "requested procedure id": top(RequestedProcedureID="RP004"),
    # wildcards
    "name begins": top(PatientName="Doe*"),
    "name begins, then comes the delimiter": top(PatientName="Doe^*"),
    "name ends": top(PatientName="*^Jane"),
    "name holds": top(PatientName="*oe*"),
    "one letter": top(PatientName="?oe^*"),
    "one letter and many": top(PatientName="?oe*J*"),
    "accession ends": top(AccessionNumber="*1"),
    "accession between": top(AccessionNumber="A?0*"),
    "performer begins": step(ScheduledPerformingPhysicianName="Smith*"),
    "id and a name that begins": top(PatientID="MRN002", PatientName="Doe^J*"),
    "requested procedure id ends": top(RequestedProcedureID="RP*"),
    "name with a letter in the middle": top(PatientName="R?e^R*d"),
    "name with many in the middle": top(PatientName="Doe*^M*"),
    "only question marks": top(PatientName="????????"),
    "wildcard that nobody fits": top(PatientName="X*"),
    # dates
    "day": when("20260115"),
    "day of nobody": when("20270115"),
    "days between": when("20260116-20260131"),
    "one day as a range": when("20260117-20260117"),
    "days from": when("20260131-"),
    "days until": when("-20260116"),
    "days nobody has": when("20250101-20251231"),
    # times
    "time": step(ScheduledProcedureStepStartTime="140000"),
    "times between": step(ScheduledProcedureStepStartTime="080000-115959"),
    "times from": step(ScheduledProcedureStepStartTime="120000-"),
    "times until": step(ScheduledProcedureStepStartTime="-093000"),
    "midnight": step(ScheduledProcedureStepStartTime="000000"),
    "times with a fraction": step(ScheduledProcedureStepStartTime="120000.4-120000.6"),
    # both as one period
    "period": when("20260115-20260117", "100000-060000"),
    "period within a day": when("20260115-20260115", "090000-180000"),
    "period over midnight": when("20260116-20260117", "235958-000001"),
    "period from": when("20260116-", "120000-"),
    "period until": when("-20260116", "-093000"),
    # a day and a time each by itself
    "day and time": when("20260115", "140000"),
    "day and times between": when("20260115", "070000-090000"),
    "days between and time": when("20260115-20260131", "140000"),
    # several keys
    "modality and day": both(
        {"Modality": "CT", "ScheduledProcedureStepStartDate": "20260115"}, PatientName="", PatientID=""
    ),
    "station and name": both({"ScheduledStationAETitle": "CT1"}, PatientName="Doe*", PatientSex=""),
    "station, modality and days": both(
        {"ScheduledStationAETitle": "MR1", "Modality": "MR", "ScheduledProcedureStepStartDate": "20260101-20260131"},
        StudyInstanceUID="",
    ),
    "name and a modality it has not": both({"Modality": "MR"}, PatientName="Doe*"),
    # letters
    "German name": top("ISO_IR 100", PatientName="Müller^Jörg"),
    "German name begins": top("ISO_IR 100", PatientName="Mü*"),
    "German performer": query({"ScheduledPerformingPhysicianName": "Weiß*"}, {}, "ISO_IR 100"),
    "Russian name": top("ISO_IR 144", PatientName="Иванов^Иван"),
    "Russian name begins": top("ISO_IR 144", PatientName="Иван*"),
    "Japanese name, all groups": top("ISO_IR 192", PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Japanese name begins, all groups": top("ISO_IR 192", PatientName="Yamada*=山田*=やまだ*"),
}

# What DCMTK answers otherwise: the query, what we answer, and why both are, or only ours is, what PS3.4 says.
_SINGLE = "C.2.2.2.4 has wildcards for AE, CS and LO; table K.6-1 asks an SCP only for single values here"
DIFFERENT: dict[str, tuple[Dataset, set[str], str]] = {
    "wildcard in a patient id": (top(PatientID="MRN*"), {"A001", "A002", "A003", "A004"}, _SINGLE),
    "unknown letters in a patient id": (top(PatientID="PAT-?"), {"A005", "A006", "A007"}, _SINGLE),
    "wildcard in a station": (step(ScheduledStationAETitle="CT*"), {"A001", "A002", "A003"}, _SINGLE),
    "unknown letter in a modality": (step(Modality="M?"), {"A004", "A005", "A010"}, _SINGLE),
    "a study": (
        top(StudyInstanceUID="1.2.826.0.1.3"),
        {"A003"},
        "table K.6-1: only a return key for an SCP that does not match it; DCMTK does not, we do (C.2.2.2.1)",
    ),
    "until a second": (
        step(ScheduledProcedureStepStartTime="080000-120000"),
        {"A001", "A003", "A006", "A007", "A008", "A009", "A010", "A011"},
        "PS3.5, 6.2: a time without a fraction is not precise to fractions: 12:00:00.5 lies in it",
    ),
    "case of a name": (top(PatientName="doe*"), {"A001", "A002", "A009"}, "C.2.2.2.4: wildcards of PN ignore case"),
    "case of a whole name": (top(PatientName="DOE^JANE"), {"A001"}, "C.2.2.2.1: a name may be matched without case"),
    "trailing delimiters": (top(PatientName="Doe^Jane^^^"), {"A001"}, "PS3.5, 6.2.1: empty components may be left out"),
    "one group of a name": (
        top("ISO_IR 192", PatientName="山田*"),
        {"A011"},
        "C.2.2.2.4, note 3: groups may be matched one by one",
    ),
    "another character set": (
        top("ISO_IR 192", PatientName="Müller*"),
        {"A010"},
        "C.2.2.2: (0008,0005) says how keys are encoded; letters are matched, not bytes",
    ),
    "a minute": (
        step(ScheduledProcedureStepStartTime="1200"),
        {"A006", "A007", "A011"},
        "PS3.5, 6.2: a time without seconds is not precise to seconds: 12:00:00.5 lies in it",
    ),
    "until a minute": (
        step(ScheduledProcedureStepStartTime="1000-2359"),
        {"A002", "A004", "A006", "A007", "A008", "A009", "A010", "A011", "A012"},
        "PS3.5, 6.2: the range's end is the whole minute 23:59",
    ),
    "list of UID": (
        top(StudyInstanceUID="1.2.826.0.1.1\\1.2.826.0.1.4"),
        {"A001", "A004"},
        "C.2.2.2.2: each UID of a list matches",
    ),
}


def plain(dataset: Dataset) -> dict[str, Any]:
    """Return a data set as keywords and texts; the character set is each server's own choice."""
    found: dict[str, Any] = {}
    for element in dataset:
        if element.VR == "SQ":
            found[element.keyword] = [plain(one) for one in element.value]
        elif element.tag != CHARACTER_SET:
            found[element.keyword] = str(element.value) if element.value is not None else ""
    return found


def asked(port: int, called: str, files: list[Path], folder: Path) -> list[list[dict[str, Any]]]:
    """Run every query by one findscu on one association; return the answers to each, by accession number."""
    folder.mkdir()
    command = [
        "findscu",
        "-v",
        "-W",
        "-aec",
        called,
        "-X",
        "-od",
        str(folder),
        "127.0.0.1",
        str(port),
        *map(str, files),
    ]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False, env=AT_ONCE)
    told = (ended.stdout + ended.stderr).decode("latin-1")
    parts = told.split("Sending Find Request")[1:]
    assert len(parts) == len(files), told[-2000:]
    answers = []
    for part in parts:
        assert "Received Final Find Response (Success)" in part, part
        names = re.findall(r"Writing response dataset to file: (\S+)", part)
        found = [plain(dcmread(folder / Path(name).name)) for name in names]
        answers.append(sorted(found, key=lambda one: one["AccessionNumber"]))
    return answers


class Nothing:
    refusing: str | None = None

    def accept_blocking(self, incoming: Any, sync: Any = None) -> Any:
        raise StoreError("not expected here")


async def ours(folder: Path, files: list[Path]) -> list[list[dict[str, Any]]]:
    """Answer the queries by the gateway's own listener."""
    clock = SystemClock()
    store = Store(folder, clock, failed=lambda error: None)
    spool = Spool(folder / "spool")
    spool.open()
    items = []
    for row in ITEMS:
        path = folder / "item.dcm"
        save(item(row), path)
        raw = path.read_bytes()
        attributes = decode(raw[dataset_at(path) :], EXPLICIT)
        attributes.pop(CHARACTER_SET, None)
        items.append(attributes)
    store.call(lambda connection: put_upstream(connection, "ris", items, NOW)).result(10)
    service = Worklist(store, clock, WorklistSettings)
    status = SourceStatus("imaging", "dicom")
    settings = Settings(name="imaging", listen=Address("127.0.0.1", 0), services=("worklist",))
    offer = Offer(services={(C_FIND_RQ, WORKLIST_SOP_CLASS): service})
    source = DicomSource(settings, Nothing(), spool, clock, status, offer=offer)  # type: ignore[arg-type]
    task = asyncio.create_task(source.run())
    try:
        async with asyncio.timeout(WAIT_S):
            while status.state is not LinkState.UP:  # noqa: ASYNC110  # the status has no event
                await asyncio.sleep(0.001)
        return await asyncio.to_thread(asked, source.port, "GATEWAY", files, folder / "ours")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        spool.close()
        store.close()


def dataset_at(path: Path) -> int:
    return 128 + 4 + 12 + int(dcmread(path, specific_tags=[]).file_meta.FileMetaInformationGroupLength)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Ours and DCMTK's answers to every query, by its name."""
    folder = tmp_path_factory.mktemp("worklist")
    queries = EQUAL | {name: row[0] for name, row in DIFFERENT.items()}
    files = []
    for number, dataset in enumerate(queries.values()):
        files.append(folder / f"q{number:03}.dcm")
        save(dataset, files[-1])
    with wlmscpfs(folder) as port:
        theirs = asked(port, "WL", files, folder / "theirs")
    mine = asyncio.run(ours(folder, files))
    return dict(zip(queries, zip(mine, theirs, strict=True), strict=True))


def test_there_are_at_least_sixty_queries() -> None:
    assert len(EQUAL) >= 60


@pytest.mark.parametrize("name", EQUAL)
def test_findscu_gets_the_same_answer_as_from_dcmtk(name: str, answers: Any) -> None:
    mine, theirs = answers[name]

    assert mine == theirs


@pytest.mark.parametrize("name", DIFFERENT)
def test_where_dcmtk_answers_otherwise_ours_is_what_the_standard_says(name: str, answers: Any) -> None:
    mine, theirs = answers[name]
    _, expected, reason = DIFFERENT[name]

    assert {one["AccessionNumber"] for one in mine} == expected, reason
    assert mine != theirs, f"DCMTK agrees now: {name} belongs to the equal ones"


def test_queries_of_all_kinds_have_answers_and_leave_items_out(answers: Any) -> None:
    counts = [len(mine) for mine, _ in (answers[name] for name in EQUAL)]

    assert max(counts) == len(ITEMS) and min(counts) == 0
    assert sum(0 < count < len(ITEMS) for count in counts) >= 45
