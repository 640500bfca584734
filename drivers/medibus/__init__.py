"""Dräger MEDIBUS and MEDIBUS.X: ventilators, anaesthesia machines, warmers."""

from drivers.medibus.driver import Medibus

__all__ = ["Medibus"]
