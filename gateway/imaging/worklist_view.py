"""Which worklist items a Modality is answered, and what leaves the others out: decisions without wires.

    item --view of the calling AE title--> --keys of the query (matching.py)--> answer

The view names what it left out like a key: `view: station`. The service and `gateway worklist` both ask here, so that
what a person is told is what the Modality met.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.config import WorklistSettings, WorklistView
from gateway.dataset import Attributes, Element, item_at, text_at, values_at
from gateway.formats.identifiers import tag_of
from gateway.formats.worklist_tags import MODALITY, SEQUENCE, START_DATE, START_TIME, STATION, STATUS
from gateway.imaging.matching import Path, Query, read_query
from gateway.imaging.values import glob, is_universal
from gateway.orders import WorklistItem

PERIODS = ((START_DATE, START_TIME),)  # PS3.4, table K.6-1: both ranges together mean one period


@dataclass(frozen=True, slots=True)
class Examined:
    """What became of every item: answers in the order of the items, and by `accession/step` what left others out."""

    answers: tuple[Attributes, ...]
    excluded: dict[str, tuple[str, ...]]

    @property
    def looked_at(self) -> int:
        """Return how many items were looked at."""
        return len(self.answers) + len(self.excluded)


def read_worklist_query(identifier: Attributes) -> Query:
    """Check a C-FIND identifier of the Modality Worklist. Raises ContentError."""
    return read_query(identifier, known=lambda path: path in _known(), periods=PERIODS)


def view_of(settings: WorklistSettings, calling_ae_title: str) -> WorklistView | None:
    """Return the view of a Modality, None where it is shown everything."""
    return next((view for view in settings.views if glob(view.ae_title, calling_ae_title)), None)


def today(now: datetime, settings: WorklistSettings) -> date:
    """Return the hospital's day."""
    return local_time(now, settings).date()


def local_time(now: datetime, settings: WorklistSettings) -> datetime:
    """Return an instant in the hospital's time; in the machine's where no zone is named or known."""
    if settings.timezone:
        try:
            return now.astimezone(ZoneInfo(settings.timezone))
        except (ZoneInfoNotFoundError, ValueError):
            pass  # `gateway check` told
    return now.astimezone()


def examine(
    items: Iterable[WorklistItem], query: Query, settings: WorklistSettings, calling_ae_title: str, day: date
) -> Examined:
    """Match every item; what the view leaves out is told beside what the keys do."""
    view = view_of(settings, calling_ae_title)
    asked = _asked_stations(query) if settings.offer_unassigned else ()
    answers: list[Attributes] = []
    excluded: dict[str, tuple[str, ...]] = {}
    for item in items:
        entity = presented(item, asked)
        why = (*view_misses(view, item.attributes, settings, calling_ae_title, day), *query.misses(entity))
        if why:
            excluded[f"{item.accession}/{item.step_id}"] = why
        else:
            answers.append(query.answer(entity))
    return Examined(tuple(answers), excluded)


def presented(item: WorklistItem, stations: Sequence[str] = ()) -> Attributes:
    """Return an item as it is matched and answered: with its status, and with the asked station where it has none."""
    step = {**item_at(item.attributes, SEQUENCE), STATUS: Element("CS", (item.status.value,))}
    if stations and not values_at(step, STATION):
        step[STATION] = Element("AE", tuple(stations))
    return {**item.attributes, SEQUENCE: Element("SQ", items=(step,))}


def view_misses(
    view: WorklistView | None, attributes: Attributes, settings: WorklistSettings, calling_ae_title: str, day: date
) -> tuple[str, ...]:
    """Return what of a view leaves an item out."""
    if view is None:
        return ()
    found: list[str] = []
    named = values_at(attributes, SEQUENCE, STATION)
    wanted = {*view.stations, *([calling_ae_title] if view.own_station else [])}
    if wanted and not wanted & set(named) and (named or not settings.offer_unassigned):
        found.append("view: station")
    if view.modalities and text_at(attributes, SEQUENCE, MODALITY) not in view.modalities:
        found.append("view: modality")
    starts = text_at(attributes, SEQUENCE, START_DATE)
    is_early = view.days_before is not None and starts < _digits(day, -view.days_before)
    is_late = view.days_after is not None and starts > _digits(day, view.days_after)
    if is_early or is_late:
        found.append("view: day")
    return tuple(found)


def _digits(day: date, days: int) -> str:
    try:
        return f"{day + timedelta(days=days):%Y%m%d}"
    except OverflowError:
        return "99991231" if days > 0 else "00010101"


def _asked_stations(query: Query) -> tuple[str, ...]:
    """Return the station that a query asks for; a pattern asks for none."""
    key = item_at(query.keys, SEQUENCE).get(STATION)
    if key is None or is_universal(key.vr, key.values) or any("*" in one or "?" in one for one in key.values):
        return ()
    return key.values


@lru_cache(maxsize=1)
def _known() -> frozenset[Path]:
    text = (resources.files("gateway.imaging") / "worklist_keys.csv").read_text("utf-8")
    paths = [tuple(tag_of(name) for name in row["key"].split(".")) for row in csv.DictReader(text.splitlines())]
    codes = [tag_of(name) for name in ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")]
    return frozenset(paths) | {(*path, code) for path in paths for code in codes}
