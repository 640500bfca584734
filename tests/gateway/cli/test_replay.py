import json
from pathlib import Path

import pytest

from gateway.cli.main import main
from gateway.net.replay import HEADER

LINES = [
    b"02/22/16 22:47:45 SN=0000056661 SPO2=098% BPM=097 PI=03.60% ALARM=0000 EXC=000800\r\n",
    b"02/22/16 22:47:46 SN=0000056661 SPO2=---% BPM=--- PI=--.--% ALARM=0000 EXC=000020\r\n",
]


def test_raw_bytes_are_read_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").write_bytes(b"\r\n" + b"".join(LINES))
    status = main(["replay", str(tmp_path / "raw"), "--driver", "masimo"])
    printed = capsys.readouterr().out.splitlines()

    assert status == 0
    assert "spo2=98 %  pulse_rate_spo2=97 /min" in printed[0]
    assert "spo2=NAV" in printed[1]
    assert "sensor off patient" in printed[1]
    assert printed[-1] == "2 results"


def test_a_recording_with_times_tells_them_and_options_reach_the_driver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = [b"0.5 0d0a\n", *(b"%d.25 %s\n" % (at, line.hex().encode()) for at, line in enumerate(LINES, 1))]
    (tmp_path / "timed").write_bytes(HEADER + b"\n" + b"".join(pieces))
    status = main(["replay", str(tmp_path / "timed"), "--driver", "masimo", "--option", "model=Rad-8", "--json"])
    readings = json.loads(capsys.readouterr().out)["readings"]

    assert status == 0
    assert [entry["at_s"] for entry in readings] == [1.25, 2.25]
    assert readings[0]["results"][0]["device"]["model"] == "Rad-8"
    assert readings[0]["results"][0]["observations"][0]["value"] == "98"


def test_bytes_that_nothing_can_be_read_of_are_told_and_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 20)
    status = main(["replay", str(tmp_path / "noise"), "--driver", "masimo"])
    printed = capsys.readouterr().out

    assert status == 1
    assert "not read" in printed
    assert "0 results" in printed
    assert all(letter.isprintable() for letter in printed.replace("\n", ""))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--driver", "masimoo"], "did you mean 'masimo'"),
        (["--driver", "masimo", "--option", "modle=1"], "did you mean 'model'"),
        (["--driver", "masimo", "--option", "model"], "expected KEY=VALUE"),
        (["--driver", "masimo"], "No such file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    status = main(["replay", str(tmp_path / "absent"), *more])
    said = capsys.readouterr().err

    assert status == 1
    assert told in said
    assert said.count("\n") == 1
