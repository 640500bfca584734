"""HL7 orders, appointments and demographics become changes of the worklist.

    ORM^O01 OMI^O23 OMG^O19   one change for each scheduled step: an IPC, else an OBR; what it does is order_status.csv
    SIU^S12 to S15, S17, S26  a change of the step's time and place, or its cancellation
    ADT^A08 A31 A02 A12       new demographics; ADT^A40 A34 A18 A36 A39 A47: one patient took over another one's orders

Which field becomes which attribute is order_map.csv, one row an attribute, fields in the order in which they are looked
in; a Source may name others. What cannot become an item is no fault of the message: the change says what is lacking,
and the store lists it.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

from gateway.dataset import Attributes, Element, item_at, text_at
from gateway.errors import ContentError
from gateway.formats.hl7 import Header
from gateway.formats.identifiers import name_of, tag_of, vr_of
from gateway.formats.order_text import Group, OrderText
from gateway.formats.order_values import READERS, Asked, clean, offset_of, patient_ids
from gateway.formats.worklist_tags import (
    ACCESSION,
    DESCRIPTION,
    MODALITY,
    PATIENT_ID,
    PATIENT_NAME,
    SEQUENCE,
    START_DATE,
    START_TIME,
    STATION,
    STATION_NAME,
    STEP_DESCRIPTION,
    STEP_ID,
    TIMEZONE,
)
from gateway.orders import Action, OrderChange, OrderRules, PatientChange, StepStatus

Change = OrderChange | PatientChange

STEPS_MAX = 256  # of one message

_ORDERS = {b"ORM": b"O01", b"OMI": b"O23", b"OMG": b"O19"}
_APPOINTMENTS = {
    **dict.fromkeys((b"S12", b"S13", b"S14"), None),
    **dict.fromkeys((b"S15", b"S17"), StepStatus.CANCELED),
    b"S26": StepStatus.DISCONTINUED,
}
_UPDATES = frozenset({b"A08", b"A31", b"A02", b"A12"})
_MERGES = frozenset({b"A18", b"A34", b"A36", b"A39", b"A40", b"A47"})
_TYPES = frozenset({*_ORDERS, b"SIU", b"ADT"})
_NEEDED = ((PATIENT_ID,), (PATIENT_NAME,), (SEQUENCE, MODALITY), (SEQUENCE, START_DATE))
_LATERALITY = {"L": "left", "LT": "left", "R": "right", "RT": "right", "B": "both sides", "BIL": "both sides"}
_LATERALITY |= {"LFT": "left", "RGT": "right", "50": "both sides"}
_VISIT = frozenset({"AdmissionID", "AdmittingDate", "AdmittingTime", "CurrentPatientLocation"})


class _Row(NamedTuple):
    keyword: str
    path: tuple[int, ...]
    asked: Asked
    kind: str


def is_order(header: Header) -> bool:
    """Return whether a message may change the worklist; quick, for it is asked of every message."""
    return header.message_type in _TYPES


def read_changes(
    raw: bytes, header: Header, codec: str, rules: OrderRules, *, source: str, at: datetime
) -> tuple[Change, ...]:
    """Return what a message changes, () where it is none of those above.

    Bytes and fields may be anything; a field that cannot be used is named in `notes`, one that is needed in `lacking`.
    """
    kind, trigger = header.message_type, header.trigger
    reading = _Reading(rules, source, at)
    if kind in _ORDERS and trigger in (_ORDERS[kind], b""):
        groups = OrderText(raw, header, codec).orders()
        return tuple(change for group in groups for change in reading.order(group))[:STEPS_MAX]
    if kind == b"SIU" and trigger in _APPOINTMENTS:
        groups = OrderText(raw, header, codec).appointments()
        return tuple(reading.appointment(group, _APPOINTMENTS[trigger]) for group in groups)[:STEPS_MAX]
    if kind == b"ADT" and trigger in _UPDATES | _MERGES:
        patients = OrderText(raw, header, codec).patients()
        return tuple(change for group in patients for change in reading.patient(group, trigger))
    return ()


def mapped_attributes() -> frozenset[str]:
    """Return the keywords of the attributes that the map fills: what a Source's `fields` may name."""
    return frozenset(row.keyword for row in _map())


