"""Patient monitors and their gateways that speak HL7 v2."""

from drivers.hl7_monitor.driver import Hl7Monitor

__all__ = ["Hl7Monitor"]
