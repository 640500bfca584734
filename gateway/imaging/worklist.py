"""Modality Worklist: C-FIND of the scheduled procedure steps (PS3.4, annex K).

    identifier --decode--> query --match every open step--> 0xFF00 (0xFF01 where a key is not known) each --> 0x0000

Between two answers a C-CANCEL is looked for (0xFE00). More steps than `answers_max` end in 0xA700, so that no Modality
takes a part for the whole. A key that is no date or time where one is due is 0xA900, an identifier that is no data set
0xC000. Every query is kept with what left which step out: who asks why a patient is missing is told.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway.clock import Clock
from gateway.config import WorklistSettings, WorklistView
from gateway.dataset import Attributes
from gateway.errors import ContentError, StoreError
from gateway.formats.identifiers import CHARACTER_SET, character_sets_for, decode, encode
from gateway.imaging.service import (
    CANCELLED,
    IDENTIFIER_MISMATCH,
    PENDING,
    PENDING_WARNING,
    REFUSED_OUT_OF_RESOURCES,
    SUCCESS,
    UNABLE_TO_PROCESS,
    Exchange,
    Outcome,
    Request,
)
from gateway.imaging.worklist_view import Examined, examine, read_worklist_query, today, view_of
from gateway.orders import WorklistItem
from gateway.store.store import Store
from gateway.store.worklist import keep_query
from gateway.store.worklist_reading import items_by_id, open_versions

WORKLIST_SOP_CLASS = "1.2.840.10008.5.1.4.31"
C_FIND_RQ = 0x0020
CACHED_MAX = 20_000  # decoded steps
EXCLUDED_MAX = 1_000  # kept of one query
COMMENT_CHARS_MAX = 64

_log = logging.getLogger("gateway.imaging.worklist")


class Worklist:
    """The service; `settings` are asked for anew with each query, because they may be reloaded."""

    def __init__(self, store: Store, clock: Clock, settings: Callable[[], WorklistSettings]) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._items = Items(store)

    async def __call__(self, request: Request, exchange: Exchange) -> Outcome:
        """Answer one C-FIND."""
        settings, caller = self._settings(), request.caller
        view = view_of(settings, caller.calling_ae_title)
        try:
            identifier = decode(
                request.data, request.transfer_syntax, assumed=_split(view.assumed_character_sets) if view else ()
            )
        except ContentError as error:
            return Outcome(status=UNABLE_TO_PROCESS, comment=str(error)[:COMMENT_CHARS_MAX])
        try:
            query = read_worklist_query(identifier)
        except ContentError as error:
            self._keep(request, identifier, Examined((), {}), 0, IDENTIFIER_MISMATCH)
            return Outcome(status=IDENTIFIER_MISMATCH, comment=str(error)[:COMMENT_CHARS_MAX])
        day = today(self._clock.now(), settings)
        title = caller.calling_ae_title
        found = await asyncio.to_thread(lambda: examine(self._items.open(), query, settings, title, day))
        status = PENDING_WARNING if query.unsupported else PENDING
        answered, outcome = 0, Outcome(status=SUCCESS)
        for answer in found.answers:
            if exchange.cancelled:
                outcome = Outcome(status=CANCELLED)
                break
            if answered == settings.answers_max:
                outcome = self._cut(request, settings, len(found.answers))
                break
            await exchange.pending(_encoded(answer, request, identifier, view), status=status)
            answered += 1
        self._keep(request, identifier, found, answered, outcome.status)
        return outcome

    def _cut(self, request: Request, settings: WorklistSettings, count: int) -> Outcome:
        _log.warning(
            "worklist.cut source=%s calling=%s matched=%d answers_max=%d",
            request.caller.source,
            request.caller.calling_ae_title,
            count,
            settings.answers_max,
        )
        if settings.over_limit == "success":
            return Outcome(status=SUCCESS)
        comment = f"{count} steps match, {settings.answers_max} were sent"
        return Outcome(status=REFUSED_OUT_OF_RESOURCES, comment=comment)

    def _keep(self, request: Request, identifier: Attributes, found: Examined, answered: int, status: int) -> None:
        """Keep what was asked; nobody waits for it, and a full store costs no Modality its answer."""
        caller, at = request.caller, request.received_at
        excluded = dict(list(found.excluded.items())[:EXCLUDED_MAX])
        _log.info(
            "worklist.asked source=%s calling=%s looked_at=%d answered=%d status=0x%04X",
            caller.source,
            caller.calling_ae_title,
            found.looked_at,
            answered,
            status,
        )
        try:
            self._store.call(
                lambda connection: keep_query(
                    connection,
                    at=at,
                    source=caller.source,
                    calling=caller.calling_ae_title,
                    called=caller.called_ae_title,
                    host=caller.host,
                    keys=identifier,
                    looked_at=found.looked_at,
                    answered=answered,
                    status=status,
                    excluded=excluded,
                )
            )
        except StoreError:
            _log.warning("worklist.query_not_kept source=%s", caller.source)


class Items:
    """The open steps, decoded once for each version of each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: OrderedDict[int, WorklistItem] = OrderedDict()

    def open(self) -> list[WorklistItem]:
        """Return the open steps in the order of their start; reads only what has changed. Blocks; any thread."""
        connection = self._store.readers.connection
        versions = open_versions(connection)
        cached = dict(self._cached)
        stale = [number for number, version in versions if _version(cached.get(number)) != version]
        fresh = items_by_id(connection, stale)
        standing = {number for number, _ in versions}
        items = {number: item for number, item in cached.items() if number in standing} | fresh
        self._cached = OrderedDict(list(items.items())[:CACHED_MAX])
        return [items[number] for number, _ in versions if number in items]


def _version(item: WorklistItem | None) -> int | None:
    return None if item is None else item.version


def _encoded(answer: Attributes, request: Request, identifier: Attributes, view: WorklistView | None) -> bytes:
    """Write an answer in what its letters need: the view's wish, the Modality's own, the smallest that has them."""
    declared = identifier.get(CHARACTER_SET)
    wished = [tuple(sets.split("\\")) for sets in (view.character_sets if view is not None else ())]
    wished += [declared.values] if declared is not None else []
    return encode(answer, request.transfer_syntax, character_sets_for(answer, wished))


def _split(terms: Sequence[str]) -> tuple[str, ...]:
    return tuple(part for term in terms for part in term.split("\\"))
