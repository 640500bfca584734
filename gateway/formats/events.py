"""The JSON documents on MQTT, version 1 (schema: mqtt.schema.json): what all of them share, and `status`, `birth`
and `context`. What a Result becomes stands in `result_documents.py`.

Numbers keep the digits of the Device; instants are RFC 3339 UTC with milliseconds. Ids of these documents differ with
each writing.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID, uuid5

from gateway.formats.births import Birth, Metric
from gateway.formats.jsontext import Json, Written, write_json
from gateway.formats.origin import Origin, gateway_level
from gateway.model import Message

SCHEMA_ROOT = "https://gateway.example.org/schema/"

_NAMESPACE = UUID("8a1f6c0e-5b0d-5d0b-9a3e-4e1f6a2c7d55")  # ours, drawn once, never to change
_TEXT_MAX = 60  # of a part of a location (schema)

State = Literal["starting", "online", "stopping", "offline", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What every document carries: who writes, in which session (start of the connection), which number, when."""

    gateway: str
    session: str
    seq: int
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One payload: its id (UUID), its schema by short name (`obs/1`), and its bytes."""

    id: str
    schema: str
    body: bytes

    @property
    def kind(self) -> str:
        """Return the last level of its topic: `obs`."""
        return self.schema.partition("/")[0]


def rfc3339(at: datetime) -> str:
    """Return an instant as `2026-01-15T09:30:31.250Z`."""
    return f"{at.astimezone(UTC).isoformat(timespec='milliseconds')[:-6]}Z"


def session_of(connected_at: datetime) -> str:
    """Return a session's name, its start: sessions sort by it as text."""
    utc = connected_at.astimezone(UTC)
    return f"{utc:%Y%m%dT%H%M%S}.{utc.microsecond // 1000:03d}Z"


def status(
    envelope: Envelope,
    state: State,
    *,
    version: str | None = None,
    started_at: datetime | None = None,
    devices: int = 0,
) -> Document:
    """Return the gateway's own state; `lost` is its last will and carries the state alone."""
    told: dict[str, Json] = {"state": state}
    if state != "lost":
        told |= {"version": version or "", "started_at": rfc3339(started_at or envelope.sent_at), "devices": devices}
    return document("status", envelope, _id_of("status", envelope, state), told)


def birth(envelope: Envelope, known: Birth) -> Document:
    """Return what a consumer must know to read the Device's observations."""
    names = {name: getattr(known.identity, name) for name in ("manufacturer", "model", "serial", "software")}
    device = {"eui64": known.origin.device_id, **given(names)}
    rows: list[Json] = [{"sub": row.sub, "mdc": row.code, "refid": row.refid} for row in known.levels]
    told: dict[str, Json] = {
        "device": device,
        "containment": rows,
        "metrics": [_metric(item) for item in known.metrics],
    }
    return document("birth", envelope, _id_of("birth", envelope, known.origin.device_id), told)


def context(envelope: Envelope, origin: Origin, since: datetime) -> Document:
    """Return where the Device stands; nobody is associated with it."""
    told: dict[str, Json] = {"location": location(origin), "patient": None, "since": rfc3339(since)}
    return document("context", envelope, _id_of("context", envelope, origin.device_id), told)


def hl7_id(message: Message) -> str:
    """Return the id of an HL7 message on MQTT: the same for the same bytes of the same Source."""
    content = hashlib.sha256(message.raw or b"").hexdigest()
    return str(uuid5(_NAMESPACE, f"hl7/{message.source}/{content}"))


def document(kind: str, envelope: Envelope, document_id: str, told: Mapping[str, Json]) -> Document:
    """Return a document of a kind (`obs`): the envelope's members, then what is told."""
    head: dict[str, Json] = {
        "schema": f"{SCHEMA_ROOT}{kind}/1",
        "id": document_id,
        "gateway": gateway_level(envelope.gateway),
        "session": envelope.session,
        "seq": envelope.seq,
        "sent_at": rfc3339(envelope.sent_at),
    }
    return Document(id=document_id, schema=f"{kind}/1", body=write_json({**head, **told}))


def content_id(kind: str, origin: Origin, effective: datetime, content: Written) -> str:
    """Return the UUIDv5 of what a Device showed at an instant: the same content has the same id for ever."""
    digest = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
    return str(uuid5(_NAMESPACE, f"{kind}/{origin.device_id}/{effective.astimezone(UTC).isoformat()}/{digest}"))


def _id_of(kind: str, envelope: Envelope, about: str) -> str:
    place = f"{kind}/{envelope.gateway}/{envelope.session}/{envelope.seq}/{about}"
    return str(uuid5(_NAMESPACE, f"{place}/{envelope.sent_at.isoformat()}"))


def given(values: Mapping[str, Json]) -> dict[str, Json]:
    """Return what is not None."""
    return {name: value for name, value in values.items() if value is not None}


def location(origin: Origin) -> Json:
    """Return where a Device stands, its parts cut to what the schema takes."""
    return {name: part[:_TEXT_MAX] for name, part in origin.place().items()}


def _metric(item: Metric) -> Json:
    told: dict[str, Json] = {"key": item.key, "sub": item.sub}
    told |= given({"mdc": item.code, "refid": item.refid})
    told |= {"kind": item.kind, **given({"unit": item.unit, "period_s": item.period_s})}
    told |= given({"limits": limits(item.low, item.high)})
    return told


def limits(low: Decimal | None, high: Decimal | None) -> Json:
    """Return alarm limits as an object, None where there are none."""
    return given({"low": low, "high": high}) or None
