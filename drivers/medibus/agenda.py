"""Which command is due when: the poll cycle of an initialised Device.

The text messages stand first: they tell a simulation, of which nothing may be published. The clock stands right before
the values, so that they carry the Device's time. Limits come before values once, at the beginning.
"""

from dataclasses import dataclass

from drivers.medibus.codes import Code

LIMITS_PERIOD_S = 30.0
SETTINGS_PERIOD_S = 10.0
NEVER = float("inf")


@dataclass
class _Item:
    code: Code
    period_s: float
    due: float = NEVER


class Agenda:
    """The commands that are asked again and again. `values_s` lies between two rounds of values and alarms."""

    def __init__(self, values_s: float) -> None:
        self._items = [
            _Item(Code.TEXTS, values_s),
            _Item(Code.LOW_1, LIMITS_PERIOD_S),
            _Item(Code.HIGH_1, LIMITS_PERIOD_S),
            _Item(Code.LOW_2, LIMITS_PERIOD_S),
            _Item(Code.HIGH_2, LIMITS_PERIOD_S),
            _Item(Code.CLOCK, values_s),
            _Item(Code.DATA_1, values_s),
            _Item(Code.DATA_2, values_s),
            _Item(Code.ALARMS_1, values_s),
            _Item(Code.ALARMS_2, values_s),
            _Item(Code.ALARMS_3, values_s),
            _Item(Code.CURVES, NEVER),
            _Item(Code.SETTINGS, SETTINGS_PERIOD_S),
        ]

    @property
    def due(self) -> float:
        """Return when the next command is due."""
        return min(item.due for item in self._items)

    def begin(self, now: float, left_out: frozenset[int]) -> None:
        """Make every command due at once but those that the Device does not answer."""
        for item in self._items:
            item.due = NEVER if item.code in left_out else now

    def bring_forward(self, code: Code, now: float) -> None:
        """Make a command due now, unless it is never asked."""
        for item in self._items:
            if item.code is code:
                item.due = min(item.due, now) if item.due < NEVER or item.period_s == NEVER else NEVER

    def leave_out(self, code: int) -> None:
        """Never ask this again until the next beginning."""
        for item in self._items:
            if item.code == code:
                item.due = NEVER

    def next(self, now: float) -> Code | None:
        """Take the first command that is due; it is due again after its period."""
        for item in self._items:
            if item.due <= now:
                item.due = max(item.due + item.period_s, now)
                return item.code
        return None
