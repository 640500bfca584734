"""Everything that is read, whether anything is said or not: bytes become Readings.

What is said never changes what is read: an answer is read whether it was asked for or not, and an ICC of either side
ends curves and makes text messages be told again. Curve bytes mean something once a real-time configuration was heard
and a choice was made: ours, or one that was overheard from another recorder.
"""

from drivers.medibus.codes import Code
from drivers.medibus.content import read_curve_scales, takes_arguments
from drivers.medibus.frames import Broken, Command, Control, Curve, Decoder, Event, Response, Stray
from drivers.medibus.picture import Picture
from drivers.medibus.waves import Waves
from gateway.driver import Condition, Reading, Result
from gateway.protocols.border import reading_of
from gateway.protocols.faults import FaultBin

FRAME_REST_S = 3.0  # a response that does not grow any more is lost, although the Device may say NOP inside it
CURVE_REST_S = 1.0  # what was collected of a curve that stopped is handed on
OPENING_BYTES = 300  # slow bytes before the first frame: the end of one whose start was never seen
OPENING_CURVE_BYTES = 4096  # curves of an earlier conversation flow on until the Device has heard us
NOISE_BYTES_MAX = 1024
ICC_TOLD_AGAIN_S = 30.0

_NO_PUBLIC_LAYOUT = {0x59, 0x6C, 0x6D}


