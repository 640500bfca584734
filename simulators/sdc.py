"""A bedside monitor that speaks IEEE 11073 SDC: sdc11073's own provider around an MDIB of ours.

The protocol is the library's on both ends, so this end is independent of our mapping and not of the library: what it
holds together is what the gateway makes of a provider, not whether the library reads the standard right.

It plays the ICU recordings: heart rate, respiration, SpO2, pulse, a cuff pressure now and then, ECG and pleth at 250
samples a second. Faults come by script (`--fault`, of `script.py`) or as lines on standard input (`--commands`):

    alarm on | alarm off | alarm latch    SpO2 is below its limit; gone but not acknowledged
    sensor off | sensor on                no SpO2, and a technical alarm
    module out | module in                the oximeter module is unplugged: the description changes
    demo on | demo off                    the monitor shows a demonstration
    restart | die                         with and without a farewell, off for `--off` seconds, a new sequence after
    clock SECONDS                         the clock jumps
"""

import argparse
import logging
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from sdc11073.certloader import mk_ssl_contexts_from_folder
from sdc11073.definitions_sdc import SdcV1Definitions
from sdc11073.httpserver.httpserverimpl import HttpServerThreadBase, _ThreadingHTTPServer
from sdc11073.location import SdcLocation
from sdc11073.loghelper import get_logger_adapter
from sdc11073.mdib import ProviderMdib
from sdc11073.provider import SdcProvider
from sdc11073.wsdiscovery import WSDiscovery
from sdc11073.xml_types import pm_types
from sdc11073.xml_types.dpws_types import ThisDeviceType, ThisModelType

from simulators.arguments import add_listen, make_parser
from simulators.lifecycle import announce, stop_flag, summarise
from simulators.script import Script, read_step
from simulators.waveforms import BedVitals, bed_vitals, signal

MDIB = Path(__file__).parent / "data" / "sdc" / "monitor.xml"
EPR = "00000000-0000-4000-8000-000000000014"
PATIENT = "ZZTEST-014"
TURN_S = 0.1
RATE = 250
SAMPLES = 25
CUFF_EVERY = 10  # sets between two cuff pressures
SUBSCRIPTION_S = 15
START_TIMEOUT_S = 5.0
WAVES = {"ecg_ii": ("ecg-ii", Decimal("0.001")), "pleth": ("pleth", Decimal("0.0001"))}
LASTING = {"sensor-off": ("sensor off", "sensor on"), "alarm": ("alarm on", "alarm off")}
SPO2_LIMIT = (Decimal(90), Decimal(100))


class Unheard:
    """Discovery that tells nobody: for consumers that know the address."""

    def __init__(self, address: str) -> None:
        self.active_address = address

    def start(self) -> None:
        """Nothing runs."""

    def publish_service(self, *_: Any) -> None:
        """Tell nobody."""

    def clear_service(self, *_: Any) -> None:
        """Nothing was told."""


class FixedServer(HttpServerThreadBase):
    """The library's server at a port of our choice."""

    def __init__(self, host: str, port: int, context: Any) -> None:
        logger = get_logger_adapter("sdc.simulator")
        super().__init__(host, context, ["gzip"], logger)
        self._host, self._port, self._context = host, port, context

    def run(self) -> None:
        """Listen until stopped."""
        _ThreadingHTTPServer.allow_reuse_address = True
        opened: Any = _ThreadingHTTPServer(self.logger, (self._host, self._port), 0, self.supported_encodings)
        scheme = "http"
        if self._context is not None:
            opened.socket, scheme = self._context.wrap_socket(opened.socket, server_side=True), "https"
        mine: Any = self  # the library declares what it sets later as None
        mine.httpd, mine.base_url = opened, f"{scheme}://{self._host}:{opened.server_port}/"
        self.started_evt.set()
        opened.serve_forever(poll_interval=0.1)


