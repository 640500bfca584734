import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.datex_s5.record import HEADER_BYTES, parse
from gateway.driver import ContentError


@given(table=st.binary(min_size=24, max_size=24), body=st.binary(max_size=60), level=st.integers(0, 255))
def test_whatever_the_table_of_subrecords_says_a_record_is_read_or_refused(
    table: bytes, body: bytes, level: int
) -> None:
    record = bytearray(HEADER_BYTES) + body
    record[3], record[16 : 16 + len(table)] = level, table

    try:
        parse(bytes(record[: HEADER_BYTES + len(body)]))
    except ContentError:
        return


def test_a_record_whose_table_is_empty_is_refused() -> None:
    record = bytearray(HEADER_BYTES + 10)
    record[3], record[18] = 10, 0xFF

    with pytest.raises(ContentError):
        parse(bytes(record))
