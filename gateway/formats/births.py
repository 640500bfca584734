"""What has been learned of a Device: its identity, its tree and its metrics, for the retained `birth` document.

A Device shows its metrics bit by bit, so a Birth only grows: what one Result leaves out stays known, and only what
is new or different makes a different Birth. The identity of another Device at the same Source is not completed by what
was known of the first: no model stands with another's serial number.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Literal

from gateway.formats.containment import attributes, levels, sub_order
from gateway.formats.digits import writable
from gateway.formats.origin import Origin
from gateway.model import Containment, DeviceIdentity, Method, Observation, Result, Wave

SHAPES_MAX = 16  # of one Device; a monitor has a handful
METRICS_MAX = 2000  # of one Device; more is a fault of its driver and is not announced
_WHO = ("manufacturer", "model", "serial", "eui64")  # of one Device these never change; its software may
_SETTINGS = frozenset({Method.SETTING_AUTO, Method.SETTING_MANUAL, Method.SETTING_REMOTE})

MetricKind = Literal["numeric", "enum", "setting", "wave"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One quantity that a Device reports; limits are its alarm limits, `period_s` is between a wave's samples."""

    key: str
    sub: str
    kind: MetricKind
    code: int | None = None
    refid: str | None = None
    unit: str | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    period_s: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """All that is known of one Device, in the tree's order."""

    origin: Origin
    identity: DeviceIdentity
    levels: tuple[Containment, ...]
    metrics: tuple[Metric, ...]


Shape = tuple[object, ...]


def shape_of(origin: Origin, result: Result) -> Shape:
    """Return all of a Result that `learn` could learn from: where this is equal, so is what is learned."""
    return (
        origin,
        result.device,
        result.containment,
        tuple(
            [
                (
                    item.key,
                    item.sub,
                    item.code,
                    item.refid,
                    item.unit,
                    _kind(item),
                    item.low,
                    item.high,
                    item.absent is None,
                )
                for item in result.observations
            ]
        ),
        tuple([(wave.key, wave.sub, wave.code, wave.refid, wave.unit, wave.period_s) for wave in result.waves]),
        result.device_time is not None,
        tuple([item.priority is None for item in result.conditions]),
    )


class Births:
    """What is known of each Device, by its Source."""

    def __init__(self) -> None:
        self._known: dict[str, Birth] = {}
        self._shapes: dict[str, set[Shape]] = {}  # that told nothing new since the Birth last changed

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Birth]:
        return iter(self._known.values())

    def origin_of(self, source: str) -> Origin | None:
        """Return where a Device stands as it was announced, None when it was not."""
        known = self._known.get(source)
        return None if known is None else known.origin

    def learn(self, source: str, origin: Origin, result: Result) -> Birth | None:
        """Return what is to be announced after this Result, None when it told nothing new; `keep` then keeps it.

        Raises ContentError when the Result holds a containment path that is none.
        """
        shape = shape_of(origin, result)
        shapes = self._shapes.setdefault(source, set())
        if shape in shapes:
            return None
        before = self._known.get(source)
        known = learn(before, origin, result)
        if known != before:
            return known
        if len(shapes) >= SHAPES_MAX:
            shapes.clear()
        shapes.add(shape)
        return None

    def keep(self, source: str, known: Birth) -> None:
        """Take notice that a Birth was announced."""
        self._known[source] = known
        self._shapes.pop(source, None)


def learn(known: Birth | None, origin: Origin, result: Result) -> Birth:
    """Return what is known of the Device after this Result; equal to `known` when there is nothing new.

    Raises ContentError when the Result holds a containment path that is none.
    """
    rows = {row.sub: row for row in known.levels} if known is not None else {}
    named = {row.sub for row in result.containment}
    rows |= {row.sub: row for row in levels(result) if row.sub in named or row.sub not in rows}  # none becomes generic
    return Birth(
        origin=origin,
        identity=_known_identity(known.identity if known is not None else DeviceIdentity(), result.device),
        levels=tuple(sorted(rows.values(), key=lambda row: sub_order(row.sub))),
        metrics=_known_metrics(known.metrics if known is not None else (), result),
    )


def _known_identity(known: DeviceIdentity, seen: DeviceIdentity) -> DeviceIdentity:
    """Return what completes the known identity, or the seen one alone where the two cannot be one Device."""
    given = {name.name: value for name in fields(seen) if (value := getattr(seen, name.name)) is not None}
    completed = replace(known, **given)
    return completed if all(_agree(known, completed, name) for name in _WHO) else seen


def _agree(known: DeviceIdentity, completed: DeviceIdentity, name: str) -> bool:
    return getattr(known, name) in (None, getattr(completed, name))


def _known_metrics(known: tuple[Metric, ...], result: Result) -> tuple[Metric, ...]:
    metrics = {(metric.sub, metric.key): metric for metric in known}
    for metric, absent in _seen_metrics(result):
        place = (metric.sub, metric.key)
        if place in metrics and absent:  # a missing value tells nothing new of its quantity
            continue
        if place in metrics or len(metrics) < METRICS_MAX:
            metrics[place] = metric
    return tuple(sorted(metrics.values(), key=lambda metric: (sub_order(metric.sub), metric.key)))


def _seen_metrics(result: Result) -> list[tuple[Metric, bool]]:
    seen = [(_metric(item), item.absent is not None) for item in result.observations]
    own = [
        Metric(key=a.key, sub=a.sub, kind="enum", code=a.code, refid=a.refid)
        for a in attributes(result)
        if not a.is_alarm
    ]
    return seen + [(metric, False) for metric in own] + [(_wave_metric(wave), False) for wave in result.waves]


def _metric(seen: Observation) -> Metric:
    return Metric(
        key=seen.key,
        sub=seen.sub,
        kind=_kind(seen),
        code=seen.code,
        refid=seen.refid,
        unit=seen.unit,
        low=seen.low,
        high=seen.high,
    )


def _wave_metric(wave: Wave) -> Metric:
    return Metric(
        key=wave.key,
        sub=wave.sub,
        kind="wave",
        code=wave.code,
        refid=wave.refid,
        unit=wave.unit,
        period_s=writable(wave.period_s),
    )


def _kind(seen: Observation) -> MetricKind:
    if seen.method in _SETTINGS:
        return "setting"
    return "numeric" if isinstance(seen.value, Decimal) or (seen.value is None and seen.unit) else "enum"
