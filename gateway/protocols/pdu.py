"""PDUs on the wire: where one ends and the next begins, without copying what they carry (PS3.8, 9.3).

    head --A-ASSOCIATE, A-RELEASE, A-ABORT--> body --whole--> head
    head --P-DATA-TF--> PDV head --payload into its Sink--> PDV head ... head

The reader says where the next bytes are to be put (`buffers`) and is told how many came (`received`), so that payload
goes from the socket to where it stays. Lengths are checked against limits before memory is taken for them. What may
come when is the upper layer's to judge.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Protocol

from gateway.errors import FrameError
from gateway.protocols.negotiation import ASSOCIATE_BYTES_MAX

HEAD_BYTES = 6  # of a PDU: type, reserved, length; of a PDV: length, context id, control
STAGE_BYTES = 4096  # what is read beyond the payload wanted: heads, commands, small PDUs
CONTROL_BYTES_MAX = 64  # A-ASSOCIATE-RJ, A-RELEASE and A-ABORT have 4
FRAGMENT_MIN = 2  # a peer that takes less gets this much, so that a message has an end

COMMAND, LAST = 0x01, 0x02  # bits of the message control header (PS3.8, E.2)

_PDU = struct.Struct(">BxL")
_PDV = struct.Struct(">LBB")
_BOTH = struct.Struct(">BxLLBB")


class Kind(IntEnum):
    """PDU types (PS3.8, table 9-11 and following)."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class Reason(IntEnum):
    """Why the service provider aborts (PS3.8, table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNISED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class PduError(FrameError):
    """The peer broke the rules of the upper layer; `reason` goes into the A-ABORT."""

    def __init__(self, text: str, reason: Reason = Reason.INVALID_PARAMETER) -> None:
        super().__init__(text)
        self.reason = reason


class Sink(Protocol):
    """Where the payload of fragments goes."""

    def buffer(self, size: int) -> memoryview:
        """Return room for between 1 and `size` bytes. Raises FrameError when there is too much of it."""
        ...

    def wrote(self, count: int) -> None:
        """Learn that so many bytes of the last buffer were filled."""
        ...


class Taker(Protocol):
    """Who judges what the reader finds. Everything here may raise FrameError."""

    def pdu_begins(self, kind: int, length: int) -> None:
        """Say nothing if this type of PDU may come now."""
        ...

    def pdu_came(self, kind: int, body: bytes) -> None:
        """Take a whole PDU that is not P-DATA; `body` is what stands behind its head."""
        ...

    def pdv_begins(self, context_id: int, control: int, size: int) -> Sink:
        """Return where the payload of a fragment goes."""
        ...

    def pdv_came(self) -> None:
        """Learn that the payload of the fragment is whole."""
        ...


class BytesSink:
    """Collects payload in memory, up to a limit in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()
        self._part = bytearray()

    def buffer(self, size: int) -> memoryview:
        """Return room. Raises FrameError beyond the limit."""
        if len(self._held) + size > self._limit:
            raise PduError(f"a command or data set of more than {self._limit} bytes")
        self._part = bytearray(size)
        return memoryview(self._part)

    def wrote(self, count: int) -> None:
        """Keep what was filled."""
        self._held += self._part if count == len(self._part) else self._part[:count]

    @property
    def data(self) -> bytes:
        """Return everything collected."""
        return bytes(self._held)


