"""From a stanza to the part that serves it: the one place that knows which class goes with which `type`."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Protocol, assert_never

from gateway.clock import Clock
from gateway.config import (
    Destination,
    DeviceSource,
    DicomDestination,
    DicomSource,
    DicomWorklistSource,
    GatewaySettings,
    MllpDestination,
    MllpSource,
    MqttDestination,
    SdcSource,
    Source,
    StowDestination,
)
from gateway.errors import ConfigError
from gateway.formats.origin import Origin, device_id_of
from gateway.imaging.negotiation import Offer
from gateway.intake import Intake
from gateway.model import Message
from gateway.pacing import Pace
from gateway.registry import create_driver
from gateway.senders.dicom import DicomSender
from gateway.senders.instances import Objects, Preparer
from gateway.senders.mllp import MllpSender
from gateway.senders.mqtt import MqttSender
from gateway.senders.sender import Sender
from gateway.senders.stow import StowSender
from gateway.sources.dicom import DicomSource as DicomListener
from gateway.sources.dicom_worklist import LocalTime, UpstreamWorklist
from gateway.sources.link import CLOCK_STEP_S, DeviceLink, FindOrders
from gateway.sources.mllp import MllpListener
from gateway.sources.sdc import SdcLink
from gateway.spool import Spool
from gateway.status import SourceStatus
from gateway.store.store import Store


class Runner(Protocol):
    """A Source at work."""

    def run(self) -> Awaitable[None]:
        """Receive until cancelled. Raises LinkError when it cannot open."""
        ...


class Origins:
    """Tells the feeds where a Message comes from: as it stood when the Message was received.

    A bed that is given to another Device by a new configuration never moves values that wait already.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self.gateway = settings.name

    def __call__(self, message: Message) -> Origin:
        """Return the origin of a Message; a Source that is no Device has no bed."""
        name = self.gateway
        return Origin(
            gateway=name,
            facility=self._settings.facility,
            source=message.source,
            bed=message.headers.get("bed", ""),
            device_id=message.headers.get("device_id") or device_id_of(name, message.source),
            gateway_eui64=device_id_of(name, ""),
        )


def make_source(
    source: Source,
    intake: Intake,
    spool: Spool,
    clock: Clock,
    status: SourceStatus,
    *,
    clock_step_s: float = CLOCK_STEP_S,
    offer: Offer | None = None,
    order_priority: Callable[[Mapping[str, str]], str] = lambda header: "",
    orders: FindOrders | None = None,
    store: Store | None = None,
    local_time: LocalTime = datetime.astimezone,
) -> Runner:
    """Build the part that serves a Source.

    `offer` is what a DICOM Source does beside Verification and Storage, `order_priority` how urgent the worklist says
    that an Instance is; `orders` knows what is ordered, for Devices
    that ask; `store` keeps what an upstream worklist answers, `local_time` says which days it is asked for.

    Raises ConfigError for a driver that is not installed.
    """
    match source:
        case MllpSource():
            return MllpListener(source, intake, clock, status)
        case DicomSource():
            keywords = intake.router.keywords(source.name)
            return DicomListener(
                source, intake, spool, clock, status, keywords=keywords, offer=offer, order_priority=order_priority
            )
        case DeviceSource():
            driver, faults = create_driver(source.driver, source.options)
            if driver is None:
                raise ConfigError("; ".join(str(fault) for fault in faults))
            return DeviceLink(source, driver, intake, clock, status, clock_step_s=clock_step_s, orders=orders)
        case SdcSource():
            return SdcLink(source, intake, clock, status, clock_step_s=clock_step_s)
        case DicomWorklistSource():
            assert store is not None, "an upstream worklist is kept in the store"
            return UpstreamWorklist(source, store, clock, status, local_time)
    assert_never(source)


def make_pace(destination: Destination, clock: Clock) -> Pace:
    """Build what the lanes of a Destination share."""
    if isinstance(destination, DicomDestination | StowDestination):
        return Pace(clock, bandwidth_max=destination.bandwidth_max, hours=destination.hours)
    return Pace(clock)


def make_sender(
    destination: Destination,
    origins: Origins,
    spool: Objects,
    clock: Clock,
    *,
    preparer: Preparer | None = None,
    pace: Pace | None = None,
) -> Sender:
    """Build a Sender for one lane of a Destination; without a `preparer` Instances go as they lie."""
    bandwidth = None if pace is None else pace.bandwidth
    match destination:
        case MllpDestination():
            return MllpSender(destination, origins)
        case MqttDestination():
            return MqttSender(destination, origins.gateway, origins, clock)
        case DicomDestination():
            return DicomSender(destination, spool, clock, preparer=preparer, bandwidth=bandwidth)
        case StowDestination():
            return StowSender(destination, spool, preparer=preparer, bandwidth=bandwidth)
    assert_never(destination)
