"""From an HL7 order to what an analyser is told when it asks."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ContentError
from gateway.formats.hl7 import read_header
from gateway.formats.lab_orders import is_lab_order, read_lab_orders
from gateway.laboratory import LabOrder, LabQuery
from gateway.sources.mllp_reading import Origin, read_frame
from gateway.store.lab_orders import orders_for
from gateway.store.store import Store
from tests.gateway.store.stores import keep, open_store

NOW = datetime(2026, 1, 1, 8, tzinfo=UTC)
ORIGIN = Origin(source="emr", peer="", encoding="utf-8")


def order(
    control: str, action: str, *tests: str, sample: str = "S0005", kind: str = "OML^O21", section: str = ""
) -> bytes:
    segments = [f"MSH|^~\\&|LIS|||GW|2026||{kind}|{control}|P|2.5.1", "PID|||ZZ1^^^H^MR||ZZTEST^Anna||19620714|F"]
    for test in tests:
        segments += [
            f"ORC|{action}|P{control}|F{control}",
            f"OBR|1|P{control}|F{control}|{test}^{test}^L|S|||||||||||||||||||{section}",
            "SPM|1|S0005^F9",
        ]
    return "".join(f"{segment}\r" for segment in segments).encode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def receive(store: Store, message: bytes) -> None:
    incoming = read_frame(message, ORIGIN, NOW).incoming
    assert incoming is not None
    keep(store, incoming)


def ask(store: Store, **query: object) -> tuple[LabOrder, ...]:
    return orders_for(store.readers.connection, LabQuery(**query))  # type: ignore[arg-type]


def test_what_was_ordered_is_told_by_any_number_of_the_tube(store: Store) -> None:
    receive(store, order("1", "NW", "GLU", "NA"))

    (by_sample,) = ask(store, sample_id="S0005")
    (by_filler,) = ask(store, sample_id="F1")
    (by_patient,) = ask(store, patient_id="ZZ1")

    assert by_sample.tests == by_filler.tests == by_patient.tests == ("GLU", "NA")
    assert (by_sample.sample_id, by_filler.sample_id) == ("S0005", "F1")
    assert (by_sample.name, by_sample.birth_date, by_sample.sex, by_sample.urgent) == (
        "ZZTEST^Anna",
        "19620714",
        "F",
        True,
    )


def test_what_was_cancelled_is_not_told(store: Store) -> None:
    receive(store, order("1", "NW", "GLU", "NA"))
    receive(store, order("2", "CA", "GLU"))

    (left,) = ask(store, sample_id="S0005")

    assert left.tests == ("NA",)


def test_a_question_for_some_tests_is_answered_with_those(store: Store) -> None:
    receive(store, order("1", "NW", "GLU", "NA", "K"))

    (some,) = ask(store, sample_id="S0005", tests=("K", "CL"))

    assert some.tests == ("K",)
    assert ask(store, sample_id="unknown") == ()
    assert ask(store) == ()


def test_an_order_of_radiology_is_none_of_the_laboratory(store: Store) -> None:
    receive(store, order("1", "NW", "CHEST", kind="ORM^O01", section="RAD"))
    receive(store, order("2", "NW", "GLU", kind="ORM^O01", section="CH"))

    (found,) = ask(store, sample_id="S0005")

    assert found.tests == ("GLU",)


@given(message=st.binary(max_size=300))
def test_whatever_comes_is_read_or_refused(message: bytes) -> None:
    raw = b"MSH|^~\\&|||||||OML^O21|1|P|2.5\r" + message
    try:
        header = read_header(raw)
    except ContentError:
        return

    assert is_lab_order(header)
    for change in read_lab_orders(raw, header, "utf-8", NOW):
        assert change.samples
        assert change.order.tests[0]
