"""A disk whose power can be cut: the forgetful file system, mounted, killed and mounted again."""

import os
import subprocess
import sys
from pathlib import Path

from tests.crash.world import wait_until

MOUNT_TIMEOUT_S = 20.0
PROGRAM = Path(__file__).with_name("forgetful_fs.py")


class Disk:
    """One mount point; `cut` forgets what was not synced."""

    def __init__(self, folder: Path) -> None:
        self._backing = folder / "backing"
        self.path = folder / "disk"
        for place in (self._backing, self.path):
            place.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def mount(self, leak: float = 0.0, seed: int = 1) -> None:
        """Mount what was kept."""
        options = ["--leak", str(leak), "--seed", str(seed)]
        self._process = subprocess.Popen([sys.executable, str(PROGRAM), str(self._backing), str(self.path), *options])
        wait_until(lambda: os.path.ismount(self.path), MOUNT_TIMEOUT_S)

    def cut(self) -> None:
        """Cut the power: what runs on it sees its calls fail from now on. Unmount with `clear`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def clear(self) -> None:
        """Take the dead mount away."""
        subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
