"""Storage Commitment Push Model as SCU: archives are asked to commit to what they were sent (PS3.4, annex J).

    delivered --quiet for a while--> N-ACTION --N-EVENT-REPORT--> committed: retention may let go
                                      |  |                `-----> denied: sent again, a limited number of times
                                      |  `-- no report in time: asked again, under a new Transaction UID
                                      `----- not taken: asked again later

What is asked is written before it is asked, so neither a quick report nor a restart loses anything. A report is taken
on the association that asked, for as long as it stands, and on our own listener at any time; one whose transaction we
do not know changes nothing. What an archive says of an Instance counts once.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta

from gateway.alarms import Alarms
from gateway.clock import Clock
from gateway.config import DicomDestination
from gateway.errors import ContentError, LinkError, StoreError, TemporaryError
from gateway.formats.commitment import CommitmentRequest, Reference, read_report, write_request
from gateway.formats.dicom import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.imaging.service import Exchange, Outcome, Request
from gateway.net.requestor import Asked, NoContextError, Reply, RequestedAssociation, Wanted, open_association
from gateway.protocols.dimse import Field
from gateway.senders.dicom import peer_of
from gateway.store.archive import Archival, ask, ask_again_at, due_archivals, oldest_uncommitted
from gateway.store.store import Store

COMMITMENT_SOP_CLASS = "1.2.840.10008.1.20.1"
COMMITMENT_SOP_INSTANCE = "1.2.840.10008.1.20.1.1"  # well-known
REQUEST_COMMITMENT = 1  # action type
N_EVENT_REPORT_RQ = 0x0100
SUCCESS, PROCESSING_FAILURE, INVALID_ARGUMENT = 0x0000, 0x0110, 0x0115
NO_SUCH_EVENT, UNRECOGNISED_OPERATION, RESOURCE_LIMITATION = 0x0113, 0x0211, 0x0213

REFERENCES_MAX = 1000  # of one request
REPORT_WAIT_S = 5.0  # the association stands that long for a report; later ones come to our listener
POLL_S = 5.0
REFUSED_WAIT_S = 60.0  # doubled with every refusal in a row
REFUSED_WAIT_S_MAX = 3600.0
LATE_AFTER = 3  # of commitment_timeout_s: then a person should know

_log = logging.getLogger("gateway.imaging")

OwedAgain = Callable[[str], None]
"""Hears the Destination that is owed something again."""


class CommitmentAnswers:
    """Takes reports of archives, wherever they come; a `Service` for N-EVENT-REPORT on our listener."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        alarms: Alarms,
        destinations: Callable[[], Iterable[DicomDestination]],
        owed_again: OwedAgain,
    ) -> None:
        """Take the parts; `destinations` are those of the configuration as it stands."""
        self._store = store
        self._clock = clock
        self._alarms = alarms
        self._destinations = destinations
        self._owed_again = owed_again

    async def __call__(self, request: Request, exchange: Exchange) -> Outcome:
        """Answer one request on our listener; never raises for content."""
        if request.field != Field.N_EVENT_REPORT:
            return Outcome(status=UNRECOGNISED_OPERATION)
        status, comment = await self.take(request.event_type, request.data, request.transfer_syntax)
        return Outcome(status=status, comment=comment, sop_instance_uid=COMMITMENT_SOP_INSTANCE)

    async def take(self, event_type: int | None, data: bytes, transfer_syntax: str) -> tuple[int, str]:
        """Write what a report says, and return status and Error Comment for it (PS3.7, 10.1.1.1.8)."""
        if event_type not in (1, 2):
            return NO_SUCH_EVENT, "event type 1 or 2 expected"
        try:
            report = read_report(data, transfer_syntax)
        except ContentError as error:
            return INVALID_ARGUMENT, str(error)
        attempts_max = {each.name: each.commitment_attempts_max for each in self._destinations()}
        now = self._clock.now()
        try:
            judged = await asyncio.wrap_future(
                self._store.call(
                    lambda c: self._store.reports.judge(
                        c, report.transaction_uid, report.committed, report.failed, attempts_max, now
                    )
                )
            )
        except StoreError as error:
            return RESOURCE_LIMITATION, f"not kept: {error}"
        if judged is None:
            return INVALID_ARGUMENT, "no such transaction"
        name = judged.destination
        _log.info(
            "commitment.reported destination=%s committed=%d again=%d parked=%d",
            name,
            judged.committed,
            len(judged.owed_again),
            len(judged.parked),
        )
        if judged.parked:
            self._alarms.put(f"parked:{name}", f"deliveries to {name} are parked and wait for a person")
        if judged.owed_again:
            self._owed_again(name)
        return SUCCESS, ""


