"""What a Source and a Destination tell of themselves while they run: read by `gateway status` and /metrics.

Mutable on purpose: each is written by its one task and read by whoever asks. Totals that must survive a restart are
the store's counters, not these.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class LinkState(Enum):
    """How the way in or out stands."""

    STARTING = "starting"
    UP = "up"  # listening, connected, or delivering
    DOWN = "down"  # failed; tried again
    HELD = "held"  # waits for a person
    DISABLED = "disabled"


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
