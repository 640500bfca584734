"""From files to a checked Config, or to all that is wrong with them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Config
from gateway.configfile.checks import (
    Finding,
    device_findings,
    encoding_findings,
    listener_findings,
    name_findings,
)
from gateway.configfile.file_checks import file_findings
from gateway.configfile.reading import Merged, PlacedFault, read_files
from gateway.configfile.route_checks import route_findings
from gateway.configfile.rule_checks import rule_findings
from gateway.configfile.worklist_checks import worklist_findings
from gateway.driver import Driver
from gateway.errors import ConfigError
from gateway.typed import Fault, build

SYSTEM_FILE = Path("/etc/gateway/gateway.toml")
LOCAL_FILE = Path("gateway.toml")


@dataclass(frozen=True)
class Loaded:
    """What the files say. There is a config or there are faults, in the order of the files; each prints as one line."""

    config: Config | None
    faults: tuple[PlacedFault, ...] = ()
    warnings: tuple[PlacedFault, ...] = ()
    files: tuple[Path, ...] = ()

    def required(self) -> Config:
        """Return the config; raises ConfigError with every fault as a line."""
        if self.config is None:
            raise ConfigError(*map(str, self.faults))
        return self.config


def find_config(explicit: Path | None = None) -> Path:
    """Return the file that was named, else the system's where there is one, else the one in the working folder."""
    if explicit is not None:
        return explicit
    try:
        return SYSTEM_FILE if SYSTEM_FILE.exists() else LOCAL_FILE
    except PermissionError:  # its folder is closed to this user: the reading tells
        return SYSTEM_FILE


def load(path: Path, drivers: Mapping[str, type[Driver]] | None = None) -> Loaded:
    """Read and check a configuration file and the `conf.d/*.toml` beside it.

    All faults are told in one run; but where a file is no TOML, only such faults are, because the rest could mean
    anything. Certificates and secrets are read, ports are not opened. `drivers` takes the
    place of the installed ones.
    """
    merged = read_files(path)
    files = tuple(merged.files)
    if not merged.whole:
        return Loaded(None, tuple(merged.faults), files=files)
    config, faults = build(Config, merged.tables)
    found = [*map(Finding, faults), *_cross_checks(merged, drivers)]
    if config is not None and not config.sources and not config.destinations:
        fault = Fault((), "neither a source nor a destination stands here: was the file emptied?")
        found.append(Finding(fault, certain=not merged.tables))
    certain = _in_order(merged, [*merged.faults, *(_placed(merged, each) for each in found if each.certain)])
    doubtful = _in_order(merged, [_placed(merged, each) for each in found if not each.certain])
    return Loaded(None if certain else config, certain, doubtful, files)


def _cross_checks(merged: Merged, drivers: Mapping[str, type[Driver]] | None) -> Iterator[Finding]:
    def where(path: tuple[str | int, ...]) -> str:
        return str(merged.mark(path).place)

    yield from name_findings(merged.tables, where)
    yield from listener_findings(merged.tables, where)
    yield from device_findings(merged.tables, where, drivers)
    yield from encoding_findings(merged.tables)
    yield from worklist_findings(merged.tables)
    yield from route_findings(merged.tables)
    yield from rule_findings(merged.tables)
    yield from file_findings(merged.tables)


def _placed(merged: Merged, finding: Finding) -> PlacedFault:
    mark = merged.mark(finding.fault.path)
    return PlacedFault(mark.place if finding.offset is None else mark.inside(finding.offset), finding.fault)


def _in_order(merged: Merged, faults: list[PlacedFault]) -> tuple[PlacedFault, ...]:
    order = {file: number for number, file in enumerate(merged.files)}
    return tuple(sorted(faults, key=lambda each: (order[each.place.file], each.place.line, each.place.column)))
