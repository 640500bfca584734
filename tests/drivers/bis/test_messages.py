import struct
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.bis.messages import MISSING_MAX, fields, read_processed, read_raw_eeg
from drivers.bis.picture import Picture
from gateway.errors import ContentError
from gateway.formats.terms import term
from simulators.bis import MISSING_TREND, frame, processed, spectra, trend

SHEET = Path(__file__).parents[3] / ".." / "shared" / "protocols" / "bis.md"
GOOD = trend(bis=42.3, sef=14.5, power=62.0, emg=27.1, quality=95)


@pytest.mark.skipif(not SHEET.exists(), reason="the protocol sheet lies beside the tree, in CI")
def test_the_simulator_says_the_worked_example_of_the_sheet_byte_for_byte() -> None:
    printed = SHEET.read_text("utf-8").partition("## 6.")[2].split("```")[1]

    assert frame(0x34, processed(GOOD, MISSING_TREND, GOOD), sequence=7) == bytes.fromhex(printed)


def test_scales_and_missing_values_are_those_of_the_example() -> None:
    found = read_processed(processed(GOOD, MISSING_TREND, GOOD), with_spectra=False)

    first, second, _ = (values for _, values in found.blocks)
    assert (first["bis"], first["sef95"], first["total_power"], first["emg"], first["sqi"], first["bsr"]) == tuple(
        map(Decimal, ("42.3", "14.50", "62.00", "27.10", "95.0", "0.0"))
    )
    assert {second[name] for name in ("bis", "sef95", "total_power", "emg", "sqi", "bsr")} == {None}
    assert (found.scale.gain, found.scale.offset) == (Decimal("0.05"), Decimal(-3234))
    assert (found.impedances, found.filter, found.smoothing) == (((5, 0), (6, 0)), 1, 15)


@pytest.mark.parametrize(("number", "is_missing"), [(MISSING_MAX, True), (-32768, True), (MISSING_MAX + 1, False)])
def test_a_value_is_missing_at_the_limit_and_below(number: int, is_missing: bool) -> None:
    block = struct.pack("<h", number) + GOOD[2:]

    (_, values), *_ = read_processed(processed(block, GOOD, GOOD), with_spectra=False).blocks

    assert (values["bsr"] is None) == is_missing


def test_both_spectra_are_read() -> None:
    found = read_processed(processed(GOOD, GOOD, GOOD) + spectra(0.5), with_spectra=True)

    assert [len(bins) for bins in found.spectra] == [60, 60]
    assert found.spectra[0][0] == Decimal("62.50")


def test_a_bilateral_message_has_four_blocks() -> None:
    block = struct.pack(
        "<9hhiiBBhhh3hh", 0, 1450, 700, 0, 423, 423, 423, 6200, 2710, 0, 950, 0, 3, 0, -5, 12, 34, *[0] * 4
    )
    head = bytes((1, 1, 1, 1)) + struct.pack("<HHhh4ih", 4, 0, 0, 0, 50, 1000, -3234, 1, 0)
    message = head.ljust(72, b"\0") + bytes(16) + struct.pack("<4I", 1, 15, 0, 0) + 4 * block + bytes(8)

    found = read_processed(message, with_spectra=False)

    assert len(message) == 288 and [name for name, _ in found.blocks] == [f"block_{n}" for n in (1, 2, 3, 4)]
    values = dict(found.blocks)["block_1"]
    assert [values[name] for name in ("bis", "sef50", "sqi", "bursts", "asymmetry", "sd_bis")] == [
        Decimal(text) for text in ("42.3", "7.00", "95.0", "3", "-5", "1.2")
    ]


@pytest.mark.parametrize("size", [0, 119, 121, 155, 287, 364])
def test_a_length_that_is_not_described_is_not_guessed(size: int) -> None:
    with pytest.raises(ContentError):
        read_processed(bytes(size), with_spectra=False)


def test_microvolts_follow_the_scale_of_the_processed_variables() -> None:
    picture = Picture()
    message = struct.pack("<hh4h", 2, 128, -3234, -3214, -3254, -3234)

    (result,) = picture.read_raw_eeg(message, 1)

    first, second = result.waves
    assert [sample * first.factor + first.offset for sample in first.samples if sample is not None] == [0, -1]
    assert (second.samples, second.unit, second.period_s) == ((-3214, -3234), "uV", Decimal("0.0078125"))


@given(message=st.binary(max_size=600), with_spectra=st.booleans())
@settings(max_examples=50, deadline=None)
def test_whatever_comes_is_read_or_refused_by_name(message: bytes, with_spectra: bool) -> None:
    for read in (lambda: read_processed(message, with_spectra), lambda: read_raw_eeg(message)):
        try:
            read()
        except ContentError as error:
            assert str(error)


def test_every_field_has_a_key_and_its_unit() -> None:
    for field in fields():
        assert field.key.startswith("x_bis_") or term(field.key).ucum == field.unit
