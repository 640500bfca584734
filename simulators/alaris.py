"""An Alaris GH syringe pump: answers `!COMMAND|CCCC` with `!COMMAND^…|CCCC`."""

from collections.abc import Sequence

from simulators.answering import Answer, State, arguments, run

SERIAL = "8002-00001"


class Alaris:
    """Answers the reading commands; to a control command it answers that it is not permitted."""

    def __init__(self) -> None:
        self._heard = b""

    def start(self) -> None:
        """Forget half a command."""
        self._heard = b""

    def hear(self, data: bytes, state: State) -> Sequence[Answer]:
        """Answer each command that is whole and right."""
        self._heard += data
        *lines, self._heard = self._heard.split(b"\r")
        return [answer for line in lines if (answer := self._answer(line, state)) is not None]

    def _answer(self, line: bytes, state: State) -> Answer | None:
        text, bar, check = line.lstrip(b"\n").removeprefix(b"!").partition(b"|")
        if not bar or check.decode("latin-1").upper() != f"{crc(text):04X}":
            return None
        rate, volume = ("", "") if state.off else (f"{state.rate:.2f}", f"{state.volume:.3f}")
        match text.decode("latin-1"):
            case "INST_SERIALNO":
                return Answer(framed(f"INST_SERIALNO^{SERIAL}"))
            case "COMMS_PROTOCOL":
                return Answer(framed("COMMS_PROTOCOL^Asena Rev 2.1.5"))
            case "INF_VTBI":
                return Answer(framed("INF_VTBI^ACTIV^50.000^ml^STOP"))
            case "INF":
                alarm = "OCCLUSION" if state.alarm else "NONE"
                fields = (SERIAL, alarm, "INFUSING", rate, "ml/h", "", volume, "ml", "45", "mmHg", "01:30:00", "S", "7")
                return Answer(framed("^".join(("INF", *fields))), {"rate": rate, "volume": volume})
        return Answer(framed(f"{text.decode('latin-1').split('^')[0]}^FAIL"))


def crc(data: bytes) -> int:
    """Return CRC-16 with polynomial 1021h from FFFFh."""
    value = 0xFFFF
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x1021 if value & 0x8000 else value << 1) & 0xFFFF
    return value


def framed(text: str) -> bytes:
    """Return an answer with its check."""
    return f"!{text}|{crc(text.encode()):04X}\r".encode()


if __name__ == "__main__":
    run(Alaris(), arguments("alaris", "An Alaris GH syringe pump.").parse_args())
