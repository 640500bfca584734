"""De-identification by the Basic Application Level Confidentiality Profile (PS3.15, annex E).

Every attribute is looked up in the profile's table, at every depth. What the table does not name is let pass where the
standard knows it, except names, dates and UIDs of instances, which are treated by their value representation; what
nobody knows is removed, and so is everything private that is not declared safe. UIDs become others, the same for the
same secret, so that an object still refers to its neighbours. What cannot be known to be clean is refused.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pydicom import Dataset
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.sequence import Sequence

from gateway.errors import ContentError
from gateway.imaging.body import Body, is_bulk
from gateway.imaging.burned import burned_reason
from gateway.imaging.cleaning import STANDARD_SCHEMES, cleaned, words_of
from gateway.imaging.profile import BASIC_CODE, OPTIONS, Action, Profile, profile_of
from gateway.imaging.pseudonyms import Pseudonyms, shifted

CONTENT_SEQUENCE = 0x0040A730
PATIENT_ID = 0x00100020
_DICOM_ROOT = "1.2.840.10008."
_KINDS_OF_UID = ("ClassUID", "SyntaxUID", "SchemeUID", "ContextUID", "ContextGroupExtensionCreatorUID", "ResourceUID")
_NUMBERS = frozenset({"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_BYTES = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "UN"})
_TEXTS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
_DATES = frozenset({"DA", "DT", "TM"})
_DUMMIES = {
    "PN": "ANONYMOUS",
    "DA": "19000101",
    "TM": "000000",
    "DT": "19000101000000",
    "AS": "000Y",
    "DS": "0",
    "IS": "0",
    "CS": "UNKNOWN",
    "UR": "http://removed.invalid",
}
_DUMMY_TEXT = "REMOVED"


class Deidentifier:
    """The profile under one choice of options and one secret; keeps nothing between objects."""

    def __init__(self, options: frozenset[str], safe_private: frozenset[str], pseudonyms: Pseudonyms) -> None:
        self._options = options
        self._safe_private = safe_private
        self._pseudonyms = pseudonyms
        self._profile = profile_of(options)
        self._basic = profile_of(frozenset())

    def apply(self, body: Body) -> None:
        """Change an object in place. Raises ContentError for one that cannot be known to be clean."""
        reason = burned_reason(body.head, has_pixels=body.pixels is not None)
        if reason is not None:
            raise ContentError(f"not de-identified: {reason}")
        walk = _Walk(self._profile, self._basic, self._pseudonyms, body.head, self._safe(body.head))
        walk.clean(body.head)
        walk.clean(body.tail)
        body.meta = replace(body.meta, sop_instance_uid=self._pseudonyms.uid(body.meta.sop_instance_uid))
        self._mark(body.head)

    def _safe(self, head: Dataset) -> dict[tuple[int, str], frozenset[int] | None]:
        """Return the private blocks that may stay: group and creator, and which elements (None: all of them).

        The object itself declares them in (0008,0300) (PS3.3, C.12.1); the route names creators beside.
        """
        if "retain-safe-private" not in self._options:
            return {}
        safe: dict[tuple[int, str], frozenset[int] | None] = {(-1, creator): None for creator in self._safe_private}
        for item in head.get("PrivateDataElementCharacteristicsSequence", ()):
            block = (int(item.get("PrivateGroupReference", 0)), str(item.get("PrivateCreatorReference", "")))
            match str(item.get("BlockIdentifyingInformationStatus", "")):
                case "SAFE":
                    safe[block] = None
                case "MIXED":
                    listed = item.get("NonidentifyingPrivateElements") or ()
                    numbers = [listed] if isinstance(listed, int) else listed
                    safe[block] = frozenset(int(number) & 0xFF for number in numbers)
        return safe

    def _mark(self, head: Dataset) -> None:
        """Say what was done: (0012,0062) to (0012,0064) and (0028,0303)."""
        chosen = [(option.code, option.meaning) for option in OPTIONS if option.name in self._options]
        head.PatientIdentityRemoved = "YES"
        head.DeidentificationMethod = ["Basic Profile of DICOM PS3.15", *sorted(self._options)]
        head.DeidentificationMethodCodeSequence = Sequence(_code(*code) for code in [BASIC_CODE, *chosen])
        kept = "UNMODIFIED" if "retain-full-dates" in self._options else "REMOVED"
        head.LongitudinalTemporalInformationModified = "MODIFIED" if "retain-modified-dates" in self._options else kept


class _Walk:
    """One object on its way through the profile."""

    def __init__(
        self,
        profile: Profile,
        basic: Profile,
        pseudonyms: Pseudonyms,
        head: Dataset,
        safe: dict[tuple[int, str], frozenset[int] | None],
    ) -> None:
        self._profile = profile
        self._basic = basic
        self._pseudonyms = pseudonyms
        self._safe = safe
        self._days = pseudonyms.shifted_days(str(head.get("PatientID", "")))
        self._forbidden = words_of(_identities(head))

    def clean(self, dataset: Dataset, *, text: bool = False) -> None:
        """Change a data set in place; `text` cleans the texts too that the profile would let pass."""
        for tag in list(dataset.keys()):
            number = int(tag)
            if tag.is_private:
                if not self._is_safe(dataset, number):
                    del dataset[tag]
                continue
            action = self._profile.action(number)
            if tag.group >> 8 == 0x60 and self._profile.overlays is Action.REMOVE:
                action = Action.REMOVE
            self._act(dataset, number, action or self._unlisted(number, text), text)

    def _is_safe(self, dataset: Dataset, tag: int) -> bool:
        group, element = tag >> 16, tag & 0xFFFF
        block = element if element < 0x100 else element >> 8
        creator = dataset.get((group, block)) if block >= 0x10 else None
        name = str(creator.value) if creator is not None else ""
        for key in ((group, name), (-1, name)):
            if key in self._safe:
                listed = self._safe[key]
                return listed is None or element < 0x100 or element & 0xFF in listed
        return False

    def _unlisted(self, tag: int, text: bool) -> Action:
        """Return what becomes of an attribute that the table does not name."""
        try:
            known = dictionary_VR(tag)
        except KeyError:
            return Action.REMOVE
        if known == "PN":
            return Action.EMPTY
        if known == "UI":
            return Action.UID
        if known in _DATES:
            return self._profile.action(0x00080022) or Action.DUMMY  # as Acquisition Date
        if text and known in _TEXTS:
            return Action.CLEAN
        return Action.KEEP

    def _act(self, dataset: Dataset, tag: int, action: Action, text: bool = False) -> None:
        if action is Action.REMOVE:
            del dataset[tag]
            return
        if is_bulk(dataset, tag):
            if action is not Action.KEEP:
                del dataset[tag]
            return
        element = dataset[tag]
        match action:
            case Action.KEEP:
                for item in _items(element):
                    self.clean(item, text=text)
            case Action.EMPTY:
                element.value = Sequence() if element.VR == "SQ" else _empty(element.VR)
            case Action.DUMMY:
                self._fake(element)
            case Action.UID:
                self._replace_uids(element)
            case Action.CLEAN:
                self._clean_value(dataset, element)

    def _replace_uids(self, element: DataElement) -> None:
        if element.VR == "SQ":
            for item in element.value:
                self.clean(item)
        elif element.VR == "UI" and not element.keyword.endswith(_KINDS_OF_UID):
            element.value = _mapped(element.value, self._uid)

    def _uid(self, uid: str) -> str:
        if not uid or uid in UID_dictionary or uid.startswith(_DICOM_ROOT):
            return uid
        return self._pseudonyms.uid(uid)

    def _fake(self, element: DataElement) -> None:
        """Put in what says nothing, in the form that is wanted."""
        if element.tag == CONTENT_SEQUENCE:
            element.value = Sequence([_no_content()])
        elif element.VR == "SQ":
            for item in element.value:
                self._fake_item(item)
        elif element.VR == "UI":
            self._replace_uids(element)
        elif element.tag == PATIENT_ID and element.value:
            element.value = self._pseudonyms.text(str(element.value), "LO")
        elif element.VR in _NUMBERS:
            element.value = 0
        elif element.VR in _BYTES:
            element.value = b"\0\0"
        else:
            element.value = _DUMMIES.get(element.VR, _DUMMY_TEXT)

    def _fake_item(self, item: Dataset) -> None:
        for tag in list(item.keys()):
            if tag.is_private or self._profile.action(int(tag)) is Action.REMOVE:
                del item[tag]
            elif item[tag].VR not in ("CS", *_NUMBERS, "DS", "IS"):
                self._fake(item[tag])

    def _clean_value(self, dataset: Dataset, element: DataElement) -> None:
        """Keep of a value what identifies nobody; where nothing is left, do what the basic profile does."""
        value: Any = None
        if element.VR in _DATES:
            value = _mapped(element.value, lambda text: shifted(text, element.VR, self._days) or "")
        elif element.VR in _TEXTS:
            value = _mapped(element.value, lambda text: cleaned(text, self._forbidden))
        elif element.VR == "AE":
            value = _mapped(element.value, lambda text: self._pseudonyms.text(text, "AE"))
        elif element.VR == "SQ":
            value = Sequence(item for item in element.value if _is_standard(item))
            for item in value:
                if "CodeValue" not in item:
                    self.clean(item, text=True)
        if value and (isinstance(value, str | Sequence) or all(value)):
            element.value = value
        else:
            self._act(dataset, int(element.tag), self._basic.action(int(element.tag)) or Action.DUMMY)


def _identities(dataset: Dataset) -> Iterator[str]:
    """Yield names and identifiers of people, at any depth."""
    for tag in list(dataset.keys()):
        if is_bulk(dataset, int(tag)):
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            for each in element.value:
                yield from _identities(each)
        elif element.VR == "PN" or (0x00100000 <= tag < 0x00102000 and element.VR in ("LO", "SH")):
            values = element.value if element.VM > 1 else [element.value]
            yield from (str(value) for value in values if value)


def _items(element: DataElement) -> Sequence | tuple[()]:
    return element.value if element.VR == "SQ" else ()


def _empty(vr: str) -> Any:
    return b"" if vr in _BYTES else None if vr in _NUMBERS else ""


def _mapped(value: Any, change: Any) -> Any:
    """Change one value or each of several."""
    if value is None or isinstance(value, str):
        return change(str(value or ""))
    try:
        return [change(str(each)) for each in value]
    except TypeError:
        return change(str(value))


def _is_standard(item: Dataset) -> bool:
    """Tell whether an item is no code, or one of a scheme that everybody has."""
    return "CodeValue" not in item or str(item.get("CodingSchemeDesignator", "")) in STANDARD_SCHEMES


def _code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning[:64]
    return code


def _no_content() -> Dataset:
    """Return the one content item that takes the place of a report's content."""
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.ConceptNameCodeSequence = Sequence([_code("121106", "Comment")])
    item.TextValue = _DUMMY_TEXT
    return item
