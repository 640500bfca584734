"""GE and Datex-Ohmeda monitors on the S/5 computer interface (DRI)."""

from drivers.datex_s5.driver import DatexS5

__all__ = ["DatexS5"]
