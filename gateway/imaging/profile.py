"""The Basic Application Level Confidentiality Profile and its options: what becomes of which attribute.

The actions are those of PS3.15, table E.1-1, in `confidentiality.csv`, with the codes of table E.1-1a. Where the table
leaves a choice by the type of the attribute (X/Z, X/Z/D), the last one is taken, which every type allows.
"""

import csv
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.resources import files

TABLE = "confidentiality.csv"


class Action(Enum):
    """What becomes of an attribute: the codes of PS3.15, table E.1-1a."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    KEEP = "K"
    CLEAN = "C"
    UID = "U"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the profile: its column in the table and its code in Context Group 7050."""

    name: str
    column: str
    code: str
    meaning: str


# The codes of PS3.16, CID 7050.
BASIC_CODE = ("113100", "Basic Application Confidentiality Profile")
OPTIONS = (
    Option("clean-structured-content", "structured", "113104", "Clean Structured Content Option"),
    Option("clean-descriptors", "descriptors", "113105", "Clean Descriptors Option"),
    Option("retain-full-dates", "full_dates", "113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    Option(
        "retain-modified-dates",
        "modified_dates",
        "113107",
        "Retain Longitudinal Temporal Information Modified Dates Option",
    ),
    Option("retain-patient-characteristics", "patient", "113108", "Retain Patient Characteristics Option"),
    Option("retain-device", "device", "113109", "Retain Device Identity Option"),
    Option("retain-uids", "uids", "113110", "Retain UIDs Option"),
    Option("retain-safe-private", "private", "113111", "Retain Safe Private Option"),
    Option("retain-institution", "institution", "113112", "Retain Institution Identity Option"),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """The actions under a choice of options, by tag; private attributes have an action of their own."""

    actions: dict[int, Action]
    curves: Action
    overlays: Action

    def action(self, tag: int) -> Action | None:
        """Return what becomes of a standard attribute, None where the table does not name it."""
        group = tag >> 16
        if 0x5000 <= group <= 0x50FF:
            return self.curves
        if 0x6000 <= group <= 0x60FF and tag & 0xFFFF in (0x3000, 0x4000):
            return self.overlays
        return self.actions.get(tag)


@cache
def profile_of(options: frozenset[str]) -> Profile:
    """Return the profile under these options. An option that keeps goes before one that cleans."""
    columns = [option.column for option in OPTIONS if option.name in options]
    actions = {}
    for row in rows():
        given = [Action(row[column]) for column in columns if row[column]]
        basic = Action.UID if row["basic"].endswith("U*") else Action(row["basic"].rpartition("/")[2])
        actions[row["tag"]] = Action.KEEP if Action.KEEP in given else given[0] if given else basic
    return Profile(
        {int(tag, 16): action for tag, action in actions.items() if "X" not in tag and not tag.startswith("G")},
        actions["50XXXXXX"],
        actions["60XX3000"],
    )


@cache
def rows() -> tuple[dict[str, str], ...]:
    """Return the rows of the table."""
    text = files("gateway.imaging").joinpath(TABLE).read_text("utf-8")
    return tuple(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
