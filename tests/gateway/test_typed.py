from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Config
from gateway.typed import Address, Fault, Network, Secret, Size, build, printed


@dataclass(frozen=True, kw_only=True)
class Inner:
    baud: int = 9600
    parity: Literal["none", "even"] = "none"


@dataclass(frozen=True, kw_only=True)
class Cat:
    type: Literal["cat"] = "cat"
    lives: int = field(default=9, metadata={"min": 1, "max": 9})


@dataclass(frozen=True, kw_only=True)
class Dog:
    type: Literal["dog"] = "dog"
    name: str


@dataclass(frozen=True, kw_only=True)
class Outer:
    text: str = ""
    whole: int = 0
    number: float = 0.0
    flag: bool = False
    path: Path = Path("/")
    choice: Literal["a", "b", 3] = "a"
    many: tuple[str, ...] = ()
    maybe: int | None = None
    inner: Inner = field(default_factory=Inner)
    inner_maybe: Inner | None = None
    pets: tuple[Cat | Dog, ...] = ()
    size: Size = Size(0)
    address: Address = Address("localhost", 1)
    networks: tuple[Network, ...] = ()
    network_maybe: Network | None = None
    secret: Secret | None = None
    options: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    either: int | Literal["auto"] = "auto"
    renamed: str = field(default="", metadata={"key": "from"})


EVERYTHING = {
    "text": "x",
    "whole": 3,
    "number": 2,
    "flag": True,
    "path": "/x",
    "choice": 3,
    "many": ["a", "b"],
    "maybe": 4,
    "inner": {"baud": 1200},
    "inner_maybe": {"parity": "even"},
    "pets": [{"type": "dog", "name": "Rex"}, {"type": "cat"}],
    "size": "1 KiB",
    "address": "[::1]:2",
    "networks": ["10.0.0.0/8"],
    "network_maybe": "fd00::1",
    "secret": {"env": "X"},
    "options": {"waves": ["ecg"], "deep": {"x": 1.5}},
    "counts": {"a": 1},
    "either": 5,
    "from": "there",
}


def test_every_kind_of_annotation_is_built() -> None:
    value, faults = build(Outer, EVERYTHING)

    assert faults == ()
    assert value == Outer(
        text="x",
        whole=3,
        number=2.0,
        flag=True,
        path=Path("/x"),
        choice=3,
        many=("a", "b"),
        maybe=4,
        inner=Inner(baud=1200),
        inner_maybe=Inner(parity="even"),
        pets=(Dog(name="Rex"), Cat()),
        size=Size(1024),
        address=Address("::1", 2),
        networks=(ip_network("10.0.0.0/8"),),
        network_maybe=ip_network("fd00::1"),
        secret=Secret(env="X"),
        options={"waves": ["ecg"], "deep": {"x": 1.5}},
        counts={"a": 1},
        either=5,
        renamed="there",
    )
    assert isinstance(value.number, float)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"txet": ""}, "txet: unknown key 'txet' (did you mean 'text'?)"),
        ({"zzz": ""}, "zzz: unknown key 'zzz'"),
        ({"text": 3}, "text: expected text, got the number 3"),
        ({"whole": True}, "whole: expected a whole number, got true"),
        ({"whole": "9600"}, "whole: expected a whole number, got the text '9600'"),
        ({"whole": 1.0}, "whole: expected a whole number, got the number 1.0"),
        ({"number": True}, "number: expected a number, got true"),
        ({"number": float("inf")}, "number: expected a finite number, got the number inf"),
        ({"flag": 1}, "flag: expected true or false, got the number 1"),
        ({"path": ""}, "path: expected a path, got the text ''"),
        ({"choice": "c"}, "choice: expected 'a', 'b' or 3, got the text 'c'"),
        ({"choice": 3.0}, "choice: expected 'a', 'b' or 3, got the number 3.0"),
        ({"many": "a"}, "many: expected a list, got the text 'a'"),
        ({"many": ["a", 1]}, "many[1]: expected text, got the number 1"),
        ({"inner": {"bawd": 1}}, "inner.bawd: unknown key 'bawd' (did you mean 'baud'?)"),
        ({"inner": []}, "inner: expected a table, got a list"),
        (
            {"inner_maybe": {"parity": "evn"}},
            "inner_maybe.parity: expected 'none' or 'even', got the text 'evn' (did you mean 'even'?)",
        ),
        ({"pets": {"type": "cat"}}, "pets: expected a list, got a table; each one begins with [[pets]]"),
        ({"pets": [{}]}, "pets[0].type: missing required key 'type': 'cat' or 'dog'"),
        (
            {"pets": [{"type": "dgo"}]},
            "pets[0].type: expected 'cat' or 'dog', got the text 'dgo' (did you mean 'dog'?)",
        ),
        ({"pets": [{"type": "dog"}]}, "pets[0].name: missing required key 'name'"),
        ({"pets": [{"type": "cat", "lives": 0}]}, "pets[0].lives: must be at least 1, got 0"),
        ({"pets": [{"type": "cat", "lives": 10}]}, "pets[0].lives: must be at most 9, got 10"),
        ({"size": "big"}, "size: expected a size such as \"512 MiB\" or a number of bytes, got the text 'big'"),
        (
            {"networks": ["x"]},
            "networks[0]: expected a network such as \"10.1.0.0/16\" or one address, got the text 'x'",
        ),
        ({"counts": {"a": "b"}}, "counts.a: expected a whole number, got the text 'b'"),
        ({"either": 1.5}, "either: expected a whole number or 'auto', got the number 1.5"),
        ({"renamed": ""}, "renamed: unknown key 'renamed'"),
    ],
)  # fmt: skip
def test_a_fault_says_where_what_was_expected_and_what_came(table: dict[str, Any], fault: str) -> None:
    value, faults = build(Outer, table)

    assert value is None
    assert [str(each) for each in faults] == [fault]


