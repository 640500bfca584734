"""The schema of gateway.toml: frozen dataclasses, one per table.

Field names are the keys of the file. `typed.py` builds these from tables and reports every fault with its path;
`configfile` reads the files, adds line and column, and checks what crosses tables. Nothing here opens anything.
The metadata of a field narrows its value; `typed.py` says how.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateway.model import Kind
from gateway.orders import OrderRules
from gateway.typed import Address, Network, Secret, Size

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

POSITIVE = {"above": 0}
AT_LEAST_ONE = {"min": 1}
PORT = {"min": 1, "max": 65535}
LANES = {"min": 1, "max": 64}
NAME = {"pattern": r"[A-Za-z0-9._-]{1,64}", "expects": "1 to 64 letters, digits, '.', '_' or '-'"}
AE_TITLE = {  # PS3.5 table 6.2-1: 16 characters at most, no backslash, no control characters, not spaces alone
    "pattern": r"(?=.*[^ ])[ -\[\]-~]{1,16}",
    "expects": "an AE title: 1 to 16 ASCII characters, none of them a backslash or control character",
}
HOST = {
    "pattern": r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?|[0-9A-Fa-f:.]{2,45}",
    "expects": "the name or IP address of a host, without a port",
}
TOPIC = {  # MQTT 5.0, 4.7: '+' and '#' are wildcards, '$' at the start is the broker's own
    "pattern": r"(?!\$)[^+#/\x00-\x1f](?:[^+#\x00-\x1f]{0,126}[^+#/\x00-\x1f])?",
    "expects": "a part of an MQTT topic: no '+' or '#', no '$' at the start, no '/' at either end",
}
LINE_OF_TEXT = {"pattern": r"[^\x00-\x1f\x7f]{0,250}", "expects": "up to 250 characters on one line"}
EUI_64 = {"pattern": r"[0-9A-F]{16}", "expects": "an EUI-64: 16 hexadecimal digits in upper case"}
EPR = {"pattern": r"urn:[A-Za-z0-9:._-]{1,200}", "expects": 'an endpoint reference such as "urn:uuid:…"'}
SDC_ADDRESS = {
    "pattern": r"https?://[A-Za-z0-9_.-]{1,253}:[0-9]{1,5}/[A-Za-z0-9_./-]{0,300}",
    "expects": 'the address of a provider, "https://host:port/path"',
}
IPV4 = {"pattern": r"[0-9]{1,3}(\.[0-9]{1,3}){3}", "expects": "the IPv4 address of one of this box's adapters"}
RATE = {"pattern": r"[0-9]{1,9}(\.[0-9]{1,3})? ?([KMG]i?)?B/s", "expects": 'a rate such as "10 MB/s"'}
HOURS = {
    "pattern": r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]",
    "expects": 'hours of the day such as "20:00-06:00"',
}
WEB_URL = {
    "pattern": r"https?://[A-Za-z0-9_.\[\]:-]{1,300}(/[A-Za-z0-9_.~/-]{0,500})?",
    "expects": 'the DICOMweb service\'s "https://host:port/path", without user or password in it',
    "hidden": True,
}
URL = {
    "pattern": r"mqtts?://[A-Za-z0-9_.\[\]:-]{1,300}/?",
    "expects": '"mqtt://host:port" or "mqtts://host:port", without user or password in it',
    "hidden": True,
}


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """`[gateway]`: who this box is and where its data lies."""

    name: str = field(default="gateway", metadata=NAME)
    data_dir: Path = Path("/var/lib/gateway")
    facility: str = field(default="", metadata=LINE_OF_TEXT)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    repeat_window_hours: float = field(default=72.0, metadata=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """`[retention]`: how long settled Messages and Instances are kept; undelivered ones are never deleted."""

    days: float = field(default=14.0, metadata={"min": 0})
    max_size: Size = field(default=Size(200 * GIB), metadata={"min": 1 * MIB})
    reserve: Size = Size(512 * MIB)
    stop_intake_below: Size = Size(2 * GIB)


@dataclass(frozen=True, kw_only=True)
class Console:
    """`[console]`: where /metrics and /health are served."""

    listen: Address = Address("127.0.0.1", 8080)


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """`[alarms]`: when a person should look."""

    oldest_pending_s: float = field(default=300.0, metadata=POSITIVE)
    quiet_s: float | None = field(default=None, metadata=POSITIVE)
    clock_step_s: float = field(default=2.0, metadata=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class WorklistView:
    """`[[worklist.view]]`: what a calling AE title is shown; the first that fits the title counts, `*` and `?` allowed.

    `own_station` shows only steps for this AE title, `stations` only those for these; `modalities` only those;
    `days_before` and `days_after` a window around today, 0 and 0 today alone. `character_sets` are what the Modality
    is answered in where it has the letters, the best first; `assumed_character_sets` is how its queries are read that
    name none.
    """

    ae_title: str = field(metadata=AE_TITLE)
    own_station: bool = False
    stations: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    days_before: int | None = field(default=None, metadata={"min": 0})
    days_after: int | None = field(default=None, metadata={"min": 0})
    character_sets: tuple[str, ...] = ()
    assumed_character_sets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorklistSettings:
    """`[worklist]`: how the worklist is answered and how long steps stay.

    More than `answers_max` steps end in 0xA700, or with `over_limit = "success"` as if these were all. Steps go
    `keep_days` after their day and their last change. `timezone` is the hospital's (`Europe/Berlin`; default: the
    machine's), for "today". A step that names no station is offered to every one with `offer_unassigned`.
    """

    answers_max: int = field(default=500, metadata={"min": 1, "max": 100_000})
    over_limit: Literal["refuse", "success"] = "refuse"
    keep_days: float = field(default=7.0, metadata={"min": 0})
    timezone: str | None = None
    offer_unassigned: bool = True
    views: tuple[WorklistView, ...] = field(default=(), metadata={"key": "view"})


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """TLS of a listener; `ca` with `verify_client` asks every client for a certificate (mutual TLS)."""

    cert: Path
    key: Path
    ca: Path | None = None
    verify_client: bool = False


@dataclass(frozen=True, kw_only=True)
class ClientTls:
    """TLS towards a Destination; without `ca` the system's authorities are trusted."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class MllpSource:
    """`[[source]]` with `type = "mllp"`: a listener for HL7 v2 over MLLP."""

    name: str = field(metadata=NAME)
    type: Literal["mllp"] = "mllp"
    listen: Address
    encoding: str = "utf-8"
    tls: ServerTls | None = None
    allow: tuple[Network, ...] = ()
    connections_max: int = field(default=256, metadata=AT_LEAST_ONE)
    connections_per_peer_max: int = field(default=64, metadata=AT_LEAST_ONE)
    frame_max: Size = field(default=Size(16 * MIB), metadata={"min": 1 * KIB, "max": 1 * GIB})
    idle_timeout_s: float = field(default=3600.0, metadata=POSITIVE)
    frame_timeout_s: float = field(default=30.0, metadata=POSITIVE)
    end_without_cr_s: float | None = field(default=0.5, metadata=POSITIVE)
    store_error: Literal["ae", "silence"] = "ae"
    orders: OrderRules = field(default_factory=OrderRules)
    quiet_s: float | None = field(default=None, metadata=POSITIVE)


