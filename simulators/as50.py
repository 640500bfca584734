"""A Baxter AS50 syringe pump: answers `[COMMAND?]` and two CRC bytes with `[COMMAND=value]` and two CRC bytes."""

from collections.abc import Sequence

from simulators.answering import Answer, State, arguments, run


class As50:
    """Answers the reading commands; to anything else it says `[REJECT]`."""

    def __init__(self) -> None:
        self._heard = b""

    def start(self) -> None:
        """Forget half a command."""
        self._heard = b""

    def hear(self, data: bytes, state: State) -> Sequence[Answer]:
        """Answer each command that is whole and right."""
        self._heard += data
        answers = []
        while (start := self._heard.find(b"[")) >= 0 and (end := self._heard.find(b"]", start)) >= 0:
            if len(self._heard) < end + 3:
                break
            command, check = self._heard[start : end + 1], self._heard[end + 1 : end + 3]
            self._heard = self._heard[end + 3 :]
            if int.from_bytes(check, "big") == crc(command):
                answers.append(self._answer(command, state))
        return answers

    def _answer(self, command: bytes, state: State) -> Answer:
        match command:
            case b"[DEV?]":
                return Answer(framed("[DEV=AS50]"))
            case b"[STATUS?]":
                return Answer(framed("[STATUS=ALARM]" if state.alarm else "[STATUS=RUN]"))
            case b"[PRIRATE?]":
                rate = "---" if state.off else f"{state.rate:.1f}"
                return Answer(framed(f"[PRIRATE={rate}]"), {"rate": "" if state.off else rate})
        return Answer(framed("[REJECT]"))


def crc(data: bytes) -> int:
    """Return CRC-16 with polynomial 1021h from 0."""
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x1021 if value & 0x8000 else value << 1) & 0xFFFF
    return value


def framed(text: str) -> bytes:
    """Return an answer with its CRC, high byte first."""
    return text.encode() + crc(text.encode()).to_bytes(2, "big")


if __name__ == "__main__":
    run(As50(), arguments("as50", "A Baxter AS50 syringe pump.").parse_args())
