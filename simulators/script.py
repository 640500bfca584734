"""What goes wrong, and when: the script of a simulated monitor.

A step is written `KIND@START` or `KIND@START+SECONDS`, in seconds since the monitor was switched on:

    noise@5          random bytes before the next piece of data
    cut@5            the next piece of data loses its second half
    checksum@5       the next piece of data has a wrong checksum
    silence@5+3      nothing is sent for three seconds
    sensor-off@5+3   the sensors are off the patient
    restart@5+3      the monitor is off, and has forgotten all requests when it comes back
    unplug@5+3       the cable is out: the port is gone and comes back
    clock@5+3600     the clock jumps forward by an hour (a negative number: back)
    alarm@5+3        an alarm stands for three seconds
    demo@5+3         demo mode, of monitors that have one
"""

from dataclasses import dataclass

ONCE = ("noise", "cut", "checksum", "clock")
LASTING = ("silence", "sensor-off", "restart", "unplug", "alarm", "demo")


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: what, from when, for how long (of `clock`: how far it jumps)."""

    kind: str
    start_s: float
    seconds: float = 0.0


def read_step(text: str) -> Step:
    """Read one step. Raises ValueError when it is none."""
    kind, _, when = text.partition("@")
    sign = "-" if "-" in when else "+"
    start, _, seconds = when.partition(sign)
    if kind not in ONCE + LASTING:
        raise ValueError(f"expected one of {', '.join(ONCE + LASTING)}, got {kind!r}")
    return Step(kind, float(start), float(f"{sign}{seconds}") if seconds else 0.0)


class Script:
    """The steps of one monitor; those that happen once are given out once."""

    def __init__(self, steps: tuple[Step, ...] = ()) -> None:
        self._lasting = [step for step in steps if step.kind in LASTING]
        self._waiting = sorted((step for step in steps if step.kind in ONCE), key=lambda step: step.start_s)

    def stands(self, kind: str, age_s: float) -> bool:
        """Tell whether a lasting fault stands at this age."""
        return any(step.kind == kind and step.start_s <= age_s < step.start_s + step.seconds for step in self._lasting)

    def take(self, kind: str, age_s: float) -> Step | None:
        """Give out a fault that happens once, when its time has come."""
        for step in self._waiting:
            if step.kind == kind and step.start_s <= age_s:
                self._waiting.remove(step)
                return step
        return None

    def next_change(self, age_s: float) -> float | None:
        """Return the age at which the next lasting fault begins or ends."""
        edges = [edge for step in self._lasting for edge in (step.start_s, step.start_s + step.seconds)]
        return min((edge for edge in edges if edge > age_s), default=None)
