"""What two AEs agree on before they talk: the bodies of A-ASSOCIATE PDUs as values (PS3.8, 9.3.2 to 9.3.4, annex D).

The library's classes are the codec; they run once an association. Because they take their rules from process-wide
settings and stop at whatever they do not know, a peer's bytes are walked first: items of unknown type are left out, AE
titles become printable, padding goes from UIDs, and everything is counted. Whom to accept is decided elsewhere.
"""

import logging
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom.uid import UID
from pynetdicom import _config, pdu, pdu_items

from gateway.errors import FrameError

ASSOCIATE_BYTES_MAX = 1 << 20  # 128 contexts with 40 transfer syntaxes each are 150 kB
CONTEXTS_MAX = 128  # context ids are the odd numbers of a byte (PS3.8, 9.3.2.2)
ITEMS_MAX = 4096  # of one level
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"

ACCEPTED = 0
USER_REJECTION = 1
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4

_FIXED = struct.Struct(">H2x16s16s32x")
_ITEM = struct.Struct(">BxH")
_PRINTABLE = bytes(byte if 0x20 <= byte < 0x7F and byte != 0x5C else 0x3F for byte in range(256))
_BLANK_TITLE = "?"
_KNOWN = {0x10, 0x20, 0x21, 0x50}
_KNOWN_INSIDE = {
    0x20: {0x30, 0x40},
    0x21: {0x40},
    0x50: {0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57},  # user identity is tolerated and never read
}
_CONTEXT_HEAD = 4  # id and reserved bytes before the syntaxes of a context
_OPERATIONS = 1  # the window, both ways (PS3.7, D.3.3.3)


@dataclass(frozen=True, slots=True)
class Role:
    """Which roles the requestor of an association plays for a SOP Class (PS3.7, D.3.3.4)."""

    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """One presentation context as it is asked for."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnsweredContext:
    """One presentation context as it is answered; only where `result` is ACCEPTED does the transfer syntax count."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An A-ASSOCIATE-RQ. `pdu_max` is what its sender takes in the variable field of one P-DATA PDU, 0 for any size.

    `extended` is the service class application information by SOP Class UID (PS3.7, D.3.3.5). `window` is the
    proposed number of operations invoked and performed, None where the peer said nothing.
    """

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[ProposedContext, ...]
    pdu_max: int
    implementation_uid: str = ""
    implementation_version: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)
    window: tuple[int, int] | None = None
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """An A-ASSOCIATE-AC; the titles are those of the request, sent back."""

    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[AnsweredContext, ...]
    pdu_max: int
    implementation_uid: str = ""
    implementation_version: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)
    window: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8, table 9-21)."""

    result: int
    source: int
    reason: int

    @property
    def is_transient(self) -> bool:
        """Return whether the peer may take us later."""
        return self.result == 2

    @property
    def words(self) -> str:
        """Return the standard's words for it."""
        return _REASONS.get((self.source, self.reason), f"source {self.source}, reason {self.reason}")


_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


def decode_request(body: bytes) -> Proposal:
    """Read the body of an A-ASSOCIATE-RQ, behind its six-byte head. Raises FrameError."""
    request = pdu.A_ASSOCIATE_RQ()
    titles = _decode(request, body)
    told = _told(request.user_information)
    return Proposal(
        called_ae_title=titles[0],
        calling_ae_title=titles[1],
        contexts=tuple(_proposed(item) for item in request.presentation_context[:CONTEXTS_MAX]),
        application_context=str(request.application_context_name or ""),
        protocol_version=request.protocol_version,
        **told,
    )


def decode_accept(body: bytes) -> Acceptance:
    """Read the body of an A-ASSOCIATE-AC. Raises FrameError."""
    accept = pdu.A_ASSOCIATE_AC()
    titles = _decode(accept, body)
    return Acceptance(
        called_ae_title=titles[0],
        calling_ae_title=titles[1],
        contexts=tuple(
            AnsweredContext(item.context_id or 0, _result(item), str(item.transfer_syntax or ""))
            for item in accept.presentation_context[:CONTEXTS_MAX]
        ),
        **_told(accept.user_information),
    )


