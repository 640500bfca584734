"""`gateway studies` and `gateway steps`: read from the store, for people and for scripts."""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.orders import StepState
from gateway.store.commitments import NewCommitment, decide, keep_commitment
from tests.gateway.imaging.test_studies import ITEM, House, Route
from tests.gateway.store.stores import START


@pytest.fixture
def config(tmp_path: Path) -> Path:
    house = House(tmp_path / "data", Route(sources=("imaging",), to=("archive",)))
    house.item = ITEM
    house.receive(1, PatientID="OTHER")
    house.perform(StepState.COMPLETED, 1)
    house.receive(2, study="1.2.8", StudyInstanceUID="1.2.8", AccessionNumber="")
    asyncio.run(house.after(1))
    new = NewCommitment(
        transaction_uid="1.2.99",
        source="imaging",
        calling="CT1",
        called="GATEWAY",
        host="h",
        digest=b"",
        received_at=START,
        due_at=START,
        references=(),
    )
    house.store.call(lambda c: keep_commitment(c, new)).result(10)
    house.store.call(lambda c: decide(c, 1, [], START)).result(10)
    house.store.close()
    file = tmp_path / "gateway.toml"
    file.write_text(f'[gateway]\nname = "ward"\ndata_dir = "{tmp_path / "data"}"\n')
    return file


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()


def documents(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[dict[str, object]]]:
    assert main(words) == 0
    found: dict[str, list[dict[str, object]]] = json.loads(capsys.readouterr().out)
    return found


def test_studies_say_what_is_held_owed_and_complete(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    studies = documents(capsys, "studies", "-c", str(config), "--json")["studies"]

    (first,) = [study for study in studies if study["study_instance_uid"] == "1.2.7"]
    assert (first["held"], first["pending"], first["cause"]) == (1, 1, "mpps")
    assert first["disagreements"] == ["PatientID"]
    (second,) = [study for study in studies if study["study_instance_uid"] == "1.2.8"]
    assert (second["held"], second["completed_at"]) == (1, None)


def test_only_those_that_disagree(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "-c", str(config), "--disagreeing"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert "1.2.7" in lines[1] or "1.2.8" in lines[1]
    assert "PatientID" in "".join(lines)


def test_steps_and_commitments(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (step,) = documents(capsys, "steps", "-c", str(config), "--json")["steps"]
    assert (step["state"], step["sop_instance_uid"]) == ("COMPLETED", "1.2.500")
    (commitment,) = documents(capsys, "steps", "-c", str(config), "--commitments", "--json")["commitments"]
    assert (commitment["state"], commitment["calling"]) == ("decided", "CT1")

    assert main(["steps", "-c", str(config)]) == 0
    assert "A1" in capsys.readouterr().out
    assert main(["steps", "-c", str(config), "--commitments"]) == 0
    assert "CT1" in capsys.readouterr().out
