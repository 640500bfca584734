"""What delivery asks of a Sender."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from gateway.model import Parcel, Receipt


class Sender(Protocol):
    """Speaks to one Destination, in one lane of it.

    `batch_max` is how many Parcels it likes in one hand. Senders are opened by use and hold their connection between
    calls; a Sender is used by one task at a time.
    """

    batch_max: int

    def send(self, parcels: Sequence[Parcel]) -> AsyncGenerator[Receipt, None]:
        """Bring the Parcels in their order and yield a Receipt for each as its outcome is known.

        Ends early, without a Receipt for the rest, after a Receipt that asks for a retry. Raises LinkError when the
        transport fails (refused, timeout, closed) and TemporaryError when the peer says "not now" to everything;
        Parcels without a Receipt stay owed. Never raises for content.
        """
        ...

    async def probe(self) -> str:
        """Connect, say hello in the protocol's own word (C-ECHO, CONNECT), and tell in one line how it went.

        Raises LinkError or TemporaryError.
        """
        ...

    async def close(self) -> None:
        """Say goodbye and close; never raises for a peer that has gone."""
        ...
