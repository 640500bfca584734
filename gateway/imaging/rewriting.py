"""An Instance as a Destination is to have it: what its route changes, in the transfer syntax that the peer takes.

It is made when it is delivered, from the object as it came and the configuration alone, so that a repeat is the same
bytes: a file of its own in the Spool's `incoming/`, which the Sender removes. Changes are made in this order:

    hash reads -> deidentify | coerce -> hash writes -> copy -> set -> remove

What cannot be done is said in an error, and the Delivery waits for a person: nothing goes out half changed.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence
from pydicom.valuerep import VR

from gateway.config import Route
from gateway.errors import ConfigError, ContentError, GatewayError, TemporaryError, place_of
from gateway.formats.dicom import read_header
from gateway.formats.dicom_path import Path, vr_of
from gateway.imaging.body import Body, is_bulk, open_body
from gateway.imaging.deidentifying import Deidentifier
from gateway.imaging.pseudonyms import Pseudonyms
from gateway.imaging.rules import Rule, read_rule
from gateway.model import Message, Parcel
from gateway.routing import Router
from gateway.secrets import resolve_secret
from gateway.senders.instances import Objects

_log = logging.getLogger("gateway.imaging")

Demographics = Callable[[Mapping[str, str]], Mapping[str, str] | None]
"""Return what the worklist says of an Instance's patient, by keyword, from its header; None: no item is known."""

COERCED = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
FORMER = "OtherPatientIDs"
IDENTIFYING = ("StudyInstanceUID", "AccessionNumber", "PatientID")


@dataclass(frozen=True, slots=True)
class Rules:
    """The routes of one configuration as they change Instances."""

    router: Router
    rules: tuple[Rule | None, ...]
    changed: frozenset[str]  # Destinations whose objects a rule may change
    clean: frozenset[str]  # those that get de-identified objects, and no others

    @staticmethod
    def of(routes: tuple[Route, ...], router: Router) -> "Rules":
        """Read what the routes change. Raises ValueError for what the configuration's check reports."""
        clean = frozenset(name for route in routes if route.deidentify for name in route.to)
        changed = frozenset(name for route in routes if route.changes for name in route.to)
        return Rules(router, tuple(map(read_rule, routes)), changed, clean)

    def rule_for(self, message: Message, destination: str) -> Rule | None:
        """Return what to change of a Message on its way.

        Raises ContentError where the Destination gets de-identified objects and no route brings it there now.
        """
        if destination not in self.changed:
            return None
        numbers = self.router.routes_to(message, destination)
        if destination not in self.clean:
            return next((self.rules[number] for number in numbers if self.rules[number] is not None), None)
        for number in numbers:
            rule = self.rules[number]
            if rule is not None and rule.deidentify:
                return rule
        raise ContentError("no route says how it is de-identified for this destination")


class Rewriter:
    """Makes the file that goes out; blocks, and may be called from any thread."""

    def __init__(
        self,
        rules: Callable[[], Rules],
        spool: Objects,
        *,
        demographics: Demographics | None = None,
        system: str = "gateway",
    ) -> None:
        """Take the rules as they stand when an object goes; `system` names us in what is coerced."""
        self._rules = rules
        self._spool = spool
        self._demographics = demographics
        self._system = system

    def changes(self, destination: str) -> bool:
        """Tell whether a rule may change what goes to a Destination."""
        return destination in self._rules().changed

    def prepare(self, parcel: Parcel, path: FilePath, transfer_syntax: str | None) -> FilePath | None:
        """Write an Instance as it is to go out, in a transfer syntax (None: its own).

        Returns the new file, or None where the object goes out as it lies. Raises ContentError for what cannot be
        done, TemporaryError without its secret, and OSError or StoreError when the disk refuses.
        """
        rule = self._rule_for(parcel, path)
        if rule is None and transfer_syntax is None:
            return None
        with self._spool.new_incoming() as out:
            made = FilePath(out.name)
            try:
                with open_body(path) as body:
                    if rule is not None:
                        self._change(body, rule, parcel.message)
                    body.write(out, transfer_syntax or body.syntax)
            except (GatewayError, OSError):
                made.unlink(missing_ok=True)
                raise
            except Exception as error:  # - a foreign object's content breaks what reads it
                made.unlink(missing_ok=True)
                _log.error("instance.unchanged delivery=%d place=%s", parcel.delivery.id, place_of(error))
                raise ContentError(f"cannot be changed: {type(error).__name__} at {place_of(error)}") from error
            except BaseException:
                made.unlink(missing_ok=True)
                raise
        return made

    def _rule_for(self, parcel: Parcel, path: FilePath) -> Rule | None:
        rules = self._rules()
        message = parcel.message
        if parcel.delivery.destination in rules.changed:
            message = _with_header(message, path, rules.router.keywords(message.source))
        return rules.rule_for(message, parcel.delivery.destination)

    def _change(self, body: Body, rule: Rule, message: Message) -> None:
        pseudonyms = None if rule.secret is None else Pseudonyms(_secret_of(rule))
        head = body.head
        hashes: list[tuple[Path, list[tuple[Dataset, str]]]] = []
        if pseudonyms is not None:
            hashes = [(path, _hashes(head, path, pseudonyms)) for path in rule.hashed]
        if rule.deidentify:
            assert pseudonyms is not None
            Deidentifier(rule.options, rule.safe_private, pseudonyms).apply(body)
        if rule.coerce:
            self._coerce(head, message)
        for path, values in hashes:
            for place, value in values:
                _set(place, path.tag, value)
        for to, origin in rule.copied:
            _copy(head, to, origin)
        _take_character_set(head, (value for _, value in rule.assigned))
        for to, value in rule.assigned:
            for place in _places(head, to, make=True):
                _set(place, to.tag, value)
        for path in rule.removed:
            for place in _places(head, path):
                if path.tag in place:
                    del place[path.tag]

    def _coerce(self, head: Dataset, message: Message) -> None:
        """Take the demographics of the worklist, and keep what was there (PS3.3, C.12.1.1.9)."""
        if self._demographics is None:
            raise ContentError("not coerced: there is no worklist")
        known = self._demographics({keyword: str(head.get(keyword, "") or "") for keyword in IDENTIFYING})
        if known is None:
            return
        study, patient = str(head.get("StudyInstanceUID", "")), str(head.get("PatientID", "") or "")
        is_same_study = bool(study) and known.get("StudyInstanceUID") == study
        names = {known.get("PatientID"), *known.get(FORMER, "").split("\\")}  # a merge may have come after the exam
        if not is_same_study and patient and patient not in names:  # an accession number typed wrong
            raise ContentError("not coerced: the worklist has another patient under its accession number")
        before = Dataset()
        for keyword in COERCED:
            value = known.get(keyword)
            if value and value != str(head.get(keyword, "") or ""):
                setattr(before, keyword, head.get(keyword, ""))
                setattr(head, keyword, value)
        if len(before):
            _take_character_set(head, known.values())
            head.OriginalAttributesSequence = Sequence(
                [*head.get("OriginalAttributesSequence", ()), _original(before, message, self._system)]
            )


