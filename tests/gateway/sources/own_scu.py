"""Bytes of an own, small SCU: for what no well-behaved peer would say."""

import io
import socket
import struct

import pydicom

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"


def item(kind: int, body: bytes) -> bytes:
    """Return an item of an association PDU (PS3.8, 9.3)."""
    return struct.pack(">BxH", kind, len(body)) + body


def associate_rq(
    *contexts: tuple[str, str], called: bytes = b"GATEWAY", calling: bytes = b"TEST", pad: bytes = b""
) -> bytes:
    """Return an A-ASSOCIATE-RQ for abstract and transfer syntaxes; `pad` is appended to each UID."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, syntax) in enumerate(contexts):
        inner = item(0x30, abstract.encode() + pad) + item(0x40, syntax.encode() + pad)
        items += item(0x20, struct.pack(">B3x", 2 * number + 1) + inner)
    items += item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3"))
    body = struct.pack(">H2x16s16s32x", 1, called.ljust(16), calling.ljust(16)) + items
    return struct.pack(">BxL", 1, len(body)) + body


def command(uid: str, *, field: int = 1, sop_class: str = CT_CLASS, with_data: bool = True) -> bytes:
    """Return a command set with these values, as they are (PS3.7, E.1)."""

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHL", 0, number, len(value)) + value

    body = (
        element(0x0002, sop_class.encode())
        + element(0x0100, struct.pack("<H", field))
        + element(0x0110, struct.pack("<H", 7))
        + element(0x0700, struct.pack("<H", 2))
        + element(0x0800, struct.pack("<H", 1 if with_data else 0x0101))
        + element(0x1000, uid.encode("latin-1"))
    )
    return element(0, struct.pack("<L", len(body))) + body


def p_data(control: int, data: bytes, context: int = 1) -> bytes:
    """Return a P-DATA-TF with one fragment; in `control` 1 is a command, 2 the last one (PS3.8, 9.3.5)."""
    pdv = struct.pack(">LBB", len(data) + 2, context, control) + data
    return struct.pack(">BxL", 4, len(pdv)) + pdv


def read_pdu(sock: socket.socket) -> tuple[int, bytes]:
    """Return type and body of the next PDU; (0, b"") at the end of the connection."""
    head = sock.recv(6, socket.MSG_WAITALL)
    if len(head) < 6:
        return 0, b""
    kind, length = struct.unpack(">BxL", head)
    return kind, sock.recv(length, socket.MSG_WAITALL) if length else b""


def results(accept: bytes) -> dict[int, int]:
    """Return the result of each presentation context in an A-ASSOCIATE-AC."""
    results, place = {}, 68
    while place < len(accept):
        kind, length = struct.unpack_from(">BxH", accept, place)
        if kind == 0x21:
            results[accept[place + 4]] = accept[place + 6]
        place += 4 + length
    return results


def read_status(sock: socket.socket) -> tuple[int, str]:
    """Return status and Error Comment of the next response."""
    kind, body = read_pdu(sock)
    assert kind == 4, f"PDU type {kind}"
    command = pydicom.filereader.read_dataset(io.BytesIO(body[6:]), True, True)
    return command.Status, command.get("ErrorComment", "")
