"""`gateway worklist`: what is scheduled, what a Modality sees, and why the rest is missing."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.main import main
from gateway.dataset import Element
from gateway.formats.hl7 import read_header
from gateway.formats.orders import read_changes
from gateway.orders import OrderRules
from gateway.store.store import Store
from gateway.store.worklist import keep_query
from tests.gateway.orders_hl7 import omi, orm
from tests.gateway.store.stores import Outcomes, incoming, open_store

NOW = datetime(2026, 1, 15, 10, tzinfo=UTC)


def receive(store: Store, raw: bytes, number: int) -> None:
    changes = read_changes(raw, read_header(raw), "utf-8", OrderRules(), source="emr", at=NOW)
    told = Outcomes()
    store.keep(incoming(raw, str(number), changes=changes), (), told)
    told.wait(1)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    store = open_store(folder)
    unknown = orm().replace(b"A260115001", b"A9").replace(b"F88100", b"F9").replace(b"P55210", b"P9")
    messages = (orm(), omi(), orm("CA", "CA"), unknown.replace(b"||||CT|||", b"|||||||"))
    for number, raw in enumerate(messages):
        receive(store, raw, number)
    store.call(
        lambda connection: keep_query(
            connection,
            at=NOW,
            source="imaging",
            calling="CT1",
            called="GATEWAY",
            host="10.0.0.7",
            keys={0x00100010: Element("PN", ("ROE*",))},
            looked_at=3,
            answered=0,
            status=0,
            excluded={"A260115001/SPS260115001": ("PatientName",), "A260115002/SPS1": ("PatientName",)},
        )
    ).result(10)
    store.close()
    file = tmp_path / "gateway.toml"
    view = '[[worklist.view]]\nae_title = "US*"\nmodalities = ["US"]\n'
    file.write_text(f'[gateway]\ndata_dir = "{folder}"\n{view}')
    return file


def document(capsys: pytest.CaptureFixture[str], config: Path, *words: str) -> dict[str, Any]:
    assert main(["-c", str(config), "worklist", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_what_is_scheduled_is_listed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, config)["steps"]

    assert [step["step_id"] for step in found] == ["SPS1", "SPS2"]
    assert found[0]["stations"] == ["US3_AE", "US4_AE"]
    assert [step["status"] for step in document(capsys, config, "--all")["steps"]] == [
        "CANCELED",
        "SCHEDULED",
        "SCHEDULED",
    ]


def test_what_a_query_finds_and_why_not_the_rest(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--as", "US3_AE", "--query", "ScheduledProcedureStepID=SPS1", "PatientName=testcase*")
    found = document(capsys, config, *words)

    assert [step["step_id"] for step in found["steps"]] == ["SPS1"]
    assert [(step["step_id"], step["excluded_by"]) for step in found["excluded"]] == [
        ("SPS2", ["ScheduledProcedureStepSequence.ScheduledProcedureStepID"])
    ]


def test_what_modalities_asked_tells_why_one_was_missing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (query,) = document(capsys, config, "--queries", "--item", "SPS1")["queries"]

    assert query["excluded"] == {"A260115002/SPS1": ["PatientName"]}
    assert query["keys"] == ["PatientName=ROE*"] and query["calling_ae_title"] == "CT1"
    assert document(capsys, config, "--queries", "--as", "MR1")["queries"] == []


def test_orders_that_became_no_item_are_listed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = document(capsys, config, "--problems")["problems"]

    assert [(one["accession"], one["became_item"], one["reason"]) for one in problems] == [
        ("A9", False, "no item: Modality is missing")
    ]


@pytest.mark.parametrize("words", [[], ["--as", "US1"], ["--queries"], ["--problems"], ["--all"]])
def test_people_get_tables(config: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["-c", str(config), "worklist", *words]) == 0
    assert capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("word", ["PatientName", "Nonsense=1", "StudyDate=today"])
def test_a_query_that_is_none_fails_in_one_line(config: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main(["-c", str(config), "worklist", "--query", word]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
