"""The command codes of MEDIBUS and MEDIBUS.X (Protocol Definition 4.03; 23h of the Zeus generation: unverified)."""

from enum import IntEnum


class Code(IntEnum):
    """First byte behind ESC or SOH."""

    NAK = 0x15
    ALARMS_3 = 0x23
    DATA_1 = 0x24
    LOW_1 = 0x25
    HIGH_1 = 0x26
    ALARMS_1 = 0x27
    CLOCK = 0x28
    SETTINGS = 0x29
    TEXTS = 0x2A
    DATA_2 = 0x2B
    LOW_2 = 0x2C
    HIGH_2 = 0x2D
    ALARMS_2 = 0x2E
    NOP = 0x30
    TIME_CHANGED = 0x49
    CONFIGURE = 0x4A
    ICC = 0x51
    IDENTIFY = 0x52
    CURVES = 0x53
    CONFIGURE_CURVES = 0x54
    STOP = 0x55
    CURVES_CHANGED = 0x56
    SPECIFIC = 0x6A


DATA_PAGES = {Code.DATA_1: 1, Code.DATA_2: 2}
LOW_PAGES = {Code.LOW_1: 1, Code.LOW_2: 2}
HIGH_PAGES = {Code.HIGH_1: 1, Code.HIGH_2: 2}
ALARM_PAGES = {Code.ALARMS_1: 1, Code.ALARMS_2: 2, Code.ALARMS_3: 3}