class _Reading:
    """One message being read."""

    def __init__(self, rules: OrderRules, source: str, at: datetime) -> None:
        self._rules = rules
        self._source = source
        self._at = at

    def order(self, group: Group) -> Iterator[OrderChange]:
        """Yield a change for each IPC, or one for the OBR."""
        action, status = _effect(group.value("ORC-1").upper(), group.value("ORC-5").upper())
        steps = group.segments("IPC")
        if not steps:
            yield self._change(group, action, status)
            return
        for step in steps:
            own = {**group.own, "IPC": [step]}
            yield self._change(Group(group.text, group.shared, own, group.notes), action, status)

    def appointment(self, group: Group, status: StepStatus | None) -> OrderChange:
        """Return the change of one service of an appointment."""
        return self._change(group, Action.UPDATE if status is None else Action.STATUS, status, fallen=True)

    def patient(self, group: Group, trigger: bytes) -> Iterator[PatientChange]:
        """Yield the change of one patient of an ADT."""
        identities = patient_ids(group, ("PID-3", "PID-2"), self._rules)
        if not identities:
            return
        notes: list[str] = []
        attributes = self._attributes(group, notes, _patient_rows())
        identity, issuer = clean(identities[0][0], "LO"), clean(identities[0][1], "LO")
        if trigger in _UPDATES:
            yield self._patient(identity, issuer, attributes)
            return
        for former, former_issuer, _ in patient_ids(group, ("MRG-1",), OrderRules()):
            if former != identity or former_issuer != issuer:
                yield self._patient(identity, issuer, attributes, former, former_issuer)

    def _patient(
        self, identity: str, issuer: str, attributes: Attributes, former: str = "", former_issuer: str = ""
    ) -> PatientChange:
        return PatientChange(
            source=self._source,
            at=self._at,
            patient_id=identity,
            issuer=issuer,
            former_id=former,
            former_issuer=former_issuer,
            attributes=attributes,
        )

    def _change(self, group: Group, action: Action, status: StepStatus | None, *, fallen: bool = False) -> OrderChange:
        notes: list[str] = []
        attributes = self._attributes(group, notes, _map())
        step = dict(item_at(attributes, SEQUENCE))
        accession, step_id = text_at(attributes, ACCESSION), text_at(step, STEP_ID)
        exact = bool(group.value("IPC-4.1") or group.value("OBR-20.1") or "ScheduledProcedureStepID" in self._fields())
        if action is not Action.STATUS and not fallen:
            self._complete(group, attributes, step)
        attributes[SEQUENCE] = Element("SQ", items=(step,))
        return OrderChange(
            source=self._source,
            action=action,
            at=self._at,
            accession=accession,
            step_id=step_id if exact or action is not Action.STATUS else "",
            exact=exact and not fallen,
            placer=_number(group, "ORC-2", "OBR-2", "SCH-26"),
            filler=_number(group, "ORC-3", "OBR-3", "SCH-27"),
            status=status,
            attributes=attributes,
            lacking=tuple(_lacking(attributes)),
            notes=tuple(notes),
        )

    def _fields(self) -> Mapping[str, Sequence[str]]:
        return self._rules.fields

    def _attributes(self, group: Group, notes: list[str], rows: Sequence[_Row]) -> dict[int, Element]:
        """Return what the map finds; the scheduled step is an item of its sequence."""
        found: dict[int, Element] = {}
        step: dict[int, Element] = {}
        own = self._fields()
        for row in rows:
            fields = own.get(row.keyword) if own else None
            asked = row.asked if fields is None else Asked(row.asked.vr, tuple(fields))
            try:
                element = READERS[row.kind](group, asked, self._rules)
            except ContentError as error:
                notes.append(f"{name_of(row.path[-1])}: {error}")
                continue
            if element is not None:
                (step if len(row.path) > 1 else found)[row.path[-1]] = element
        offset = offset_of(group, _start(), self._rules)
        if START_DATE in step and offset:
            found[TIMEZONE] = Element("SH", (offset,))
        _tell_side(group, found, step)
        if step:
            found[SEQUENCE] = Element("SQ", items=(step,))
        return found

    def _complete(self, group: Group, attributes: dict[int, Element], step: dict[int, Element]) -> None:
        """Fill in what a Modality needs and the sender leaves to us: station, study, a start where none is planned."""
        modality, place = text_at(step, MODALITY), group.value("PV1-3") or group.value("IPC-8")
        if not text_at(step, STATION) and modality:
            for station in self._rules.stations:
                if station.modality in (None, modality) and place.startswith(station.location or ""):
                    step[STATION] = Element("AE", (station.ae_title,))
                    if station.name:
                        step[STATION_NAME] = Element("SH", (clean(station.name, "SH"),))
                    break
        if not text_at(step, START_DATE) and modality:
            stamp = READERS["date"](group, Asked("DA", ("ORC-9", "MSH-7")), self._rules)
            if stamp is not None and stamp.values:
                step[START_DATE] = stamp
                time = READERS["time"](group, Asked("TM", ("ORC-9", "MSH-7")), self._rules)
                step[START_TIME] = time or Element("TM", ("000000",))


