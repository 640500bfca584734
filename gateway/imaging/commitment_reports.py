"""Judges open requests for storage commitment, and reports (PS3.4, J.3.3).

    waiting --every Instance judged--> decided --N-EVENT-REPORT answered 0000--> reported
                                               --anything else--> later, 1 s doubling to 5 min, over restarts
                                               --seven days--> given up, with an alarm

A report goes on the association of the request while that still stands, or on any other that the same AE has open,
because the SCU may have released it (J.3.3.1.2); else on a new one to the peer's configured host and port, on which we
claim the SCP role. A peer without a configured port is waited for. Peers are served side by side, so that one that
cannot be reached keeps nobody waiting.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from gateway.alarms import Alarms
from gateway.clock import Clock
from gateway.config import DicomPeer
from gateway.errors import LinkError, StoreError, TemporaryError
from gateway.formats.commitment import Reference, write_report
from gateway.formats.dicom import IMPLICIT_LITTLE
from gateway.imaging.commitment import (
    COMMITMENT_SOP_CLASS,
    COMMITMENT_SOP_INSTANCE,
    CommitmentPolicy,
    age_s,
    judge,
)
from gateway.imaging.service import NO_SUCH_INSTANCE, SUCCESS, OpenAssociation
from gateway.net.requestor import Peer, RequestedAssociation, Wanted, open_association
from gateway.net.tls import client_context
from gateway.protocols.dimse import Field
from gateway.protocols.negotiation import Role
from gateway.spool import Spool
from gateway.store.commitments import (
    Commitment,
    CommitmentState,
    HeldInstance,
    decide,
    due_commitments,
    make_due,
    newest_held,
    next_due,
    postpone,
    references_of,
    reports_wait,
    settle,
)
from gateway.store.store import Store
from gateway.store.studies import complete, studies_named

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DUE_MAX = 32  # requests looked at in one round
ASSOCIATIONS_MAX = 256  # of peers; the oldest are forgotten
POLL_S = 5.0  # the longest sleep: a clock may be set
RETRY_S_MIN, RETRY_S_MAX = 1.0, 300.0
WAIT_S_MAX = 30.0  # between two looks at a request whose Instances are not all there
REPORT_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
GIVE_UP_S = 7 * 86_400.0

_log = logging.getLogger("gateway.imaging")

Policies = Callable[[str], CommitmentPolicy | None]
Archived = Callable[[HeldInstance, Sequence[str]], bool | None]


class CommitmentReports:
    """One for the agent."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        clock: Clock,
        alarms: Alarms,
        *,
        policies: Policies,
        archived: Archived,
    ) -> None:
        """Take the parts.

        `policies` by Source, None for one that is configured no more; `archived` tells whether all of these
        Destinations have committed to an Instance, None where it is owed to none of them; it is asked in a worker
        thread.
        """
        self._store = store
        self._spool = spool
        self._clock = clock
        self._alarms = alarms
        self._policies = policies
        self._associations: deque[OpenAssociation] = deque(maxlen=ASSOCIATIONS_MAX)
        self._archived = archived
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Look at once: a request has come."""
        self._news.set()

    async def associated(self, association: OpenAssociation) -> None:
        """Hear that a peer has opened an association with a context for commitment: its reports are due.

        That one has ended is learned when a report does not get through, or when the next one is opened: each holds
        the memory of its data path.
        """
        standing = [one for one in self._associations if one.stands]
        self._associations = deque([*standing, association], ASSOCIATIONS_MAX)
        caller, now = association.caller, self._clock.now()
        wanted = (caller.source, caller.calling_ae_title)
        if await asyncio.to_thread(lambda: reports_wait(self._store.readers.connection, *wanted)):
            await asyncio.wrap_future(self._store.call(lambda c: make_due(c, *wanted, now)))
            self.wake()

    async def run(self) -> None:
        """Judge and report until cancelled."""
        while True:
            self._news.clear()
            if not await self.round():
                sleep_s = await self._sleep_s()
                with suppress(TimeoutError):
                    async with asyncio.timeout(sleep_s):
                        await self._news.wait()

    async def round(self) -> bool:
        """Do what is due; return whether there was anything."""
        now = self._clock.now()
        due = await asyncio.to_thread(lambda: due_commitments(self._store.readers.connection, now, DUE_MAX))
        for commitment in due:
            if commitment.state is CommitmentState.WAITING:
                await self._judge(commitment)
        peers: dict[tuple[str, str], list[Commitment]] = {}
        for commitment in due:
            if commitment.state is CommitmentState.DECIDED:
                peers.setdefault((commitment.source, commitment.calling), []).append(commitment)
        await asyncio.gather(*(self._report_all(group) for group in peers.values()))
        return bool(due)

    async def _sleep_s(self) -> float:
        at = await asyncio.to_thread(lambda: next_due(self._store.readers.connection))
        return POLL_S if at is None else min(POLL_S, max(0.05, (at - self._clock.now()).total_seconds()))

    # --- judging ---

    async def _judge(self, commitment: Commitment) -> None:
        policy = self._policies(commitment.source)
        reasons, studies = await asyncio.to_thread(self._reasons, commitment, policy)
        now = self._clock.now()
        if studies:  # all is here, and the Modality has no more to send (PS3.4, J.1)
            await asyncio.wrap_future(
                self._store.call(lambda c: complete(c, studies_named(c, studies), "commitment", now))
            )
        settled = [reason for reason in reasons if reason is not None]
        if len(settled) == len(reasons):
            await asyncio.wrap_future(self._store.call(lambda c: decide(c, commitment.id, settled, now)))
            failed = sum(reason != SUCCESS for reason in settled)
            _log.info(
                "commitment.decided source=%s commitment=%d instances=%d failed=%d",
                commitment.source,
                commitment.id,
                len(settled),
                failed,
            )
            return
        waits = f"{len(reasons) - len(settled)} of {len(reasons)} instances are not there yet"
        await self._postpone(commitment, waits, WAIT_S_MAX)

    def _reasons(self, commitment: Commitment, policy: CommitmentPolicy | None) -> tuple[list[int | None], set[str]]:
        """Return what becomes of each Instance, and the studies of which all that was asked for is here."""
        connection = self._store.readers.connection
        references = [reference for reference, _ in references_of(connection, commitment.id)]
        if policy is None:
            return [NO_SUCH_INSTANCE for _ in references], set()
        held = newest_held(connection, (each.sop_instance_uid for each in references))
        age = age_s(commitment.received_at, self._clock.now())
        reasons = judge(references, held, self._is_whole, lambda one: self._archived(one, policy.archives), policy, age)
        whole = len(held) == len({each.sop_instance_uid for each in references})
        studies = {each.study_instance_uid for each in held.values()} if whole else set()
        return reasons, studies - {""}

    def _is_whole(self, held: HeldInstance) -> bool:
        try:
            return self._spool.path_of(held.object_name).stat().st_size == held.size
        except (OSError, StoreError):
            return False

    # --- reporting ---

    async def _report_all(self, commitments: Sequence[Commitment]) -> None:
        """Report to one peer; the first failure ends the try for all of them."""
        left = list(commitments)
        standing = [one for one in self._associations if _is_of(one, left[0])]
        line = _Line(left[0].calling, standing, lambda: self._peer(left[0]), self._clock)
        try:
            while left:
                await self._report(left[0], line)
                left.pop(0)
        except (LinkError, TemporaryError) as error:
            words = str(error)
            for commitment in left:
                await self._failed(commitment, words)
        finally:
            for gone in line.gone:
                with suppress(ValueError):
                    self._associations.remove(gone)
            await line.close()

    async def _report(self, commitment: Commitment, line: "_Line") -> None:
        decided = await asyncio.to_thread(lambda: references_of(self._store.readers.connection, commitment.id))
        outcomes = [(reference, reason or SUCCESS) for reference, reason in decided]
        await line.tell(commitment.transaction_uid, outcomes)
        now = self._clock.now()
        await asyncio.wrap_future(self._store.call(lambda c: settle(c, commitment.id, CommitmentState.REPORTED, now)))
        self._alarms.clear(f"commitment-unreported:{commitment.source}")
        _log.info("commitment.reported source=%s commitment=%d", commitment.source, commitment.id)

    def _peer(self, commitment: Commitment) -> Peer | None:
        policy = self._policies(commitment.source)
        known = [each for each in policy.peers if each.ae_title.strip() == commitment.calling] if policy else []
        found: DicomPeer | None = next((each for each in known if each.port is not None), None)
        if found is None or found.port is None:
            return None
        return Peer(
            host=found.host or commitment.host,
            port=found.port,
            ae_title=found.ae_title,
            calling_ae_title=commitment.called,
            tls=None if found.tls is None else client_context(found.tls),
            server_name=None if found.tls is None else found.tls.server_name,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            response_timeout_s=REPORT_TIMEOUT_S,
        )

    async def _failed(self, commitment: Commitment, words: str) -> None:
        now = self._clock.now()
        if age_s(commitment.received_at, now) < GIVE_UP_S:
            await self._postpone(commitment, words, RETRY_S_MAX)
            return
        await asyncio.wrap_future(self._store.call(lambda c: settle(c, commitment.id, CommitmentState.GIVEN_UP, now)))
        _log.error("commitment.given_up source=%s commitment=%d", commitment.source, commitment.id)
        self._alarms.put(
            f"commitment-unreported:{commitment.source}", f"{commitment.source}: a commitment report was never taken"
        )

    async def _postpone(self, commitment: Commitment, words: str, wait_s_max: float) -> None:
        wait_s = min(RETRY_S_MIN * 2.0 ** min(commitment.attempts, 20), wait_s_max)
        at = self._clock.now() + timedelta(seconds=wait_s)
        await asyncio.wrap_future(self._store.call(lambda c: postpone(c, commitment.id, at, words)))
        _log.debug("commitment.postponed commitment=%d reason=%r", commitment.id, words)


class _Line:
    """The ways to one peer, in the order in which they are tried: its own associations, then one of ours."""

    def __init__(
        self, calling: str, standing: list[OpenAssociation], peer: Callable[[], Peer | None], clock: Clock
    ) -> None:
        self._calling = calling
        self._standing = standing
        self.gone: list[OpenAssociation] = []
        self._peer = peer
        self._clock = clock
        self._opened: RequestedAssociation | None = None

    async def tell(self, transaction_uid: str, outcomes: Sequence[tuple[Reference, int]]) -> None:
        """Send one report. Raises LinkError and TemporaryError when nobody took it."""
        while self._standing:
            with suppress(LinkError):
                await self._tell_on(self._standing[-1], transaction_uid, outcomes)
                return
            self.gone.append(self._standing.pop())  # it has gone, or its peer takes no reports there
        opened = self._opened = self._opened or await self._open()
        event_type, data = write_report(transaction_uid, outcomes, opened.accepts(COMMITMENT_SOP_CLASS)[0])
        answer = await opened.normalised(
            Field.N_EVENT_REPORT, COMMITMENT_SOP_CLASS, COMMITMENT_SOP_INSTANCE, data, event_type=event_type
        )
        self._expect_success(answer.status)

    async def close(self) -> None:
        """Release the association that we opened."""
        if self._opened is not None:
            await self._opened.release()

    async def _open(self) -> RequestedAssociation:
        peer = self._peer()
        if peer is None:
            raise LinkError(f"no association of {self._calling} takes the report, and no port is configured for it")
        return await open_association(
            peer,
            [Wanted(COMMITMENT_SOP_CLASS, (EXPLICIT_LITTLE, IMPLICIT_LITTLE))],
            self._clock,
            roles={COMMITMENT_SOP_CLASS: Role(scu=False, scp=True)},
        )

    async def _tell_on(
        self, association: OpenAssociation, transaction_uid: str, outcomes: Sequence[tuple[Reference, int]]
    ) -> None:
        event_type, data = write_report(transaction_uid, outcomes, IMPLICIT_LITTLE)
        try:
            async with asyncio.timeout(REPORT_TIMEOUT_S):
                status = await association.report(COMMITMENT_SOP_CLASS, COMMITMENT_SOP_INSTANCE, event_type, data)
        except TimeoutError:
            raise LinkError(f"{self._calling}: no answer to the report in {REPORT_TIMEOUT_S:g} s") from None
        self._expect_success(status)

    def _expect_success(self, status: int) -> None:
        if status != SUCCESS:
            raise LinkError(f"{self._calling} answered the report with {status:04X}")


def _is_of(association: OpenAssociation, commitment: Commitment) -> bool:
    caller = association.caller
    return caller.source == commitment.source and caller.calling_ae_title == commitment.calling