class Monitor:
    """One monitor, switched on and off; a switch on is a new sequence with the same endpoint reference."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._contexts = (
            mk_ssl_contexts_from_folder(asked.tls, "key.pem", "cert.pem", "ca.pem") if asked.tls is not None else None
        )
        self._discovery: Any = None
        self._server: Any = None
        self._provider: Any = None
        self.mdib: Any = None
        self.port = asked.listen[1]
        self.clock_s = 0.0
        self._sensor = True
        self._removed: list[tuple[Any, Any]] = []
        self._turns = 0

    @property
    def address(self) -> str:
        """Return where it is found now."""
        return str(self._provider.get_xaddrs()[0])

    @property
    def is_on(self) -> bool:
        """Tell whether it runs."""
        return self._provider is not None

    def switch_on(self) -> None:
        """Start with a fresh MDIB."""
        self.mdib = ProviderMdib.from_mdib_file(MDIB, protocol_definition=SdcV1Definitions)
        host = self._asked.listen[0]
        if self._discovery is None:
            self._discovery = WSDiscovery(host) if self._asked.discovery else Unheard(host)
            self._discovery.start()
        context = self._contexts.server_context if self._contexts is not None else None
        self._server = FixedServer(
            host, self.port if self._asked.listen[1] or not self._asked.discovery else 0, context
        )
        self._server.start()
        if not self._server.started_evt.wait(START_TIMEOUT_S):
            raise RuntimeError("the port is taken")
        self.port = self._server.server_port
        self._provider = SdcProvider(
            self._discovery,
            ThisModelType("Simulated", "urn:x-simulated", "SDC Monitor", "1", None, None),
            ThisDeviceType("Simulated monitor", "1.0", "SIM-0014"),
            self.mdib,
            uuid.UUID(self._asked.epr),
            ssl_context_container=self._contexts,
            max_subscription_duration=SUBSCRIPTION_S,
        )
        self._provider.start_all(start_rtsample_loop=False, shared_http_server=self._server)
        self._sensor, self._removed = True, []
        self._tell_context()

    def switch_off(self, *, farewell: bool) -> None:
        """Stop; without a farewell no subscription is ended, as if the power had failed (Bye is said all the same)."""
        if self._provider is None:
            return
        self._server.stop()
        self._provider.stop_all(send_subscription_end=farewell)
        self._provider = None

    def play(self, vitals: BedVitals) -> None:
        """Send one set of numbers."""
        self._turns += 1
        cuff = self._turns % CUFF_EVERY == 1
        numbers = {"hr": vitals.heart_rate, "resp": vitals.resp_rate, "spo2": vitals.spo2, "pulse": vitals.pulse}
        if cuff:
            numbers |= {"nibp_sys": vitals.nibp_sys, "nibp_dia": vitals.nibp_dia, "nibp_mean": vitals.nibp_mean}
        out = {one.Handle for one, _ in self._removed}
        with self.mdib.metric_state_transaction(set_determination_time=False) as transaction:
            for handle, number in numbers.items():
                if handle not in out:
                    lacks = handle in ("spo2", "pulse") and not self._sensor
                    self._put(transaction.get_state(handle), None if lacks else Decimal(round(number)))
            if "averaging" not in out and self._turns == 1:
                self._put(transaction.get_state("averaging"), "normal")

    def play_waves(self, number: int, at: float) -> None:
        """Send piece `number` of each wave, which begins at a time."""
        out = {one.Handle for one, _ in self._removed}
        with self.mdib.rt_sample_state_transaction(set_determination_time=False) as transaction:
            for handle, (name, resolution) in WAVES.items():
                if handle in out:
                    continue
                state = transaction.get_state(handle)
                if state.MetricValue is None:
                    state.mk_metric_value()
                played = signal(name)
                state.MetricValue.Samples = [
                    Decimal(str(played.at(number * SAMPLES + place, RATE))).quantize(resolution)
                    for place in range(SAMPLES)
                ]
                state.MetricValue.DeterminationTime = at + self.clock_s
                good = handle != "pleth" or self._sensor
                state.MetricValue.MetricQuality.Validity = _validity(good)

    def obey(self, command: str) -> None:
        """Do what a line says. Raises KeyError for another word."""
        word, _, rest = command.partition(" ")
        acts: dict[str, Callable[[], None]] = {
            "alarm": lambda: self._alarm("spo2_low", rest),
            "sensor": lambda: self._plug_sensor(rest == "on"),
            "module": lambda: self._plug_in() if rest == "in" else self._unplug(),
            "demo": lambda: self._demonstrate(rest == "on"),
            "clock": lambda: self._set_clock(float(rest)),
        }
        acts[word]()

    def _put(self, state: Any, value: Any) -> None:
        if state.MetricValue is None:
            state.mk_metric_value()
        state.MetricValue.Value = value
        state.MetricValue.DeterminationTime = time.time() + self.clock_s
        state.MetricValue.MetricQuality.Validity = _validity(value is not None)

    def _tell_context(self) -> None:
        with self.mdib.context_state_transaction() as transaction:
            state = transaction.mk_context_state("patient", set_associated=True)
            state.CoreData.Familyname, state.CoreData.Givenname = "ZZTEST", "DEMO"
            state.Identification = [pm_types.InstanceIdentifier(root="urn:x-simulated", extension_string=PATIENT)]
        with self.mdib.alert_state_transaction() as transaction:
            state = transaction.get_state("spo2_low")
            state.Limits = pm_types.Range(lower=SPO2_LIMIT[0], upper=SPO2_LIMIT[1])
            state.MonitoredAlertLimits = pm_types.AlertConditionMonitoredLimits.ALL_ON
        self._provider.set_location(SdcLocation(fac="GENERAL", poc="ICU", bed="14"), [])

    def _alarm(self, handle: str, word: str) -> None:
        """Set an alarm's condition and its signals: on, off, or latched after it has gone."""
        present = {"on": "On", "off": "Off", "latch": "Latch"}[word]
        with self.mdib.alert_state_transaction() as transaction:
            transaction.get_state(handle).Presence = word == "on"
            for way in ("aud", "vis"):
                transaction.get_state(f"{handle}_{way}").Presence = pm_types.AlertSignalPresence(present)

    def _plug_sensor(self, plugged: bool) -> None:
        self._sensor = plugged
        self._alarm("spo2_sensor", "off" if plugged else "on")

    def _demonstrate(self, on: bool) -> None:
        with self.mdib.component_state_transaction() as transaction:
            mode = pm_types.MdsOperatingMode.DEMO if on else pm_types.MdsOperatingMode.NORMAL
            transaction.get_state("mds").OperatingMode = mode

    def _set_clock(self, seconds: float) -> None:
        self.clock_s += seconds

    def _unplug(self) -> None:
        module = list(_branch(self.mdib, "spo2_vmd"))
        self._removed = [(one, self.mdib.states.descriptor_handle.get_one(one.Handle)) for one in module]
        with self.mdib.descriptor_transaction() as transaction:
            transaction.remove_descriptor("spo2_vmd")

    def _plug_in(self) -> None:
        with self.mdib.descriptor_transaction() as transaction:
            for one, _ in self._removed:
                transaction.add_descriptor(one)
            for one, state in self._removed:
                state.descriptor_container = one
                transaction.add_state(state)
        self._removed = []


