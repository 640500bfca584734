"""The installed drivers, found by name in the entry-point group `gateway.drivers`.

A driver that cannot be imported never hides the others: it is logged and left out, and named where it is asked for.
"""

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gateway.driver import Driver
from gateway.typed import Fault, KeyPath, build, did_you_mean

GROUP = "gateway.drivers"

logger = logging.getLogger("gateway.registry")


def driver_names() -> tuple[str, ...]:
    """Return the names of the installed drivers in order, without importing any."""
    return tuple(sorted(_found()))


def installed_drivers() -> dict[str, type[Driver]]:
    """Import all installed drivers and return their classes by name, in the order of the names."""
    drivers = {}
    for name, entry in sorted(_found().items()):
        driver, reason = _load(entry)
        if driver is None:
            logger.error("driver.failed name=%s reason=%s", name, reason)
        else:
            drivers[name] = driver
    return drivers


def create_driver(
    name: str,
    options: Mapping[str, Any],
    path: KeyPath = (),
    drivers: Mapping[str, type[Driver]] | None = None,
) -> tuple[Driver | None, tuple[Fault, ...]]:
    """Build the driver `name` from its options; the driver is None when there is any fault.

    `path` is where the Device's stanza stands in the file: faults stand at its keys `driver` and `options`. `drivers`
    takes the place of the installed ones.
    """
    driver: type[Driver] | None
    if drivers is None:
        entry = _found().get(name)
        driver, reason = _load(entry) if entry else (None, _unknown(name, driver_names()))
    else:
        driver, reason = drivers.get(name), _unknown(name, drivers)
    if driver is None:
        return None, (Fault((*path, "driver"), reason),)
    return build(driver, options, (*path, "options"))


def _unknown(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    listed = f"installed are {', '.join(names)}" if names else "none is installed"
    return f"unknown driver {name!r}{did_you_mean(name, names)}; {listed}"


@cache
def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> tuple[type[Driver] | None, str]:
    """Return the class, or None and why it cannot be had."""
    try:
        driver = entry.load()
    except Exception as error:  # noqa: BLE001 - a driver is foreign code: whatever its import raises, the rest stands
        return None, f"driver {entry.name!r} could not be imported ({type(error).__name__}: {error})"
    if not isinstance(driver, type) or not hasattr(driver, "__dataclass_fields__") or not hasattr(driver, "open"):
        return None, f"{entry.value} is no driver: a dataclass with `about` and `open` is expected"
    return driver, ""
