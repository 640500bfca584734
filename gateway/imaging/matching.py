"""C-FIND matching: which entities a query means, why it leaves others out, and what it is answered (PS3.4, C.2.2.2).

A query and an entity are decoded data sets (`gateway.dataset`); values are compared by `values.py`. Worklist and
Query/Retrieve use the same engine; what differs is said when the query is read: which keys are known, and which date
and time keys together mean one period instead of a time on each day.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.dataset import EMPTY, Attributes, Element
from gateway.errors import ContentError
from gateway.formats.identifiers import CHARACTER_SET, name_of
from gateway.imaging.values import (
    RANGE_VRS,
    check_key,
    date_point,
    date_span,
    fits,
    is_universal,
    time_point,
    time_span,
)

TIMEZONE = 0x00080201
QUERY_LEVEL = 0x00080052
UNMATCHED = frozenset({CHARACTER_SET, TIMEZONE, QUERY_LEVEL})  # they say how to read, not what to find

Path = tuple[int, ...]
Known = Callable[[Path], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A C-FIND identifier that was checked; `read_query` makes it.

    `periods` are pairs of a date and a time key that mean one period where both are ranges of one form. `unsupported`
    are keys that were asked for and are neither known nor, so far, in any entity: their answers carry 0xFF01.
    """

    keys: Attributes
    periods: tuple[tuple[int, int], ...] = ()
    unsupported: frozenset[Path] = field(default_factory=frozenset)

    def misses(self, entity: Attributes) -> tuple[str, ...]:
        """Return the keys that leave an entity out, as names (`ScheduledProcedureStepSequence.Modality`); () fits."""
        return tuple(_misses(self.keys, entity, self.periods, (), self.unsupported))

    def answer(self, entity: Attributes) -> dict[int, Element]:
        """Return what was asked for of an entity: attributes it lacks are empty, unsupported ones left out."""
        return _answer(self.keys, entity, self.periods, (), self.unsupported)


def read_query(
    identifier: Attributes, *, known: Known = lambda path: True, periods: Sequence[tuple[int, int]] = ()
) -> Query:
    """Check an identifier and make a query of it.

    Raises ContentError, with the key's name and never its value, where a date or time key is none.
    """
    unsupported = frozenset(path for path, _ in _leaves(identifier, ()) if not known(path))
    for path, element in _leaves(identifier, ()):
        try:
            check_key(element.vr, element.values)
        except ContentError as error:
            raise ContentError(f"{'.'.join(map(name_of, path))}: {error}") from None
    return Query(keys=identifier, periods=tuple(periods), unsupported=unsupported)


def _leaves(keys: Attributes, above: Path) -> Iterator[tuple[Path, Element]]:
    """Yield every key with its path; a sequence with keys in its item stands for these."""
    for tag, element in keys.items():
        if tag in UNMATCHED:
            continue
        path = (*above, tag)
        item = _item(element)
        if element.vr == "SQ" and item:
            yield from _leaves(item, path)
        else:
            yield path, element


def _misses(
    keys: Attributes,
    entity: Attributes,
    periods: Sequence[tuple[int, int]],
    above: Path,
    unsupported: frozenset[Path],
) -> Iterator[str]:
    joined: set[int] = set()
    for date, time in periods:
        verdict = _period(keys, entity, date, time)
        if verdict is not None:
            joined |= {date, time}
            if not verdict:
                yield f"{_named((*above, date))}+{name_of(time)}"
    for tag, element in keys.items():
        path = (*above, tag)
        if tag in UNMATCHED or tag in joined or path in unsupported:
            continue
        if element.vr == "SQ":
            yield from _sequence_misses(_item(element), entity.get(tag), periods, path, unsupported)
        elif not is_universal(element.vr, element.values):
            standing = entity.get(tag)
            if standing is None or not fits(element.vr, element.values, standing.values):
                yield _named(path)


def _sequence_misses(
    item: Attributes,
    standing: Element | None,
    periods: Sequence[tuple[int, int]],
    path: Path,
    unsupported: frozenset[Path],
) -> Iterator[str]:
    """Yield what leaves every item out: of the item that is nearest (C.2.2.2.6)."""
    items = standing.items if standing is not None and standing.items else (EMPTY,)
    found = [list(_misses(item, each, periods, path, unsupported)) for each in items]
    yield from min(found, key=len)


def _answer(
    keys: Attributes,
    entity: Attributes,
    periods: Sequence[tuple[int, int]],
    above: Path,
    unsupported: frozenset[Path],
) -> dict[int, Element]:
    found: dict[int, Element] = {}
    for tag, element in keys.items():
        path = (*above, tag)
        standing = entity.get(tag)
        if tag == CHARACTER_SET or (path in unsupported and standing is None):
            continue
        if element.vr != "SQ" and (standing is None or standing.vr != "SQ"):
            found[tag] = standing if standing is not None else Element(element.vr)
            continue
        item = _item(element)
        items = standing.items if standing is not None else ()
        if item:
            fitting = [each for each in items if not any(_misses(item, each, periods, path, unsupported))]
            items = tuple(_answer(item, each, periods, path, unsupported) for each in fitting)
        found[tag] = Element("SQ", items=items)
    return found


def _period(keys: Attributes, entity: Attributes, date: int, time: int) -> bool | None:
    """Match a date and a time key as one period; None where they are not two ranges of one form."""
    dates, times = _only_value(keys, date), _only_value(keys, time)
    if dates is None or times is None:
        return None
    days, hours = date_span(dates), time_span(times)
    forms = {(span.is_range, span.low is None, span.high is None) for span in (days, hours)}
    if len(forms) != 1 or not days.is_range:
        return None
    low = None if days.low is None or hours.low is None else days.low + hours.low
    high = None if days.high is None or hours.high is None else days.high + hours.high
    for point in _points(entity, date, time):
        if (low is None or low <= point) and (high is None or point <= high):
            return True
    return False


def _points(entity: Attributes, date: int, time: int) -> Iterator[str]:
    """Yield an entity's dates, each with the time beside it, as digits; one without time begins its day."""
    days, hours = entity.get(date), entity.get(time)
    if days is None:
        return
    times = hours.values if hours is not None else ()
    for index, day in enumerate(days.values):
        point = date_point(day)
        hour = time_point(times[index]) if index < len(times) and times[index] else "0" * 12
        if point is not None and hour is not None:
            yield point + hour


def _only_value(keys: Attributes, tag: int) -> str | None:
    element = keys.get(tag)
    if element is None or element.vr not in RANGE_VRS or len(element.values) != 1 or not element.values[0]:
        return None
    return element.values[0]


def _item(element: Element) -> Attributes:
    """Return the keys of a sequence key: of its one item; of several, which no query may have, the first with any."""
    return next((item for item in element.items if item), EMPTY)


def _named(path: Path) -> str:
    return ".".join(map(name_of, path))
