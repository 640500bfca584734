"""One connection to an SDC provider through the sdc11073 library: the only module beside the sink that imports it.

It is imported when the first `sdc` source connects, never before. All functions here block and belong on threads of
their own; what they learn goes to an Inbox as frozen values.

Reports are handled on the thread that received them, one after the other, and answered after that: a provider that is
too fast waits. Only reports are subscribed and only Get services are called; nothing at the Device is ever set.
Subscriptions are renewed every RENEW_S, far more often than asked for, because a renewal that fails is how a
provider that died is noticed. The library logs what it reads, patients too, so its loggers are closed.
"""

import copy
import http.client
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from sdc11073.certloader import SSLContextContainer
from sdc11073.consumer.consumerimpl import SdcConsumer, default_components_factory
from sdc11073.consumer.subscription import ConsumerSubscriptionManager
from sdc11073.definitions_sdc import SdcV1Definitions
from sdc11073.dispatch import RequestDispatcher
from sdc11073.mdib import ConsumerMdib
from sdc11073.observableproperties import strongbind
from sdc11073.pysoap import msgfactory, msgreader
from sdc11073.pysoap.msgreader import MessageReader
from sdc11073.schema_resolver import mk_schema_validator
from sdc11073.wsdiscovery import WSDiscovery
from sdc11073.xml_types.actions import Actions, periodic_actions

from gateway.config import SdcSource, SdcTls
from gateway.errors import LinkError, place_of
from gateway.formats.sdc_facts import State
from gateway.sources.sdc_bodies import BoundedClient
from gateway.sources.sdc_inbox import Beheld, Ended, Inbox, Reported, Unreadable
from gateway.sources.sdc_reading import read_host, read_mdib, read_states
from gateway.sources.sdc_sink import Sink, own_address

RENEW_S = 2.0
SEARCH_S = 3.0  # WS-Discovery 1.1: an answer may wait half a second, and so may the question
SEARCH_POLL_S = 0.05
PROBE_EVERY = 20  # polls between two questions; a Device that is switched on meanwhile says Hello by itself
JOIN_TIMEOUT_S = 1.0
ENTRIES_MAX = 20_000  # descriptors and contexts

_UNUSED = (Actions.OperationInvokedReport, Actions.EpisodicOperationalStateReport, Actions.SystemErrorReport)
_FULL = f"an MDIB of more than {ENTRIES_MAX} entries"
_R = TypeVar("_R")
_schemas: dict[tuple[str, ...], Any] = {}
_schemas_lock = threading.Lock()


def _schema(namespaces: Any, helper: Any) -> Any:
    """Return the compiled schemas: the library would compile them for every connection, twice, at 5 MB each."""
    key = tuple(sorted(each.namespace for each in namespaces))
    with _schemas_lock:
        if key not in _schemas:
            _schemas[key] = mk_schema_validator(namespaces, helper)
        return _schemas[key]


_users: tuple[Any, ...] = (msgreader, msgfactory)
for _user in _users:
    _user.mk_schema_validator = _schema


def find(epr: str, adapter: str) -> str:
    """Return the address of a Device by WS-Discovery on the adapter with this address; blocks up to SEARCH_S.

    Every search begins with an empty memory: the library would give a restarted Device's old address for ever.
    Raises LinkError when nobody answers to the endpoint reference.
    """
    _close_logs()
    types = SdcV1Definitions.MedicalDeviceTypesFilter
    try:
        discovery = WSDiscovery(adapter)
        discovery.start()
    except OSError as error:
        raise LinkError(f"discovery on {adapter}: {error.strerror or type(error).__name__}") from error
    try:
        for turn in range(round(SEARCH_S / SEARCH_POLL_S)):
            if turn % PROBE_EVERY == 0:
                discovery.search_services(types=types, timeout=SEARCH_POLL_S, repeat_probe_interval=1)
            else:
                time.sleep(SEARCH_POLL_S)
            for service in discovery.get_found_remote_services(types=types):
                if service.epr.lower() == epr.lower() and service.x_addrs:
                    return str(service.x_addrs[0])
    finally:  # its stop takes three seconds, for which a Device that was found does not have to wait
        threading.Thread(target=discovery.stop, name="sdc-discovery-stop", daemon=True).start()
    raise LinkError(f"{epr}: not found on {adapter} within {SEARCH_S:g} s")


def connect(settings: SdcSource, inbox: Inbox) -> "Connection":
    """Find the Device, subscribe to its reports and read its MDIB; what it says goes to the inbox.

    Raises LinkError when it is not there, is not the one asked for, or does not answer as a provider does.
    """
    _close_logs()
    address = settings.endpoint or find(settings.epr or "", settings.adapter or "")
    connection = Connection(settings, address, inbox)
    try:
        connection.open()
    except LinkError:
        connection.close(unsubscribe=True)
        raise
    except Exception as error:  # the border of the library, which raises whatever its layers raise
        connection.close(unsubscribe=False)
        raise LinkError(f"{address}: {_reason(error)}") from error
    return connection


