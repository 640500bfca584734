"""What we ask of a peer on an association: C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE and the N-services; on the loop.

The conversation itself, its limits and its end, is `dicom_conversation.py`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress

from gateway.clock import Clock
from gateway.net.dicom_conversation import PENDING, ChooseSink, Conversation, Serve
from gateway.net.dicom_file import FileOut
from gateway.net.dicom_peer import (
    Answer,
    Asked,
    NoAnswerError,
    NoContextError,
    Outgoing,
    Peer,
    PeerAbortError,
    Reply,
    Wanted,
)
from gateway.protocols.dimse import Command, Field
from gateway.protocols.negotiation import Role

__all__ = [
    "PENDING",
    "Answer",
    "Asked",
    "NoAnswerError",
    "NoContextError",
    "Outgoing",
    "Peer",
    "PeerAbortError",
    "Reply",
    "RequestedAssociation",
    "Wanted",
    "open_association",
]

VERIFICATION = "1.2.840.10008.1.1"
LOW_PRIORITY, MEDIUM_PRIORITY, HIGH_PRIORITY = 2, 0, 1  # (0000,0700), PS3.7, 9.3.1


async def open_association(
    peer: Peer,
    contexts: Sequence[Wanted],
    clock: Clock,
    *,
    roles: Mapping[str, Role] | None = None,
    extended: Mapping[str, bytes] | None = None,
    serve: Serve | None = None,
    choose: ChooseSink | None = None,
) -> "RequestedAssociation":
    """Connect and associate, asking for at most 128 contexts.

    `serve` answers what the peer asks on this association, `choose` says where the data set of such a request goes
    (by default memory). Raises TemporaryError when the peer rejects for now, NoContextError when it takes none of the
    contexts, LinkError for anything else.
    """
    conversation = Conversation(peer, clock, serve, choose)
    try:
        await conversation.open(contexts, roles or {}, extended or {})
    except BaseException:
        await conversation.abort()
        raise
    return RequestedAssociation(conversation)


class RequestedAssociation:
    """Made by `open_association`; one task at a time uses an operation, others wait."""

    def __init__(self, conversation: Conversation) -> None:
        self.peer = conversation.peer
        self._talk = conversation

    # --- what was agreed on ---

    @property
    def is_open(self) -> bool:
        """Return whether operations may still be asked for."""
        return self._talk.is_open

    def accepts(self, sop_class_uid: str) -> tuple[str, ...]:
        """Return the transfer syntaxes in which the peer takes a SOP Class."""
        return tuple(syntax for (uid, syntax) in self._talk.ids if uid == sop_class_uid)

    def extended(self, sop_class_uid: str) -> bytes:
        """Return the peer's answer to the extended negotiation of a SOP Class."""
        agreed = self._talk.acceptance
        return b"" if agreed is None else agreed.extended.get(sop_class_uid, b"")

    def role(self, sop_class_uid: str) -> Role | None:
        """Return the roles that the peer granted us for a SOP Class, None for the default ones."""
        agreed = self._talk.acceptance
        return None if agreed is None else agreed.roles.get(sop_class_uid)

    # --- operations ---

    async def echo(self) -> Answer:
        """Say C-ECHO. Raises LinkError, NoContextError."""
        return await self._ask(
            self._talk.context_id(VERIFICATION), Command(field=Field.C_ECHO, sop_class_uid=VERIFICATION)
        )

    async def store(
        self,
        out: Outgoing,
        *,
        priority: int = LOW_PRIORITY,
        move_originator: tuple[str, int] | None = None,
        ahead: Outgoing | None = None,
    ) -> Answer:
        """Send the data set of a file as that of a C-STORE, byte for byte.

        `move_originator` is AE title and message id of the C-MOVE that caused it; `ahead` is what is likely to be
        stored next: its beginning is read while the response is awaited. Raises NoContextError when that SOP
        Class was not accepted in that transfer syntax, FileNotFoundError and other OSErrors before anything was sent
        when the file cannot be opened, LinkError, after which all is over; PeerAbortError where the peer ended it by
        A-ABORT.
        """
        file = self._file(out)
        originator, originator_id = move_originator or ("", None)
        command = Command(
            field=Field.C_STORE,
            sop_class_uid=out.sop_class_uid,
            sop_instance_uid=out.sop_instance_uid,
            has_data=True,
            priority=priority,
            move_originator_ae_title=originator,
            move_originator_message_id=originator_id,
        )
        async with self._talk.ask(file.context_id, command, file=file) as operation:
            with suppress(NoContextError):
                if ahead is not None:
                    self._talk.look_ahead(self._file(ahead))
            return await self._talk.response(operation)

    async def find(
        self, sop_class_uid: str, identifier: bytes, *, priority: int = MEDIUM_PRIORITY
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Ask C-FIND and yield status and identifier of each response, the final one last (its data set is empty).

        Leaving the iteration early (`aclose`) sends C-CANCEL and drains what still comes. The identifier is in the
        first accepted transfer syntax of the SOP Class (`accepts`), so are the answers. Raises LinkError.
        """
        command = Command(field=Field.C_FIND, sop_class_uid=sop_class_uid, has_data=True, priority=priority)
        responses = self.query(command, identifier)
        try:
            async for answer in responses:
                yield answer.status, answer.data
        finally:
            await responses.aclose()

    async def query(self, command: Command, identifier: bytes) -> AsyncGenerator[Answer, None]:
        """Ask C-FIND, C-GET or C-MOVE and yield every response, the final one last; as `find`."""
        async with self._talk.ask(self._talk.context_id(command.sop_class_uid), command, identifier) as operation:
            final = False
            try:
                while not final:
                    answer = await self._talk.response(operation)
                    final = answer.status not in PENDING
                    yield answer
            finally:
                if not final and self.is_open:
                    await self._talk.cancel(operation)

    async def normalised(
        self,
        field: Field,
        sop_class_uid: str,
        sop_instance_uid: str,
        data: bytes = b"",
        *,
        action_type: int | None = None,
        event_type: int | None = None,
    ) -> Answer:
        """Ask N-CREATE, N-SET, N-GET, N-ACTION, N-DELETE or N-EVENT-REPORT; `data` in the first accepted syntax.

        Raises LinkError, NoContextError.
        """
        command = Command(
            field=field,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            has_data=bool(data),
            action_type=action_type,
            event_type=event_type,
        )
        return await self._ask(self._talk.context_id(sop_class_uid), command, data)

    async def release(self) -> None:
        """Release, so that the peer knows all has come; never raises for a peer that has gone."""
        await self._talk.release()

    async def abort(self) -> None:
        """Abort if it still stands, and close."""
        await self._talk.abort()

    async def _ask(self, context_id: int, command: Command, data: bytes = b"") -> Answer:
        """Do one operation that has one response."""
        async with self._talk.ask(context_id, command, data) as operation:
            return await self._talk.response(operation)

    def _file(self, out: Outgoing) -> FileOut:
        context_id = self._talk.context_id(out.sop_class_uid, out.transfer_syntax)
        return FileOut(out.path, out.dataset_offset, out.size, context_id, self._talk.fragment)
