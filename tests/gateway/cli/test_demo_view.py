"""What the demo counts and shows."""

import json
from pathlib import Path

from gateway.cli.demo_house import DEVICES, RECEIVERS, configuration
from gateway.cli.demo_view import JournalTail, LastValues, WorkflowTail, render, render_line, take_snapshot
from gateway.cli.main import main
from gateway.configfile import load


def _entry(name, **more):
    return json.dumps({"ordinal": 1, "id": name, "sha256": "", "at": 1.0, "bytes": 3, **more}) + "\n"


def _tails(folder):
    return tuple(JournalTail(receiver, folder / receiver.name) for receiver in RECEIVERS)


def _status(accepted, delivered):
    counts = {"accepted": accepted, "delivered": delivered}
    destinations = [{"name": receiver.name, "type": receiver.type, **counts} for receiver in RECEIVERS]
    return {"sources": [{"name": DEVICES[0].name, "state": "up", "received": 4}], "destinations": destinations}


def test_without_its_packages_the_demo_says_how_to_get_them(monkeypatch, capsys):
    monkeypatch.setattr("gateway.cli.demo.find_spec", lambda name: None)

    assert main(["demo"]) == 1
    assert "pip install 'medical-edge-gateway[demo]'" in capsys.readouterr().err


def test_the_configuration_is_without_fault(tmp_path):
    ports = {device.name: Path(f"/dev/pts/{number}") for number, device in enumerate(DEVICES)}
    file = tmp_path / "gateway.toml"
    file.write_text(configuration(tmp_path, ports, mllp=(20001, 20002), dicom=(20003, 20004), broker=20005, ris=20006))

    assert load(file).faults == ()


def test_a_repeat_counts_once_and_a_line_being_written_waits(tmp_path):
    tail, first, half = JournalTail(RECEIVERS[0], tmp_path / "j"), _entry("a") + _entry("a"), _entry("b")
    (tmp_path / "j").write_text(first + half[:10])
    tail.look()
    assert tail.received == 1
    (tmp_path / "j").write_text(first + half)
    tail.look()

    assert tail.received == 2


def test_state_on_the_feed_is_owed_to_nobody(tmp_path):
    tail = JournalTail(RECEIVERS[1], tmp_path / "j")
    (tmp_path / "j").write_text(_entry("a", topic="mdg/1/s/g/status") + _entry("b", topic="mdg/1/s/g/d/obs"))
    tail.look()

    assert tail.received == 1


def test_a_receiver_is_settled_when_all_that_is_owed_has_arrived(tmp_path):
    tails = _tails(tmp_path)
    for tail in tails:
        tail.path.write_text(_entry("a") + _entry("b"))

    for accepted, delivered, settled in ((2, 2, True), (3, 2, False), (3, 3, False), (1, 1, True)):
        snapshot = take_snapshot(1.0, _status(accepted, delivered), tails, LastValues())
        assert [one.settled for one in snapshot.receivers] == [settled] * 4


def test_last_values_come_from_the_feed_and_are_shown(tmp_path):
    values = LastValues()
    observations = [{"key": "spo2", "value": 97, "unit": "%"}, {"key": "pulse", "absent": "sensor-off"}]
    topic = f"mdg/1/site/demo/{DEVICES[0].device_id}/obs"
    values.take(json.dumps({"topic": topic, "payload": {"observations": observations}}))
    values.take("not JSON")
    values.take(json.dumps({"done": True}))
    snapshot = take_snapshot(12.0, _status(2, 1), _tails(tmp_path), values)

    assert snapshot.devices[0].values == {"spo2": "97 %", "pulse": "sensor-off"}
    assert any("spo2 97 %" in line for line in render(snapshot))
    assert "emr 0/1/2" in render_line(snapshot)


def test_the_scheduled_workflow_is_counted(tmp_path):
    tail = WorkflowTail(tmp_path / "j")
    lines = [_entry("a", act="started"), _entry("b", act="stored"), _entry("c", act="commitment", committed=3)]
    (tmp_path / "j").write_text("".join(lines) + _entry("d", act="other")[:9])
    snapshot = take_snapshot(1.0, _status(0, 0), _tails(tmp_path), LastValues(), tail)

    assert [snapshot.workflow[act] for act in ("started", "stored", "commitment", "error")] == [1, 1, 3, 0]
    assert any("commitment 3" in line for line in render(snapshot))


def test_documents_of_one_message_count_once(tmp_path):
    tail = JournalTail(RECEIVERS[1], tmp_path / "j")
    documents = [
        _entry(name, topic=f"mdg/1/s/g/d/{kind}", seq=seq)
        for name, kind, seq in (("a", "obs", 1), ("b", "wave", 1), ("c", "wave", 2))
    ]
    (tmp_path / "j").write_text("".join(documents))
    tail.look()

    assert tail.received == 2
