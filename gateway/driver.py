"""The driver kit: all that a driver author needs to import.

A driver is a frozen dataclass: its fields are its settings (`options` of a Device's stanza), `open()` starts a
Session, and `about` says what it is. It is found by name in the entry-point group `gateway.drivers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from gateway.errors import ContentError
from gateway.formats.device_rows import oximeter
from gateway.formats.device_times import read_clock
from gateway.formats.digits import read_number
from gateway.formats.observing import observe, observe_wave
from gateway.laboratory import LabOrder, LabQuery
from gateway.model import (
    Absent,
    Condition,
    Containment,
    DeviceIdentity,
    Method,
    Observation,
    Phase,
    Priority,
    Reading,
    Result,
    Wave,
)
from gateway.protocols.lines import LineSession

__all__ = [
    "About",
    "Absent",
    "Asking",
    "Condition",
    "Containment",
    "ContentError",
    "DeviceIdentity",
    "Driver",
    "Forgetting",
    "LineSession",
    "LineSettings",
    "Method",
    "Observation",
    "Parting",
    "Phase",
    "Priority",
    "Reading",
    "Result",
    "Session",
    "Wave",
    "observe",
    "observe_wave",
    "oximeter",
    "read_clock",
    "read_number",
]


class Session(Protocol):
    """One conversation with one Device, without the wires.

    Bytes and time go in; Readings and bytes come out. `now` is monotonic seconds. No method blocks, opens, sleeps or
    asks the time, and `receive` raises for no bytes whatever.
    """

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that came."""
        ...

    def tick(self, now: float) -> None:
        """Take notice that the deadline came."""
        ...

    def settle(self, stored: bool, now: float) -> None:
        """Learn that the oldest Reading taken is on disk, or is not."""
        ...

    def take_readings(self) -> list[Reading]:
        """Hand over what was learned since the last call."""
        ...

    def take_output(self) -> bytes:
        """Hand over what to say."""
        ...

    @property
    def deadline(self) -> float | None:
        """Return when to tick, None for never."""
        ...

    @property
    def notice(self) -> str | None:
        """Return why nothing of the Device is published although it talks (`demo mode`), None when all is well."""
        ...


@runtime_checkable
class Parting(Protocol):
    """A Session that takes leave: without a last word its Device would alarm that communication was lost."""

    def part(self) -> None:
        """Make `take_output` hand over the last word, and nothing after it."""
        ...


@runtime_checkable
class Forgetting(Protocol):
    """A Session that keeps what belongs to one Device, on a Stream that stays open when another is plugged in."""

    def forget(self, now: float) -> None:
        """Let go of it: the Device fell silent, and what speaks next may be another one.

        That is a message that was not ended, who it is, its limits, its patient. Alarms that were told stay known, so
        that their end is told.
        """
        ...


@runtime_checkable
class Asking(Protocol):
    """A Session whose Device asks what is to be done with a sample."""

    def take_queries(self) -> list[LabQuery]:
        """Hand over what the Device asked since the last call."""
        ...

    def answer(self, query: LabQuery, orders: Sequence[LabOrder], now: float) -> None:
        """Learn what is ordered, () for nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSettings:
    """How a serial line is set."""

    baud: int = 9600
    data_bits: Literal[5, 6, 7, 8] = 8
    parity: Literal["none", "even", "odd", "mark", "space"] = "none"
    stop_bits: Literal[1, 2] = 1
    flow: Literal["none", "rtscts", "xonxoff"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What `gateway drivers NAME` tells of a driver.

    `silence_s` is how long a healthy Device is ever quiet. `acknowledges` is False for Devices that stream: what was
    read from them is committed within 250 ms and that is their loss window. `other_lines` are settings that the Device
    can also be set to, for `gateway probe` to try. `talks` is True for Devices that send without being asked;
    `harmless_polls` tells that what an open Session says first is called harmless by the protocol's source, so that
    `gateway probe --active` may say it to an unknown Device. `signs` are regular expressions of what a Device sends
    of itself while nobody answers it (bytes read as Latin-1): by them it is recognised although it shows no value
    yet, so noise must never bear them.
    """

    name: str
    summary: str
    models: tuple[str, ...]
    source: str
    unverified: tuple[str, ...] = ()
    line: LineSettings = LineSettings()
    silence_s: float | None = None
    acknowledges: bool = False
    other_lines: tuple[LineSettings, ...] = ()
    talks: bool = True
    harmless_polls: bool = False
    signs: tuple[str, ...] = ()


@runtime_checkable
class Driver(Protocol):
    """A Device's language: settings, and how to open a Session."""

    about: ClassVar[About]

    def open(self) -> Session:
        """Start a Session on a Stream that has just been opened."""
        ...
