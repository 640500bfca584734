"""HL7 orders of the laboratory: what an analyser may be told when it asks for a sample.

    OML^O21 O33 O35, and ORM^O01 or OMG^O19 whose OBR-24 names a section of the laboratory

One change for each order (ORC, OBR): the sample by any of the numbers that stand on tubes, the test, whether it is to
be done or was cancelled. The sample's number is looked for in SPM-2, SAC-3, SPM-3, OBR-3, OBR-2, ORC-3, ORC-2.
"""

from collections.abc import Iterator
from datetime import datetime

from gateway.formats.hl7 import Header
from gateway.formats.order_text import Group, OrderText
from gateway.laboratory import LabOrder, LabOrderChange

ORDERS_MAX = 256  # of one message

_ALWAYS, _SOMETIMES = frozenset({b"OML"}), frozenset({b"ORM", b"OMG"})
_SECTIONS = frozenset({"LAB", "CH", "HM", "BG", "MB", "IMM", "SR", "TX", "CP", "GE", "VR", "SP", "BLB"})  # table 0074
_CANCELLED = frozenset({"CA", "OC", "DC", "OD", "CR", "DR"})  # table 0119
_URGENT = frozenset({"S", "A", "ST", "STAT"})
_SAMPLE = ("SPM-2.1", "SAC-3.1", "SPM-3.1", "OBR-3.1", "OBR-2.1", "ORC-3.1", "ORC-2.1")
_NAME_PARTS = ("PID-5.1", "PID-5.2")


def is_lab_order(header: Header) -> bool:
    """Return whether a message may hold orders of the laboratory; quick, for it is asked of every message."""
    return header.message_type in _ALWAYS or header.message_type in _SOMETIMES


def read_lab_orders(raw: bytes, header: Header, codec: str, at: datetime) -> tuple[LabOrderChange, ...]:
    """Return the orders of a message, () where it has none for the laboratory."""
    always = header.message_type in _ALWAYS
    groups = OrderText(raw, header, codec).orders()[:ORDERS_MAX]
    return tuple(change for group in groups for change in _changes(group, always, at))


def _changes(group: Group, always: bool, at: datetime) -> Iterator[LabOrderChange]:
    if not always and group.value("OBR-24").upper() not in _SECTIONS:
        return
    samples = tuple(dict.fromkeys(found for path in _SAMPLE if (found := group.value(path))))
    test = group.value("OBR-4")
    if not samples or not test:
        return
    priority = (group.value("TQ1-9") or group.value("OBR-5") or group.value("OBR-27.6")).upper()
    order = LabOrder(
        sample_id=samples[0],
        tests=(test,),
        patient_id=group.value("PID-3.1") or group.value("PID-2"),
        name="^".join(group.value(path) for path in _NAME_PARTS).strip("^"),
        birth_date=group.value("PID-7")[:8],
        sex=group.value("PID-8")[:1],
        urgent=priority in _URGENT,
        ordered_at=at,
    )
    cancelled = group.value("ORC-1").upper() in _CANCELLED
    yield LabOrderChange(order=order, samples=samples, cancelled=cancelled)
