"""The campaign `disk-full`: a small tmpfs that fills up while input comes, and is emptied again."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.probes import CANNOT_STORE, OUT_OF_RESOURCES, ask_dicom, ask_mllp
from tests.crash.world import Load, World, wait_until
from tests.system.agents import Agent

DISK_BYTES = 160 << 20
WATERMARK_BYTES = 16 << 20
RESERVE_BYTES = 4 << 20
CHANGE_TIMEOUT_S = 20.0
LOAD_S = 2.0
FULL_S = 3.0


class SmallDisk:
    """A tmpfs with a ballast file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self.path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.path)], check=True)
        self._ballast = self.path / "ballast"

    def leave_free(self, wanted: int) -> None:
        """Grow the ballast until no more than so many bytes are free."""
        with self._ballast.open("ab") as file:
            while (left := self.free() - wanted) > 0:
                try:
                    os.write(file.fileno(), bytes(min(left, 1 << 20)))
                except OSError:  # somebody else took the last bytes
                    return

    def free(self) -> int:
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=False)


def world_on(disk: SmallDisk, folder: Path, seed: int, module: str) -> World:
    """Return a world whose agent keeps its data on that disk."""
    load = Load(messages_per_s=60, instances_per_s=4)
    reserve, watermark = f"{RESERVE_BYTES >> 20} MiB", f"{WATERMARK_BYTES >> 20} MiB"
    return World(folder, disk.path / "data", seed, load, reserve=reserve, stop_intake_below=watermark, module=module)


def fill_and_empty(world: World, disk: SmallDisk, agent: Agent, rounds: int) -> tuple[Agent, list[str]]:
    """Fill the disk to below the watermark, to the brim, and to the brim with a restart; return what went wrong."""
    wrong: list[str] = []

    def expect(what: str, condition: Callable[[], bool]) -> None:
        try:
            wait_until(condition, CHANGE_TIMEOUT_S)
        except (TimeoutError, OSError) as error:
            wrong.append(f"{what}: {error or type(error).__name__}; now {_answers(world)}")

    for number in range(rounds):
        way = ("watermark", "brim", "restart")[number % 3]
        time.sleep(LOAD_S)
        disk.leave_free(WATERMARK_BYTES // 2 if way == "watermark" else 0)
        expect(f"{way}: AE 207", lambda: ask_mllp(world) == CANNOT_STORE)
        expect(f"{way}: A700", lambda: ask_dicom(world) == OUT_OF_RESOURCES)
        if way != "watermark":
            deadline = time.monotonic() + FULL_S
            while time.monotonic() < deadline:  # deliveries settle and take what the reserve gave
                disk.leave_free(0)
                time.sleep(0.1)
        if way == "restart":
            agent.kill()
            agent = world.agent()
            expect("restarted on a full disk: AE 207", lambda: ask_mllp(world) == CANNOT_STORE)
        if agent.process.poll() is not None:
            wrong.append(f"{way}: the agent ended with {agent.process.returncode}")
            agent = world.agent()
        disk.empty()
        expect(f"{way}: AA again", lambda: ask_mllp(world)[0] == "AA")
        expect(f"{way}: Success again", lambda: ask_dicom(world) == 0)
        print(f"  {number + 1} of {rounds} fillings, {way}", file=sys.stderr)
    return agent, wrong


def _answers(world: World) -> str:
    try:
        return f"{ask_mllp(world)}, {ask_dicom(world)}"
    except OSError as error:
        return str(error)
