"""The control socket: the status document, operators' acts with their audit rows, and everything that is refused."""

import os
import stat
from typing import NoReturn

import pytest

from gateway.console.server import SOCKET_NAME
from gateway.errors import StoreError
from gateway.store.conflicts import Conflict, note_conflicts, standing_conflicts
from tests.gateway.console.house import House, eventually, free_port

WHO = {"who": "anna"}


def refuse(work: object) -> NoReturn:
    """Stand for a store on a full disk."""
    raise StoreError("the store could not commit: FullError")


def test_status_tells_every_part_with_its_totals(house: House) -> None:
    house.keep(1, 2)
    house.keep(2)
    eventually(lambda: list(house.states().values()) == ["delivered"] * 2)

    document = house.control("GET", "/status").json()

    assert document["running"] is True
    assert document["name"] == "house"
    assert document["started_at"].endswith("Z")
    (source,) = document["sources"]
    assert (source["name"], source["type"], source["state"]) == ("emr", "mllp", "up")
    assert (source["received"], source["repeated"], source["quarantined"]) == (2, 1, 0)
    ris, pacs = document["destinations"]
    assert (ris["accepted"], ris["delivered"], ris["pending"], ris["parked"], ris["discarded"]) == (2, 2, 0, 0, 0)
    assert (ris["state"], ris["oldest_pending_s"]) == ("up", 0.0)
    assert pacs["state"] == "disabled"
    assert document["store"]["intake"] == "open"
    assert document["store"]["size_bytes"] > 0
    assert document["alarms"] == []


def test_only_the_agents_user_may_connect(house: House) -> None:
    mode = (house.data / SOCKET_NAME).stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_parked_delivery_is_retried_and_its_alarm_ends(house: House) -> None:
    (number,) = house.park(1)
    eventually(lambda: "parked:ris" in house.alarms())

    answer = house.control("POST", "/retry", {"ids": [number], **WHO})

    assert (answer.status_code, answer.json()) == (200, {"changed": 1})
    eventually(lambda: house.states() == {number: "delivered"})
    assert "parked:ris" not in house.alarms()
    assert house.audit() == [(f"anna (uid {os.getuid()})", "retry", f"deliveries {number}")]


def test_all_parked_deliveries_of_a_destination_are_retried(house: House) -> None:
    house.park(1, 2, 3)

    answer = house.control("POST", "/retry", {"all": True, "destination": "ris", **WHO})

    assert answer.json() == {"changed": 3}
    eventually(lambda: list(house.states().values()) == ["delivered"] * 3)


def test_a_parked_delivery_is_discarded_with_its_reason(house: House) -> None:
    first, second = house.park(1, 2)
    eventually(lambda: "parked:ris" in house.alarms())

    answer = house.control("POST", "/discard", {"ids": [first], "why": "sent by hand", **WHO})

    assert answer.json() == {"changed": 1}
    assert house.states() == {first: "discarded", second: "parked"}
    assert "parked:ris" in house.alarms()
    assert house.audit()[-1][1:] == ("discard", f"deliveries {first}: sent by hand")


def test_an_act_wakes_only_the_lanes_it_concerns(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = house.park(1, 2)
    woken: list[str | None] = []
    monkeypatch.setattr(house.app, "rewind", woken.append)

    house.control("POST", "/retry", {"ids": [first], **WHO})
    house.control("POST", "/discard", {"ids": [second], "why": "x", **WHO})
    house.control("POST", "/resend", {"message": 1, "to": "ris", **WHO})
    house.control("POST", "/retry", {"all": True, **WHO})
    house.control("POST", "/note", {"act": "backup", "detail": "1 file", **WHO})

    assert woken == ["ris", "ris", "ris", None]


def test_a_message_is_sent_once_more_as_a_new_delivery(house: House) -> None:
    (message,) = house.keep(1)
    eventually(lambda: list(house.states().values()) == ["delivered"])

    answer = house.control("POST", "/resend", {"message": message.message_id, "to": "ris", **WHO})

    number = answer.json()["delivery"]
    eventually(lambda: house.states()[number] == "delivered")
    assert len(house.states()) == 2
    assert house.audit()[-1][1] == "resend"


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/retry", {"ids": [99]}, "there is no delivery 99"),
        ("/discard", {"ids": [99], "why": "x"}, "there is no delivery 99"),
        ("/resend", {"message": 99, "to": "ris"}, "there is no message 99"),
        ("/resend", {"message": 1, "to": "rs"}, "there is no destination 'rs' (did you mean 'ris'?)"),
        ("/resend", {"message": 1, "to": "pacs"}, "message 1 is hl7, which pacs (dicom) cannot carry"),
        ("/retry", {"all": True, "destination": "rs"}, "there is no destination 'rs' (did you mean 'ris'?)"),
        ("/retry", {"ids": [1]}, "delivery 1 is delivered"),
        ("/acknowledge", {"alarm": "clock-stepped"}, "the alarm clock-stepped does not stand"),
    ],
)
def test_an_act_that_does_not_fit_is_refused_and_changes_nothing(
    house: House, path: str, body: dict, says: str
) -> None:
    house.keep(1)
    eventually(lambda: list(house.states().values()) == ["delivered"])

    answer = house.control("POST", path, {**body, **WHO})

    assert (answer.status_code, answer.json()) == (409, {"error": says})
    assert house.states() == {1: "delivered"}
    assert house.audit() == []


