"""One conversation with a monitor over MLLP.

    frame --> Reading --settled--> AA (AE when the disk refused), where the monitor asks for an answer

Mindray PDS asks for none and pairs its messages: values wait for their flags, at most FLAGS_S. A monitor in
demonstration mode is acknowledged and not published; the notice says so. A Source is one bed: while the first bed is
heard, messages that name another (PV1-3) are refused, so that no bed gets another bed's values.
"""

from collections import deque

from drivers.hl7_monitor.message import MonitorMessage, read_message
from drivers.hl7_monitor.mindray import (
    APERIODIC,
    ECHO,
    ECHOED,
    FLAGS,
    PATIENT,
    PHYSIOLOGICAL,
    TECHNICAL,
    VALUES,
    Pds,
)
from drivers.hl7_monitor.others import any_row, draeger_row, nihon_kohden_row, philips_row, read_rows
from drivers.hl7_monitor.pcd import is_demo, read_pcd
from gateway.driver import ContentError, Reading, Result
from gateway.protocols.faults import FaultBin
from gateway.protocols.mllp import END, END_BLOCK, START, Decoder, Event, Frame, Oversize, Partial, encode_frame

FRAME_BYTES_MAX = 2 * 1024 * 1024
FRAME_TIMEOUT_S = 30.0
END_WITHOUT_CR_S = 0.5
FLAGS_S = 1.0
ECHO_S = 1.0
BED_SILENCE_S = 30.0  # after that a monitor may have been told that it stands elsewhere
PADDING = b"\r\n\0 "
PADDING_BYTES_MAX = 1024
DIALECTS = ("auto", "pcd", "mindray-pds", "philips-mdil", "nihon-kohden", "draeger-infinity", "any")

_ROWS = {
    "philips-mdil": (philips_row, "Philips"),
    "nihon-kohden": (nihon_kohden_row, "Nihon Kohden"),
    "draeger-infinity": (draeger_row, "Dräger"),
    "any": (any_row, None),
}


