"""Lazy reading of HL7 v2: headers, paths, character sets, search terms."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ContentError
from gateway.formats.charset import codec_of
from gateway.formats.hl7 import (
    HEADER_BYTES_MAX,
    TERMS_MAX,
    Header,
    Hl7Path,
    Hl7Text,
    PathError,
    keys_of,
    parse_path,
    read_header,
    read_path,
    value,
)

ORDER = "\r".join(
    [
        r"MSH|^~\&|OP|GENHOSP|WARDGW|SITE|20260115100000+0000||OMI^O23^OMI_O23|OP-7002|P|2.5.1|||AL|NE||UNICODE UTF-8",
        r"PID|||MRN4471^^^GENHOSP&1.2.3&ISO^MR~88^^^OTHER||Größe^Anna \T\ M||19620714|F",
        "PV1||I|ICU2^R7^B14" + "|" * 16 + "V880142^^^GENHOSP",
        "OBR|1|P55211^OP" + "|" * 16 + "A260115001",
        "IPC|A260115002^OF|RP1|1.2.3.4|SPS1",
        "OBX|1|NM|8867-4^Heart rate||72",
        r"OBX|2|ST|1^Note||a\F\b\S\c\R\d\E\e\X41C3A4\f\.br\g\H\h\N\\Zq\|",
        "ZDS|1.2.3.9^GENHOSP^Application^DICOM",
    ]
).encode()


def test_a_header_tells_its_fields() -> None:
    header = read_header(ORDER)

    assert (header.message_type, header.trigger, header.component(9, 3)) == (b"OMI", b"O23", b"OMI_O23")
    assert [header.field(number) for number in (1, 2, 3, 4, 5, 6)] == [
        b"|",
        b"^~\\&",
        b"OP",
        b"GENHOSP",
        b"WARDGW",
        b"SITE",
    ]
    assert (header.control_id, header.field(11), header.version) == (b"OP-7002", b"P", (2, 5, 1))
    assert header.enhanced
    assert header.field(18) == b"UNICODE UTF-8"
    assert header.field(19) == b""


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_segments_end_with_cr_lf_or_both(end: bytes) -> None:
    raw = ORDER.replace(b"\r", end)
    header = read_header(raw)

    assert header.terminator == end
    assert header.field(18) == b"UNICODE UTF-8"
    assert value(raw, "OBX[1]-5") == "72"
    assert value(raw, "IPC-4") == "SPS1"
    assert keys_of(raw, header).terms == keys_of(ORDER, read_header(ORDER)).terms


def test_a_line_feed_inside_a_field_stays_in_it() -> None:
    raw = b"MSH|^~\\&|A\rPID|||7||Two\nLines\rPV1||I\r"
    assert value(raw, "PID-5") == "Two\nLines"
    assert value(raw, "PV1-2") == "I"


@pytest.mark.parametrize("before", [b"\r\n", b"\xef\xbb\xbf", b"  \n"])
def test_blank_bytes_before_the_header_mean_nothing(before: bytes) -> None:
    assert read_header(before + ORDER).control_id == b"OP-7002"
    assert value(before + ORDER, "MSH-10") == "OP-7002"
    assert value(before + ORDER, "PID-3.1") == "MRN4471"


@pytest.mark.parametrize(
    "raw",
    [b"", b"hello", b"MSH", b"MSHA^~\\&A", b"MSH\r^~", b"PID|||1\rMSH|^~\\&|", b"FHS|^~\\&|A", b"\x00\xff"],
)
def test_what_is_not_hl7_is_told(raw: bytes) -> None:
    with pytest.raises(ContentError):
        read_header(raw)
    assert value(raw, "PID-3") is None


def test_a_header_is_bounded() -> None:
    with pytest.raises(ContentError):
        read_header(b"MSH|^~\\&|" + b"A" * HEADER_BYTES_MAX)


def test_a_type_without_components_has_no_trigger() -> None:
    header = read_header(b"MSH|^~\\&|||||||ORU|1|P|2.3\r")
    assert (header.message_type, header.trigger) == (b"ORU", b"")
    assert not header.enhanced


def test_separators_are_the_messages_own() -> None:
    raw = b"MSH$*+!%$A$$$$$$ORU*R01$9$P$2.3\rPID$$$7*x+8*y$$Doe*Jo%e!T!\r"
    assert read_header(raw).message_type == b"ORU"
    assert read_path(raw, parse_path("PID-3.1")) == ("7", "8")
    assert value(raw, "PID-5.2.2") == "e%"
    assert keys_of(raw, read_header(raw)).terms == ("7", "8")


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("MSH-1", ("|",)),
        ("MSH-2", (r"^~\&",)),
        ("MSH-9", ("OMI^O23^OMI_O23",)),
        ("MSH-9.1", ("OMI",)),
        ("MSH-10.1.1", ("OP-7002",)),
        ("PID-3.1", ("MRN4471", "88")),
        ("PID-3(2).1", ("88",)),
        ("PID-3(*).1", ("MRN4471", "88")),
        ("PID-3(3).1", ()),
        ("PID-3.4.2", ("1.2.3",)),
        ("PID-3.4", ("GENHOSP&1.2.3&ISO", "OTHER")),
        ("PID-5.1", ("Größe",)),
        ("PID-5.2", ("Anna & M",)),
        ("PID-4", ()),
        ("PID-99", ()),
        ("ZZZ-1", ()),
        ("OBX-1", ("1", "2")),
        ("OBX[2]-3.2", ("Note",)),
        ("OBX[*]-3.1", ("8867-4", "1")),
        ("OBX[3]-1", ()),
        ("OBX[2]-5", ("a|b^c~d\\eAäf\ngh\\Zq\\",)),
        ("PV1-19.1", ("V880142",)),
    ],
)
def test_paths_name_values(path: str, values: tuple[str, ...]) -> None:
    assert read_path(ORDER, parse_path(path)) == values
    assert Hl7Text(ORDER).read(parse_path(path)) == values


def test_a_path_becomes_its_numbers() -> None:
    assert parse_path("OBX[2]-5(3).4.1") == Hl7Path("OBX", 5, 2, 3, 4, 1)


@pytest.mark.parametrize(
    ("path", "position"),
    [
        ("", 0),
        ("pid-3", 0),
        ("PID", 3),
        ("PID-", 4),
        ("PID-x", 4),
        ("PID-0", 4),
        ("PID-3.", 6),
        ("PID-3.0", 6),
        ("PID[0]-3", 4),
        ("PID[1-3", 5),
        ("PID-3(1.1", 7),
        ("PID-3.1.2.3", 9),
        ("PID-3 ", 5),
        ("PID-99999999", 4),
        ("PID-٣", 4),
    ],
)
def test_a_wrong_path_is_told_with_its_position(path: str, position: int) -> None:
    with pytest.raises(PathError) as caught:
        parse_path(path)
    assert caught.value.position == position
    assert isinstance(caught.value, ValueError)
    assert str(position) in str(caught.value)


@pytest.mark.parametrize(
    ("names", "codec"),
    [
        (b"", "cp1252"),
        (b"ASCII", "cp1252"),
        (b"8859/1", "iso8859_1"),
        (b"8859/15", "iso8859_15"),
        (b"UNICODE UTF-8", "utf-8"),
        (b"utf-8", "utf-8"),
        (b"GB 18030-2000", "gb18030"),
        (b"KS X 1001", "euc_kr"),
        (b"BIG-5", "big5"),
        (b"ISO IR14", "shift_jis"),
        (b"~ISO IR87", "iso2022_jp_2"),
        (b"ISO IR6~ISO IR87", "iso2022_jp_2"),
        (b"KLINGON", "cp1252"),
        (b"hex", "cp1252"),
    ],
)
def test_msh_18_names_a_codec(names: bytes, codec: str) -> None:
    assert codec_of(names, "cp1252") == codec


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("8859/1", "latin-1"), ("UNICODE UTF-8", "utf-8"), ("8859/5", "iso8859_5"), ("GB 18030-2000", "gb18030"),
     ("KS X 1001", "euc_kr"), ("~ISO IR87", "iso2022_jp_2"), ("ISO IR14", "shift_jis")],
)  # fmt: skip
def test_text_is_read_in_its_character_set(charset: str, codec: str) -> None:
    name = {
        "iso8859_5": "Иван",
        "gb18030": "丄丂亅",
        "euc_kr": "김철수",
        "iso2022_jp_2": "山田亜",
        "shift_jis": "ソポ表",
    }.get(codec, "Müße")
    raw = f"MSH|^~\\&|||||||ADT^A01|1|P|2.5||||||{charset}\rPID|||7||{name}^X\rPV1||||||{name}||||||||||||V9\r".encode(
        codec
    )
    header = read_header(raw)

    assert value(raw, "PID-5.1") == name
    assert value(raw, "PID-5.2") == "X"
    assert keys_of(raw, header, header.codec("utf-8")).terms == ("7",)
    assert keys_of(raw, header, header.codec("utf-8")).lane_key == "7"


def test_wrong_bytes_read_as_replacement_characters() -> None:
    raw = b"MSH|^~\\&|A\rPID|||7||M\xfcller\r"
    assert value(raw, "PID-5") == "M�ller"
    assert value(raw, "PID-5", "latin-1") == "Müller"


def test_search_terms_are_what_a_person_searches_by() -> None:
    header = read_header(ORDER)
    assert keys_of(ORDER, header).terms == (
        "MRN4471",
        "88",
        "V880142",
        "A260115001",
        "A260115002",
        "1.2.3.4",
        "1.2.3.9",
    )


def test_search_terms_are_bounded() -> None:
    raw = b"MSH|^~\\&|A\r" + b"".join(b"PID|||%d~%da\r" % (number, number) for number in range(1000))
    assert len(keys_of(raw, read_header(raw)).terms) == TERMS_MAX
    raw = b"MSH|^~\\&|A\rPID|||" + b"9" * 100_000
    assert max(map(len, keys_of(raw, read_header(raw)).terms)) == 200


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b"PID|||7^^^X\rPV1|" + b"|" * 18 + b"V1\r", "7"),
        (b"PID|||^^^X\rPV1|" + b"|" * 18 + b"V1^^^Y\r", "V1"),
        (b'PID|||""\r', ""),
        (b"EVN|A01\r", ""),
        (b"PID|1\r", ""),
    ],
)
def test_the_lane_key_is_the_patient_or_the_visit(body: bytes, key: str) -> None:
    raw = b"MSH|^~\\&|A\r" + body
    assert keys_of(raw, read_header(raw)).lane_key == key


def test_a_segment_name_inside_another_is_not_taken() -> None:
    raw = b"MSH|^~\\&|A\rZPID|||1\rPIDX|||2\rNTE|||PID|||3\r"
    assert value(raw, "PID-3") is None
    assert keys_of(raw, read_header(raw)).terms == ()


hl7_like = st.lists(
    st.sampled_from(
        [
            b"MSH|^~\\&",
            b"MSH",
            b"|",
            b"^",
            b"~",
            b"&",
            b"\\",
            b"\r",
            b"\n",
            b"PID|||7",
            b"PV1",
            b"UNICODE UTF-8",
            b"\\X4",
            b"\\X41\\",
            b"ISO IR87",
            b"\x1b$B",
            b"\xff",
            b"2.5",
            b"||||||||||||||||",
        ]
    ),
    max_size=40,
).map(b"".join)
messages = st.one_of(hl7_like, st.binary(max_size=120), hl7_like.map(lambda rest: b"MSH|^~\\&|" + rest))
paths = st.sampled_from([parse_path(p) for p in ("MSH-1", "MSH-2", "MSH-18", "PID-3.1", "PID[1]-3(1).1.1", "PV1-19")])


@settings(max_examples=400, deadline=None)
@given(messages, paths, st.sampled_from(["utf-8", "latin-1", "gb18030", "iso2022_jp_2"]))
def test_no_bytes_break_the_reader(raw: bytes, path: Hl7Path, encoding: str) -> None:
    assert isinstance(read_path(raw, path, encoding), tuple)
    try:
        header = read_header(raw)
    except ContentError:
        return
    assert isinstance(header, Header)
    codec = header.codec(encoding)
    assert len(keys_of(raw, header, codec).terms) <= TERMS_MAX
    assert isinstance(keys_of(raw, header, codec).lane_key, str)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_no_text_breaks_the_path_reader(text: str) -> None:
    try:
        assert isinstance(parse_path(text), Hl7Path)
    except PathError as error:
        assert 0 <= error.position <= len(text)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1, max_size=40))
def test_what_was_escaped_comes_back(text: str) -> None:
    signs = {"\\": r"\E\ "[:3], "|": r"\F\ "[:3], "^": r"\S\ "[:3], "&": r"\T\ "[:3], "~": r"\R\ "[:3]}
    escaped = "".join(signs.get(letter, letter) for letter in text)
    raw = f"MSH|^~\\&|A|||||||||||||||UNICODE UTF-8\rPID|||7||{escaped}^X\r".encode()

    assert value(raw, "PID-5.1") == text
