"""What is known of one Device so far, and how its answers become Results.

Answers carry only what is valid now: a code that was there before and is missing is told as not available, an alarm
that is missing has ended. Limits are remembered and stand beside their values.

Numbers in the containment tree: 1.1.1.n measured values (n = code + 1, page 2 from 257 on), 1.1.2.n settings,
1.1.3.n text messages, 1.1.4.n curves.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from drivers.medibus.codes import ALARM_PAGES, DATA_PAGES, HIGH_PAGES, LOW_PAGES, Code
from drivers.medibus.content import (
    DATA_VALUE_CHARS,
    SETTING_VALUE_CHARS,
    Alarm,
    Identity,
    read_alarms,
    read_clock,
    read_identity,
    read_texts,
    read_values,
)
from drivers.medibus.quantities import Limits, observation, scaled
from drivers.medibus.tables import Model, Profile, Quantity, TextKind, models, tables
from gateway.driver import (
    Condition,
    Containment,
    DeviceIdentity,
    Method,
    Observation,
    Phase,
    Priority,
    Result,
    Wave,
)
from gateway.formats.terms import device_code

MANUFACTURER = "Dräger"
CLOCK_FRESH_S = 1.0  # a Device time older than this is not that of the values
TEXTS_AGAIN_S = 9.5  # unchanged texts are told every 10 s; at 10.0 jitter would decide which poll it is

_ADVISORY_MAX, _ADVISORY_TONE_MAX, _CAUTION_MAX = 6, 10, 24  # bands used in practice; 25 to 31 warn
_PAGE_CODES = 256
_COMPUTER = "0161"  # what a PC calls itself: heard where both lines are tapped


@dataclass(frozen=True, slots=True)
class _Told:
    """Text messages as they were last published."""

    texts: tuple[tuple[str, str], ...]
    at: float


class Picture:
    """One Device as its answers draw it. `profile` None: chosen by the Device's identification."""

    def __init__(self, profile: Profile | None = None) -> None:
        self._asked_profile = profile
        self._profile: Profile = profile or "common"
        self.identity: Identity | None = None
        self.model: Model | None = None
        self.simulated = False
        self._device = DeviceIdentity(manufacturer=MANUFACTURER)
        self._containment = _containment(None)
        self._known: dict[int, dict[str, None]] = {}  # codes seen so far, by the command that carries them
        self._limits: dict[tuple[Code, str], Decimal] = {}
        self._alarms: dict[int, dict[str, Alarm]] = {}
        self._stood: dict[int, dict[str, Alarm]] = {}  # before communication began anew, and not heard of since
        self._told: _Told | None = None
        self._clock: tuple[str, datetime | None, float] | None = None

    def restart(self) -> None:
        """Take notice that communication begins anew, perhaps with another Device: everything is told again.

        Alarms that were told are kept so that their end is told, and stand beside no value until they are heard again.
        """
        self._told = None
        self._clock = None
        self._limits.clear()
        self._stood |= self._alarms
        self._alarms.clear()

    def read(self, code: int, data: bytes, now: float) -> tuple[Result, ...]:
        """Take the answer to a command; return what it tells. Raises ContentError for a wrong shape."""
        if code in DATA_PAGES:
            return self._read_data(Code(code), data, now)
        if code in LOW_PAGES or code in HIGH_PAGES:
            self._read_limits(Code(code), data)
        elif code in ALARM_PAGES:
            return self._read_alarms(ALARM_PAGES[Code(code)], data)
        elif code == Code.SETTINGS:
            return self._read_settings(data)
        elif code == Code.TEXTS:
            return self._read_texts(data, now)
        elif code == Code.CLOCK:
            clock = read_clock(data)
            self._clock = None if clock is None else (*clock, now)
        elif code == Code.IDENTIFY:
            return self._identify(read_identity(data))
        elif code == Code.SPECIFIC and data:
            return self._read_specific(data)
        return ()

    def result(
        self,
        observations: tuple[Observation, ...] = (),
        conditions: tuple[Condition, ...] = (),
        waves: tuple[Wave, ...] = (),
    ) -> Result:
        """Return a Result of this Device."""
        return Result(
            observations=observations,
            conditions=conditions,
            waves=waves,
            device=self._device,
            containment=self._containment,
        )

    def _identify(self, identity: Identity | None) -> tuple[Result, ...]:
        if identity is None or identity == self.identity or identity.id == _COMPUTER:
            return ()
        ended = () if self.identity is None else self._end_alarms()  # another Device on the same line
        if self.identity is not None:
            self._known.clear()
            self._limits.clear()
        self.identity = identity
        self.model = models().get(identity.id)
        if self._asked_profile is None:
            self._profile = self.model.profile if self.model is not None else "common"
        self._device = DeviceIdentity(
            manufacturer=MANUFACTURER, model=identity.name, software=identity.device_revision or None
        )
        self._containment = _containment(self.model)
        return ended

    def _end_alarms(self) -> tuple[Result, ...]:
        """End all alarms: what is asked next belongs to another Device, or to a simulation."""
        ended = tuple(
            self._condition(page, alarm, Phase.END)
            for page, alarms in sorted((self._stood | self._alarms).items())
            for alarm in alarms.values()
        )
        self._alarms.clear()
        self._stood.clear()
        return (self.result(conditions=ended),) if ended else ()

    def _read_data(self, code: Code, data: bytes, now: float) -> tuple[Result, ...]:
        page = DATA_PAGES[code]
        values = dict(read_values(data, DATA_VALUE_CHARS))
        known = self._known.setdefault(code, {})
        known |= dict.fromkeys(values)
        present = {self._quantity(page, found).key for found in values}
        seen = tuple(
            self._measured(page, found, values.get(found))
            for found in known
            if found in values or self._quantity(page, found).key not in present
        )
        conditions = self._pending()
        if not seen and not conditions:
            return ()
        return (self._timed(self.result(seen, conditions), now),)

    def _timed(self, result: Result, now: float) -> Result:
        if self._clock is None or now - self._clock[2] > CLOCK_FRESH_S:
            return result
        return replace(result, device_time=self._clock[0], device_clock=self._clock[1])

    def _measured(self, page: int, code: str, text: str | None) -> Observation:
        quantity = self._quantity(page, code)
        value = None if text is None else scaled(quantity, text)
        return observation(quantity, value, _measured_sub(page, code), limits=self._limits_of(page, code))

    def _quantity(self, page: int, code: str) -> Quantity:
        found = tables(self._profile).data.get((page, code))
        return found or _unknown(f"x_medibus_data_{page}_{code.lower()}")

    def _read_limits(self, command: Code, data: bytes) -> None:
        page = (LOW_PAGES | HIGH_PAGES)[command]
        values = read_values(data, DATA_VALUE_CHARS)
        self._limits = {place: limit for place, limit in self._limits.items() if place[0] is not command}
        known = self._known.setdefault(_data_command(page), {})
        for code, text in values:
            limit = scaled(self._quantity(page, code), text)
            if isinstance(limit, Decimal):
                self._limits[command, code] = limit
                known[code] = None

    def _limits_of(self, page: int, code: str) -> Limits:
        """Return the limits of a code, or those that another code of the same quantity carries."""
        low, high = (Code.LOW_1, Code.HIGH_1) if page == 1 else (Code.LOW_2, Code.HIGH_2)
        return Limits(self._limit(low, page, code), self._limit(high, page, code))

    def _limit(self, command: Code, page: int, code: str) -> Decimal | None:
        if (own := self._limits.get((command, code))) is not None:
            return own
        wanted = self._quantity(page, code)
        for (carried, other), limit in self._limits.items():
            found = self._quantity(page, other)
            if carried is command and (found.key, found.unit) == (wanted.key, wanted.unit):
                return limit
        return None

    def _read_alarms(self, page: int, data: bytes) -> tuple[Result, ...]:
        alarms = {alarm.code: alarm for alarm in read_alarms(data)}
        before = self._alarms.get(page, {}) or self._stood.pop(page, {})
        self._alarms[page] = alarms
        if {code: alarm.priority for code, alarm in alarms.items()} == {
            code: alarm.priority for code, alarm in before.items()
        }:
            return ()
        now = tuple(
            self._condition(page, alarm, Phase.PRESENT if code in before else Phase.START)
            for code, alarm in alarms.items()
        )
        over = tuple(self._condition(page, alarm, Phase.END) for code, alarm in before.items() if code not in alarms)
        return (self.result((), now + over),)

    def _pending(self) -> tuple[Condition, ...]:
        return tuple(
            self._condition(page, alarm, Phase.PRESENT)
            for page, alarms in sorted(self._alarms.items())
            for alarm in alarms.values()
        )

    def _condition(self, page: int, alarm: Alarm, phase: Phase) -> Condition:
        kind = tables(self._profile).alarms.get((page, alarm.code))
        name = alarm.phrase if kind is None or kind.name == alarm.phrase else f"{kind.name} ({alarm.phrase})"
        concerned = self._concerned(kind.concerns if kind is not None else ())
        limits = Limits() if concerned is None else self._limits_of(1, concerned)
        return Condition(
            code=f"{page}/{alarm.code}",
            text=f"{name}, priority {alarm.priority} of 31",
            technical=kind is None or kind.technical,
            priority=_priority(alarm.priority),
            phase=phase,
            sub=None if concerned is None else _measured_sub(1, concerned),
            mdc=None if kind is None else kind.mdc,
            low=limits.low,
            high=limits.high,
        )

    def _concerned(self, codes: tuple[str, ...]) -> str | None:
        known = self._known.get(Code.DATA_1, {})
        return next((code for code in codes if code in known), None)

    def _read_settings(self, data: bytes) -> tuple[Result, ...]:
        values = dict(read_values(data, SETTING_VALUE_CHARS))
        known = self._known.setdefault(Code.SETTINGS, {})
        known |= dict.fromkeys(values)
        seen = tuple(self._setting(code, values.get(code)) for code in known)
        return (self.result(seen),) if seen else ()

    def _setting(self, code: str, text: str | None) -> Observation:
        found = tables(self._profile).settings.get(code) or _unknown(f"x_medibus_set_{code.lower()}")
        value = None if text is None else scaled(found, text)
        return observation(found, value, f"1.1.2.{int(code, 16) + 1}", method=Method.SETTING_MANUAL)

    def _read_texts(self, data: bytes, now: float) -> tuple[Result, ...]:
        texts = tuple(read_texts(data))
        was_simulated, self.simulated = (
            self.simulated,
            any(self._text_kind(code).role == "simulation" for code, _ in texts),
        )
        if self.simulated != was_simulated:
            self._told = None
            ended = self._end_alarms()
            if self.simulated:
                return ended
        if self._told is not None and self._told.texts == texts and now - self._told.at < TEXTS_AGAIN_S:
            return ()
        self._told = _Told(texts, now)
        shown = {code: text for code, text in texts if self._text_kind(code).role not in ("name", "mode")}
        known = self._known.setdefault(Code.TEXTS, {})
        known |= dict.fromkeys(shown)
        seen = tuple(self._text(code, shown.get(code)) for code in known)
        seen = (*self._mode(texts), *seen)
        return (self.result(seen),) if seen else ()

    def _text_kind(self, code: str) -> TextKind:
        return tables(self._profile).texts.get(code) or TextKind("", "")

    def _mode(self, texts: tuple[tuple[str, str], ...]) -> tuple[Observation, ...]:
        modes = [(code, text) for code, text in texts if self._text_kind(code).role == "mode"]
        if not modes:
            return ()
        shown = " + ".join(text.removeprefix("Mode ").strip() or self._text_kind(code).text for code, text in modes)
        return (observation(_MODE, shown, "1.1.3.257", method=Method.SETTING_MANUAL),)

    def _text(self, code: str, text: str | None) -> Observation:
        value = None if text is None else text or self._text_kind(code).text or code
        return observation(_unknown(f"x_medibus_text_{code.lower()}"), value, f"1.1.3.{int(code, 16) + 1}")

    def _read_specific(self, data: bytes) -> tuple[Result, ...]:
        which, text = chr(data[0]), data[1:].decode("ascii", "replace").strip()
        found = _unknown(f"x_medibus_specific_{which.lower() if which.isalnum() else data[0]}")
        return (self.result((observation(found, text or None, f"1.1.5.{data[0] + 1}"),)),)


