"""The exchange in which a service answers one request, and what its outcome is on the wire (PS3.7, 9 and 10).

Services run on the loop, the association in its thread: everything here goes from the one to the other.
"""

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

from gateway.errors import LinkError, StoreError, place_of
from gateway.formats.dicom import clean_uid
from gateway.imaging.service import (
    PENDING,
    PROCESSING_FAILURE,
    REFUSED_OUT_OF_RESOURCES,
    Held,
    Outcome,
    Request,
    Service,
    Suboperations,
)
from gateway.protocols.dimse import Command, Field, response_to
from gateway.protocols.upper_layer import Message

MEDIUM_PRIORITY = 0

_log = logging.getLogger("gateway.sources")
_T = TypeVar("_T")


class Association(Protocol):
    """What is needed of the association."""

    async def perform(self, work: Callable[[], _T]) -> _T:
        """Do something in its thread. Raises LinkError."""
        ...

    async def ask(self, sop_class_uid: str, transfer_syntax: str, command: Command, data: bytes | Held) -> Command:
        """Ask the peer something. Raises LinkError."""
        ...

    def respond(self, message: Message, outcome: Outcome) -> None:
        """Send a response; in its thread."""
        ...

    def taken_by_peer(self, sop_class_uid: str) -> tuple[str, ...]:
        """Return the transfer syntaxes in which the peer takes a SOP Class as SCP."""
        ...


class ServiceExchange:
    """The Exchange of one request; see `gateway.imaging.service`."""

    def __init__(self, association: Association, message: Message) -> None:
        self.message_id = message.command.message_id
        self._association = association
        self._message = message
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Return whether the peer sent C-CANCEL for this request, or has gone."""
        return self._cancelled

    def cancel(self) -> None:
        """Note a C-CANCEL."""
        self._cancelled = True

    end = cancel

    async def pending(
        self, data: bytes = b"", *, status: int = PENDING, suboperations: Suboperations | None = None
    ) -> None:
        """Send one pending response. Raises LinkError."""
        outcome = Outcome(status=status, data=data, suboperations=suboperations)
        await self._association.perform(lambda: self._association.respond(self._message, outcome))

    def takes(self, sop_class_uid: str) -> tuple[str, ...]:
        """Return the transfer syntaxes in which the peer, as SCP by role selection, takes a SOP Class."""
        return self._association.taken_by_peer(sop_class_uid)

    async def store(self, held: Held) -> int:
        """Send a C-STORE on this association and return its status. Raises LinkError."""
        command = Command(
            field=Field.C_STORE,
            sop_class_uid=held.sop_class_uid,
            sop_instance_uid=held.sop_instance_uid,
            has_data=True,
            priority=MEDIUM_PRIORITY,
        )
        response = await self._association.ask(held.sop_class_uid, held.transfer_syntax, command, held)
        return response.status or 0


def response_of(request: Command, outcome: Outcome) -> Command:
    """Return the response to a request."""
    counts = outcome.suboperations
    instance = request.sop_instance_uid if outcome.sop_instance_uid is None else outcome.sop_instance_uid
    return Command(
        field=response_to(request.field),
        responded_to=request.message_id,
        sop_class_uid=clean_uid(request.sop_class_uid),
        sop_instance_uid=clean_uid(instance),
        has_data=bool(outcome.data),
        status=outcome.status,
        comment=outcome.comment.encode("ascii", "replace").decode(),
        error_id=outcome.error_id,
        offending=outcome.offending,
        event_type=request.event_type,
        action_type=request.action_type,
        remaining=None if counts is None else counts.remaining,
        completed=None if counts is None else counts.completed,
        failed=None if counts is None else counts.failed,
        warning=None if counts is None else counts.warning,
    )


async def outcome_of(service: Service, request: Request, exchange: ServiceExchange) -> Outcome:
    """Let a service answer; whatever goes wrong in it becomes an outcome."""
    try:
        return await service(request, exchange)
    except StoreError as error:
        return Outcome(status=REFUSED_OUT_OF_RESOURCES, comment=f"not kept: {error}")
    except LinkError:
        return Outcome(status=PROCESSING_FAILURE, comment="the association failed")
    except Exception as error:  # noqa: BLE001  # border: a bug in a service is answered, and ends nothing else
        _log.error("service.crashed error=%s place=%s", type(error).__name__, place_of(error))
        return Outcome(status=PROCESSING_FAILURE, comment="internal fault")
