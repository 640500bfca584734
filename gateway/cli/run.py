"""`gateway run`: the agent in the foreground, until SIGTERM; SIGHUP reloads."""

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from gateway.app import App
from gateway.cli.settings import config_path
from gateway.clock import SystemClock
from gateway.config import Config
from gateway.configfile import load
from gateway.console.server import ConsoleServer
from gateway.errors import GatewayError
from gateway.notify import notify, watchdog_interval_s
from gateway.supervision import supervise

START_LOOK_S = 20.0
START_MORE_S = 60  # asked for at each look: after a crash a large store is checked for minutes
STOP_TIMEOUT_S = 9.5  # ten seconds were promised
COMMIT_TIMEOUT_S = 10.0
SWITCH_INTERVAL_S = 0.0001  # loop and writer thread hand the interpreter over more often: shorter commits under load

REFUSED_ALARM = "configuration-refused"

_log = logging.getLogger("gateway.run")


def run(arguments: argparse.Namespace) -> int:
    """Run until told to stop; 0 after an orderly stop, 1 when the store failed."""
    path = config_path(arguments)
    loaded = load(path)
    config = loaded.required()
    _set_up_logging(config)
    for warning in loaded.warnings:
        _log.warning("configuration.doubtful place=%s what=%r", warning.place, warning.fault.text)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    return uvloop.run(_run(path, config))


class LineFormatter(logging.Formatter):
    """One event a line; the instant in UTC, as `gateway status` and `gateway messages` show it."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self.converter = time.gmtime


async def _run(path: Path, config: Config) -> int:
    app = App(config, SystemClock())
    stopping = asyncio.Event()
    reloading = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reloading.set)
    await started(app.start())
    console = ConsoleServer(app, _Reload(app, path))
    await console.start()
    notify("READY=1", f"STATUS={len(config.sources)} sources, {len(config.destinations)} destinations")
    tasks = [
        _watched("watchdog", lambda: _feed_watchdog(app), app),
        _watched("reload", lambda: _reload_on(reloading, console), app),
    ]
    await _first(stopping, app.failed)
    notify("STOPPING=1")
    for task in tasks:
        task.cancel()
    end_within(STOP_TIMEOUT_S)
    await console.stop()
    await app.stop()
    return 1 if app.failed.is_set() else 0


async def started(start: Coroutine[Any, Any, None]) -> None:
    """Start, and let systemd wait as long as that goes on: killed in the check, it would begin anew for ever."""
    starting = asyncio.create_task(start)
    while not (await asyncio.wait({starting}, timeout=START_LOOK_S))[0]:
        notify(f"EXTEND_TIMEOUT_USEC={START_MORE_S * 1_000_000}")
    await starting


def end_within(seconds: float) -> None:
    """End the process if it still runs after so long, even where its loop or a thread hangs.

    Nothing is lost by that: the store is made to be killed at any moment, and is checked at the next start.
    """

    def end() -> None:
        _log.error("agent.stop_timed_out seconds=%g", seconds)
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _watched(name: str, run: Callable[[], Awaitable[None]], app: App) -> asyncio.Task[None]:
    return asyncio.create_task(supervise(name, run, lambda reason: None, app.clock), name=name)


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _feed_watchdog(app: App) -> None:
    """Feed systemd's watchdog only while this loop turns and a commit reaches the disk."""
    interval_s = watchdog_interval_s()
    if interval_s is None:
        return
    while True:
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await app.prove_commit()
            notify("WATCHDOG=1")
        except (TimeoutError, GatewayError) as error:
            _log.error("watchdog.not_fed error=%s", type(error).__name__)
        await asyncio.sleep(interval_s)


class _Reload:
    """Takes the configuration files over, one call after the other; invalid ones leave the old in force."""

    def __init__(self, app: App, path: Path) -> None:
        self._app = app
        self._path = path
        self._turn = asyncio.Lock()

    async def __call__(self) -> list[str]:
        """Return what was done, in words. Raises ConfigError or StoreError, and an alarm stands until one succeeds."""
        async with self._turn:
            notify("RELOADING=1")
            try:
                config = (await asyncio.to_thread(load, self._path)).required()
                done = await self._app.reload(config)
            except GatewayError as error:
                _log.error("configuration.refused reason=%r", str(error))
                self._app.alarms.clear(REFUSED_ALARM)  # the newest reason is the one to read
                self._app.alarms.put(REFUSED_ALARM, f"the new configuration was refused, the old one stands: {error}")
                raise
            finally:
                notify("READY=1")
            self._app.alarms.clear(REFUSED_ALARM)
            for line in done:
                _log.info("configuration.applied change=%r", line)
            return done


async def _reload_on(wanted: asyncio.Event, console: ConsoleServer) -> None:
    while True:
        await wanted.wait()
        wanted.clear()
        with suppress(GatewayError):  # told by log and alarm
            await console.reload()


def _set_up_logging(config: Config) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(handlers=[handler], level=config.gateway.log_level.upper())
    for noisy in ("uvicorn", "pynetdicom", "pydicom", "paho"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
