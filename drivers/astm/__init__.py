"""Laboratory and point-of-care analysers over ASTM E1381 and E1394 (CLSI LIS01-A2, LIS02-A2)."""

from drivers.astm.driver import Astm

__all__ = ["Astm"]
