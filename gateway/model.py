"""The nouns: what the rooms of the house hand to each other.

Every value here is frozen. See the vocabulary in docs/architecture.md.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum


class Kind(Enum):
    """What a Message holds."""

    HL7 = "hl7"  # one HL7 v2 message, bytes as received
    OBSERVATIONS = "observations"  # one Result of a Device, beside the raw bytes it came from
    DICOM = "dicom"  # one Instance; its bytes lie in the Spool
    MPPS = "mpps"  # one N-CREATE or N-SET of a procedure step: its data set, bytes as received
    UNREADABLE = "unreadable"  # bytes we could not read, kept for a person


class Absent(Enum):
    """Why a value is missing: the codes of OBX-8 (IHE PoCD mapping to HL7 v2, "Missing data")."""

    NI = "NI"  # no information
    NAV = "NAV"  # temporarily not available
    OFF = "OFF"  # switched off, sensor disconnected
    INV = "INV"  # measured but invalid
    BUSY = "BUSY"  # measuring now


class Method(Enum):
    """How a value came about: OBX-17."""

    AUTO = "auto"
    MANUAL = "manual"
    CALCULATED = "calculated"
    SETTING_AUTO = "setting-auto"
    SETTING_MANUAL = "setting-manual"
    SETTING_REMOTE = "setting-remote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One coded value, or the reason of its absence; never both, never neither.

    `key` is the product's name from the terminology table (`spo2`); a vendor's own quantity has a key that begins
    with `x_`. `code` is the context-free 32-bit MDC code, `unit` is UCUM. `sub` is the containment path
    MDS.VMD.CHAN.METRIC of OBX-4. `observed_at` is set only where it differs from the Result's. `flags` are codes of
    OBX-8 (`QUES`, `H`, `L`, `ALACT`, `CAL`, `DEMO` ...).
    """

    key: str
    sub: str
    value: Decimal | str | None = None
    absent: Absent | None = None
    code: int | None = None
    refid: str | None = None
    loinc: str | None = None
    unit: str | None = None
    unit_code: int | None = None
    unit_refid: str | None = None
    flags: tuple[str, ...] = ()
    method: Method = Method.AUTO
    episodic: bool = False
    observed_at: datetime | None = None
    low: Decimal | None = None
    high: Decimal | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.absent is None):
            raise ValueError(f"observation {self.key}: a value or the reason of its absence, exactly one")


