import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.checksums import KINDS, Kind, check_of, width_of

CHECK_INPUT = b"123456789"  # what the CRC catalogue gives each CRC's `check` for
KNOWN: dict[Kind, int] = {
    "xor": 0x31,
    "sum": 0xDD,
    "lrc": 0x23,
    "crc16-arc": 0xBB3D,
    "crc16-modbus": 0x4B37,
    "crc16-kermit": 0x2189,
    "crc16-x25": 0x906E,
    "crc16-xmodem": 0x31C3,
    "crc16-ccitt": 0x29B1,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_the_catalogue_value(kind: Kind) -> None:
    assert check_of(kind, CHECK_INPUT) == KNOWN[kind]


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(max_size=200))
def test_a_check_value_fits_its_width(kind: Kind, data: bytes) -> None:
    assert 0 <= check_of(kind, data) < 256 ** width_of(kind)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.binary(min_size=1, max_size=60), place=st.integers(0, 59), bit=st.integers(0, 7))
def test_one_flipped_bit_is_always_noticed(kind: Kind, data: bytes, place: int, bit: int) -> None:
    damaged = bytearray(data)
    damaged[place % len(data)] ^= 1 << bit

    assert check_of(kind, bytes(damaged)) != check_of(kind, data)
