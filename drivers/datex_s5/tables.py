"""The tables of groups, fields, labels, states and waves, read from the CSV files beside this module at first use.

A `key` that begins with `@` is decided by what the monitor says in the same group: `@sys` by the pressure's label,
`@hr` by the source of the heart rate, and so on. See `numerics.py` and `waves.py`.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from itertools import groupby
from pathlib import Path

from drivers.datex_s5.record import LEVEL_MAX
from gateway.formats.terms import device_code, term
from gateway.model import Containment

FAMILIES: dict[str, tuple[str, ...]] = {  # rows of a family hold for every group of it
    "p": tuple(f"p{number}" for number in range(1, 9)),
    "t": tuple(f"t{number}" for number in range(1, 7)),
    "gas": ("o2", "n2o", "aa"),
    "ecg": ("ecg", "arrh_ecg", "ecg12"),
    "ecg_family": ("arrh_ecg", "ecg12"),
}
_MDS = "MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS"
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One number of a group; `place` counts 16-bit words from the start of the class data.

    Monitors of the interface levels `level` to `until` fill it.
    """

    name: str
    offset: int
    place: int
    wide: int  # bits: 8, 16, 32
    level: int
    until: int
    metric: int
    scale: Decimal
    unit: str | None
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One bit of a group's `status`, `label` or `flags` word, and what it does to the group's values."""

    word: str
    mask: int
    code: str
    text: str
    technical: bool
    effect: str  # "doubt", "off", "busy" or ""
    event: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A few bits of a group's `status` or `label` word that name one of several things."""

    word: str
    shift: int
    mask: int
    metric: int
    key: str
    names: dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group of a class of physiological data; places count 16-bit words."""

    name: str
    place: int  # of the status word; the label stands two words further
    has_header: bool
    vmd: int
    channel: int
    vmd_refid: str
    channel_refid: str
    fields: tuple[Field, ...]
    states: tuple[State, ...]
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveType:
    """One kind of wave; `rate` samples a second."""

    number: int
    name: str
    rate: int
    factor: Decimal
    unit: str | None
    key: str
    level: int
    sub: str


@cache
def groups() -> tuple[tuple[Group, ...], ...]:
    """Return the groups of the classes basic, ext1, ext2 and ext3."""
    rows = list(_rows("groups.csv"))
    places = {row["group"]: int(row["offset"]) // 2 for row in rows if row["offset"]}
    return tuple(tuple(_group(row, places) for row in rows if row["class"] == str(number)) for number in range(4))


@cache
def label_names(kind: str) -> dict[int, str]:
    """Return the names of a kind of labels: `pressure`, `temperature`, `agent`, `lead`, `saturation`."""
    return {int(row["code"]): row["label"] for row in _rows("labels.csv") if row["kind"] == kind}


@cache
def label_keys(kind: str, role: str) -> dict[int, str]:
    """Return the key of a label's role: `sys`, `dia`, `mean`, `wave`, `value`, `et`, `insp`."""
    return {int(row["code"]): row[role] for row in _rows("labels.csv") if row["kind"] == kind}


@cache
def electrodes() -> dict[int, str]:
    """Return the names of the EEG electrodes (GE 8005313, pages 51 to 53)."""
    return {int(row["code"]): row["text"] for row in _rows("enums.csv") if row["group"] == "electrode"}


@cache
def wave_types() -> dict[int, WaveType]:
    """Return the wave types by their number."""
    return {int(row["type"]): _wave(row) for row in _rows("waves.csv")}


@cache
def wave_numbers() -> dict[str, int]:
    """Return the numbers of the wave types by their name."""
    return {found.name: found.number for found in wave_types().values()}


@cache
def device_rows(present: frozenset[tuple[int, int]], vmd_base: int) -> tuple[Containment, ...]:
    """Return the rows above the metrics for the channels (VMD, channel) that are there."""
    known = {(group.vmd, group.channel): group for groups_of in groups() for group in groups_of}
    rows = [_row("1.0.0.0", _MDS)]
    for vmd, channels in groupby(sorted(present), key=lambda channel: channel[0]):
        numbers = [number for _, number in channels]
        rows.append(_row(f"1.{vmd_base + vmd}.0.0", known[vmd, numbers[0]].vmd_refid))
        rows += [_row(f"1.{vmd_base + vmd}.{number}.0", known[vmd, number].channel_refid) for number in numbers]
    return tuple(rows)


def _row(sub: str, refid: str) -> Containment:
    return Containment(sub=sub, code=device_code(refid), refid=refid)


def _group(row: dict[str, str], places: dict[str, int]) -> Group:
    name = row["group"]
    return Group(
        name=name,
        place=places[row["status_of"]],
        has_header=bool(row["offset"]),
        vmd=int(row["vmd"]),
        channel=int(row["channel"]),
        vmd_refid=row["vmd_refid"],
        channel_refid=row["channel_refid"],
        fields=tuple(_field(each) for each in _rows("fields.csv") if each["group"] == name),
        states=tuple(_state(each) for each in _rows("states.csv") if _holds_for(each["group"], name)),
        choices=tuple(_choices(name)),
    )


def _holds_for(written: str, name: str) -> bool:
    return written == name or name in FAMILIES.get(written, ())


def _field(row: dict[str, str]) -> Field:
    return Field(
        name=row["field"],
        offset=int(row["offset"]),
        place=int(row["offset"]) // 2,
        wide={"u8": 8, "s16": 16, "u32": 32}[row["type"]],
        level=int(row["level"] or 0),
        until=int(row["until"] or LEVEL_MAX),
        metric=int(row["metric"]),
        scale=Decimal(row["scale"]),
        unit=row["unit"] or None,
        key=row["key"],
    )


def _state(row: dict[str, str]) -> State:
    return State(
        word=row["word"],
        mask=1 << int(row["bit"]),
        code=row["code"],
        text=row["text"],
        technical=row["technical"] == "1",
        effect=row["effect"],
        event=term(row["event"]).code if row["event"] else None,
    )


def _choices(name: str) -> Iterator[Choice]:
    rows = [row for row in _rows("enums.csv") if _is_choice_of(row["group"], name)]
    for _, several in groupby(rows, key=lambda row: row["metric"]):
        first, *rest = list(several)
        yield Choice(
            word=first["word"],
            shift=int(first["shift"]),
            mask=(1 << int(first["bits"])) - 1,
            metric=int(first["metric"]),
            key=first["key"],
            names=_names([first, *rest]),
        )


def _is_choice_of(written: str, name: str) -> bool:
    return written == name or (written in ("p", "t") and name in FAMILIES[written])


def _names(rows: list[dict[str, str]]) -> dict[int, str]:
    if rows[0]["text"].startswith("@"):
        return label_names(rows[0]["text"][1:])
    return {int(row["code"]): row["text"] for row in rows if row["code"]}


def _wave(row: dict[str, str]) -> WaveType:
    return WaveType(
        number=int(row["type"]),
        name=row["name"],
        rate=int(row["rate"]),
        factor=Decimal(row["factor"] or 1),
        unit=row["unit"] or None,
        key=row["key"],
        level=int(row["level"]),
        sub=f"1.{row['vmd']}.{row['channel']}.{row['metric']}",
    )


def _rows(name: str) -> Iterator[dict[str, str]]:
    return iter(_read(name))


@cache
def _read(name: str) -> list[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