def decode_rejection(body: bytes) -> Rejection:
    """Read the body of an A-ASSOCIATE-RJ. Raises FrameError."""
    if len(body) < 4:
        raise FrameError("A-ASSOCIATE-RJ cut short")
    return Rejection(body[1], body[2], body[3])


def encode_request(proposal: Proposal) -> bytes:
    """Write a whole A-ASSOCIATE-RQ PDU."""
    request = pdu.A_ASSOCIATE_RQ()
    request.called_ae_title = proposal.called_ae_title
    request.calling_ae_title = proposal.calling_ae_title
    request.variable_items = [
        _application_context(),
        *[_context_rq(context) for context in proposal.contexts],
        _user_information(proposal),
    ]
    return request.encode()


def encode_accept(acceptance: Acceptance) -> bytes:
    """Write a whole A-ASSOCIATE-AC PDU."""
    accept = pdu.A_ASSOCIATE_AC()
    accept.reserved_aet = acceptance.called_ae_title or _BLANK_TITLE
    accept.reserved_aec = acceptance.calling_ae_title or _BLANK_TITLE
    accept.variable_items = [
        _application_context(),
        *[_context_ac(context) for context in acceptance.contexts],
        _user_information(acceptance),
    ]
    return accept.encode()


def encode_rejection(rejection: Rejection) -> bytes:
    """Write a whole A-ASSOCIATE-RJ PDU."""
    return struct.pack(">BxLxBBB", 0x03, 4, rejection.result, rejection.source, rejection.reason)


