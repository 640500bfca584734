"""What an SDC provider's MDIB says, as frozen values without the library that read it (IEEE 11073-10207).

Descriptors say what there is, states what holds now. Only what the mapping needs is here. Names follow the
participant model; times are seconds since 1970 by the Device's clock.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

MDC_MIN, MDC_MAX = 1 << 16, (1 << 32) - 1  # context-free: partition * 65536 + term
MDC_SYSTEMS = (None, "", "urn:oid:1.2.840.10004.1.1.1.0.0.1")  # no coding system means IEEE 11073-10101


class Part(Enum):
    """What a descriptor describes."""

    MDS = "mds"
    VMD = "vmd"
    CHANNEL = "channel"
    NUMERIC = "numeric"
    STRING = "string"
    WAVE = "wave"
    DISTRIBUTION = "distribution"
    CONDITION = "condition"
    SIGNAL = "signal"
    OTHER = "other"


class Validity(Enum):
    """MeasurementValidity."""

    VALID = "Vld"
    VALIDATED = "Vldated"
    ONGOING = "Ong"
    QUESTIONABLE = "Qst"
    CALIBRATING = "Calib"
    INVALID = "Inv"
    OVERFLOW = "Oflw"
    UNDERFLOW = "Uflw"
    NOT_AVAILABLE = "NA"


class Mode(Enum):
    """GenerationMode: whether a value is a patient's."""

    REAL = "Real"
    TEST = "Test"
    DEMO = "Demo"


class Activation(Enum):
    """ComponentActivation."""

    ON = "On"
    NOT_READY = "NotRdy"
    STANDBY = "StndBy"
    OFF = "Off"
    SHUTDOWN = "Shtdn"
    FAILURE = "Fail"


class Category(Enum):
    """MetricCategory."""

    UNSPECIFIED = "Unspec"
    MEASUREMENT = "Msrmt"
    CALCULATION = "Clc"
    SETTING = "Set"
    PRESETTING = "Preset"
    RECOMMENDATION = "Rcmm"


class Presence(Enum):
    """AlertSignalPresence."""

    ON = "On"
    OFF = "Off"
    LATCHED = "Latch"
    ACKNOWLEDGED = "Ack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A coded value: `code` in `system`, its symbolic name, a text for people, and (code, system) of translations."""

    code: str
    system: str | None = None
    symbol: str | None = None
    text: str | None = None
    translations: tuple[tuple[str, str | None], ...] = ()

    @property
    def mdc(self) -> int | None:
        """Return the context-free 32-bit MDC code, of the value itself or of a translation; None where none is."""
        for code, system in ((self.code, self.system), *self.translations):
            if system in MDC_SYSTEMS and _is_number(code) and MDC_MIN <= int(code) <= MDC_MAX:
                return int(code)
        return None


def _is_number(code: str) -> bool:
    return code.isascii() and code.isdigit() and len(code) <= len(str(MDC_MAX))


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What an MDS says of itself: the texts of its MetaData, and numbers that may be an EUI-64."""

    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    software: str | None = None
    system_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """One entry of the MDIB's tree; what its `part` does not have stays at its default."""

    handle: str
    parent: str | None
    part: Part
    coded: Coded | None = None
    unit: Coded | None = None
    category: Category = Category.UNSPECIFIED
    manual: bool = False
    intermittent: bool = False
    period_s: Decimal | None = None
    priority: str = "None"  # of a condition: None, Lo, Me, Hi
    physiological: bool = False
    sources: tuple[str, ...] = ()  # of a condition: what it watches
    signals: str | None = None  # of a signal: its condition
    audible: bool = False
    label: Label | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricState:
    """A number or text and how good it is; `value` is None where the Device has none."""

    handle: str
    version: int = 0
    activation: Activation = Activation.ON
    value: Decimal | str | None = None
    validity: Validity = Validity.NOT_AVAILABLE
    mode: Mode = Mode.REAL
    determined_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveState:
    """One piece of a real-time sample array; `determined_at` is the time of its first sample."""

    handle: str
    version: int = 0
    activation: Activation = Activation.ON
    samples: tuple[Decimal, ...] = ()
    validity: Validity = Validity.NOT_AVAILABLE
    mode: Mode = Mode.REAL
    determined_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionState:
    """An alert condition: whether it is there, how urgent, and the limits that were set."""

    handle: str
    active: bool = True
    present: bool = False
    priority: str | None = None
    low: Decimal | None = None
    high: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalState:
    """How a condition is shown: `active` is False while the signal is paused or off."""

    handle: str
    active: bool = True
    presence: Presence = Presence.OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentState:
    """An MDS, VMD or channel; `operating` is the MDS's mode: Nml, Dmo, Srv or Mtn."""

    handle: str
    activation: Activation = Activation.ON
    operating: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockState:
    """The Device's clock: the time it shows, and whether it is set by a time server."""

    handle: str
    shown_at: float | None = None
    synchronised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientState:
    """A patient that the Device names; `associated` tells that it is the one now."""

    handle: str  # of this context
    descriptor: str
    associated: bool = False
    identifier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocationState:
    """A place that the Device names, as point of care ^ room ^ bed ^ facility."""

    handle: str
    descriptor: str
    associated: bool = False
    place: str = ""


State = (
    MetricState | WaveState | ConditionState | SignalState | ComponentState | ClockState | PatientState | LocationState
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What DPWS tells of the Device before its MDIB: endpoint reference and model."""

    epr: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    firmware: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mdib:
    """All that a Device says: read whole at the start, and again when its description changes."""

    host: Host
    descriptors: tuple[Descriptor, ...]
    states: tuple[State, ...]
