"""GE and Datex-Ohmeda monitors on the S/5 computer interface (GE M1017617, 12th edition; GE 8005313, 12th edition).

The monitor is silent until asked. Requests ask for values and change nothing at the patient or on the screen; a
request for waves takes the place of one that another recorder made, so where one is at work the line is tapped with
`transmit = false`.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from drivers.datex_s5.asking import Asker, Wanted
from drivers.datex_s5.reading import Monitor
from drivers.datex_s5.requests import INTERVAL_S_MAX, INTERVAL_S_MIN, TREND_10S, TREND_60S
from drivers.datex_s5.session import S5Session
from drivers.datex_s5.tables import wave_numbers, wave_types
from gateway.driver import About, LineSettings, Session

ClassName = Literal["basic", "ext1", "ext2", "ext3"]
WaveName = Literal[
    "ecg1",
    "ecg2",
    "ecg3",
    "invp1",
    "invp2",
    "invp3",
    "invp4",
    "invp5",
    "invp6",
    "invp7",
    "invp8",
    "pleth",
    "pleth-2",
    "co2",
    "o2",
    "n2o",
    "aa",
    "awp",
    "flow",
    "vol",
    "resp",
    "resp-100",
    "eeg1",
    "eeg2",
    "eeg3",
    "eeg4",
    "ent-100",
    "eeg-bis",
    "ecg12",
    "tono-press",
    "spi-loop-status",
]
WAVES_MAX = 24  # GE M1017617, page 8
CLASS_NUMBERS: dict[ClassName, int] = {"basic": 0, "ext1": 1, "ext2": 2, "ext3": 3}
_TRENDS = {"off": (None, 0), "10s": (TREND_10S, 10), "60s": (TREND_60S, 60)}


@dataclass(frozen=True, kw_only=True)
class DatexS5:
    """Settings of an S/5 source.

    `interval_s` lies between two records of displayed values: the manual's shortest is 5 s, some monitors send every
    second. `waves` are asked for in this order while `samples_per_s_max` lasts: what goes beyond it the monitor would
    leave out in silence, so it is refused here (CARESCAPE software 3 at 115200 has no such limit). `zone` (`+02:00`)
    is appended to the monitor's clock, of which is not known whether it shows local time. `auxiliary` asks for the
    times of the last cuff pressure and cardiac output after each cuff measurement.
    """

    about: ClassVar[About] = About(
        name="datex-s5",
        summary="GE and Datex-Ohmeda monitors, S/5 computer interface (DRI)",
        models=(
            "AS/3",
            "CS/3",
            "S/5",
            "S/5 FM",
            "Cardiocap 5",
            "B20",
            "B30",
            "B40",
            "B105",
            "B125",
            "CARESCAPE B450",
            "CARESCAPE B650",
            "CARESCAPE B850",
        ),
        source="GE M1017617 (S/5 Computer Interface, 12th ed.), GE 8005313 (Record Specification, 12th ed.)",
        unverified=(
            "alarms: 16-bit enumerations in request and record; no alarm capture exists",
            "spacing of wave records; how more than eight subrecords are carried",
            "whether the monitor's clock is UTC or local time (`zone`)",
            "periodic auxiliary information; class bits of its request",
            "ECG12: byte order of the differences and scale; rate and unit of RESP_100",
            "wave types 28, 30, 33, 34, 40 to 43",
            "intervals below 5 s on models other than the captured one (level 10)",
            "115200 without configuration on CARESCAPE software 3",
            "CO2 in percent only: dry or wet gas when turned into mmHg",
            "the protocol does not tell a demonstration from a patient",
        ),
        line=LineSettings(baud=19200, parity="even", flow="rtscts"),
        silence_s=15.0,
        other_lines=(LineSettings(baud=115200, parity="even", flow="rtscts"),),
        talks=False,
        harmless_polls=True,
    )

    interval_s: int = 5
    classes: tuple[ClassName, ...] = ("basic", "ext1", "ext2", "ext3")
    waves: tuple[WaveName, ...] = ()
    samples_per_s_max: int = 600
    trends: Literal["off", "10s", "60s"] = "off"
    alarms: bool = True
    auxiliary: bool = False
    zone: str = ""
    transmit: bool = True

    def __post_init__(self) -> None:
        if not INTERVAL_S_MIN <= self.interval_s <= INTERVAL_S_MAX:
            raise ValueError(f"interval_s must be {INTERVAL_S_MIN} to {INTERVAL_S_MAX}, got {self.interval_s}")
        if not re.fullmatch(r"([+-]\d\d:\d\d|Z)?", self.zone):
            raise ValueError(f"zone must be an offset such as +02:00, got {self.zone!r}")
        if not self.classes:
            raise ValueError("classes must name at least one")
        if len(set(self.waves)) < len(self.waves) or len(self.waves) > WAVES_MAX:
            raise ValueError(f"waves must be different ones, at most {WAVES_MAX}")
        if (rate := sum(wave_types()[number].rate for number in self._wave_numbers)) > self.samples_per_s_max:
            raise ValueError(f"waves make {rate} samples a second, samples_per_s_max is {self.samples_per_s_max}")

    def open(self) -> Session:
        """Start asking, or listening where nothing may be sent."""
        return S5Session(Monitor(self.zone), Asker(self._wanted) if self.transmit else None)

    @property
    def _wave_numbers(self) -> tuple[int, ...]:
        return tuple(wave_numbers()[name] for name in self.waves)

    @property
    def _wanted(self) -> Wanted:
        trend, trend_interval_s = _TRENDS[self.trends]
        return Wanted(
            interval_s=self.interval_s,
            classes=tuple(CLASS_NUMBERS[name] for name in self.classes),
            waves=self._wave_numbers,
            trend=trend,
            trend_interval_s=trend_interval_s,
            alarms=self.alarms,
            auxiliary=self.auxiliary,
        )
