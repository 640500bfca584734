"""A Source of type `dicom-worklist`: the worklist of a RIS, asked for by C-FIND again and again and kept.

    wait poll_s --> associate --C-FIND for each station and modality--> all final? --> kept, what is gone there goes
                                                                    no --> nothing goes; tried again

Modalities are answered from what is kept, so they work while the RIS is down: a poll that fails removes nothing. A step
that complete polls have not shown for `gone_after_s` is removed, or shown no more where a Modality has begun it; steps
that came as HL7 orders are left alone.
"""

import asyncio
import csv
import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import lru_cache
from importlib import resources
from itertools import product
from typing import Any

from gateway.clock import Clock
from gateway.config import DicomWorklistSource
from gateway.dataset import Attributes, Element, text_at
from gateway.errors import ContentError, LinkError, StoreError, TemporaryError
from gateway.formats.dicom import IMPLICIT_LITTLE
from gateway.formats.identifiers import CHARACTER_SET, decode, encode, tag_of, vr_of
from gateway.formats.worklist_tags import ACCESSION, MODALITY, SEQUENCE, START_DATE, STATION, STEP_ID, STUDY_UID
from gateway.imaging.worklist import WORKLIST_SOP_CLASS
from gateway.net.requestor import PENDING, Peer, RequestedAssociation, Wanted, open_association
from gateway.net.tls import client_context
from gateway.status import LinkState, SourceStatus
from gateway.store.store import Store
from gateway.store.worklist import drop_unseen, put_upstream

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
ITEMS_MAX = 20_000  # of one poll; more are left there
POLL_TIMEOUT_S = 300.0
STORE_TIMEOUT_S = 60.0

LocalTime = Callable[[datetime], datetime]

_log = logging.getLogger("gateway.sources.dicom_worklist")


class UpstreamWorklist:
    """Polls one upstream worklist; `local_time` says what day it is in the hospital."""

    def __init__(
        self,
        settings: DicomWorklistSource,
        store: Store,
        clock: Clock,
        status: SourceStatus,
        local_time: LocalTime = datetime.astimezone,
    ) -> None:
        self._local_time = local_time
        self._settings = settings
        self._store = store
        self._clock = clock
        self._status = status
        self.polled = asyncio.Event()  # set after every poll, for whoever waits

    async def run(self) -> None:
        """Poll until cancelled; a RIS that is down is an error of the status, never the end."""
        while True:
            try:
                async with asyncio.timeout(POLL_TIMEOUT_S):
                    count = await self.poll()
            except (LinkError, TemporaryError, ContentError, StoreError, TimeoutError) as error:
                reason = str(error) or "the poll took too long"
                if self._status.state is not LinkState.DOWN:
                    _log.warning("worklist.poll_failed source=%s reason=%r", self._settings.name, reason)
                self._status.state = LinkState.DOWN
                self._status.saw_error(reason, self._clock.now())
            else:
                self._status.state = LinkState.UP
                self._status.saw_input(self._clock.now())
                _log.debug("worklist.polled source=%s steps=%d", self._settings.name, count)
            self.polled.set()
            await asyncio.sleep(self._settings.poll_s)

    async def poll(self) -> int:
        """Ask once and keep what is answered; return how many steps there are.

        Raises LinkError, TemporaryError, ContentError or StoreError; then nothing has changed.
        """
        began = self._clock.now()
        association = await open_association(
            self._peer(), [Wanted(WORKLIST_SOP_CLASS, (EXPLICIT_LITTLE, IMPLICIT_LITTLE))], self._clock
        )
        try:
            found: dict[tuple[str, str], Attributes] = {}
            for identifier in self._identifiers(began):
                await self._ask(association, identifier, found)
            await association.release()
        except BaseException:
            await association.abort()
            raise
        await self._keep(tuple(found.values()), began, complete=len(found) < ITEMS_MAX)
        return len(found)

    async def _ask(
        self, association: RequestedAssociation, identifier: Attributes, found: dict[tuple[str, str], Attributes]
    ) -> None:
        """Collect the answers to one query by their key. Raises LinkError where it does not end in success."""
        syntax = association.accepts(WORKLIST_SOP_CLASS)[0]
        assumed = self._settings.assumed_character_sets
        status = -1
        async with aclosing(association.find(WORKLIST_SOP_CLASS, encode(identifier, syntax))) as answers:
            async for status, data in answers:
                if status not in PENDING:
                    continue
                item = decode(data, syntax, assumed=assumed)
                item.pop(CHARACTER_SET, None)
                if len(found) < ITEMS_MAX:
                    found[_key(item)] = item
        if status != 0x0000:
            raise LinkError(f"the worklist of {self._settings.ae_title} answered 0x{status & 0xFFFF:04X}")

    async def _keep(self, items: tuple[Attributes, ...], at: datetime, *, complete: bool) -> None:
        """Write what was answered; only a complete answer tells what is gone."""
        name, before = self._settings.name, at - timedelta(seconds=self._settings.gone_after_s)
        sound = [item for item in items if all(_key(item))]
        if len(sound) < len(items):
            _log.warning("worklist.unusable source=%s steps=%d reason=no-id", name, len(items) - len(sound))

        def write(connection: Any) -> None:
            put_upstream(connection, name, sound, at)
            if complete:
                drop_unseen(connection, name, before)

        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await asyncio.wrap_future(self._store.call(write))
        except TimeoutError:
            raise StoreError("the store did not commit in time") from None

    def _peer(self) -> Peer:
        settings = self._settings
        return Peer(
            host=settings.host,
            port=settings.port,
            ae_title=settings.ae_title,
            calling_ae_title=settings.calling_ae_title,
            tls=None if settings.tls is None else client_context(settings.tls),
            server_name=None if settings.tls is None else settings.tls.server_name,
            connect_timeout_s=settings.connect_timeout_s,
            response_timeout_s=settings.response_timeout_s,
        )

    def _identifiers(self, now: datetime) -> Iterator[Attributes]:
        """Yield a query for each station and modality: every attribute that we answer, in the window of days."""
        settings, today = self._settings, self._local_time(now).date()
        first, last = today - timedelta(days=settings.days_before), today + timedelta(days=settings.days_after)
        for station, modality in product(settings.stations or ("",), settings.modalities or ("",)):
            step = dict(_step_keys())
            step[START_DATE] = Element("DA", (f"{first:%Y%m%d}-{last:%Y%m%d}",))
            if station:
                step[STATION] = Element("AE", (station,))
            if modality:
                step[MODALITY] = Element("CS", (modality,))
            yield {**_keys(), SEQUENCE: Element("SQ", items=(step,))}


def _key(item: Attributes) -> tuple[str, str]:
    return text_at(item, ACCESSION) or text_at(item, STUDY_UID), text_at(item, SEQUENCE, STEP_ID)


@lru_cache(maxsize=1)
def _rows() -> tuple[tuple[str, ...], ...]:
    text = (resources.files("gateway.imaging") / "worklist_keys.csv").read_text("utf-8")
    return tuple(tuple(row["key"].split(".")) for row in csv.DictReader(text.splitlines()))


@lru_cache(maxsize=1)
def _keys() -> dict[int, Element]:
    tags = (tag_of(row[0]) for row in _rows() if len(row) == 1)
    return {tag: Element(vr_of(tag)) for tag in tags if tag not in (CHARACTER_SET, SEQUENCE)}


@lru_cache(maxsize=1)
def _step_keys() -> dict[int, Element]:
    tags = (tag_of(row[1]) for row in _rows() if len(row) == 2)
    return {tag: Element(vr_of(tag)) for tag in tags}
