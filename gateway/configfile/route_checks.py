"""What routes say of Sources and Destinations: names that match nothing, kinds nobody carries, faults of `when`."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from gateway.config import DicomSource, carried_by, kinds_of
from gateway.configfile.checks import Finding, Stanza, Tables, stanzas
from gateway.expressions import ExpressionError, compile_expression
from gateway.model import Kind
from gateway.typed import Fault, did_you_mean


def route_findings(tables: Tables) -> Iterator[Finding]:
    """Report every route that could not do what it says, and Sources and Destinations that no route names."""
    sources, destinations = stanzas(tables, "source"), stanzas(tables, "destination")
    routes = stanzas(tables, "route")
    for route in routes:
        yield from _pattern_findings(route, sources)
        yield from _target_findings(route, destinations)
        froms, tos = _sources_of(route, sources), _destinations_of(route, destinations)
        yield from _kind_findings(route, froms, tos)
        yield from _when_findings(route, _kinds(froms), _carried(tos))
        yield from _after_findings(route, _kinds(froms))
    if len(sources) == len(destinations) == 1 and "route" not in tables:
        yield from _implicit_findings(sources[0], destinations[0])
    else:
        yield from _idle_findings(routes, sources, destinations)


def _pattern_findings(route: Stanza, sources: Sequence[Stanza]) -> Iterator[Finding]:
    names = [stanza.text("name") for stanza in sources]
    known = [name for name in names if name is not None]
    for index, pattern in enumerate(_texts(route, "from")):
        if None not in names and not any(fnmatchcase(name, pattern) for name in known):
            yield Finding(
                Fault((*route.path, "from", index), f"{pattern!r} matches no source{did_you_mean(pattern, known)}")
            )


def _target_findings(route: Stanza, destinations: Sequence[Stanza]) -> Iterator[Finding]:
    names = [stanza.text("name") for stanza in destinations]
    known = [name for name in names if name is not None]
    for index, name in enumerate(_texts(route, "to")):
        if None not in names and name not in known:
            text = f"there is no destination {name!r}{did_you_mean(name, known)}"
            yield Finding(Fault((*route.path, "to", index), text))


def _kind_findings(route: Stanza, sources: Sequence[Stanza], destinations: Sequence[Stanza]) -> Iterator[Finding]:
    kinds, carried = _kinds(sources), _carried(destinations)
    if not kinds or not carried:
        return
    if not kinds & carried:
        yield route.fault("to", _nothing_passes(kinds, carried))
        return
    for stanza in destinations:
        taken = _carried([stanza])
        if taken and not taken & kinds:
            name = stanza.text("name")
            yield route.fault(
                "to", f"nothing of this route goes to {name!r}: {_nothing_passes(kinds, taken)}", certain=False
            )


def _when_findings(route: Stanza, kinds: frozenset[Kind], carried: frozenset[Kind]) -> Iterator[Finding]:
    text = route.text("when")
    if text is None:
        return
    try:
        compile_expression(text, kinds & carried or kinds)
    except ExpressionError as error:
        yield Finding(Fault((*route.path, "when"), str(error)), offset=error.position)


def _after_findings(route: Stanza, kinds: frozenset[Kind]) -> Iterator[Finding]:
    if route.table.get("after") is not None and kinds and Kind.DICOM not in kinds:
        yield route.fault("after", f"only studies become complete, and {_words(kinds)} comes by this route")


def _implicit_findings(source: Stanza, destination: Stanza) -> Iterator[Finding]:
    kinds, carried = _kinds([source]), _carried([destination])
    if kinds and carried and not kinds & carried:
        yield Finding(Fault(destination.path, _nothing_passes(kinds, carried)))


def _idle_findings(
    routes: Sequence[Stanza], sources: Sequence[Stanza], destinations: Sequence[Stanza]
) -> Iterator[Finding]:
    patterns = [pattern for route in routes for pattern in _texts(route, "from")]
    targets = {name for route in routes for name in _texts(route, "to")}
    for stanza in sources:
        name = stanza.text("name")
        brings = bool(_kinds([stanza]))  # a polled worklist is no message that could go anywhere
        if name is not None and brings and not any(fnmatchcase(name, pattern) for pattern in patterns):
            yield stanza.fault(
                "name", f"no route begins at {name!r}: what it brings is kept and sent nowhere", certain=False
            )
    for stanza in destinations:
        name = stanza.text("name")
        if name is not None and name not in targets:
            yield stanza.fault("name", f"no route leads to {name!r}: it gets nothing", certain=False)


def _sources_of(route: Stanza, sources: Sequence[Stanza]) -> list[Stanza]:
    patterns = _texts(route, "from")
    return [stanza for stanza in sources if any(fnmatchcase(stanza.text("name") or "", each) for each in patterns)]


def _destinations_of(route: Stanza, destinations: Sequence[Stanza]) -> list[Stanza]:
    names = _texts(route, "to")
    return [stanza for stanza in destinations if stanza.text("name") in names]


def _texts(route: Stanza, key: str) -> list[str]:
    """Return a list of texts; an item of another type was told already and matches nothing."""
    items = route.table.get(key)
    return [item for item in items if isinstance(item, str)] if isinstance(items, list) else []


def _kinds(sources: Sequence[Stanza]) -> frozenset[Kind]:
    return frozenset().union(*(kinds_of(each.text("type") or "", steps="mpps" in _services(each)) for each in sources))


def _services(source: Stanza) -> Sequence[str]:
    if source.text("type") != "dicom":
        return ()
    return _texts(source, "services") if "services" in source.table else DicomSource.services


def _carried(destinations: Sequence[Stanza]) -> frozenset[Kind]:
    return frozenset().union(*(carried_by(each.text("type") or "", steps=_takes_steps(each)) for each in destinations))


def _takes_steps(destination: Stanza) -> bool:
    return destination.table.get("mpps") is True or "order_status" in destination.table


def _nothing_passes(kinds: frozenset[Kind], carried: frozenset[Kind]) -> str:
    return f"{_words(kinds)} comes in, only {_words(carried)} can go out"


def _words(kinds: frozenset[Kind]) -> str:
    return " and ".join(sorted(kind.value for kind in kinds))
