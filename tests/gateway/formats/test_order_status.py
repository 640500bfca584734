"""A procedure step as HL7 order status: groups, codes, names, and the same bytes again."""

import json
from datetime import UTC, datetime
from typing import Any

import hl7
import pytest
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dataset import Attributes, Element
from gateway.errors import ContentError
from gateway.formats.identifiers import to_json
from gateway.formats.order_status import render_order_status, with_numbers
from gateway.formats.origin import Origin
from gateway.model import Delivery, DeliveryState, Kind, Message, Parcel

ORIGIN = Origin(
    gateway="ward-3a", facility="GENERAL", source="imaging", bed="", device_id="02" * 8, gateway_eui64="0A" * 8
)
STATUS, START, END = 0x00400252, (0x00400244, 0x00400245), (0x00400250, 0x00400251)


def text(vr: str, *values: str) -> Element:
    return Element(vr, values)


def code(value: str, meaning: str, scheme: str) -> Element:
    return Element(
        "SQ",
        items=({0x00080100: text("SH", value), 0x00080102: text("SH", scheme), 0x00080104: text("LO", meaning)},),
    )


def step(state: str = "COMPLETED", **more: Element) -> dict[int, Element]:
    return {
        STATUS: text("CS", state),
        START[0]: text("DA", "20260101"),
        START[1]: text("TM", "0800.123"),
        END[0]: text("DA", "20260101"),
        END[1]: text("TM", "081530"),
        0x00080060: text("CS", "CT"),
        0x00100010: text("PN", "Modality^Name"),
        0x00100020: text("LO", "ZZ9"),
    }


def order(number: int = 1, **changes: object) -> dict[int, Element]:
    namespace = Element("SQ", items=({0x00400031: text("UT", "OP")},))
    return {
        0x0020000D: text("UI", f"1.2.{number}"),
        0x00080050: text("SH", f"A{number}"),
        0x00401001: text("SH", f"RP{number}"),
        0x00400009: text("SH", f"S{number}"),
        0x00402016: text("LO", f"P{number}"),
        0x00400026: namespace,
        0x00402017: text("LO", f"F{number}"),
        0x00321064: code("CTTHOR", "CT thorax", "99LOCAL"),
        0x00100010: text("PN", "ZZTEST^Anna^M^Dr^Jr=x=y"),
        0x00100020: text("LO", "ZZ1"),
        0x00100021: text("LO", "GENHOSP"),
        0x00100030: text("DA", "19620714"),
        0x00100040: text("CS", "F"),
    }


def parcel(performed: Attributes, known: list[Attributes], **headers: str) -> Parcel:
    told = {"step": to_json(performed), "orders": json.dumps([json.loads(to_json(each)) for each in known])} | headers
    message = Message(
        id=5,
        source="imaging",
        kind=Kind.MPPS,
        received_at=datetime(2026, 1, 1, 7, 16, tzinfo=UTC),
        size=0,
        digest=b"",
        peer=None,
        identifier="1.2.3",
        observed_at=None,
        raw=b"",
        object_name=None,
        result=None,
        headers=told,
        quarantined=None,
    )
    delivery = Delivery(
        id=9, message_id=5, destination="ris", state=DeliveryState.PENDING, ordinal=1, control_id="ABCD-9"
    )
    return Parcel(delivery=delivery, message=message)


def rendered(performed: Attributes, orders: list[Attributes], form: Any = "orm-o01") -> Any:
    return hl7.parse(render_order_status(parcel(performed, orders), ORIGIN, form).decode())


@pytest.mark.parametrize(("state", "status"), [("IN PROGRESS", "IP"), ("COMPLETED", "CM"), ("DISCONTINUED", "DC")])
@pytest.mark.parametrize("form", ["orm-o01", "omi-o23"])
def test_the_status_of_the_order_is_the_status_of_the_step(state: str, status: str, form: str) -> None:
    message = rendered(step(state), [order()], form)

    assert str(message["ORC"][0][1]) == "SC"
    assert str(message["ORC"][0][5]) == status
    assert str(message["ORC"][0][2]) == "P1^OP"
    assert str(message["ORC"][0][3]) == "F1"


def test_an_orm_names_the_step_in_its_obr_and_the_study_in_zds() -> None:
    message = rendered(step(), [order()])

    fields = {number: str(message["OBR"][0][number]) for number in (4, 7, 8, 18, 19, 20, 22, 24)}
    assert fields == {
        4: "CTTHOR^CT thorax^99LOCAL",
        7: "202601010800",
        8: "20260101081530",
        18: "A1",
        19: "RP1",
        20: "S1",
        22: "20260101071600.000+0000",
        24: "CT",
    }
    assert str(message["ZDS"][0][1]) == "1.2.1^ward-3a^Application^DICOM"
    assert str(message["MSH"][0][9]) == "ORM^O01^ORM_O01"
    assert str(message["MSH"][0][10]) == "ABCD-9"


