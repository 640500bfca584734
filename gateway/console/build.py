"""Which product this is: its version and those of what it stands on."""

import platform
from importlib.metadata import PackageNotFoundError, version

from gateway.store.connection import sqlite_version

DISTRIBUTION = "medical-edge-gateway"
LIBRARIES = ("apsw", "paho-mqtt", "pydicom", "pynetdicom", "pyserial", "starlette", "uvicorn", "uvloop")


def product_version() -> str:
    """Return the installed version; `unknown` where the package was never installed."""
    return _version(DISTRIBUTION)


def versions() -> dict[str, str]:
    """Return the versions of everything that a fault report must name, the product first."""
    found = {"gateway": product_version(), "python": platform.python_version(), "sqlite": sqlite_version()}
    return found | {name: _version(name) for name in LIBRARIES}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
