"""C-MOVE and C-GET: what the box still holds goes back to who asks (PS3.4, C.4.2, C.4.3).

C-MOVE sends to a peer that the Source's configuration names with host and port; C-GET sends on the association of the
request, in the contexts for which the peer took the SCP's role. Objects go as they lie. One that is not taken in its
transfer syntax, cannot be read, or is still to go when a move destination breaks off counts as failed, and its UID is
told at the end; what went before counts as completed.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from gateway.dataset import Element
from gateway.errors import ContentError, GatewayError, StoreError
from gateway.formats.dicom import read_meta
from gateway.formats.identifiers import decode, encode, tag_of
from gateway.imaging.holdings import Holdings
from gateway.imaging.query import Asked, read_asked, root_of
from gateway.imaging.service import (
    CANCELLED,
    IDENTIFIER_MISMATCH,
    SUCCESS,
    Exchange,
    Held,
    Outcome,
    Request,
    Suboperations,
)
from gateway.spool import Spool
from gateway.store.holdings import HeldObject, find_objects
from gateway.store.store import Store

UNABLE_TO_COUNT = 0xA701
MOVE_DESTINATION_UNKNOWN = 0xA801
UNABLE_TO_SEND = 0xA702
SOME_FAILED = 0xB000
INSTANCES_MAX = 50_000  # of one retrieval; what names more is refused, so that nobody takes a part for the whole
FAILED_UIDS_MAX = 10_000
FAILED_LIST = tag_of("FailedSOPInstanceUIDList")

_log = logging.getLogger("gateway.imaging")


class Outlet(Protocol):
    """Where Instances go: an association to a move destination, or the one of a C-GET."""

    async def send(self, held: Held) -> int:
        """Send one Instance and return the status; raises ContentError where the peer does not take it, LinkError."""
        ...


Dial = Callable[[str, Sequence[Held], Request], AbstractAsyncContextManager[Outlet] | None]
"""Opens an association to a move destination by AE title; None for a title that is not known. Raises LinkError."""


class _TooManyError(ContentError):
    """A request names more Instances than one retrieval brings."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a request names: Instances to be sent, and the UIDs of those whose files cannot be read."""

    held: list[Held] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def sop_instance_uids(self) -> list[str]:
        """Return the UIDs of all."""
        return [*self.unreadable, *(each.sop_instance_uid for each in self.held)]


@dataclass
class _Tally:
    """How a retrieval goes; `reason` is why the first one failed."""

    remaining: int
    completed: int = 0
    failed: list[str] = field(default_factory=list)
    warning: int = 0
    reason: str | None = None

    def suboperations(self, *, final: bool = False) -> Suboperations:
        """Return the counts; a final response leaves out what remains."""
        return Suboperations(
            remaining=None if final else self.remaining,
            completed=self.completed,
            failed=len(self.failed),
            warning=self.warning,
        )

    def count(self, uid: str, status: int | None) -> None:
        """Count one Instance by its status (None: not sent)."""
        self.remaining -= 1
        if status == SUCCESS:
            self.completed += 1
        elif status is not None and (status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116)):
            self.warning += 1
        else:
            self.failed.append(uid)


class Retrieving:
    """What C-MOVE and C-GET have in common."""

    def __init__(self, store: Store, holdings: Holdings, spool: Spool) -> None:
        """Take the index and where the objects lie."""
        self._store = store
        self._holdings = holdings
        self._spool = spool

    async def named(self, request: Request) -> Named:
        """Return what a request names. Raises ContentError for its identifier, StoreError."""
        identifier = decode(request.data, request.transfer_syntax)
        relational = request.sop_class_extended[:1] == b"\x01"
        asked = read_asked(identifier, root_of(request.sop_class_uid), relational=relational, retrieving=True)
        await self._holdings.catch_up()
        return await asyncio.to_thread(self._named, asked)

    def _named(self, asked: Asked) -> Named:
        rows: list[HeldObject] = []
        while page := find_objects(self._store.readers.connection, asked.narrowing, rows[-1].id if rows else 0):
            rows += page
            if len(rows) > INSTANCES_MAX:
                raise _TooManyError(f"more than {INSTANCES_MAX} instances")
        named = Named()
        for row in rows:
            try:
                named.held.append(self._held(row))
            except (ContentError, OSError, StoreError):  # broken, or its retention has passed in this moment
                named.unreadable.append(row.sop_instance_uid)
        return named

    def _held(self, row: HeldObject) -> Held:
        path = self._spool.path_of(row.object_name)
        meta = read_meta(path)
        return Held(
            path=path,
            dataset_offset=meta.dataset_offset,
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
            transfer_syntax=meta.transfer_syntax,
        )


