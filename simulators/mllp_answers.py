"""Acknowledgements as an EMR writes them (HL7 v2.5, 2.9 and 2.15: MSH, MSA, ERR)."""

import functools
import time
from dataclasses import dataclass

ERROR_TEXTS = {  # HL7 table 0357
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application internal error",
}


@dataclass(frozen=True, slots=True)
class Heading:
    """The fields of a message's MSH as they came: `fields[2]` is MSH-3; and what separates them."""

    fields: list[bytes]
    bar: bytes = b"|"

    @property
    def control_id(self) -> str:
        """Return MSH-10."""
        return self.fields[9].decode("latin-1") if len(self.fields) > 9 else ""

    @property
    def wants_commit(self) -> bool:
        """Return whether MSH-15 asks for an accept acknowledgement of a message that is taken."""
        return self.field(15) in (b"AL", b"SU")

    def field(self, number: int) -> bytes:
        """Return MSH-number, empty when it is not there."""
        return self.fields[number - 1] if len(self.fields) >= number else b""


def read_heading(body: bytes) -> Heading | None:
    """Return the MSH of a message, or None when these bytes are not HL7 v2."""
    if body[:3] != b"MSH" or len(body) < 8:
        return None
    end = body.find(b"\r")
    bar = body[3:4]
    return Heading((body if end < 0 else body[:end]).split(bar), bar)


def acknowledgement(
    heading: Heading | None, code: str, *, control_id: str | None = None, error: str | None = None, text: str = ""
) -> bytes:
    """Return an ACK with sender and receiver exchanged; `error` is a code of table 0357 for ERR-3."""
    asked = heading or Heading([b"MSH", b"^~\\&"])
    bar = asked.bar
    trigger = asked.field(9).partition(b"^")[2].partition(b"^")[0]
    kind = b"ACK^" + trigger + b"^ACK" if trigger else b"ACK"
    echoed = asked.field(10) if control_id is None else control_id.encode()
    version = asked.field(12) or b"2.5"
    swapped = (asked.field(5), asked.field(6), asked.field(3), asked.field(4))
    fields = [b"MSH", asked.field(2), *swapped, _stamp(int(time.time())), b"", kind, b"A" + echoed[-19:], b"P", version]
    if asked.field(18):
        fields += [b""] * 5 + [asked.field(18)]
    segments = [bar.join(fields), bar.join((b"MSA", code.encode(), echoed, _words(error, text)))]
    if error is not None:
        segments.append(bar.join((b"ERR", b"", b"", _coded(error), b"E", b"", b"", text.encode())))
    return b"\r".join(segments) + b"\r"


@functools.lru_cache(maxsize=2)
def _stamp(second: int) -> bytes:
    return time.strftime("%Y%m%d%H%M%S+0000", time.gmtime(second)).encode()


def _coded(error: str) -> bytes:
    return f"{error}^{ERROR_TEXTS.get(error, 'Error')}^HL70357".encode()


def _words(error: str | None, text: str) -> bytes:
    return b"" if error is None else (text or ERROR_TEXTS.get(error, "Error")).encode()
