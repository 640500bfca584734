"""A short kill campaign as part of the suite, and the proof that its judge sees what goes wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.campaigns import run_kill
from tests.crash.judging import Verdict, judge
from tests.crash.world import World

KILLS = 5

Lines = list[dict[str, object]]


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Verdict]:
    folder = tmp_path_factory.mktemp("kill")
    return folder, run_kill(folder, KILLS, seed=4)


def test_everything_acknowledged_arrives_in_order_and_unchanged_though_the_agent_is_killed(
    campaign: tuple[Path, Verdict],
) -> None:
    verdict = campaign[1]

    assert verdict.notes == []
    assert verdict.good
    assert verdict.acknowledged > 100
    assert verdict.delivered > 300
    assert verdict.promised > 3
    assert verdict.committed > 30


def lose_one(lines: Lines) -> None:
    number = lines[len(lines) // 2]["id"]
    lines[:] = [line for line in lines if line["id"] != number]


def swap_two(lines: Lines) -> None:
    lines[0], lines[-1] = lines[-1], lines[0]


def change_one(lines: Lines) -> None:
    hl7 = next(line for line in lines if "-0-" in str(line["id"]))
    hl7["sha256"] = "0" * 64


def repeat_one_under_a_new_id(lines: Lines) -> None:
    lines.append({**lines[0], "id": "NEW-1"})


def lose_a_report(lines: Lines) -> None:
    del lines[next(place for place, line in enumerate(lines) if line.get("act") == "reported")]


def refuse_a_commitment(lines: Lines) -> None:
    report = next(line for line in lines if line.get("act") == "reported")
    report["committed"], report["failed"] = report["failed"], report["committed"]


def commit_to_something_else(lines: Lines) -> None:
    committed = next(line for line in lines if line.get("act") == "reported")["committed"]
    assert isinstance(committed, list)
    next(line for line in lines if line["id"] == committed[0])["sha256"] = "0" * 64


def commit_to_nothing(lines: Lines) -> None:
    for line in lines:
        if line.get("act") == "reported":
            line["committed"] = ["1.2.3"]


@pytest.mark.parametrize(
    ("journal", "tamper", "number"),
    [
        ("healthy", lose_one, "lost"),
        ("healthy", swap_two, "out_of_order"),
        ("healthy", change_one, "changed"),
        ("healthy", repeat_one_under_a_new_id, "repeated_new_id"),
        ("pacs", lose_one, "lost"),
        ("pacs", swap_two, "out_of_order"),
        ("imaging", lose_a_report, "lost"),
        ("imaging", refuse_a_commitment, "lost"),
        ("imaging", commit_to_something_else, "changed"),
        ("imaging", commit_to_nothing, "lost"),
    ],
)
def test_the_judge_sees_what_is_wrong(
    campaign: tuple[Path, Verdict], tmp_path: Path, journal: str, tamper: Callable[[Lines], None], number: str
) -> None:
    shutil.copytree(campaign[0], tmp_path / "copy", ignore=shutil.ignore_patterns("bed-*", "control.sock"))
    file = tmp_path / "copy" / f"{journal}.jsonl"
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    tamper(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    verdict = judge(World(tmp_path / "copy", tmp_path / "copy" / "data"), "tampered", KILLS, 0.0)

    assert getattr(verdict, number) > 0
    assert not verdict.good


def test_the_judge_sees_an_acknowledged_input_that_the_store_does_not_have(
    campaign: tuple[Path, Verdict], tmp_path: Path
) -> None:
    shutil.copytree(campaign[0], tmp_path / "copy", ignore=shutil.ignore_patterns("bed-*", "control.sock"))
    with (tmp_path / "copy" / "emr.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "FORGOTTEN-1", "sha256": "0" * 64, "code": "AA"}) + "\n")
    verdict = judge(World(tmp_path / "copy", tmp_path / "copy" / "data"), "tampered", KILLS, 0.0)

    assert verdict.lost == 3  # it is owed to three Destinations
