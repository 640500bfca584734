"""Fresenius Kabi pumps: one alone, or a rack with two modules (`--rack`). Frames `STX [origin] body CC ETX`."""

from collections.abc import Sequence

from simulators.answering import Answer, State, arguments, run

STX, ETX, ENQ, ACK, DC4, NAK = b"\x02", b"\x03", b"\x05", b"\x06", b"\x14", b"\x15"


class Fresenius:
    """Acknowledges and answers; asks ENQ from time to time, as pumps do, and refuses what controls."""

    def __init__(self, *, rack: bool) -> None:
        self._rack = rack
        self._heard = b""
        self._frames = 0
        self._connected: set[str] = set()

    def start(self) -> None:
        """Forget the sessions."""
        self._heard = b""
        self._connected.clear()

    def hear(self, data: bytes, state: State) -> Sequence[Answer]:
        """Answer each frame."""
        self._heard += data
        answers: list[Answer] = []
        while (start := self._heard.find(STX)) >= 0 and (end := self._heard.find(ETX, start)) >= 0:
            frame, self._heard = self._heard[start : end + 1], self._heard[end + 1 :]
            answers += self._answer(frame, state)
        if STX not in self._heard:
            self._heard = b""
        return answers

    def _answer(self, frame: bytes, state: State) -> list[Answer]:
        content, given = frame[1:-3], frame[-3:-1]
        if given != checks(content):
            return [Answer(NAK + b"2")]
        self._frames += 1
        text = content.decode("latin-1")
        origin = text[0] if text[:1].isdigit() else ""
        body = text[len(origin) :]
        first = Answer(ACK + (ENQ if self._frames % 10 == 0 else b""))
        return [first, self._reply(origin, body, state)] if body not in ("E", "M") else [first]

    def _reply(self, origin: str, body: str, state: State) -> Answer:
        if body == "DC":
            self._connected.add(origin)
            return Answer(framed(f"{origin}C;"))
        if origin not in self._connected:
            return Answer(framed(f"{origin}I;0D"))
        if body == "LE;ib":
            return Answer(framed(f"{origin}C;i02;b03"))
        if body.startswith("LE;"):
            rate, volume = int(state.rate * 10), int(state.volume * 1000)
            alarm = "10" if state.alarm else "00"
            told = f"a{alarm};e00;m01" + ("" if state.off else f";d{rate:04X};r{volume:08X}")
            values = {"rate": "" if state.off else str(rate), "volume": "" if state.off else str(volume)}
            return Answer(framed(f"{origin}C;{told}"), {"module": origin, **values})
        return Answer(framed(f"{origin}I;20"))


def checks(content: bytes) -> bytes:
    """Return FFh minus the sum, modulo 256."""
    return f"{(255 - sum(content)) % 256:02X}".encode()


def framed(text: str) -> bytes:
    """Return a frame."""
    return STX + text.encode() + checks(text.encode()) + ETX


if __name__ == "__main__":
    parser = arguments("fresenius", "Fresenius Kabi pumps.")
    parser.add_argument("--rack", action="store_true", help="a rack with two modules")
    asked = parser.parse_args()
    run(Fresenius(rack=asked.rack), asked)
