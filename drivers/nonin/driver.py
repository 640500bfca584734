"""Nonin pulse oximeters and OEM modules (Onyx II 9560 OEM specification 6470-000-01; manuals of the models named).

The driver listens only. With `transmit = true` it also sends the command that selects a format, which OEM modules,
Bluetooth models and WristOx2 understand in the first seconds after they were connected.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from drivers.nonin.auto import AutoSession
from drivers.nonin.framed import FrameSession
from drivers.nonin.packets import PacketFormat
from drivers.nonin.spot import SpotFormat
from drivers.nonin.text import LINE_BYTES_MAX, read_line
from drivers.nonin.values import ValueChoice
from drivers.nonin.vital import VitalFormat
from gateway.driver import About, LineSession, LineSettings, Session

Format = Literal["auto", "2", "7", "8", "13", "text"]


@dataclass(frozen=True, kw_only=True)
class Nonin:
    """Settings of a Nonin source.

    `format` is what the Device sends; `auto` finds out by listening. `values` chooses in formats 2 and 7 between the
    values for display and charting and the four-beat averages meant for alarms. `wave` publishes their pleth wave, 75
    samples a second. `transmit` allows the format select
    command to be sent; it needs a binary format to be named.
    """

    about: ClassVar[About] = About(
        name="nonin",
        summary="Nonin pulse oximeters and OEM modules, data formats 2, 7, 8, 13 and text",
        models=("OEM III", "Xpod", "Onyx II 9560", "WristOx2 3150", "Avant 9600", "BT4000", "7500FO", "9847", "8600V"),
        source="Nonin 6470-000-01 (2008); manuals of 9600, BT4000, 7500FO, 8500, 9847, 8600V",
        unverified=(
            "no public capture exists: tested with the specification's examples and computed frames",
            "format 1 (3 bytes a second): not supported",
            "X-100M and X-100 SenSmart text output: not supported",
            "layout of the text heading at power-on: lines without values are passed over",
        ),
        line=LineSettings(baud=9600),
        silence_s=3.0,
    )

    format: Format = "auto"
    values: ValueChoice = "display"
    wave: bool = False
    transmit: bool = False

    def __post_init__(self) -> None:
        if self.transmit and self.format in ("auto", "text"):
            raise ValueError("transmit needs format 2, 7, 8 or 13: what should be selected?")

    def open(self) -> Session:
        """Start listening, after the format select command where that is allowed."""
        if self.format == "auto":
            return AutoSession(self._open_format)
        return self._open_format(self.format, selected=self.transmit)

    def _open_format(self, name: Format, selected: bool = False) -> Session:
        match name:
            case "2":
                return FrameSession(
                    PacketFormat(compressed=True, choice=self.values, wave=self.wave), select=0x02 if selected else None
                )
            case "7":
                return FrameSession(
                    PacketFormat(compressed=False, choice=self.values, wave=self.wave),
                    select=0x07 if selected else None,
                )
            case "8":
                return FrameSession(VitalFormat(), select=0x08 if selected else None)
            case "13":
                return FrameSession(SpotFormat(), select=0x0D if selected else None)
            case _:
                return LineSession(read_line, terminator=b"\n", line_bytes_max=LINE_BYTES_MAX)
