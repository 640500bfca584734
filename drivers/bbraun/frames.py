"""BCC frames (Technical Interface Specification BCC 3.25/3.26, Version 4.0).

    SOH LLLLL STX bedId "/1/1>" information ETX|ETB CCCCC EOT

LLLLL is the length from SOH to EOT, CCCCC the sum from SOH to ETX or ETB modulo 256, both in five digits and both of
the message before character stuffing (D -> EX, E -> EE, d -> ex, e -> ee).
"""

import re
from dataclasses import dataclass

SOH, STX, ETX, EOT, ETB = b"\x01", b"\x02", b"\x03", b"\x04", b"\x17"
ACK, NAK, RS = b"\x06", b"\x15", "\x1e"
FIRST_BED = "1"
FRAME_BYTES_MAX = 32 * 1024

_FRAME = re.compile(rb"\x01(\d{5})\x02([/-9A-z]{1,15})/1/1>(.*)([\x03\x17])(\d{5})\x04", re.DOTALL)
_STUFFED = {b"X": b"D", b"E": b"E", b"x": b"d", b"e": b"e"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One sound frame: the bed's id, what it says, and whether more blocks follow."""

    bed: str
    information: str
    continued: bool


def write_frame(bed: str, information: str, *, stuffing: bool) -> bytes:
    """Return a request."""
    middle = STX + f"{bed}/1/1>{information}".encode() + ETX
    head = SOH + b"%05d" % (1 + 5 + len(middle) + 5 + 1)
    message = head + middle
    message += b"%05d" % (sum(message) & 0xFF) + EOT
    return stuff(message) if stuffing else message


def read_frame(raw: bytes, *, stuffing: bool) -> Block | None:
    """Return a frame's content, None where length or checksum is wrong."""
    message = unstuff(raw) if stuffing else raw
    match = _FRAME.fullmatch(message)
    if match is None or int(match[1]) != len(message):
        return None
    if int(match[5]) != sum(message[: match.end(4)]) & 0xFF:
        return None
    return Block(
        bed=match[2].decode("ascii"), information=match[3].decode("utf-8", "replace"), continued=match[4] == ETB
    )


def stuff(message: bytes) -> bytes:
    """Return a message without a D or d in it."""
    out = message.replace(b"E", b"\0E").replace(b"e", b"\0e").replace(b"D", b"EX").replace(b"d", b"ex")
    return out.replace(b"\0E", b"EE").replace(b"\0e", b"ee")


def unstuff(message: bytes) -> bytes:
    """Return a message as it was before stuffing, pair by pair from the left; a pair that is none stays."""
    out, at = bytearray(), 0
    while (place := _next(message, at)) >= 0 and place + 1 < len(message):
        pair = message[place + 1 : place + 2]
        lower = message[place : place + 1] == b"e"
        meant = _STUFFED.get(pair) if pair in ((b"x", b"e") if lower else (b"X", b"E")) else None
        out += message[at:place] + (meant if meant is not None else message[place : place + 2])
        at = place + 2
    return bytes(out + message[at:])


def _next(message: bytes, start: int) -> int:
    places = [found for mark in (b"E", b"e") if (found := message.find(mark, start)) >= 0]
    return min(places, default=-1)
