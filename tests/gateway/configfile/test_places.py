import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.configfile.places import read_marks, written_offset

FILE = Path("gateway.toml")
TEXT = """\
top.deep = 1
[gateway]
name = "é"  # comment
"q k" = 'x'

[[source]]
name = "a"
tls = { cert = "ü", key = "k" }
  [source.line]
  baud = 1
[[source]]
name = "b"
peers = [ # comment
  { ae_title = "x" },
  { ae_title = "y", host.name = 1 }, # comment
]
[source.options.waves]
n = 1
"""


def test_every_key_table_and_item_has_its_line_and_column() -> None:
    marks = read_marks(TEXT, FILE)

    assert {path: (mark.place.line, mark.place.column) for path, mark in marks.items()} == {
        ("top",): (1, 1),
        ("top", "deep"): (1, 1),
        ("gateway",): (2, 1),
        ("gateway", "name"): (3, 1),
        ("gateway", "q k"): (4, 1),
        ("source",): (6, 1),
        ("source", 0): (6, 1),
        ("source", 0, "name"): (7, 1),
        ("source", 0, "tls"): (8, 1),
        ("source", 0, "tls", "cert"): (8, 9),
        ("source", 0, "tls", "key"): (8, 21),
        ("source", 0, "line"): (9, 3),
        ("source", 0, "line", "baud"): (10, 3),
        ("source", 1): (11, 1),
        ("source", 1, "name"): (12, 1),
        ("source", 1, "peers"): (13, 1),
        ("source", 1, "peers", 0): (14, 3),
        ("source", 1, "peers", 0, "ae_title"): (14, 5),
        ("source", 1, "peers", 1): (15, 3),
        ("source", 1, "peers", 1, "ae_title"): (15, 5),
        ("source", 1, "peers", 1, "host"): (15, 21),
        ("source", 1, "peers", 1, "host", "name"): (15, 21),
        ("source", 1, "options"): (17, 1),
        ("source", 1, "options", "waves"): (17, 1),
        ("source", 1, "options", "waves", "n"): (18, 1),
    }


def test_a_place_prints_as_compilers_print_it() -> None:
    assert str(read_marks("a = 1", FILE)[("a",)].place) == "gateway.toml:1:1"


@pytest.mark.parametrize(
    ("written", "needle", "line", "column"),
    [
        ("'abc X'", "X", 1, 13),
        ('"abc X"', "X", 1, 13),
        (r'"\"é\u00e9\U0001F600\\ X"', "X", 1, 31),
        ("'''\nab\nc X'''", "X", 3, 3),
        ('"""ab\n X"""', "X", 2, 2),
        ('"""\\\n   ab \\\n\n   X"""', "X", 4, 4),
    ],
)
def test_a_character_of_a_text_has_its_place_in_the_file(written: str, needle: str, line: int, column: int) -> None:
    text = f"when = {written}"
    meaning = tomllib.loads(text)["when"]

    place = read_marks(text, FILE)[("when",)].inside(meaning.index(needle))

    assert (place.line, place.column) == (line, column)


@given(st.text(alphabet='ab"\\\n\té😀', max_size=20))
def test_each_character_of_a_written_text_is_found(meaning: str) -> None:
    escapes = {'"': r"\"", "\\": r"\\", "\n": r"\n", "\t": r"\t", "é": r"\u00e9", "😀": r"\U0001F600"}
    pieces = [escapes.get(char, char) for char in meaning]
    written = '"' + "".join(pieces) + '"'

    found = [written_offset(written, offset) for offset in range(len(meaning) + 1)]

    assert found == [1 + sum(map(len, pieces[:count])) for count in range(len(meaning) + 1)]


WORDS = st.text(alphabet="abc-_ é\"'", min_size=1, max_size=5)


@given(
    st.dictionaries(
        WORDS, st.lists(st.dictionaries(WORDS, st.integers(), max_size=3), min_size=1, max_size=3), max_size=3
    )
)
def test_every_path_that_tomllib_gives_has_a_mark(tables: dict[str, list[dict[str, int]]]) -> None:
    def quoted(key: str) -> str:
        return '"' + key.replace('"', r"\"") + '"'

    text = "".join(
        f"[[{quoted(name)}]]\n" + "".join(f"{quoted(key)} = {value}\n" for key, value in item.items())
        for name, items in tables.items()
        for item in items
    )
    assert tomllib.loads(text) == tables

    marks = read_marks(text, FILE)

    for name, items in tables.items():
        for index, item in enumerate(items):
            for key in item:
                mark = marks[(name, index, key)]
                assert text.split("\n")[mark.place.line - 1][mark.place.column - 1 :].startswith(quoted(key))
