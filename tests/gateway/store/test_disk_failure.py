"""The store on a disk that fails: errors of the real system calls, put in by strace."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = "tests.gateway.store.keep_until_failure"


def run(folder: Path, inject: str) -> tuple[int, list[str]]:
    """Run the program with injected errors; return its exit status and what became of input after input."""
    strace = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={inject.partition(':')[0]}", "-e", f"inject={inject}"]
    done = subprocess.run(
        [*strace, sys.executable, "-m", PROGRAM, str(folder)], capture_output=True, timeout=60, check=False, cwd=ROOT
    )
    return done.returncode, [json.loads(line)["event"] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "inject", ["fdatasync:error=EIO:when=40+", "fdatasync:error=EIO:when=40", "pwrite64:error=EIO:when=360+"]
)
def test_after_a_failed_sync_or_write_nothing_is_acknowledged_and_the_process_ends(tmp_path: Path, inject: str) -> None:
    status, said = run(tmp_path, inject)

    first_refusal = said.index("refused")
    assert said[:first_refusal].count("accepted") > 5
    assert "accepted" not in said[first_refusal:]
    assert said[-1] == "failed"
    assert status == 1


def test_a_disk_that_was_full_for_a_while_refuses_and_goes_on(tmp_path: Path) -> None:
    status, said = run(tmp_path, "pwrite64:error=ENOSPC:when=360..375")

    assert said.count("refused") > 0
    assert said[-1] == "accepted"
    assert "failed" not in said
    assert status == 0