class Hearing:
    """What one Device says. `chooses_curves`: we ask for curves ourselves; else the choice is overheard."""

    def __init__(self, picture: Picture, waves: Waves, *, chooses_curves: bool) -> None:
        self.picture = picture
        self.waves = waves
        self.curve_at: float | None = None  # when the last curve byte came
        self._chooses_curves = chooses_curves
        self._decoder = Decoder()
        self._readings: list[Reading] = []
        self._noise = FaultBin(delay_s=1.0, raw_bytes_max=NOISE_BYTES_MAX)
        self._unread = FaultBin(delay_s=0.0, raw_bytes_max=NOISE_BYTES_MAX)
        self._opening_left = OPENING_BYTES
        self._curves_left = OPENING_CURVE_BYTES
        self._icc_told_at: float | None = None
        self._grown_at: float | None = None  # when an unfinished response last grew

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait to be understood."""
        return self._decoder.buffered + (self.waves.decoder.buffered if self.waves.decoder is not None else 0)

    @property
    def deadline(self) -> float | None:
        """Return when gathered faults and the rest of a curve come out."""
        waits = (self._noise.deadline, self._unread.deadline, self._curves_due(), self._frame_due())
        return min((due for due in waits if due is not None), default=None)

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes that came; return the frames in them for whoever answers."""
        self._emit(now)
        before = self._decoder.response_bytes
        events = self._decoder.receive(data)
        if (size := self._decoder.response_bytes) != before:
            self._grown_at = now if size else None
        for event in events:
            self._take(event, now)
        return events

    def tick(self, now: float) -> bool:
        """Hand out what was gathered and whose time has come; return whether a response was never ended."""
        self._emit(now)
        due = self._curves_due()
        if due is not None and now >= due:
            self._flush_curves()
        due = self._frame_due()
        if due is None or now < due:
            return False
        self._drop(now)
        return True

    def notice_silence(self, now: float) -> None:
        """Take notice that communication has died: nothing more comes of a frame that has begun, nor of curves."""
        self.stop_curves()
        self._drop(now)

    def stop_curves(self) -> None:
        """Forget the curves that were asked for: the Device has."""
        self._flush_curves()
        self.waves.stop()
        self._curves_left = OPENING_CURVE_BYTES

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def _drop(self, now: float) -> None:
        self._grown_at = None
        if lost := self._decoder.drop():
            self._noise.add("a frame that was never ended", lost, now)

    def _take(self, event: Event, now: float) -> None:
        match event:
            case Curve():
                self._take_curve(event.data, now)
            case Command() | Response():
                self._opening_left = 0
                self._noise.heal()
                if isinstance(event, Command):
                    self._take_command(event, now)
                else:
                    self._take_answer(event, now)
            case Broken():
                self._noise.add(event.reason, event.raw, now)
            case Stray():
                opening = event.data[: self._opening_left]
                self._opening_left -= len(opening)
                if rest := event.data[len(opening) :]:
                    self._noise.add_run("bytes outside of frames: check baud rate and parity", rest, now)
            case Control():
                pass

    def _take_command(self, command: Command, now: float) -> None:
        match command.code:
            case Code.ICC:
                self.picture.restart()
                self.stop_curves()
                self._tell_beginning(command, now)
            case Code.CURVES_CHANGED | Code.STOP:
                self.stop_curves()
            case Code.CONFIGURE_CURVES if not self._chooses_curves:
                self._flush_curves()
                self.waves.overhear(command.argument)

    def _tell_beginning(self, command: Command, now: float) -> None:
        if self._icc_told_at is None or now - self._icc_told_at >= ICC_TOLD_AGAIN_S:
            self._icc_told_at = now
            began = Condition(code="ICC", text="the Device begins communication anew", technical=True)
            self._tell(Reading(raw=command.raw, results=(self.picture.result(conditions=(began,)),)))

    def _take_answer(self, answer: Response, now: float) -> None:
        if answer.code == Code.ICC:
            self.picture.restart()
            self.stop_curves()
            return
        if answer.code == Code.CONFIGURE_CURVES:
            self._flush_curves()
            self.waves.start()
            return
        if answer.code in _NO_PUBLIC_LAYOUT and answer.data:
            self._unread.add(f"answer {answer.code:02X}: its layout is not public", answer.raw, now)
            self._emit(now)
            return
        was_simulated = self.picture.simulated
        reading = reading_of(answer.raw, answer.data, lambda data: self._read(answer.code, data, now))
        if reading.fault is not None:
            self._unread.add(f"answer {answer.code:02X}: {reading.fault}", reading.raw, now)
            self._emit(now)
            return
        self._unread.heal()
        if reading.results and not (was_simulated and self.picture.simulated):
            self._readings.append(reading)  # the beginning of a simulation still tells that the alarms have ended

    def _read(self, code: int, data: bytes, now: float) -> tuple[Result, ...]:
        if code != Code.CURVES:
            return self.picture.read(code, data, now)
        scales = read_curve_scales(data)
        self.stop_curves()
        self.waves.offer(scales)
        if self._chooses_curves and takes_arguments(self.picture.identity):
            self.waves.choose()
        return ()

    def _take_curve(self, data: bytes, now: float) -> None:
        decoder = self.waves.decoder
        if decoder is not None:
            self.curve_at = now
            for piece in decoder.receive(data):
                self._tell(Reading(raw=piece.raw, results=(self.picture.result(*self.waves.told(piece)),)))
            return
        opening = data[: self._curves_left]
        self._curves_left -= len(opening)
        if (rest := data[len(opening) :]) and self._chooses_curves:
            self._noise.add_run("curve bytes that nobody asked for: check the parity (8E1, 8N1)", rest, now)

    def _frame_due(self) -> float | None:
        return None if self._grown_at is None else self._grown_at + FRAME_REST_S

    def _curves_due(self) -> float | None:
        decoder = self.waves.decoder
        if decoder is None or not decoder.collecting or self.curve_at is None:
            return None
        return self.curve_at + CURVE_REST_S

    def _flush_curves(self) -> None:
        decoder = self.waves.decoder
        if decoder is not None and (piece := decoder.flush()) is not None:
            self._tell(Reading(raw=piece.raw, results=(self.picture.result(*self.waves.told(piece)),)))

    def _tell(self, reading: Reading) -> None:
        if not self.picture.simulated:
            self._readings.append(reading)

    def _emit(self, now: float) -> None:
        for faults in (self._noise, self._unread):
            if (reading := faults.take(now)) is not None:
                self._readings.append(reading)