def test_every_fault_is_told_at_once() -> None:
    table = {"txt": 1, "whole": "x", "inner": {"baud": "y"}, "pets": [{"type": "cow"}, {"type": "dog"}]}

    _, faults = build(Outer, table, ("outer", 2))

    assert [printed(fault.path) for fault in faults] == [
        "outer[2].txt",
        "outer[2].whole",
        "outer[2].inner.baud",
        "outer[2].pets[0].type",
        "outer[2].pets[1].name",
    ]


def test_a_dataclass_may_refuse_its_own_values() -> None:
    @dataclass(frozen=True)
    class Picky:
        low: int = 0
        high: int = 0

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    value, faults = build(Picky, {"low": 3}, ("options",))

    assert (value, faults) == (None, (Fault(("options",), "low is above high"),))


def test_an_annotation_that_is_no_schema_is_its_authors_bug() -> None:
    @dataclass(frozen=True)
    class Wrong:
        when: complex = 0j

    with pytest.raises(TypeError, match="no schema"):
        build(Wrong, {"when": 1})


def test_a_hidden_value_is_not_shown() -> None:
    @dataclass(frozen=True)
    class Hiding:
        url: str = field(metadata={"pattern": "[a-z]+", "expects": "letters", "hidden": True})

    _, faults = build(Hiding, {"url": "u:hunter2@h"})

    assert str(faults[0]) == "url: expected letters"


def test_a_path_prints_as_it_is_written() -> None:
    assert printed(("source", 0, "listen")) == "source[0].listen"
    assert printed(("a b", "c")) == "'a b'.c"


TOML = st.recursive(
    st.text(max_size=8) | st.integers() | st.floats() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["gateway", "source", "destination", "route", "console", "type", "name", "listen", "from", "to", "tls"]
)


@settings(max_examples=200)
@given(st.dictionaries(KEYS | st.text(max_size=4), TOML, max_size=4), st.sampled_from([Config, Outer]))
def test_any_table_becomes_a_value_or_faults_and_never_raises(table: dict[str, Any], cls: type[Any]) -> None:
    value, faults = build(cls, table)

    assert (value is None) == bool(faults)
