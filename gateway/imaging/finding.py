"""C-FIND of Query/Retrieve, over what the box still holds (PS3.4, C.4.1).

Every attribute that the index keeps is matched at every level; what is counted (Number Of Study Related Instances,
Modalities In Study …) is answered where it is asked for. After ANSWERS_MAX answers the query ends with 0xA700, so that
nobody takes a part for the whole.
"""

import asyncio
import logging
from collections.abc import Iterator

from gateway.dataset import Attributes, Element
from gateway.errors import ContentError
from gateway.formats.identifiers import character_sets_for, decode, encode, from_json, tag_of
from gateway.imaging.holdings import IMAGE_KEYS, PATIENT_KEYS, SERIES_KEYS, STUDY_KEYS, Holdings
from gateway.imaging.matching import Query, read_query
from gateway.imaging.query import COUNTED, QUERY_LEVEL, Asked, counted_elements, read_asked, root_of
from gateway.imaging.service import (
    CANCELLED,
    IDENTIFIER_MISMATCH,
    PENDING,
    PENDING_WARNING,
    REFUSED_OUT_OF_RESOURCES,
    SUCCESS,
    Exchange,
    Outcome,
    Request,
)
from gateway.store.holdings import counts_of, find_entities
from gateway.store.store import Store

ANSWERS_MAX = 10_000
RETRIEVE_AE_TITLE, AVAILABILITY = 0x00080054, 0x00080056
STUDY_DATE, STUDY_TIME = 0x00080020, 0x00080030

_KEPT = {
    "PATIENT": PATIENT_KEYS,
    "STUDY": (*PATIENT_KEYS, *STUDY_KEYS),
    "SERIES": (*PATIENT_KEYS, *STUDY_KEYS, *SERIES_KEYS),
    "IMAGE": (*PATIENT_KEYS, *STUDY_KEYS, *SERIES_KEYS, *IMAGE_KEYS),
}
_KNOWN = {
    level: frozenset(map(tag_of, names)) | COUNTED | {RETRIEVE_AE_TITLE, AVAILABILITY} for level, names in _KEPT.items()
}
_PATIENT_TAGS = frozenset(map(tag_of, PATIENT_KEYS))

_log = logging.getLogger("gateway.imaging")


class Finding:
    """Answers C-FIND; a `Service`."""

    def __init__(self, store: Store, holdings: Holdings) -> None:
        """Take the store, which is read, and the index, which is brought up to date first."""
        self._store = store
        self._holdings = holdings

    async def __call__(self, request: Request, exchange: Exchange) -> Outcome:
        """Answer one query. Raises StoreError."""
        try:
            identifier = decode(request.data, request.transfer_syntax)
            asked = read_asked(identifier, root_of(request.sop_class_uid), relational=_is_relational(request))
            known = _KNOWN[asked.level]
            query = read_query(identifier, known=lambda path: path[-1] in known, periods=((STUDY_DATE, STUDY_TIME),))
        except ContentError as error:
            _log.info("query.refused source=%s reason=%s", request.caller.source, error)
            return Outcome(status=IDENTIFIER_MISMATCH, comment=str(error)[:64])
        await self._holdings.catch_up()
        return await self._answer(asked, query, request, exchange)

    async def _answer(self, asked: Asked, query: Query, request: Request, exchange: Exchange) -> Outcome:
        status = PENDING_WARNING if query.unsupported else PENDING
        sent, after = 0, 0
        while True:
            after, answers = await asyncio.to_thread(self._page, asked, query, request, after)
            for data in answers:
                if exchange.cancelled:
                    return Outcome(status=CANCELLED)
                if sent == ANSWERS_MAX:
                    return Outcome(status=REFUSED_OUT_OF_RESOURCES, comment=f"more than {ANSWERS_MAX} answers")
                await exchange.pending(data, status=status)
                sent += 1
            if not after:
                _log.info("query.answered source=%s level=%s answers=%d", request.caller.source, asked.level, sent)
                return Outcome(status=SUCCESS)

    def _page(self, asked: Asked, query: Query, request: Request, after: int) -> tuple[int, list[bytes]]:
        """Return where the next page begins (0: nowhere) and the encoded answers of one, in a worker thread."""
        connection = self._store.readers.connection
        rows = find_entities(connection, asked.level, asked.narrowing, after)
        answers = []
        counted = bool(COUNTED & query.keys.keys())
        for row in rows:
            entity = _entity(asked.level, row.levels)
            if counted:
                entity |= counted_elements(dict(counts_of(connection, asked.level, row.id)))
            entity[RETRIEVE_AE_TITLE] = Element("AE", (request.caller.called_ae_title,))
            entity[AVAILABILITY] = Element("CS", ("ONLINE",))
            if not query.misses(entity):
                answers.append(_encoded(query.answer(entity), asked.level, request.transfer_syntax))
        return (rows[-1].id if rows else 0), answers


def _entity(level: str, levels: tuple[str, ...]) -> dict[int, Element]:
    entity: dict[int, Element] = {}
    for text in levels:
        entity |= from_json(text)
    if level == "PATIENT":
        entity = {tag: element for tag, element in entity.items() if tag in _PATIENT_TAGS}
    return entity


def _encoded(answer: Attributes, level: str, transfer_syntax: str) -> bytes:
    said = {**answer, QUERY_LEVEL: Element("CS", (level,))}
    return encode(said, transfer_syntax, character_sets_for(said))


def _is_relational(request: Request) -> bool:
    """Tell whether relational queries were agreed on: byte 1 of the extended negotiation (PS3.4, C.5.1.1)."""
    return request.sop_class_extended[:1] == b"\x01"


def keys_of(level: str) -> Iterator[str]:
    """Yield the attributes that are matched and returned at a level, by keyword."""
    yield from _KEPT[level]
