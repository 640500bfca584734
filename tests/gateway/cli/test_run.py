import asyncio

import pytest

from gateway.cli import run
from gateway.errors import StoreError


async def test_a_start_that_takes_long_asks_the_service_manager_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    asked_twice = asyncio.Event()

    def note(state: str) -> None:
        told.append(state)
        if len(told) == 2:
            asked_twice.set()

    async def start() -> None:
        await asked_twice.wait()

    monkeypatch.setattr(run, "notify", note)
    monkeypatch.setattr(run, "START_LOOK_S", 0.01)
    await run.started(start())

    assert told[:2] == ["EXTEND_TIMEOUT_USEC=60000000"] * 2


async def test_a_start_that_fails_is_told() -> None:
    async def start() -> None:
        raise StoreError("in use")

    with pytest.raises(StoreError, match="in use"):
        await run.started(start())
