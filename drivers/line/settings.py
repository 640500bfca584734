"""What an engineer writes about a Device's lines: patterns, fields, conditions, check characters.

Everything is checked when the configuration is read: a pattern that is none, a field whose group stands in no pattern,
an unknown key or unit is a fault with its place, not a surprise at night.
"""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from gateway.driver import Absent, Method, Priority, read_number
from gateway.formats.terms import term, unit_of
from gateway.protocols.checksums import Kind, check_of, width_of

VENDOR_PREFIX = "x_"
TIME_GROUP, PATIENT_GROUP = "device_time", "patient_id"


@dataclass(frozen=True, kw_only=True)
class Field:
    """What one named group of a pattern is.

    `key` is the product's name (`spo2`) or begins with `x_`. `unit` is UCUM: needed for no key, checked for the
    product's own. The number on the line times `factor` plus `offset` is published. `absent` maps what stands there
    instead of a number to the reason (NI, NAV, OFF, INV, BUSY); `values` maps words to the text to publish; `flags`
    maps what stands in the group `<group>_flag` to a flag of OBX-8 (`H`, `L`, `QUES` …).
    """

    key: str = field(metadata={"pattern": r"[a-z][a-z0-9_]{0,63}", "expects": "a key such as spo2 or x_acme_flow"})
    unit: str | None = None
    factor: float = 1.0
    offset: float = 0.0
    text: bool = False
    absent: dict[str, Literal["NI", "NAV", "OFF", "INV", "BUSY"]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    setting: bool = False
    episodic: bool = False

    def __post_init__(self) -> None:
        """Refuse keys and units that stand in no table."""
        try:
            if self.key.startswith(VENDOR_PREFIX):
                if self.unit is not None:
                    unit_of(self.unit)
                return
            known = term(self.key)
        except KeyError as missing:
            raise ValueError(
                f"{missing} stands in no table; a quantity of your own has a key that begins with x_"
            ) from None
        if self.unit is not None and self.unit != known.ucum:
            raise ValueError(f"{self.key} is published in {known.ucum or 'no unit'}: use factor, or a key of your own")

    @property
    def method(self) -> Method:
        """Return how the value came about."""
        return Method.SETTING_MANUAL if self.setting else Method.AUTO

    def number(self, text: str) -> Decimal:
        """Return the number as it is published, with the digits of the Device. Raises ValueError."""
        if (value := read_number(text)) is None:
            raise ValueError("not a number")
        if self.factor != 1.0:
            value *= Decimal(str(self.factor))
        return value + Decimal(str(self.offset)) if self.offset else value

    def reason(self, text: str) -> Absent | None:
        """Return why there is no value, None where the text is a value."""
        code = self.absent.get(text)
        return None if code is None else Absent(code)


@dataclass(frozen=True, kw_only=True)
class Codes:
    """What the codes in one named group mean: states and alarms, several with `separator` between them.

    A code that is not listed is published under its own name. `none` is what stands there when nothing is the matter.
    """

    meanings: dict[str, str] = field(default_factory=dict)
    separator: str = " "
    none: tuple[str, ...] = ("", "-", "0")
    technical: bool = True
    priority: Literal["high", "medium", "low", "advisory"] | None = None

    @property
    def urgency(self) -> Priority | None:
        """Return the priority that all of them have."""
        return None if self.priority is None else Priority(self.priority)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One kind of line: a regular expression for the whole line, and what its named groups are.

    The groups `device_time` and `patient_id` need no field.
    """

    pattern: str
    fields: dict[str, Field] = field(default_factory=dict)
    conditions: dict[str, Codes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a pattern that is none, and names that are not in it."""
        try:
            groups = re.compile(self.pattern).groupindex.keys()
        except re.error as error:
            raise ValueError(f"pattern: {error}") from None
        described = self.fields.keys() | self.conditions.keys()
        if missing := sorted(described - groups):
            raise ValueError(f"no group (?P<{missing[0]}>…) in the pattern")
        allowed = described | {TIME_GROUP, PATIENT_GROUP} | {f"{name}_flag" for name in self.fields}
        if left := sorted(groups - allowed):
            raise ValueError(f"the group {left[0]!r} of the pattern is described by no field")
        if not described:
            raise ValueError("a record needs at least one field or conditions")


@dataclass(frozen=True, kw_only=True)
class Check:
    """Check characters at the end of each line.

    They cover what stands before them, from the first `start` on where one is given (itself left out unless
    `covers_start`), up to the last `separator` where one is given (left out unless `covers_separator`).
    """

    kind: Kind
    digits: Literal["hex", "decimal"] = "hex"
    low_byte_first: bool = False
    start: str = ""
    separator: str = ""
    covers_start: bool = False
    covers_separator: bool = False

    def content_of(self, line: str) -> str:
        """Return the line without its check characters and their separator. Raises ValueError when they are wrong."""
        body, given = self._split(line)
        covered = body + (self.separator if self.covers_separator else "")
        if self.start:
            at = covered.find(self.start)
            if at < 0:
                raise ValueError(f"no {self.start!r} at the start of the line")
            covered = covered[at if self.covers_start else at + len(self.start) :]
        if given != self._wanted(covered.encode("latin-1", "replace")):
            raise ValueError("check characters do not match")
        return body

    def _split(self, line: str) -> tuple[str, str]:
        if self.separator:
            body, found, given = line.rpartition(self.separator)
            if not found:
                raise ValueError(f"no {self.separator!r} before the check characters")
            return body, given.strip().upper()
        width = self._digits
        if len(line) <= width:
            raise ValueError("line shorter than its check characters")
        return line[:-width], line[-width:].upper()

    @property
    def _digits(self) -> int:
        width = width_of(self.kind)
        if self.digits == "hex":
            return 2 * width
        return 3 if width == 1 else 5

    def _wanted(self, data: bytes) -> str:
        value, width = check_of(self.kind, data), width_of(self.kind)
        if self.low_byte_first:
            value = int.from_bytes(value.to_bytes(width, "little"), "big")
        if self.digits == "decimal":
            return f"{value:0{self._digits}d}"
        return f"{value:0{self._digits}X}"
