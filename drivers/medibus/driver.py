"""Draeger ventilators, anaesthesia machines and warmers over MEDIBUS and MEDIBUS.X (sources: docs/devices/medibus.md).

Values and limits of both code pages, alarms, settings, text messages, curves and the Device's clock are asked for; a
Device's own commands are answered. Nothing that is sent changes a setting of the Device.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from drivers.medibus.hearing import Hearing
from drivers.medibus.picture import Picture
from drivers.medibus.session import MedibusSession
from drivers.medibus.tables import curves, models
from drivers.medibus.waves import Waves
from gateway.driver import About, LineSettings, Session

INTERVAL_S_MIN, INTERVAL_S_MAX = 0.5, 60.0
WAVE_PERIOD_S_MAX = 1.0


@dataclass(frozen=True, kw_only=True)
class Medibus:
    """Settings of a MEDIBUS source.

    `interval_s` lies between two rounds of values and alarms. `waves` are curves by name (`paw`, `flow`, `volume`,
    `co2`, `pleth`, `o2`, `agent`, `ptrach`) or two-digit code; what the Device does not offer is left out.
    `wave_period_s`: samples that are closer are thinned by the Device. `profile` names the tables where the Device's
    identification is never heard. `transmit = false` only listens where another recorder asks.
    """

    about: ClassVar[About] = About(
        name="medibus",
        summary="Dräger ventilators, anaesthesia machines and warmers, MEDIBUS and MEDIBUS.X",
        models=tuple(model.name for model in models().values()),
        source="Dräger RS 232 MEDIBUS Protocol Definition 4.03 (90 28 258), MEDIBUS for Intensive Care Devices "
        "(90 28 329); MEDIBUS.X tables of two open-source projects",
        unverified=(
            "no public capture of a real Device exists: tested with the manual's and computed frames",
            "alarms of codepage 3 (23h, Zeus): layout taken to be that of the other pages",
            "59h (infusion pumps), 6Ch and 6Dh (trends): not read",
            "MEDIBUS.X: decimals of each code, format of settings, wording of phrases and texts",
            "MEDIBUS.X O2 uptake: multiplied by 10 as the tables give its unit",
            "baud rate defaults of Evita V600/V800, Perseus and Atlan",
            "how many curves a MEDIBUS.X Device allows (3 seen; up to 4 are asked for)",
            "behaviour on DC1 and DC3",
        ),
        line=LineSettings(baud=19200, parity="even"),
        other_lines=(
            LineSettings(baud=19200),
            LineSettings(baud=9600, parity="even"),
            LineSettings(baud=38400),
            LineSettings(baud=9600),
            LineSettings(baud=38400, parity="even"),
            LineSettings(baud=19200, parity="odd"),
            LineSettings(baud=4800, parity="even"),
        ),
        silence_s=5.0,  # the Device says NOP every 2 s
        talks=True,  # a Device that nobody answers sends ICC every 3 s
        harmless_polls=False,  # not said of any: a Device that was called and left alone shows a communication alarm
        signs=(r"\x1bQ6C\r",),  # ICC, with its checksum
    )

    transmit: bool = True
    interval_s: float = 2.0
    waves: tuple[str, ...] = ("paw", "flow", "co2")
    wave_period_s: float = 0.015  # 5.2 ms of the V series become 15.6 ms
    profile: Literal["auto", "classic", "x"] = "auto"

    def __post_init__(self) -> None:
        if not INTERVAL_S_MIN <= self.interval_s <= INTERVAL_S_MAX:
            raise ValueError(f"interval_s: {INTERVAL_S_MIN:g} to {INTERVAL_S_MAX:g} s")
        if not 0 <= self.wave_period_s <= WAVE_PERIOD_S_MAX:
            raise ValueError(f"wave_period_s: 0 to {WAVE_PERIOD_S_MAX:g} s")
        names = {kind.name for kind in curves().values()}
        for wish in self.waves:
            if wish not in names and not re.fullmatch("[0-9A-Fa-f]{2}", wish):
                raise ValueError(f"waves: {wish!r} is neither a two-digit code nor one of {', '.join(sorted(names))}")

    def open(self) -> Session:
        """Start calling the Device, or listening."""
        picture = Picture(None if self.profile == "auto" else self.profile)
        hearing = Hearing(picture, Waves(self.waves, self.wave_period_s), chooses_curves=self.transmit)
        return MedibusSession(hearing, values_s=self.interval_s, transmit=self.transmit)
