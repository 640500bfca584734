"""Which polls keep a monitor talking, and when each is due (sheet sections 5, 10).

    extended   asked once, results come by themselves; renewed at two thirds of its period, or when it is silent
    single     asked anew every `every_s`

A monitor that refuses an extended poll is asked by single polls; one that refuses those too is left alone for a while.
"""

from dataclasses import dataclass

from drivers.philips_intellivue import requests
from drivers.philips_intellivue.requests import Accepted, Extension

PERIOD_S = 600.0  # for how long an extended poll is asked for; 0x00493E00 ticks, as public clients do
RENEW_S = PERIOD_S * 2 / 3
SILENT_S = 5.0
SLOW_SILENT_S = 30.0  # waves, enumerations: a monitor without any may have nothing to send
ALERT_S, CONTEXT_S, PATIENT_S, SYSTEM_S, PRODUCTION_S = 2.0, 60.0, 10.0, 120.0, 600.0
REFUSED_PAUSE_S = 300.0
TICKS_A_SECOND = 8000


@dataclass(slots=True)
class Poll:
    """One thing that is asked for. `number` is the client's own number of it, echoed in every result."""

    number: int
    polled: int
    group: int
    every_s: float
    extended: bool = False
    silent_s: float = SILENT_S
    asked_at: float | None = None
    heard_at: float | None = None
    invoke: int = -1
    not_before: float = float("-inf")

    @property
    def due(self) -> float:
        """Return when to ask, the past for at once."""
        if self.asked_at is None:
            return self.not_before
        if not self.extended:
            return max(self.asked_at + self.every_s, self.not_before)
        heard = self.asked_at if self.heard_at is None else max(self.heard_at, self.asked_at)
        return min(self.asked_at + RENEW_S, heard + self.silent_s)

    def ask(self, invoke: int, now: float) -> bytes:
        """Return the request."""
        self.invoke, self.asked_at = invoke, now
        if self.extended:
            ticks = round(PERIOD_S * TICKS_A_SECOND)
            return requests.poll_extended(invoke, self.number, self.polled, self.group, ticks)
        return requests.poll(invoke, self.number, self.polled, self.group)

    def refuse(self, now: float) -> None:
        """Take notice that the monitor refused: an extended poll becomes a single one, a single one rests."""
        self.asked_at = None
        if self.extended:
            self.extended = False
        else:
            self.not_before = now + REFUSED_PAUSE_S


def plan(accepted: Accepted | None, period_s: float, waves: bool) -> list[Poll]:
    """Return the polls of an association, in the order of asking.

    `accepted` is what the monitor granted; None (its Accept was not heard) counts as everything. `period_s` lies
    between two sets of numerics.
    """
    granted = Extension(0xFFFFFFFF) if accepted is None else accepted.extensions
    shortest_s = max(1.0, accepted.poll_period_s if accepted is not None else 1.0)
    extended = bool(granted & requests.NUMERICS)
    single_s = max(period_s, shortest_s)
    polls = [
        Poll(
            1,
            requests.CLASS_NUMERICS,
            requests.GROUP_VALUES,
            single_s,
            extended=extended,
            silent_s=max(SILENT_S, 2.5 * period_s),
        ),
        Poll(2, requests.CLASS_ALERTS, requests.GROUP_ALARMS, max(ALERT_S, shortest_s), extended=extended),
    ]
    if waves and granted & Extension.WAVES:
        polls.append(Poll(3, requests.CLASS_WAVES, requests.GROUP_ALL, SILENT_S, extended=True, silent_s=SLOW_SILENT_S))
    if granted & Extension.ENUMERATIONS:
        polls.append(
            Poll(
                4,
                requests.CLASS_ENUMERATIONS,
                requests.GROUP_VALUES,
                max(ALERT_S, shortest_s),
                extended=extended,
                silent_s=SLOW_SILENT_S,
            )
        )
    return [
        *polls,
        Poll(5, requests.CLASS_PATIENT, requests.GROUP_PATIENT, max(PATIENT_S, shortest_s)),
        Poll(6, requests.CLASS_MDS, requests.GROUP_PRODUCTION, PRODUCTION_S),
        Poll(7, requests.CLASS_NUMERICS, requests.GROUP_STATIC, max(CONTEXT_S, shortest_s)),
        Poll(8, requests.CLASS_MDS, requests.GROUP_ALL, max(SYSTEM_S, shortest_s)),
    ]
