"""How processed variables, spectra and raw EEG become Results.

The first trend block is what the one public program shows; its values have the keys of the terminology. The other
blocks have keys with their name (`x_bis_channel_2_bis`) and are told once they had any value. Containment: 1.1.1.n the
first block, 1.1.2.n to 1.1.4.n the others, 1.1.5.n settings and impedances, 1.1.6.n spectra and EEG.
"""

from decimal import Decimal

from drivers.bis.messages import DEFAULT_SCALE, Field, Processed, Sensor, fields, read_processed, read_raw_eeg
from gateway.driver import (
    Absent,
    Condition,
    Containment,
    DeviceIdentity,
    Method,
    Observation,
    Result,
    Wave,
    observe,
    observe_wave,
)
from gateway.formats.observing import VENDOR_PREFIX
from gateway.formats.terms import device_code

SQI_DOUBTFUL_BELOW = Decimal(50)  # signal quality in percent under which values are questionable
STEPS_MAX = 3  # a second has one EEG frame, one of processed variables and perhaps an acknowledgement
MANUFACTURER = "Aspect Medical"

_DEVICE = DeviceIdentity(manufacturer=MANUFACTURER, model="BIS VISTA")
_FAMILY = "MDC_DEV_ANALY_ELEC_POTL_BRAIN"
_LEVELS = (("1.0.0.0", 1, "MDS"), ("1.1.0.0", 2, "VMD"), *((f"1.1.{channel}.0", 3, "CHAN") for channel in range(1, 7)))
_CONTAINMENT = tuple(  # MDS, VMD and channel follow the term of the family: gateway/formats/device_rows.py
    Containment(sub=sub, code=device_code(_FAMILY) + step, refid=f"{_FAMILY}_{level}") for sub, step, level in _LEVELS
)
_COMPUTED_FIELDS = frozenset({"bsr", "sef95", "sef50", "bis", "alternate_1", "alternate_2", "total_power", "emg"})


class Picture:
    """What is known of one monitor: the scale of its EEG, which blocks it fills, where its frames stood."""

    def __init__(self) -> None:
        self._scale = DEFAULT_SCALE
        self._seen_blocks: set[str] = set()
        self._eeg_sequence: int | None = None
        self._missed = False

    def miss(self) -> None:
        """Take notice that bytes were lost: the next EEG does not follow the last."""
        self._missed = self._eeg_sequence is not None

    def read_processed(self, message: bytes, with_spectra: bool) -> tuple[Result, ...]:
        """Return the Result of a second of processed variables. Raises ContentError for an unknown layout."""
        found = read_processed(message, with_spectra)
        self._scale = found.scale
        observations: list[Observation] = []
        for number, (name, values) in enumerate(found.blocks):
            is_filled = any(values.get(field) is not None for field in _COMPUTED_FIELDS)
            if number == 0 or name in self._seen_blocks or is_filled:
                self._seen_blocks.add(name)
                observations += _block(number, name, values, found.sensor)
        observations += [*_settings(found), *_spectra(found)]
        return (_result(observations=tuple(observations), conditions=_conditions(found)),)

    def read_raw_eeg(self, message: bytes, sequence: int) -> tuple[Result, ...]:
        """Return the waves of a second of raw EEG. Raises ContentError when its shape is wrong."""
        found = read_raw_eeg(message)
        steps = 0 if self._eeg_sequence is None else (sequence - self._eeg_sequence) & 0xFFFF
        gap = self._missed or steps > STEPS_MAX
        self._eeg_sequence, self._missed = sequence, False
        scale = self._scale
        waves = tuple(
            observe_wave(
                "eeg_wave",
                samples,
                sub=f"1.1.6.{channel + 1}",
                period_s=Decimal(1) / found.rate,
                factor=scale.gain,
                offset=-scale.gain * scale.offset,
                gap=gap,
            )
            for channel, samples in enumerate(found.channels)
            if samples
        )
        return (_result(waves=waves),)


def _result(
    observations: tuple[Observation, ...] = (),
    conditions: tuple[Condition, ...] = (),
    waves: tuple[Wave, ...] = (),
) -> Result:
    return Result(
        observations=observations, conditions=conditions, waves=waves, device=_DEVICE, containment=_CONTAINMENT
    )


def _block(number: int, name: str, values: dict[str, Decimal | None], sensor: Sensor) -> list[Observation]:
    quality = values.get("sqi")
    doubtful = quality is None or quality < SQI_DOUBTFUL_BELOW
    absent = Absent.NAV if sensor.sensor_legal and sensor.cable_legal else Absent.OFF
    observations = []
    for place, field in enumerate(fields(), 1):
        if field.name not in values:
            continue
        value = values[field.name]
        flags = ("QUES",) if doubtful and value is not None and field.name in _COMPUTED_FIELDS else ()
        key = field.key if number == 0 else _vendor_key(name, field)
        observations.append(
            observe(
                key,
                value,
                sub=f"1.1.{number + 1}.{place}",
                absent=absent if value is None else None,
                flags=flags,
                unit=field.unit if key.startswith(VENDOR_PREFIX) else None,
                method=Method.CALCULATED,
            )
        )
    return observations


def _vendor_key(block: str, field: Field) -> str:
    return f"x_bis_{block}_{field.key.removeprefix('x_bis_')}"


def _settings(found: Processed) -> list[Observation]:
    observations = [
        observe(key, Decimal(value), sub=f"1.1.5.{place}", unit=unit, method=Method.SETTING_MANUAL)
        for place, (key, value, unit) in enumerate(
            (("x_bis_set_filter", found.filter, None), ("x_bis_set_smoothing", found.smoothing, "s")), 1
        )
    ]
    for number, (value, test) in enumerate(found.impedances, 1):
        observations.append(observe(f"x_bis_impedance_{number}", Decimal(value), sub=f"1.1.5.{8 + 2 * number}"))
        observations.append(observe(f"x_bis_impedance_{number}_test", Decimal(test), sub=f"1.1.5.{9 + 2 * number}"))
    return observations


def _spectra(found: Processed) -> list[Observation]:
    return [
        observe(
            f"x_bis_spectrum_{channel}",
            " ".join("-" if value is None else str(value) for value in bins),
            sub=f"1.1.6.{10 + channel}",
            unit="dB",
        )
        for channel, bins in enumerate(found.spectra, 1)
    ]


def _conditions(found: Processed) -> tuple[Condition, ...]:
    sensor = found.sensor
    told = (
        (not sensor.sensor_legal, "DSC", "the sensor is missing or not accepted"),
        (not sensor.cable_legal, "PIC", "the patient interface cable is missing or not accepted"),
        (sensor.quick_test != 0, "QUICKTEST", f"quick test result {sensor.quick_test} (meaning not public)"),
    )
    return tuple(Condition(code=code, text=text, technical=True) for holds, code, text in told if holds)