def test_an_omi_names_them_in_ipc() -> None:
    message = rendered(step(), [order()], "omi-o23")

    assert str(message["IPC"][0]) == "IPC|A1|RP1|1.2.1|S1|CT"
    assert str(message["MSH"][0][9]) == "OMI^O23^OMI_O23"
    assert not [segment for segment in message if str(segment[0]) == "ZDS"]


def test_the_patient_is_the_orders_and_not_the_modalitys() -> None:
    message = rendered(step(), [order()])

    pid = message["PID"][0]
    assert [str(pid[number]) for number in (3, 5, 7, 8)] == ["ZZ1^^^GENHOSP", "ZZTEST^Anna^M^Jr^Dr", "19620714", "F"]


def test_several_orders_are_several_groups() -> None:
    message = rendered(step(), [order(1), order(2)], "omi-o23")

    assert [str(segment[0]) for segment in message] == ["MSH", "PID", "ORC", "OBR", "IPC", "ORC", "OBR", "IPC"]
    assert [str(each[2]) for each in message["ORC"]] == ["P1^OP", "P2^OP"]
    assert [str(each[1]) for each in message["OBR"]] == ["1", "2"]


def test_a_step_that_was_not_scheduled_is_told_without_order_numbers() -> None:
    message = rendered(step(), [{0x0020000D: text("UI", "1.2.9")}])

    assert str(message["ORC"][0][2]) == ""
    assert str(message["PID"][0][3]) == "ZZ9"
    assert str(message["ZDS"][0][1]).startswith("1.2.9^")


def test_why_a_step_was_given_up_is_told() -> None:
    given_up = {**step("DISCONTINUED"), 0x00400281: code("110513", "Discontinued for unspecified reason", "DCM")}

    assert str(rendered(given_up, [order()])["ORC"][0][16]) == "110513^Discontinued for unspecified reason^DCM"


def test_an_order_that_was_picked_by_mistake_is_still_to_be_done() -> None:
    mistaken = {**step("DISCONTINUED"), 0x00400281: code("110514", "Incorrect worklist entry selected", "DCM")}

    orc = rendered(mistaken, [order()])["ORC"][0]
    assert (str(orc[5]), str(orc[16])) == ("SC", "110514^Incorrect worklist entry selected^DCM")


def test_delimiters_in_values_are_escaped() -> None:
    odd = order() | {0x00080050: text("SH", "A|1^2"), 0x00321064: code("A&B", "x~y", "99\\L")}
    message = render_order_status(parcel(step(), [odd]), ORIGIN, "orm-o01")

    assert b"A\\F\\1\\S\\2" in message
    assert b"A\\T\\B^x\\R\\y^99\\E\\L" in message


def test_order_numbers_keep_their_namespace() -> None:
    bare = {0x0020000D: text("UI", "1.2.1"), 0x00402016: text("LO", "OLD")}
    message = rendered(step(), [with_numbers(bare, "P7^OP^1.2.3^ISO", "F7")])

    assert (str(message["ORC"][0][2]), str(message["ORC"][0][3])) == ("P7^OP^1.2.3^ISO", "F7")
    assert str(rendered(step(), [with_numbers(bare, "", "")])["ORC"][0][2]) == "OLD"


def test_a_repeat_is_the_same_bytes_and_hl7apy_reads_them() -> None:
    first = render_order_status(parcel(step(), [order()]), ORIGIN, "omi-o23")

    assert first == render_order_status(parcel(step(), [order()]), ORIGIN, "omi-o23")
    assert parse_message(first.decode(), find_groups=False).msh.msh_9.msh_9_1.to_er7() == "OMI"


@pytest.mark.parametrize("headers", [{"step": "{"}, {"orders": "{"}, {"step": "{}"}, {"orders": "[1]"}])
def test_a_step_without_its_facts_is_a_content_error(headers: dict[str, str]) -> None:
    with pytest.raises(ContentError):
        render_order_status(parcel(step(), [order()], **headers), ORIGIN, "orm-o01")


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(["orm-o01", "omi-o23"]))
def test_no_text_breaks_the_segments(name: str, accession: str, form: Any) -> None:
    odd = order() | {0x00100010: text("PN", name), 0x00080050: text("SH", accession)}
    message = render_order_status(parcel(step(), [odd]), ORIGIN, form)

    names = [segment.split(b"|")[0] for segment in message.rstrip(b"\r").split(b"\r")]
    assert names == [b"MSH", b"PID", b"ORC", b"OBR", b"ZDS" if form == "orm-o01" else b"IPC"]
