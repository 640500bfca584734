"""MLLP framing as the simulators understand it: VT, bytes, FS, CR (HL7 v2 transport specification, MLLP release 1)."""

VT = b"\x0b"
END = b"\x1c\r"
FRAME_BYTES_MAX = 64 << 20


class FrameSplitter:
    """Cuts a stream into frames. Bytes outside of frames are dropped; a frame over the limit is an error."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they came and return the bodies of the frames that are now complete.

        Raises ValueError when a frame is longer than FRAME_BYTES_MAX.
        """
        if not self._held and data[:1] == VT and data.find(END) == len(data) - len(END):
            return [data[1 : -len(END)]]  # the usual case: one whole frame in one read
        self._held += data
        bodies = self._take_complete()
        if len(self._held) > FRAME_BYTES_MAX:
            raise ValueError(f"a frame is longer than {FRAME_BYTES_MAX} bytes")
        return bodies

    def _take_complete(self) -> list[bytes]:
        bodies, begin = [], 0
        while (end := self._held.find(END, max(begin, self._scanned))) >= 0:
            start = self._held.find(VT, begin, end)
            if start >= 0:
                bodies.append(bytes(self._held[start + 1 : end]))
            begin = end + len(END)
        if begin:
            del self._held[:begin]
        self._scanned = max(0, len(self._held) - 1)
        return bodies


def frame(body: bytes) -> bytes:
    """Return the body with its start and end block."""
    return b"".join((VT, body, END))
