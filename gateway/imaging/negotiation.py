"""Which presentation contexts a Source accepts, and how (PS3.8, 7.1.1.13; PS3.7, D.3).

Any Storage SOP Class is accepted, known, private or newer than our dictionary, in the transfer syntax that the peer
proposes first, because nothing is decoded. The library's own rule for unknown classes would let Modality Worklist and
Color Palette queries in by the back door: here every context is judged again before the answer goes out.
"""

from collections.abc import Collection
from typing import Literal

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from gateway.formats.dicom import IMPLICIT_LITTLE, clean_uid

Service = Literal["echo", "storage"]

VERIFICATION = "1.2.840.10008.1.1"
ACCEPTANCE, ABSTRACT_SYNTAX_NOT_SUPPORTED = 0x00, 0x03
CONTEXTS_MAX = 128

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."  # new Storage SOP Classes are numbered here
_NOT_STORAGE = ("1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2")  # DICOMDIR, commitment


def service_of(abstract_syntax: str) -> Service | None:
    """Return the service that an abstract syntax belongs to, None where we offer none."""
    if abstract_syntax == VERIFICATION:
        return "echo"
    if not abstract_syntax.startswith(_DICOM_ROOT):
        return "storage"
    if known := UID_dictionary.get(abstract_syntax):
        name, kind = known[0], known[1]
        storage = kind == "SOP Class" and "Storage" in name and abstract_syntax not in _NOT_STORAGE
        return "storage" if storage else None
    return "storage" if abstract_syntax.startswith(_STORAGE_ROOT) else None


def clean_request(request: A_ASSOCIATE) -> None:
    """Take padding from the UIDs that a peer proposed, and give a context without transfer syntax the default one."""
    for context in request.presentation_context_definition_list:
        context._abstract_syntax = UID(clean_uid(context.abstract_syntax or ""))
        proposed = [UID(clean_uid(syntax)) for syntax in context.transfer_syntax]
        context._transfer_syntax = proposed or [UID(IMPLICIT_LITTLE)]


class Negotiation(ACSE):
    """The library's association control, with our judgement of the contexts."""

    def __init__(self, assoc: Association, services: Collection[str]) -> None:
        super().__init__(assoc)
        self._services = services

    def send_accept(self) -> None:
        """Answer the request."""
        request = self.requestor.primitive
        assert request is not None
        answers = [self._judge(context) for context in request.presentation_context_definition_list[:CONTEXTS_MAX]]
        self.assoc._accepted_cx = {
            context.context_id: context
            for context in answers
            if context.result == ACCEPTANCE and context.context_id is not None
        }
        self.assoc._rejected_cx = [context for context in answers if context.result != ACCEPTANCE]
        super().send_accept()

    def _judge(self, proposed: PresentationContext) -> PresentationContext:
        answer = PresentationContext()
        answer.context_id = proposed.context_id
        answer.abstract_syntax = proposed.abstract_syntax
        answer.transfer_syntax = [proposed.transfer_syntax[0]]
        offered = service_of(str(proposed.abstract_syntax)) in self._services
        answer.result = ACCEPTANCE if offered else ABSTRACT_SYNTAX_NOT_SUPPORTED
        answer._as_scu, answer._as_scp = False, True
        return answer