def _original(before: Dataset, message: Message, system: str) -> Dataset:
    """Return an item of the Original Attributes Sequence; its time is the receipt's, so that repeats are equal."""
    item = Dataset()
    item.SourceOfPreviousValues = message.source[:64]
    item.AttributeModificationDateTime = message.received_at.strftime("%Y%m%d%H%M%S.%f+0000")
    item.ModifyingSystem = system[:64]
    item.ReasonForTheAttributeModification = "COERCE"
    item.ModifiedAttributesSequence = Sequence([before])
    return item


def _take_character_set(head: Dataset, values: Iterable[str]) -> None:
    """Write in Unicode where the new values cannot be written in the object's own character set."""
    if all(value.isascii() for value in values):
        return
    for element in head.iterall():
        _ = element.value  # decoded while its character set still holds
    head.SpecificCharacterSet = "ISO_IR 192"


def _with_header(message: Message, path: FilePath, keywords: frozenset[str]) -> Message:
    """Return a Message with what the routes ask for now: those that held at its receipt may have asked for less."""
    try:
        values = read_header(path, keywords).values
    except ContentError:
        return message
    return replace(message, headers={**values, **message.headers})


def _secret_of(rule: Rule) -> str:
    assert rule.secret is not None
    try:
        return resolve_secret(rule.secret)
    except ConfigError as error:
        raise TemporaryError(f"the secret of its route: {error}") from error  # the configuration's fault, not its own


def _places(head: Dataset, path: Path, *, make: bool = False) -> Iterator[Dataset]:
    """Yield the data sets in which a path's attribute stands; `make` adds the items that lead there."""
    places = [head]
    for step in path.steps:
        found: list[Dataset] = []
        for place in places:
            if make and (step.tag not in place or not place[step.tag].value):
                place[step.tag] = DataElement(step.tag, "SQ", Sequence([Dataset()]))
            items = place[step.tag].value if step.tag in place and place[step.tag].VR == "SQ" else ()
            found += [item for number, item in enumerate(items) if step.item in (None, number)]
        places = found
    yield from places


def _hashes(head: Dataset, path: Path, pseudonyms: Pseudonyms) -> list[tuple[Dataset, str]]:
    """Return where to write which pseudonym, made from what stands there now."""
    made = []
    for place in _places(head, path):
        if path.tag in place and not is_bulk(place, path.tag) and place[path.tag].value not in (None, ""):
            element = place[path.tag]
            values = element.value if element.VM > 1 else [element.value]
            made.append((place, "\\".join(pseudonyms.text(str(value), element.VR) for value in values)))
    return made


def _copy(head: Dataset, to: Path, origin: Path) -> None:
    """Copy an attribute's value; where there is none, nothing is changed."""
    source = next((place for place in _places(head, origin) if origin.tag in place), None)
    if source is None or is_bulk(source, origin.tag):
        return
    element = source[origin.tag]
    for place in _places(head, to, make=True):
        if element.VR == "SQ":
            place[to.tag] = DataElement(to.tag, "SQ", Sequence(element.value))
        else:
            values = element.value if element.VM > 1 else [element.value]
            _set(place, to.tag, "\\".join("" if value is None else str(value) for value in values))


def _set(place: Dataset, tag: int, text: str) -> None:
    """Write a value from its text, in the form that the attribute's value representation has."""
    vr = place[tag].VR if tag in place and not is_bulk(place, tag) else vr_of(tag)
    value: Any = text
    try:
        if vr in ("US", "SS", "UL", "SL", "UV", "SV"):
            value = [int(part) for part in text.split("\\")]
        elif vr in ("FL", "FD"):
            value = [float(part) for part in text.split("\\")]
    except ValueError:
        raise ContentError(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) takes numbers only") from None
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    place[tag] = DataElement(tag, VR(vr), value)
