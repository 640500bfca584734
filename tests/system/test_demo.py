"""`gateway demo` as a person starts it: every receiver gets something, and all that was accepted."""

import json
import subprocess
import sys

import pytest

from gateway.cli.demo_house import Child, DemoError

DEMO_TIMEOUT_S = 90.0


def test_the_demo_delivers_all_it_accepted_and_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-m", "gateway.cli.main", "demo", "--for", "6", "--json"]
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    ended = subprocess.run(command, capture_output=True, timeout=DEMO_TIMEOUT_S, env=environment, check=False)

    assert ended.returncode == 0, ended.stderr.decode()
    document = json.loads(ended.stdout)
    assert [(one["name"], one["type"]) for one in document["receivers"]] == [
        ("emr", "mllp"), ("broker", "mqtt"), ("pacs", "dicom"), ("ris", "mllp"),
    ]  # fmt: skip
    for one in document["receivers"]:
        assert one["accepted"] == one["delivered"] == one["received"] > 0
    assert [device["state"] for device in document["devices"]] == ["up"] * 7
    assert len({device["driver"] for device in document["devices"]}) >= 6
    assert all(device["received"] and device["values"] for device in document["devices"])
    workflow = document["workflow"]
    assert min(workflow[act] for act in ("queried", "started", "stored", "completed", "commitment")) > 0
    assert workflow["error"] == 0
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_does_not_start_is_named_with_its_last_words(tmp_path):
    child = Child("broker", [sys.executable, "-c", "raise SystemExit('no such module')"], tmp_path / "log")

    with pytest.raises(DemoError, match="broker did not start: no such module"):
        child.ready()
    child.join()
