"""A B. Braun SpaceStation with two pumps (501 11 Infusomat, 501 12 Perfusor): BCC in request mode."""

import re
from collections.abc import Sequence

from simulators.answering import Answer, State, arguments, run

BED = "ICU7"
ACK, NAK, RS = b"\x06", b"\x15", "\x1e"
_PAIRS = {"EX": "D", "EE": "E", "ex": "d", "ee": "e"}


class SpaceStation:
    """Sends one block a pump, the next when the last was acknowledged, the same again when it was not."""

    def __init__(self, *, stuffing: bool) -> None:
        self._stuffing = stuffing
        self._heard = b""
        self._blocks: list[Answer] = []
        self._seconds = 50000

    def start(self) -> None:
        """Begin anew: the clock of the ComDevice starts again."""
        self._heard, self._blocks, self._seconds = b"", [], 0

    def hear(self, data: bytes, state: State) -> Sequence[Answer]:
        """Answer requests, acknowledgements and refusals."""
        self._heard += data
        answers: list[Answer] = []
        while self._heard:
            if self._heard[:1] == ACK:
                self._heard = self._heard[1:]
                self._blocks = self._blocks[1:]
                answers += self._blocks[:1]
            elif self._heard[:1] == NAK:
                self._heard = self._heard[1:]
                answers += self._blocks[:1]
            elif self._heard[:1] != b"\x01":
                self._heard = self._heard[1:]
            elif b"\x04" not in self._heard:
                break
            else:
                frame, _, self._heard = self._heard.partition(b"\x04")
                self._blocks = self._answer(frame + b"\x04", state)
                answers += self._blocks[:1]
        return answers

    def _answer(self, frame: bytes, state: State) -> list[Answer]:
        self._seconds += 1
        message = self._plain(frame)
        match = re.fullmatch(rb"\x01(\d{5})\x02([^/]+)/1/1>(.*)\x03(\d{5})\x04", message, re.DOTALL)
        if match is None or int(match[4]) != sum(message[:-6]) % 256:
            return [Answer(self._block(f"{self._seconds},50100,GNERR,68"))]
        request = match[3].decode()
        if request == "ADMIN:ALIVE":
            return [Answer(self._block(f"{self._seconds},50100,GNACK,0"))]
        if match[2].decode() != BED:
            return [Answer(self._block(f"{self._seconds},50100,GNERR,68"))]
        if request == "ADMIN:VERSION":
            return [Answer(self._block(f"{self._seconds},50100,V3.30"))]
        if request == "MEM:GET":
            return self._memory(state)
        return [Answer(self._block(f"{self._seconds},50100,GNERR,68"))]

    def _memory(self, state: State) -> list[Answer]:
        rate = "_NV" if state.off else f"{state.rate:.2f}"
        volume = "_NV" if state.off else f"{state.volume:.2f}"
        pump = {"INRT": rate, "INVI": volume, "INVTB": "250.00", "INSOL": "Dextrose 5 %", "INM3": "1"}
        if state.alarm:
            pump["INA3"] = "1"
        blocks = []
        for place, (address, model) in enumerate((("50111", "686N030004"), ("50112", "688N030002")), 1):
            told = {"GNMODEL": model, **pump}
            text = RS.join(f"{self._seconds},{address},{name},{value}" for name, value in told.items())
            values = {"address": address, "rate": rate, "volume": volume}
            blocks.append(Answer(self._block(text, last=place == 2), values))
        return blocks

    def _block(self, information: str, *, last: bool = True) -> bytes:
        middle = f"\x02{BED}/1/1>{information}".encode() + (b"\x03" if last else b"\x17")
        message = f"\x01{len(middle) + 12:05d}".encode() + middle
        message += f"{sum(message) % 256:05d}\x04".encode()
        return self._stuffed(message) if self._stuffing else message

    def _stuffed(self, message: bytes) -> bytes:
        written = {plain: pair for pair, plain in _PAIRS.items()}
        return "".join(written.get(letter, letter) for letter in message.decode("latin-1")).encode("latin-1")

    def _plain(self, message: bytes) -> bytes:
        if not self._stuffing:
            return message
        return re.sub("EX|EE|ex|ee", lambda pair: _PAIRS[pair[0]], message.decode("latin-1")).encode("latin-1")


if __name__ == "__main__":
    parser = arguments("bbraun", "A B. Braun SpaceStation with two pumps.")
    parser.add_argument("--no-stuffing", action="store_true", help="character stuffing is switched off")
    asked = parser.parse_args()
    run(SpaceStation(stuffing=not asked.no_stuffing), asked)
