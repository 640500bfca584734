"""What a Source and a Destination tell of themselves while they run: read by `gateway status` and /metrics.

Mutable on purpose: each is written by its one task and read by whoever asks. Totals that must survive a restart are
the store's counters, not these.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from gateway.tap import Tap


class LinkState(Enum):
    """How the way in or out stands."""

    STARTING = "starting"
    UP = "up"  # listening, connected, or delivering
    DOWN = "down"  # failed; tried again
    HELD = "held"  # waits for a person
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineState:
    """A serial line right now: modem lines that are up (`CTS`), and what the driver of the port has counted.

    Counters are None where the port keeps none: framing and parity errors mean wrong settings, overruns a busy box.
    """

    lines: tuple[str, ...] = ()
    framing_errors: int | None = None
    parity_errors: int | None = None
    overruns: int | None = None
    breaks: int | None = None


@dataclass(slots=True)
class SourceStatus:
    """One Source since the agent started."""

    name: str
    type: str
    state: LinkState = LinkState.STARTING
    started_at: datetime | None = None
    connections: int = 0
    received: int = 0
    errors: int = 0
    lost: int = 0  # Readings of a streaming Device that were read and could not be kept
    last_received_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    notice: str | None = None  # why a Device that talks is not published (demo mode)
    device_clock_offset_s: float | None = None  # the Device's clock less ours
    port: str | None = None  # what the Stream is open on, links resolved
    line: Callable[[], LineState | None] | None = None  # asks the open port for its modem lines and error counters
    tap: Tap = field(default_factory=Tap)  # for who wants to see the bytes

    def saw_input(self, now: datetime) -> None:
        """Note one accepted input."""
        self.received += 1
        self.last_received_at = now

    def saw_error(self, reason: str, now: datetime) -> None:
        """Note a fault of a peer or of the link; the reason carries no patient data."""
        self.errors += 1
        self.last_error = reason
        self.last_error_at = now


@dataclass(slots=True)
class DestinationStatus:
    """One Destination since the agent started."""

    name: str
    type: str
    state: LinkState = LinkState.STARTING
    delivered: int = 0
    failures: int = 0
    last_delivered_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    next_try_at: datetime | None = None
    uncommitted: int | None = None  # Instances that an archive took and has not committed to, where it is asked
