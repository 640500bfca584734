"""The systemd unit: what it must say, and what systemd's own judge says of it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "systemd"
UNIT = FOLDER / "gateway.service"
EXPOSURE_MAX = 20  # of 100: below 2.0 is what the design asks for

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "WatchdogSec=30",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=always",
        "RestartPreventExitStatus=78",
        "LimitCORE=0",
        "User=gateway",
        "ProtectSystem=strict",
        "StateDirectory=gateway",
    ],
)
def test_the_unit_says(line: str) -> None:
    assert line in UNIT.read_text("utf-8").splitlines()


def test_an_adapter_that_is_plugged_in_after_the_start_is_allowed() -> None:
    lines = UNIT.read_text("utf-8").splitlines()

    for driver, device in (("usbserial", "ttyUSB"), ("cdc_acm", "ttyACM")):
        assert f"DeviceAllow=char-{device} rw" in lines
        for before in ("Wants=", "After="):
            assert any(line.startswith(before) and f"modprobe@{driver}.service" in line for line in lines)


def test_devices_that_are_found_by_multicast_may_be_asked() -> None:
    found = re.search(r"^IPAddressAllow=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)

    assert found
    assert "multicast" in found[1].split()


def test_systemd_waits_longer_than_the_agent_takes_to_stop() -> None:
    found = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text("utf-8"), re.MULTILINE)

    assert found
    assert int(found[1]) > 10


def test_the_user_of_the_unit_is_made() -> None:
    assert re.search(r"^u gateway ", (FOLDER / "gateway.sysusers").read_text("utf-8"), re.MULTILINE)


@needs_analyze
def test_the_sandbox_is_tight() -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(UNIT)]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 0, ended.stdout[-500:] + ended.stderr


@needs_analyze
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    unit = tmp_path / "gateway.service"
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/gateway/bin/gateway", "/bin/true"))

    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )

    assert str(unit) not in ended.stderr
    assert "gateway.service" not in ended.stderr
