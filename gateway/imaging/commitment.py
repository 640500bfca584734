"""Storage Commitment Push Model as SCP: what is asked, and what we commit to (PS3.4, annex J).

    N-ACTION --durable--> 0000 ... waiting --every Instance judged--> report, by `commitment_reports`

We commit to an Instance when its row and its whole file are on our disk; with `commitment = "archive"` only when every
archive that has `commitment = true` and is owed the Instance has committed to it, too: then the Modality may delete
what the box itself will delete one day. What is not committed says why (PS3.3, C.14.1.1):

    0112  we do not hold it                     0119  we hold it under another SOP Class
    0110  its file is damaged, or no archive is owed it      0131  the Transaction UID is in use
    0213  the archives did not commit in time

The Instances of a request may still be on their way on another association: for HELD_GRACE_S a missing one is waited
for. A request that is repeated while it is open is answered as before and kept once.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.config import DicomPeer
from gateway.errors import ContentError, StoreError
from gateway.formats.commitment import CommitmentRequest, Reference, read_request
from gateway.imaging.service import NO_SUCH_INSTANCE, PROCESSING_FAILURE, SUCCESS, Exchange, Outcome, Request
from gateway.store.commitments import HeldInstance, NewCommitment

COMMITMENT_SOP_CLASS = "1.2.840.10008.1.20.1"
COMMITMENT_SOP_INSTANCE = "1.2.840.10008.1.20.1.1"  # well-known
REQUEST_COMMITMENT = 1  # action type
N_ACTION_RQ = 0x0130
REFERENCES_MAX = 9_000  # of one request; `identifiers` reads no more elements
HELD_GRACE_S = 10.0
OWED_GRACE_S = 600.0  # what waits for its study to be complete is not owed to an archive at once
REPORT_AFTER_S = 0.2  # the response to the N-ACTION leaves first
RESOURCE_LIMITATION = 0x0213
NO_SUCH_ACTION = 0x0123
INVALID_ARGUMENT = 0x0115
UNRECOGNISED_OPERATION = 0x0211
CLASS_CONFLICT = 0x0119

_log = logging.getLogger("gateway.imaging")

Keep = Callable[[NewCommitment], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentPolicy:
    """When a Source commits, and whom it calls back; `archives` are the Destinations that must have committed."""

    archive: bool
    archives: tuple[str, ...]
    timeout_s: float
    peers: tuple[DicomPeer, ...]


class CommitmentRequests:
    """Answers N-ACTION; a `Service`."""

    def __init__(self, keep: Keep, kept: Callable[[], None]) -> None:
        """Take what writes a request durably (see `store.commitments.keep_commitment`), and who hears of it."""
        self._keep = keep
        self._kept = kept

    async def __call__(self, request: Request, exchange: Exchange) -> Outcome:
        """Answer one request; never raises for content or store."""
        refusal = _misplaced(request)
        if refusal is not None:
            return _refused(request, *refusal)
        try:
            asked = read_request(request.data, request.transfer_syntax)
        except ContentError as error:
            return _refused(request, INVALID_ARGUMENT, str(error))
        if len(asked.references) > REFERENCES_MAX:
            return _refused(request, RESOURCE_LIMITATION, f"more than {REFERENCES_MAX} instances in one request")
        try:
            news = await self._keep(_commitment(request, asked))
        except StoreError as error:
            return _refused(request, RESOURCE_LIMITATION, f"not kept: {error}")
        _log.info(
            "commitment.asked source=%s instances=%d repeated=%s",
            request.caller.source,
            len(asked.references),
            not news,
        )
        self._kept()
        return Outcome(status=SUCCESS, sop_instance_uid=COMMITMENT_SOP_INSTANCE)


def judge(
    references: Sequence[Reference],
    held: dict[str, HeldInstance],
    whole: Callable[[HeldInstance], bool],
    archived: Callable[[HeldInstance], bool | None],
    policy: CommitmentPolicy,
    age_s: float,
) -> list[int | None]:
    """Return for each Instance 0 (committed), a Failure Reason, or None: it is too early to say.

    `whole` tells whether the file is there in full; `archived` whether every archive has committed, None where the
    Instance is owed to none; `age_s` is how long ago the request came.
    """
    return [_reason(each, held.get(each.sop_instance_uid), whole, archived, policy, age_s) for each in references]


def _reason(
    reference: Reference,
    held: HeldInstance | None,
    whole: Callable[[HeldInstance], bool],
    archived: Callable[[HeldInstance], bool | None],
    policy: CommitmentPolicy,
    age_s: float,
) -> int | None:
    if held is None:
        return NO_SUCH_INSTANCE if age_s >= HELD_GRACE_S else None
    if held.sop_class_uid != reference.sop_class_uid:
        return CLASS_CONFLICT
    if not whole(held):
        return PROCESSING_FAILURE
    if not policy.archive:
        return SUCCESS
    match archived(held):
        case True:
            return SUCCESS
        case False:
            return RESOURCE_LIMITATION if age_s >= policy.timeout_s else None
        case None:
            return PROCESSING_FAILURE if age_s >= min(OWED_GRACE_S, policy.timeout_s) else None


def _misplaced(request: Request) -> tuple[int, str] | None:
    if request.field != N_ACTION_RQ:
        return UNRECOGNISED_OPERATION, "only N-ACTION"
    if request.sop_instance_uid != COMMITMENT_SOP_INSTANCE:
        return NO_SUCH_INSTANCE, "not the Storage Commitment Push Model SOP Instance"
    if request.action_type != REQUEST_COMMITMENT:
        return NO_SUCH_ACTION, "the only action type is 1"
    return None


def _commitment(request: Request, asked: CommitmentRequest) -> NewCommitment:
    caller = request.caller
    hasher = hashlib.sha256()
    for each in asked.references:
        hasher.update(f"{each.sop_class_uid}\0{each.sop_instance_uid}\0".encode())
    return NewCommitment(
        transaction_uid=asked.transaction_uid,
        source=caller.source,
        calling=caller.calling_ae_title,
        called=caller.called_ae_title,
        host=caller.host,
        digest=hasher.digest(),
        received_at=request.received_at,
        due_at=request.received_at + timedelta(seconds=REPORT_AFTER_S),
        references=asked.references,
    )


def _refused(request: Request, status: int, comment: str) -> Outcome:
    source, host = request.caller.source, request.caller.host
    _log.warning("commitment.refused source=%s peer=%s status=%04X reason=%r", source, host, status, comment)
    return Outcome(status=status, comment=comment)


def age_s(received_at: datetime, now: datetime) -> float:
    """Return how long ago a request came; a clock that was set back makes it new, not older."""
    return max(0.0, (now - received_at).total_seconds())
