"""What a `[[route]]` changes of Instances, read once; the changes are made in the order in which they stand here."""

from dataclasses import dataclass

from gateway.config import Route
from gateway.formats.dicom_path import Path, read_path
from gateway.typed import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """All that one route changes of an Instance."""

    hashed: tuple[Path, ...] = ()
    copied: tuple[tuple[Path, Path], ...] = ()  # to, from
    assigned: tuple[tuple[Path, str], ...] = ()
    removed: tuple[Path, ...] = ()
    deidentify: bool = False
    options: frozenset[str] = frozenset()
    safe_private: frozenset[str] = frozenset()
    coerce: bool = False
    secret: Secret | None = None


def read_rule(route: Route) -> Rule | None:
    """Return what a route changes, None where it changes nothing. Raises ValueError for a path at fault, which the
    configuration's check reports.
    """
    if not route.changes:
        return None
    return Rule(
        hashed=tuple(map(read_path, route.hashed)),
        copied=tuple((read_path(to), read_path(origin)) for to, origin in route.copied.items()),
        assigned=tuple((read_path(to), value) for to, value in route.assigned.items()),
        removed=tuple(map(read_path, route.removed)),
        deidentify=route.deidentify is not None,
        options=frozenset(route.deidentify_options),
        safe_private=frozenset(route.safe_private),
        coerce=route.coerce is not None,
        secret=route.secret,
    )
