"""HL7 v2 over MLLP to an EMR or engine: one message at a time, each until its acknowledgement.

    closed --connect--> idle --write--> waiting --answer to this MSH-10--> idle
                                        waiting --silence, close, any other answer--> closed

A message is delivered when a framed answer carries its MSH-10 in MSA-2, byte for byte, with code AA or CA. What else
may come, and what it means:

    AE, AR, CE, CR with ERR-3 206 or 207     the peer cannot now (record locked, internal error): RETRY
    AE, AR, CE, CR otherwise                 the peer does not want it: REFUSED; on_error parks or holds
    AE, AR, CE, CR with an empty MSA-2       the peer could not read MSH: RETRY_CONTENT, on a new connection
    MLLP commit block NAK                    the peer could not store it: RETRY
    silence, though MSH-15/16 ask for it     RETRY_CONTENT, so that it does not block the lane for ever
    silence, closing, an answer that cannot be read, a foreign MSA-2
                                             LinkError; the connection is dropped, so a late answer is never misread

In enhanced mode the commit answer counts; an application answer that follows for a settled id is skipped, so an id that
was answered on a connection is never asked again on it. A peer that
closes after each message is met by asking the socket before each write; where it closed in the very moment of a
write, the same bytes go out once more on a new connection, at once. HL7 received goes out as received; Results
become PCD-01, procedure steps an order status.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from gateway.config import MllpDestination
from gateway.errors import ContentError, FrameError, LinkError
from gateway.formats.acknowledgement import Acknowledgement, ErrorCode, read_acknowledgement
from gateway.formats.hl7 import read_header
from gateway.formats.hl7_digest import intact
from gateway.formats.order_status import render_order_status
from gateway.formats.origin import Origins
from gateway.formats.pcd import render_pcd01
from gateway.model import Kind, Parcel, Receipt, Verdict
from gateway.protocols.mllp import CommitBlock, Frame, Oversize, encode_frame
from gateway.senders.mllp_link import MllpLink, connect

ACKNOWLEDGEMENT_BYTES_MAX = 4096  # what is kept of an answer
WRITE_BYTES_PER_S_MIN = 1 << 20  # a large message gets this much more time
BATCH_MAX = 64

_BUSY = frozenset({"206", "207"})  # HL7 table 0357: application record locked, application internal error
_CODE = re.compile(r"[0-9]{1,5}")  # anything else may be a peer's free text
_CODES_MAX = 5
_TEXTS = {str(code.number): code.text for code in ErrorCode}
_ANSWERED = frozenset({b"AL", b"SU"})  # HL7 table 0155: an answer comes at least on success

_log = logging.getLogger("gateway.senders")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A framed message, the MSH-10 that its answer must name, and whether it asks for an answer at all."""

    frame: bytes
    control_id: bytes
    answered: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back: an acknowledgement with its bytes, or None for the NAK of MLLP itself."""

    acknowledgement: Acknowledgement | None
    raw: bytes


class MllpSender:
    """Speaks to one Destination over one connection, kept open between calls."""

    batch_max = BATCH_MAX

    def __init__(self, settings: MllpDestination, origins: Origins) -> None:
        self._settings = settings
        self._origins = origins
        self._place = f"{settings.host}:{settings.port}"
        self._link: MllpLink | None = None

    async def send(self, parcels: Sequence[Parcel]) -> AsyncGenerator[Receipt, None]:
        """Bring the Parcels one after the other; see `Sender.send`."""
        for parcel in parcels:
            receipt = await self._deliver(parcel)
            yield receipt
            if receipt.verdict in (Verdict.RETRY, Verdict.RETRY_CONTENT):
                return

    async def probe(self) -> str:
        """Connect and tell; MLLP has no word of hello. Raises LinkError."""
        await self._connected()
        return f"connected to {self._place}{' with TLS' if self._settings.tls else ''}"

    async def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _deliver(self, parcel: Parcel) -> Receipt:
        number = parcel.delivery.id
        try:
            question = self._question(parcel)
        except (ContentError, FrameError) as error:
            return Receipt(delivery_id=number, verdict=Verdict.REFUSED, reason=str(error))
        try:
            answer = await self._ask(question)
        except TimeoutError as error:
            silence = f"{self._place}: no acknowledgement within {self._limit_s(question):g} s"
            if question.answered:
                raise LinkError(silence) from error
            reason = f"{silence}; MSH-15 and MSH-16 ask for none"
            return Receipt(delivery_id=number, verdict=Verdict.RETRY_CONTENT, reason=reason)
        return _receipt(number, answer)

    def _question(self, parcel: Parcel) -> _Question:
        message = parcel.message
        match message.kind:
            case Kind.OBSERVATIONS:
                content = render_pcd01(parcel, self._origins(message), waves=self._settings.waves)
                return _Question(
                    frame=encode_frame(content), control_id=parcel.delivery.control_id.encode(), answered=True
                )
            case Kind.MPPS if self._settings.order_status is not None:
                content = render_order_status(parcel, self._origins(message), self._settings.order_status)
                return _Question(
                    frame=encode_frame(content), control_id=parcel.delivery.control_id.encode(), answered=True
                )
            case Kind.HL7 if message.raw is not None:
                raw = intact(message, message.raw)
                header = read_header(raw)
                wanted = {header.field(15).strip(), header.field(16).strip()}
                answered = not header.enhanced or bool(wanted & _ANSWERED)
                return _Question(frame=encode_frame(raw), control_id=header.control_id, answered=answered)
            case _:
                raise ContentError(f"a {message.kind.value} message cannot go over MLLP")

    def _limit_s(self, question: _Question) -> float:
        return self._settings.ack_timeout_s + len(question.frame) // WRITE_BYTES_PER_S_MIN

    async def _ask(self, question: _Question) -> _Answer:
        link = await self._connected()
        if question.control_id in link.settled:  # used again: what is still said of the first is not said of it
            await self.close()
            link = await self._connected()
        worn = bool(link.settled)
        try:
            return await self._asked(link, question)
        except _ClosedError as error:
            if not worn:
                raise LinkError(f"{self._place}: {error}") from error
        _log.debug("mllp.reopened destination=%s", self._settings.name)
        try:
            return await self._asked(await self._connected(), question)
        except _ClosedError as error:
            raise LinkError(f"{self._place}: {error}") from error

    async def _connected(self) -> MllpLink:
        if self._link is not None and self._link.usable:
            return self._link
        self._drop()
        settings = self._settings
        self._link = await connect(settings.host, settings.port, settings.tls, settings.connect_timeout_s)
        _log.debug("mllp.connected destination=%s", settings.name)
        return self._link

    async def _asked(self, link: MllpLink, question: _Question) -> _Answer:
        """Write and wait; the connection is dropped unless an answer to this question came."""
        settled = False
        try:
            async with asyncio.timeout(self._limit_s(question)):
                link.write(question.frame)
                answer = await self._answer(link, question.control_id)
            settled = answer.acknowledgement is not None and not _names_nothing(answer.acknowledgement)
            link.settled.append(question.control_id)
            return answer
        finally:
            if not settled:
                self._drop()

    async def _answer(self, link: MllpLink, control_id: bytes) -> _Answer:
        while True:
            try:
                event = await link.receive()
            except LinkError as error:
                raise _ClosedError(str(error)) from error
            match event:
                case Frame(content):
                    acknowledgement = self._read(content)
                    if acknowledgement.control_id == control_id or _names_nothing(acknowledgement):
                        return _Answer(acknowledgement, content)
                    self._skip(link, acknowledgement)
                case CommitBlock(accepted=False):
                    return _Answer(None, b"")
                case Oversize():
                    raise LinkError(f"{self._place}: the answer does not end")
                case _:  # junk before a frame, half a frame begun anew, commit block ACK before the answer itself
                    continue

    def _read(self, content: bytes) -> Acknowledgement:
        try:
            return read_acknowledgement(content)
        except ContentError as error:
            raise LinkError(f"{self._place}: malformed answer: {error}") from error

    def _skip(self, link: MllpLink, acknowledgement: Acknowledgement) -> None:
        """Pass over the second answer to a message that is settled; any other foreign answer breaks the connection."""
        if acknowledgement.control_id not in link.settled:
            raise LinkError(f"{self._place}: the answer names another message in MSA-2")
        if not acknowledgement.code.accepted:
            name, code = self._settings.name, acknowledgement.code.value
            _log.warning("mllp.refused_after_commit destination=%s code=%s", name, code)

    def _drop(self) -> None:
        if self._link is not None:
            self._link.abort()
            self._link = None


class _ClosedError(Exception):
    """The connection was lost before an answer came."""


def _names_nothing(acknowledgement: Acknowledgement) -> bool:
    """Tell whether this is a refusal by who could not read our MSH-10; the only question there was is ours."""
    return not acknowledgement.code.accepted and not acknowledgement.control_id


def _receipt(number: int, answer: _Answer) -> Receipt:
    acknowledgement, raw = answer.acknowledgement, answer.raw[:ACKNOWLEDGEMENT_BYTES_MAX]
    if acknowledgement is None:
        return Receipt(delivery_id=number, verdict=Verdict.RETRY, reason="MLLP NAK: not stored by the peer")
    if acknowledgement.code.accepted:
        return Receipt(delivery_id=number, verdict=Verdict.DELIVERED, acknowledgement=raw)
    codes = [error.code for error in acknowledgement.errors if error.code is not None and _CODE.fullmatch(error.code)]
    verdict = Verdict.RETRY if _BUSY.intersection(codes) else Verdict.REFUSED
    reason = " ".join([acknowledgement.code.value, *map(_words, codes[:_CODES_MAX])])
    if verdict is Verdict.REFUSED and _names_nothing(acknowledgement):
        verdict, reason = Verdict.RETRY_CONTENT, f"{reason}, without MSA-2"
    return Receipt(delivery_id=number, verdict=verdict, reason=reason, acknowledgement=raw)


def _words(code: str) -> str:
    """Return a code with the words of table 0357; those of the peer may name a patient."""
    text = _TEXTS.get(code)
    return f"ERR-{code}" if text is None else f"ERR-{code} ({text.lower()})"
