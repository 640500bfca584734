from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings

from gateway.formats.births import METRICS_MAX, Births, learn
from gateway.model import Absent, DeviceIdentity, Observation, Result
from tests.gateway.formats.results_of import ORIGIN, OXIMETER, results


def one(**seen: object) -> Result:
    return Result(observations=(Observation(key="spo2", sub="1.0.0.7", **seen),))  # type: ignore[arg-type]


@settings(max_examples=40)
@given(results())
def test_the_same_again_is_no_news(result: Result) -> None:
    known = learn(None, ORIGIN, result)

    assert learn(known, ORIGIN, result) == known


def test_new_values_are_no_news() -> None:
    known = learn(None, ORIGIN, one(value=Decimal(97), unit="%"))

    assert learn(known, ORIGIN, one(value=Decimal(98), unit="%")) == known


def test_a_value_that_is_missing_now_is_no_news() -> None:
    known = learn(None, ORIGIN, one(value=Decimal(97), unit="%"))

    assert learn(known, ORIGIN, one(absent=Absent.OFF)) == known


def test_a_metric_that_is_left_out_stays_known() -> None:
    known = learn(None, ORIGIN, OXIMETER)

    assert learn(known, ORIGIN, replace(OXIMETER, observations=OXIMETER.observations[:1])) == known


def test_a_new_metric_another_limit_and_another_serial_are_news() -> None:
    known = learn(None, ORIGIN, one(value=Decimal(97)))
    new = Observation(key="pulse_rate", sub="1.0.0.8", value=Decimal(60))

    assert len(learn(known, ORIGIN, Result(observations=(new,))).metrics) == 2
    assert learn(known, ORIGIN, one(value=Decimal(97), low=Decimal(90))).metrics[0].low == 90
    assert learn(known, ORIGIN, replace(one(value="x"), device=DeviceIdentity(serial="2"))).identity.serial == "2"


def test_an_identity_grows() -> None:
    known = learn(None, ORIGIN, replace(one(value="x"), device=DeviceIdentity(serial="2")))
    grown = learn(known, ORIGIN, replace(one(value="x"), device=DeviceIdentity(model="M")))

    assert grown.identity == DeviceIdentity(serial="2", model="M")


@pytest.mark.parametrize(
    "other",
    [
        DeviceIdentity(manufacturer="Example", model="B"),
        DeviceIdentity(manufacturer="Example", serial="S2"),
        DeviceIdentity(eui64="00A0370027000002"),
    ],
)
def test_another_device_at_the_same_source_is_not_completed_by_the_first(other: DeviceIdentity) -> None:
    first = DeviceIdentity(manufacturer="Example", model="A", serial="S1", software="1", eui64="00A0370027000001")
    known = learn(None, ORIGIN, replace(one(value="x"), device=first))

    assert learn(known, ORIGIN, replace(one(value="x"), device=other)).identity == other


def test_new_software_is_the_same_device() -> None:
    known = learn(None, ORIGIN, replace(one(value="x"), device=DeviceIdentity(serial="S1", software="1")))
    again = learn(known, ORIGIN, replace(one(value="x"), device=DeviceIdentity(software="2")))

    assert again.identity == DeviceIdentity(serial="S1", software="2")


def test_what_is_announced_is_bounded() -> None:
    seen = tuple(Observation(key="spo2", sub=f"1.0.0.{n}", value="x") for n in range(METRICS_MAX + 5))

    assert len(learn(None, ORIGIN, Result(observations=seen)).metrics) == METRICS_MAX


def test_a_result_without_device_rows_makes_no_named_system_generic() -> None:
    known = learn(None, ORIGIN, OXIMETER)
    alone = Result(observations=OXIMETER.observations[:1])

    assert learn(known, ORIGIN, alone) == known
    assert learn(learn(None, ORIGIN, alone), ORIGIN, OXIMETER).levels == known.levels


def test_what_told_nothing_new_is_passed_over_until_the_device_shows_something_else() -> None:
    births = Births()
    percent, ratio = one(value=Decimal(97), unit="%"), one(value=Decimal(1), unit="1")

    told = []
    for result in (percent, percent, ratio, percent, percent, one(value=Decimal(7), unit="%")):
        known = births.learn("bed-1", ORIGIN, result)
        told.append(known is not None)
        if known is not None:
            births.keep("bed-1", known)

    assert told == [True, False, True, True, False, False]


@settings(max_examples=40)
@given(results(), results())
def test_births_learn_what_learn_does(first: Result, second: Result) -> None:
    births, known = Births(), None
    for result in (first, second, first, first, second):
        expected = learn(known, ORIGIN, result)

        assert births.learn("bed-1", ORIGIN, result) == (expected if expected != known else None)
        births.keep("bed-1", expected)
        births.learn("bed-1", ORIGIN, result)
        known = expected