class Getting:
    """Answers C-GET; a `Service`."""

    def __init__(self, retrieving: Retrieving) -> None:
        """Take what finds the Instances."""
        self._retrieving = retrieving

    async def __call__(self, request: Request, exchange: Exchange) -> Outcome:
        """Send what is asked for on the same association."""
        try:
            named = await self._retrieving.named(request)
        except ContentError as error:
            return _refused(request, error)
        return await _send_all(named, request, exchange, _OnSameAssociation(exchange))


class Moving:
    """Answers C-MOVE; a `Service`."""

    def __init__(self, retrieving: Retrieving, dial: Dial) -> None:
        """Take what finds the Instances, and what calls the move destination."""
        self._retrieving = retrieving
        self._dial = dial

    async def __call__(self, request: Request, exchange: Exchange) -> Outcome:
        """Send what is asked for to the move destination."""
        try:
            named = await self._retrieving.named(request)
        except ContentError as error:
            return _refused(request, error)
        call = self._dial(request.move_destination, named.held, request)
        if call is None:
            _log.warning("retrieval.refused source=%s reason=unknown-destination", request.caller.source)
            return Outcome(status=MOVE_DESTINATION_UNKNOWN, comment="move destination unknown: name it in peers")
        try:
            if not named.held:
                return _outcome(_tally_of(named), request)
            async with call as outlet:
                return await _send_all(named, request, exchange, outlet)
        except GatewayError as error:
            _log.warning("retrieval.failed source=%s reason=%s", request.caller.source, error)
            tally = _Tally(remaining=0, failed=named.sop_instance_uids)
            return _final(tally, request, UNABLE_TO_SEND)


@dataclass
class _OnSameAssociation:
    exchange: Exchange

    async def send(self, held: Held) -> int:
        if held.transfer_syntax not in self.exchange.takes(held.sop_class_uid):
            raise ContentError("the peer does not take it in the syntax in which it lies")
        return await self.exchange.store(held)


async def _send_all(named: Named, request: Request, exchange: Exchange, outlet: Outlet) -> Outcome:
    tally = _tally_of(named)
    for each in named.held:
        if exchange.cancelled:
            return _final(tally, request, CANCELLED)
        tally.count(each.sop_instance_uid, await _status_of(each, outlet, tally))
        if tally.remaining:
            await exchange.pending(suboperations=tally.suboperations())
    return _outcome(tally, request)


def _tally_of(named: Named) -> _Tally:
    unread = "a file cannot be read" if named.unreadable else None
    return _Tally(remaining=len(named.held), failed=list(named.unreadable), reason=unread)


def _outcome(tally: _Tally, request: Request) -> Outcome:
    """Return what is said when nothing remains."""
    source, completed, failed = request.caller.source, tally.completed, len(tally.failed)
    if not tally.failed:
        _log.info("retrieval.done source=%s completed=%d", source, completed)
        return _final(tally, request, SOME_FAILED if tally.warning else SUCCESS)
    _log.warning(
        "retrieval.incomplete source=%s completed=%d failed=%d reason=%r", source, completed, failed, tally.reason
    )
    return _final(tally, request, SOME_FAILED if tally.completed or tally.warning else UNABLE_TO_SEND)


async def _status_of(held: Held, outlet: Outlet, tally: _Tally) -> int | None:
    """Return the status of one Instance, None where it was not sent: behind a peer that broke off, none is."""
    try:
        return await outlet.send(held)
    except (GatewayError, OSError) as error:
        tally.reason = tally.reason or getattr(error, "strerror", None) or str(error)
        return None


def _final(tally: _Tally, request: Request, status: int) -> Outcome:
    data = b""
    if tally.failed:
        uids = Element("UI", tuple(tally.failed[:FAILED_UIDS_MAX]))
        data = encode({FAILED_LIST: uids}, request.transfer_syntax)
    return Outcome(status=status, data=data, suboperations=tally.suboperations(final=status != CANCELLED))


def _refused(request: Request, error: ContentError) -> Outcome:
    _log.info("retrieval.refused source=%s reason=%s", request.caller.source, error)
    status = UNABLE_TO_COUNT if isinstance(error, _TooManyError) else IDENTIFIER_MISMATCH
    return Outcome(status=status, comment=str(error)[:64])
