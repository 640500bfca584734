import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config import Config
from gateway.jsonschema import schema_of, text
from gateway.typed import build

CONFIG = Path(__file__).parents[2] / "config"
SCHEMA = schema_of(Config)
CHECKER = jsonschema.Draft7Validator(SCHEMA)


def test_the_schema_in_the_tree_is_the_generated_one() -> None:
    assert (CONFIG / "gateway.schema.json").read_text() == text(), (
        "run: python -m gateway.jsonschema > config/gateway.schema.json"
    )


def test_the_module_prints_the_schema() -> None:
    done = subprocess.run([sys.executable, "-m", "gateway.jsonschema"], capture_output=True, timeout=30, check=True)

    assert json.loads(done.stdout) == SCHEMA


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", sorted(CONFIG.rglob("*.toml")), ids=lambda file: file.name)
def test_the_examples_fulfil_it(file: Path) -> None:
    CHECKER.validate(tomllib.loads(file.read_text()))


MLLP = {"name": "a", "type": "mllp", "listen": "h:1"}
DICOM_OUT = {"name": "p", "type": "dicom", "host": "h", "port": 104, "ae_title": "PACS"}
MQTT = {"name": "b", "type": "mqtt", "url": "mqtts://h"}


def tables(
    source: dict[str, Any] | None = None, destination: dict[str, Any] | None = None, **rest: Any
) -> dict[str, Any]:
    return {"source": [source or MLLP], "destination": [destination or DICOM_OUT], **rest}


GOOD = [
    tables(),
    tables({**MLLP, "listen": "[::]:0", "allow": ["10.0.0.0/8", "::1"], "frame_max": "1 MiB", "idle_timeout_s": 1}),
    tables(destination={**MQTT, "password": {"env": "X"}}),
    tables(route=[{"from": ["*"], "to": ["p"], "when": "true"}]),
    tables(retention={"max_size": 1 << 30, "reserve": "1.5 GB"}),
]
BAD = [
    tables({**MLLP, "prot": 1}),
    tables({"name": "a", "listen": "h:1"}),
    tables({"name": "a", "type": "mllp"}),
    tables({**MLLP, "name": "a b"}),
    tables({**MLLP, "listen": 2575}),
    tables({**MLLP, "connections_max": 0}),
    tables({**MLLP, "idle_timeout_s": 0}),
    tables({**MLLP, "frame_max": "16 Mbit"}),
    tables({**MLLP, "store_error": "aa"}),
    tables(destination={**DICOM_OUT, "port": 0}),
    tables(destination={**DICOM_OUT, "ae_title": "A\\B"}),
    tables(destination={**DICOM_OUT, "ae_title": "   "}),
    tables(destination={**DICOM_OUT, "ae_title": "A" * 17}),
    tables(destination={**DICOM_OUT, "parallel": 65}),
    tables(destination={**MQTT, "url": "http://h"}),
    tables(destination={**MQTT, "topic_root": "a/#"}),
    tables(destination={**MQTT, "password": "hunter2"}),
    tables(destination={**MQTT, "password": {"env": "A", "file": "B"}}),
    tables(route=[{"from": [], "to": ["p"]}]),
    tables(route=[{"from": ["a"]}]),
]


@pytest.mark.parametrize("table", GOOD)
def test_what_is_built_without_fault_fulfils_it(table: dict[str, Any]) -> None:
    assert build(Config, table)[1] == ()
    CHECKER.validate(table)


@pytest.mark.parametrize("table", BAD)
def test_what_has_a_fault_does_not(table: dict[str, Any]) -> None:
    assert build(Config, table)[1]
    assert not CHECKER.is_valid(table)


VALUES = st.sampled_from([0, 1, -1, 1.5, True, "", "x", "h:1", "mllp", "1 MiB", [], ["10.0.0.0/8"], {}, {"env": "X"}])
KEYS = st.sampled_from([*SCHEMA["definitions"]["MllpSource"]["properties"], "prot"])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_schema_and_builder_agree_about_a_source(change: dict[str, Any]) -> None:
    table = tables({**MLLP, **change})

    assert CHECKER.is_valid(table) == (build(Config, table)[1] == ())
