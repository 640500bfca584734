"""Which Destinations is a Message owed to?

The answer is worked out when the Router is made, per Source and kind, and looked up for each Message. Only where a
`when` could change the answer is anything asked of the Message. A Destination is owed what its type can carry,
whether it is enabled or not: the data waits. Waves alone are owed to nobody who takes no waves.

A rule that fails while it is evaluated is taken as true: too much is delivered rather than too little.

What a route with `after = "study-complete"` owes of Instances is worked out when their study is complete, by
`owed_when_complete`; anything else that comes by it is owed at once, and so is an Instance that names no study.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cached_property

from gateway.config import (
    Destination,
    DeviceSource,
    MllpDestination,
    MllpSource,
    Route,
    SdcSource,
    Source,
    carried_by,
    takes_steps,
)
from gateway.expressions import Expression, Value, compile_expression, needed_keywords
from gateway.formats.hl7 import Hl7Text
from gateway.formats.hl7_path import Hl7Path
from gateway.formats.pcd_waves import is_waves_alone
from gateway.model import Incoming, Kind, Message, Observation

URGENT = frozenset({"STAT", "HIGH"})  # of (0040,1003); ROUTINE, MEDIUM and LOW are the others
ENCODING = "utf-8"  # of HL7 without MSH-18, where the Source names no other


@dataclass(frozen=True, slots=True)
class Owed:
    """Names of Destinations in the order of the configuration, and the routes (counted from 0) whose `when` failed."""

    destinations: tuple[str, ...] = ()
    failed_rules: tuple[int, ...] = ()


NOTHING = Owed()

_Covering = tuple[int, frozenset[str], Expression | None]  # a route's number, its Destinations, its `when`


@dataclass(frozen=True, slots=True)
class _Rule:
    """A route with a `when`, as one Source and kind meet it: the Destinations that only the `when` decides."""

    number: int
    when: Expression
    to: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one Source's Messages of one kind are owed to: `always`, and what the rules add."""

    always: Owed
    rules: tuple[_Rule, ...] = ()


class Router:
    """Knows the routes; it never changes, so that threads may share it."""

    def __init__(self, routes: Sequence[Route], sources: Sequence[Source], destinations: Sequence[Destination]) -> None:
        """Compile the routes; raises ExpressionError for a `when` at fault, which the configuration's check reports."""
        self._routes = tuple(routes)
        self._whens = tuple(compile_expression(route.when) if route.when is not None else None for route in routes)
        self._prioritised = tuple(number for number, route in enumerate(self._routes) if route.priority is not None)
        self._carried = {each.name: carried_by(each.type, steps=takes_steps(each)) for each in destinations}
        self._waveless = frozenset(to.name for to in destinations if isinstance(to, MllpDestination) and not to.waves)
        self._sources = {source.name: source for source in sources}
        self._plans = {name: self._plans_of(name) for name in self._sources}
        self._late = {name: self._late_plan_of(name) for name in self._sources}

    def owed(self, incoming: Incoming | Message) -> Owed:
        """Return the Destinations that this Message is owed to, without repeats; none if it is quarantined."""
        if incoming.quarantined is not None:
            return NOTHING
        plans = self._plans.get(incoming.source)
        if plans is None:  # of a Source that was configured once: its name may still match
            plans = self._plans_of(incoming.source)
        plan = plans.get(incoming.kind)
        if plan is None:
            return NOTHING
        if incoming.kind is Kind.DICOM and not incoming.headers.get("StudyInstanceUID"):
            plan = self._plan(self._covering_at_all(incoming.source), Kind.DICOM)
        owed = self._decide(plan, incoming) if plan.rules else plan.always
        if incoming.result is not None and incoming.result.waves and is_waves_alone(incoming.result):
            return Owed(tuple(name for name in owed.destinations if name not in self._waveless), owed.failed_rules)
        return owed

    def owed_when_complete(self, message: Incoming | Message) -> Owed:
        """Return the Destinations that an Instance is owed to once its study is complete (`after`)."""
        if message.quarantined is not None or message.kind is not Kind.DICOM:
            return NOTHING
        plan = self._late.get(message.source) or self._late_plan_of(message.source)
        return self._decide(plan, message) if plan.rules else plan.always

    def is_urgent(self, incoming: Incoming | Message) -> bool:
        """Tell whether an Instance goes before others: its routes say so, else its Requested Procedure Priority."""
        if incoming.kind is not Kind.DICOM:
            return False
        said = [
            self._routes[number].priority
            for number in self._prioritised
            if _covers(self._routes[number], incoming.source) and self._applies(number, incoming)
        ]
        if said:
            return "stat" in said
        return incoming.headers.get("RequestedProcedurePriority", "").strip().upper() in URGENT

    def _applies(self, number: int, incoming: Incoming | Message) -> bool:
        when = self._whens[number]
        return when is None or _holds(when, _Subject(incoming, self._sources.get(incoming.source)))

    def routes_to(self, message: Incoming | Message, destination: str) -> tuple[int, ...]:
        """Return the routes, counted from 0, by which a Message is owed to a Destination."""
        subject = _Subject(message, self._sources.get(message.source))
        return tuple(
            number
            for number, (route, when) in enumerate(zip(self._routes, self._whens, strict=True))
            if destination in route.to and _covers(route, message.source) and (when is None or _holds(when, subject))
        )

    def keywords(self, source: str) -> frozenset[str]:
        """Return the DICOM keywords that the routes of a Source ask for: what intake must read into `headers`."""
        whens = (when for route, when in zip(self._routes, self._whens, strict=True) if _covers(route, source))
        return needed_keywords(when for when in whens if when is not None)

    def _decide(self, plan: _Plan, incoming: Incoming | Message) -> Owed:
        subject = _Subject(incoming, self._sources.get(incoming.source))
        names = set(plan.always.destinations)
        failed = []
        for rule in plan.rules:
            if rule.to <= names:
                continue
            try:
                if rule.when.matches(subject):
                    names |= rule.to
            except Exception:  # noqa: BLE001 - whatever breaks in reading a foreign message, the Message is not lost
                names |= rule.to
                failed.append(rule.number)
        return Owed(self._in_order(names), tuple(failed))

    def _plans_of(self, source: str) -> dict[Kind, _Plan]:
        at_once, at_all = self._covering(source, late=False), self._covering_at_all(source)
        return {
            kind: self._plan(at_once if kind is Kind.DICOM else at_all, kind)
            for kind in Kind
            if kind is not Kind.UNREADABLE
        }

    def _late_plan_of(self, source: str) -> _Plan:
        return self._plan(self._covering(source, late=True), Kind.DICOM)

    def _covering_at_all(self, source: str) -> list[_Covering]:
        return sorted(self._covering(source, late=False) + self._covering(source, late=True), key=_number_of)

    def _covering(self, source: str, *, late: bool) -> list[_Covering]:
        return [
            (number, frozenset(route.to), when)
            for number, (route, when) in enumerate(zip(self._routes, self._whens, strict=True))
            if _covers(route, source) and (route.after is not None) == late
        ]

    def _plan(self, covering: list[_Covering], kind: Kind) -> _Plan:
        carrying = {name for name, carried in self._carried.items() if kind in carried}
        always = {name for _, to, when in covering if when is None for name in to & carrying}
        rules = (_Rule(number, when, to & carrying - always) for number, to, when in covering if when is not None)
        return _Plan(Owed(self._in_order(always)), tuple(rule for rule in rules if rule.to))

    def _in_order(self, names: set[str]) -> tuple[str, ...]:
        return tuple(name for name in self._carried if name in names)


