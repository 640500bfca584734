"""The commands beside a running agent and without one: what they print, what they change, what they leave behind."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.client import AgentNotRunning, call
from gateway.cli.main import main
from gateway.config import Config
from tests.gateway.console.house import House, eventually, free_port, hl7


class Shell:
    """Runs commands with the house's configuration."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._capsys = capsys

    def __call__(self, *words: object, status: int = 0) -> str:
        assert main([*map(str, words), "-c", str(self._config)]) == status
        printed = self._capsys.readouterr()
        self.error = printed.err
        return printed.out

    def json(self, *words: object, status: int = 0) -> Any:
        return json.loads(self(*words, "--json", status=status))


@pytest.fixture
def shell(house: House, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(house.config, capsys)


@pytest.fixture
def stopped(tmp_path: Path) -> House:
    """A house that has run: message 1 delivered, 2 and 3 parked."""
    with House(tmp_path) as house:
        house.keep(1)
        eventually(lambda: house.states() == {1: "delivered"})
        house.answer = "AE"
        house.keep(2, 3)
        eventually(lambda: house.states() == {1: "delivered", 2: "parked", 3: "parked"})
    return house


@pytest.fixture
def offline(stopped: House, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(stopped.config, capsys)


def test_status_of_a_running_agent(house: House, shell: Shell) -> None:
    house.park(1)
    eventually(lambda: "parked:ris" in house.alarms())

    text = shell("status")

    assert text.startswith("house: up ")
    assert "ALARM parked:ris since" in text
    document = shell.json("status")
    assert document["running"] is True
    assert document["destinations"][0]["parked"] == 1


def test_status_tells_how_old_a_last_error_is(house: House, shell: Shell) -> None:
    house.park(1)
    eventually(lambda: "parked:ris" in house.alarms())

    assert re.search(r"^ris .* \d+ s ago: AE", shell("status"), re.MULTILINE)


def test_status_keeps_the_order_of_the_file_after_a_reload(house: House, shell: Shell) -> None:
    before = [each["name"] for each in shell.json("status")["destinations"]]
    house.config.write_text(re.sub(r"\bport = \d+", f"port = {free_port()}", house.config.read_text(), count=1))

    shell("reload")

    assert [each["name"] for each in shell.json("status")["destinations"]] == before
    assert len(before) > 1


def test_status_without_an_agent_counts_from_the_store(offline: Shell) -> None:
    document = offline.json("status", status=1)

    assert document["running"] is False
    assert document["sources"][0]["received"] == 3
    ris = document["destinations"][0]
    assert (ris["accepted"], ris["delivered"], ris["parked"]) == (3, 1, 2)
    assert "no agent runs" in offline("status", status=1)


def test_status_without_agent_and_store_says_so(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(house.config.read_text().replace(str(house.data), str(tmp_path / "nothing")))

    Shell(other, capsys)  # the fixture's agent is not asked
    assert main(["status", "-c", str(other)]) == 1
    assert "no agent runs, and there is no store" in capsys.readouterr().err


def test_status_works_beside_a_file_that_is_no_toml_any_more(house: House, shell: Shell) -> None:
    house.config.write_text(house.config.read_text() + "x = [\n")

    assert shell.json("status")["running"] is True


def test_status_works_beside_a_file_that_was_broken_meanwhile(house: House, shell: Shell) -> None:
    house.config.write_text(house.config.read_text() + "prot = 1\n")

    assert shell.json("status")["running"] is True


def test_messages_are_found_by_what_a_person_knows(house: House, shell: Shell) -> None:
    house.keep(1, 2, 3)

    def found(*words: str) -> list[int]:
        return [message["id"] for message in shell.json("messages", *words)["messages"]]

    assert found() == [3, 2, 1]
    assert found("--limit", "2") == [3, 2]
    assert found("--search", "M2") == [2]
    assert found("--search", "4711") == [3, 2, 1]
    assert found("--search", "nobody") == []
    assert found("--source", "emr", "--kind", "hl7", "--since", "10m") == [3, 2, 1]
    assert found("--since", "2099-01-01T00:00:00Z") == []
    assert found("--since", "2020-01-01") == [3, 2, 1]
    assert found("--source", "other") == []
    assert found("--quarantined") == []
    eventually(lambda: set(house.states().values()) == {"delivered"})
    assert found("--state", "delivered") == [3, 2, 1]
    assert found("--state", "parked") == []


def test_messages_are_a_table_for_people(house: House, shell: Shell) -> None:
    house.keep(1)

    titles, line = shell("messages").splitlines()

    assert titles.split() == ["ID", "RECEIVED", "SOURCE", "KIND", "SIZE", "IDENTIFIER", "FAULT"]
    assert line.split()[2:] == ["emr", "hl7", str(len(hl7(1))), "M1", "-"]


def test_one_message_tells_its_deliveries_and_attempts(house: House, shell: Shell) -> None:
    (number,) = house.park(1)

    document = shell.json("message", 1)
    text = shell("message", 1)

    assert document["message"]["identifier"] == "M1"
    (delivery,) = document["deliveries"]
    assert (delivery["id"], delivery["destination"], delivery["state"]) == (number, "ris", "parked")
    (attempt,) = delivery["attempt_list"]
    assert attempt["verdict"] == "parked"
    assert attempt["acknowledgement"].startswith("MSH|")
    assert f"delivery {number} to ris: parked" in text
    assert "| MSA|AE|M1" in text
    assert "\r" not in text
    assert "4711" not in text


def test_raw_bytes_come_out_as_they_were_received(house: House, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    house.keep(1)

    assert main(["message", "1", "--raw", "-c", str(house.config)]) == 0

    assert capsysbinary.readouterr().out == hl7(1)


def test_a_message_that_is_not_there_is_status_1(shell: Shell) -> None:
    assert shell("message", 99, status=1) == ""
    assert shell.error == "gateway: there is no message 99\n"


def test_deliveries_are_listed_by_state_and_destination(offline: Shell) -> None:
    assert [one["id"] for one in offline.json("deliveries")["deliveries"]] == [3, 2, 1]
    assert [one["id"] for one in offline.json("deliveries", "--state", "parked")["deliveries"]] == [3, 2]
    assert offline.json("deliveries", "--destination", "pacs") == {"deliveries": []}
    assert offline.json("deliveries", "--limit", 1)["deliveries"][0]["state"] == "parked"
    assert "LAST ERROR" in offline("deliveries").splitlines()[0]


def test_acts_go_through_the_running_agent(house: House, shell: Shell) -> None:
    first, second, third = house.park(1, 2, 3)

    assert shell("discard", first, "--why", "sent by hand") == "1 discarded\n"
    assert shell.json("retry", second) == {"changed": 1}
    assert shell("retry", "--all", "--destination", "ris") == "1 parked deliveries to be sent again\n"
    eventually(lambda: house.states() == {first: "discarded", second: "delivered", third: "delivered"})
    assert shell("resend", 1, "--to", "ris") == "delivery 4 to ris\n"
    eventually(lambda: house.states()[4] == "delivered")
    assert [act for _, act, _ in house.audit()] == ["discard", "retry", "retry", "resend"]


def test_acts_without_an_agent_work_on_the_store(stopped: House, offline: Shell, tmp_path: Path) -> None:
    assert offline("discard", 2, "--why", "sent by hand") == "1 discarded\n"
    assert offline("retry", "--all") == "1 parked deliveries to be sent again\n"
    assert offline("resend", 1, "--to", "ris") == "delivery 4 to ris\n"
    offline("resend", 1, "--to", "rs", status=1)
    assert offline.error == "gateway: there is no destination 'rs' (did you mean 'ris'?)\n"
    offline("retry", 2, status=1)
    assert offline.error == "gateway: delivery 2 is discarded\n"

    with House(tmp_path) as again:
        eventually(lambda: again.states() == {1: "delivered", 2: "discarded", 3: "delivered", 4: "delivered"})
        assert [act for _, act, _ in again.audit()] == ["discard", "retry", "resend"]
        assert all("(uid " in who for who, _, _ in again.audit())


def test_acts_without_agent_and_store_make_none(tmp_path: Path, offline: Shell, stopped: House) -> None:
    for file in stopped.data.glob("gateway.db*"):
        file.unlink()

    offline("retry", 1, status=1)

    assert "there is no store" in offline.error
    assert not (stopped.data / "gateway.db").exists()


def test_reload_prints_what_was_done(house: House, shell: Shell) -> None:
    assert shell("reload") == "nothing has changed\n"
    house.config.write_text(
        house.config.read_text().replace('host = "127.0.0.1"\nport = 1\n', 'host = "::1"\nport = 1\n')
    )
    assert shell("reload") == "stopped destination pacs\nstarted destination pacs\n"


def test_reload_of_a_faulty_file_is_status_78(house: House, shell: Shell) -> None:
    house.config.write_text(house.config.read_text() + "prot = 1\n")

    shell("reload", status=78)

    assert "unknown key 'prot'" in shell.error


def test_what_needs_an_agent_says_that_none_runs(stopped: House, offline: Shell) -> None:
    offline("reload", status=1)
    assert offline.error == f"gateway: no agent runs in {stopped.data}\n"
    with pytest.raises(AgentNotRunning):
        call(stopped.data, "status")


def test_check_tells_faults_as_a_document(house: House, shell: Shell) -> None:
    assert shell.json("check")["ok"] is True
    house.config.write_text(house.config.read_text() + "prot = 1\n")

    document = shell.json("check", status=78)

    assert document["ok"] is False
    (fault,) = document["faults"]
    assert (fault["key"], fault["column"]) == ("route[0].prot", 1)
    assert "unknown key 'prot'" in fault["text"]


def test_check_tries_every_endpoint(house: House, shell: Shell, tmp_path: Path) -> None:
    device = '[[source]]\nname = "ox"\ntype = "device"\ndriver = "nonin"\nport = "/dev/no-such-port"\n'
    house.config.write_text(house.config.read_text().replace("enabled = false\n", "") + device)

    text = shell("check", "--connect", status=1)
    document = shell.json("check", "--connect", status=1)

    assert [(one["name"], one["ok"]) for one in document["endpoints"]] == [
        ("ris", True),
        ("pacs", False),
        ("ox", False),
    ]
    assert "ok      ris: connected to 127.0.0.1:" in text
    assert "FAILED  ox: /dev/no-such-port" in text


def test_an_endpoint_that_is_not_there_is_told_in_the_agents_words(house: House, shell: Shell) -> None:
    port = free_port()
    text = re.sub(r"port = \d+", f"port = {port}", house.config.read_text())
    house.config.write_text(text)

    assert f"FAILED  ris: 127.0.0.1:{port}: Connection refused" in shell("check", "--connect", status=1)


def test_drivers_are_listed_and_told(shell: Shell) -> None:
    assert {"nonin", "nellcor", "masimo"} <= {one["name"] for one in shell.json("drivers")["drivers"]}
    assert "DRIVER" in shell("drivers")
    one = shell.json("drivers", "nonin")
    assert one["models"]
    assert one["source"]
    assert {"name": "format", "type": one["settings"][0]["type"], "default": "'auto'"} == one["settings"][0]
    assert "unverified" in shell("drivers", "nonin")
    shell("drivers", "nonnin", status=1)
    assert shell.error == "gateway: there is no driver 'nonnin' (did you mean 'nonin'?)\n"


def test_the_configurations_default_is_the_systems_file() -> None:
    assert str(Config().gateway.data_dir) == "/var/lib/gateway"


def test_what_root_does_in_a_restored_folder_belongs_to_the_agent(stopped: House, offline: Shell) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes files for others")
    for path in stopped.data.iterdir():
        if path.name not in ("gateway.db", "spool"):  # these two are in a backup
            path.unlink()
    for path in (stopped.data, *stopped.data.rglob("*")):
        os.chown(path, 65534, 65534)

    offline("discard", 2, "--why", "sent by hand")

    assert {path.stat().st_uid for path in stopped.data.rglob("*")} == {65534}