class Connection:
    """Subscriptions to one provider; `address` is where it was found."""

    def __init__(self, settings: SdcSource, address: str, inbox: Inbox) -> None:
        self.address = address
        self._settings = settings
        self._contexts = _contexts(settings.tls) if settings.tls is not None else None
        self._reports = _Reports(inbox)
        self._sink: Sink | None = None
        self._subscriptions: _Subscriptions | None = None
        self._consumer: Any = None
        self._mdib: Any = None

    def open(self) -> None:
        """Connect, subscribe, read. Raises LinkError or whatever the library raises."""
        consumer = self._consumer = self._make()
        parts = urlsplit(self.address)
        host = own_address(parts.hostname or "", parts.port or 443)
        context = self._contexts and self._contexts.server_context
        self._sink = Sink(host, self._settings.listen_port, context, refused=self._reports.end)
        unwanted = {*periodic_actions, *_UNUSED} | (set() if self._settings.waves else {Actions.Waveform})
        consumer.start_all(not_subscribed_actions=unwanted, shared_http_server=self._sink)
        self._check(consumer)
        if not (consumer.is_connected and self._subscriptions and self._subscriptions.complete):
            raise LinkError(f"{self.address}: subscriptions were refused")
        self._mdib = ConsumerMdib(consumer, max_realtime_samples=1)
        self._mdib.init_mdib()
        if _is_full(self._mdib):
            raise LinkError(f"{self.address}: {_FULL}")
        self._reports.follow(self._mdib, read_host(consumer.host_description))
        strongbind(consumer, is_connected=self._reports.on_connected)
        self._reports.on_connected(consumer.is_connected)

    def close(self, *, unsubscribe: bool) -> None:
        """Take leave where there is somebody to take leave of, and stop all threads."""
        self._reports.end("closed")
        try:
            if self._consumer is not None:
                self._consumer.stop_all(unsubscribe=unsubscribe)
        except Exception:  # noqa: BLE001 - the library's farewell to a provider that may be gone; nothing to be done
            logging.getLogger("gateway.sources").debug("sdc.farewell_failed source=%s", self._settings.name)
        finally:
            if self._sink is not None:
                self._sink.stop()

    def _make(self) -> Any:
        parts: Any = default_components_factory()
        reports = self._reports
        parts.soap_client_class = BoundedClient
        parts.action_dispatcher_class = lambda prefix: _Dispatcher(prefix, reports)
        parts.msg_reader_class = lambda *given, **named: _Reader(reports, *given, **named)
        parts.subscription_manager_class = lambda *given, **named: self._manage(*given, **named)
        return SdcConsumer(
            self.address,
            SdcV1Definitions,
            ssl_context_container=self._contexts,
            force_ssl_connect=self._contexts is not None,
            validate=self._settings.validate,
            components=parts,
            socket_timeout=math.ceil(self._settings.timeout_s),
        )

    def _manage(self, *given: Any, **named: Any) -> "_Subscriptions":
        self._subscriptions = _Subscriptions(*given, **named)
        return self._subscriptions

    def _check(self, consumer: Any) -> None:
        """Hold who answered against who was asked for."""
        epr = str(consumer.host_description.relationship.Host.EndpointReference.Address)
        if self._settings.epr is not None and epr.lower() != self._settings.epr.lower():
            raise LinkError(f"{self.address}: is another device than {self._settings.epr}")
        wanted = self._settings.tls.devices if self._settings.tls is not None else ()
        if wanted and not _names(consumer.peer_certificate) & set(wanted):
            raise LinkError(f"{self.address}: the certificate names none of tls.devices")


