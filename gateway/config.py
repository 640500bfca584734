"""The schema of gateway.toml: frozen dataclasses, one per table.

Field names are the keys of the file. `typed.py` builds these from tables and reports every fault with its path;
`configfile.py` reads the files, adds line and column, and checks what crosses tables. Nothing here opens anything.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateway.typed import Address, Network, Secret, Size

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """`[gateway]`: who this box is and where its data lies."""

    name: str = "gateway"
    data_dir: Path = Path("/var/lib/gateway")
    facility: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    repeat_window_hours: float = 72.0


@dataclass(frozen=True, kw_only=True)
class Retention:
    """`[retention]`: how long settled Messages and Instances are kept; undelivered ones are never deleted."""

    days: float = 14.0
    max_size: Size = Size(200 * GIB)
    reserve: Size = Size(512 * MIB)
    stop_intake_below: Size = Size(2 * GIB)


@dataclass(frozen=True, kw_only=True)
class Console:
    """`[console]`: where /metrics and /health are served."""

    listen: Address = Address("127.0.0.1", 8080)


@dataclass(frozen=True, kw_only=True)
class Alarms:
    """`[alarms]`: when a person should look."""

    oldest_pending_s: float = 300.0
    quiet_s: float | None = None
    clock_step_s: float = 2.0


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

    name: str
    type: Literal["mllp"] = "mllp"
    listen: Address
    encoding: str = "utf-8"
    tls: ServerTls | None = None
    allow: tuple[Network, ...] = ()
    connections_max: int = 256
    connections_per_peer_max: int = 64
    frame_max: Size = Size(16 * MIB)
    idle_timeout_s: float = 3600.0
    frame_timeout_s: float = 30.0
    end_without_cr_s: float | None = 0.5
    store_error: Literal["ae", "silence"] = "ae"
    quiet_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class DicomPeer:
    """One Modality that may call: its AE title, and the host it must come from where that is given."""

    ae_title: str
    host: str | None = None


@dataclass(frozen=True, kw_only=True)
class DicomSource:
    """`[[source]]` with `type = "dicom"`: an AE for Verification and Storage."""

    name: str
    type: Literal["dicom"] = "dicom"
    listen: Address
    ae_title: str = "GATEWAY"
    require_called_ae_title: bool = False
    peers: tuple[DicomPeer, ...] = ()
    services: tuple[Literal["echo", "storage"], ...] = ("echo", "storage")
    tls: ServerTls | None = None
    allow: tuple[Network, ...] = ()
    associations_max: int = 32
    pdu_max: Size = Size(128 * KIB)
    idle_timeout_s: float = 60.0
    quiet_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """Serial line settings; what is left out is the driver's default."""

    baud: int | None = None
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

    name: str
    type: Literal["device"] = "device"
    driver: str
    port: str
    line: Line = field(default_factory=Line)
    bed: str = ""
    device_id: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    quiet_s: float | None = None


Source = MllpSource | DicomSource | DeviceSource


@dataclass(frozen=True, kw_only=True)
class MllpDestination:
    """`[[destination]]` with `type = "mllp"`: HL7 v2 over MLLP to an EMR or engine."""

    name: str
    type: Literal["mllp"] = "mllp"
    host: str
    port: int
    format: Literal["pcd-01"] = "pcd-01"
    tls: ClientTls | None = None
    connect_timeout_s: float = 10.0
    ack_timeout_s: float = 15.0
    on_error: Literal["park", "hold"] = "park"
    content_attempts_max: int = 5
    lanes: int = 1
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class MqttDestination:
    """`[[destination]]` with `type = "mqtt"`: JSON over MQTT to a broker."""

    name: str
    type: Literal["mqtt"] = "mqtt"
    url: str
    version: Literal["5", "3.1.1"] = "5"
    client_id: str | None = None
    username: str | None = None
    password: Secret | None = None
    tls: ClientTls | None = None
    topic_root: str = "mdg"
    site: str = "site"
    qos: Literal[1] = 1
    in_flight_max: int = 20
    connect_timeout_s: float = 10.0
    ack_timeout_s: float = 15.0
    keepalive_s: int = 20
    on_error: Literal["park", "hold"] = "park"
    content_attempts_max: int = 5
    lanes: Literal[1] = 1
    enabled: bool = True


@dataclass(frozen=True, kw_only=True)
class DicomDestination:
    """`[[destination]]` with `type = "dicom"`: C-STORE to a PACS."""

    name: str
    type: Literal["dicom"] = "dicom"
    host: str
    port: int
    ae_title: str
    calling_ae_title: str = "GATEWAY"
    tls: ClientTls | None = None
    parallel: int = 1
    connect_timeout_s: float = 10.0
    response_timeout_s: float = 60.0
    on_error: Literal["park", "hold"] = "park"
    content_attempts_max: int = 5
    enabled: bool = True

    @property
    def lanes(self) -> int:
        """Return how many associations may run side by side."""
        return self.parallel


Destination = MllpDestination | MqttDestination | DicomDestination


@dataclass(frozen=True, kw_only=True)
class Route:
    """`[[route]]`: Messages of the Sources that match `from` and fulfil `when` are owed to the Destinations `to`.

    `from` is a keyword of Python, so the field is `sources` and the key of the file is `from`.
    """

    sources: tuple[str, ...] = field(metadata={"key": "from"})
    to: tuple[str, ...]
    when: str | None = None


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole file."""

    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    retention: Retention = field(default_factory=Retention)
    console: Console = field(default_factory=Console)
    alarms: Alarms = field(default_factory=Alarms)
    sources: tuple[Source, ...] = field(default=(), metadata={"key": "source"})
    destinations: tuple[Destination, ...] = field(default=(), metadata={"key": "destination"})
    routes: tuple[Route, ...] = field(default=(), metadata={"key": "route"})
