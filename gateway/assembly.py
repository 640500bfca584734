"""From a stanza to the part that serves it: the one place that knows which class goes with which `type`."""

from collections.abc import Awaitable
from typing import Protocol, assert_never

from gateway.clock import Clock
from gateway.config import (
    Config,
    Destination,
    DeviceSource,
    DicomDestination,
    DicomSource,
    MllpDestination,
    MllpSource,
    MqttDestination,
    Source,
)
from gateway.errors import ConfigError
from gateway.formats.origin import Origin, device_id_of
from gateway.intake import Intake
from gateway.registry import create_driver
from gateway.senders.dicom import DicomSender
from gateway.senders.mllp import MllpSender
from gateway.senders.mqtt import MqttSender
from gateway.senders.sender import Sender
from gateway.sources.dicom import DicomSource as DicomListener
from gateway.sources.link import DeviceLink
from gateway.sources.mllp import MllpListener
from gateway.spool import Spool
from gateway.status import SourceStatus


class Runner(Protocol):
    """A Source at work."""

    def run(self) -> Awaitable[None]:
        """Receive until cancelled. Raises LinkError when it cannot open."""
        ...


class Origins:
    """Tells the feeds where a Message comes from, by its Source's name."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._devices = {source.name: source for source in config.sources if isinstance(source, DeviceSource)}

    def __call__(self, source: str) -> Origin:
        """Return the origin of a Source; one that is no longer configured has no bed."""
        settings = self._config.gateway
        device = self._devices.get(source)
        return Origin(
            gateway=settings.name,
            facility=settings.facility,
            source=source,
            bed="" if device is None else device.bed,
            device_id=(device.device_id if device else None) or device_id_of(settings.name, source),
            gateway_eui64=device_id_of(settings.name, ""),
        )


def make_source(source: Source, intake: Intake, spool: Spool, clock: Clock, status: SourceStatus) -> Runner:
    """Build the part that serves a Source. Raises ConfigError for a driver that is not installed."""
    match source:
        case MllpSource():
            return MllpListener(source, intake, clock, status)
        case DicomSource():
            return DicomListener(source, intake, spool, clock, status, keywords=intake.router.keywords(source.name))
        case DeviceSource():
            driver, faults = create_driver(source.driver, source.options)
            if driver is None:
                raise ConfigError("; ".join(str(fault) for fault in faults))
            return DeviceLink(source, driver, intake, clock, status)
    assert_never(source)


def make_sender(destination: Destination, origins: Origins, spool: Spool, clock: Clock) -> Sender:
    """Build a Sender for one lane of a Destination."""
    match destination:
        case MllpDestination():
            return MllpSender(destination, origins)
        case MqttDestination():
            return MqttSender(destination, origins, clock)
        case DicomDestination():
            return DicomSender(destination, spool, clock)
    assert_never(destination)
