"""The data folder belongs to one process at a time."""

import fcntl
import os
from pathlib import Path

from gateway.errors import StoreError

LOCK_NAME = "gateway.lock"


def hold_folder(folder: Path) -> int:
    """Hold the data folder for this process, made where it is missing; close the returned descriptor to let go.

    Raises StoreError when another process has it or it cannot be made.
    """
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _give_to_owner(handle, folder)
    except OSError as error:
        raise StoreError(f"data_dir: {error.filename or folder}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StoreError(f"{folder} is in use by another gateway") from error
    return handle


def _give_to_owner(handle: int, folder: Path) -> None:
    """Let the lock that root made belong to whom the folder belongs to: the agent must be able to open it."""
    owner, mine = folder.stat(), os.fstat(handle)
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (mine.st_uid, mine.st_gid):
        os.fchown(handle, owner.st_uid, owner.st_gid)
