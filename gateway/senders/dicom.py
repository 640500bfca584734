"""Brings Instances to an archive: C-STORE as SCU (PS3.4, B), one association for a batch; procedure steps as MPPS.

Each Instance is proposed in the transfer syntax in which it is stored, and its data set goes out byte for byte from
the file. Where the peer does not take that, and it is an uncompressed one, it is converted to another uncompressed one;
nothing is ever compressed, decompressed or made smaller. What each status means (PS3.4, table B.2-1; PS3.7, annex C):

    0000                             delivered
    B000 B006 B007, other warnings   delivered, the warning noted
    A7xx 0213                        out of resources: later, and nothing more now
    0110, or A-ABORT in reply        processing failure: later, a limited number of times
    A9xx Cxxx 0122 no context ...    refused

An Instance at which connections keep breaking while others are taken counts as a processing failure too
(`suspects.py`).
"""

import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import zip_longest

from pydicom.uid import UID

from gateway.clock import Clock
from gateway.config import DicomDestination
from gateway.errors import ContentError, LinkError, StoreError
from gateway.formats.dicom import EXPLICIT_LITTLE, IMPLICIT_LITTLE, UNCOMPRESSED
from gateway.model import Kind, Parcel, Receipt, Verdict
from gateway.net.requestor import (
    HIGH_PRIORITY,
    LOW_PRIORITY,
    VERIFICATION,
    Answer,
    NoContextError,
    Outgoing,
    Peer,
    PeerAbortError,
    RequestedAssociation,
    Wanted,
    open_association,
)
from gateway.net.tls import client_context
from gateway.pacing import Bandwidth
from gateway.protocols.negotiation import CONTEXTS_MAX
from gateway.protocols.upper_layer import STALL_S
from gateway.senders.archive_line import ArchiveLine
from gateway.senders.dicom_mpps import MPPS_CONTEXT, send_step
from gateway.senders.instances import (
    Instance,
    Objects,
    Preparer,
    in_study_order,
    prepared,
    read_instances,
    refused,
    unmade,
    verdict_of,
)
from gateway.senders.suspects import Suspects

PROBES_MAX = 8  # Instances tried behind one that was answered "out of resources"
BATCH_MAX = 256
TURN_S = 2.0  # then the lane looks whether something urgent has come

_log = logging.getLogger("gateway.senders")


