"""`gateway backup` and `gateway verify`: both read only, beside a running agent or without one.

Neither asks the agent to work: a reader's snapshot is consistent without it, and what the agent's sandbox may not write
(a USB disk) its operator may.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.cli.client import AgentNotRunning, call
from gateway.cli.messages import reading
from gateway.cli.output import add_json, print_json, size
from gateway.cli.settings import read_config
from gateway.clock import SystemClock
from gateway.config import Config
from gateway.errors import GatewayError
from gateway.spool import Spool
from gateway.store.backup import write_backup
from gateway.store.checking import check_counters, check_structure, object_is_named
from gateway.store.reading import object_digest, object_names
from gateway.store.store import Readers

YOUNG_S = 120.0  # beside a running agent: an object lies in the spool before its row is committed


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong: `store`, `counter`, `missing`, `changed` or `orphan`, of which object, and what."""

    kind: str
    object: str | None
    text: str


def add_backup_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `backup` takes."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a tar file to write; .gz or .tgz compresses")
    add_json(parser)


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `verify` takes."""
    add_json(parser)


def backup(arguments: argparse.Namespace) -> int:
    """Write the backup, and a row in the audit trail where an agent runs."""
    data_dir = read_config(arguments).gateway.data_dir
    file = arguments.file.absolute()
    written = write_backup(data_dir, file, SystemClock().now())
    _note(data_dir, f"{len(written.members)} files, {written.size} bytes")
    if arguments.json:
        document = {"file": file, "size": written.size, "files": len(written.members), "gone": written.gone}
        print_json(document)
    else:
        print(f"{file}: {len(written.members)} files, {size(written.size)}")
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Check store and spool against each other; 0 when all is whole, else 1."""
    config = read_config(arguments)
    running = _agent_runs(config.gateway.data_dir)
    checked, faults = _verify(config, young_s=YOUNG_S if running else 0.0)
    if arguments.json:
        print_json({"objects": checked, "faults": [asdict(fault) for fault in faults]})
    else:
        for fault in faults:
            print(f"{fault.kind:<9}{fault.object or ''} {fault.text}".rstrip())
        print(f"{checked} objects checked, {len(faults)} faults")
    return 1 if faults else 0


def _note(data_dir: Path, detail: str) -> None:
    try:
        call(data_dir, "note", {"act": "backup", "detail": detail})
    except AgentNotRunning:
        return  # whoever reads the folder while nothing runs could copy it by hand as well


def _agent_runs(data_dir: Path) -> bool:
    try:
        call(data_dir, "status")
    except AgentNotRunning:
        return False
    except GatewayError:
        return True  # it listens; how it is, is not asked here
    return True


def _verify(config: Config, *, young_s: float) -> tuple[int, list[Fault]]:
    data_dir = config.gateway.data_dir
    spool = Spool(data_dir / "spool")
    with reading(config) as readers:
        faults = [Fault(kind="store", object=None, text=text) for text in check_structure(readers.connection)]
        if faults:
            return 0, faults  # what its rows say cannot be believed
        faults += [Fault(kind="counter", object=None, text=text) for text in check_counters(readers.connection)]
        checked, wrong = _check_objects(readers, spool)
        return checked, faults + wrong + _find_orphans(readers, spool, young_s)


def _check_objects(readers: Readers, spool: Spool) -> tuple[int, list[Fault]]:
    """Hash every object that a row refers to."""
    checked, faults, after = 0, [], ""
    while names := object_names(readers.connection, after):
        for name in names:
            digest = object_digest(readers.connection, name)
            if digest is None:  # retention has come by
                continue
            checked += 1
            text = spool.verify(name, digest)
            if text is not None and object_is_named(readers.connection, name):  # retention may have come by
                faults.append(Fault(kind="missing" if text == "missing" else "changed", object=name, text=text))
        after = names[-1]
    return checked, faults


def _find_orphans(readers: Readers, spool: Spool, young_s: float) -> list[Fault]:
    """Return the objects that no row refers to, but those that have only just come."""
    if not spool.objects.is_dir():
        return []
    newest = SystemClock().now().timestamp() - young_s
    faults = []
    for name in spool.names():
        if object_is_named(readers.connection, name):
            continue
        try:
            linked_at = spool.path_of(name).stat().st_ctime
        except FileNotFoundError:
            continue
        if linked_at <= newest or young_s == 0.0:
            faults.append(Fault(kind="orphan", object=name, text="no message refers to it"))
    return sorted(faults, key=lambda fault: fault.object or "")
