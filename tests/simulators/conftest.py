"""Starts simulators as the demo and the crash campaigns do: as programs."""

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

READY_TIMEOUT_S = 20.0
END_TIMEOUT_S = 20.0


@dataclass
class Running:
    """One simulator: what it said when ready, and how it ends."""

    process: subprocess.Popen[bytes]
    ready: dict[str, Any]

    @property
    def port(self) -> int:
        return int(self.ready["port"])

    def stop(self) -> dict[str, Any]:
        """Send SIGTERM and return what it counted."""
        self.process.terminate()
        return self.result()

    def result(self) -> dict[str, Any]:
        """Wait for the end and return the last line."""
        output, _ = self.process.communicate(timeout=END_TIMEOUT_S)
        return json.loads(output.splitlines()[-1])


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Give a function that starts `python -m simulators.NAME ...` and waits until it is ready."""
    processes = []

    def _start(name: str, *arguments: object) -> Running:
        command = [sys.executable, "-m", f"simulators.{name}", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=dict(os.environ))
        processes.append(process)
        return Running(process, json.loads(_first_line(process)))

    yield _start
    for process in processes:
        process.kill()
        process.communicate(timeout=END_TIMEOUT_S)


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(READY_TIMEOUT_S), "the simulator said nothing"
    return process.stdout.readline()
