"""The conversation with a BIS VISTA: it says nothing until asked, then sends a frame a second, unacknowledged.

    asking --frames of the kind asked for--> receiving --3 s without them--> asking (again every 3 s)

Every request is repeated now and then without need, which does no harm and restores a stream after a restart of the
monitor. A frame that is not ended within a second of silence is given up and searched for another.
"""

from dataclasses import dataclass

from drivers.bis.frames import Decoder, Frame, MessageId, Noise, PacketType, encode
from drivers.bis.picture import Picture
from gateway.driver import Reading, Result
from gateway.errors import ContentError
from gateway.protocols.border import reading_of
from gateway.protocols.faults import FaultBin

MISSED_S = 3.0
AGAIN_S = 30.0
FRAME_TIMEOUT_S = 1.0
NOISE_BYTES_MAX = 1024
UNREAD_BYTES_MAX = 4096
OPENING_BYTES = 600  # the end of a frame whose start was never seen

_PROCESSED = frozenset({int(MessageId.PROCESSED), int(MessageId.PROCESSED_AND_SPECTRA)})
_EEG = frozenset({int(MessageId.RAW_EEG)})


@dataclass
class _Stream:
    """One kind of data that was asked for."""

    request: bytes
    answers: frozenset[int]
    asked_at: float | None = None
    heard_at: float | None = None

    @property
    def due(self) -> float:
        """Return when to ask: at once, after a silence, now and then."""
        if self.asked_at is None:
            return 0.0
        last = self.asked_at if self.heard_at is None else max(self.asked_at, self.heard_at)
        return min(self.asked_at + AGAIN_S, last + MISSED_S)


class BisSession:
    """One monitor; with neither processed variables nor EEG asked for it only listens."""

    def __init__(self, *, processed: bool, spectra: bool, eeg: bool) -> None:
        self._picture = Picture()
        self._decoder = Decoder()
        self._streams: list[_Stream] = []
        if processed:
            self._streams.append(_Stream(encode(MessageId.START_PROCESSED, bytes((spectra,))), _PROCESSED))
        if eeg:
            self._streams.append(_Stream(encode(MessageId.START_RAW_EEG, b"\x80\x00"), _EEG))
        self._output = bytearray()
        self._readings: list[Reading] = []
        self._noise = FaultBin(delay_s=1.0, raw_bytes_max=NOISE_BYTES_MAX)
        self._unread = FaultBin(delay_s=0.0, raw_bytes_max=UNREAD_BYTES_MAX)
        self._opening_left = OPENING_BYTES
        self._byte_at = 0.0

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait to be understood."""
        return self._decoder.buffered

    @property
    def notice(self) -> str | None:
        """Return None: nothing is held back."""
        return None

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        self._emit(now)
        self._byte_at = now
        self._take_all(self._decoder.receive(data), now)

    def tick(self, now: float) -> None:
        """Ask where it is time, give up a frame that was not ended, hand out gathered faults."""
        self._emit(now)
        if self._decoder.buffered and now >= self._byte_at + FRAME_TIMEOUT_S:
            self._take_all(self._decoder.give_up(), now)
        for stream in self._streams:
            if now >= stream.due:
                stream.asked_at = now
                self._output += stream.request

    def settle(self, stored: bool, now: float) -> None:
        """Nothing is acknowledged: no retransmission exists."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Hand over the requests that are due."""
        taken = bytes(self._output)
        self._output.clear()
        return taken

    @property
    def deadline(self) -> float | None:
        """Return when to tick."""
        waits = [self._noise.deadline, self._unread.deadline, *(stream.due for stream in self._streams)]
        if self._decoder.buffered:
            waits.append(self._byte_at + FRAME_TIMEOUT_S)
        return min((due for due in waits if due is not None), default=None)

    def _take_all(self, found: list[Frame | Noise], now: float) -> None:
        for one in found:
            if isinstance(one, Noise):
                self._take_noise(one.data, now)
            elif one.type is PacketType.DATA:
                self._take_frame(one, now)
            elif one.type is PacketType.NAK:
                self._unread.add("the monitor refused a request (NAK)", one.raw, now)
                self._emit(now)

    def _take_noise(self, data: bytes, now: float) -> None:
        opening = data[: self._opening_left]
        self._opening_left -= len(opening)
        if rest := data[len(opening) :]:
            self._picture.miss()
            self._noise.add_run("bytes outside of sound frames: check the baud rate", rest, now)

    def _take_frame(self, frame: Frame, now: float) -> None:
        self._opening_left = 0
        for stream in self._streams:
            if frame.message_id in stream.answers:
                stream.heard_at = now
        reading = reading_of(frame.raw, frame.message, lambda message: self._read(frame, message))
        if reading.fault is not None:
            self._unread.add(reading.fault, reading.raw, now)
            self._emit(now)
            return
        self._noise.heal()
        self._unread.heal()
        self._readings.append(reading)

    def _read(self, frame: Frame, message: bytes) -> tuple[Result, ...]:
        match frame.message_id:
            case MessageId.PROCESSED:
                return self._picture.read_processed(message, with_spectra=False)
            case MessageId.PROCESSED_AND_SPECTRA:
                return self._picture.read_processed(message, with_spectra=True)
            case MessageId.RAW_EEG:
                return self._picture.read_raw_eeg(message, frame.sequence)
        raise ContentError(f"message {frame.message_id:02X}: its layout is not public")

    def _emit(self, now: float) -> None:
        for faults in (self._noise, self._unread):
            if (reading := faults.take(now)) is not None:
                self._readings.append(reading)
