"""Data sets of queries and answers: bytes to text and back, in every character set that matters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from gateway.dataset import Attributes, Element
from gateway.errors import ContentError
from gateway.formats.dicom import DEFLATED
from gateway.formats.identifiers import CHARACTER_SET, character_sets_for, decode, encode, from_json, tag_of, to_json

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
NAME = tag_of("PatientName")
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def named(name: str) -> Attributes:
    return {NAME: Element("PN", (name,))}


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("Müller^Jörg", ("ISO_IR 100",)),
        ("Łódź^Ćwik", ("ISO_IR 101",)),
        ("Ġorġ^Ħal", ("ISO_IR 109",)),
        ("Иванов^Иван", ("ISO_IR 144",)),
        ("Işık^Ğül", ("ISO_IR 148",)),
        ("ไทย", ("ISO_IR 166",)),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", ("ISO_IR 13",)),
        (JAPANESE, ("", "ISO 2022 IR 87")),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", ("ISO 2022 IR 13", "ISO 2022 IR 87")),
        ("Hong^Gildong=洪^吉洞=홍^길동", ("", "ISO 2022 IR 149")),
        (JAPANESE, ("ISO_IR 192",)),
        ("王^小东", ("GB18030",)),
    ],
)
def test_names_survive_every_character_set(syntax: str, name: str, sets: tuple[str, ...]) -> None:
    read = decode(encode(named(name), syntax, sets), syntax)

    assert read[CHARACTER_SET].values == sets
    assert read[NAME].values == (name,)


@pytest.mark.parametrize(
    ("sets", "name"),
    [
        (["ISO_IR 100"], "Müller^Jörg"),
        (["ISO_IR 144"], "Люкceмбypг"),
        (["ISO_IR 192"], JAPANESE),
        (["GB18030"], "王^小东"),
        (["ISO_IR 101"], "Łódź"),
    ],
)
def test_pydicom_reads_what_we_write_and_we_what_it_writes(sets: list[str], name: str) -> None:
    dataset = Dataset()
    dataset.SpecificCharacterSet, dataset.PatientName = sets[0], name
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset)

    assert decode(buffer.getvalue(), EXPLICIT)[NAME].values == (name,)
    assert encode(named(name), EXPLICIT, sets) == buffer.getvalue()


def test_bytes_of_a_standards_example_are_read() -> None:
    value = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"  # PS3.5, H.3.1
    data = b"\x08\0\x05\0CS\x10\0\\ISO 2022 IR 87 \x10\0\x10\0PN" + bytes([len(value) + len(value) % 2, 0]) + value
    data += b" " * (len(value) % 2)

    assert decode(data, EXPLICIT)[NAME].values == (JAPANESE,)


@pytest.mark.parametrize(
    ("name", "wished", "expected"),
    [
        ("Doe^Jane", [("ISO_IR 192",)], ()),
        ("Müller", [], ("ISO_IR 100",)),
        ("Müller", [("ISO_IR 192",)], ("ISO_IR 192",)),
        ("Łódź", [("ISO_IR 100",)], ("ISO_IR 101",)),
        (JAPANESE, [], ("ISO_IR 192",)),
        (JAPANESE, [("ISO_IR 100",), ("", "ISO 2022 IR 87")], ("", "ISO 2022 IR 87")),
        ("王^小东", [("GB18030",)], ("GB18030",)),
        ("王^Müller", [], ("ISO_IR 192",)),
        ("Müller", [("NOBODY KNOWS",)], ("ISO_IR 100",)),
    ],
)
def test_an_answer_is_written_in_what_its_letters_need(
    name: str, wished: list[tuple[str, ...]], expected: tuple[str, ...]
) -> None:
    assert character_sets_for(named(name), wished) == expected


def test_letters_beyond_ascii_without_a_declaration_are_read_as_assumed() -> None:
    data = b"\x10\0\x10\0PN\x06\0M\xfcller"

    assert decode(data, EXPLICIT)[NAME].values == ("Müller",)
    assert decode(data, EXPLICIT, assumed=("ISO_IR 148",))[NAME].values == ("Müller",)
    assert decode(b"\x10\0\x10\0PN\x02\0\xb8\xd2", EXPLICIT, assumed=("ISO_IR 144",))[NAME].values == ("Ив",)


def test_ranges_wildcards_and_nonsense_are_read_as_text() -> None:
    dataset = b"\x20\0\x13\0IS\x02\0* " + b"\x40\0\x02\0DA\x12\x00" + b"20260101-20260131 "

    assert decode(dataset, EXPLICIT) == {
        tag_of("InstanceNumber"): Element("IS", ("*",)),
        tag_of("ScheduledProcedureStepStartDate"): Element("DA", ("20260101-20260131",)),
    }


def test_a_data_set_that_is_cut_short_is_refused() -> None:
    with pytest.raises(ContentError, match="cut short"):
        decode(b"\x10\0\x10\0PN\x04\0D", EXPLICIT)


def test_deflated_is_neither_read_nor_written() -> None:
    with pytest.raises(ContentError):
        decode(b"", DEFLATED)
    with pytest.raises(ContentError):
        encode({}, DEFLATED)


def test_a_letter_that_the_character_set_lacks_is_told_without_the_value() -> None:
    with pytest.raises(ContentError) as caught:
        encode(named("山田"), EXPLICIT, ("ISO_IR 100",))

    assert "山" not in str(caught.value)


LETTERS = st.text(
    st.characters(codec="utf-8", exclude_characters="\\^=\x00\x1b", exclude_categories=["Cc", "Cs", "Zs"])
)
VALUES = st.lists(LETTERS.filter(bool), max_size=3).map(tuple)
FLAT = st.dictionaries(
    st.sampled_from([tag_of(name) for name in ("PatientName", "PatientID", "RequestedProcedureID")]), VALUES
)


@given(FLAT, FLAT, st.sampled_from([IMPLICIT, EXPLICIT, BIG]))
@settings(max_examples=50, deadline=None)
def test_any_data_set_survives_bytes_and_json(
    flat: dict[int, tuple[str, ...]], inner: dict[int, tuple[str, ...]], syntax: str
) -> None:
    def made(values: dict[int, tuple[str, ...]]) -> dict[int, Element]:
        return {
            tag: Element("PN" if tag == NAME else "LO" if tag == 0x00100020 else "SH", each)
            for tag, each in values.items()
        }

    whole = made(flat) | {tag_of("ScheduledProcedureStepSequence"): Element("SQ", items=(made(inner),))}
    sets = character_sets_for(whole)

    read = decode(encode(whole, syntax, sets), syntax)
    read.pop(CHARACTER_SET, None)

    assert read == whole
    assert from_json(to_json(whole)) == whole


@given(st.binary(max_size=120), st.sampled_from([IMPLICIT, EXPLICIT, BIG]))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_a_data_set_or_refused(data: bytes, syntax: str) -> None:
    try:
        assert isinstance(decode(data, syntax), dict)
    except ContentError as error:
        assert len(str(error)) < 200
