import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.errors import ContentError
from gateway.formats.dicom import (
    DEFLATED,
    clean_uid,
    is_uid,
    part10_prefix,
    read_header,
    read_meta,
    transfer_syntax,
)

TEST_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
TEXTS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "PatientID", "AccessionNumber", "StudyDate")


def _is_part10(path: Path) -> bool:
    data = path.read_bytes()[:132]
    return data[128:] == b"DICM"


PART10 = [path for path in sorted(TEST_FILES.glob("*.dcm")) if _is_part10(path)]


def _file(*, syntax: str = ExplicitVRLittleEndian, **values: object) -> bytes:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = "1.2.3.4"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _prefix(syntax: str = ExplicitVRLittleEndian) -> bytes:
    return part10_prefix(sop_class_uid="1.2.3", sop_instance_uid="1.2.3.4", transfer_syntax=syntax)


@pytest.mark.parametrize("path", PART10, ids=lambda path: path.name)
def test_the_values_are_those_that_pydicom_reads(path: Path) -> None:
    expected = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    if "TransferSyntaxUID" not in expected.file_meta:
        with pytest.raises(ContentError, match="transfer syntax"):
            read_header(path)
        return

    header = read_header(path)

    assert header.meta.transfer_syntax == expected.file_meta.TransferSyntaxUID
    for keyword in TEXTS:
        assert header.values.get(keyword, "") == str(expected.get(keyword) or ""), keyword


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_text_numbers_and_many_values_come_as_text_in_every_encoding(syntax: str) -> None:
    data = _file(
        syntax=syntax, PatientID="P 1", ImageType=["ORIGINAL", "PRIMARY"], Rows=512, KVP="120", StudyTime="1200"
    )

    values = read_header(io.BytesIO(data), ["ImageType", "Rows", "KVP", "NoSuchKeyword"]).values

    assert values["ImageType"] == "ORIGINAL\\PRIMARY"
    assert (values["Rows"], values["KVP"], values["PatientID"]) == ("512", "120", "P 1")
    assert "NoSuchKeyword" not in values


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 192", "Ψυχή^Ω"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")],
)
def test_text_is_decoded_by_its_character_set(charset: str | list[str], name: str) -> None:
    data = _file(SpecificCharacterSet=charset, PatientName=name)

    assert read_header(io.BytesIO(data), ["PatientName"]).values["PatientName"] == name


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_before_a_wanted_element_are_stepped_over(syntax: str, undefined: bool) -> None:
    inner = Dataset()
    inner.PatientID = "NOT THIS ONE"
    inner.ReferencedSeriesSequence = Sequence([Dataset(), Dataset()])
    outer = Dataset()
    outer.ReferencedStudySequence = Sequence([inner])
    outer["ReferencedStudySequence"].is_undefined_length = undefined
    inner["ReferencedSeriesSequence"].is_undefined_length = undefined
    outer.is_undefined_length_sequence_item = undefined
    inner.is_undefined_length_sequence_item = undefined
    data = _file(syntax=syntax, ReferencedStudySequence=Sequence([outer, inner]), PatientID="P1")
    patched = pydicom.dcmread(io.BytesIO(data))
    patched["ReferencedStudySequence"].is_undefined_length = undefined
    out = io.BytesIO()
    patched.save_as(out)

    assert read_header(io.BytesIO(out.getvalue())).values["PatientID"] == "P1"


def test_the_prefix_is_a_file_meta_group_that_pydicom_reads() -> None:
    prefix = part10_prefix(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.34",
        transfer_syntax=ExplicitVRLittleEndian,
        source_ae="CT1",
    )

    meta = pydicom.dcmread(io.BytesIO(prefix)).file_meta

    assert meta.MediaStorageSOPInstanceUID == "1.2.34"
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert meta.FileMetaInformationGroupLength == len(prefix) - 144


def test_the_offset_points_behind_the_file_meta(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(_prefix() + b"data set")

    assert file.read_bytes()[read_meta(file).dataset_offset :] == b"data set"
    assert transfer_syntax(file) == ExplicitVRLittleEndian


@given(st.text(max_size=80))
def test_the_uid_in_a_prefix_comes_back(uid: str) -> None:
    cleaned = clean_uid(uid.encode("latin-1", "replace").decode("latin-1"))
    prefix = part10_prefix(sop_class_uid="1.2", sop_instance_uid=cleaned, transfer_syntax="1.2.840.10008.1.2")
    header = read_header(io.BytesIO(prefix))

    assert header.meta.sop_instance_uid == cleaned


def test_pixels_and_what_follows_are_not_looked_at() -> None:
    data = _file(PatientID="P1") + struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", 1 << 30) + b"\xff" * 8

    assert read_header(io.BytesIO(data), ["PixelData"]).values["PatientID"] == "P1"


def test_a_deflated_bomb_is_inflated_for_one_mebibyte_only() -> None:
    element = struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 2) + b"MR"
    bomb = struct.pack("<HH2s2xL", 0x0009, 0x1001, b"OB", 400 << 20) + bytes(400 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    file = io.BytesIO(_prefix(DEFLATED) + packer.compress(element + bomb) + packer.flush())
    del bomb
    tracemalloc.start()

    with pytest.raises(ContentError, match=r"\(0009,1001\)"):
        read_header(file)

    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("tail", "fault"),
    [
        (
            struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 500) + b"SECRET",
            r"\(0010,0020\) at byte .*500 bytes expected, 6",
        ),
        (b"\x08\0\x60\0CS\x02\0MR\x10\0\x20\0??\0\0", "no value representation"),
        (b"\x10\0\x20", "cut short"),
        (struct.pack("<HH2s2xL", 8, 0x1111, b"SQ", 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff" * 100, "nested"),
        (struct.pack("<HH2sH", 8, 1, b"UI", 0) * 20_001, "more than"),
    ],
)
def test_a_broken_head_is_told_with_its_place_and_without_its_content(tail: bytes, fault: str) -> None:
    with pytest.raises(ContentError, match=fault) as caught:
        read_header(io.BytesIO(_prefix() + tail))

    assert "SECRET" not in str(caught.value)


def test_a_file_without_dicm_is_refused() -> None:
    with pytest.raises(ContentError, match="DICM"):
        read_header(io.BytesIO(b"MSH|^~\\&|"))


@settings(max_examples=300)
@given(st.binary(max_size=600), st.sampled_from([ImplicitVRLittleEndian, ExplicitVRLittleEndian, DEFLATED, "x"]))
def test_arbitrary_data_sets_are_read_or_refused(data: bytes, syntax: str) -> None:
    try:
        header = read_header(io.BytesIO(_prefix(syntax) + data))
    except ContentError:
        return
    assert all(isinstance(value, str) for value in header.values.values())


@given(st.binary(max_size=300))
def test_arbitrary_files_are_read_or_refused(data: bytes) -> None:
    for file in (data, bytes(128) + b"DICM" + data):
        try:
            read_header(io.BytesIO(file))
        except ContentError:
            continue


@settings(max_examples=60)
@given(st.data())
def test_a_file_cut_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    whole = (TEST_FILES / "CT_small.dcm").read_bytes()
    cut = data.draw(st.integers(0, 6000))
    try:
        header = read_header(io.BytesIO(whole[:cut]))
    except ContentError:
        return
    assert header.meta.transfer_syntax


@pytest.mark.parametrize(
    ("text", "sound"), [("1.2.3", True), ("", False), ("1" * 65, False), ("../../x", False), ("１.２", False)]
)
def test_uids_are_digits_and_dots(text: str, sound: bool) -> None:
    assert is_uid(text) is sound
