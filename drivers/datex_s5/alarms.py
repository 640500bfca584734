"""Alarms (main type 4): CARESCAPE monitors, interface level 10 or more (GE 8005313, pages 61 to 63).

The monitor shows up to five alarms, the most urgent first, as texts in its own language: only their colours say the
same everywhere. An alarm that was not there before starts; one that is gone has ended, unless five others are shown:
then it may only have been pushed out, and its end is told when there is room again.
"""

import struct

from gateway.errors import ContentError
from gateway.formats.observing import observe
from gateway.model import Condition, Method, Observation, Phase, Priority

STATUS_BYTES = 510  # with enumerations of 16 bits: UNVERIFIED, no capture exists
LINES = 5

_HEAD = struct.Struct("<hHhhH")
_LINE = struct.Struct("<80sHHH12x")
_PRIORITIES = {3: Priority.HIGH, 2: Priority.MEDIUM, 1: Priority.LOW}  # red, yellow, white
_ALL_SILENCED_MIN = 4
_SILENCE = {
    0: "none",
    1: "apnoea",
    2: "asystole",
    3: "apnoea and asystole",
    4: "all",
    5: "all for 2 min",
    6: "all for 5 min",
    7: "all for 20 s",
}


class AlarmList:
    """What the monitor shows; one for each Session."""

    def __init__(self) -> None:
        self._shown: dict[str, Priority] = {}

    def read(self, data: bytes) -> tuple[tuple[Observation, ...], tuple[Condition, ...]]:
        """Take a status record; return the state of the sound and the alarms with their phases.

        Raises ContentError when it has another length than the published one.
        """
        if len(data) != STATUS_BYTES:
            raise ContentError(f"alarm status of {len(data)} bytes, expected {STATUS_BYTES}")
        _, sound, _, _, silence = _HEAD.unpack_from(data)
        shown = dict(_lines(data))
        silenced = sound == 0 or silence >= _ALL_SILENCED_MIN
        ended = () if len(shown) == LINES else tuple(self._shown.keys() - shown.keys())
        conditions = [
            _condition(text, priority, Phase.PRESENT if text in self._shown else Phase.START, silenced)
            for text, priority in shown.items()
        ]
        conditions += [_condition(text, self._shown[text], Phase.END, silenced) for text in sorted(ended)]
        hidden = {text: priority for text, priority in self._shown.items() if text not in ended}
        self._shown = dict(list((shown | hidden).items())[: 2 * LINES])
        return _sound(sound, silence), tuple(conditions)


def _lines(data: bytes) -> list[tuple[str, Priority]]:
    found = []
    for number in range(LINES):
        text, _, colour, _ = _LINE.unpack_from(data, _HEAD.size + number * _LINE.size)
        words = text.partition(b"\0")[0].decode("latin-1").strip()
        if words:
            found.append((words, _PRIORITIES.get(colour, Priority.ADVISORY)))
    return found


def _condition(text: str, priority: Priority, phase: Phase, silenced: bool) -> Condition:
    # Whether patient or equipment is meant stands in the text alone, in any language: taken as the patient's.
    return Condition(code=text, text=text, technical=False, priority=priority, phase=phase, silenced=silenced)


def _sound(sound: int, silence: int) -> tuple[Observation, ...]:
    return (
        observe("x_datex_alarm_sound", "on" if sound else "off", sub="1.0.0.5", method=Method.SETTING_MANUAL),
        observe(
            "x_datex_alarm_silence",
            _SILENCE.get(silence, str(silence)),
            sub="1.0.0.6",
            method=Method.SETTING_MANUAL,
        ),
    )
