"""Mindray Patient Data Share: the kind of a message stands in MSH-10; values (204) and their flags (205) come apart.

204 (values of a module) --205 (flags)--> one Reading; without 205 for a second they go without
54, 56 are whole lists of alarms: what is not in the next list has ended
"""

from dataclasses import replace

from drivers.hl7_monitor.message import MonitorMessage, Segment, instant_of
from drivers.hl7_monitor.rows import Known, codes, observed, slug
from gateway.driver import Absent, Condition, DeviceIdentity, Observation, Phase, Priority, Result

ECHO = b"MSH|^~\\&|||||||ORU^R01|106|P|2.3.1|\r"
PATIENT, ECHOED, VALUES, FLAGS, APERIODIC = ("101", "103"), "106", "204", "205", "503"
PHYSIOLOGICAL, TECHNICAL = "54", "56"
NOTHING = "-100"
VALID = "3"
FLAG_CODE = "2037"
GAS = "gas"
LEVELS = {3: Priority.HIGH, 2: Priority.MEDIUM, 1: Priority.LOW, 0: Priority.ADVISORY}
ACTIVE_MAX = 500


class Pds:
    """What was heard of one monitor: who lies there, which alarms stand."""

    def __init__(self, utc_offset: str, gas_unit: str | None) -> None:
        """Take the site's words: the monitor tells neither zone nor units."""
        self._utc_offset = utc_offset
        self._gas_unit = gas_unit
        self._patient: str | None = None
        self._model: str | None = None
        self._alarms: dict[str, dict[str, Condition]] = {PHYSIOLOGICAL: {}, TECHNICAL: {}}

    def forget(self) -> None:
        """Forget who lies there and at which monitor."""
        self._patient = self._model = None

    def hear(self, message: MonitorMessage) -> None:
        """Note what a message of patient information says."""
        if message.control_id in PATIENT:
            self._patient = message.patient_id()
            for row in message.named("OBX"):
                if row.component(3, 1) == "2304":
                    self._model = row.text(5) or None

    def values(self, message: MonitorMessage, flags: MonitorMessage | None) -> tuple[Result, ...]:
        """Return the values of 204 or 503 with the flags of 205."""
        valid = _flags(flags) if flags is not None else {}
        observations = [
            self._observation(row, place, valid.get(row.component(3, 1)))
            for place, row in enumerate(message.named("OBX"), 1)
            if row.component(3, 1)
        ]
        return (self._result(observations, message),) if observations else ()

    def alarms(self, message: MonitorMessage) -> tuple[Result, ...]:
        """Return what stands, and what has ended since the last list of that kind."""
        kind = message.control_id
        standing = {found.code: found for row in message.named("OBX") if (found := _alarm(row, kind)) is not None}
        before, self._alarms[kind] = self._alarms[kind], dict(list(standing.items())[:ACTIVE_MAX])
        ended = [replace(one, phase=Phase.END) for code, one in before.items() if code not in standing]
        begun = [replace(one, phase=Phase.PRESENT if code in before else Phase.START) for code, one in standing.items()]
        if not ended and not begun:
            return ()
        return (replace(self._result([], message), conditions=(*begun, *ended)),)

    def _observation(self, row: Segment, place: int, flag: str | None) -> Observation:
        code, label, module = row.component(3, 1), row.component(3, 2), row.text(4)
        known = codes("mindray").get(code) or Known(f"x_mindray_{slug(label or code)}", None)
        if known.unit == GAS or (known.key == "etco2" and self._gas_unit is not None):
            known = Known(known.key, self._gas_unit)
        text = row.text(5)
        nothing = text.split(".")[0] == NOTHING
        absent = Absent.INV if flag is not None and flag != VALID else Absent.NAV if nothing else None
        level = module if module.isdecimal() and len(module) <= 6 else "1"
        return observed(
            known,
            text,
            sub=f"1.1.{level}.{place}",
            absent=absent,
            observed_at=instant_of(row.text(14), self._utc_offset),
            episodic=row.text(13) == "APERIODIC",
        )

    def _result(self, observations: list[Observation], message: MonitorMessage) -> Result:
        return Result(
            observations=tuple(observations),
            device=DeviceIdentity(manufacturer="Mindray", model=self._model),
            device_time=message.device_time(),
            patient_id=self._patient,
        )


def _flags(message: MonitorMessage) -> dict[str, str]:
    return {row.text(4): row.component(5, 1) for row in message.named("OBX") if row.component(3, 1) == FLAG_CODE}


def _alarm(row: Segment, kind: str) -> Condition | None:
    """Read `2|1|10033^**SpO2 TOO HIGH` (asterisks are the level) or `4||205^SpO2 Sensor Off`."""
    code, text = row.component(5, 1), row.component(5, 2)
    if not code and not text:
        return None
    plain = text.lstrip("*")
    level = min(len(text) - len(plain), 3)
    return Condition(
        code=(code or plain)[:64],
        text=plain or code,
        technical=kind == TECHNICAL,
        priority=LEVELS[level] if kind == PHYSIOLOGICAL else Priority.LOW,
    )
