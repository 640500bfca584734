"""Alaris and Asena syringe pumps: ASCII commands (published driver of the MD PnP project, Asena.java).

    !COMMAND^argument^…|CCCC CR        CCCC: CRC-16, polynomial 1021h, start FFFFh, of what stands between ! and |

Only questions are asked. What would touch the infusion is on a deny-list that every byte said is held against.
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
from gateway.formats.terms import term
from gateway.protocols.asking import AskingSession, Heard
from gateway.protocols.checksums import check_of

REPLY_TIMEOUT_S = 0.5
LINE_BYTES_MAX = 1000
QUESTIONS = ("INF", "INF_VTBI")
FORBIDDEN = ("REMOTE_CTRL", "REMOTE_CFG", "REMQUERY", "INF_START", "INF_STOP", "INF_RATE", "INF_BOLUS")
ASKED = frozenset({"INST_SERIALNO", "COMMS_PROTOCOL", "INF", "INF_VTBI", "ALARM"})

INF_FIELDS_MIN = 11
NO_ALARM = frozenset({"NONE", "NO_ALARM", "0"})
UNITS = {"ml/h": "mL/h", "ml": "mL", "mmhg": "mm[Hg]", "kpa": "kPa"}
OTHER_UNIT = {
    "infusion_rate": "x_alaris_rate",
    "infusion_volume_delivered": "x_alaris_volume",
    "infusion_vtbi": "x_alaris_vtbi",
}
SUBS = {
    key: f"1.1.1.{place}"
    for place, key in enumerate(
        (*OTHER_UNIT, *OTHER_UNIT.values(), "x_alaris_pressure", "x_alaris_mode", "x_alaris_time_remaining"), 1
    )
}

_FRAME = re.compile(rb"!([^!\r]{1,900})\|([0-9A-Fa-f]{4})\r?")
_PADDING = b"\r\n\0"


@dataclass(frozen=True, kw_only=True)
class Alaris:
    """Settings of an Alaris source: seconds between two looks."""

    about: ClassVar[About] = About(
        name="alaris",
        summary="Alaris and Asena syringe pumps, ASCII, read only",
        models=("Asena GH", "Alaris GH", "Alaris CC", "Alaris TIVA", "Alaris PK"),
        source="published driver and frames of the MD PnP project (Asena.java); no manual",
        unverified=(
            "no capture of a pump's answers exists; their shape follows the published driver",
            "fields 6 and 7 of INF, the meaning of alarm, mode and log fields",
            "whether every model answers without remote control having been enabled: it is never enabled here",
        ),
        line=LineSettings(baud=38400),
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
    """Return a command with its check."""
    return f"!{text}|{check_of('crc16-ccitt', text.encode()):04X}\r".encode()


class _Pump:
    """What was heard of the pump in this round, and who it is."""

    def __init__(self) -> None:
        self._serial: str | None = None
        self._software: str | None = None
        self._observations: list[Observation] = []
        self._conditions: tuple[Condition, ...] = ()

    def greeting(self) -> Sequence[bytes]:
        return [frame(text) for text in ("INST_SERIALNO", "COMMS_PROTOCOL", *QUESTIONS)]

    def questions(self) -> Sequence[bytes]:
        return [frame(text) for text in QUESTIONS]

    def more(self) -> Sequence[bytes]:
        return ()

    def farewells(self) -> Sequence[bytes]:
        return ()

    def forbids(self, words: bytes) -> bool:
        match = _FRAME.fullmatch(words)
        return match is None or match[1].decode("latin-1") not in ASKED

    def cut(self, buffer: bytearray) -> Iterator[Heard]:
        while (end := buffer.find(b"\r")) >= 0 or len(buffer) > LINE_BYTES_MAX:
            raw = bytes(buffer[: end + 1 or LINE_BYTES_MAX])
            del buffer[: len(raw)]
            start = max(raw.rfind(b"!"), 0)
            if raw[:start].strip(_PADDING):
                yield Heard(raw=raw[:start], fault="bytes outside of an answer")
            if raw[start:].strip(_PADDING):
                yield _heard(raw[start:])

    def read(self, content: bytes) -> None:
        name, *values = content.decode("latin-1").split("^")
        match name:
            case "INST_SERIALNO" if values:
                self._serial = values[0]
            case "COMMS_PROTOCOL" if values:
                self._software = values[0]
            case "INF":
                self._read_infusion(values)
            case "INF_VTBI" if len(values) >= 2 and values[1]:
                self._add("infusion_vtbi", values[1], values[2] if len(values) > 2 else "ml")

    def results(self) -> tuple[Result, ...]:
        found, conditions = tuple(self._observations), self._conditions
        self._observations, self._conditions = [], ()
        if not found:
            return ()
        device = DeviceIdentity(manufacturer="Alaris", serial=self._serial, software=self._software)
        return (Result(observations=found, conditions=conditions, device=device),)

    def _read_infusion(self, values: list[str]) -> None:
        if len(values) < INF_FIELDS_MIN:
            raise ContentError(f"an answer to INF of {len(values)} fields, at least {INF_FIELDS_MIN} expected")
        serial, alarm, mode, rate, rate_unit, _, volume, volume_unit, pressure, pressure_unit, left = values[:11]
        self._serial = serial or self._serial
        self._add("infusion_rate", rate, rate_unit)
        self._add("infusion_volume_delivered", volume, volume_unit)
        self._add("x_alaris_pressure", pressure, pressure_unit)
        for key, text in (("x_alaris_mode", mode), ("x_alaris_time_remaining", left)):
            if text:
                self._observations.append(observe(key, text, sub=SUBS[key]))
        if alarm and alarm.upper() not in NO_ALARM:
            self._conditions = (Condition(code=alarm[:64], text=f"pump alarm {alarm[:64]}"),)

    def _add(self, key: str, text: str, unit: str) -> None:
        """Add a value under our key where it comes in our unit, else under one of the maker's with its own."""
        ucum = UNITS.get(unit.lower())
        if not key.startswith("x_") and term(key).ucum != ucum:
            key = OTHER_UNIT[key]
        unit_said = ucum if key.startswith("x_") else None
        self._observations.append(observe(key, read_number(text), sub=SUBS[key], unit=unit_said))


def _heard(line: bytes) -> Heard:
    match = _FRAME.fullmatch(line)
    if match is None:
        return Heard(raw=line, fault="not an answer of the pump: baud rate?")
    if int(match[2], 16) != check_of("crc16-ccitt", match[1]):
        return Heard(raw=line, fault="check characters do not match")
    return Heard(raw=line, content=match[1])
