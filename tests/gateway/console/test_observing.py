"""/health and /metrics: what machines are told over TCP, and that it is nothing of a patient."""

import re
import socket
import threading
from pathlib import Path
from typing import NoReturn

import apsw
import pytest

import gateway.console.http_server as http_server
from gateway import delivery
from gateway.cli.main import main
from gateway.console.server import PORT_ALARM, ConsoleServer
from gateway.errors import StoreError
from gateway.store.recovery import MARKER_NAME
from tests.gateway.console.house import House, eventually

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)+)\})? (-?[0-9.e+-]+)')


def samples(page: str) -> dict[tuple[str, str], float]:
    found = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            parsed = SAMPLE.fullmatch(line)
            assert parsed, line
            assert (parsed[1], parsed[2] or "") not in found
            found[parsed[1], parsed[2] or ""] = float(parsed[3])
    return found


def test_health_is_ok_while_a_commit_works(house: House) -> None:
    answer = house.get("/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "alarms": 0, "reason": None})


def test_health_tells_of_alarms_and_stays_up(house: House) -> None:
    house.park(1)

    answer = eventually(lambda: (found := house.get("/health")).json()["alarms"] and found)

    assert (answer.status_code, answer.json()["status"]) == (200, "alarm")


def test_health_is_503_when_the_store_failed(house: House) -> None:
    house.do(_call(house.app._fail))

    answer = house.get("/health")

    assert (answer.status_code, answer.json()["status"]) == (503, "failed")
    assert answer.json()["reason"] == "the store has failed"


def test_a_store_that_a_reader_finds_damaged_has_failed_and_is_checked_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*given: object, **named: object) -> NoReturn:
        raise apsw.CorruptError("database disk image is malformed")

    with House(tmp_path) as house:
        monkeypatch.setattr(delivery, "read_due", damaged)
        house.keep(1)
        eventually(house.app.failed.is_set)
        with pytest.raises(StoreError, match="the store has failed"):
            house.keep(2)
        assert "store-failed" in house.alarms()

    assert (house.data / MARKER_NAME).exists()


def test_health_is_503_when_no_commit_reaches_the_disk(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse() -> None:
        raise StoreError("the store could not commit: FullError")

    monkeypatch.setattr(house.app, "prove_commit", refuse)

    assert house.get("/health").status_code == 503


def test_health_is_503_when_the_writer_hangs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.console.observing.COMMIT_TIMEOUT_S", 0.05)
    release = threading.Event()
    house.app.store.call(lambda connection: release.wait(10))
    try:
        answer = house.get("/health")
    finally:
        release.set()

    assert (answer.status_code, answer.json()["reason"]) == (503, "no commit reached the disk in time")


def test_metrics_are_well_formed_and_count(house: House) -> None:
    house.park(1, 2)
    house.keep(3)
    eventually(lambda: house.states()[3] == "delivered")

    answer = house.get("/metrics")
    found = samples(answer.text)

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert found["gateway_source_received_total", 'source="emr"'] == 3
    assert found["gateway_destination_accepted_total", 'destination="ris"'] == 3
    assert found["gateway_destination_parked", 'destination="ris"'] == 2
    assert found["gateway_destination_delivered_total", 'destination="ris"'] == 1
    assert found["gateway_source_state", 'source="emr",state="up"'] == 1
    assert found["gateway_source_state", 'source="emr",state="down"'] == 0
    assert found["gateway_destination_state", 'destination="pacs",state="disabled"'] == 1
    assert found["gateway_intake_open", ""] == 1
    assert found["process_resident_memory_bytes", ""] > 1 << 20
    assert found["process_open_fds", ""] > 3
    described = set(re.findall(r"^# TYPE (\S+) (?:counter|gauge)$", answer.text, re.MULTILINE))
    assert described >= {name for name, _ in found}


def test_what_an_archive_has_not_committed_to_is_told_where_it_is_asked(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "gateway_destination_uncommitted{" not in house.get("/metrics").text

    house.app.destinations["ris"].uncommitted = 3

    assert 'gateway_destination_uncommitted{destination="ris"} 3\n' in house.get("/metrics").text
    assert main(["status", "-c", str(house.config)]) == 0
    assert "ris: has not committed to 3 instances" in capsys.readouterr().out


def test_the_handbook_lists_every_metric_and_no_other(house: House) -> None:
    handbook = (Path(__file__).parents[3] / "docs" / "operating.md").read_text("utf-8")
    listed = set(re.findall(r"^\| `((?:gateway|process)_[a-z_]+)` \|", handbook, re.MULTILINE))

    assert set(re.findall(r"^# TYPE (\S+)", house.get("/metrics").text, re.MULTILINE)) == listed


def test_the_handbook_says_what_to_do_for_every_alarm() -> None:
    root = Path(__file__).parents[3]
    handbook = (root / "docs" / "operating.md").read_text("utf-8")
    code = "\n".join(file.read_text("utf-8") for file in (root / "gateway").rglob("*.py"))
    raised = set(re.findall(r'(?:alarms\.(?:put|hold)\(\s*|key = f(?="destination-)|_ALARM = )f?"([a-z-]+)[:"]', code))

    assert len(raised) >= 12
    assert raised == set(
        re.findall(r"^\| `([a-z]+-[a-z-]+|parked|quiet|uncommitted)(?::[SD])?` \|", handbook, re.MULTILINE)
    )


def test_nothing_of_a_patient_is_told(house: House) -> None:
    house.keep(4711)

    for path in ("/metrics", "/health"):
        assert "4711" not in house.get(path).text


def test_the_port_serves_nothing_else(house: House) -> None:
    for path in ("/", "/status", "/retry", "/control"):
        assert house.get(path).status_code == 404


def test_a_peer_that_asks_nothing_is_let_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "FIRST_REQUEST_S", 0.05)
    with socket.create_connection(("127.0.0.1", house.console_port), timeout=5) as silent:
        silent.sendall(b"GET /health HT")

        assert silent.recv(1) == b""


def test_a_port_in_use_is_an_alarm_and_data_goes_on(house: House) -> None:
    second = ConsoleServer(house.app)

    async def listen() -> None:
        await second.listen()

    house.do(listen())

    assert PORT_ALARM in house.alarms()
    house.keep(1)
    eventually(lambda: house.states() == {1: "delivered"})


async def _call(function) -> None:
    function()
