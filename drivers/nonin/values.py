"""What all Nonin formats share: missing values, states, and how they become Observations."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from gateway.driver import Absent, Condition, DeviceIdentity, Observation, Result, observe, oximeter

PULSE_MISSING = 511
SPO2_MISSING = 127

ValueChoice = Literal["display", "alarm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """The status bits of one Result, under the same names in every format."""

    sensor_disconnected: bool = False
    sensor_alarm: bool = False  # SNSA: finger removed, data unusable
    out_of_track: bool = False
    artifact: bool = False
    low_perfusion: bool = False
    marginal_perfusion: bool = False
    low_battery: bool = False
    no_measurement: bool = False
    from_memory: bool = False


_CONDITIONS = (
    ("sensor_disconnected", "SNSD", "sensor disconnected"),
    ("sensor_alarm", "SNSA", "sensor alarm: finger removed or data unusable"),
    ("out_of_track", "OOT", "out of track: no consecutive good pulses"),
    ("artifact", "ARTF", "artifact: a short disturbance"),
    ("low_perfusion", "RPRF", "low perfusion (red)"),
    ("marginal_perfusion", "YPRF", "marginal perfusion (yellow)"),
    ("low_battery", "LOWBAT", "low battery"),
    ("no_measurement", "NOMS", "no measurement was made"),
    ("from_memory", "MEM", "stored measurement: it was taken at the device time, not now"),
)


def result_of(
    pulse: int,
    spo2: int,
    states: States,
    *,
    software: str | None = None,
    device_time: str | None = None,
    episodic: bool = False,
) -> Result:
    """Return the Result of one pulse rate (1/min) and SpO2 (%), where 511 and 127 mean that there is none."""
    return Result(
        observations=(
            _observation("spo2", None if spo2 == SPO2_MISSING else spo2, "1.1.1.1", states, episodic),
            _observation("pulse_rate_spo2", None if pulse == PULSE_MISSING else pulse, "1.1.1.2", states, episodic),
        ),
        device=DeviceIdentity(manufacturer="Nonin", software=software),
        containment=oximeter(),
        conditions=tuple(Condition(code=code, text=text) for name, code, text in _CONDITIONS if getattr(states, name)),
        device_time=device_time,
    )


def _observation(key: str, value: int | None, sub: str, states: States, episodic: bool) -> Observation:
    # Values for display are held for 10 s after the finger has gone: the states decide, not the number.
    unusable = states.sensor_disconnected or states.sensor_alarm or states.no_measurement
    if value is None or unusable:
        return observe(key, None, sub=sub, absent=_why_missing(states), episodic=episodic)
    doubtful = states.artifact or states.out_of_track or states.low_perfusion or states.from_memory
    return observe(key, Decimal(value), sub=sub, flags=("QUES",) if doubtful else (), episodic=episodic)


def _why_missing(states: States) -> Absent:
    if states.sensor_disconnected:
        return Absent.OFF
    if states.out_of_track and not states.sensor_alarm:
        return Absent.INV
    return Absent.NAV