def configure_library() -> None:
    """Set what is process-wide in pynetdicom: what modalities call themselves is not always by the book.

    The loggers of both libraries print identifiers and data sets, so they are silent.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    for name in ("pynetdicom", "pydicom"):
        library = logging.getLogger(name)
        library.setLevel(logging.CRITICAL + 1)
        library.propagate = False
    _config.VALIDATORS = {"AE": _accept_any, "UI": _accept_any}
    _config.CODECS = ("ascii", "latin-1")


def _accept_any(_value: Any) -> tuple[bool, str]:
    return True, ""


configure_library()


def _decode(target: Any, body: bytes) -> tuple[str, str]:
    """Let the library read a body that has been made fit for it; return the titles as they came, cleaned."""
    if len(body) < _FIXED.size:
        raise FrameError("A-ASSOCIATE cut short")
    version, called, calling = _FIXED.unpack_from(body)
    titles = _title(called), _title(calling)
    fixed = _FIXED.pack(version, *(title.encode().ljust(16) for title in titles))
    whole = struct.pack(">BxL", target.pdu_type, len(body)) + fixed + _walked(body[_FIXED.size :])
    try:
        target.decode(whole)
    except Exception as error:  # border: the library meets a peer's bytes and raises what it likes
        raise FrameError(f"A-ASSOCIATE not readable: {type(error).__name__}") from error
    return titles


def _walked(body: bytes) -> bytes:
    parts = []
    for kind, value in _items(body):
        if kind not in _KNOWN:
            continue
        if kind in _KNOWN_INSIDE:
            head = _CONTEXT_HEAD if kind != 0x50 else 0
            if len(value) < head:
                raise FrameError("a presentation context is cut short")
            inner = [
                _item(sub, _cleaned(sub, content))
                for sub, content in _items(value[head:])
                if sub in _KNOWN_INSIDE[kind]
            ]
            value = value[:head] + b"".join(inner)
        else:
            value = value.rstrip(b"\0 ")
        parts.append(_item(kind, value))
    return b"".join(parts)


def _items(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    for _ in range(ITEMS_MAX):
        if at == len(body):
            return
        if len(body) - at < _ITEM.size:
            raise FrameError(f"an item of an A-ASSOCIATE is cut short at byte {at}")
        kind, length = _ITEM.unpack_from(body, at)
        at += _ITEM.size
        if length > len(body) - at:
            raise FrameError(f"item {kind:02X} of an A-ASSOCIATE has {length} bytes, {len(body) - at} are left")
        yield kind, body[at : at + length]
        at += length
    raise FrameError(f"more than {ITEMS_MAX} items in an A-ASSOCIATE")


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _cleaned(kind: int, value: bytes) -> bytes:
    return value.strip(b"\0 ") if kind in (0x30, 0x40, 0x52) else value


def _title(raw: bytes) -> str:
    return raw.replace(b"\0", b" ").translate(_PRINTABLE).decode().strip() or _BLANK_TITLE


def _proposed(item: Any) -> ProposedContext:
    syntaxes = tuple(str(syntax) for syntax in item.transfer_syntax if syntax)
    return ProposedContext(item.context_id, str(item.abstract_syntax or ""), syntaxes or (IMPLICIT_LITTLE,))


def _result(item: Any) -> int:
    return USER_REJECTION if item.result is None else int(item.result)


def _told(information: Any) -> dict[str, Any]:
    """Return what the user information says, as arguments of Proposal and Acceptance."""
    if information is None:
        return {"pdu_max": 0}
    window = information.async_ops_window
    return {
        "pdu_max": information.maximum_length or 0,
        "implementation_uid": str(information.implementation_class_uid or ""),
        "implementation_version": (information.implementation_version_name or "").strip(),
        "roles": {
            _uid(item.sop_class_uid): Role(bool(item.scu_role), bool(item.scp_role))
            for item in information.role_selection.values()
        },
        "extended": {
            _uid(item.sop_class_uid): item.service_class_application_information or b"" for item in information.ext_neg
        },
        "window": None
        if window is None
        else (window.maximum_number_operations_invoked, window.maximum_number_operations_performed),
    }


def _uid(uid: UID | None) -> str:
    return str(uid or "").strip("\0 ")


def _application_context() -> Any:
    item = pdu_items.ApplicationContextItem()
    item.application_context_name = UID(APPLICATION_CONTEXT)
    return item


def _context_rq(context: ProposedContext) -> Any:
    item = pdu_items.PresentationContextItemRQ()
    item.presentation_context_id = context.context_id
    abstract = pdu_items.AbstractSyntaxSubItem()
    abstract.abstract_syntax_name = UID(context.abstract_syntax)
    item.abstract_transfer_syntax_sub_items = [
        abstract,
        *[_transfer_syntax(syntax) for syntax in context.transfer_syntaxes],
    ]
    return item


def _context_ac(context: AnsweredContext) -> Any:
    item = pdu_items.PresentationContextItemAC()
    item.presentation_context_id = context.context_id
    item.result_reason = context.result
    item.transfer_syntax_sub_item = [_transfer_syntax(context.transfer_syntax)]
    return item


def _transfer_syntax(uid: str) -> Any:
    item = pdu_items.TransferSyntaxSubItem()
    item.transfer_syntax_name = UID(uid)
    return item


def _user_information(told: Proposal | Acceptance) -> Any:
    size = pdu_items.MaximumLengthSubItem()
    size.maximum_length_received = told.pdu_max
    implementation = pdu_items.ImplementationClassUIDSubItem()
    implementation.implementation_class_uid = UID(told.implementation_uid)
    version = pdu_items.ImplementationVersionNameSubItem()
    version.implementation_version_name = told.implementation_version
    information = pdu_items.UserInformationItem()
    information.user_data = [size, implementation]
    if told.window is not None:
        window = pdu_items.AsynchronousOperationsWindowSubItem()
        window.maximum_number_operations_invoked, window.maximum_number_operations_performed = told.window
        information.user_data.append(window)
    information.user_data += [_role(uid, role) for uid, role in told.roles.items()]
    information.user_data.append(version)
    information.user_data += [_extended(uid, content) for uid, content in told.extended.items()]
    return information


def _role(uid: str, role: Role) -> Any:
    item = pdu_items.SCP_SCU_RoleSelectionSubItem()
    item.sop_class_uid = UID(uid)
    item.scu_role, item.scp_role = int(role.scu), int(role.scp)
    return item


def _extended(uid: str, content: bytes) -> Any:
    item = pdu_items.SOPClassExtendedNegotiationSubItem()
    item.sop_class_uid = UID(uid)
    item.service_class_application_information = content
    return item