def test_one_bad_number_among_good_ones_changes_none_and_no_counter(house: House) -> None:
    (number,) = house.park(1)

    answer = house.control("POST", "/discard", {"ids": [number, 99], "why": "x", **WHO})

    assert answer.status_code == 409
    assert house.states() == {number: "parked"}
    ris = house.control("GET", "/status").json()["destinations"][0]
    assert (ris["parked"], ris["discarded"], ris["pending"]) == (1, 0, 0)


MALFORMED: list[tuple[str, object]] = [
    ("/retry", b"no json"),
    ("/retry", b"[" * 100_000),
    ("/retry", b" " * (1 << 20) + b"{}"),
    ("/retry", {}),
    ("/retry", {"ids": [1]}),
    ("/retry", {"who": "anna"}),
    ("/retry", {"who": "anna", "ids": [1], "all": True}),
    ("/retry", {"who": "anna", "ids": ["1"]}),
    ("/retry", {"who": "anna", "ids": [-1]}),
    ("/retry", {"who": "anna", "ids": [1], "destination": "ris"}),
    ("/retry", {"who": "an\nna", "ids": [1]}),
    ("/discard", {"who": "anna", "ids": [1]}),
    ("/discard", {"who": "anna", "ids": [], "why": "x"}),
    ("/discard", {"who": "anna", "ids": [1], "why": ""}),
    ("/resend", {"who": "anna", "message": 1}),
    ("/resend", {"who": "anna", "message": 1, "to": "ris", "more": 1}),
    ("/acknowledge", {"who": "anna", "alarm": "disk-low"}),
]


def test_what_is_malformed_is_told_in_one_line(house: House) -> None:
    for path, body in MALFORMED:
        answer = house.control("POST", path, body)

        assert answer.status_code == 400, (path, body)
        assert answer.json()["error"]
        assert "\n" not in answer.json()["error"]


def test_other_paths_and_methods_are_not_there(house: House) -> None:
    assert house.control("GET", "/nothing").status_code == 404
    assert house.control("GET", "/retry").status_code == 405


def test_a_stepped_clock_is_acknowledged(house: House) -> None:
    house.loop.call_soon_threadsafe(house.app.alarms.put, "clock-stepped", "the clock was set")
    eventually(lambda: "clock-stepped" in house.alarms())

    answer = house.control("POST", "/acknowledge", {"alarm": "clock-stepped", **WHO})

    assert answer.status_code == 200
    assert "clock-stepped" not in house.alarms()
    assert house.audit()[-1][1:] == ("acknowledge", "clock-stepped")


@pytest.mark.parametrize("alarm", ["uid-conflict:emr", "worklist-disagrees:emr"])
def test_what_a_person_must_look_at_is_acknowledged_and_forgotten(house: House, alarm: str) -> None:
    conflict = Conflict(source="emr", message_id=2, earlier_id=1)
    house.app.store.call(lambda connection: note_conflicts(connection, [conflict])).result(10)
    house.loop.call_soon_threadsafe(house.app.alarms.put, alarm, "look at it")
    eventually(lambda: alarm in house.alarms())

    answer = house.control("POST", "/acknowledge", {"alarm": alarm, **WHO})

    assert answer.status_code == 200
    assert alarm not in house.alarms()
    standing = standing_conflicts(house.app.store.readers.connection)
    assert bool(standing) is not alarm.startswith("uid-conflict")


def test_an_alarm_that_ends_with_its_cause_is_not_acknowledged(house: House) -> None:
    answer = house.control("POST", "/acknowledge", {"alarm": "disk-low", **WHO})

    assert answer.status_code == 400
    assert "uid-conflict" in answer.json()["error"]


def test_a_reload_takes_over_what_changed_with_the_consoles_port(house: House) -> None:
    other = free_port()
    text = house.config.read_text().replace(f":{house.console_port}", f":{other}")
    house.config.write_text(text.replace(f":{house.mllp_port}", f":{free_port()}"))

    answer = house.control("POST", "/reload", WHO)

    assert answer.json() == {"changes": ["stopped source emr", "started source emr"]}
    house.console_port = other
    assert house.get("/health").status_code == 200
    assert house.audit()[-1][1:] == ("reload", "2 changes")


def test_a_reload_of_a_faulty_file_tells_every_fault_and_changes_nothing(house: House) -> None:
    house.config.write_text(house.config.read_text() + 'prot = 1\n[[route]]\nfrom = ["emr"]\nto = ["nobody"]\n')

    answer = house.control("POST", "/reload", WHO)

    assert answer.status_code == 422
    assert len(answer.json()["faults"]) == 2
    house.keep(1)
    eventually(lambda: house.states() == {1: "delivered"})


def test_a_reload_that_the_store_refuses_changes_nothing_and_the_next_one_all(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = house.config.read_text()
    house.config.write_text(text.replace('name = "ris"', 'name = "ris"\nack_timeout_s = 7'))
    with monkeypatch.context() as patch:
        patch.setattr(house.app.store, "call", refuse)
        answer = house.control("POST", "/reload", WHO)

    assert answer.status_code == 409
    assert house.control("POST", "/reload", WHO).json() == {
        "changes": ["stopped destination ris", "started destination ris"]
    }
    house.keep(1)
    eventually(lambda: house.states() == {1: "delivered"})


def test_a_data_folder_deeper_than_a_socket_path_may_be_is_served(tmp_path) -> None:
    deep = tmp_path / ("d" * 120)

    with House(tmp_path, data=deep) as house:
        from gateway.cli.client import call

        assert call(deep, "status")["name"] == "house"
        assert len(str(house.data / SOCKET_NAME)) > 108
