"""Acknowledgements: modes, contents, and what peers say."""

from contextlib import suppress
from datetime import UTC, datetime

import hl7
import pytest
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ContentError
from gateway.formats.acknowledgement import (
    AckCode,
    AckError,
    Acknowledgement,
    ErrorCode,
    Fault,
    Outcome,
    answer_codes,
    encode_acknowledgement,
    is_acknowledgement,
    read_acknowledgement,
)
from gateway.formats.hl7 import read_header

NOW = datetime(2026, 1, 15, 9, 30, 31, 310_000, tzinfo=UTC)
FAULT = Fault(text="MSH-10 is empty", code=ErrorCode.REQUIRED_FIELD_MISSING, location=("MSH", 1, 10))


def message(version: str = "2.6", commit: str = "", application: str = "", control_id: str = "WGW-000000417") -> bytes:
    return (
        f"MSH|^~\\&|WARDGW|GENHOSP|EHR|SITE|20260115093031||ORU^R01^ORU_R01|{control_id}|P|{version}"
        f"|||{commit}|{application}||UNICODE UTF-8\rPID|||7\r"
    ).encode()


def answer(raw: bytes, code: AckCode, fault: Fault | None = None) -> bytes:
    return encode_acknowledgement(read_header(raw), code, control_id="EHR-55001", now=NOW, fault=fault)


A, E, R = Outcome.ACCEPTED, Outcome.ERROR, Outcome.REJECTED


@pytest.mark.parametrize(
    ("commit", "application", "accepted", "error", "rejected"),
    [
        ("", "", "AA", "AE", "AR"),
        ("AL", "NE", "CA", "CE", "CR"),
        ("AL", "", "CA", "CE", "CR"),
        ("AL", "AL", "CA AA", "CE", "CR"),
        ("NE", "AL", "AA", "AE", "AR"),
        ("", "AL", "AA", "AE", "AR"),
        ("NE", "NE", "", "", ""),
        ("ER", "NE", "", "CE", "CR"),
        ("SU", "NE", "CA", "", ""),
        ("SU", "ER", "CA", "AE", "AR"),
        ("ER", "SU", "AA", "CE", "CR"),
        ("ER", "AL", "AA", "CE", "CR"),
        ("al", "ne", "CA", "CE", "CR"),
        ("??", "NE", "CA", "CE", "CR"),
    ],
)
def test_the_answers_are_those_the_message_asks_for(
    commit: str, application: str, accepted: str, error: str, rejected: str
) -> None:
    header = read_header(message(commit=commit, application=application))
    codes = [" ".join(code.value for code in answer_codes(header, outcome)) for outcome in (A, E, R)]
    assert codes == [accepted, error, rejected]


def test_an_original_mode_answer_swaps_the_parties_and_copies_the_rest() -> None:
    assert answer(message(), AckCode.AA) == (
        b"MSH|^~\\&|EHR|SITE|WARDGW|GENHOSP|20260115093031.310+0000||ACK^R01^ACK|EHR-55001|P|2.6||||||UNICODE UTF-8\r"
        b"MSA|AA|WGW-000000417\r"
    )


def test_an_enhanced_mode_answer_asks_for_none() -> None:
    assert answer(message(commit="AL", application="NE"), AckCode.CA) == (
        b"MSH|^~\\&|EHR|SITE|WARDGW|GENHOSP|20260115093031.310+0000||ACK^R01^ACK|EHR-55001|P|2.6"
        b"|||NE|NE||UNICODE UTF-8\r"
        b"MSA|CA|WGW-000000417\r"
    )


def test_a_refusal_has_its_error_in_the_shape_of_the_version() -> None:
    assert answer(message("2.5"), AckCode.AE, FAULT).split(b"\r")[1:] == [
        b"MSA|AE|WGW-000000417|MSH-10 is empty",
        b"ERR||MSH^1^10|101^Required field missing^HL70357|E||||MSH-10 is empty",
        b"",
    ]
    assert answer(message("2.4"), AckCode.AE, FAULT).split(b"\r")[2] == (
        b"ERR|MSH^1^10^101&Required field missing&HL70357"
    )


