"""Fresenius Kabi Agilia and Pilot pumps, alone or in a Base or Orchestra rack, read only (public package infupy).

    STX [origin] body CC ETX      CC: FFh minus the sum of origin and body, modulo 256, in two hex digits
    ENQ -> DC4                    keep-alive question of the pump
    good frame -> ACK, bad one -> NAK and an error digit; E and M frames are answered with a frame `E` or `M`

Each pump of a rack is a Result of its own; which there are is asked in every round, and a changed one is greeted.
Commands that control a pump are on a deny-list that every byte said is held against; what is not on the list of
questions is not said either.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
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
)
from gateway.protocols.asking import AskingSession, Heard

STX, ETX, ENQ, ACK, DC4, NAK = b"\x02", b"\x03", b"\x05", b"\x06", b"\x14", b"\x15"
REPLY_TIMEOUT_S = 1.0
FRAME_BYTES_MAX = 100
MODULES_MAX = 8
BASE = "0"
NO_BASE_SESSION, NO_SESSION = "0D", frozenset({"0E", "1E"})
CONNECT, DISCONNECT, VARIABLES, RACK = "DC", "FC", "LE;aemdr", "LE;ib"
ALLOWED = frozenset({CONNECT, DISCONNECT, VARIABLES, RACK, "E", "M"})
FORBIDDEN = frozenset(["MO", "RZ", "OF", "SI", "EP", "AP", "EN", "PR", "PO", "PB", "PF", "PV", "RV", "PP", "PS"])

_BODY = re.compile(r"(?P<origin>\d?)(?P<kind>[A-Z])(?:;(?P<data>.*))?", re.DOTALL)
_VARIABLE = re.compile(r"([a-z])([0-9A-Fa-f]*)")
_REFUSALS = {
    "01": "unknown command",
    "02": "not in this mode",
    "03": "not in this status",
    "04": "syntax",
    "05": "mode not authorised",
    "0D": "base session not open",
    "0E": "module unreachable",
    "12": "alarm present",
    "1E": "module session not open",
    "20": "not allowed on this port",
    "22": "mode not authorised",
    "24": "connection mode",
}


@dataclass(frozen=True, kw_only=True)
class Fresenius:
    """Settings of a Fresenius source: whether a rack is asked for its modules, and seconds between two looks."""

    about: ClassVar[About] = About(
        name="fresenius",
        summary="Fresenius Kabi Agilia and Pilot pumps, read only",
        models=("Agilia", "Pilot", "Base A", "Orchestra Base Primea"),
        source="public package infupy, backends/fresenius.py; no manual",
        unverified=(
            "which Agilia firmware and which link speaks this (the Link+ rack speaks another protocol)",
            "meaning of alarm, error and mode values: passed as numbers",
            "no capture exists; frames are computed from the published driver",
        ),
        line=LineSettings(baud=19200, data_bits=7, parity="even"),
        silence_s=15.0,
        talks=False,
        harmless_polls=False,  # DC opens a session with the pump
    )

    rack: bool = False
    cycle_s: float = field(default=2.5, metadata={"min": 1.0})
    transmit: bool = True

    def open(self) -> Session:
        """Start asking."""
        return AskingSession(
            _Pumps(rack=self.rack),
            cycle_s=self.cycle_s,
            reply_timeout_s=REPLY_TIMEOUT_S,
            tries=2,
            transmit=self.transmit,
        )


def frame(body: str) -> bytes:
    """Return a frame of origin and body."""
    content = body.encode("ascii")
    return STX + content + _checks(content) + ETX


def _checks(content: bytes) -> bytes:
    return b"%02X" % (0xFF - sum(content) & 0xFF)


class _Pumps:
    """What was heard of each module in this round; origin "" is a pump alone."""

    def __init__(self, *, rack: bool) -> None:
        self._rack = rack
        self._modules: tuple[str, ...] = () if rack else ("",)
        self._opened: set[str] = set()  # modules with a session; a pump that was changed has none
        self._told: dict[str, dict[str, str]] = {}
        self._faults: dict[str, str] = {}
        self._follow: list[bytes] = []
        self._greeted = False

    def greeting(self) -> Sequence[bytes]:
        self._told.clear()
        self._greeted = True
        self._opened.clear()
        return self.questions()

    def questions(self) -> Sequence[bytes]:
        return self._asked_of(BASE, RACK) if self._rack else self._asked_of("", VARIABLES)

    def more(self) -> Sequence[bytes]:
        follow, self._follow = self._follow, []
        return follow

    def farewells(self) -> Sequence[bytes]:
        """Close the sessions that were opened: a pump that only lost us may alarm."""
        if not self._greeted:
            return ()
        modules = [*self._modules, "0"] if self._rack else [""]
        return [frame(f"{module}{DISCONNECT}") for module in modules]

    def forbids(self, words: bytes) -> bool:
        words = words.removeprefix(ACK)
        if words in (b"", DC4) or (words[:1] == NAK and len(words) == 2):
            return False
        if words[:1] != STX:
            return True
        body = words[1:-3].decode("latin-1").lstrip("0123456789")
        return body not in ALLOWED or body[:2] in FORBIDDEN

    def cut(self, buffer: bytearray) -> Iterator[Heard]:
        while buffer:
            if buffer[:1] == ENQ:
                del buffer[:1]
                yield Heard(raw=ENQ, reply=DC4, ends=False)
            elif buffer == NAK:
                return  # an error digit follows
            elif buffer[:1] in (ACK, NAK):
                size = 2 if buffer[:1] == NAK and buffer[1:2].isdigit() else 1
                raw = bytes(buffer[:size])
                del buffer[:size]
                yield Heard(raw=raw, ends=False)
            elif buffer[:1] != STX:
                yield _noise(buffer, _next_start(buffer, 0))
            else:
                end, again = buffer.find(ETX), buffer.find(STX, 1)
                if again > 0 and (end < 0 or again < end):
                    yield _noise(buffer, again)
                elif end < 0 and len(buffer) > FRAME_BYTES_MAX:
                    yield _noise(buffer, len(buffer))
                elif end < 0:
                    return
                else:
                    yield self._frame(buffer, end + 1)

    def read(self, content: bytes) -> None:
        match = _BODY.fullmatch(content.decode("latin-1"))
        if match is None:
            raise ContentError("not a frame of the pump")
        origin, kind, data = match["origin"], match["kind"], match["data"] or ""
        match kind:
            case "C" | "E" | "M":
                self._take(origin, data)
            case "I":
                self._faults[origin] = refusal = data[:2]
                self._opened -= {BASE} if refusal == NO_BASE_SESSION else set()
                self._opened -= {origin} if refusal in NO_SESSION else set()

    def results(self) -> tuple[Result, ...]:
        told, self._told = self._told, {}
        faults, self._faults = self._faults, {}
        return tuple(
            self._result(module, told.get(module, {}), faults.get(module))
            for module in sorted(told.keys() | faults.keys())
            if told.get(module) or (module in faults and module != "0")
        )

    def _frame(self, buffer: bytearray, end: int) -> Heard:
        raw = bytes(buffer[:end])
        del buffer[:end]
        content, given = raw[1:-3], raw[-3:-1]
        if len(content) < 1 or given.upper() != _checks(content):
            return Heard(raw=raw, fault="check characters do not match", reply=NAK + b"2")
        kind = content.decode("latin-1").lstrip("0123456789")[:1]
        origin = content[:1].decode("latin-1") if content[:1].isdigit() else ""
        reply = ACK + frame(f"{origin}{kind}") if kind in ("E", "M") else ACK
        return Heard(raw=raw, content=content, reply=reply, ends=kind in ("C", "I"))

    def _take(self, origin: str, data: str) -> None:
        for part in data.split(";"):
            match = _VARIABLE.fullmatch(part)
            if match is None:
                continue
            name, value = match[1], match[2]
            if origin == "0" and name == "b":
                self._find_modules(value)
            elif origin != "0":
                self._told.setdefault(origin, {})[name] = value

    def _find_modules(self, mask: str) -> None:
        bits = int(mask, 16) if mask else 0
        self._modules = tuple(str(place + 1) for place in range(MODULES_MAX) if bits >> place & 1)
        self._opened &= {BASE, *self._modules}
        self._follow = [words for module in self._modules for words in self._asked_of(module, VARIABLES)]

    def _asked_of(self, module: str, question: str) -> list[bytes]:
        opening = [] if module in self._opened else [frame(f"{module}{CONNECT}")]
        self._opened.add(module)
        return [*opening, frame(f"{module}{question}")]

    def _result(self, module: str, told: dict[str, str], refused: str | None) -> Result:
        system = int(module or "1")
        observations = [found for name, value in told.items() if (found := _observation(name, value, system))]
        conditions = [
            Condition(
                code=f"{what.upper()}_{value}", text=f"{text} {value}, meaning not published", sub=f"{system}.0.0.0"
            )
            for name, what, text in (("a", "alarm", "alarm value"), ("e", "error", "error value"))
            if (value := told.get(name, "").lstrip("0"))
        ]
        if refused is not None:
            text = f"the pump refused a question: {_REFUSALS.get(refused, 'code without published meaning')}"
            conditions.append(Condition(code=f"I_{refused}", text=text, sub=f"{system}.0.0.0"))
        return Result(
            observations=tuple(observations),
            conditions=tuple(conditions),
            device=DeviceIdentity(manufacturer="Fresenius Kabi"),
        )


def _observation(name: str, value: str, system: int) -> Observation | None:
    """Return what a variable is: rate in 0.1 mL/h, volumes in microlitres."""
    if not value:
        return None
    number = Decimal(int(value, 16))
    match name:
        case "d":
            return observe("infusion_rate", number.scaleb(-1), sub=f"{system}.1.1.1")
        case "r":
            return observe("infusion_volume_delivered", number.scaleb(-3), sub=f"{system}.1.1.2")
        case "k":
            return observe("x_fresenius_bolus_rate", number.scaleb(-1), sub=f"{system}.1.1.3", unit="mL/h")
        case "s":
            return observe("x_fresenius_bolus_volume", number.scaleb(-3), sub=f"{system}.1.1.4", unit="mL")
        case "m":
            return observe("x_fresenius_mode", value, sub=f"{system}.1.1.5")
    return None


def _next_start(buffer: bytearray, after: int) -> int:
    places = [at for mark in (STX, ENQ, ACK, NAK) if (at := buffer.find(mark, after)) >= 0]
    return min(places, default=len(buffer))


def _noise(buffer: bytearray, size: int) -> Heard:
    raw = bytes(buffer[:size])
    del buffer[:size]
    return Heard(raw=raw, fault="bytes outside of a frame: baud rate, parity?")
