"""BIS VISTA monitors on the binary serial protocol."""

from drivers.bis.driver import BisVista

__all__ = ["BisVista"]