@pytest.mark.parametrize(
    ("version", "message_type"),
    [("2.2", b"ACK^R01"), ("2.3.1", b"ACK^R01"), ("2.4", b"ACK^R01^ACK"), ("2.8.2", b"ACK^R01^ACK"), ("", b"ACK^R01")],
)
def test_the_message_type_has_three_components_since_2_4(version: str, message_type: bytes) -> None:
    assert read_header(answer(message(version), AckCode.AA)).field(9) == message_type


def test_a_type_without_a_trigger_is_answered_without_one() -> None:
    raw = b"MSH|^~\\&|||||||ORU|1|P|2.3\r"
    assert read_header(answer(raw, AckCode.AA)).field(9) == b"ACK"


@pytest.mark.parametrize("control_id", [" 1 ", "a\\T\\b", "^^~", "ä", "x" * 199])
def test_the_control_id_comes_back_byte_for_byte(control_id: str) -> None:
    raw = message(control_id=control_id)
    assert read_acknowledgement(answer(raw, AckCode.AA)).control_id == control_id.encode()


def test_the_separators_are_those_of_the_message() -> None:
    raw = b"MSH$*+!%$A$B$C$D$$$ORU*R01$9$P$2.5\r"
    fault = Fault(text="a$b*c", code=ErrorCode.INTERNAL)
    ours = answer(raw, AckCode.AE, fault)

    assert ours.startswith(b"MSH$*+!%$C$D$A$B$")
    assert ours.split(b"\r")[1] == b"MSA$AE$9$a!F!b!S!c"
    assert read_acknowledgement(ours).text == "a$b*c"


def test_bytes_without_a_header_are_answered_without_a_control_id() -> None:
    raw = encode_acknowledgement(None, AckCode.AR, control_id="X1", now=NOW, fault=FAULT)
    told = read_acknowledgement(raw)
    assert (told.code, told.control_id, told.errors[0].code) == (AckCode.AR, b"", "101")


@pytest.mark.parametrize("version", ["2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"])
@pytest.mark.parametrize("code", [AckCode.AA, AckCode.AR, AckCode.CA, AckCode.CE])
def test_hl7apy_reads_our_answers(version: str, code: AckCode) -> None:
    ours = answer(message(version), code, None if code.accepted else FAULT)
    theirs = parse_message(ours.decode(), find_groups=False)

    assert theirs.version == version
    assert theirs.msa.msa_1.value == code.value
    assert theirs.msa.msa_2.value == "WGW-000000417"
    if not code.accepted and version >= "2.5":
        assert theirs.err.err_2.value == "MSH^1^10"
        assert theirs.err.err_3.err_3_1.value == "101"
        assert theirs.err.err_4.value == "E"
    elif not code.accepted:
        assert theirs.err.err_1.value == "MSH^1^10^101&Required field missing&HL70357"


def test_python_hl7_reads_our_answers() -> None:
    theirs = hl7.parse(answer(message(), AckCode.CE, FAULT).decode())
    assert str(theirs.segment("MSA")[2]) == "WGW-000000417"
    assert str(theirs.segment("ERR")[3][0][0]) == "101"


@pytest.mark.parametrize(
    ("raw", "is_one"),
    [
        (b"MSH|^~\\&|||||||ACK^R01|1|P|2.5|||AL|AL\rMSA|AA|7\r", True),
        (b"MSH|^~\\&|||||||ACK|1|P|2.3\nMSA|AA|7\n", True),
        (b"MSH|^~\\&|||||||MCF|1|P|2.3\r", True),
        (b"MSH|^~\\&|||||||ORR^O02|1|P|2.3\r\nMSA|AA|7\r\n", True),
        (b"MSH|^~\\&|||||||RSP^K11|1|P|2.5|||AL|NE\rMSA|AA|7\r", False),
        (b"MSH|^~\\&|||||||ORU^R01|1|P|2.3\rPID|||7\rMSA|AA|7\r", False),
        (b"MSH|^~\\&|||||||ORU^R01|1|P|2.3", False),
    ],
)
def test_acknowledgements_are_known_so_that_none_is_acknowledged(raw: bytes, is_one: bool) -> None:
    assert is_acknowledgement(raw, read_header(raw)) is is_one


