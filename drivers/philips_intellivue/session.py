"""One conversation with an IntelliVue monitor, over a serial line or UDP.

Bytes become user data (frames of a serial line, or whole datagrams), user data become messages, messages drive the
association (`client.py`) and become Readings (`reader.py`). While the transport is not known both are asked for in
turn, and the first sound frame or datagram decides. A listening Session (`client` None) says nothing and reads what
another client's polls bring.
"""

from collections.abc import Iterable
from enum import Enum

from drivers.philips_intellivue import messages, requests
from drivers.philips_intellivue.client import Client
from drivers.philips_intellivue.framing import Deframer, framed
from drivers.philips_intellivue.identity import read_announcement
from drivers.philips_intellivue.linking import Assembly, Linker
from drivers.philips_intellivue.messages import Command, DataMessage, Kind
from drivers.philips_intellivue.reader import MonitorReader
from drivers.philips_intellivue.values import attributes, elements
from gateway.errors import ContentError
from gateway.model import Reading
from gateway.protocols.faults import FaultBin

NOISE_BYTES_MAX = 1024
UNREAD_BYTES_MAX = 64 * 1024
NOISE_DELAY_S = 1.0
OUTPUT_MESSAGES_MAX = 32
TURN_S = 0.5  # between the serial and the LAN form of a question while the transport is not known

_LAN_STARTS = {
    messages.ASSOCIATION_ACCEPT,
    messages.ASSOCIATION_REFUSE,
    messages.RELEASE_REQUEST,
    messages.RELEASE_RESPONSE,
    messages.ABORT,
    messages.ASSOCIATION_REQUEST,
}


class Transport(Enum):
    """How user data travel."""

    AUTO = "auto"
    SERIAL = "serial"
    LAN = "lan"


