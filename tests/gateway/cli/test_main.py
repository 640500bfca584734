"""The command line itself: help, exit statuses, where the configuration comes from, how fast it starts."""

import errno
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.cli.main import _COMMANDS, main
from gateway.cli.output import clean, duration, print_table, size
from gateway.cli.run import LineFormatter

CONFIG = """
[gateway]
data_dir = "{data}"
[[source]]
name = "emr"
type = "mllp"
listen = "127.0.0.1:2575"
[[destination]]
name = "ris"
type = "mllp"
host = "127.0.0.1"
port = 9
"""

CONTRACT = (
    "run check status messages message deliveries retry discard resend drivers backup verify demo version"  # interface
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG.format(data=tmp_path / "data"))
    return file


def test_every_command_of_the_contract_is_there() -> None:
    assert set(CONTRACT.split()) <= set(_COMMANDS)


@pytest.mark.parametrize("name", [None, *_COMMANDS])
def test_every_help_ends_with_an_example(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"] if name is None else [name, "--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"example:\n  gateway {name or 'check'}" in text
    assert "--config" in text


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["status", "--nonsense"],
        ["retry"],
        ["retry", "x"],
        ["retry", "0"],
        ["retry", "1", "--all"],
        ["retry", "1", "--destination", "ris"],
        ["discard", "1"],
        ["discard", "--why", "x"],
        ["resend", "1"],
        ["message"],
        ["message", "x"],
        ["message", "1", "--raw", "--json"],
        ["messages", "--since", "yesterday"],
        ["messages", "--kind", "x"],
        ["messages", "--limit", "0"],
        ["deliveries", "--state", "x"],
        ["backup"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)

    assert ended.value.code == 2
    assert "usage: gateway" in capsys.readouterr().err


WITHOUT_CONFIGURATION = ("drivers", "probe", "capture", "replay", "demo", "version")


@pytest.mark.parametrize("name", [name for name in _COMMANDS if name not in WITHOUT_CONFIGURATION])
def test_a_configuration_at_fault_is_status_78_with_every_fault(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(CONFIG.format(data=tmp_path / "data") + 'prot = 1\n[console]\nlisten = "nowhere"\n')
    more = {
        "message": ["1"],
        "retry": ["1"],
        "discard": ["1", "--why", "x"],
        "resend": ["1", "--to", "ris"],
        "backup": [str(tmp_path / "b.tar")],
        "send": ["a.dcm", "--to", "ris"],
        "echo": ["ris"],
    }
    online_only = {"acknowledge": ["clock-stepped"], "reload": []}
    words = [name, "-c", str(file), *more.get(name, []), *online_only.get(name, [])]

    status = main(words)

    if name in online_only:  # they speak to an agent that may run on the older, sound file; none does
        assert status == 1
        return
    lines = capsys.readouterr().err.splitlines()
    assert status == 78
    assert [line.partition(": ")[0] for line in lines] == [f"{file}:13:1", f"{file}:15:1"]


def test_a_file_that_is_not_there_is_status_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-c", str(tmp_path / "none.toml")]) == 78
    assert "none.toml" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_configuration_is_named_before_or_after_the_command(
    place: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["-c", str(config)]

    status = main([*named, "check"] if place == "before" else ["check", *named])

    assert status == 0
    assert "1 sources, 1 destinations, no faults" in capsys.readouterr().out


def test_without_a_name_the_file_of_the_working_folder_is_taken(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gateway.configfile.loading.SYSTEM_FILE", config.parent / "no-such-file")
    monkeypatch.chdir(config.parent)

    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith("gateway.toml: ")


def test_a_bug_is_one_line_without_what_it_was_about(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stumble(*_: object) -> None:
        raise RuntimeError("patient 4711")

    monkeypatch.setattr("gateway.cli.status.call", stumble)

    assert main(["status", "-c", str(config)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gateway: internal error: RuntimeError at test_main.py:")
    assert error.count("\n") == 1
    assert "4711" not in error


@pytest.mark.parametrize("name", ["messages", "verify", "worklist", "deliveries"])
def test_a_data_folder_that_is_closed_to_this_user_is_no_bug(
    name: str, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.exists", refuse)

    assert main([name, "-c", str(config)]) == 1
    error = capsys.readouterr().err
    assert (
        error
        == f"gateway: {config.parent}/data/gateway.db: permission denied: run this as root or as the agent's user\n"
    )


def test_a_data_folder_that_cannot_be_is_named_with_its_key(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config.parent / "data"
    folder.write_text("a file")

    assert main(["run", "-c", str(config)]) == 1
    assert capsys.readouterr().err == f"gateway: data_dir: {folder}: File exists\n"


def test_an_output_that_takes_no_more_is_told_in_words(config: Path) -> None:
    command = f"{sys.executable} -m gateway.cli.main drivers --json > /dev/full"

    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)

    assert ended.returncode == 1
    assert ended.stderr.startswith("gateway: No space left on device\n")


def test_a_reader_that_goes_away_is_no_traceback(config: Path) -> None:
    command = f"{sys.executable} -m gateway.cli.main drivers --json | head -c 1"

    ended = subprocess.run(["bash", "-c", command], capture_output=True, timeout=30, check=False)

    assert ended.stderr == b""


def test_light_commands_import_no_heavy_rooms(config: Path) -> None:
    script = (
        "import sys; from gateway.cli.main import main; main(['status', '-c', sys.argv[1]]);"
        "heavy = {'pydicom', 'pynetdicom', 'starlette', 'uvicorn', 'uvloop', 'paho', 'serial'} & set(sys.modules);"
        "sys.exit(f'heavy: {heavy}' if heavy else 0)"
    )

    ended = subprocess.run([sys.executable, "-c", script, str(config)], capture_output=True, timeout=30, check=False)

    assert ended.returncode == 0, ended.stderr


def test_version_names_what_a_fault_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert main(["version", "--json"]) == 0

    assert time.monotonic() - began < 5
    found = json.loads(capsys.readouterr().out)
    assert {"gateway", "python", "sqlite", "apsw", "pydicom", "pynetdicom", "paho-mqtt", "pyserial"} <= set(found)
    assert tuple(map(int, found["sqlite"].split("."))) >= (3, 51, 3)


def test_a_line_of_the_log_tells_the_instant_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    record = logging.makeLogRecord(
        {"created": 1.25, "msecs": 250.0, "name": "gateway.app", "levelname": "INFO", "msg": "agent.started"}
    )

    line = LineFormatter().format(record)

    monkeypatch.undo()
    time.tzset()
    assert line == "1970-01-01T00:00:01.250Z INFO gateway.app agent.started"


def test_control_characters_are_never_printed() -> None:
    assert clean("a\x1b]0;title\x07b\r\n\x9b31m\u202ec") == "a ]0;title b   31m c"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")],
)
def test_sizes_are_told_in_words(value: int, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7500, "2 h 5 min"), (200_000, "2 d 7 h")]
)
def test_times_are_told_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_only_the_last_column_shows_a_long_reason_whole(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "certificate verify failed: " + "x" * 80 + " has expired"

    print_table(("NAME", "LAST ERROR"), [("n" * 100, reason)])

    shown = capsys.readouterr().out.splitlines()[1]
    assert shown.endswith(reason)
    assert "n" * 79 + "…" in shown