class Committer:
    """Asks one archive; a task. `noted` hears each round how many Instances it has not committed to."""

    def __init__(
        self,
        settings: DicomDestination,
        store: Store,
        clock: Clock,
        alarms: Alarms,
        answers: CommitmentAnswers,
        noted: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._alarms = alarms
        self._answers = answers
        self._noted = noted
        self._refusals = 0

    async def run(self) -> None:
        """Ask for what is due until cancelled."""
        while True:
            if not await self.round():
                await asyncio.sleep(min(POLL_S, max(self._settings.commitment_delay_s, 0.1)))

    async def round(self) -> bool:
        """Ask for what is due, at most one request; return whether there was anything. Raises StoreError."""
        now = self._clock.now()
        quiet = timedelta(seconds=self._settings.commitment_delay_s)

        def read() -> list[Archival]:
            connection = self._store.readers.connection
            return due_archivals(
                connection, self._settings.name, wanted_before=now - quiet, asked_before=now, limit=REFERENCES_MAX
            )

        due = await asyncio.to_thread(read)
        await self._watch_age()
        if due:
            await self._ask(due)
        return bool(due)

    async def _ask(self, due: list[Archival]) -> None:
        """Ask for some Instances and wait a moment for the report. Raises StoreError."""
        uid = f"2.25.{uuid.uuid4().int}"
        again_at = self._clock.now() + timedelta(seconds=self._settings.commitment_timeout_s)
        deliveries = [each.delivery_id for each in due]
        await asyncio.wrap_future(self._store.call(lambda c: ask(c, uid, deliveries, again_at)))
        try:
            reason = await self._request(uid, due)
        except (LinkError, TemporaryError) as error:
            reason = str(error)
        if reason is None:
            self._refusals = 0
            self._alarms.clear(f"commitment-refused:{self._settings.name}")
            return
        self._refusals += 1
        wait_s = min(REFUSED_WAIT_S * 2.0 ** min(self._refusals - 1, 10), REFUSED_WAIT_S_MAX)
        at = self._clock.now() + timedelta(seconds=min(wait_s, self._settings.commitment_timeout_s))
        _log.warning("commitment.refused destination=%s instances=%d", self._settings.name, len(due))
        self._alarms.put(
            f"commitment-refused:{self._settings.name}",
            f"{self._settings.name} takes no request for commitment: {reason}",
        )
        await asyncio.wrap_future(self._store.call(lambda c: ask_again_at(c, uid, at)))

    async def _request(self, uid: str, due: list[Archival]) -> str | None:
        """Say N-ACTION and wait a moment for the report; return why it was refused. Raises as `open_association`."""
        reported = asyncio.Event()

        async def serve(asked: Asked) -> Reply:
            if asked.command.field != Field.N_EVENT_REPORT:
                return Reply(status=UNRECOGNISED_OPERATION)
            status, comment = await self._answers.take(
                asked.command.event_type, asked.data, asked.context.transfer_syntax
            )
            reported.set()
            return Reply(status=status, comment=comment)

        wanted = [Wanted(COMMITMENT_SOP_CLASS, (EXPLICIT_LITTLE, IMPLICIT_LITTLE))]
        try:
            association = await open_association(peer_of(self._settings), wanted, self._clock, serve=serve)
        except NoContextError:
            return "it offers no storage commitment"
        try:
            reason = await _act(association, uid, due)
            if reason is None:
                _log.info("commitment.asked destination=%s instances=%d", self._settings.name, len(due))
                with suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_WAIT_S):
                        await reported.wait()
            return reason
        finally:
            await association.release()

    async def _watch_age(self) -> None:
        """Tell a person when the archive is silent for long."""
        name = self._settings.name

        count, since = await asyncio.to_thread(lambda: oldest_uncommitted(self._store.readers.connection, name))
        age_s = 0.0 if since is None else (self._clock.now() - since).total_seconds()
        late = age_s > LATE_AFTER * self._settings.commitment_timeout_s
        self._noted(count)
        self._alarms.hold(f"uncommitted:{name}", late, f"{name} has not committed to instances that it took long ago")


async def _act(association: RequestedAssociation, uid: str, due: list[Archival]) -> str | None:
    references = tuple(Reference(each.sop_class_uid, each.sop_instance_uid) for each in due)
    request = CommitmentRequest(transaction_uid=uid, references=references)
    (syntax, *_) = association.accepts(COMMITMENT_SOP_CLASS)
    answer = await association.normalised(
        Field.N_ACTION,
        COMMITMENT_SOP_CLASS,
        COMMITMENT_SOP_INSTANCE,
        write_request(request, syntax),
        action_type=REQUEST_COMMITMENT,
    )
    return None if answer.status == SUCCESS else f"answered {answer.status:04X}"
