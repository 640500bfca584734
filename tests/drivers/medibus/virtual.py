"""A Session and the simulated Device on one wire, in virtual time: a minute passes in a moment."""

from collections.abc import Callable

from drivers.medibus import Medibus
from gateway.driver import Reading, Session
from gateway.model import Observation, Result, Wave
from simulators.medibus import MedibusDevice
from simulators.medibus_models import MODELS
from simulators.script import Script, read_step

STEP_S = 0.02


class Wire:
    """Both ends; what the Device says goes through `spoil` first."""

    def __init__(self, model: str, *faults: str, simulation: bool = False, **options: object) -> None:
        steps = Script(tuple(read_step(fault) for fault in faults))
        self.device = MedibusDevice(MODELS[model], script=steps, simulation=simulation)
        self.session: Session = Medibus(**options).open()  # type: ignore[arg-type]
        self.now = 0.0
        self.readings: list[tuple[float, Reading]] = []
        self.said: list[bytes] = []
        self.heard: list[bytes] = []
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self.unheard: bytes | None = None  # a command that never reaches the Device

    def run(self, seconds: float) -> "Wire":
        end = self.now + seconds
        while self.now < end:
            self.now = round(self.now + STEP_S, 6)
            if self.session.deadline is not None and self.session.deadline <= self.now:
                self.session.tick(self.now)
            if said := self.session.take_output():
                self.said.append(said)
                self.device.receive(said.replace(self.unheard, b"") if self.unheard else said, self.now)
            self.device.tick(self.now)
            for piece in self.device.take_output():
                self.heard.append(piece)
                self.session.receive(self.spoil(piece), self.now)
            self.readings += [(self.now, reading) for reading in self.session.take_readings()]
        return self

    @property
    def results(self) -> list[Result]:
        return [result for _, reading in self.readings for result in reading.results]

    @property
    def faults(self) -> list[str]:
        return [reading.fault for _, reading in self.readings if reading.fault is not None]

    def seen(self, key: str) -> list[Observation]:
        return [item for result in self.results for item in result.observations if item.key == key]

    def waves(self, key: str) -> list[Wave]:
        return [wave for result in self.results for wave in result.waves if wave.key == key]
