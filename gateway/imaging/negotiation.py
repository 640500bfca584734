"""Which presentation contexts a Source accepts, and how (PS3.8, 7.1.1.13; PS3.7, D.3).

Any Storage SOP Class is accepted, known, private or newer than our dictionary, in the transfer syntax that the peer
proposes first, because nothing is decoded. Other services are those that were registered, in Implicit or Explicit VR
Little Endian: what they take is read whole, so no Deflated data set can burst there. The window is always one.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydicom._uid_dict import UID_dictionary

from gateway.formats.dicom import IMPLEMENTATION_UID, IMPLEMENTATION_VERSION, IMPLICIT_LITTLE
from gateway.imaging.service import OpenAssociation, Service
from gateway.protocols.dimse import Field
from gateway.protocols.negotiation import (
    ABSTRACT_SYNTAX_NOT_SUPPORTED,
    ACCEPTED,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
    Acceptance,
    AnsweredContext,
    Proposal,
    ProposedContext,
    Role,
)

VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
WINDOW = (1, 1)  # operations invoked and performed

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."  # new Storage SOP Classes are numbered here
_NOT_STORAGE = ("1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2")  # DICOMDIR, commitment
_READ = (IMPLICIT_LITTLE, EXPLICIT_LITTLE)  # of data sets that are read whole; the first that is proposed

Extend = Callable[[bytes], bytes]
Associated = Callable[[OpenAssociation], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a Source offers beside Verification and Storage.

    `services` by command field and SOP Class UID. `extended` answers the application information that a peer proposes
    for a SOP Class (PS3.7, D.3.3.5); without an entry nothing is answered. `associated` by SOP Class hears of every
    association that was opened with a context for it.
    """

    services: Mapping[tuple[int, str], Service] = field(default_factory=dict)
    extended: Mapping[str, Extend] = field(default_factory=dict)
    associated: Mapping[str, Associated] = field(default_factory=dict)

    @property
    def sop_classes(self) -> frozenset[str]:
        """Return the SOP Classes that have a service."""
        return frozenset(uid for _, uid in self.services)

    @property
    def gets(self) -> bool:
        """Return whether Instances may be fetched back on the same association (C-GET)."""
        return any(number == Field.C_GET for number, _ in self.services)


def service_of(abstract_syntax: str) -> Literal["echo", "storage"] | None:
    """Return which of the two services without registration an abstract syntax belongs to, None for any other."""
    if abstract_syntax == VERIFICATION:
        return "echo"
    if not abstract_syntax.startswith(_DICOM_ROOT):
        return "storage"
    if known := UID_dictionary.get(abstract_syntax):
        name, kind = known[0], known[1]
        storage = kind == "SOP Class" and "Storage" in name and abstract_syntax not in _NOT_STORAGE
        return "storage" if storage else None
    return "storage" if abstract_syntax.startswith(_STORAGE_ROOT) else None


def answer(proposal: Proposal, services: Collection[str], offer: Offer, pdu_max: int) -> Acceptance:
    """Judge every context that a peer proposed; `services` may hold "echo" and "storage"."""
    registered = offer.sop_classes
    fetched = {uid for uid, role in proposal.roles.items() if role.scp} if offer.gets else set()
    contexts = tuple(_judge(context, services, registered, fetched) for context in proposal.contexts)
    taken = {
        proposed.abstract_syntax
        for proposed, answered in zip(proposal.contexts, contexts, strict=True)
        if answered.result == ACCEPTED
    }
    return Acceptance(
        called_ae_title=proposal.called_ae_title,
        calling_ae_title=proposal.calling_ae_title,
        contexts=contexts,
        pdu_max=pdu_max,
        implementation_uid=IMPLEMENTATION_UID,
        implementation_version=IMPLEMENTATION_VERSION.decode(),
        roles={uid: _grant(uid, role, offer) for uid, role in proposal.roles.items() if uid in taken},
        extended={
            uid: offer.extended[uid](content)
            for uid, content in proposal.extended.items()
            if uid in taken and uid in offer.extended
        },
        window=None if proposal.window is None else WINDOW,
    )


def _judge(
    context: ProposedContext, services: Collection[str], registered: Collection[str], fetched: Collection[str]
) -> AnsweredContext:
    """Judge one context; `fetched` are the SOP Classes that the peer takes as SCP, so that it may say C-GET."""
    uid = context.abstract_syntax
    first = context.transfer_syntaxes[0]
    if uid in registered:
        readable = [syntax for syntax in _READ if syntax in context.transfer_syntaxes]
        if readable:
            return AnsweredContext(context.context_id, ACCEPTED, readable[0])
        return AnsweredContext(context.context_id, TRANSFER_SYNTAXES_NOT_SUPPORTED, first)
    service = service_of(uid)
    if service in services or (service == "storage" and uid in fetched):
        return AnsweredContext(context.context_id, ACCEPTED, first)
    return AnsweredContext(context.context_id, ABSTRACT_SYNTAX_NOT_SUPPORTED, first)


def _grant(uid: str, role: Role, offer: Offer) -> Role:
    """Return the roles that the requestor may play: SCP where we are ready to be the SCU."""
    scp = offer.gets if service_of(uid) == "storage" else (Field.N_EVENT_REPORT, uid) in offer.services
    return Role(scu=role.scu, scp=role.scp and scp)
