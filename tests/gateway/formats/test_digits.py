"""What counts as a number, and how it is written."""

from decimal import Decimal

import pytest

from gateway.formats.digits import DIGITS_MAX, plain_digits, read_number


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("37.0", "37.0"),
        ("-0.50", "-0.50"),
        ("+5", "5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1.2E+3", "1200"),
        ("1e-3", "0.001"),
    ],
)
def test_a_number_keeps_its_digits(text: str, written: str) -> None:
    number = read_number(text)

    assert number is not None
    assert plain_digits(number) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1_0",
        "\uff11\uff12",
        "\u0663",
        " 12",
        "1 2",
        "NaN",
        "sNaN",
        "Infinity",
        "1E99",
        "1e5000",
        "9" * (DIGITS_MAX + 1),
    ],
)
def test_what_is_no_number_or_could_not_be_written_is_none(text: str) -> None:
    assert read_number(text) is None


def test_as_many_digits_as_a_feed_takes_are_a_number() -> None:
    assert read_number("9" * DIGITS_MAX) == Decimal("9" * DIGITS_MAX)
