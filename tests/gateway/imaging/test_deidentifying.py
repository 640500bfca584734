from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gateway.errors import ContentError
from gateway.imaging.body import open_body
from gateway.imaging.burned import burned_reason, unburned_classes
from gateway.imaging.cleaning import cleaned, vocabulary, words_of
from gateway.imaging.deidentifying import Deidentifier
from gateway.imaging.profile import OPTIONS, Action, profile_of, rows
from gateway.imaging.pseudonyms import Pseudonyms
from tests.gateway.imaging.objects import TEST_FILES, ct, written

US_CLASS, SC_CLASS = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7"


def clean(dataset: Dataset, folder: Path, *options: str, safe: tuple[str, ...] = ()) -> Dataset:
    path = written(dataset, folder / "in.dcm")
    with open_body(path) as body, (folder / "out.dcm").open("wb") as out:
        Deidentifier(frozenset(options), frozenset(safe), Pseudonyms("secret")).apply(body)
        body.write(out, body.syntax)
    return pydicom.dcmread(folder / "out.dcm")


def all_values(dataset: Dataset) -> str:
    return "\n".join(str(element.value) for element in dataset.iterall())


# --- the table ---


def test_the_table_is_the_standards() -> None:
    found = rows()

    assert len(found) == 623  # 2024e has 621; (0010,2161) and (300A,0054) are later
    assert len({row["tag"] for row in found}) == 623
    assert {row["basic"] for row in found} == {"X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"}
    for row in found:
        assert {row[option.column] for option in OPTIONS} <= {"", "K", "C"}
        if row["keyword"]:
            assert pydicom.datadict.tag_for_keyword(row["keyword"]) == int(row["tag"], 16)


@pytest.mark.parametrize(
    ("tag", "options", "action"),
    [
        (0x00100010, (), Action.EMPTY),
        (0x00100020, (), Action.DUMMY),
        (0x00080018, (), Action.UID),
        (0x00080018, ("retain-uids",), Action.KEEP),
        (0x00081140, (), Action.UID),
        (0x00080020, ("retain-full-dates",), Action.KEEP),
        (0x00080020, ("retain-modified-dates",), Action.CLEAN),
        (0x00081030, ("clean-descriptors",), Action.CLEAN),
        (0x00101010, ("retain-patient-characteristics",), Action.KEEP),
        (0x00102110, ("retain-patient-characteristics",), Action.CLEAN),
        (0x00181000, ("retain-device",), Action.KEEP),
        (0x00080080, ("retain-institution",), Action.KEEP),
        (0x50120005, (), Action.REMOVE),
        (0x60043000, (), Action.REMOVE),
        (0x00280010, (), None),
    ],
)
def test_an_attribute_has_its_action(tag: int, options: tuple[str, ...], action: Action | None) -> None:
    assert profile_of(frozenset(options)).action(tag) is action


# --- what goes and what stays ---


def test_nothing_of_the_patient_is_left(tmp_path: Path) -> None:
    item = Dataset()
    item.PatientName, item.RequestedProcedureID, item.AccessionNumber = "DOE^JANE", "PID-77", "ACC1"
    dataset = ct(RequestAttributesSequence=[item], OperatorsName="DOE^OP", PatientComments="Jane", InstitutionName="W")
    dataset.OtherPatientNames = ["DOE^JANE"]
    dataset.add_new(0x00090010, "LO", "ACME 1.1")
    dataset.add_new(0x00091001, "LO", "DOE^JANE")
    dataset.add_new(0x60000010, "US", 4)
    dataset.add_new(0x60003000, "OW", b"JANE")

    made = clean(dataset, tmp_path)

    left = all_values(made)
    for told in ("DOE", "JANE", "Jane", "PID-77", "ACC1", "1980", "2026", "1.2.3", "4711"):
        assert told not in left
    assert not any(element.tag.is_private for element in made)
    assert not any(element.tag.group == 0x6000 for element in made)
    assert made.PatientIdentityRemoved == "YES"
    assert [code.CodeValue for code in made.DeidentificationMethodCodeSequence] == ["113100"]
    assert made.LongitudinalTemporalInformationModified == "REMOVED"
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert made.Rows == 4
    assert made.PixelData == bytes(range(32))


def test_objects_of_one_study_stay_together(tmp_path: Path) -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = ct().SOPClassUID, "1.2.3.4"
    one = clean(ct(), tmp_path)
    other = clean(ct(SOPInstanceUID="1.2.3.9", ReferencedImageSequence=[reference]), tmp_path)

    assert one.StudyInstanceUID == other.StudyInstanceUID != "1.2.3"
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert other.ReferencedImageSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
    assert other.ReferencedImageSequence[0].ReferencedSOPClassUID == ct().SOPClassUID
    assert one.PatientID == other.PatientID


