"""The verdict on a campaign: what senders and receivers journalled, against each other and against the store."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gateway.formats.dicom import read_meta
from gateway.model import Kind
from gateway.spool import Spool
from gateway.store.connection import open_reader
from simulators.journal import read_journal
from tests.crash.world import World

ACCEPTED = frozenset({"AA", "CA", "0000"})


@dataclass
class Verdict:
    """The numbers of build/crash.json; `lost` to `unexpected` must be 0."""

    name: str
    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    out_of_order: int = 0
    changed: int = 0
    repeated_new_id: int = 0
    unexpected: int = 0  # answers other than the campaign demands
    stored: int = 0
    delivered: int = 0
    repeated: int = 0
    promised: int = 0  # requests for commitment that were answered with Success
    committed: int = 0  # Instances in their reports
    arrived_a_second: float = 0.0  # Instances, when the PACS was back
    line_a_second: float = 0.0  # the same by DCMTK's storescu
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Return whether nothing went wrong and something went on at all."""
        wrong = self.lost + self.out_of_order + self.changed + self.repeated_new_id + self.unexpected
        return wrong == 0 and self.acknowledged > 0 and self.delivered > 0

    def as_json(self) -> dict[str, object]:
        """Return the entry of build/crash.json."""
        return asdict(self)

    def note(self, text: str) -> None:
        """Keep a word about what is wrong, the first few."""
        if len(self.notes) < 20:
            self.notes.append(text)


@dataclass(frozen=True)
class Owed:
    """One Delivery of the store, and by what it is known at its Destination."""

    number: int
    source: str
    kind: Kind
    identifier: str | None
    key: str
    sha256: str | None  # of what must arrive, where the gateway may not change it
    queue: str = ""  # within which order is kept: a study's Instances; everything else of a Destination together


def judge(world: World, name: str, kills: int, seconds: float) -> Verdict:
    """Compare everything; the agent is stopped and everything is drained."""
    verdict = Verdict(name=name, kills=kills, seconds=round(seconds, 1))
    owed = _read_store(world.data, verdict)
    acknowledged = {
        source: {
            str(line["id"]): str(line["sha256"])
            for line in read_journal(world.journal(source))
            if _accepted(line, "code")
        }
        for source in ("emr", "imaging")
    }
    verdict.acknowledged = sum(len(ids) for ids in acknowledged.values())
    for destination, deliveries in owed.items():
        _judge_destination(world, destination, deliveries, acknowledged, verdict)
    if not owed:
        verdict.lost += verdict.acknowledged
    _judge_promises(world, acknowledged["imaging"], verdict)
    return verdict


def _judge_promises(world: World, acknowledged: dict[str, str], verdict: Verdict) -> None:
    """Every request for commitment that was answered 0000 is reported on, and all reports say what is so.

    What was acknowledged is committed to; what is committed to lies there once, whole, as the modality sent it.
    """
    promised: dict[str, set[str]] = {}
    reports: dict[str, set[tuple[frozenset[str], frozenset[str]]]] = {}
    for line in read_journal(world.journal("imaging")):
        match line.get("act"):
            case "promised":
                promised[str(line["id"])] = set(_uids(line["instances"]))
            case "reported":
                told = (frozenset(_uids(line["committed"])), frozenset(_uids(line["failed"])))
                reports.setdefault(str(line["id"]), set()).add(told)
    verdict.promised = len(promised)
    for transaction, instances in promised.items():
        if transaction not in reports:
            verdict.lost += 1
            verdict.note(f"commitment {transaction} was promised and never reported on")
        elif any(committed != instances for committed, _ in reports[transaction]):
            verdict.lost += 1
            verdict.note(f"commitment {transaction} was refused for what had been acknowledged")
    committed = {uid for told in reports.values() for taken, _ in told for uid in taken}
    verdict.committed = len(committed)
    _judge_committed(world, committed, acknowledged, verdict)


def _judge_committed(world: World, committed: set[str], acknowledged: dict[str, str], verdict: Verdict) -> None:
    spool = Spool(world.data / "spool")
    connection = open_reader(world.data / "gateway.db")
    held: dict[str, list[tuple[str, bytes]]] = {}
    for uid, name, digest in connection.execute("SELECT identifier, object, digest FROM message WHERE kind = 'dicom'"):
        held.setdefault(uid, []).append((name, digest))
    connection.close()
    for uid in committed:
        found = held.get(uid, [])
        whole = [_sha256(spool.path_of(name)) for name, digest in found if spool.verify(name, digest) is None]
        if not whole:
            verdict.lost += 1
            verdict.note(f"instance {uid} was committed to and is not there")
        elif len(found) > 1 or whole != [acknowledged.get(uid, whole[0])]:
            verdict.changed += 1
            verdict.note(f"instance {uid} was committed to and is another one")


def _sha256(path: Path) -> str:
    """Return that of a file's data set."""
    return hashlib.sha256(path.read_bytes()[read_meta(path).dataset_offset :]).hexdigest()


def _uids(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(each) for each in value]


def _accepted(line: dict[str, Any], key: str) -> bool:
    return str(line.get(key, "")) in ACCEPTED


