"""Brings Instances to an archive: C-STORE as SCU (PS3.4, B), one association for a batch.

Each Instance is proposed in the transfer syntax in which it is stored, and its data set goes out byte for byte. What
each status means (PS3.4, table B.2-1; PS3.7, annex C):

    0000                             delivered
    B000 B006 B007, other warnings   delivered, the warning noted
    A7xx 0213                        out of resources: later, and nothing more now
    0110, or A-ABORT in reply        processing failure: later, a limited number of times
    A9xx Cxxx 0122 no context ...    refused

The library blocks, so each Sender has one thread of its own.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.clock import Clock
from gateway.config import DicomDestination
from gateway.errors import ContentError, LinkError, StoreError
from gateway.formats.dicom import IMPLICIT_LITTLE, is_uid, read_header, read_meta
from gateway.model import Parcel, Receipt, Verdict
from gateway.net.tls import client_context
from gateway.senders.dicom_association import Answer, NoContextError, PeerAbortError, RequestedAssociation, Syntax
from gateway.spool import Spool

PROBES_MAX = 8  # Instances tried behind one that was answered "out of resources"
BATCH_MAX = 64
CONTEXTS_MAX = 128  # context ids are the odd numbers of a byte (PS3.8, 9.3.2.2)
CLOSE_S = 8.0
VERIFICATION = Syntax("1.2.840.10008.1.1", IMPLICIT_LITTLE)

_WARNINGS = (0x0001, 0x0107, 0x0116)
_DUPLICATE = 0x0111
_LATER = (0x0213,)
_LATER_LIMITED = (0x0110, 0xFE00)

_log = logging.getLogger("gateway.senders")

Yield = Callable[[Receipt], None]


@dataclass(frozen=True, slots=True)
class _Item:
    """A Parcel with its file, ready to go."""

    delivery_id: int
    path: Path
    dataset_offset: int
    syntax: Syntax
    sop_instance_uid: str


class DicomSender:
    """Speaks to one archive in one lane."""

    batch_max = BATCH_MAX

    def __init__(self, settings: DicomDestination, spool: Spool, clock: Clock) -> None:
        self._settings = settings
        self._spool = spool
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"dicom-{settings.name}")
        self._stop = threading.Event()
        self._association: RequestedAssociation | None = None

    async def send(self, parcels: Sequence[Parcel]) -> AsyncGenerator[Receipt, None]:
        """Bring the Parcels in their order; see `gateway.senders.sender`. Raises LinkError and TemporaryError."""
        loop = asyncio.get_running_loop()
        receipts: asyncio.Queue[Receipt | None] = asyncio.Queue()
        stop = self._stop = threading.Event()

        def give(receipt: Receipt | None) -> None:
            try:
                loop.call_soon_threadsafe(receipts.put_nowait, receipt)
            except RuntimeError:
                stop.set()  # the loop has closed

        def work() -> None:
            try:
                self._carry(parcels, give, stop)
            finally:
                give(None)

        done = loop.run_in_executor(self._executor, work)
        try:
            while (receipt := await receipts.get()) is not None:
                yield receipt
            await done
        finally:
            if not done.done():
                self._interrupt()
                await asyncio.wait({done}, timeout=CLOSE_S)
            if done.done() and not done.cancelled():
                done.exception()  # seen: nobody is left to tell

    async def probe(self) -> str:
        """Associate and say C-ECHO. Raises LinkError and TemporaryError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._echo)

    async def close(self) -> None:
        """End what runs; returns within a few seconds."""
        self._interrupt()
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def _interrupt(self) -> None:
        self._stop.set()
        association = self._association
        if association is not None:
            association.cut()

    def _carry(self, parcels: Sequence[Parcel], give: Yield, stop: threading.Event) -> None:
        items = []
        unread: Receipt | None = None  # given last: it ends the batch
        for parcel in parcels:
            item = self._item(parcel)
            if isinstance(item, _Item):
                items.append(item)
            elif item.verdict is Verdict.REFUSED:
                give(item)
            else:
                unread = item
                break
        for group in _by_contexts(items):
            if stop.is_set() or not self._carry_group(group, give, stop):
                return
        if unread is not None:
            give(unread)

    def _carry_group(self, items: list[_Item], give: Yield, stop: threading.Event) -> bool:
        """Send what one association can carry; return whether to go on."""
        association = self._association = self._new_association()
        try:
            association.open(dict.fromkeys(item.syntax for item in items))
            return self._carry_items(association, items, give, stop)
        except NoContextError:
            for item in items:
                give(_no_context(item))
        finally:
            association.release()
            self._association = None
        return True

    def _carry_items(
        self, association: RequestedAssociation, items: list[_Item], give: Yield, stop: threading.Event
    ) -> bool:
        """Send one after the other; return whether to go on.

        "Out of resources" may be said of the peer, or, by archives that say it to whatever they cannot read, of one
        Instance. Those behind it tell: when one is taken, the first is at fault and must not stop the lane for ever.
        """
        held: Receipt | None = None
        proved = False
        asked = 0
        for item in items:
            if stop.is_set():
                return False
            receipt = _send_one(association, item)
            if receipt.verdict is Verdict.RETRY:
                held = held or receipt
                asked += 1
                if not proved and asked > PROBES_MAX:
                    break
                continue
            give(receipt)
            if receipt.verdict is Verdict.RETRY_CONTENT:
                return False
            proved = proved or (held is not None and receipt.verdict is Verdict.DELIVERED)
        if held is not None:
            give(replace(held, verdict=Verdict.RETRY_CONTENT) if proved else held)
        return held is None

    def _item(self, parcel: Parcel) -> _Item | Receipt:
        name = parcel.message.object_name
        try:
            path = self._spool.path_of(name or "")
            return _read_item(parcel.delivery.id, path)
        except FileNotFoundError:
            return _refused(parcel.delivery.id, "the object's file is missing from the spool")
        except (ContentError, StoreError) as error:
            return _refused(parcel.delivery.id, f"not an object that can be sent: {error}")
        except OSError as error:
            return Receipt(
                delivery_id=parcel.delivery.id, verdict=Verdict.RETRY, reason=f"reading the spool: {error.strerror}"
            )

    def _echo(self) -> str:
        association = self._association = self._new_association()
        began = self._clock.monotonic()
        try:
            association.open([VERIFICATION])
            answer = association.echo(VERIFICATION)
        finally:
            association.release()
            self._association = None
        if answer.status != 0:
            raise LinkError(f"{self._settings.ae_title}: C-ECHO answered {answer.status:04X}")
        took_ms = (self._clock.monotonic() - began) * 1000
        return f"C-ECHO answered by {self._settings.ae_title} at {self._settings.host} in {took_ms:.0f} ms"

    def _new_association(self) -> RequestedAssociation:
        tls = None if self._settings.tls is None else client_context(self._settings.tls)
        return RequestedAssociation(self._settings, self._clock, tls)