_MODE = Quantity("vent_mode", None, None, None, None, "Ventilation mode")


def _unknown(key: str) -> Quantity:
    return Quantity(key, None, None, None, None, key)


def _measured_sub(page: int, code: str) -> str:
    return f"1.1.1.{(page - 1) * _PAGE_CODES + int(code, 16) + 1}"


def _data_command(page: int) -> Code:
    return Code.DATA_1 if page == 1 else Code.DATA_2


def _priority(number: int) -> Priority:
    if number <= _ADVISORY_MAX:
        return Priority.ADVISORY
    if number <= _ADVISORY_TONE_MAX:
        return Priority.LOW
    return Priority.MEDIUM if number <= _CAUTION_MAX else Priority.HIGH


def _containment(model: Model | None) -> tuple[Containment, ...]:
    """Return the rows above the metrics; the anaesthesia MDS follows its VMD's term by the rule of device_rows.py."""
    vmd, channel = "MDC_DEV_VMD", "MDC_DEV_CHAN"
    rows: tuple[Containment, ...] = ()
    if model is not None and model.kind == "ventilator":
        vmd, mds = "MDC_DEV_SYS_PT_VENT_VMD", "MDC_DEV_SYS_PT_VENT_MDS"
        rows = (Containment(sub="1.0.0.0", code=device_code(mds), refid=mds),)
    elif model is not None and model.kind == "anaesthesia":
        vmd = "MDC_DEV_SYS_ANESTH_VMD"
        rows = (Containment(sub="1.0.0.0", code=device_code(vmd) - 1, refid="MDC_DEV_SYS_ANESTH_MDS"),)
    rows += (Containment(sub="1.1.0.0", code=device_code(vmd), refid=vmd),)
    return rows + tuple(
        Containment(sub=f"1.1.{number}.0", code=device_code(channel), refid=channel) for number in range(1, 5)
    )
