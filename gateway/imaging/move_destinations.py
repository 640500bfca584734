"""Who can be named in a C-MOVE, and the association to such a one.

A peer of the Source with host and port, or a DICOM Destination, by AE title. One association carries a retrieval; where
its objects need more than 128 contexts, the rest is told as failed.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.config import Destination, DicomDestination, DicomPeer, DicomSource
from gateway.errors import ContentError
from gateway.imaging.retrieving import Outlet
from gateway.imaging.service import Held, Request
from gateway.net.requestor import MEDIUM_PRIORITY, Outgoing, Peer, RequestedAssociation, Wanted, open_association
from gateway.net.tls import client_context
from gateway.protocols.negotiation import CONTEXTS_MAX

CONNECT_TIMEOUT_S = 10.0
RESPONSE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveDestination:
    """Where an AE title is; `tls` builds its context anew for each call, None for plain TCP."""

    host: str
    port: int
    tls: DicomDestination | DicomPeer | None = None


class MoveDestinations:
    """Calls by AE title; a `Dial`."""

    def __init__(self, named: Callable[[], Mapping[str, MoveDestination]], clock: Clock) -> None:
        """Take who is where; it is asked for anew each time, because the configuration may be reloaded."""
        self._named = named
        self._clock = clock

    def __call__(
        self, ae_title: str, held: Sequence[Held], request: Request
    ) -> AbstractAsyncContextManager[Outlet] | None:
        """Return an association to be opened, None for a title that nobody named."""
        found = self._named().get(ae_title)
        return None if found is None else self._call(ae_title, found, held, request)

    @asynccontextmanager
    async def _call(
        self, ae_title: str, found: MoveDestination, held: Sequence[Held], request: Request
    ) -> AsyncIterator[Outlet]:
        peer = Peer(
            host=found.host,
            port=found.port,
            ae_title=ae_title,
            calling_ae_title=request.caller.called_ae_title,
            tls=_context(found.tls),
            server_name=found.tls.tls.server_name if found.tls is not None and found.tls.tls is not None else None,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            response_timeout_s=RESPONSE_TIMEOUT_S,
        )
        association = await open_association(peer, contexts_for(held), self._clock)
        try:
            yield _Outlet(association, (request.caller.calling_ae_title, request.message_id))
            await association.release()
        finally:
            await association.abort()


def named_in(source: DicomSource, destinations: Sequence[Destination]) -> dict[str, MoveDestination]:
    """Return who can be named in a C-MOVE to a Source: its peers with host and port, then the DICOM Destinations."""
    found = {
        each.ae_title: MoveDestination(host=each.host, port=each.port, tls=each)
        for each in destinations
        if isinstance(each, DicomDestination)
    }
    return found | {
        peer.ae_title: MoveDestination(host=peer.host, port=peer.port, tls=peer)
        for peer in source.peers
        if peer.host is not None and peer.port is not None
    }


def contexts_for(held: Sequence[Held]) -> list[Wanted]:
    """Return one context for each SOP Class and transfer syntax, at most 128."""
    pairs = dict.fromkeys((each.sop_class_uid, each.transfer_syntax) for each in held)
    return [Wanted(sop_class, (syntax,)) for sop_class, syntax in pairs][:CONTEXTS_MAX]


@dataclass(frozen=True, slots=True)
class _Outlet:
    association: RequestedAssociation
    originator: tuple[str, int]

    async def send(self, held: Held) -> int:
        if held.transfer_syntax not in self.association.accepts(held.sop_class_uid):
            raise ContentError("the peer does not take it in the syntax in which it lies")
        answer = await self.association.store(
            Outgoing(
                path=held.path,
                dataset_offset=held.dataset_offset,
                size=held.path.stat().st_size - held.dataset_offset,
                sop_class_uid=held.sop_class_uid,
                sop_instance_uid=held.sop_instance_uid,
                transfer_syntax=held.transfer_syntax,
            ),
            priority=MEDIUM_PRIORITY,
            move_originator=self.originator,
        )
        return answer.status


def _context(destination: DicomDestination | DicomPeer | None) -> ssl.SSLContext | None:
    return None if destination is None or destination.tls is None else client_context(destination.tls)
