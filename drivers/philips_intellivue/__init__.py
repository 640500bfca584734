"""Philips IntelliVue patient monitors: the data export interface over LAN and MIB/RS232."""

from drivers.philips_intellivue.driver import PhilipsIntellivue
from drivers.philips_intellivue.identity import Announcement, read_announcement

__all__ = ["Announcement", "PhilipsIntellivue", "read_announcement"]
