"""What each simulated model answers: codes and formats of the Dräger manuals and profile tables."""

from dataclasses import dataclass

from simulators.medibus_codec import alarm, curve_scale, number, text_message
from simulators.medibus_patient import FIO2, PEAK, PEEP, PLATEAU, Lungs

SENSOR_CODES = {"E6", "E3", "DB", "EB", "E1", "E5"}  # missing while the sensors are off the patient


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One Device: its identification, its texts and settings, the curves that it offers, what it does not know."""

    name: str
    identification: str
    generation: str
    texts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, float, int], ...]
    curves: tuple[tuple[str, int, float, float, int], ...]
    agent: bool = False
    has_clock: bool = True
    german_months: bool = False
    unknown: tuple[int, ...] = ()

    @property
    def texts_data(self) -> bytes:
        """Return the data of 2Ah."""
        return b"".join(text_message(*text) for text in self.texts)

    @property
    def settings_data(self) -> bytes:
        """Return the data of 29h."""
        return b"".join(code.encode("ascii") + number(value, places, 5) for code, value, places in self.settings)

    @property
    def curves_data(self) -> bytes:
        """Return the data of 53h."""
        return b"".join(curve_scale(*curve) for curve in self.curves)

    def values(self, lungs: Lungs, page: int) -> dict[str, bytes]:
        """Return code to four characters."""
        if page == 2:
            return _second_page(lungs) if self.generation == "x" else {}
        found = _pressures() | _volumes(lungs, self.generation)
        found |= {"D6": number(lungs.rate, 0, 3) + b" ", "F0": number(FIO2, 0, 3) + b" "}
        found |= {"E6": number(lungs.etco2, 0, 3) + b" ", "EB": number(lungs.spo2, 0, 3) + b" "}
        found |= {"E1": number(lungs.pulse, 0, 3) + b" "}
        return found | _gases(lungs) if self.agent else found


def _pressures() -> dict[str, bytes]:
    mean = PEEP + (PEAK - PEEP) / 3
    values = {"7D": PEAK, "74": PLATEAU, "73": mean, "78": PEEP}
    return {code: number(value, 0, 3) + b" " for code, value in values.items()}


def _volumes(lungs: Lungs, generation: str) -> dict[str, bytes]:
    found = {"88": number(lungs.tidal_volume, 0)}
    if generation == "classic" and lungs.minute_volume < 1:
        return found | {"B8": number(lungs.minute_volume, 2)}
    return found | {"B9": number(lungs.minute_volume, 1), "07": number(45, 0), "08": number(12, 0, 3) + b" "}


def _gases(lungs: Lungs) -> dict[str, bytes]:
    return {
        "E5": number(0, 0, 3) + b" ",
        "EF": number(FIO2 - 5, 0, 3) + b" ",
        "B0": number(2.1, 1),
        "B1": number(1.8, 1),
        "AD": number(0.9, 1),
        "FB": number(58, 0, 3) + b" ",
        "FC": number(56, 0, 3) + b" ",
        "E2": number(800, 0),
        "DE": number(1200, 0),
    }


def _second_page(lungs: Lungs) -> dict[str, bytes]:
    return {"22": number(lungs.tidal_volume + 12, 0), "36": number(lungs.tidal_volume / 75, 1)}


LIMITS_LOW = {"B9": number(3.5, 1), "EB": b" 88 ", "E6": b" 25 "}
LIMITS_HIGH = {"B9": number(14, 1), "7D": b" 40 ", "D6": b" 35 ", "E6": b" 60 "}
PAW_HIGH = alarm("10", 30, "PAW HIGH")
SPO2_LOST = alarm("35", 28, "SPO2SEN DISC")

_SETTINGS = (("01", FIO2, 0), ("0B", PEEP, 1), ("09", 15.0, 1), ("05", 1.7, 2), ("12", 12.0, 1), ("29", 3.0, 1))


def _curves(interval_us: int, co2_us: int) -> tuple[tuple[str, int, float, float, int], ...]:
    return (
        ("00", interval_us, -60, 120, 0xFFF),
        ("01", interval_us, -180, 180, 0xFFF),
        ("03", interval_us, 0, 1000, 0xFFF),
        ("06", co2_us, 0, 100, 0xFFF),
    )


MODELS = {
    "evita4": Model(
        name="evita4",
        identification="8240'Evita 4'04.10:04.00",
        generation="classic",
        texts=(("0E", "Mode BIPAP"), ("20", "Mode Adults"), ("22", "mmHg")),
        settings=(*_SETTINGS, ("04", 0.48, 3)),
        curves=_curves(16000, 16000),
        has_clock=False,
        unknown=(0x2B, 0x2C, 0x2D, 0x23),
    ),
    "v500": Model(
        name="v500",
        identification="5000'Evita V500'02.51:06.00",
        generation="x",
        texts=(("0E", "Mode PC BIPAP"), ("5E", "AF"), ("20", "Mode Adults"), ("22", "mmHg")),
        settings=(*_SETTINGS, ("40", 480.0, 0)),
        curves=_curves(5200, 20000),
        unknown=(0x23,),
    ),
    "primus": Model(
        name="primus",
        identification="5510'Primus'04.53:06.00",
        generation="x",
        texts=(("6A", "Mode PC CMV"), ("29", "Anesthesia gas SEVOFLURANE"), ("38", "Carrier Gas N2O"), ("22", "mmHg")),
        settings=(*_SETTINGS, ("2F", 2000.0, 0)),
        curves=_curves(16000, 16000),
        agent=True,
        german_months=True,
        unknown=(0x23, 0x2C, 0x2D),
    ),
}
