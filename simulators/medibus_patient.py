"""A ventilated patient: the recorded rates and saturation, and lungs that breathe by them."""

import math
from dataclasses import dataclass

from simulators.waveforms import BedVitals

PEEP, PEAK, PLATEAU = 8.0, 24.0, 21.0
TIDAL_VOLUME = 480.0  # mL
FIO2, ETCO2 = 40.0, 38.0
_RISE_S, _FLOW_S, _EMPTYING_S = 0.08, 0.35, 0.45
INSPIRATION_PART = 1 / 3


@dataclass(frozen=True, slots=True)
class Lungs:
    """What a ventilator measures at one minute of the recording."""

    rate: float  # 1/min
    spo2: float
    pulse: float

    @property
    def cycle_s(self) -> float:
        """Return how long a breath lasts."""
        return 60.0 / self.rate

    @property
    def minute_volume(self) -> float:
        """Return L/min."""
        return self.rate * self.tidal_volume / 1000

    @property
    def tidal_volume(self) -> float:
        """Return mL: smaller breaths at higher rates."""
        return TIDAL_VOLUME * min(1.2, max(0.5, 15.0 / self.rate))

    @property
    def etco2(self) -> float:
        """Return mmHg: less is left of it the more is breathed."""
        return ETCO2 * min(1.6, max(0.6, 7.2 / self.minute_volume))

    def inspiring(self, at_s: float) -> bool:
        """Tell whether this is the inspiration of a breath."""
        return at_s % self.cycle_s < self.cycle_s * INSPIRATION_PART

    def curve(self, code: str, at_s: float) -> float:
        """Return pressure (00, mbar), flow (01, L/min), volume (03, mL) or CO2 (06, mmHg) at one moment."""
        phase, end = at_s % self.cycle_s, self.cycle_s * INSPIRATION_PART
        inside, since = phase < end, phase - end
        match code:
            case "00":
                top = PEEP + (PEAK - PEEP) * (1 - math.exp(-min(phase, end) / _RISE_S))
                return top if inside else PEEP + (top - PEEP) * math.exp(-since / _RISE_S)
            case "01":
                peak = self.tidal_volume * 60 / 1000 / (_FLOW_S * (1 - math.exp(-end / _FLOW_S)))
                return peak * math.exp(-phase / _FLOW_S) if inside else -0.7 * peak * math.exp(-since / _EMPTYING_S)
            case "03":
                filled = (1 - math.exp(-min(phase, end) / _FLOW_S)) / (1 - math.exp(-end / _FLOW_S))
                return self.tidal_volume * (filled if inside else math.exp(-since / _EMPTYING_S))
            case _:
                return 0.0 if inside else self.etco2 * (1 - math.exp(-since / 0.25))


def lungs_of(vitals: BedVitals) -> Lungs:
    """Return the lungs of a recorded minute; the rate stays in what a ventilator delivers."""
    return Lungs(rate=min(35.0, max(8.0, vitals.resp_rate)), spo2=vitals.spo2, pulse=vitals.pulse)
