"""What is fuzzed: everything that meets bytes of a stranger, as functions of bytes.

A target raises nothing for any bytes but the error that its module names; anything else, more than a second for one
input, or more memory than the limit, is a finding.
"""

import io
from collections.abc import Callable

from gateway.errors import ContentError, FrameError
from gateway.formats.acknowledgement import read_acknowledgement
from gateway.formats.dicom import read_header as read_dicom_header
from gateway.formats.hl7 import Hl7Text, keys_of, read_header
from gateway.formats.identifiers import decode
from gateway.protocols.dimse import Command, Field, decode_command, encode_command
from gateway.protocols.mllp import Decoder
from gateway.protocols.negotiation import Acceptance, AnsweredContext, Proposal, ProposedContext
from gateway.protocols.pdu import COMMAND, BytesSink, encode_fragments, encode_release_rq
from gateway.protocols.upper_layer import Requested, State, UpperLayer
from gateway.registry import installed_drivers

Target = Callable[[bytes], None]

SINK_BYTES_MAX = 1 << 20
PDU_MAX = 16 << 10
VERIFICATION = "1.2.840.10008.1.1"
SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")


def association(data: bytes) -> None:
    """An association as acceptor: whatever is proposed is accepted, whatever is asked is dropped."""
    layer = UpperLayer(
        requestor=False, pdu_max=PDU_MAX, choose=lambda context, command: BytesSink(SINK_BYTES_MAX), now=0.0
    )
    size = 1 + data[:1][0] if data else 1
    for number, start in enumerate(range(1, len(data), size)):
        layer.receive(data[start : start + size], number * 0.01)
        for event in layer.take_events():
            if isinstance(event, Requested) and layer.state is State.DECIDE:
                layer.accept(_all_of(event))
        layer.take_output()
        if (due := layer.deadline) is not None and number % 7 == 6:
            layer.tick(due)
    layer.closed()


def _all_of(event: Requested) -> Acceptance:
    asked = event.proposal
    contexts = tuple(
        AnsweredContext(context.context_id, 0, (*context.transfer_syntaxes, SYNTAXES[0])[0])
        for context in asked.contexts
    )
    return Acceptance(
        called_ae_title=asked.called_ae_title,
        calling_ae_title=asked.calling_ae_title,
        contexts=contexts,
        pdu_max=PDU_MAX,
    )


def a_call() -> bytes:
    """Return what a requestor says that asks for an association, C-ECHO and release: where fuzzing begins."""
    layer = UpperLayer(requestor=True, pdu_max=PDU_MAX, choose=lambda *_: BytesSink(SINK_BYTES_MAX), now=0.0)
    proposal = Proposal(
        called_ae_title="GATEWAY",
        calling_ae_title="FUZZ",
        contexts=(ProposedContext(1, VERIFICATION, SYNTAXES),),
        pdu_max=PDU_MAX,
    )
    layer.request(proposal)
    echo = encode_command(Command(field=Field.C_ECHO, message_id=1, sop_class_uid=VERIFICATION))
    said = [*layer.take_output(), *encode_fragments(1, echo, COMMAND, PDU_MAX), encode_release_rq()]
    return b"".join(map(bytes, said))


def command(data: bytes) -> None:
    """A DIMSE command set."""
    try:
        decode_command(data)
    except (FrameError, ContentError):
        return


def identifier(data: bytes) -> None:
    """A query's data set, in each transfer syntax."""
    for syntax in SYNTAXES:
        try:
            decode(data, syntax)
        except ContentError:
            continue


def part10(data: bytes) -> None:
    """The head of a Part 10 file, as received, and behind a sound file meta group."""
    for head in (b"", META):
        try:
            read_dicom_header(io.BytesIO(head + data), ("PatientName", "Rows"))
        except ContentError:
            continue


def hl7(data: bytes) -> None:
    """An HL7 message, its keys and values, and as an acknowledgement."""
    try:
        header = read_header(data)
        keys_of(data, header)
        Hl7Text(data).count("OBX")
        read_acknowledgement(data)
    except ContentError:
        return


def mllp(data: bytes) -> None:
    """A stream of MLLP."""
    decoder = Decoder(frame_bytes_max=4096, frame_timeout_s=30.0, end_without_cr_s=0.5)
    size = 1 + data[:1][0] if data else 1
    for number, start in enumerate(range(1, len(data), size)):
        decoder.receive(data[start : start + size], float(number))
        decoder.tick(float(number))
        assert decoder.buffered <= 4096 + 256


def driver_target(name: str) -> Target:
    """Return the target of a driver: its Session, cut by the first byte, ticked and settled in between."""
    driver = installed_drivers()[name]

    def feed(data: bytes) -> None:
        session = driver().open()
        size = 1 + data[:1][0] if data else 1
        now = 0.0
        for number, start in enumerate(range(1, len(data), size)):
            session.receive(data[start : start + size], now)
            for _ in session.take_readings():
                session.settle(stored=number % 3 != 0, now=now)
            session.take_output()
            now += 0.2
            if session.deadline is not None and session.deadline <= now:
                session.tick(now)

    return feed


META = (
    bytes(128)
    + b"DICM"
    + bytes.fromhex("02000000554c0400 1c000000 02001000 5549 1400".replace(" ", ""))
    + (b"1.2.840.10008.1.2.1\0")
)

TARGETS: dict[str, Target] = {
    "association": association,
    "command": command,
    "identifier": identifier,
    "part10": part10,
    "hl7": hl7,
    "mllp": mllp,
}
