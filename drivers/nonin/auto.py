"""Finds out by listening which format a Nonin Device sends.

    listening --a format proves itself--> decoding --BYTES_WITHOUT_READING_MAX without a Reading, silence--> listening

The proofs cannot be mistaken for one another: ten sound frames in a row (2, 7), four units in a row (8), a frame
with header, checksum and end (13), a whole line (text).
"""

from collections.abc import Callable
from typing import Literal

from drivers.nonin.packets import FRAME_BYTES, sound_frame
from drivers.nonin.spot import FRAME_BYTES_MAX, HEADER, SpotFormat
from drivers.nonin.text import LINE_BYTES_MAX, ROW
from drivers.nonin.vital import RESERVED_BITS, UNIT_BYTES, sound_unit
from gateway.driver import Session
from gateway.model import Reading
from gateway.protocols.faults import FaultBin

PROOF_FRAMES = 10
PROOF_UNITS = 4
KEPT_BYTES = max(FRAME_BYTES_MAX, LINE_BYTES_MAX, PROOF_FRAMES * FRAME_BYTES)
BYTES_WITHOUT_READING_MAX = 1024
BLOCK_BYTES = 64  # how often a decoder is asked whether it still reads anything
NOISE_BYTES_MAX = 1024

Name = Literal["2", "7", "8", "13", "text"]
Open = Callable[[Name], Session]


class AutoSession:
    """Listens, then lets the Session of the format that was found decode."""

    def __init__(self, open_format: Open) -> None:
        self._open_format = open_format
        self._decoder: Session | None = None
        self._buffer = bytearray()
        self._fruitless = 0
        self._fruitful = False
        self._readings: list[Reading] = []
        self._noise = FaultBin(delay_s=1.0, raw_bytes_max=NOISE_BYTES_MAX)

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait to be understood."""
        return len(self._buffer)

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        self._emit(now)
        start = 0
        while start < len(data):
            if self._decoder is None:
                start = self._listen(data, start, now)
            else:
                end = start + BLOCK_BYTES - self._fruitless % BLOCK_BYTES
                self._decode(self._decoder, data[start:end], now)
                start = end

    def tick(self, now: float) -> None:
        """Hand out gathered faults whose time has come."""
        self._emit(now)
        if self._decoder is not None:
            self._decoder.tick(now)

    def forget(self, now: float) -> None:
        """Give up what was not ended, and the format: another Device may send another."""
        self._buffer.clear()
        self._give_up()

    def settle(self, stored: bool, now: float) -> None:
        """Nothing is acknowledged on such a link."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        if self._decoder is not None:
            self._readings += self._decoder.take_readings()
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Say nothing."""
        return b""

    @property
    def deadline(self) -> float | None:
        """Return when gathered faults come out."""
        inner = self._decoder.deadline if self._decoder is not None else None
        return min((due for due in (inner, self._noise.deadline) if due is not None), default=None)

    @property
    def notice(self) -> str | None:
        """Return None: nothing is held back."""
        return None

    def _listen(self, data: bytes, start: int, now: float) -> int:
        """Take bytes until a format proves itself; return where the rest begins."""
        for at in range(start, len(data)):
            self._buffer.append(data[at])
            if (found := _proved(self._buffer)) is not None:
                self._begin(*found, now)
                return at + 1
            if len(self._buffer) >= 2 * KEPT_BYTES:
                raw = bytes(self._buffer[:-KEPT_BYTES])
                self._noise.add_run("no Nonin format recognised: check baud rate and cable", raw, now)
                del self._buffer[:-KEPT_BYTES]
        return len(data)

    def _begin(self, name: Name, proof_bytes: int, now: float) -> None:
        proof = bytes(self._buffer[-proof_bytes:])
        self._buffer.clear()
        self._fruitless, self._fruitful = 0, False
        self._noise.heal()
        self._decoder = self._open_format(name)
        if name == "text":
            proof = b"\n" + proof  # the line is whole: nothing of it is to be dropped
        self._decode(self._decoder, proof, now, counted=False)

    def _decode(self, decoder: Session, data: bytes, now: float, counted: bool = True) -> None:
        decoder.receive(data, now)
        read = decoder.take_readings()
        self._readings += read
        self._fruitless += len(data) if counted else 0
        self._fruitful = self._fruitful or any(reading.fault is None for reading in read)
        if self._fruitless % BLOCK_BYTES == 0 and self._fruitful:
            self._fruitless, self._fruitful = 0, False
        elif self._fruitless >= BYTES_WITHOUT_READING_MAX:
            self._give_up()

    def _give_up(self) -> None:
        """Listen again; what the decoder still gathers comes out."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None and (due := decoder.deadline) is not None:
            decoder.tick(due)
            self._readings += decoder.take_readings()

    def _emit(self, now: float) -> None:
        if (reading := self._noise.take(now)) is not None:
            self._readings.append(reading)


def _proved(buffer: bytearray) -> tuple[Name, int] | None:
    """Return the format that the end of the buffer proves, and how many bytes the proof has."""
    last = buffer[-1]
    if last == 0x03 and (length := _spot_frame(buffer)):
        return "13", length
    if last == 0x0A and (length := _text_line(buffer)):
        return "text", length
    if _frames(buffer, compressed=True):
        return "2", PROOF_FRAMES * FRAME_BYTES
    if _frames(buffer, compressed=False):
        return "7", PROOF_FRAMES * FRAME_BYTES
    if _units(buffer):
        return "8", PROOF_UNITS * UNIT_BYTES
    return None


def _spot_frame(buffer: bytearray) -> int:
    start = buffer.rfind(HEADER)
    if start < 0 or SpotFormat().measure(buffer, start, False) != len(buffer) - start:
        return 0
    return len(buffer) - start


def _text_line(buffer: bytearray) -> int:
    start = buffer.rfind(b"\n", 0, len(buffer) - 1) + 1
    line = bytes(buffer[start:]).strip()
    return len(buffer) - start if line.isascii() and ROW.fullmatch(line.decode("ascii")) else 0


def _frames(buffer: bytearray, compressed: bool) -> bool:
    first = len(buffer) - PROOF_FRAMES * FRAME_BYTES
    starts = range(len(buffer) - FRAME_BYTES, first - 1, -FRAME_BYTES)
    return first >= 0 and all(sound_frame(buffer, start, compressed) for start in starts)


def _units(buffer: bytearray) -> bool:
    proof = buffer[-PROOF_UNITS * UNIT_BYTES :]
    if len(proof) < PROOF_UNITS * UNIT_BYTES:
        return False
    units = [proof[at : at + UNIT_BYTES] for at in range(0, len(proof), UNIT_BYTES)]
    return all(sound_unit(unit) and not unit[-1] & RESERVED_BITS for unit in units)
