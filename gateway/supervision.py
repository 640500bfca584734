"""One task for each Source and lane, watched singly: what breaks is started again, its neighbours never feel it."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from gateway.clock import Clock
from gateway.errors import GatewayError, place_of

RESTART_S_MIN = 0.5
RESTART_S_MAX = 30.0
HEALTHY_S = 60.0

_log = logging.getLogger("gateway.supervision")


async def supervise(name: str, run: Callable[[], Awaitable[None]], failed: Callable[[str], None], clock: Clock) -> None:
    """Run until it ends by itself or is cancelled; after a failure again, with a growing pause.

    `failed` hears each reason. A GatewayError speaks for itself. Anything else is a bug: its type and place are
    logged, its text is not, because it may hold what a Device sent.
    """
    pause_s = RESTART_S_MIN
    while True:
        started = clock.monotonic()
        try:
            await run()
            return
        except GatewayError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - the border of a supervised task: one bug never stops another task
            reason = f"{type(error).__name__} at {place_of(error)}"
            _log.error("task.crashed task=%s error=%s", name, reason)
        failed(reason)
        if clock.monotonic() - started > HEALTHY_S:
            pause_s = RESTART_S_MIN
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
        pause_s = min(pause_s * 2, RESTART_S_MAX)
