"""Loops that receive."""
