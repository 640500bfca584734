"""What a host may ask of the monitor (GE M1017617, pages 6 to 11). Nothing here changes anything at the patient.

There is no login and no acknowledgement: the monitor is silent until asked, goes on sending what was asked for, and
forgets all of it when it is switched off. Requests carry interface level 0; the monitor's records tell its own.
"""

import struct
from collections.abc import Sequence

from drivers.datex_s5.framing import HEADER_BYTES, encode
from drivers.datex_s5.record import ALARMS, PHYSIOLOGICAL, WAVES

DISPLAYED, TREND_10S, TREND_60S, AUXILIARY = 1, 2, 3, 4  # subrecord types of main type 0
BASIC, EXT1, EXT2, EXT3 = range(4)  # classes of physiological data
ONCE, STOP = -1, 0  # intervals that are none
INTERVAL_S_MIN, INTERVAL_S_MAX = 1, 3600

_NUMERICS = struct.Struct("<BhIh")
_WAVES = struct.Struct("<hh24s4x")
_ALARMS = struct.Struct("<h10x")
_WAVE_START, _WAVE_STOP = 0, 1
_WAVES_PLAIN = 8  # further ones only on CARESCAPE software 3
_WAVES_MAX = 24
_END = 0xFF
ALARMS_ONCE, ALARMS_ENTER, ALARMS_LEAVE = 0, 2, 3  # now; now and at every change; no more


def numerics_request(kind: int, interval_s: int, classes: Sequence[int]) -> bytes:
    """Return the frame that asks for displayed values, trends or auxiliary information.

    `interval_s` is ONCE, STOP or seconds; `classes` are BASIC to EXT3.
    """
    return _frame(PHYSIOLOGICAL, _NUMERICS.pack(kind, interval_s, _class_bits(classes), 0))


def _class_bits(classes: Sequence[int]) -> int:
    extended = sum(1 << number for number in set(classes) if number != BASIC)
    return extended | (0 if BASIC in classes or not extended else 1)  # bit 0 set: without the basic class


def wave_request(types: Sequence[int]) -> bytes:
    """Return the frame that asks for these wave types instead of those sent so far."""
    return _frame(WAVES, _WAVES.pack(_WAVE_START, 0, _wave_list(types)))


def wave_stop() -> bytes:
    """Return the frame that ends all waves."""
    return _frame(WAVES, _WAVES.pack(_WAVE_STOP, 0, _wave_list(())))


def _wave_list(types: Sequence[int]) -> bytes:
    ended = bytes(types) if len(types) in (_WAVES_PLAIN, _WAVES_MAX) else bytes((*types, _END))
    return ended.ljust(_WAVES_MAX, b"\0")


def alarm_request(command: int) -> bytes:
    """Return the frame that asks for the alarm status; commands are ALARMS_ONCE, ALARMS_ENTER and ALARMS_LEAVE."""
    return _frame(ALARMS, _ALARMS.pack(command))


def _frame(main_type: int, data: bytes) -> bytes:
    header = struct.pack("<h12xh", HEADER_BYTES + len(data), main_type)
    descriptors = struct.pack("<hBhB", 0, 0, 0, _END)
    return encode((header + descriptors).ljust(HEADER_BYTES, b"\0") + data)
