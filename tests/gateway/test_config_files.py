"""The files in config/: each loads, and gateway.toml explains every key there is."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config
from gateway.configfile import load
from gateway.expressions import compile_expression
from gateway.jsonschema import schema_of
from gateway.values import read_secret

CONFIG = Path(__file__).parents[2] / "config"
EXPLAINED = CONFIG / "gateway.toml"
EXAMPLES = sorted((CONFIG / "examples").glob("*.toml"))
DEFINITIONS = schema_of(Config)["definitions"]


@pytest.mark.parametrize("file", [EXPLAINED, *EXAMPLES], ids=lambda file: file.name)
def test_a_file_that_we_ship_has_no_fault(file: Path) -> None:
    assert [str(fault) for fault in load(file).faults] == []


@pytest.mark.parametrize("file", [EXPLAINED, *EXAMPLES], ids=lambda file: file.name)
def test_a_file_that_we_ship_names_its_schema_in_the_first_line(file: Path) -> None:
    directive, _, path = file.read_text().partition("\n")[0].partition(" ")

    assert directive == "#:schema"
    assert (file.parent / path).samefile(CONFIG / "gateway.schema.json")


def uncommented() -> dict[str, Any]:
    """Return gateway.toml as it is when every `#key = …` and `#[[table]]` is set."""
    return tomllib.loads(re.sub(r"(?m)^#(?=[a-z_]+ = |\[)", "", EXPLAINED.read_text()))


def test_the_examples_in_comments_are_right(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(re.sub(r"(?m)^#(?=[a-z_]+ = |\[)", "", EXPLAINED.read_text()))

    faults = [str(placed.fault) for placed in load(file).faults]

    assert [fault for fault in faults if "No such file" not in fault] == []


def stanza(name: str) -> dict[str, Any]:
    """Return all keys that gateway.toml shows in the tables which become this dataclass."""
    file = uncommented()
    definition = DEFINITIONS[name]["properties"]
    if "type" in definition:
        tables = [*file["source"], *file["destination"]]
        kind = "source" if name.endswith("Source") else "destination"
        return next(table for table in tables if table["type"] == definition["type"]["const"] and table in file[kind])
    places = {
        "GatewaySettings": [file["gateway"]],
        "WorklistSettings": [file["worklist"]],
        "WorklistView": file["worklist"]["view"],
        "OrderRules": [table["orders"] for table in file["source"] if "orders" in table],
        "Station": [one for table in file["source"] for one in table.get("orders", {}).get("stations", [])],
        "Route": file["route"],
        "ServerTls": [table["tls"] for table in file["source"] if "tls" in table and table["type"] != "sdc"],
        "SdcTls": [table["tls"] for table in file["source"] if "tls" in table and table["type"] == "sdc"],
        "ClientTls": [table["tls"] for table in file["destination"] if "tls" in table],
        "DicomPeer": [peer for table in file["source"] for peer in table.get("peers", [])],
        "Line": [table["line"] for table in file["source"] if "line" in table],
    }
    shown: dict[str, Any] = {}
    for table in places.get(name) or [file[name.lower()]]:
        shown |= table
    return shown


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_key_is_explained(name: str) -> None:
    assert set(DEFINITIONS[name]["properties"]) == set(stanza(name))


def test_the_defaults_in_comments_are_the_defaults() -> None:
    """A commented value that is no example shows what holds without it."""
    file = uncommented()
    for name, key in (("GatewaySettings", "gateway"), ("Retention", "retention"), ("Console", "console")):
        for shown, schema in DEFINITIONS[name]["properties"].items():
            if shown not in ("name", "facility") and "anyOf" not in schema:
                assert file[key][shown] == schema["default"], shown


def test_no_default_is_a_secret_or_a_way_in_from_outside() -> None:
    assert Config().console.listen.host == "127.0.0.1"


def documented() -> list[dict[str, Any]]:
    """Return the TOML of docs/configuration.md, one table a line, because some lines are alternatives."""
    text = (CONFIG.parent / "docs" / "configuration.md").read_text()
    blocks = re.findall(r"(?ms)^```toml\n(.*?)^```", text)
    return [tomllib.loads(line) for block in blocks for line in block.splitlines()]


def test_the_conditions_in_the_documentation_are_right() -> None:
    whens = [table["when"] for table in documented() if "when" in table]

    assert len(whens) >= 3
    for when in whens:
        compile_expression(when)


def test_the_secrets_in_the_documentation_are_right() -> None:
    secrets = [table["password"] for table in documented() if "password" in table]

    assert [next(iter(secret)) for secret in secrets] == ["credential", "file", "env"]
    for secret in secrets:
        read_secret(secret)
