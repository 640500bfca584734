"""The running agent on a disk that fails: errors put into its system calls by strace."""

import subprocess
from pathlib import Path

import pytest

from tests.crash.probes import OUT_OF_RESOURCES, ask_dicom, ask_mllp
from tests.crash.world import World
from tests.system.agents import HEAD, Agent, free_port

MESSAGES = 60
TIMEOUT_S = 20.0

CONFIG = (
    HEAD
    + """
[[source]]
name = "emr"
type = "mllp"
listen = "127.0.0.1:{mllp}"
[[source]]
name = "imaging"
type = "dicom"
listen = "127.0.0.1:{dicom}"
"""
)


def start(folder: Path, inject: str, *only: str) -> tuple[World, Agent]:
    """Start an agent whose system calls fail as told, on all files or only on one below its data folder."""
    world = World(folder, folder / "data")
    world.listening = {"mllp": free_port(), "dicom": free_port(), "console": free_port()}
    world.config.write_text(CONFIG.format(data=world.data, **world.listening), "utf-8")
    call = inject.partition(":")[0]
    prefix = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={inject}"]
    for name in only:
        (world.data / name).mkdir(parents=True)
        prefix += ["-P", str(world.data / name)]
    return world, Agent(world.config, folder / "log", prefix=prefix)


def end(agent: Agent) -> None:
    """Stop the agent below strace, where it still runs."""
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children")
    if agent.process.poll() is None:
        subprocess.run(["kill", "-TERM", *children.read_text("ascii").split()], check=False)
        agent.process.wait(TIMEOUT_S)


def ask(world: World) -> str:
    """Return the acknowledgement code of one message, empty where nobody answers any more."""
    try:
        return ask_mllp(world)[0]
    except (OSError, AssertionError, KeyError):
        return ""


@pytest.mark.parametrize("inject", ["fdatasync:error=EIO:when=30+", "fdatasync:error=EIO:when=30"])
def test_after_a_failed_sync_nothing_is_acknowledged_and_the_agent_ends(tmp_path: Path, inject: str) -> None:
    world, agent = start(tmp_path, inject)
    try:
        answers = [ask(world) for _ in range(MESSAGES)]
        first = next(place for place, answer in enumerate(answers) if answer != "AA")

        assert first > 5
        assert "AA" not in answers[first:]
        assert agent.process.wait(TIMEOUT_S) == 1
        assert (world.data / "gateway.db.open").exists()
    finally:
        end(agent)


def test_an_instance_whose_name_cannot_be_synced_is_answered_with_a700(tmp_path: Path) -> None:
    world, agent = start(tmp_path, "fsync:error=EIO", "spool/objects")
    try:
        assert ask_dicom(world) == OUT_OF_RESOURCES
        assert ask_mllp(world)[0] == "AA"  # the store's own log is another file
    finally:
        end(agent)
