"""Baxter AS50 syringe pump: bracketed commands (published driver of the MD PnP project, AS50.java).

    [COMMAND?] CRC CRC  ->  [COMMAND=value] CRC CRC     CRC-16, polynomial 1021h, start 0, of the text with its brackets

Only questions are asked: words that do not end with a question mark are never said, whatever asked for them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from gateway.driver import (
    About,
    Condition,
    ContentError,
    DeviceIdentity,
    LineSettings,
    Observation,
    Result,
    Session,
    observe,
    read_number,
)
from gateway.protocols.asking import AskingSession, Heard
from gateway.protocols.checksums import check_of

REPLY_TIMEOUT_S = 1.0
FRAME_BYTES_MAX = 200
CRC_BYTES = 2
ASKED = ("STATUS?", "PRIRATE?")
GREETING = ("DEV?", *ASKED)

_ANSWER = re.compile(r"\[([A-Z0-9_]+)(?:=([^\]]*))?\]")


@dataclass(frozen=True, kw_only=True)
class As50:
    """Settings of an AS50 source: seconds between two looks."""

    about: ClassVar[About] = About(
        name="as50",
        summary="Baxter AS50 syringe pump, read only",
        models=("AS50",),
        source="published driver and frames of the MD PnP project (AS50.java); no manual",
        unverified=(
            "no capture of a pump's answers exists; that they carry the same CRC follows from the published frames",
            "content of STATUS, unit of PRIRATE (taken as mL/h)",
        ),
        line=LineSettings(baud=9600),
        silence_s=15.0,
        talks=False,
        harmless_polls=True,
    )

    cycle_s: float = field(default=2.5, metadata={"min": 0.5})
    transmit: bool = True

    def open(self) -> Session:
        """Start asking."""
        return AskingSession(_Pump(), cycle_s=self.cycle_s, reply_timeout_s=REPLY_TIMEOUT_S, transmit=self.transmit)


def frame(text: str) -> bytes:
    """Return a command in its brackets with its CRC, high byte first."""
    content = f"[{text}]".encode("ascii")
    return content + check_of("crc16-xmodem", content).to_bytes(CRC_BYTES, "big")


class _Pump:
    """What was heard of the pump in this round."""

    def __init__(self) -> None:
        self._model: str | None = None
        self._observations: list[Observation] = []
        self._conditions: tuple[Condition, ...] = ()

    def greeting(self) -> Sequence[bytes]:
        return [frame(text) for text in GREETING]

    def questions(self) -> Sequence[bytes]:
        return [frame(text) for text in ASKED]

    def more(self) -> Sequence[bytes]:
        return ()

    def farewells(self) -> Sequence[bytes]:
        return ()

    def forbids(self, words: bytes) -> bool:
        return words not in {frame(text) for text in GREETING}

    def cut(self, buffer: bytearray) -> Iterator[Heard]:
        while buffer:
            start = buffer.find(b"[")
            if start != 0:
                raw = bytes(buffer[: start if start > 0 else len(buffer)])
                del buffer[: len(raw)]
                yield Heard(raw=raw, fault="bytes outside of an answer")
                continue
            end, again = buffer.find(b"]"), buffer.find(b"[", 1)
            if again > 0 and (end < 0 or again < end):
                yield self._drop(buffer, again, "an answer broke off")
            elif end < 0 and len(buffer) > FRAME_BYTES_MAX:
                yield self._drop(buffer, len(buffer), f"no end of an answer in {FRAME_BYTES_MAX} bytes")
            elif end < 0 or len(buffer) < end + 1 + CRC_BYTES:
                return
            else:
                yield self._answer(buffer, end + 1)

    def read(self, content: bytes) -> None:
        match = _ANSWER.fullmatch(content.decode("latin-1"))
        if match is None:
            raise ContentError("not an answer of an AS50")
        name, value = match[1], match[2]
        if name.startswith("REJECT"):
            raise ContentError("the pump rejected the question")
        if value is None:
            return
        match name:
            case "PRIRATE":
                self._observations.append(observe("infusion_rate", read_number(value.strip()), sub="1.1.1.1"))
            case "STATUS":
                self._observations.append(observe("x_as50_status", value, sub="1.1.1.2"))
            case "DEV":
                self._model = value[:64]
            case _:
                self._observations.append(observe(f"x_as50_{name.lower()}", value, sub="1.1.1.3"))

    def results(self) -> tuple[Result, ...]:
        found, self._observations = tuple(self._observations), []
        device = DeviceIdentity(manufacturer="Baxter", model=self._model or "AS50")
        return (Result(observations=found, device=device),) if found else ()

    def _drop(self, buffer: bytearray, size: int, why: str) -> Heard:
        raw = bytes(buffer[:size])
        del buffer[:size]
        return Heard(raw=raw, fault=why)

    def _answer(self, buffer: bytearray, end: int) -> Heard:
        content, given = bytes(buffer[:end]), bytes(buffer[end : end + CRC_BYTES])
        if int.from_bytes(given, "big") != check_of("crc16-xmodem", content):
            return self._drop(buffer, end, "check characters do not match")
        raw = content + given
        del buffer[: len(raw)]
        return Heard(raw=raw, content=content)