class _Reports:
    """What the library's threads tell, gathered report by report."""

    def __init__(self, inbox: Inbox) -> None:
        self.mdib_raw = b""
        self._inbox = inbox
        self._turn = threading.RLock()
        self._states: list[State] = []
        self._redescribed = False
        self._live = False
        self._mdib: Any = None
        self._host: Any = None

    def follow(self, mdib: Any, host: Any) -> None:
        """Hand over the MDIB and, from the same moment on, every change."""
        self._mdib, self._host = mdib, host
        with self._turn, mdib.mdib_lock:
            for name in ("metrics", "alert", "component", "context", "waveform"):
                strongbind(mdib, **{f"{name}_by_handle": self._on_states})
            strongbind(mdib, description_modifications=self._on_description)
            strongbind(mdib, sequence_or_instance_id_changed_event=self._on_sequence)
            self._inbox.offer(Beheld(raw=self.mdib_raw, mdib=read_mdib(mdib, host)))
            self._live = True

    def end(self, reason: str) -> None:
        """Tell that it is over, and nothing after that."""
        self._inbox.offer(Ended(reason=reason))

    def handle(self, raw: bytes, act: Callable[[], _R]) -> _R:
        """Let the library handle one report, then hand over what it changed."""
        with self._turn:
            self._states, self._redescribed = [], False
            try:
                answer = act()
                if self._live and _is_full(self._mdib):
                    self.end(_FULL)
                elif self._redescribed:
                    with self._mdib.mdib_lock:
                        self._inbox.offer(Beheld(raw=raw, mdib=read_mdib(self._mdib, self._host)))
                elif self._states:
                    self._inbox.offer(Reported(raw=raw, states=tuple(self._states)))
            except Exception as error:
                self.unreadable(raw, error)
                raise
            return answer

    def unreadable(self, raw: bytes, error: Exception) -> None:
        """Keep a report that the library could not read."""
        if self._live:
            self._inbox.offer(Unreadable(raw=raw, fault=f"report not understood: {type(error).__name__}"))

    def on_connected(self, connected: bool) -> None:
        """Take notice that a subscription was lost, ended by the provider, or could not be renewed."""
        if not connected:
            self.end("the subscriptions ended")

    def _on_states(self, by_handle: dict[str, Any]) -> None:
        self._states += read_states(by_handle.values())

    def _on_description(self, _report: Any) -> None:
        self._redescribed = True

    def _on_sequence(self, _changed: Any) -> None:
        self.end("the device began a new sequence")


def _is_full(mdib: Any) -> bool:
    return len(mdib.descriptions.objects) + len(mdib.context_states.objects) > ENTRIES_MAX


class _Dispatcher(RequestDispatcher):
    """Handles reports at once instead of queueing them: the library's queue has a thread that never ends."""

    def __init__(self, log_prefix: str, reports: _Reports) -> None:
        super().__init__(log_prefix)
        self._reports = reports

    def on_post(self, request_data: Any) -> Any:
        raw = request_data.message_data.p_msg.raw_data
        return self._reports.handle(raw, lambda: RequestDispatcher.on_post(self, request_data))


class _Reader(MessageReader):
    """Keeps the MDIB's bytes, and tells of reports that break the schema."""

    def __init__(self, reports: _Reports, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._reports = reports

    def read_received_message(self, xml_text: bytes, validate: bool = True) -> Any:
        try:
            message = super().read_received_message(xml_text, validate)
        except Exception as error:
            self._reports.unreadable(xml_text, error)
            raise
        if message.action == Actions.GetMdibResponse.value:
            self._reports.mdib_raw = xml_text
        return message


class _Subscriptions(ConsumerSubscriptionManager):
    """Renews every RENEW_S and stops at once."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._halt = threading.Event()

    @property
    def complete(self) -> bool:
        """Tell whether all were granted: the library is content with some."""
        return all(subscription.is_subscribed for subscription in self.subscriptions.values())

    def run(self) -> None:
        while not self._halt.wait(RENEW_S):
            for subscription in tuple(self.subscriptions.values()):
                self._renew(subscription)

    @staticmethod
    def _renew(subscription: Any) -> None:
        try:
            subscription.renew()
        except Exception:  # noqa: BLE001 - an answer that the library chokes on must not end all renewals unnoticed
            subscription.is_subscribed = False

    def stop(self) -> None:
        self._halt.set()
        self.join(timeout=JOIN_TIMEOUT_S)
        self.subscriptions.clear()


def _contexts(tls: SdcTls) -> Any:
    """Return contexts for both directions: either end shows a certificate of the authority.

    Names are not compared with addresses: an SDC certificate names a device, not a host. Raises LinkError.
    """
    made = []
    for protocol in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(tls.cert, tls.key)
            context.load_verify_locations(tls.ca)
        except OSError as error:
            raise LinkError(f"tls: {tls.cert}, {tls.key}, {tls.ca}: {_reason(error)}") from error
        made.append(context)
    return SSLContextContainer(client_context=made[0], server_context=made[1])


def _names(certificate: Any) -> set[str]:
    """Return the common names and alternative names of a peer's certificate."""
    told = copy.copy(certificate or {})
    names = {value for part in told.get("subject", ()) for name, value in part if name == "commonName"}
    return names | {value for _, value in told.get("subjectAltName", ())}


def _reason(error: Exception) -> str:
    """Return why, without the library's texts: they quote what the Device said."""
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or type(error).__name__}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, http.client.HTTPException):
        return f"no answer as of a provider: {type(error).__name__}"
    return f"not understood: {type(error).__name__} at {place_of(error)}"


def _close_logs() -> None:
    for name in ("sdc", "sdc_comm"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
