from dataclasses import replace

import pytest

from gateway.formats.origin import device_id_of, gateway_level, topic_level
from tests.gateway.formats.results_of import ORIGIN


def test_a_derived_identity_is_stable_local_and_individual() -> None:
    identity = device_id_of("ward-3a", "bed-12")

    assert identity == device_id_of("ward-3a", "bed-12") == "22E399249D6642E1"
    assert int(identity[:2], 16) & 0x03 == 0x02


def test_identities_differ_by_gateway_and_source() -> None:
    assert len({device_id_of(*names) for names in [("a", "b"), ("a", "bc"), ("ab", "c"), ("a", ""), ("b", "a")]}) == 5


@pytest.mark.parametrize(
    ("bed", "place"),
    [
        ("", {}),
        ("ICU^^12", {"point_of_care": "ICU", "bed": "12", "facility": "GENERAL"}),
        ("ICU^R7^B14^OTHER^x", {"point_of_care": "ICU", "room": "R7", "bed": "B14", "facility": "OTHER"}),
        ("12", {"point_of_care": "12", "facility": "GENERAL"}),
    ],
)
def test_a_bed_is_named_by_its_parts(bed: str, place: dict[str, str]) -> None:
    assert replace(ORIGIN, bed=bed).place() == place


def test_names_become_levels_of_a_topic() -> None:
    assert topic_level("bed_12.a") == "bed_12.a"
    assert topic_level("a/+#$ b") == "a-----b"
    assert gateway_level("Ward_3A." + "x" * 40) == "ward-3a-" + "x" * 24
