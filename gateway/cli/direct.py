"""Acts on the store while no agent runs: this process is the writer for a moment, under the data folder's lock."""

import os
from typing import Any

from gateway.clock import SystemClock
from gateway.config import Config
from gateway.console.acts import ACTS, perform
from gateway.errors import GatewayError, StoreError
from gateway.store.lock import hold_folder
from gateway.store.recovery import FILE_NAME
from gateway.store.store import Store
from gateway.typed import build


def act_on_store(config: Config, name: str, body: dict[str, Any]) -> dict[str, int]:
    """Do an act and return what it did. Raises StoreError when there is no store or another process has it."""
    folder = config.gateway.data_dir
    if not (folder / FILE_NAME).exists():
        raise StoreError(f"there is no store in {folder}")
    act, faults = build(ACTS[name], body)
    if act is None:
        raise GatewayError("; ".join(map(str, faults)))
    clock = SystemClock()
    handle = hold_folder(folder)
    try:
        store = Store(folder, clock, failed=lambda error: None)
        try:
            return perform(act, store, config, clock.now)
        finally:
            store.close()
    finally:
        os.close(handle)