def _branch(mdib: Any, handle: str) -> Iterator[Any]:
    yield mdib.descriptions.handle.get_one(handle)
    for child in mdib.descriptions.parent_handle.get(handle, []):
        yield from _branch(mdib, child.Handle)


def _validity(good: bool) -> Any:
    return pm_types.MeasurementValidity.VALID if good else pm_types.MeasurementValidity.NA


class Play:
    """The course of one simulation: sets and waves in time, the script, the commands."""

    def __init__(self, monitor: Monitor, asked: argparse.Namespace, stopped: threading.Event) -> None:
        self._monitor, self._asked, self._stopped = monitor, asked, stopped
        self._script = Script(tuple(asked.fault))
        self._standing: set[str] = set()
        self._commands: queue.Queue[str] = queue.Queue()
        self._off_until: float | None = None
        self.sets = self.pieces = 0

    def run(self) -> None:
        """Play until stopped."""
        if self._asked.commands:
            threading.Thread(target=self._listen, name="commands", daemon=True).start()
        vitals = bed_vitals(self._asked.seed)
        started, epoch = time.monotonic(), time.time()
        turn, every = 0, max(1, round(self._asked.interval / TURN_S))
        while not self._stopped.wait(max(0.0, started + turn * TURN_S - time.monotonic())):
            age_s = turn * TURN_S
            self._follow(age_s)
            if self._monitor.is_on and not self._script.stands("silence", age_s):
                if turn % every == 0:
                    self._monitor.play(next(vitals))
                    self.sets += 1
                self._monitor.play_waves(turn, epoch + age_s)
                self.pieces += 1
            turn += 1

    def _follow(self, age_s: float) -> None:
        """Do what the script and the commands want by now."""
        for kind, (begin, end) in LASTING.items():
            stands = self._script.stands(kind, age_s)
            if stands != (kind in self._standing):
                self._standing ^= {kind}
                self._monitor.obey(begin if stands else end)
        if (step := self._script.take("clock", age_s)) is not None:
            self._monitor.obey(f"clock {step.seconds}")
        self._keep_power(self._script.stands("restart", age_s), age_s)
        while not self._commands.empty():
            command = self._commands.get()
            if command in ("restart", "die"):
                self._monitor.switch_off(farewell=command == "restart")
                self._off_until = age_s + self._asked.off
            elif self._monitor.is_on:
                self._monitor.obey(command)
            announce(did=command)

    def _keep_power(self, scripted_off: bool, age_s: float) -> None:
        off = scripted_off or (self._off_until is not None and age_s < self._off_until)
        if off and self._monitor.is_on:
            self._monitor.switch_off(farewell=False)
        elif not off and not self._monitor.is_on:
            self._monitor.switch_on()
            announce(on=True, address=self._monitor.address)

    def _listen(self) -> None:
        for line in sys.stdin:
            self._commands.put(line.strip())


