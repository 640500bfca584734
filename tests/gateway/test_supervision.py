import asyncio
from collections.abc import Callable

import pytest

from gateway import supervision
from gateway.clock import ManualClock
from gateway.errors import LinkError
from gateway.supervision import HEALTHY_S, RESTART_S_MAX, supervise

WAIT_S = 10.0


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses asked for; none is waited."""
    asked: list[float] = []
    turn = asyncio.sleep

    async def sleep(seconds: float) -> None:
        asked.append(seconds)
        await turn(0)

    monkeypatch.setattr(supervision.asyncio, "sleep", sleep)
    monkeypatch.setattr(supervision.random, "uniform", lambda low, high: high)
    return asked


async def watched(run: Callable[[], object], clock: ManualClock) -> list[str]:
    reasons: list[str] = []
    await asyncio.wait_for(supervise("x", run, reasons.append, clock), WAIT_S)  # type: ignore[arg-type]
    return reasons


async def test_what_breaks_is_started_again_with_a_growing_pause(pauses: list[float]) -> None:
    starts = 0

    async def run() -> None:
        nonlocal starts
        starts += 1
        if starts <= 10:
            raise LinkError("port busy")

    reasons = await watched(run, ManualClock())

    assert reasons == ["port busy"] * 10
    assert pauses == [0.5, 1, 2, 4, 8, 16, RESTART_S_MAX, RESTART_S_MAX, RESTART_S_MAX, RESTART_S_MAX]


async def test_after_a_healthy_run_the_pause_begins_small_again(pauses: list[float]) -> None:
    clock = ManualClock()
    starts = 0

    async def run() -> None:
        nonlocal starts
        starts += 1
        if starts == 4:
            clock.advance(HEALTHY_S + 1)
        if starts < 6:
            raise LinkError("lost")

    await watched(run, clock)

    assert pauses == [0.5, 1, 2, 0.5, 1]


async def test_a_bug_is_told_by_type_and_place_without_its_text(
    pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    starts = 0

    async def run() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise ValueError("PID|DOE^JANE")

    reasons = await watched(run, ManualClock())

    assert reasons[0].startswith("ValueError at test_supervision.py:")
    assert "DOE" not in reasons[0] + caplog.text
    assert "task.crashed" in caplog.text


async def test_cancelling_ends_it() -> None:
    entered = asyncio.Event()

    async def run() -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervise("x", run, lambda reason: None, ManualClock()))
    await asyncio.wait_for(entered.wait(), WAIT_S)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
