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
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StoreError(f"{folder} is in use by another gateway") from error
    return handle