DicomService = Literal["echo", "storage", "worklist", "mpps", "commitment", "query"]


@dataclass(frozen=True, kw_only=True)
class DicomPeer:
    """One Modality that may call: its AE title, and the host it must come from where that is given.

    With a `port` (and host) it is called back there: commitment reports whose association has ended, C-MOVE.
    """

    ae_title: str = field(metadata=AE_TITLE)
    host: str | None = field(default=None, metadata=HOST)
    port: int | None = field(default=None, metadata=PORT)
    tls: ClientTls | None = None


@dataclass(frozen=True, kw_only=True)
class DicomSource:
    """`[[source]]` with `type = "dicom"`: an AE for Verification and Storage."""

    name: str = field(metadata=NAME)
    type: Literal["dicom"] = "dicom"
    listen: Address
    ae_title: str = field(default="GATEWAY", metadata=AE_TITLE)
    require_called_ae_title: bool = False
    peers: tuple[DicomPeer, ...] = ()
    services: tuple[DicomService, ...] = ("echo", "storage")
    commitment: Literal["held", "archive"] = "held"
    commitment_timeout_hours: float = field(default=24.0, metadata=POSITIVE)
    study_stable_s: float = field(default=60.0, metadata=POSITIVE)
    tls: ServerTls | None = None
    allow: tuple[Network, ...] = ()
    associations_max: int = field(default=32, metadata=AT_LEAST_ONE)
    pdu_max: Size = field(default=Size(128 * KIB), metadata={"min": 4 * KIB, "max": 16 * MIB})
    idle_timeout_s: float = field(default=60.0, metadata=POSITIVE)
    quiet_s: float | None = field(default=None, metadata=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class Line:
    """Serial line settings; what is left out is the driver's default."""

    baud: int | None = field(default=None, metadata={"min": 50, "max": 4_000_000})
    data_bits: Literal[5, 6, 7, 8] | None = None
    parity: Literal["none", "even", "odd", "mark", "space"] | None = None
    stop_bits: Literal[1, 2] | None = None
    flow: Literal["none", "rtscts", "xonxoff"] | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceSource:
    """`[[source]]` with `type = "device"`: one bedside Device behind a byte stream.

    `options` are the driver's own settings, built from its dataclass. `device_id` is the EUI-64 under which it is
    published; without one a stable local one is derived from the gateway's and the Source's names.
    """

    name: str = field(metadata=NAME)
    type: Literal["device"] = "device"
    driver: str
    port: str
    line: Line = field(default_factory=Line)
    bed: str = field(default="", metadata=LINE_OF_TEXT)
    device_id: str | None = field(default=None, metadata=EUI_64)
    options: dict[str, Any] = field(default_factory=dict)
    quiet_s: float | None = field(default=None, metadata=POSITIVE)


@dataclass(frozen=True, kw_only=True)
class SdcTls:
    """TLS with an SDC Device: either end shows a certificate that `ca` has signed, and connects to the other.

    With `devices` the Device's certificate must bear one of these names; without, any that `ca` signed will do.
    """

    cert: Path
    key: Path
    ca: Path
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SdcSource:
    """`[[source]]` with `type = "sdc"`: one IEEE 11073 SDC provider.

    It is found by its endpoint reference `epr` on the adapter with the address `adapter`, or at `endpoint`.
    """

    name: str = field(metadata=NAME)
    type: Literal["sdc"] = "sdc"
    epr: str | None = field(default=None, metadata=EPR)
    adapter: str | None = field(default=None, metadata=IPV4)
    endpoint: str | None = field(default=None, metadata=SDC_ADDRESS)
    listen_port: int = field(default=0, metadata={"min": 0, "max": 65535})
    tls: SdcTls | None = None
    waves: tuple[str, ...] = ()
    bed: str = field(default="", metadata=LINE_OF_TEXT)
    device_id: str | None = field(default=None, metadata=EUI_64)
    validate: bool = True
    timeout_s: float = field(default=5.0, metadata={"min": 1, "max": 60})
    quiet_s: float | None = field(default=None, metadata=POSITIVE)

    def __post_init__(self) -> None:
        if self.endpoint is None and (self.epr is None or self.adapter is None):
            raise ValueError('either endpoint = "https://host:port/path", or epr and adapter to find the device by')
        if self.endpoint is not None and self.endpoint.startswith("https:") != (self.tls is not None):
            raise ValueError("https needs tls = { cert, key, ca }, and tls needs an https endpoint")


@dataclass(frozen=True, kw_only=True)
class DicomWorklistSource:
    """`[[source]]` with `type = "dicom-worklist"`: the worklist of a RIS, polled by C-FIND and kept for modalities.

    It asks for the days from `days_before` to `days_after` around today, for each of `stations` and `modalities` where
    these are given. A step that complete polls have not shown for `gone_after_s` goes; a failed poll removes none.
    """

    name: str = field(metadata=NAME)
    type: Literal["dicom-worklist"] = "dicom-worklist"
    host: str = field(metadata=HOST)
    port: int = field(metadata=PORT)
    ae_title: str = field(metadata=AE_TITLE)
    calling_ae_title: str = field(default="GATEWAY", metadata=AE_TITLE)
    tls: ClientTls | None = None
    poll_s: float = field(default=60.0, metadata=POSITIVE)
    days_before: int = field(default=1, metadata={"min": 0, "max": 3650})
    days_after: int = field(default=7, metadata={"min": 0, "max": 3650})
    stations: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    gone_after_s: float = field(default=180.0, metadata={"min": 0})
    assumed_character_sets: tuple[str, ...] = ()
    connect_timeout_s: float = field(default=10.0, metadata=POSITIVE)
    response_timeout_s: float = field(default=60.0, metadata=POSITIVE)
    quiet_s: float | None = field(default=None, metadata=POSITIVE)


Source = MllpSource | DicomSource | DeviceSource | SdcSource | DicomWorklistSource


@dataclass(frozen=True, kw_only=True)
class MllpDestination:
    """`[[destination]]` with `type = "mllp"`: HL7 v2 over MLLP to an EMR or engine."""

    name: str = field(metadata=NAME)
    type: Literal["mllp"] = "mllp"
    host: str = field(metadata=HOST)
    port: int = field(metadata=PORT)
    format: Literal["pcd-01"] = "pcd-01"
    waves: bool = False
    order_status: Literal["orm-o01", "omi-o23"] | None = None
    tls: ClientTls | None = None
    connect_timeout_s: float = field(default=10.0, metadata=POSITIVE)
    ack_timeout_s: float = field(default=15.0, metadata=POSITIVE)
    on_error: Literal["park", "hold"] = "park"
    content_attempts_max: int = field(default=5, metadata=AT_LEAST_ONE)
    lanes: int = field(default=1, metadata=LANES)
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class MqttDestination:
    """`[[destination]]` with `type = "mqtt"`: JSON over MQTT to a broker."""

    name: str = field(metadata=NAME)
    type: Literal["mqtt"] = "mqtt"
    url: str = field(metadata=URL)
    version: Literal["5", "3.1.1"] = "5"
    client_id: str | None = None
    username: str | None = None
    password: Secret | None = None
    tls: ClientTls | None = None
    topic_root: str = field(default="mdg", metadata=TOPIC)
    site: str = field(default="site", metadata=TOPIC)
    qos: Literal[1] = 1
    in_flight_max: int = field(default=20, metadata={"min": 1, "max": 65535})
    connect_timeout_s: float = field(default=10.0, metadata=POSITIVE)
    ack_timeout_s: float = field(default=15.0, metadata=POSITIVE)
    keepalive_s: int = field(default=20, metadata={"min": 1, "max": 65535})
    on_error: Literal["park", "hold"] = "park"
    content_attempts_max: int = field(default=5, metadata=AT_LEAST_ONE)
    lanes: Literal[1] = 1
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class DicomDestination:
    """`[[destination]]` with `type = "dicom"`: C-STORE to a PACS."""

    name: str = field(metadata=NAME)
    type: Literal["dicom"] = "dicom"
    host: str = field(metadata=HOST)
    port: int = field(metadata=PORT)
    ae_title: str = field(metadata=AE_TITLE)
    calling_ae_title: str = field(default="GATEWAY", metadata=AE_TITLE)
    tls: ClientTls | None = None
    mpps: bool = False
    parallel: int = field(default=1, metadata=LANES)
    bandwidth_max: str | None = field(default=None, metadata=RATE)
    hours: str | None = field(default=None, metadata=HOURS)
    commitment: bool = False
    commitment_delay_s: float = field(default=10.0, metadata={"min": 0})
    commitment_timeout_s: float = field(default=3600.0, metadata=POSITIVE)
    commitment_attempts_max: int = field(default=3, metadata=AT_LEAST_ONE)
    connect_timeout_s: float = field(default=10.0, metadata=POSITIVE)
    response_timeout_s: float = field(default=60.0, metadata=POSITIVE)
    on_error: Literal["park", "hold"] = "park"
    content_attempts_max: int = field(default=5, metadata=AT_LEAST_ONE)
    enabled: bool = True

    @property
    def lanes(self) -> int:
        """Return how many associations may run side by side."""
        return self.parallel


@dataclass(frozen=True, kw_only=True)
class StowDestination:
    """`[[destination]]` with `type = "stow"`: STOW-RS to a DICOMweb archive; `url` is its root, before `/studies`.

    `secret` is the password of `username`, or a bearer token where there is no username.
    """

    name: str = field(metadata=NAME)
    type: Literal["stow"] = "stow"
    url: str = field(metadata=WEB_URL)
    username: str | None = None
    secret: Secret | None = None
    tls: ClientTls | None = None
    parallel: int = field(default=1, metadata=LANES)
    batch_max: int = field(default=16, metadata={"min": 1, "max": 256})
    bandwidth_max: str | None = field(default=None, metadata=RATE)
    hours: str | None = field(default=None, metadata=HOURS)
    connect_timeout_s: float = field(default=10.0, metadata=POSITIVE)
    response_timeout_s: float = field(default=60.0, metadata=POSITIVE)
    on_error: Literal["park", "hold"] = "park"
    content_attempts_max: int = field(default=5, metadata=AT_LEAST_ONE)
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.username is not None and self.secret is None:
            raise ValueError("username needs a secret, its password")

    @property
    def lanes(self) -> int:
        """Return how many requests may run side by side."""
        return self.parallel


Destination = MllpDestination | MqttDestination | DicomDestination | StowDestination

Option = Literal[
    "retain-full-dates",
    "retain-modified-dates",
    "retain-uids",
    "retain-device",
    "retain-institution",
    "retain-patient-characteristics",
    "retain-safe-private",
    "clean-descriptors",
    "clean-structured-content",
]
"""An option of the Basic Application Level Confidentiality Profile (PS3.15, E.3)."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """`[[route]]`: Messages of the Sources that match `from` and fulfil `when` are owed to the Destinations `to`.

    `from` is a keyword of Python, so the field is `sources` and the key of the file is `from`. With
    `after = "study-complete"` Instances are owed when their study is complete, not as they come.

    The rest concerns Instances alone. `priority` puts them before others. What goes to `to` can be changed on the way:
    `deidentify`, its options and the private blocks known to be safe; `hash`, `copy` (to = from), `set`, `remove` of
    attributes by keyword, "(gggg,eeee)" or a path through sequences; `coerce` of demographics from the worklist.
    """

    sources: tuple[str, ...] = field(metadata={"key": "from", "items_min": 1})
    to: tuple[str, ...] = field(metadata={"items_min": 1})
    when: str | None = None
    after: Literal["study-complete"] | None = None
    priority: Literal["routine", "stat"] | None = None
    deidentify: Literal["basic"] | None = None
    deidentify_options: tuple[Option, ...] = ()
    safe_private: tuple[str, ...] = ()
    secret: Secret | None = None
    coerce: Literal["worklist"] | None = None
    hashed: tuple[str, ...] = field(default=(), metadata={"key": "hash"})
    copied: dict[str, str] = field(default_factory=dict, metadata={"key": "copy"})
    assigned: dict[str, str] = field(default_factory=dict, metadata={"key": "set"})
    removed: tuple[str, ...] = field(default=(), metadata={"key": "remove"})

    def __post_init__(self) -> None:
        if (self.deidentify or self.hashed) and self.secret is None:
            raise ValueError('deidentify and hash need a secret, such as secret = { credential = "research" }')
        if self.deidentify is None and (self.deidentify_options or self.safe_private):
            raise ValueError('deidentify_options and safe_private need deidentify = "basic"')
        if self.deidentify and self.coerce:
            raise ValueError("either deidentify or coerce: coerced objects keep what was there before")
        if {"retain-full-dates", "retain-modified-dates"} <= set(self.deidentify_options):
            raise ValueError("either retain-full-dates or retain-modified-dates")

    @property
    def changes(self) -> bool:
        """Return whether Instances are changed on the way."""
        return bool(self.deidentify or self.coerce or self.hashed or self.copied or self.assigned or self.removed)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole file."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    retention: Retention = field(default_factory=Retention)
    console: Console = field(default_factory=Console)
    alarms: Alarms = field(default_factory=Alarms)
    worklist: WorklistSettings = field(default_factory=WorklistSettings)
    sources: tuple[Source, ...] = field(default=(), metadata={"key": "source"})
    destinations: tuple[Destination, ...] = field(default=(), metadata={"key": "destination"})
    routes: tuple[Route, ...] = field(default=(), metadata={"key": "route"})


def kinds_of(source_type: str, *, steps: bool = False) -> frozenset[Kind]:
    """Return what the Sources of a type bring; what they bring unreadable is owed to nobody.

    `steps` tells that the Source offers MPPS.
    """
    return _BROUGHT.get(source_type, frozenset()) | (_STEPS if steps else frozenset())


def carried_by(destination_type: str, *, steps: bool = False) -> frozenset[Kind]:
    """Return what the Destinations of a type can carry; `steps` tells that this one was asked to take MPPS."""
    return _CARRIED.get(destination_type, frozenset()) | (_STEPS if steps else frozenset())


def takes_steps(destination: Destination) -> bool:
    """Return whether a Destination takes procedure steps: as MPPS, or as an HL7 order status.

    It is asked for by name, because an archive or an EMR that does not know them would refuse each one.
    """
    match destination:
        case DicomDestination():
            return destination.mpps
        case MllpDestination():
            return destination.order_status is not None
    return False


_STEPS = frozenset({Kind.MPPS})
_BROUGHT = {
    "mllp": frozenset({Kind.HL7}),
    "dicom": frozenset({Kind.DICOM}),
    "device": frozenset({Kind.OBSERVATIONS, Kind.HL7}),
    "sdc": frozenset({Kind.OBSERVATIONS}),
}
_CARRIED = {
    "mllp": frozenset({Kind.HL7, Kind.OBSERVATIONS}),
    "mqtt": frozenset({Kind.HL7, Kind.OBSERVATIONS}),
    "dicom": frozenset({Kind.DICOM}),
    "stow": frozenset({Kind.DICOM}),
}


def effective_routes(config: Config) -> tuple[Route, ...]:
    """Return the file's routes; where it has none, one Source and one Destination are joined by an implicit one."""
    if config.routes or len(config.sources) != 1 or len(config.destinations) != 1:
        return config.routes
    return (Route(sources=(config.sources[0].name,), to=(config.destinations[0].name,)),)
