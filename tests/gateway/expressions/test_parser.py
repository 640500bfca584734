from collections.abc import Collection
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.expressions import ExpressionError, compile_expression, needed_keywords
from gateway.expressions.lexer import TEXT_CHARS_MAX
from gateway.expressions.parser import DEPTH_MAX, parse
from gateway.expressions.tree import (
    And,
    Call,
    Comparison,
    Constant,
    Exists,
    Fact,
    Header,
    Hl7Value,
    Literal,
    Measured,
    Membership,
    Method,
    Node,
    Not,
    Operand,
    Or,
    Path,
    Relation,
)
from gateway.formats.hl7_path import Hl7Path, parse_path
from gateway.model import Kind

MODALITY, SERIES = Header("Modality", True), Header("SeriesDescription", True)
COMMENT = Header("PatientComments", False)
BED, PEER = Exists(Fact("bed")), Exists(Fact("peer"))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ('MSH-9.1 == "ORU"', Comparison(Hl7Value(Hl7Path("MSH", 9, component=1)), Relation.EQUAL, Literal("ORU"))),
        ("'ADT' != MSH-9.1", Comparison(Literal("ADT"), Relation.UNEQUAL, Hl7Value(Hl7Path("MSH", 9, component=1)))),
        (
            "OBX[3]-5(2).1 >= -1.5",
            Comparison(Hl7Value(parse_path("OBX[3]-5(2).1")), Relation.MORE_OR_EQUAL, Literal(Decimal("-1.5"))),
        ),
        ('Modality in ("CT", \'MR\')', Membership(MODALITY, (Literal("CT"), Literal("MR")), False)),
        ('Modality not in ("CT")', Membership(MODALITY, (Literal("CT"),), True)),
        ('PatientComments == "x"', Comparison(COMMENT, Relation.EQUAL, Literal("x"))),
        ('not SeriesDescription.contains("Scout")', Not(Call(SERIES, Method.CONTAINS, "Scout"))),
        ("spo2 < 90", Comparison(Measured("spo2", "value"), Relation.LESS, Literal(Decimal(90)))),
        ('spo2.unit.startswith("%")', Call(Measured("spo2", "unit"), Method.STARTSWITH, "%")),
        ("exists(x_masimo_spoc)", Exists(Measured("x_masimo_spoc", "value"))),
        ('device.model.matches("N-*")', Call(Fact("device.model"), Method.MATCHES, "N-*")),
        ("spo2.episodic == true", Comparison(Measured("spo2", "episodic"), Relation.EQUAL, Literal("true"))),
        ("true", Constant(True)),
        ("spo2 < spo2.low", Comparison(Measured("spo2", "value"), Relation.LESS, Measured("spo2", "low"))),
        ("exists(bed) or exists(peer) and not false", Or((BED, And((PEER, Not(Constant(False))))))),
        ("(exists(bed) or exists(peer)) and true", And((Or((BED, PEER)), Constant(True)))),
        (r'source == "a\"b\\c\'d"', Comparison(Fact("source"), Relation.EQUAL, Literal("a\"b\\c'd"))),
        ('kind\n in\t("hl7" , "dicom")', Membership(Fact("kind"), (Literal("hl7"), Literal("dicom")), False)),
    ],
)  # fmt: skip
def test_an_expression_becomes_a_tree(text: str, tree: Node) -> None:
    assert compile_expression(text).root == tree


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, "expected a path or a value, got the end"),
        ("MSH-9 = 'x'", 6, "unexpected '=' (compare with ==)"),
        ("true && true", 5, "unexpected '&' (write and)"),
        ("true AND true", 5, "unexpected 'AND' (write and in lower case)"),
        ("source == 'x", 10, "this text has no closing quote"),
        (r"source == 'a\b'", 12, r"'\b' is no escape (a backslash itself is written twice)"),
        ("source == 12ab", 10, "this is no number (text stands in quotes)"),
        ("PID-3", 5, "expected a comparison, got the end (whether it is there at all is asked by exists(…))"),
        ("PID-0 == 1", 4, "'PID-0' is no HL7 path: expected a number from 1 to 9999"),
        ("PID[x]-3 == 1", 4, "'PID[x]-3' is no HL7 path: expected a number from 1 on"),
        ("PID-3-1 == 1", 5, "'PID-3-1' is no HL7 path: expected the end of the path"),
        ("PID.3.1 == 1", 0, "'PID' has no part '3.1' (an HL7 path is written PID-3.1)"),
        ("pid-3 == 1", 0, "unknown name 'pid' (an HL7 path is written PID-3.1, its segment in upper case)"),
        ("Modalty == 1", 0, "unknown name 'Modalty' (did you mean 'Modality'?)"),
        ("MODALITY == 1", 0, "unknown name 'MODALITY' (did you mean 'Modality'?)"),
        ("SPO2 < 90", 0, "unknown name 'SPO2' (did you mean 'spo2'?)"),
        ("sp02 < 90", 0, "unknown name 'sp02' (did you mean 'spo2'?)"),
        ("PixelData == 1", 0, "'PixelData' (OB or OW) holds neither text nor numbers"),
        ("Modality.x == 1", 0, "'Modality' has no part 'x'"),
        ("source.x == 1", 0, "'source' has no part 'x'"),
        ("device == 1", 0, "'device' has the parts manufacturer, model, serial, software, eui64"),
        (
            "device.modle == 1",
            0,
            "'device' has the parts manufacturer, model, serial, software, eui64 (did you mean 'model'?)",
        ),
        ("source == ''", 10, "nothing equals an empty text (write exists(…) or not exists(…))"),
        ("source in ('a', '')", 16, "nothing equals an empty text (write exists(…) or not exists(…))"),
        ("source in ()", 11, "expected text or a number, got ')'"),
        ("source in ('a' 'b')", 15, "expected ')', got a text"),
        ("source not 'a'", 11, "expected 'in', got a text"),
        ("source.contains('')", 16, "contains needs at least one character"),
        ("source.contains(3)", 16, "expected text in quotes, got '3'"),
        (
            "source.contans('x')",
            7,
            "there is no method 'contans' (did you mean 'contains'?) (contains, startswith, endswith, matches)",
        ),
        ("kind == 'HL7'", 8, "there is no kind 'HL7' (hl7, observations, dicom, mpps)"),
        ("kind == 'dicon'", 8, "there is no kind 'dicon' (did you mean 'dicom'?) (hl7, observations, dicom, mpps)"),
        ("1 == 1", 0, "neither side is a path (text stands in quotes, paths do not)"),
        ("source < true", 7, "true and false have no order"),
        ("(true", 5, "expected ')', got the end"),
        ("exists('x')", 7, "expected a path or a value, got a text"),
        ("source == and", 10, "expected a path or a value, got 'and'"),
        ("source == 'a' == 'b'", 14, "unexpected '==' (a comparison stands between 'and' and 'or')"),
        ("spo2.matches('" + "a" * 257 + "')", 13, "a pattern has at most 256 characters"),
    ],
)  # fmt: skip
def test_a_fault_has_its_position_and_a_hint(text: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(text)

    assert (raised.value.position, str(raised.value)) == (position, message)


@pytest.mark.parametrize(
    ("text", "kinds", "message"),
    [
        ("Modality == 'CT'", {Kind.HL7}, "'Modality' is a DICOM keyword, but only hl7 comes by this route"),
        ("PID-3 == 'x'", {Kind.DICOM}, "'PID-3' is an HL7 path, but only dicom comes by this route"),
        (
            "spo2 < 90",
            {Kind.HL7, Kind.DICOM},
            "'spo2' is a name of Observations, but only dicom, hl7 comes by this route",
        ),
        ("exists(bed)", {Kind.HL7}, "'bed' is a name of Observations, but only hl7 comes by this route"),
        (
            "modality == 'CT'",
            {Kind.DICOM},
            "'modality' is a name of Observations, but only dicom comes by this route (did you mean 'Modality'?)",
        ),
    ],
)
def test_a_path_must_be_of_a_kind_that_comes(text: str, kinds: Collection[Kind], message: str) -> None:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(text, kinds)

    assert str(raised.value) == message


def test_source_kind_and_peer_are_of_every_kind() -> None:
    for kind in (Kind.HL7, Kind.DICOM, Kind.OBSERVATIONS):
        compile_expression("source == 'a' and kind == 'hl7' and exists(peer)", {kind})


def test_nesting_and_length_are_bounded() -> None:
    for opening, closing in (("(", ")"), ("not ", ""), ("not (", ")")):
        deepest = DEPTH_MAX if opening != "not (" else DEPTH_MAX // 2
        compile_expression(opening * (deepest - 1) + "true" + closing * (deepest - 1))
        with pytest.raises(ExpressionError, match="nested more than 64 deep"):
            compile_expression(opening * deepest + "true" + closing * deepest)
    compile_expression("true" + " " * (TEXT_CHARS_MAX - 4))
    with pytest.raises(ExpressionError, match="longer than 4096 characters"):
        compile_expression("true" + " " * (TEXT_CHARS_MAX - 3))


def test_a_long_row_of_alternatives_is_no_depth() -> None:
    compile_expression(" or ".join(["exists(bed)"] * 200))


def test_the_keywords_that_routes_need_are_known() -> None:
    asked = compile_expression("Modality == 'CT' or not (exists(SeriesDescription) and PID-3 == 'x') or spo2 < 3")

    assert needed_keywords([asked, compile_expression("StationName == Modality")]) == {
        "Modality",
        "SeriesDescription",
        "StationName",
    }


# Laws

TEXTS = st.text(alphabet="ab\"'\\ é\n*?[", min_size=1, max_size=5)
NUMBERS = st.decimals(-1000, 1000, places=2)
LITERALS = st.builds(Literal, TEXTS | NUMBERS)
HL7_PATHS = st.sampled_from(["MSH-9.1", "PID-3(2).1", "OBX[3]-5", "OBX[*]-5(*).1.2", "ZZ1-10"])
PATHS: st.SearchStrategy[Path] = st.one_of(
    HL7_PATHS.map(parse_path).map(Hl7Value),
    st.sampled_from([MODALITY, SERIES, COMMENT]),
    st.sampled_from([Measured("spo2", "value"), Measured("spo2", "unit"), Measured("x_a", "flags")]),
    st.sampled_from([Fact("source"), Fact("peer"), Fact("bed"), Fact("device.model")]),
)
RELATIONS = st.sampled_from(Relation)
LEAVES: st.SearchStrategy[Node] = st.one_of(
    st.builds(Constant, st.booleans()),
    st.builds(Comparison, PATHS, RELATIONS, LITERALS | PATHS),
    st.builds(Comparison, LITERALS, RELATIONS, PATHS),
    st.builds(Membership, PATHS, st.lists(LITERALS, min_size=1, max_size=3).map(tuple), st.booleans()),
    st.builds(Call, PATHS, st.sampled_from(Method), TEXTS),
    st.builds(Exists, PATHS),
)


def branches(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(Not, inner) | st.builds(And, parts) | st.builds(Or, parts)


NODES = st.recursive(LEAVES, branches, max_leaves=12)


def written(node: Node) -> str:
    """Write a tree as text, every branch in parentheses."""
    match node:
        case Constant(value):
            return str(value).lower()
        case Comparison(left, relation, right):
            return f"{operand(left)} {relation.value} {operand(right)}"
        case Membership(path, literals, negated):
            return f"{operand(path)} {'not ' * negated}in ({', '.join(map(operand, literals))})"
        case Call(path, method, argument):
            return f"{operand(path)}.{method.value}({operand(Literal(argument))})"
        case Exists(path):
            return f"exists({operand(path)})"
        case Not(part):
            return f"not ({written(part)})"
        case And(parts):
            return " and ".join(f"({written(part)})" for part in parts)
        case Or(parts):
            return " or ".join(f"({written(part)})" for part in parts)


def operand(part: Operand) -> str:
    match part:
        case Literal(str(value)):
            quote = "'" if value.count('"') > value.count("'") else '"'
            return quote + value.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote
        case Literal(value):
            return str(value)
        case Header(keyword):
            return keyword
        case Measured(key, attribute):
            return key if attribute == "value" else f"{key}.{attribute}"
        case Fact(name):
            return name
        case Hl7Value(path):
            return hl7_written(path)


def hl7_written(path: Hl7Path) -> str:
    text = path.segment + (f"[{path.occurrence}]" if path.occurrence else "") + f"-{path.field}"
    text += f"({path.repetition})" if path.repetition else ""
    return text + "".join(f".{part}" for part in (path.component, path.subcomponent) if part)


@settings(max_examples=300, deadline=None)
@given(NODES)
def test_what_is_written_is_read_as_the_same_tree(node: Node) -> None:
    assert parse(written(node), frozenset()) == node


WORDS = (
    'and or not in exists true ( ) , . == < "x" \' \\ 1 - PID-3 [ PID Modality spo2 unit contains source device é \0'
)
PIECES = st.sampled_from([*WORDS.split(" "), " ", "\n"])


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.lists(PIECES, max_size=20).map(" ".join) | st.lists(PIECES, max_size=20).map("".join))
def test_any_text_is_read_or_refused_with_a_position_inside_it(text: str) -> None:
    try:
        compile_expression(text)
    except ExpressionError as error:
        assert 0 <= error.position <= len(text)
