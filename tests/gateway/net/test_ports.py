import asyncio
import os
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.driver import LineSettings
from gateway.errors import LinkError
from gateway.net.line_state import read_line_state, state_of
from gateway.net.ports import device_of, holder_of, stable_name
from gateway.net.serial import open_serial

HOLD = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
fcntl.flock(held, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def port() -> Iterator[str]:
    master, slave = os.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_a_link_is_resolved_and_a_device_has_its_stable_name(tmp_path: Path, port: str) -> None:
    (tmp_path / "usb-FTDI_1234-if00-port0").symlink_to(port)

    assert device_of(str(tmp_path / "usb-FTDI_1234-if00-port0")) == port
    assert stable_name(port, tmp_path) == str(tmp_path / "usb-FTDI_1234-if00-port0")
    assert stable_name("/dev/null", tmp_path) == "/dev/null"
    assert stable_name(port, tmp_path / "none") == port


async def test_a_second_opener_is_refused_and_told_who_holds_the_port(port: str) -> None:
    pipe = asyncio.subprocess.PIPE
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, port, stdin=pipe, stdout=pipe)
    assert other.stdout is not None
    async with asyncio.timeout(20):
        await other.stdout.readline()
        with pytest.raises(LinkError, match=rf"in use by process {other.pid} \(python"):
            await open_serial(port, LineSettings())
        await other.communicate(b"")

    stream = await open_serial(port, LineSettings())
    with pytest.raises(LinkError, match="in use by another Source of this gateway"):
        await open_serial(port, LineSettings())
    assert stream.device == port
    await stream.close()


def test_nobody_holds_what_nobody_has_open(tmp_path: Path) -> None:
    assert holder_of(str(tmp_path / "none")) is None


def test_a_pty_has_no_modem_lines(port: str) -> None:
    descriptor = os.open(port, os.O_RDWR | os.O_NOCTTY)
    try:
        assert read_line_state(descriptor) is None
    finally:
        os.close(descriptor)


def test_the_kernels_counters_are_told_by_name() -> None:
    # cts, dsr, rng, dcd, rx, tx, frame, overrun, parity, brk, buf_overrun
    counters = struct.pack("=11i36x", 1, 2, 3, 4, 500, 600, 7, 8, 9, 10, 11)

    state = state_of(termios.TIOCM_CTS | termios.TIOCM_DTR, counters)

    assert state.lines == ("DTR", "CTS")
    assert (state.framing_errors, state.parity_errors, state.overruns, state.breaks) == (7, 9, 19, 10)
    assert state_of(0, None).framing_errors is None