def _effect(control: str, status: str) -> tuple[Action, StepStatus | None]:
    table = _statuses()
    for key in ((control, status), (control, "*"), ("*", status)):
        if key in table:
            return table[key]
    return table["*", "*"]


def _lacking(attributes: Attributes) -> Iterator[str]:
    if not text_at(attributes, ACCESSION):
        yield "AccessionNumber"
    for path in _NEEDED:
        if not text_at(attributes, *path):
            yield name_of(path[-1])


def _number(group: Group, *paths: str) -> str:
    """Return an order number with its namespace; a number alone says nothing beyond its sender."""
    for path in paths:
        for raw in group.raw(path)[:1]:
            parts = [*group.text.components(raw), "", ""]
            if parts[0] and parts[0] != '""':
                return f"{parts[0]}^{parts[1] or parts[2]}"[:256]
    return ""


def _tell_side(group: Group, attributes: dict[int, Element], step: dict[int, Element]) -> None:
    """Write the side of the body (OBR-15.5) into the descriptions, where a Modality's operator sees it."""
    for raw in group.raw("OBR-15")[:1]:
        words = group.text.subcomponents(group.text.component(raw, 5))
        side = next((_LATERALITY[word.upper()] for word in words if word.upper() in _LATERALITY), None)
        if side is None:
            return
        for place, tag in ((attributes, DESCRIPTION), (step, STEP_DESCRIPTION)):
            text = text_at(place, tag)
            if text and side not in text.lower():
                place[tag] = Element("LO", (f"{text[: 64 - len(side) - 3]} ({side})",))


@lru_cache(maxsize=1)
def _start() -> Asked:
    return next(row.asked for row in _map() if row.path[-1] == START_DATE)


@lru_cache(maxsize=1)
def _map() -> tuple[_Row, ...]:
    text = (resources.files("gateway.formats") / "order_map.csv").read_text("utf-8")
    rows = []
    for row in csv.DictReader(text.splitlines()):
        path = tuple(tag_of(name) for name in row["attribute"].split("."))
        rows.append(_Row(name_of(path[-1]), path, Asked(vr_of(path[-1]), tuple(row["fields"].split())), row["kind"]))
    return tuple(rows)


@lru_cache(maxsize=1)
def _patient_rows() -> tuple[_Row, ...]:
    return tuple(row for row in _map() if row.path[0] >> 16 == 0x0010 or row.keyword in _VISIT)


@lru_cache(maxsize=1)
def _statuses() -> dict[tuple[str, str], tuple[Action, StepStatus | None]]:
    text = (resources.files("gateway.formats") / "order_status.csv").read_text("utf-8")
    return {
        (row["control"], row["status"]): (Action(row["action"]), StepStatus(row["step"]) if row["step"] else None)
        for row in csv.DictReader(text.splitlines())
    }