class IntellivueSession:
    """Reads a monitor; `client` says what keeps it talking, None says nothing."""

    def __init__(self, reader: MonitorReader, client: Client | None, transport: Transport) -> None:
        self._reader = reader
        self._client = client
        self._transport = transport
        self._deframer = Deframer()
        self._linker = Linker()
        self._readings: list[Reading] = []
        self._output: list[bytes] = []
        self._second_form: tuple[float, bytes] | None = None
        self._announced: str | None = None
        self._noise = FaultBin(delay_s=NOISE_DELAY_S, raw_bytes_max=NOISE_BYTES_MAX)
        self._unread = FaultBin(delay_s=0.0, raw_bytes_max=UNREAD_BYTES_MAX)

    @property
    def buffered_bytes(self) -> int:
        """Return how many bytes wait to be understood."""
        return self._deframer.buffered_bytes + self._linker.buffered_bytes

    @property
    def transport(self) -> Transport:
        """Return how user data travel, AUTO while it is not known."""
        return self._transport

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came; on a LAN, one datagram."""
        self._advance(now)
        if self._transport is Transport.LAN:
            self._take_datagram(data, now)
        elif self._transport is Transport.AUTO and self._deframer.idle and _is_datagram(data):
            self._decide(Transport.LAN)
            self._take_datagram(data, now)
        else:
            self._take_stream(data, now)
        self._advance(now)

    def tick(self, now: float) -> None:
        """Say what is due, hand out gathered faults and results whose rest was lost."""
        self._advance(now)

    def part(self) -> None:
        """Release the association: a monitor that only lost us holds it for a while and refuses the next client."""
        said = None if self._client is None else self._client.part()
        self._output.clear()
        self._second_form = None
        if said is not None:
            self._output.append(framed(said) if self._transport is Transport.SERIAL else said)

    def settle(self, stored: bool, now: float) -> None:
        """The protocol acknowledges nothing."""

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        taken, self._readings = self._readings, []
        return taken

    def take_output(self) -> bytes:
        """Hand over what to say; on a LAN one datagram at a time."""
        if self._transport is Transport.SERIAL:
            said, self._output = b"".join(self._output), []
            return said
        return self._output.pop(0) if self._output else b""

    @property
    def deadline(self) -> float | None:
        """Return when to tick; the past while a further datagram waits."""
        if self._output and self._transport is not Transport.SERIAL:
            return float("-inf")
        second = None if self._second_form is None else self._second_form[0]
        asking = None if self._client is None else self._client.deadline
        waiting = (second, asking, self._noise.deadline, self._unread.deadline, self._linker.deadline)
        return min((due for due in waiting if due is not None), default=None)

    @property
    def notice(self) -> str | None:
        """Return why nothing is published although the monitor talks: demo mode, or it refuses us."""
        if self._reader.demo:
            return "demo mode"
        if self._client is not None and self._client.refused:
            return "the monitor refuses the association: another client may hold it"
        return self._announced

    def _advance(self, now: float) -> None:
        self._say_due(now)
        for held in self._linker.expire(now):
            self._read(held, now)
        for faults in (self._noise, self._unread):
            if (reading := faults.take(now)) is not None:
                self._readings.append(reading)

    def _say_due(self, now: float) -> None:
        if self._second_form is not None and now >= self._second_form[0]:
            self._put(self._second_form[1])
            self._second_form = None
        while self._client is not None and (said := self._client.take(now)) is not None:
            match self._transport:
                case Transport.SERIAL:
                    self._put(framed(said))
                case Transport.LAN:
                    self._put(said)
                case Transport.AUTO:
                    self._put(framed(said))
                    self._second_form = (now + TURN_S, said)

    def _put(self, said: bytes) -> None:
        self._output.append(said)
        del self._output[:-OUTPUT_MESSAGES_MAX]

    def _decide(self, transport: Transport) -> None:
        if self._transport is Transport.AUTO:
            self._transport, self._second_form = transport, None
            self._output.clear()  # what was said in the other form

    def _take_stream(self, data: bytes, now: float) -> None:
        for piece in self._deframer.feed(data):
            if piece.content is not None:
                self._decide(Transport.SERIAL)
                self._take(piece.content, piece.raw, now)
            elif piece.noise:
                self._noise.add_run(f"{piece.fault}: check baud rate, cable and the port's function", piece.raw, now)
            elif piece.fault:
                self._noise.add(piece.fault, piece.raw, now)

    def _take_datagram(self, data: bytes, now: float) -> None:
        if _is_datagram(data):
            self._take(data, data, now)
        else:
            self._noise.add("a datagram that is no data export message", data, now)

    def _take(self, content: bytes, raw: bytes, now: float) -> None:
        """Take sound user data: the border at which what they hold is read."""
        try:
            self._take_message(content, raw, now)
        except ContentError as error:
            self._refuse(str(error), raw, now)
        except Exception as error:  # noqa: BLE001 - the border: a bug in a mapping must never cost the data
            self._refuse(f"driver failed: {type(error).__name__}", raw, now)

    def _take_message(self, content: bytes, raw: bytes, now: float) -> None:
        first = content[0] if content else -1
        if content.startswith(messages.DATA):
            self._hear(now)
            self._take_data(messages.data_message(content), raw, now)
        elif content.startswith(messages.CONNECT_INDICATION):
            self._meet(content, now)
        elif first == messages.ASSOCIATION_ACCEPT:
            self._begin(requests.association_accepted(content), now)
        elif first not in _LAN_STARTS:
            raise ContentError("a message of a kind that is not described")
        elif self._client is not None and first == messages.ASSOCIATION_REFUSE:
            self._client.refuse(now)
        elif self._client is not None and first in (messages.ABORT, messages.RELEASE_RESPONSE):
            self._client.end(now)

    def _take_data(self, message: DataMessage, raw: bytes, now: float) -> None:
        match message.kind, message.command:
            case Kind.INVOKE, Command.CONFIRMED_EVENT:
                self._create(message, now)
            case Kind.RESULT | Kind.LINKED, Command.ACTION:
                self._take_result(message, raw, now)
            case Kind.ERROR, _:
                self._take_error(message, raw, now)
            case _:
                pass  # answers to GET and SET are echoes; requests are another client's

    def _take_result(self, message: DataMessage, raw: bytes, now: float) -> None:
        result = messages.poll_result(message.body)
        if result is None:
            return
        if self._client is not None:
            self._client.answered(result.number, message.invoke, now)
        for whole in self._linker.take(message, result, raw, now):
            self._read(whole, now)

    def _take_error(self, message: DataMessage, raw: bytes, now: float) -> None:
        poll = None if self._client is None else self._client.denied(message.invoke, now)
        what = f"a poll of class {poll.polled:04X}" if poll is not None else "a request"
        self._refuse(f"the monitor refused {what}: error {message.command}", raw, now)

    def _create(self, message: DataMessage, now: float) -> None:
        told = messages.event(message.body)
        if told.kind != messages.MDS_CREATED:
            return
        self._give_up(self._linker.clear(), now)
        self._reader.restart()
        if self._client is not None:
            self._client.created(message.invoke, told.ticks, now)
        self._reader.learn_system(dict(attributes(elements(told.body[6:])[1])), told.ticks)

    def _begin(self, accepted: requests.Accepted, now: float) -> None:
        self._hear(now)
        self._give_up(self._linker.clear(), now)
        self._reader.restart()
        if self._client is not None:
            self._client.accept(accepted, now)

    def _meet(self, content: bytes, now: float) -> None:
        found = read_announcement(content)
        self._announced = f"a monitor {found.device.model or ''} announces itself: udp://{found.address}:{found.port}"
        if self._client is not None:
            self._client.announced(now)

    def _hear(self, now: float) -> None:
        self._noise.heal()
        self._announced = None
        if self._client is not None:
            self._client.heard(now)

    def _give_up(self, given_up: Iterable[Assembly], now: float) -> None:
        for held in given_up:
            self._read(held, now)

    def _read(self, whole: Assembly, now: float) -> None:
        """Read a whole result, or what came of it; the border once more, because time can bring it here."""
        raw = whole.raw
        try:
            results = self._reader.read(whole.parts, whole.complete)
        except ContentError as error:
            self._refuse(str(error), raw, now)
            return
        except Exception as error:  # noqa: BLE001 - the border: a bug in a mapping must never cost the data
            self._refuse(f"driver failed: {type(error).__name__}", raw, now)
            return
        complaints, self._reader.complaints = self._reader.complaints, []
        for complaint in complaints:
            self._refuse(complaint, raw, now)
        if results:
            self._unread.heal()
            self._readings.append(Reading(raw=raw, results=results))

    def _refuse(self, reason: str, raw: bytes, now: float) -> None:
        self._unread.add(reason, raw, now)
        if (reading := self._unread.take(now)) is not None:
            self._readings.append(reading)


def _is_datagram(data: bytes) -> bool:
    """Tell whether bytes are one whole message of the LAN form, by its own lengths."""
    if data.startswith((messages.DATA, messages.CONNECT_INDICATION)):
        return len(data) >= 8 and int.from_bytes(data[6:8], "big") == len(data) - 8
    if len(data) < 2 or data[0] not in _LAN_STARTS:
        return False
    if data[1] == 0xFF:
        return len(data) >= 4 and int.from_bytes(data[2:4], "big") == len(data) - 4
    return data[1] == len(data) - 2
