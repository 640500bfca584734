"""Check characters of line and frame protocols: what each name means, over bytes.

xor        exclusive or of all bytes (NMEA 0183 and many instruments)
sum        sum modulo 256
lrc        two's complement of the sum, modulo 256 (Modbus ASCII, ISO 1155)
crc16-…    16-bit CRCs under their names in the CRC catalogue (polynomial, start value, reflection, final xor)
"""

from binascii import crc_hqx
from collections.abc import Callable
from functools import cache, reduce
from operator import xor
from typing import Literal, get_args

Kind = Literal[
    "xor", "sum", "lrc", "crc16-arc", "crc16-modbus", "crc16-kermit", "crc16-x25", "crc16-xmodem", "crc16-ccitt"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_POLY_8005_REFLECTED = 0xA001
_POLY_1021_REFLECTED = 0x8408


def check_of(kind: Kind, data: bytes) -> int:
    """Return the check value of bytes; one byte wide for `xor`, `sum` and `lrc`, two for the CRCs."""
    return _CHECKS[kind](data)


def width_of(kind: Kind) -> int:
    """Return how many bytes a check value has."""
    return 2 if kind.startswith("crc16") else 1


def _reflected(polynomial: int, start: int, final: int = 0) -> Callable[[bytes], int]:
    def check(data: bytes) -> int:
        table, value = _table(polynomial), start
        for byte in data:
            value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
        return value ^ final

    return check


@cache
def _table(polynomial: int) -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        return value

    return tuple(entry(number) for number in range(256))


_CHECKS: dict[Kind, Callable[[bytes], int]] = {
    "xor": lambda data: reduce(xor, data, 0),
    "sum": lambda data: sum(data) & 0xFF,
    "lrc": lambda data: -sum(data) & 0xFF,
    "crc16-arc": _reflected(_POLY_8005_REFLECTED, 0x0000),
    "crc16-modbus": _reflected(_POLY_8005_REFLECTED, 0xFFFF),
    "crc16-kermit": _reflected(_POLY_1021_REFLECTED, 0x0000),
    "crc16-x25": _reflected(_POLY_1021_REFLECTED, 0xFFFF, 0xFFFF),
    "crc16-xmodem": lambda data: crc_hqx(data, 0x0000),
    "crc16-ccitt": lambda data: crc_hqx(data, 0xFFFF),  # CRC-16/IBM-3740, often called CCITT-FALSE
}