def _holds(when: Expression, subject: "_Subject") -> bool:
    try:
        return when.matches(subject)
    except Exception:  # noqa: BLE001 - as in owed: a rule that cannot be evaluated holds
        return True


def _number_of(covering: _Covering) -> int:
    return covering[0]


def _covers(route: Route, source: str) -> bool:
    return any(fnmatchcase(source, pattern) for pattern in route.sources)


class _Subject:
    """A Message as expressions ask it; HL7 is read on the first question and once."""

    def __init__(self, incoming: Incoming | Message, source: Source | None) -> None:
        self._incoming = incoming
        self._source = source

    def hl7(self, path: Hl7Path) -> Sequence[str]:
        return self._hl7.read(path) if self._hl7 is not None else ()

    def header(self, keyword: str) -> str | None:
        return self._incoming.headers.get(keyword)

    def measured(self, key: str, attribute: str) -> Sequence[Value]:
        result = self._incoming.result
        if result is None:
            return ()
        return [value for seen in result.observations if seen.key == key for value in _attribute(seen, attribute)]

    def fact(self, name: str) -> str | None:
        match name:
            case "source":
                return self._incoming.source
            case "kind":
                return self._incoming.kind.value
            case "peer":
                return self._incoming.peer
            case "bed":
                return self._source.bed if isinstance(self._source, DeviceSource | SdcSource) else None
        result = self._incoming.result
        if result is None:
            return None
        if name == "patient_id":
            return result.patient_id
        value: str | None = getattr(result.device, name.removeprefix("device."))
        return value

    @cached_property
    def _hl7(self) -> Hl7Text | None:
        if self._incoming.kind is not Kind.HL7 or self._incoming.raw is None:
            return None
        encoding = self._source.encoding if isinstance(self._source, MllpSource) else ENCODING
        return Hl7Text(self._incoming.raw, encoding)


def _attribute(seen: Observation, attribute: str) -> Sequence[Value]:
    """Return the values of an Observation's attribute: numbers as Decimal, the rest as text."""
    if attribute == "flags":
        return seen.flags
    if attribute == "episodic":
        return ("true" if seen.episodic else "false",)
    if attribute == "absent":
        return () if seen.absent is None else (seen.absent.value,)
    if attribute == "method":
        return (seen.method.value,)
    value: Value | int | None = getattr(seen, attribute)
    if value is None:
        return ()
    return (Decimal(value) if isinstance(value, int) else value,)