MSH = b"MSH|^~\\&|EMR|||||| ACK|9|P|2.5\r"


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b"MSA|AA|7", Acknowledgement(code=AckCode.AA, control_id=b"7")),
        (b"MSA|aa|7|fine\r", Acknowledgement(code=AckCode.AA, control_id=b"7", text="fine")),
        (b"MSA|CA\r", Acknowledgement(code=AckCode.CA, control_id=b"")),
        (
            b"MSA|AE|7|bad\rERR||PID^1^3^2|204^Unknown key^HL70357|E||||no such id\rERR|||206\r",
            Acknowledgement(
                code=AckCode.AE,
                control_id=b"7",
                text="bad",
                errors=(
                    AckError(code="204", location="PID^1^3^2", text="no such id"),
                    AckError(code="206", location=None, text=None),
                ),
            ),
        ),
        (
            b"MSA|AR|7\rERR|PID^1^3^204&Unknown key&HL70357\r",
            Acknowledgement(
                code=AckCode.AR,
                control_id=b"7",
                errors=(AckError(code="204", location="PID^1^3", text="Unknown key"),),
            ),
        ),
        (
            b"MSA|AR|7\rERR|207\r",
            Acknowledgement(code=AckCode.AR, control_id=b"7", errors=(AckError(code="207", location=None, text=None),)),
        ),
    ],
)
def test_a_peers_answer_is_read(rest: bytes, expected: Acknowledgement) -> None:
    assert read_acknowledgement(MSH + rest) == expected
    assert read_acknowledgement((MSH + rest).replace(b"\r", b"\n")) == expected


@pytest.mark.parametrize("raw", [b"", b"\x06", b"hello", MSH, MSH + b"MSA\r", MSH + b"MSA|XX|7\r", MSH + b"MSA||7\r"])
def test_an_answer_that_says_nothing_is_no_answer(raw: bytes) -> None:
    with pytest.raises(ContentError):
        read_acknowledgement(raw)


pieces = st.sampled_from(
    [b"MSA|", b"AA", b"|", b"\r", b"ERR|", b"^", b"&", b"207", b"\n", b"ISO IR87", b"\x1b$B", b"\xff"]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.lists(pieces, max_size=30).map(lambda parts: MSH + b"".join(parts))))
def test_no_bytes_break_the_reader_or_the_builder(raw: bytes) -> None:
    try:
        header = read_header(raw)
    except ContentError:
        header = None
    ours = encode_acknowledgement(header, AckCode.AR, control_id="X1", now=NOW, fault=FAULT)
    assert ours.startswith(b"MSH")
    with suppress(ContentError):
        assert read_acknowledgement(raw).code in AckCode


control_ids = st.text(st.characters(codec="utf-8", exclude_characters="|\r\n"), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(control_ids, st.sampled_from(AckCode), st.sampled_from(["2.3", "2.5", "2.8"]), st.sampled_from(ErrorCode))
def test_what_we_say_is_what_is_read(control_id: str, code: AckCode, version: str, error: ErrorCode) -> None:
    fault = Fault(text="a^b|c\\d&~", code=error, location=("OBX", 2, 5))
    told = read_acknowledgement(answer(message(version, control_id=control_id), code, fault))

    assert (told.code, told.control_id, told.text) == (code, control_id.encode(), "a^b|c\\d&~")
    assert [(error.code, error.location) for error in told.errors] == [(str(error.number), "OBX^2^5")]
