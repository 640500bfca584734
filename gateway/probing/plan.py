"""In which order a probe tries line settings and drivers, and for how long; pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, cast

from gateway.driver import About, Driver, LineSettings
from gateway.net.ports import device_of
from gateway.registry import create_driver

_NETWORK = ("tcp://", "listen://", "udp://", "socket://", "replay:")


def has_line(port: str) -> bool:
    """Tell whether line settings matter at a port: a real serial line does, a pty or a network port does not."""
    return not port.startswith(_NETWORK) and not device_of(port).startswith("/dev/pts/")


def settings_to_try(abouts: Iterable[About]) -> list[LineSettings]:
    """Return all line settings that a driver names, those of most drivers first, 9600 8N1 before all."""
    counted: Counter[LineSettings] = Counter()
    for about in abouts:
        counted.update({about.line, *about.other_lines})
    ordered = sorted(counted, key=lambda line: (line != LineSettings(), -counted[line], line.baud))
    return ordered or [LineSettings()]


def listener(driver: type[Driver]) -> Driver | None:
    """Return the driver as it listens without ever speaking; None where it needs options that we cannot guess."""
    return _made(driver, {"transmit": False} if has_transmit(driver) else {})


def speaker(driver: type[Driver], *, insisted: bool = False) -> Driver | None:
    """Return the driver as it asks; None where what it says first is not harmless, or it needs options.

    `insisted`: a person has named this Device, and what the driver would say to it anyway may be said.
    """
    return _made(driver, {}) if insisted or driver.about.harmless_polls else None


def _made(driver: type[Driver], options: dict[str, bool]) -> Driver | None:
    made, _ = create_driver(driver.about.name, options, drivers={driver.about.name: driver})
    return made


def has_transmit(driver: type[Driver]) -> bool:
    """Tell whether a driver can be told to listen only."""
    return any(one.name == "transmit" for one in fields(cast(Any, driver)))