class Priority(Enum):
    """How urgent an alarm is (IEC 60601-1-8); ADVISORY is what a Device shows without sounding."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    ADVISORY = "advisory"


class Phase(Enum):
    """Where an alarm stands; None in a Condition where the Device only says that it is there."""

    START = "start"
    PRESENT = "present"
    LATCHED = "latched"  # the cause has gone, nobody has acknowledged it
    END = "end"


class Turn(Enum):
    """What became of an alarm with one Condition: the event phases of IHE ACM and of the MQTT feed."""

    START = "start"
    CONTINUE = "continue"
    UPDATE = "update"
    ESCALATE = "escalate"
    DEESCALATE = "deescalate"
    RESET = "reset"  # latched, and now released
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One alarm from its start to its end: `instance` names it, `update` counts its Conditions from 1."""

    instance: str
    update: int
    turn: Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A state that the Device reports beside its values (sensor off, low battery, limit violated).

    `code` is the vendor's own word (`SD`, `EXC 0020`); `text` explains it; `technical` tells a fault of the
    equipment from a state of the patient. An alarm has a `priority` and, where the Device tells, a `phase`; `sub` is
    the metric or level it concerns (OBX-4 path), `mdc` the context-free MDC code of the event, `low` and `high` the
    limit that was set, `silenced` that its sound is paused. `episode` is the gateway's own: drivers leave it out.
    """

    code: str
    text: str
    technical: bool = True
    priority: Priority | None = None
    phase: Phase | None = None
    sub: str | None = None
    mdc: int | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    silenced: bool = False
    episode: Episode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One piece of one waveform: samples at a fixed distance, `sample * factor + offset` in `unit` (UCUM).

    A sample of None is one that the Device marked invalid or did not deliver. `gap` tells that samples between the
    piece before and this one were lost. `started_at` is the time of the first sample, set only where it is known
    better than by the Result's. `key`, `sub` and the codes are those of an Observation.
    """

    key: str
    sub: str
    samples: tuple[int | None, ...]
    period_s: Decimal
    factor: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)
    code: int | None = None
    refid: str | None = None
    unit: str | None = None
    unit_code: int | None = None
    unit_refid: str | None = None
    gap: bool = False
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """One device row above the metrics: an MDS, VMD or channel with its MDC code (OBX-4 with trailing zeros)."""

    sub: str
    code: int
    refid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """What is known of the Device itself; `eui64` is 16 upper-case hex digits where the Device has one."""

    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    software: str | None = None
    eui64: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The Observations and pieces of waveforms of one patient or specimen that were read together.

    `observed_at` is None where the gateway's receipt time is the best known (a Device clock without zone is never
    trusted); `device_time` is the Device's own clock as text, as it printed it, and `device_clock` the same as a
    datetime, naive in the Device's local time unless its zone is known, where the driver can read it and it is the
    time of this Result: from it the gateway measures how far the Device's clock is off. `patient_id` is what the
    Device shows: evidence, not truth.
    """

    observations: tuple[Observation, ...]
    device: DeviceIdentity = field(default_factory=DeviceIdentity)
    containment: tuple[Containment, ...] = ()
    conditions: tuple[Condition, ...] = ()
    observed_at: datetime | None = None
    device_time: str | None = None
    device_clock: datetime | None = None
    patient_id: str | None = None
    waves: tuple[Wave, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One complete transmission of a Device: its raw bytes and the Results in them.

    `fault` says why the bytes could not be read: the Reading is then quarantined. `identifier` is the Device's own
    number of the transmission where it repeats one that was not acknowledged; None for streams that never repeat.
    """

    raw: bytes
    results: tuple[Result, ...] = ()
    fault: str | None = None
    identifier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What a Source hands to intake: everything of a Message but its number.

    `identifier` is the sender's own (MSH-10, SOP Instance UID); with `digest` it makes the key by which a repeat is
    known. `raw` is the bytes as received, None where they lie in the Spool under `object_name`. `headers` is what
    routing may ask of a DICOM Instance (keyword to text); of Observations it is `bed` and `device_id` as they were
    configured on receipt, so that a later change moves nothing to another bed. `terms` are what a person searches by:
    patient id, visit, accession number, study UID. `lane_key` keeps order where a Destination has several lanes.
    `changes` is what the input changes beside (an order, a procedure step): written in the same transaction.
    """

    source: str
    kind: Kind
    received_at: datetime
    size: int
    digest: bytes
    peer: str | None = None
    identifier: str | None = None
    observed_at: datetime | None = None
    raw: bytes | None = None
    object_name: str | None = None
    result: Result | None = None
    headers: dict[str, str] = field(default_factory=dict)
    terms: tuple[str, ...] = ()
    lane_key: str = ""
    quarantined: str | None = None
    changes: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Intake's answer once the Message is on disk; `repeated` tells that it was there already, and then
    `object_name` where its object lies."""

    message_id: int
    repeated: bool
    object_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The durable envelope of anything received, as the store gives it back."""

    id: int
    source: str
    kind: Kind
    received_at: datetime
    size: int
    digest: bytes
    peer: str | None
    identifier: str | None
    observed_at: datetime | None
    raw: bytes | None
    object_name: str | None
    result: Result | None
    headers: dict[str, str]
    quarantined: str | None


class DeliveryState(Enum):
    """Where a Delivery stands; the numbers are the store's."""

    PENDING = 0
    DELIVERED = 1
    PARKED = 2
    DISCARDED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One Message owed to one Destination.

    `ordinal` counts the Messages of this kind owed to this Destination, without gaps, over restarts. `control_id`
    is what we call this Delivery towards the peer where the Message brings no identifier of its own: the same on
    every repeat, and never used again even by a fresh store.
    """

    id: int
    message_id: int
    destination: str
    state: DeliveryState
    ordinal: int
    control_id: str
    attempts: int = 0
    next_try_at: datetime | None = None
    settled_at: datetime | None = None
    last_error: str | None = None
    acknowledgement: bytes | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A Delivery in a Sender's hand, with the Message that it brings."""

    delivery: Delivery
    message: Message


class Verdict(Enum):
    """What became of one try."""

    DELIVERED = "delivered"
    RETRY = "retry"  # later, with back-off; no limit
    RETRY_CONTENT = "retry-content"  # later, but the peer saw it and disliked it: limited, then on_error
    REFUSED = "refused"  # never: on_error decides at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A Sender's word on one Parcel. `reason` never carries patient data; `acknowledgement` is the peer's answer.

    `archived` are the SOP Class and Instance UID under which an archive has it that is asked to commit to it.
    """

    delivery_id: int
    verdict: Verdict
    reason: str | None = None
    acknowledgement: bytes | None = None
    retry_after_s: float | None = None
    archived: tuple[str, str] | None = None
