"""Where things stand in an SDC Device: the containment paths MDS.VMD.CHAN.METRIC and the device rows.

A number once given to a handle stays: a module that is unplugged takes no other's place, and finds its own again.
"""

import re
from collections.abc import Iterable, Mapping

from gateway.formats.sdc_facts import Coded, Descriptor, Host, Label, Part
from gateway.formats.terms import device_refid
from gateway.model import Containment, DeviceIdentity

LEVELS = (Part.MDS, Part.VMD, Part.CHANNEL)
METRICS = frozenset({Part.NUMERIC, Part.STRING, Part.WAVE, Part.DISTRIBUTION})
GENERIC = {Part.MDS: (69633, "MDC_DEV_MDS"), Part.VMD: (69634, "MDC_DEV_VMD"), Part.CHANNEL: (69635, "MDC_DEV_CHAN")}
ORDINAL_MAX = 999_999  # six digits: what OBX-4 carries here

_DEPTHS = {part: depth for depth, part in enumerate(LEVELS)}
_EUI_64 = re.compile(r"(?:urn:dev:mac:)?([0-9A-F]{2}(?:[:-]?[0-9A-F]{2}){7})", re.IGNORECASE)  # RFC 9039, 4.1

Paths = Mapping[str, str]


def paths(descriptors: Iterable[Descriptor], before: Paths) -> dict[str, str]:
    """Return the path of each level and metric by its handle; `before` is the last answer, whose numbers are kept.

    Siblings are numbered in the order given; metrics are leaves of the level they stand under. Handles of `before`
    that are gone stay in the answer.
    """
    found = dict(before)
    used: dict[tuple[str, ...], int] = {}
    for sub in before.values():
        numbers = sub.split(".")
        while numbers and numbers[-1] == "0":
            numbers.pop()
        parent = _place(tuple(numbers[:-1]), len(numbers) == 4)
        used[parent] = max(used.get(parent, 0), int(numbers[-1]))
    placed = [one for one in descriptors if one.part in LEVELS or one.part in METRICS]
    for one in sorted(placed, key=lambda each: _DEPTHS.get(each.part, len(LEVELS))):  # parents first, else as given
        if one.handle in found:
            continue
        above = () if one.part is Part.MDS else _prefix(found.get(one.parent or ""))
        leaf = one.part in METRICS
        if above is None or (not leaf and len(above) >= len(LEVELS)):
            continue  # stands under nothing we know
        place = _place(above, leaf)
        number = used[place] = used.get(place, 0) + 1
        if number <= ORDINAL_MAX:
            levels = [*above, *["0"] * (3 - len(above)), str(number)] if leaf else [*above, str(number)]
            found[one.handle] = ".".join([*levels, *["0"] * (4 - len(levels))])
    return found


def _prefix(sub: str | None) -> tuple[str, ...] | None:
    """Return a level's own numbers, without the zeros at the end; None for what is no level."""
    if sub is None or not sub.endswith(".0"):
        return None
    return tuple(number for number in sub.split(".") if number != "0")


def _place(above: tuple[str, ...], leaf: bool) -> tuple[str, ...]:
    """Return what numbers are counted under: levels and metrics of one parent are counted apart."""
    trimmed = tuple(number for number in above if number != "0")
    return (*trimmed, "metric") if leaf else trimmed


def rows(descriptors: Iterable[Descriptor], subs: Paths, wanted: Iterable[str]) -> tuple[Containment, ...]:
    """Return the device rows above the wanted paths, in the tree's order of handles."""
    needed = {level for sub in set(wanted) for level in _above(sub)}
    named = [one for one in descriptors if one.part in LEVELS and subs.get(one.handle) in needed]
    return tuple(_row(one, subs[one.handle]) for one in named)


def _above(sub: str) -> tuple[str, ...]:
    mds, vmd, channel, _ = sub.split(".")
    return (f"{mds}.0.0.0", f"{mds}.{vmd}.0.0", f"{mds}.{vmd}.{channel}.0")


def _row(one: Descriptor, sub: str) -> Containment:
    code = one.coded.mdc if one.coded else None
    refid = refid_of(one.coded) or (device_refid(code) if code is not None else None)
    if code is None or refid is None:
        code, refid = GENERIC[one.part]
    return Containment(sub=sub, code=code, refid=refid)


def refid_of(coded: Coded | None) -> str | None:
    """Return the symbolic name where it looks like one of the nomenclature."""
    symbol = coded.symbol if coded else None
    return symbol if symbol and re.fullmatch(r"MDCX?_[A-Z0-9_]{1,70}", symbol) else None


def identity(label: Label | None, host: Host, *, alone: bool) -> DeviceIdentity:
    """Return who a Device system is; `alone` tells that what DPWS says of the whole provider is said of this one.

    A Device without a serial number is known by its endpoint reference, which is stable over restarts.
    """
    own = label or Label()
    outer = host if alone else Host(epr=host.epr)
    return DeviceIdentity(
        manufacturer=own.manufacturer or outer.manufacturer,
        model=own.model or outer.model,
        serial=own.serial or outer.serial or host.epr,
        software=own.software or outer.firmware,
        eui64=_eui64((*own.system_ids, host.epr or "") if alone else own.system_ids),
    )


def _eui64(texts: Iterable[str]) -> str | None:
    found = (_EUI_64.fullmatch(text.strip()) for text in texts)
    return next((re.sub("[:-]", "", match[1]).upper() for match in found if match), None)