class DicomSender:
    """Speaks to one archive in one lane."""

    batch_max = BATCH_MAX

    def __init__(
        self,
        settings: DicomDestination,
        spool: Objects,
        clock: Clock,
        *,
        preparer: Preparer | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        """Take the parts; `bandwidth` is shared by the lanes of one Destination."""
        self._settings = settings
        self._spool = spool
        self._clock = clock
        self._preparer = preparer
        self._bandwidth = bandwidth
        self._line = ArchiveLine(self._open)
        self._steps: RequestedAssociation | None = None
        self._suspects = Suspects()
        self._peer_takes = False  # something of this batch was delivered
        self._turn_ends = 0.0

    async def send(self, parcels: Sequence[Parcel]) -> AsyncGenerator[Receipt, None]:
        """Bring the Parcels study by study; see `gateway.senders.sender`. Raises LinkError and TemporaryError."""
        steps = [parcel for parcel in parcels if parcel.message.kind is Kind.MPPS]
        if steps:
            async with aclosing(self._send_steps(steps)) as receipts:
                async for receipt in receipts:
                    yield receipt
                    if receipt.verdict in (Verdict.RETRY, Verdict.RETRY_CONTENT):
                        return
        instances, refusals, unread = await read_instances(
            [parcel for parcel in parcels if parcel.message.kind is not Kind.MPPS], self._spool
        )
        for receipt in refusals:
            yield receipt
        self._peer_takes = False
        self._turn_ends = self._clock.monotonic() + TURN_S
        ordered = sorted(in_study_order(instances), key=lambda each: self._suspects.rank(each.delivery_id))
        for group in _by_contexts(ordered, self._wanted):
            batch = _Batch()
            async with aclosing(self._send_group(group, batch)) as receipts:
                async for receipt in receipts:
                    yield receipt
            if batch.is_over:
                return
        if unread is not None:
            yield unread

    async def probe(self) -> str:
        """Associate and say C-ECHO. Raises LinkError and TemporaryError."""
        began = self._clock.monotonic()
        association = await open_association(
            peer_of(self._settings), [Wanted(VERIFICATION, (IMPLICIT_LITTLE,))], self._clock
        )
        try:
            answer = await association.echo()
        finally:
            await association.release()
        if answer.status != 0:
            raise LinkError(f"{self._settings.ae_title}: C-ECHO answered {answer.status:04X}")
        took_ms = (self._clock.monotonic() - began) * 1000
        return f"C-ECHO answered by {self._settings.ae_title} at {self._settings.host} in {took_ms:.0f} ms"

    async def close(self) -> None:
        """End what runs, and what stands for the next batch."""
        if self._steps is not None:
            await self._steps.abort()
        await self._line.close()

    async def _send_steps(self, steps: list[Parcel]) -> AsyncGenerator[Receipt, None]:
        """Tell of procedure steps, in their order: what a Modality created before what it set."""
        try:
            association = self._steps = await open_association(peer_of(self._settings), [MPPS_CONTEXT], self._clock)
        except NoContextError:
            for parcel in steps:
                yield refused(parcel.delivery.id, "the peer takes no procedure steps")
            return
        try:
            for parcel in steps:
                yield await send_step(association, parcel)
        finally:
            self._steps = None
            await association.release()

    async def _send_group(self, instances: list[Instance], batch: "_Batch") -> AsyncGenerator[Receipt, None]:
        """Send what one association can carry."""
        try:
            await self._line.take(dict.fromkeys(each for instance in instances for each in self._wanted(instance)))
        except NoContextError:
            for instance in instances:
                yield _no_context(instance)
            return
        all_is_well = False
        try:
            for instance, following in zip_longest(instances, instances[1:]):
                receipt = batch.judge(await self._send_one(instance, following))
                if receipt is not None:
                    yield receipt
                if batch.is_over:
                    return
                if batch.may_pause and self._clock.monotonic() >= self._turn_ends:
                    batch.is_over = True
                    break
            last = batch.held_back()
            if last is not None:
                yield last
            all_is_well = last is None
        finally:
            if all_is_well:
                self._line.rest()
            else:
                await self._line.release()

    async def _send_one(self, instance: Instance, following: Instance | None) -> Receipt:
        taken = self._line.accepts(instance.sop_class_uid)
        converts = self._converts(instance)
        syntax = next((each for each in (instance.transfer_syntax, *converts) if each in taken), None)
        if syntax is None:
            return _no_context(instance)
        try:
            async with prepared(
                instance, self._preparer, None if syntax == instance.transfer_syntax else syntax
            ) as out:
                ahead = None if following is None or self._is_changed(following) else _outgoing(following)
                answer = await self._store(out, ahead)
                self._suspects.clear(instance.delivery_id)
                return self._receipt(out, answer)
        except PeerAbortError as error:  # an object that a peer chokes on must not stop the lane for ever
            return Receipt(delivery_id=instance.delivery_id, verdict=Verdict.RETRY_CONTENT, reason=str(error))
        except LinkError as error:
            if self._suspects.rank(instance.delivery_id) and self._peer_takes:
                return Receipt(delivery_id=instance.delivery_id, verdict=Verdict.RETRY_CONTENT, reason=str(error))
            self._suspects.note(instance.delivery_id)
            raise
        except (ContentError, StoreError, OSError) as error:
            return unmade(instance, error)

    async def _store(self, instance: Instance, ahead: Outgoing | None) -> Answer:
        priority = HIGH_PRIORITY if instance.parcel.delivery.priority else LOW_PRIORITY
        try:
            return await self._line.store(_outgoing(instance), priority=priority, ahead=ahead)
        except OSError as error:
            raise LinkError(f"reading the spool while sending: {error.strerror}") from error

    async def _open(self, wanted: list[Wanted]) -> RequestedAssociation:
        pace = None if self._bandwidth is None else self._bandwidth.debt_s
        return await open_association(replace(peer_of(self._settings), pace=pace), wanted, self._clock)

    def _is_changed(self, instance: Instance) -> bool:
        return self._preparer is not None and self._preparer.changes(instance.parcel.delivery.destination)

    def _receipt(self, instance: Instance, answer: Answer) -> Receipt:
        verdict, reason = verdict_of(answer.status)
        self._peer_takes = self._peer_takes or verdict is Verdict.DELIVERED
        if reason is not None:
            _log.warning("instance.answered delivery=%d status=%04X", instance.delivery_id, answer.status)
        return Receipt(
            delivery_id=instance.delivery_id,
            verdict=verdict,
            reason=reason,
            acknowledgement=f"{answer.status:04X} {answer.comment}".strip().encode("utf-8", "replace"),
            archived=(instance.sop_class_uid, instance.sop_instance_uid) if self._settings.commitment else None,
        )

    def _wanted(self, instance: Instance) -> list[Wanted]:
        stored = Wanted(instance.sop_class_uid, (instance.transfer_syntax,))
        converts = self._converts(instance)
        return [stored, Wanted(instance.sop_class_uid, converts)] if converts else [stored]

    def _converts(self, instance: Instance) -> tuple[str, ...]:
        """Return the transfer syntaxes into which an Instance may be converted without loss."""
        if self._preparer is None or instance.transfer_syntax not in UNCOMPRESSED:
            return ()
        return tuple(each for each in (EXPLICIT_LITTLE, IMPLICIT_LITTLE) if each != instance.transfer_syntax)


class _Batch:
    """Judges the Receipts of one association in their order.

    "Out of resources" may be said of the peer, or, by archives that say it to whatever they cannot read, of one
    Instance. Those behind it tell: when one is taken, the first is at fault and must not stop the lane for ever.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._held: Receipt | None = None
        self._proved = False
        self._asked = 0

    @property
    def may_pause(self) -> bool:
        """Return whether nothing is held back, or it is known who is at fault: however slow, the others are tried."""
        return self._held is None or self._proved

    def judge(self, receipt: Receipt) -> Receipt | None:
        """Return the Receipt to give now, None for one that is held back."""
        if receipt.verdict is Verdict.RETRY:
            self._held = self._held or receipt
            self._asked += 1
            if self._proved or self._asked <= PROBES_MAX:
                return None
            return self.held_back()
        self.is_over = receipt.verdict is Verdict.RETRY_CONTENT
        self._proved = self._proved or (self._held is not None and receipt.verdict is Verdict.DELIVERED)
        return receipt

    def held_back(self) -> Receipt | None:
        """Return what was held back, now that no more is sent."""
        if self._held is None:
            return None
        self.is_over = True
        return replace(self._held, verdict=Verdict.RETRY_CONTENT) if self._proved else self._held


def peer_of(settings: DicomDestination) -> Peer:
    """Return whom a Destination means. Raises LinkError when its certificates cannot be read."""
    return Peer(
        host=settings.host,
        port=settings.port,
        ae_title=settings.ae_title,
        calling_ae_title=settings.calling_ae_title,
        tls=None if settings.tls is None else client_context(settings.tls),
        server_name=None if settings.tls is None else settings.tls.server_name,
        connect_timeout_s=settings.connect_timeout_s,
        response_timeout_s=settings.response_timeout_s,
        stall_s=STALL_S,
    )


def _outgoing(instance: Instance) -> Outgoing:
    return Outgoing(
        path=instance.path,
        dataset_offset=instance.dataset_offset,
        size=instance.size,
        sop_class_uid=instance.sop_class_uid,
        sop_instance_uid=instance.sop_instance_uid,
        transfer_syntax=instance.transfer_syntax,
    )


def _by_contexts(instances: list[Instance], wanted: Callable[[Instance], list[Wanted]]) -> Iterator[list[Instance]]:
    """Cut a batch where it would need more contexts than an association has."""
    group: list[Instance] = []
    asked: set[Wanted] = set()
    for instance in instances:
        more = asked.union(wanted(instance))
        if len(more) > CONTEXTS_MAX:
            yield group
            group, more = [], set(wanted(instance))
        group.append(instance)
        asked = more
    if group:
        yield group


def _no_context(instance: Instance) -> Receipt:
    what, how = _name(instance.sop_class_uid), _name(instance.transfer_syntax)
    return refused(instance.delivery_id, f"the peer takes no {what} in {how}")


def _name(uid: str) -> str:
    """Return the standard's name of a UID, the UID itself where it is a vendor's."""
    return str(UID(uid).name)
