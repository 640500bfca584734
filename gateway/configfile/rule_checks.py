"""What routes change of Instances: attributes that cannot be, and de-identified objects beside others."""

from collections.abc import Iterator, Mapping

from gateway.configfile.checks import Finding, Stanza, Tables, stanzas

_ACTS = ("hash", "copy", "set", "remove")


def rule_findings(tables: Tables) -> Iterator[Finding]:
    """Report attributes that a route cannot change, and Destinations that would get identified objects as well."""
    routes = stanzas(tables, "route")
    for route in routes:
        for act in _ACTS:
            if act in route.table:  # the data dictionary costs 0.1 s: only where a route asks for it
                yield from _act_findings(route, act)
    yield from _mixed_findings(routes)


def _act_findings(route: Stanza, act: str) -> Iterator[Finding]:
    from gateway.formats.dicom_path import change_faults

    value = route.table[act]
    if isinstance(value, Mapping):
        paths, read = list(value), list(value.values()) if act == "copy" else []
    else:
        paths, read = (list(value), []) if isinstance(value, list) else ([], [])
    faults = change_faults(act, (text for text in paths if isinstance(text, str)))
    faults += change_faults("read", (text for text in read if isinstance(text, str)))
    for text in faults:
        yield route.fault(act, text)


def _mixed_findings(routes: list[Stanza]) -> Iterator[Finding]:
    """A name that arrives by one route identifies what arrives by the other."""
    clean = {name for route in routes if "deidentify" in route.table for name in _targets(route)}
    for route in routes:
        if "deidentify" not in route.table:
            for name in _targets(route):
                if name in clean:
                    yield route.fault(
                        "to", f"{name!r} gets de-identified objects by another route, and would get others by this one"
                    )


def _targets(route: Stanza) -> list[str]:
    names = route.table.get("to")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
