"""Faults of `[worklist]` and of a Source's `orders` that types do not show."""

from gateway.configfile.worklist_checks import worklist_findings


def texts(tables: dict[str, object]) -> list[str]:
    return [str(finding.fault) for finding in worklist_findings(tables)]


def test_zones_sets_fields_and_attributes_that_are_none_are_told_with_their_place() -> None:
    tables: dict[str, object] = {
        "worklist": {"timezone": "Mars/North", "view": [{"character_sets": ["ISO_IR 100", "ISO_IR 999"]}]},
        "source": [
            {"orders": {"timezone": "Nowhere", "fields": {"AccessionNumber": ["OBR"], "Nonsense": ["OBR-1"]}}},
            {"assumed_character_sets": ["LATIN"]},
        ],
    }

    found = texts(tables)

    assert [text.partition(":")[0] for text in found] == [
        "worklist.timezone",
        "worklist.view[0].character_sets[1]",
        "source[0].orders.timezone",
        "source[0].orders.fields.AccessionNumber[0]",
        "source[0].orders.fields.Nonsense",
        "source[1].assumed_character_sets[0]",
    ]


def test_what_is_right_or_of_another_type_is_passed_over() -> None:
    right = {
        "worklist": {"timezone": "Europe/Berlin", "view": [{"character_sets": ["\\ISO 2022 IR 87"]}, 7]},
        "source": [{"orders": {"fields": {"AccessionNumber": ["OBR-18.1"]}}}, {"orders": 3}],
    }

    assert texts(right) == [] and texts({"worklist": 1, "source": "x"}) == []
