"""gateway capture: of a port, of a running agent's source, on the screen; and that replay reads what it wrote."""

import json
import os
import pty
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.cli.capture import hex_rows
from gateway.cli.main import main
from gateway.net.replay import HEADER, read_recording, recorded
from gateway.tap import Direction
from tests.gateway.console.house import House, eventually

LINE = b"02/22/16 22:47:45 SN=0000056661 SPO2=098% BPM=097 PI=03.60% ALARM=0000 EXC=000800\r\n"


@contextmanager
def talking(data: bytes, every_s: float = 0.1) -> Iterator[str]:
    """A pty on which a Device says the same again and again."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(every_s):
            try:
                os.write(master, data)
            except BlockingIOError:  # nobody has opened it yet
                continue

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        stop.set()
        thread.join(10)
        os.close(master)
        os.close(slave)


def test_what_a_port_says_is_recorded_and_can_be_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bed.rec"
    with talking(LINE) as port:
        status = main(["capture", port, "-o", str(file), "--for", "0.6"])
    told = capsys.readouterr().err
    read = main(["replay", str(file), "--driver", "masimo", "--json"])
    readings = json.loads(capsys.readouterr().out)["readings"]

    assert (status, read) == (0, 0)
    assert f"recorded in {file}" in told
    assert file.stat().st_mode & 0o077 == 0
    assert file.read_bytes().startswith(HEADER + b"\n")
    assert readings[0]["results"][0]["observations"][0]["value"] == "98"


def test_a_silent_port_is_exit_1(tmp_path: Path) -> None:
    with talking(b"", every_s=60) as port:
        assert main(["capture", port, "-o", str(tmp_path / "x"), "--for", "0.1"]) == 1


def test_bytes_are_shown_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    with talking(b"\x02SPO2\x7f\r") as port:
        status = main(["capture", port, "--hex", "--for", "0.4", "--baud", "19200", "--parity", "even"])
    shown = capsys.readouterr().out.splitlines()

    assert status == 0
    assert shown[0].split(maxsplit=1)[1].startswith("<  02 53 50 4f 32 7f 0d")
    assert shown[0].endswith(".SPO2..")


def test_both_directions_of_a_running_source_are_recorded_and_told_in_the_audit_trail(
    house: House, tmp_path: Path
) -> None:
    file, line = tmp_path / "bed.rec", LINE
    with talking(line) as port:
        stanza = f'\n[[source]]\nname = "bed-1"\ntype = "device"\ndriver = "masimo"\nport = "{port}"\n'
        house.config.write_text(house.config.read_text() + stanza)
        house.control("POST", "/reload", {"who": "anna"})
        eventually(lambda: house.app.sources["bed-1"].received)
        status = main(["capture", "bed-1", "-o", str(file), "--for", "1", "-c", str(house.config)])
        house.config.write_text(house.config.read_text().replace(stanza, ""))
        house.control("POST", "/reload", {"who": "anna"})

    assert status == 0
    assert line in b"".join(data for _, data in read_recording(file))
    assert [(act, detail) for _, act, detail in house.audit() if act == "capture"] == [("capture", "bed-1")]


def test_a_source_that_is_none_is_said_in_one_line(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["capture", "emr", "--hex", "-c", str(house.config)])

    assert status == 1
    assert "no source 'emr' with a device behind it" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["/dev/x"], ["/dev/x", "--hex", "--talk"]])
def test_wrong_usage_is_exit_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["capture", *words])

    assert ended.value.code == 2


def test_what_was_said_to_the_device_is_no_part_of_a_replay(tmp_path: Path) -> None:
    file = tmp_path / "talk.rec"
    lines = [recorded(0.5, Direction.HEARD, b"a"), recorded(0.6, Direction.SAID, b"b"), "# a remark\n", "0.7 63\n"]
    file.write_text(f"{HEADER.decode()}\n{''.join(lines)}")

    assert list(read_recording(file)) == [(0.5, b"a"), (0.7, b"c")]


def test_long_pieces_have_rows_of_sixteen_bytes() -> None:
    assert hex_rows(1.5, Direction.SAID, bytes(range(0x41, 0x53))) == [
        "       1.500 >  41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50  ABCDEFGHIJKLMNOP",
        "                51 52                                            QR",
    ]
