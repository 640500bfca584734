import asyncio
import json
import os
import pty
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import probe as command
from gateway.cli.main import main
from gateway.driver import LineSettings
from gateway.model import DeviceIdentity
from gateway.probing import Finding, Report

FOUND = Finding(
    driver="nellcor",
    summary="Nellcor pulse oximeters",
    line=LineSettings(baud=19200),
    passive=True,
    readings=3,
    share=0.9,
    device=DeviceIdentity(manufacturer="Nellcor", model="N-595\x1b[2J"),
    keys=("spo2",),
)


@pytest.fixture
def silent() -> Iterator[str]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_a_recognised_device_is_named_and_its_stanza_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def found(port: str, *_: object, **__: object) -> Report:
        await asyncio.sleep(0)
        return Report(port=port, finding=FOUND, seconds=2.0)

    monkeypatch.setattr(command, "probe", found)
    status = main(["probe", "/dev/ttyS99"])
    printed = capsys.readouterr().out

    assert status == 0
    assert "recognised: nellcor" in printed
    assert "19200 baud, 8 data bits, parity none" in printed
    assert 'driver = "nellcor"\nport = "/dev/ttyS99"\nline = { baud = 19200 }\n' in printed
    assert "\x1b" not in printed


def test_silence_is_exit_1_with_hints_also_as_json(
    silent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gateway.probing.engine.SILENT_ALONE_S", 0.2)
    status = main(["probe", silent])
    printed = capsys.readouterr().out
    status_json = main(["probe", silent, "--json", "--driver", "masimo"])
    document = json.loads(capsys.readouterr().out)

    assert (status, status_json) == (1, 1)
    assert "nothing recognised" in printed
    assert "silence" in printed
    assert document["recognised"] is False
    assert document["hints"][0].startswith("silence")


@pytest.mark.parametrize(
    ("words", "told"),
    [(["/dev/none"], "No such file"), (["/dev/null", "--driver", "masimoo"], "did you mean 'masimo'")],
)
def test_what_is_wrong_is_said_in_one_line(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["probe", *words])
    said = capsys.readouterr().err

    assert status == 1
    assert told in said
    assert said.count("\n") == 1
