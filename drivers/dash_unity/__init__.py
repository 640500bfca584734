"""GE Dash and Solar monitors on the Unity network; experimental."""

from drivers.dash_unity.driver import DashUnity

__all__ = ["DashUnity"]
