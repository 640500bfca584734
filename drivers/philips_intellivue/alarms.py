"""Alarms: the alert monitor's lists of patient alarms and technical alarms ("inops") to Conditions (sheet section 13).

The lists show the present alarms; one that is no longer listed has ended. No alarm frame is in any public capture:
the layout rests on four public implementations.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from struct import Struct

from drivers.philips_intellivue.codes import EVENTS, PRIVATE_MIN, alarm_name, name_of, place_of
from drivers.philips_intellivue.values import elements, text_of
from gateway.driver import Condition, Phase, Priority
from gateway.errors import ContentError

PATIENT_ALARMS, TECHNICAL_ALARMS, ALERT_CONDITION = 0x0902, 0x0904, 0x0916
ALARMS_MAX = 64  # more at once are not described; what is beyond is left out and said so

INHIBITED, SUSPENDED, LATCHED, SILENCED, TEST_MODE, STANDBY, DEMO, NEW = (
    0x8000,
    0x4000,
    0x2000,
    0x1000,
    0x0400,
    0x0200,
    0x0100,
    0x0008,
)
GENERAL_INFO, TEXT_INFO = 0x0201, 0x0204
HIGH_LIMIT, LOW_LIMIT = 40, 62  # NOM_EVT_HI, NOM_EVT_LO
SENSOR_OFF = frozenset({22, 268, 274, 308, 336})  # disconnected: any, lead, leads, sensor, transducer

_ENTRY = Struct(">HHHHHHHHH")
_INFO = Struct(">HIHH")
_PRIORITIES = (
    (0x0404, Priority.HIGH),
    (0x0202, Priority.MEDIUM),
    (0x0101, Priority.LOW),
)
_VIOLATION = re.compile(r"(\d+(?:[.,]\d+)?)\s*[<>]\s*(\d+(?:[.,]\d+)?)\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One entry of an alarm list; `handle` is the object that alarms, `text` as the monitor shows it."""

    source: int
    code: int
    kind: int
    state: int
    handle: int
    instance: int
    text: str
    technical: bool

    @property
    def identity(self) -> tuple[int, int, int, int, bool]:
        """Return what stays the same while an alarm lasts."""
        return self.source, self.code, self.handle, self.instance, self.technical

    @property
    def means_sensor_off(self) -> bool:
        """Tell whether the alarm says that the sensor of its object is not on."""
        return self.technical and self.code in SENSOR_OFF


def alarms_of(values: dict[int, bytes]) -> tuple[Alarm, ...]:
    """Return the alarms in the attributes of an alert monitor, patient alarms first. Raises ContentError."""
    found: list[Alarm] = []
    for identity, technical in ((PATIENT_ALARMS, False), (TECHNICAL_ALARMS, True)):
        if (listed := values.get(identity)) is not None:
            found += _entries(elements(listed)[1], technical)
    return tuple(found[:ALARMS_MAX])


def conditions_of(before: Iterable[Alarm], now: Iterable[Alarm]) -> tuple[Condition, ...]:
    """Return the present alarms, then those that have ended since."""
    known = {alarm.identity for alarm in before}
    present = {alarm.identity for alarm in now}
    started = [condition_of(alarm, Phase.PRESENT if alarm.identity in known else Phase.START) for alarm in now]
    ended = [replace(condition_of(alarm), phase=Phase.END) for alarm in before if alarm.identity not in present]
    return (*started, *ended)


def condition_of(alarm: Alarm, phase: Phase = Phase.PRESENT) -> Condition:
    """Return an alarm as a Condition; a latched one is latched in any phase."""
    low, high = _limits(alarm)
    event, source = alarm_name(alarm.code), name_of(alarm.source)
    return Condition(
        code=f"{event} {source}",
        text=alarm.text or f"{event} of {source}",
        technical=alarm.technical,
        priority=next((priority for bits, priority in _PRIORITIES if alarm.kind & bits), Priority.ADVISORY),
        phase=Phase.LATCHED if alarm.state & LATCHED else phase,
        sub=f"1.{place_of(alarm.source)}.1.{alarm.source}",
        mdc=EVENTS + alarm.code if alarm.code < PRIVATE_MIN else None,
        low=low,
        high=high,
        silenced=bool(alarm.state & (SILENCED | SUSPENDED | INHIBITED)),
    )


def _entries(data: bytes, technical: bool) -> list[Alarm]:
    alarms, at = [], 0
    while at < len(data):
        if len(data) - at < _ENTRY.size:
            raise ContentError("an alarm that is cut short")
        source, code, kind, state, _, _, handle, info, size = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        if len(data) - at < size:
            raise ContentError("an alarm that is cut short")
        instance, text = _read_info(info, data[at : at + size])
        at += size
        alarms.append(
            Alarm(
                source=source,
                code=code,
                kind=kind,
                state=state,
                handle=handle,
                instance=instance,
                text=text,
                technical=technical,
            )
        )
    return alarms


def _read_info(kind: int, data: bytes) -> tuple[int, str]:
    """Return instance number and text; an unknown kind of info is passed over."""
    if kind not in (GENERAL_INFO, TEXT_INFO) or len(data) < _INFO.size:
        return 0, ""
    instance = _INFO.unpack_from(data)[0]
    return instance, text_of(data[_INFO.size :]) if kind == TEXT_INFO else ""


def _limits(alarm: Alarm) -> tuple[Decimal | None, Decimal | None]:
    """Return the violated limit as low or high; the text shows value and limit (`**HR 125>120`)."""
    shown = _VIOLATION.search(alarm.text)
    if shown is None or alarm.technical:
        return None, None
    limit = Decimal(shown[2].replace(",", "."))
    if alarm.code == HIGH_LIMIT:
        return None, limit
    return (limit, None) if alarm.code == LOW_LIMIT else (None, None)
