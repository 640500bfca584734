"""What the demo shows: counts from the agent and from the receivers' own journals, last values, latest messages."""

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.cli.demo_house import DEVICES, RECEIVERS, DemoReceiver

LATEST_MAX = 8
RECENT_MAX = 100_000  # identifiers that are remembered to tell a repeat from news
PRIVATE = "x_"  # keys a driver made up for what has no standard name
ACTS = ("queried", "moved", "cancelled", "started", "stored", "completed", "commitment", "error")
DATA_TOPICS = ("obs", "event", "wave")  # the rest of the feed (status, birth, context) is state, owed to nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverCount:
    """How much one receiver is owed, what the agent says was delivered, and what came by its own journal."""

    name: str
    type: str
    accepted: int
    delivered: int
    received: int

    @property
    def settled(self) -> bool:
        """Return whether everything owed has arrived."""
        return self.accepted == self.delivered <= self.received

    def document(self) -> dict[str, object]:
        """Return it as the command prints it."""
        return {key: getattr(self, key) for key in ("name", "type", "accepted", "delivered", "received")}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """One Device: its state, how many Readings came, and its last values as they left on the feed."""

    name: str
    driver: str
    state: str
    received: int
    values: dict[str, str]

    def document(self) -> dict[str, object]:
        """Return it as the command prints it."""
        return {key: getattr(self, key) for key in ("name", "driver", "state", "received", "values")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything the view shows at one moment."""

    seconds: float
    devices: tuple[DeviceView, ...]
    receivers: tuple[ReceiverCount, ...]
    latest: tuple[str, ...]
    workflow: dict[str, int] = field(default_factory=dict)


@dataclass
class JournalTail:
    """Reads what was appended to a receiver's journal since the last look; repeats of an id count once.

    So do documents on the feed that came of one Message: they share its number.
    """

    receiver: DemoReceiver
    path: Path
    received: int = 0
    latest: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=LATEST_MAX))
    _recent: dict[str, None] = field(default_factory=dict)
    _offset: int = 0

    def look(self) -> None:
        """Take in the complete new lines."""
        if not self.path.exists():
            return
        with self.path.open("rb") as journal:
            journal.seek(self._offset)
            for line in journal:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._take(json.loads(line))

    def _take(self, entry: dict[str, Any]) -> None:
        topic = str(entry.get("topic", ""))
        if topic and topic.rpartition("/")[2] not in DATA_TOPICS:
            return
        number = entry.get("seq") if topic else None
        self._count(str(entry["id"]) if number is None else f"message {number}")
        what = topic or entry["id"]
        self.latest.append((float(entry["at"]), f"{self.receiver.name:8} {what}  {entry['bytes']} bytes"))

    def _count(self, name: str) -> None:
        if name in self._recent:
            return
        self.received += 1
        self._recent[name] = None
        if len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]


@dataclass
class WorkflowTail:
    """Counts what the scheduled modality says it did, from its journal."""

    path: Path
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ACTS, 0))
    _offset: int = 0

    def look(self) -> None:
        """Take in the complete new lines."""
        if not self.path.exists():
            return
        with self.path.open("rb") as journal:
            journal.seek(self._offset)
            for line in journal:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                entry = json.loads(line)
                act = str(entry.get("act", ""))
                if act in self.counts:
                    self.counts[act] += int(entry.get("committed", 0)) if act == "commitment" else 1

    def document(self) -> dict[str, int]:
        """Return the counts; of commitment, how many Instances were committed to."""
        return dict(self.counts)


class LastValues:
    """The last values of each Device, taken from the MQTT feed by the thread that reads it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, str]] = {}

    def take(self, line: str) -> None:
        """Take one line of the consumer: topic and payload; other lines are no matter."""
        try:
            seen = json.loads(line)
        except ValueError:
            return
        payload = seen.get("payload") or {}
        levels = str(seen.get("topic", "")).split("/")
        if levels[-1] != "obs" or len(levels) < 2:
            return
        with self._lock:
            kept = self._values.setdefault(levels[-2], {})
            kept.update(_shown(one) for one in payload.get("observations", ()))

    def of(self, device_id: str) -> dict[str, str]:
        """Return name and value with unit of what a Device said last."""
        with self._lock:
            return dict(self._values.get(device_id, {}))


def _shown(observation: dict[str, Any]) -> tuple[str, str]:
    value = observation.get("value", observation.get("absent", "-"))
    name = observation.get("key") or observation.get("refid") or observation.get("mdc")
    return str(name), f"{value} {observation.get('unit') or ''}".strip()


def take_snapshot(
    seconds: float,
    status: dict[str, Any],
    tails: tuple[JournalTail, ...],
    values: LastValues,
    workflow: WorkflowTail | None = None,
) -> Snapshot:
    """Bring the agent's status, the journals and the feed together."""
    sources = {source["name"]: source for source in status.get("sources", ())}
    destinations = {destination["name"]: destination for destination in status.get("destinations", ())}
    for tail in tails:
        tail.look()
    if workflow is not None:
        workflow.look()
    devices = tuple(
        DeviceView(
            name=device.name,
            driver=device.driver,
            state=str(sources.get(device.name, {}).get("state", "unknown")),
            received=int(sources.get(device.name, {}).get("received", 0)),
            values=values.of(device.device_id),
        )
        for device in DEVICES
    )
    receivers = tuple(
        ReceiverCount(
            name=receiver.name,
            type=receiver.type,
            accepted=int(destinations.get(receiver.name, {}).get("accepted", 0)),
            delivered=int(destinations.get(receiver.name, {}).get("delivered", 0)),
            received=tail.received,
        )
        for receiver, tail in zip(RECEIVERS, tails, strict=True)
    )
    latest = sorted(entry for tail in tails for entry in tail.latest)[-LATEST_MAX:]
    return Snapshot(
        seconds=seconds,
        devices=devices,
        receivers=receivers,
        latest=tuple(text for _, text in latest),
        workflow={} if workflow is None else workflow.document(),
    )


def render(snapshot: Snapshot) -> list[str]:
    """Return the view as lines of text."""
    lines = [f"gateway demo, {snapshot.seconds:.0f} s   (all data are synthetic; Ctrl-C ends)", ""]
    lines += [f"{'device':24} {'state':9} {'readings':>8}   last values"]
    for device in snapshot.devices:
        known = (item for item in sorted(device.values.items()) if not item[0].startswith(PRIVATE))
        shown = "   ".join(f"{name} {value}" for name, value in known)
        lines.append(f"{device.name:24} {device.state:9} {device.received:8}   {shown}")
    lines += ["", f"{'receiver':16} {'type':9} {'accepted':>8} {'delivered':>9} {'received':>8}"]
    for one in snapshot.receivers:
        lines.append(f"{one.name:16} {one.type:9} {one.accepted:8} {one.delivered:9} {one.received:8}")
    if snapshot.workflow:
        lines += ["", "scheduled workflow: " + "   ".join(f"{act} {count}" for act, count in snapshot.workflow.items())]
    return [*lines, "", "latest at the receivers", *snapshot.latest]


def render_line(snapshot: Snapshot) -> str:
    """Return the view as one line, for where there is no terminal."""
    counts = "  ".join(f"{one.name} {one.received}/{one.delivered}/{one.accepted}" for one in snapshot.receivers)
    return f"{snapshot.seconds:5.0f} s  received/delivered/accepted: {counts}"