def test_the_options_keep_what_they_say(tmp_path: Path) -> None:
    dataset = ct(StationName="CT-1", InstitutionName="Ward", Allergies="allergy of Doe")

    kept = clean(dataset, tmp_path, "retain-uids", "retain-full-dates", "retain-device", "retain-institution")
    moved = clean(dataset, tmp_path, "retain-modified-dates", "retain-patient-characteristics", "clean-descriptors")

    assert (kept.SOPInstanceUID, kept.StudyDate, kept.StationName) == ("1.2.3.4", "20260101", "CT-1")
    assert kept.InstitutionName == "Ward"
    assert kept.LongitudinalTemporalInformationModified == "UNMODIFIED"
    assert "PatientAge" not in kept
    assert (moved.PatientAge, moved.PatientSex) == ("045Y", "F")
    assert moved.StudyDate < "20260101"
    assert moved.StudyDate == moved.AcquisitionDateTime[:8]
    assert moved.StudyTime == "101112"
    assert moved.LongitudinalTemporalInformationModified == "MODIFIED"
    assert moved.StudyDescription == "chest"
    assert moved.Allergies == "allergy"
    assert {code.CodeValue for code in moved.DeidentificationMethodCodeSequence} == {
        "113100",
        "113105",
        "113107",
        "113108",
    }


def test_private_blocks_stay_only_where_they_are_safe(tmp_path: Path) -> None:
    dataset = ct()
    for group, creator in ((0x0009, "ACME 1.1"), (0x0011, "OTHER"), (0x0013, "MIXED")):
        dataset.add_new((group, 0x0010), "LO", creator)
        dataset.add_new((group, 0x1001), "LO", "one")
        dataset.add_new((group, 0x1002), "LO", "two")
    declared = Dataset()
    declared.PrivateGroupReference, declared.PrivateCreatorReference = 0x0013, "MIXED"
    declared.BlockIdentifyingInformationStatus, declared.NonidentifyingPrivateElements = "MIXED", [0x02]
    dataset.PrivateDataElementCharacteristicsSequence = Sequence([declared])

    made = clean(dataset, tmp_path, "retain-safe-private", safe=("ACME 1.1",))

    private = {int(element.tag) for element in made if element.tag.is_private}
    assert private == {0x00090010, 0x00091001, 0x00091002, 0x00130010, 0x00131002}
    assert not any(element.tag.is_private for element in clean(dataset, tmp_path, safe=("ACME 1.1",)))


def test_a_report_loses_its_content_or_has_it_cleaned(tmp_path: Path) -> None:
    report = pydicom.dcmread(TEST_FILES / "reportsi.dcm")
    report.PatientID, report.PatientName = "77", "LAST^FIRST"
    item = report.ContentSequence[0]
    item.ValueType, item.TextValue = "TEXT", "chest of Last"

    bare = clean(report, tmp_path)
    kept = clean(report, tmp_path, "clean-structured-content")

    assert [each.TextValue for each in bare.ContentSequence] == ["REMOVED"]
    assert len(kept.ContentSequence) == len(report.ContentSequence)
    assert kept.ContentSequence[0].TextValue == "chest"


def test_an_attribute_that_nobody_knows_is_removed(tmp_path: Path) -> None:
    dataset = ct()
    dataset.add_new(0x00100FF8, "LO", "DOE")

    assert 0x00100FF8 not in clean(dataset, tmp_path)


@given(name=st.text("ABCDEFGHJK", min_size=3, max_size=20), depth=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_name_is_found_at_any_depth(tmp_path_factory: pytest.TempPathFactory, name: str, depth: int) -> None:
    dataset = innermost = ct()
    for level in range(depth):
        item = Dataset()
        keyword = "SharedFunctionalGroupsSequence" if level % 2 else "ReferencedImageSequence"  # kept, and UIDs only
        setattr(innermost, keyword, Sequence([item]))
        innermost = item
    innermost.PatientName = innermost.ReferringPhysicianName = innermost.RequestingPhysician = f"{name}^X"

    made = clean(dataset, tmp_path_factory.mktemp("deep"))

    assert f"{name}^X" not in all_values(made)


# --- pixels ---


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, False),
        ({"BurnedInAnnotation": "YES"}, True),
        ({"BurnedInAnnotation": "NO", "SOPClassUID": US_CLASS}, False),
        ({"SOPClassUID": US_CLASS}, True),
        ({"SOPClassUID": SC_CLASS}, True),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, True),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, False),
        ({"EncapsulatedDocument": b"%PDF"}, True),
    ],
)
def test_pixels_that_may_show_a_name_are_refused(tmp_path: Path, changes: dict[str, object], refused: bool) -> None:
    dataset = ct(**changes)

    if refused:
        with pytest.raises(ContentError, match="not de-identified"):
            clean(dataset, tmp_path)
    else:
        assert clean(dataset, tmp_path).PatientName == ""


def test_an_object_without_pixels_shows_nothing() -> None:
    assert burned_reason(ct(SOPClassUID=SC_CLASS), has_pixels=False) is None
    assert len(unburned_classes()) == 14


# --- text ---


def test_only_words_of_medicine_stay() -> None:
    forbidden = words_of(["CHEST^JANE", "4711"])

    assert cleaned("CT Chest/abdomen T1 5mm Wilson, 12.03.1980 Dr. Smith", frozenset()) == "Chest abdomen T1 5mm"
    assert cleaned("chest of Jane", forbidden) == ""
    assert {"chest", "abdomen", "left", "lung"} <= vocabulary()
    assert not {"jane", "smith", "wilson", "4711"} & vocabulary()
