"""Trying every endpoint of a configuration: each Sender says hello, each Device's port is opened and closed.

A running agent holds its serial ports, so their test belongs before the start. Listeners are not tried: what they
need is that nobody else listens, which the start itself tells.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any

from gateway.assembly import Origins, make_sender
from gateway.clock import SystemClock
from gateway.config import Config, Destination, DeviceSource, SdcSource
from gateway.errors import ConfigError, GatewayError
from gateway.net.opening import open_stream
from gateway.registry import create_driver
from gateway.sources.link import line_of
from gateway.sources.sdc import try_provider
from gateway.spool import Spool

TRY_TIMEOUT_S = 30.0
TRIED_AT_ONCE = 16


async def try_endpoints(config: Config) -> list[dict[str, Any]]:
    """Return for each Destination and Device its name, whether it answered, and one line, in the file's order."""
    turns = asyncio.Semaphore(TRIED_AT_ONCE)
    tries = [_try(each.name, _try_destination(each, config), turns) for each in config.destinations if each.enabled]
    tries += [_try(each.name, _try_device(each), turns) for each in config.sources if isinstance(each, DeviceSource)]
    tries += [_try(each.name, try_provider(each), turns) for each in config.sources if isinstance(each, SdcSource)]
    return list(await asyncio.gather(*tries))


async def _try(name: str, attempt: Awaitable[str], turns: asyncio.Semaphore) -> dict[str, Any]:
    async with turns:
        try:
            async with asyncio.timeout(TRY_TIMEOUT_S):
                return {"name": name, "ok": True, "text": await attempt}
        except GatewayError as error:
            return {"name": name, "ok": False, "text": str(error)}
        except TimeoutError:
            return {"name": name, "ok": False, "text": f"no answer within {TRY_TIMEOUT_S:g} s"}


async def _try_destination(destination: Destination, config: Config) -> str:
    clock = SystemClock()
    sender = make_sender(destination, Origins(config.gateway), Spool(config.gateway.data_dir / "spool"), clock)
    try:
        return await sender.probe()
    finally:
        await sender.close()


async def _try_device(source: DeviceSource) -> str:
    driver, faults = create_driver(source.driver, source.options)
    if driver is None:
        raise ConfigError(*map(str, faults))
    stream = await open_stream(source.port, line_of(source.line, driver.about.line))
    await stream.close()
    return f"opened {source.port}"