class PduReader:
    """Cuts a byte stream into PDUs and fragments; `pdu_max` is the longest P-DATA PDU taken, in bytes."""

    def __init__(self, taker: Taker, pdu_max: int) -> None:
        self.pdu_max = pdu_max
        self.began = False  # a PDU began since this was last set back
        self._taker = taker
        self._stage = memoryview(bytearray(STAGE_BYTES))
        self._start = self._end = 0  # of what is staged and not yet looked at
        self._direct: memoryview | None = None
        self._sink: Sink | None = None
        self._left = 0  # of the payload
        self._pdu_left = 0  # of the P-DATA PDU, behind the payload
        self._kind = 0
        self._body: bytearray | None = None
        self._body_bytes = 0

    @property
    def inside(self) -> bool:
        """Return whether a PDU has begun and not ended."""
        return bool(self._left or self._pdu_left or self._body is not None or self._start != self._end)

    def buffers(self) -> list[memoryview]:
        """Return where the next bytes go, in order; only the first is needed. Raises FrameError."""
        if self._start:
            self._stage[: self._end - self._start] = self._stage[self._start : self._end]
            self._start, self._end = 0, self._end - self._start
        if self._left:
            assert self._sink is not None
            assert self._end == 0, "payload is taken from the stage first"
            self._direct = direct = self._sink.buffer(self._left)
            return [direct, self._stage] if len(direct) == self._left else [direct]
        self._direct = None
        return [self._stage[self._end :]]

    def received(self, count: int) -> None:
        """Take notice of bytes in the buffers and hand on what they complete. Raises FrameError."""
        direct, self._direct = self._direct, None
        if direct is not None:
            assert self._sink is not None
            taken = min(count, len(direct))
            self._sink.wrote(taken)
            self._left -= taken
            count -= taken
            if self._left == 0:
                self._taker.pdv_came()
        self._end += count
        while self._step():
            pass

    def receive(self, data: bytes) -> None:
        """Take bytes that lie elsewhere: for those who cannot read into buffers. Raises FrameError."""
        view = memoryview(data)
        while view:
            buffer = self.buffers()[0]
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            self.received(count)
            view = view[count:]

    def _step(self) -> bool:
        """Look at what is staged; tell whether there is more to see."""
        staged = self._end - self._start
        if self._left:
            return staged > 0 and self._fill(staged)
        if self._body is not None:
            return self._collect(staged)
        if staged < HEAD_BYTES:
            return False
        if self._pdu_left:
            self._begin_pdv()
        else:
            self._begin_pdu()
        return True

    def _begin_pdu(self) -> None:
        kind, length = _PDU.unpack_from(self._stage, self._start)
        self._taker.pdu_begins(kind, length)
        limit = self.pdu_max if kind == Kind.P_DATA else _LIMITS.get(kind, CONTROL_BYTES_MAX)
        if length > limit:
            raise PduError(f"a PDU of {length} bytes where {limit} are the limit")
        self._start += HEAD_BYTES
        self.began = True
        if kind == Kind.P_DATA:
            if length < HEAD_BYTES:
                raise PduError("a P-DATA PDU without a fragment")
            self._pdu_left = length
        else:
            self._kind, self._body, self._body_bytes = kind, bytearray(), length

    def _begin_pdv(self) -> None:
        size, context_id, control = _PDV.unpack_from(self._stage, self._start)
        if size < 2 or size + 4 > self._pdu_left:
            raise PduError(f"a fragment of {size} bytes in a PDU that has {self._pdu_left} left")
        self._start += HEAD_BYTES
        self._left = size - 2
        self._pdu_left -= size + 4
        if 0 < self._pdu_left < HEAD_BYTES:
            raise PduError("a P-DATA PDU with bytes behind its last fragment")
        self._sink = self._taker.pdv_begins(context_id, control, self._left)
        if self._left == 0:
            self._taker.pdv_came()

    def _fill(self, staged: int) -> bool:
        assert self._sink is not None
        buffer = self._sink.buffer(min(staged, self._left))
        count = len(buffer)
        buffer[:] = self._stage[self._start : self._start + count]
        self._sink.wrote(count)
        self._start += count
        self._left -= count
        if self._left == 0:
            self._taker.pdv_came()
        return True

    def _collect(self, staged: int) -> bool:
        assert self._body is not None
        count = min(staged, self._body_bytes - len(self._body))
        self._body += self._stage[self._start : self._start + count]
        self._start += count
        if len(self._body) < self._body_bytes:
            return False
        body, self._body = bytes(self._body), None
        self._taker.pdu_came(self._kind, body)
        return True


_LIMITS = {Kind.ASSOCIATE_RQ: ASSOCIATE_BYTES_MAX, Kind.ASSOCIATE_AC: ASSOCIATE_BYTES_MAX}


def encode_release_rq() -> bytes:
    """Write an A-RELEASE-RQ."""
    return _PDU.pack(Kind.RELEASE_RQ, 4) + bytes(4)


def encode_release_rp() -> bytes:
    """Write an A-RELEASE-RP."""
    return _PDU.pack(Kind.RELEASE_RP, 4) + bytes(4)


def encode_abort(source: int, reason: int) -> bytes:
    """Write an A-ABORT; source 0 is the service user, 2 the provider."""
    return _PDU.pack(Kind.ABORT, 4) + bytes((0, 0, source, reason))


def p_data_head(context_id: int, control: int, size: int) -> bytes:
    """Return the twelve bytes before a fragment of `size` bytes that has a PDU for itself."""
    return _BOTH.pack(Kind.P_DATA, size + HEAD_BYTES, size + 2, context_id, control)


def fragment_bytes(peer_max: int, ours_max: int) -> int:
    """Return how many payload bytes go into one PDU: an even number, within both sides' limits (0: the peer's none)."""
    limit = min(peer_max or ours_max, ours_max)
    return max(limit - HEAD_BYTES, FRAGMENT_MIN) & ~1


def encode_fragments(context_id: int, data: bytes, bits: int, size_max: int) -> Iterator[bytes]:
    """Yield P-DATA PDUs for a command (`bits` is COMMAND) or a data set (0), each with at most `size_max` of it."""
    view = memoryview(data)
    for start in range(0, max(len(data), 1), size_max):
        part = view[start : start + size_max]
        last = LAST if start + size_max >= len(data) else 0
        yield p_data_head(context_id, bits | last, len(part)) + part