def _arguments() -> argparse.Namespace:
    parser = make_parser("sdc", "A bedside monitor that speaks IEEE 11073 SDC.", "--discovery --fault alarm@10+5")
    add_listen(parser)
    parser.add_argument("--epr", default=EPR, metavar="UUID", help="endpoint reference")
    parser.add_argument("--discovery", action="store_true", help="answer WS-Discovery on the adapter of --listen")
    parser.add_argument("--tls", default=None, metavar="FOLDER", help="with cert.pem, key.pem and ca.pem: mutual TLS")
    parser.add_argument("--interval", type=float, default=1.0, metavar="S", help="between two sets (default 1)")
    parser.add_argument("--off", type=float, default=1.0, metavar="S", help="how long a restart takes (default 1)")
    parser.add_argument("--fault", type=read_step, action="append", default=[], metavar="KIND@START[+SECONDS]")
    parser.add_argument("--commands", action="store_true", help="take commands from standard input")
    parser.add_argument("--seed", type=int, default=1, help="which minute of the recording comes first")
    return parser.parse_args()


def main() -> None:
    """Run until SIGTERM."""
    logging.getLogger("sdc").setLevel(logging.CRITICAL + 1)
    asked = _arguments()
    stopped = stop_flag()
    monitor = Monitor(asked)
    monitor.switch_on()
    announce(port=monitor.port, address=monitor.address, epr=f"urn:uuid:{asked.epr}")
    play = Play(monitor, asked, stopped)
    play.run()
    monitor.switch_off(farewell=True)
    summarise(sets=play.sets, pieces=play.pieces)


if __name__ == "__main__":
    main()