class MonitorSession:
    """A `Session`; see the module."""

    def __init__(
        self, *, dialect: str, encoding: str, utc_offset: str, gas_unit: str | None, echo: bool, transmit: bool
    ) -> None:
        self._dialect = dialect
        self._encoding = encoding
        self._utc_offset = utc_offset
        self._transmit = transmit
        self._pds = Pds(utc_offset, gas_unit)
        self._decoder = Decoder(
            frame_bytes_max=FRAME_BYTES_MAX, frame_timeout_s=FRAME_TIMEOUT_S, end_without_cr_s=END_WITHOUT_CR_S
        )
        self._readings: list[Reading] = []
        self._answers: deque[tuple[bytes, bytes]] = deque()  # for each Reading taken: what to say if stored, if not
        self._output = b""
        self._values: tuple[bytes, MonitorMessage, float] | None = None
        self._echo_at: float | None = float("-inf") if echo and transmit else None
        self._notice: str | None = None
        self._bed = ("", 0.0)  # as the monitor names it, and when it last did
        self._noise = FaultBin(delay_s=1.0, raw_bytes_max=4096)
        self._padding = b""  # heard outside of a frame, perhaps with noise after it
        self._fs_held = False

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes of an unfinished frame are held."""
        return self._decoder.buffered

    @property
    def notice(self) -> str | None:
        """Return that the monitor is in demonstration mode."""
        return self._notice

    @property
    def deadline(self) -> float | None:
        """Return the nearest of the timers that run."""
        flags = self._values[2] if self._values is not None else None
        timers = (self._decoder.deadline, self._echo_at, flags, self._noise.deadline)
        return min((due for due in timers if due is not None), default=None)

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        while data:
            if not self._decoder.inside:
                data = self._skip(data, now)
            end = self._end_in(data)
            piece, data = data[:end], data[end:]
            self._fs_held = piece.endswith(END)
            self._take(self._decoder.receive(piece, now), now)
        self._emit(now)

    def _end_in(self, data: bytes) -> int:
        """Return how much the decoder may take until it can be outside of a frame."""
        if self._fs_held and self._decoder.inside:
            return 1
        end = data.find(END_BLOCK)
        return len(data) if end < 0 else end + len(END_BLOCK)

    def _skip(self, data: bytes, now: float) -> bytes:
        """Gather what stands before the next frame but padding around it, and return what begins with the frame."""
        start = data.find(START)
        before = data if start < 0 else data[:start]
        noise = (self._padding + before).rstrip(PADDING)
        if noise:
            self._noise.add_run("bytes outside of a frame: not HL7 over MLLP, or the baud rate", noise, now)
        self._padding = (self._padding + before)[len(noise) :][:PADDING_BYTES_MAX] if start < 0 else b""
        return data[len(before) :]

    def _take(self, events: list[Event], now: float) -> None:
        for event in events:
            match event:
                case Frame(content=content):
                    self._hear(content, now)
                case Oversize(head=head):
                    self._noise.add(f"a message longer than {FRAME_BYTES_MAX} bytes", head, now)
                case Partial(count=count):
                    self._noise.add(f"a message broke off after {count} bytes", b"", now)

    def tick(self, now: float) -> None:
        """Let go of values without flags, say the echo, take notice of a silent sender."""
        self._take(self._decoder.tick(now), now)
        if self._values is not None and now >= self._values[2]:
            self._pair(None, b"")
        if self._echo_at is not None and now >= self._echo_at:
            self._output += encode_frame(ECHO)
            self._echo_at = now + ECHO_S
        self._emit(now)

    def forget(self, now: float) -> None:
        """Take notice that it may be another monitor."""
        self._pds.forget()
        self._bed = ("", now)

    def settle(self, stored: bool, now: float) -> None:
        """Answer the message of the oldest Reading taken."""
        if self._answers:
            yes, no = self._answers.popleft()
            self._say(yes if stored else no)

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Hand over what to say."""
        said, self._output = self._output, b""
        return said

    def _say(self, content: bytes) -> None:
        if content and self._transmit:
            self._output += encode_frame(content)

    def _hear(self, content: bytes, now: float) -> None:
        try:
            message = read_message(content, self._encoding)
        except ContentError as error:
            self._noise.add(str(error), content, now)
            return
        self._noise.heal()
        dialect = self._dialect if self._dialect != "auto" else dialect_of(message)
        if dialect == "mindray-pds":
            self._hear_pds(message, content, now)
        elif self._is_elsewhere(message.bed(), now):
            self._noise.add(
                "a message of another bed: a central station belongs to a source of type mllp", content, now
            )
            self._say(answer(message, "AE"))
        else:
            self._hear_other(message, dialect, content)

    def _is_elsewhere(self, bed: str, now: float) -> bool:
        known, heard_at = self._bed
        if bed and known and bed != known and now - heard_at < BED_SILENCE_S:
            return True
        self._bed = (bed or known, now)
        return False

    def _hear_other(self, message: MonitorMessage, dialect: str, content: bytes) -> None:
        demo = is_demo(message)
        self._notice = "the monitor is in demonstration mode: nothing is published" if demo else None
        fault: str | None = None
        results: tuple[Result, ...] = ()
        try:
            results = () if demo else self._read(message, dialect)
        except Exception as error:  # noqa: BLE001 - the border: a bug in a mapping must never cost the data
            fault = f"driver failed: {type(error).__name__}"
        self._bring(content, results, fault, answer(message, "AA"), answer(message, "AE"), message.control_id or None)

    def _read(self, message: MonitorMessage, dialect: str) -> tuple[Result, ...]:
        if dialect == "pcd":
            return read_pcd(message, self._utc_offset)
        row, manufacturer = _ROWS[dialect]
        return read_rows(message, row, self._utc_offset, manufacturer)

    def _hear_pds(self, message: MonitorMessage, content: bytes, now: float) -> None:
        kind = message.control_id
        if kind == FLAGS:
            self._pair(message, content)
            return
        if self._values is not None and kind != ECHOED:
            self._pair(None, b"")
        if kind == VALUES:
            self._values = (content, message, now + FLAGS_S)
        elif kind == APERIODIC:
            self._bring(content, self._pds.values(message, None), None, b"", b"", None)
        elif kind in (PHYSIOLOGICAL, TECHNICAL):
            self._bring(content, self._pds.alarms(message), None, b"", b"", None)
        elif kind in PATIENT:
            self._pds.hear(message)

    def _pair(self, flags: MonitorMessage | None, raw: bytes) -> None:
        if self._values is None:
            return
        content, message, _ = self._values
        self._values = None
        self._bring(content + raw, self._pds.values(message, flags), None, b"", b"", None)

    def _bring(
        self, raw: bytes, results: tuple[Result, ...], fault: str | None, yes: bytes, no: bytes, identifier: str | None
    ) -> None:
        if not results and fault is None:
            self._say(yes)  # nothing of it is kept: there is nothing to wait for
            return
        self._readings.append(Reading(raw=raw, results=() if fault else results, fault=fault, identifier=identifier))
        self._answers.append((yes, no))

    def _emit(self, now: float) -> None:
        if (reading := self._noise.take(now)) is not None:
            self._readings.append(reading)
            self._answers.append((b"", b""))


def dialect_of(message: MonitorMessage) -> str:
    """Return which dialect a message is in, by what only that one does."""
    sender, version = message.msh(3), message.msh(12)
    if not sender and version.startswith("2.3.1") and message.control_id.isdecimal() and len(message.control_id) <= 4:
        return "mindray-pds"
    if message.msh(9).startswith("ORU^R40"):
        return "pcd"
    for row in message.named("OBX"):
        system = row.component(3, 3)
        if system.startswith("MDIL"):
            return "philips-mdil"
        if system == "local":
            return "draeger-infinity"
        if system == "MDC" or row.component(3, 2).startswith("MDC_"):
            return "pcd"
        if len(code := row.component(3, 1)) == 6 and code.isdecimal():
            return "nihon-kohden"
    return "any"


def answer(message: MonitorMessage, code: str) -> bytes:
    """Return the acknowledgement of a message, b"" where it asks for none (2.9.2, 2.9.3)."""
    accept, application = message.msh(15), message.msh(16)
    conditions = ("AL", "SU" if code == "AA" else "ER")
    if not message.control_id:
        return b""
    if (accept or application) and application not in conditions:
        if accept not in conditions:
            return b""
        code = "CA" if code == "AA" else "CE"
    sender, facility, receiver, place = (message.msh(number) for number in (3, 4, 5, 6))
    trigger = [*message.msh(9).split("^"), ""][1]
    kind = f"ACK^{trigger}^ACK" if trigger else "ACK"
    head = f"MSH|^~\\&|{receiver}|{place}|{sender}|{facility}|{message.msh(7)}||{kind}|A{message.control_id}"
    text = f"{head}|{message.msh(11) or 'P'}|{message.msh(12)}\rMSA|{code}|{message.control_id}\r"
    return text.encode("latin-1", "replace")