def verdict_of(answer: Answer) -> tuple[Verdict, str | None]:
    """Return what a C-STORE status means, and the words for it where it is not plain success."""
    status = answer.status
    if status == 0:
        return Verdict.DELIVERED, None
    if status >> 12 == 0xB or status in _WARNINGS:
        return Verdict.DELIVERED, f"stored with warning {status:04X}"
    if status == _DUPLICATE:
        return Verdict.DELIVERED, f"the peer has this SOP Instance already ({status:04X})"
    if status >> 8 == 0xA7 or status in _LATER:
        return Verdict.RETRY, f"out of resources ({status:04X})"
    if status in _LATER_LIMITED:
        return Verdict.RETRY_CONTENT, f"processing failure ({status:04X})"
    return Verdict.REFUSED, f"refused with status {status:04X}"


def _send_one(association: RequestedAssociation, item: _Item) -> Receipt:
    if not association.accepts(item.syntax):
        return _no_context(item)
    try:
        answer = association.store(item.path, item.dataset_offset, item.syntax, item.sop_instance_uid)
    except PeerAbortError as error:  # an object that a peer chokes on must not stop the lane for ever
        return Receipt(delivery_id=item.delivery_id, verdict=Verdict.RETRY_CONTENT, reason=str(error))
    except OSError as error:
        raise LinkError(f"reading the spool while sending: {error.strerror}") from error
    verdict, reason = verdict_of(answer)
    if reason is not None:
        _log.warning("instance.answered delivery=%d status=%04X", item.delivery_id, answer.status)
    acknowledgement = f"{answer.status:04X} {answer.comment}".strip().encode("utf-8", "replace")
    return Receipt(delivery_id=item.delivery_id, verdict=verdict, reason=reason, acknowledgement=acknowledgement)


def _read_item(delivery_id: int, path: Path) -> _Item:
    """Read what the command must say: the data set's own UIDs where it has sound ones, else those it came with."""
    meta = read_meta(path)
    try:
        values = read_header(path).values
    except ContentError:
        values = {}
    sop_class = values.get("SOPClassUID", "")
    sop_instance = values.get("SOPInstanceUID", "")
    return _Item(
        delivery_id=delivery_id,
        path=path,
        dataset_offset=meta.dataset_offset,
        syntax=Syntax(sop_class if is_uid(sop_class) else meta.sop_class_uid, meta.transfer_syntax),
        sop_instance_uid=sop_instance if is_uid(sop_instance) else meta.sop_instance_uid,
    )


def _by_contexts(items: list[_Item]) -> Iterator[list[_Item]]:
    """Cut a batch where it would need more contexts than an association has."""
    group: list[_Item] = []
    syntaxes: set[Syntax] = set()
    for item in items:
        if item.syntax not in syntaxes and len(syntaxes) == CONTEXTS_MAX:
            yield group
            group, syntaxes = [], set()
        group.append(item)
        syntaxes.add(item.syntax)
    if group:
        yield group


def _no_context(item: _Item) -> Receipt:
    syntax = item.syntax
    return _refused(item.delivery_id, f"the peer takes no SOP Class {syntax.sop_class_uid} in {syntax.transfer_syntax}")


def _refused(delivery_id: int, reason: str) -> Receipt:
    return Receipt(delivery_id=delivery_id, verdict=Verdict.REFUSED, reason=reason)
