"""B. Braun Space and Compact plus pumps behind a SpaceStation, over BCC."""

from drivers.bbraun.driver import BBraun

__all__ = ["BBraun"]