def _read_store(data: Path, verdict: Verdict) -> dict[str, list[Owed]]:
    connection = open_reader(data / "gateway.db")
    epoch = connection.execute("SELECT value FROM about WHERE name = 'epoch'").get
    rows = connection.execute(
        "SELECT d.id, d.ordinal, e.name, s.name, m.kind, m.identifier, m.raw,"
        " m.headers ->> 'StudyInstanceUID' FROM delivery d"
        " JOIN message m ON m.id = d.message JOIN endpoint e ON e.id = d.destination"
        " JOIN endpoint s ON s.id = m.source ORDER BY d.id"
    )
    owed: dict[str, list[Owed]] = {"slow": [], "healthy": [], "broker": [], "pacs": []}
    for number, ordinal, destination, source, kind_text, identifier, raw, study in rows:
        kind = Kind(kind_text)
        sha256 = hashlib.sha256(raw).hexdigest() if kind is Kind.HL7 else None
        key = _key(destination, kind, identifier, sha256, ordinal, f"{epoch}-{number}")
        owed[destination].append(Owed(number, source, kind, identifier, key, sha256, study or ""))
    verdict.stored = int(str(connection.execute("SELECT count(*) FROM message").get))
    twice = connection.execute(
        "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) n FROM message WHERE identifier IS NOT NULL"
        " GROUP BY source, identifier, digest HAVING n > 1)"
    ).get
    if twice:
        verdict.repeated_new_id += int(str(twice))
        verdict.note(f"{twice} repeats were stored as new messages")
    unsettled = connection.execute("SELECT count(*) FROM delivery WHERE state <> 1").get
    if unsettled:
        verdict.note(f"{unsettled} deliveries are not delivered")
    check = connection.execute("PRAGMA integrity_check(1)").get
    if check != "ok":
        verdict.changed += 1
        verdict.note(f"integrity_check: {check}")
    connection.close()
    return owed


def _key(
    destination: str, kind: Kind, identifier: str | None, sha256: str | None, ordinal: int, control_id: str
) -> str:
    """Return by what a receiver's journal knows a Delivery."""
    if destination == "broker":  # HL7 arrives as it is, without an envelope; Observations carry their number
        return f"sha256 {sha256}" if kind is Kind.HL7 else f"seq {ordinal}"
    return control_id if kind is Kind.OBSERVATIONS else identifier or ""


def _arrivals(world: World, destination: str) -> Iterable[tuple[str, str, str, bool]]:
    """Yield key, id, sha256 and whether it was taken, in the order of arrival."""
    for line in read_journal(world.journal(destination)):
        sha256, number = str(line["sha256"]), str(line["id"])
        if destination != "broker":
            yield number, number, sha256, _accepted(line, "answer") and line.get("fault") not in ("half", "wrong_id")
        elif str(line["topic"]).endswith("/hl7"):
            yield f"sha256 {sha256}", sha256, sha256, True
        elif str(line["topic"]).endswith("/obs"):
            yield f"seq {line['seq']}", number, sha256, True


def _judge_destination(
    world: World, destination: str, owed: list[Owed], acknowledged: dict[str, dict[str, str]], verdict: Verdict
) -> None:
    expected = {one.key: one for one in owed}
    ids: dict[str, set[str]] = {}
    contents: dict[str, set[str]] = {}
    taken: set[str] = set()
    latest: dict[str, int] = {}
    for key, number, sha256, accepted in _arrivals(world, destination):
        one = expected.get(key)
        if one is None:
            verdict.repeated_new_id += 1
            verdict.note(f"{destination}: {key} arrived and is owed by nobody")
            continue
        if key in ids:
            verdict.repeated += 1
        elif one.number < latest.get(one.queue, 0):
            verdict.out_of_order += 1
            verdict.note(f"{destination}: delivery {one.number} first arrived after {latest[one.queue]}")
        latest[one.queue] = max(latest.get(one.queue, 0), one.number)
        ids.setdefault(key, set()).add(number)
        contents.setdefault(key, set()).add(sha256)
        if accepted:
            taken.add(key)
    verdict.delivered += len(taken)
    verdict.repeated_new_id += sum(len(seen) - 1 for seen in ids.values())
    _judge_content(destination, expected, contents, acknowledged, verdict)
    missing = [key for key in expected if key not in taken]
    kept = {one.identifier for one in owed}
    sources = {"slow": ["emr"], "healthy": ["emr"], "broker": ["emr"], "pacs": ["imaging"]}[destination]
    forgotten = [number for source in sources for number in acknowledged[source] if number not in kept]
    verdict.lost += len(missing) + len(forgotten)
    for what, numbers in (("never arrived", missing), ("was acknowledged and is not in the store", forgotten)):
        if numbers:
            verdict.note(f"{destination}: {len(numbers)} {what}, the first {numbers[0]}")


def _judge_content(
    destination: str,
    expected: dict[str, Owed],
    contents: dict[str, set[str]],
    acknowledged: dict[str, dict[str, str]],
    verdict: Verdict,
) -> None:
    """HL7 and Instances arrive as they were sent; an HL7 message made from Observations is the same on every repeat."""
    for key, seen in contents.items():
        one = expected[key]
        if one.kind is Kind.OBSERVATIONS:
            wrong = destination != "broker" and len(seen) > 1  # on MQTT `sent_at` is each publication's own
        else:
            sent = acknowledged[one.source].get(one.identifier or "", one.sha256)
            wrong = sent is not None and seen != {sent}
        if wrong:
            verdict.changed += 1
            verdict.note(f"{destination}: delivery {one.number} ({one.kind.value}) arrived changed")
