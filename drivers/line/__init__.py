"""Any Device that prints lines, described in the configuration."""

from drivers.line.driver import Line

__all__ = ["Line"]
