"""Nonin pulse oximeters: serial data formats 2, 7, 8 and 13, and the text output."""

from drivers.nonin.driver import Nonin

__all__ = ["Nonin"]
